//! The driver of one reconcile.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action as Requeue;
use operator_core::api::WorkerDeployment;
use operator_core::backoff::RetryClass;
use operator_core::commands;
use operator_core::cordon::OrderKey;
use operator_core::fleet::{self, Fleet, Surroundings};
use operator_core::observed::{FailureClass, KubeState, Observation, TemporalState};
use operator_core::plan::{self, Plan, PlanInput};
use operator_core::rollout::{Hold, Order, Stage, Strategy};
use operator_core::scaling::{DecisionRecord, State};
use operator_core::status::{self, Blocked, StatusInput};
use operator_core::versions;
use tokio::time::Instant;

use super::carry_out::{Failure, Outcome, Work, carry_out};
use super::cordon::{self, Known};
use super::memory::Memory;
use super::{Context, checkpoint, connect, deletion, loads, report};
use crate::changes::FleetId;
use crate::kube::apply;
use crate::kube::client::CallError;
use crate::kube::observe::{self, ConnectionProblem, ConnectionState, FleetKey};
use crate::kube::views::PodView;
use crate::kube::watches::Guarded;
use crate::settings::{RECONCILE_DEADLINE, RESYNC};
use crate::temporal::{Connection, Phase, Watch};

/// Time after which a decision that lost a race is made again.
const AGAIN: Duration = Duration::from_millis(200);
/// Time after which a fleet with credentials is looked at again, so that its Secret is.
const CREDENTIALS_RECHECK: Duration = Duration::from_secs(60);

/// Age up to which a reading need not be taken anew before a fleet goes to zero.
const JUST_READ: Duration = Duration::from_secs(2);

/// Why a reconcile failed. The status says more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The reconcile took too long.
    #[error("not finished within {} s", RECONCILE_DEADLINE.as_secs())]
    Deadline,
    /// The plan could not be carried out.
    #[error(transparent)]
    CarryOut(#[from] Failure),
    /// The API server could not be asked.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl Error {
    /// How soon it is worth another try.
    #[must_use]
    pub fn class(&self) -> RetryClass {
        match self {
            Self::CarryOut(Failure::Apply { error: crate::kube::apply::ApplyError::Foreign(_), .. }) => {
                RetryClass::Config
            }
            Self::CarryOut(Failure::Routing { failure, .. }) if failure.class == FailureClass::ResourceExhausted => {
                RetryClass::RateLimited
            }
            _ => RetryClass::Transient,
        }
    }
}

/// Reconciles one fleet, within the deadline.
///
/// # Errors
/// [`Error`], for another try after a backoff.
pub async fn reconcile(object: Arc<Guarded<WorkerDeployment>>, ctx: Arc<Context>) -> Result<Requeue, Error> {
    if !ctx.leadership.may_write() {
        return Ok(Requeue::await_change());
    }
    let started = Instant::now();
    let result = tokio::time::timeout(RECONCILE_DEADLINE, run(&object, &ctx)).await.unwrap_or(Err(Error::Deadline));
    ctx.shared.metrics.reconciled(started.elapsed(), result.is_ok());
    result
}

async fn run(object: &Guarded<WorkerDeployment>, ctx: &Context) -> Result<Requeue, Error> {
    let wd = match &object.0 {
        Ok(wd) => wd,
        Err(invalid) => {
            tracing::warn!(name = object.name_any(), error = %invalid.error, "stored WorkerDeployment can't be read");
            return Ok(Requeue::await_change());
        }
    };
    if wd.metadata.deletion_timestamp.is_some() && !apply::is_protected(&wd.metadata) {
        forget(ctx, &FleetId::from(wd.uid().unwrap_or_default()));
        return Ok(Requeue::await_change());
    }
    let (namespace, name, uid) = (wd.namespace().unwrap_or_default(), wd.name_any(), wd.uid().unwrap_or_default());
    let key = FleetKey { namespace: &namespace, name: &name, uid: &uid };
    let id = FleetId::from(uid.as_str());
    let mut memory = ctx.shared.memories.get(&id);
    memory.key = (namespace.clone(), name.clone());
    let reconcile = Reconcile { wd, ctx, key, id: &id };
    let result = match &wd.metadata.deletion_timestamp {
        Some(since) => deletion::run(&reconcile, since.0, &mut memory).await,
        None => reconcile.run(&mut memory).await,
    };
    if result.is_ok() {
        memory.backoff = Default::default();
    }
    ctx.shared.memories.put(&id, memory);
    result
}

/// Ends everything that goes on for a fleet.
pub fn forget(ctx: &Context, fleet: &FleetId) {
    ctx.shared.poller.remove(fleet);
    ctx.shared.scraper.remove(fleet);
    ctx.shared.heartbeats.remove(fleet);
    ctx.shared.cordons.remove(fleet);
    ctx.shared.memories.remove(fleet);
    ctx.shared.metrics.forget(fleet);
}

/// Whether a target polls all that it must, so that it need not be looked at each second.
fn is_settled(stage: &Stage) -> bool {
    match stage {
        Stage::Unknown | Stage::Registering { .. } => false,
        Stage::Waiting(hold) => !matches!(hold, Hold::Changing(_) | Hold::Pods { .. }),
        Stage::Ramping { .. } | Stage::Current => true,
    }
}

/// One fleet at one reconcile.
pub(super) struct Reconcile<'a> {
    pub wd: &'a WorkerDeployment,
    pub ctx: &'a Context,
    pub key: FleetKey<'a>,
    pub id: &'a FleetId,
}

/// What was resolved before anything is planned.
struct Resolved {
    fleet: Fleet,
    connection: Arc<Connection>,
}

impl Reconcile<'_> {
    async fn run(&self, memory: &mut Memory) -> Result<Requeue, Error> {
        let shared = &self.ctx.shared;
        let order_key = shared.order_keys.get(&self.ctx.leadership).await;
        let mut kube = self.observe_kube(order_key.as_ref());
        let resolved = match self.resolve(&kube, order_key.as_ref()).await? {
            Ok(resolved) => resolved,
            Err(blocked) => return self.report_blocked(&blocked, &kube, memory).await,
        };
        let Resolved { fleet, connection } = &resolved;
        loads::add_heartbeats(&shared.heartbeats, self.id, fleet, connection, &mut kube);
        let seen = shared.poller.snapshot(self.id, Instant::now());
        self.watch(&resolved, &kube, &seen, memory);
        // What is proven by free slots counts for longer: by those of this look, and not by those of the one before.
        let temporal = shared.poller.snapshot(self.id, Instant::now());
        self.remember(fleet, &kube, &temporal, memory).await?;
        let plan = self.plan(fleet, &kube, &temporal, memory);
        self.record(&plan, &memory.scaling);
        if let Some(key) = &order_key {
            cordon::order(self.ctx, &self.key, self.id, &kube, (key, &plan.cordon));
        }
        self.be_sure(fleet, &plan, &temporal);
        let outcome = self.carry_out(&resolved, &kube, &plan, memory).await;
        if outcome.failure.is_none() {
            memory.scaling = plan.scaling.clone();
            memory.others.extend(plan.others.iter().map(|(child, other)| (child.clone(), other.scaling.clone())));
        }
        memory.settled = fleet.build_id.clone().filter(|_| plan.stage().is_none_or(is_settled));
        let obeyed = self.order(fleet, memory);
        let pending = self.report(fleet, &kube, &temporal, (&plan, &outcome), memory).await?;
        // A command counts once it is written down: then it is planned for.
        let ordered = self.order(fleet, memory) != obeyed;
        let again = if ordered { Some(AGAIN) } else { pending.then_some(status::QUIET_WRITE_INTERVAL) };
        checkpoint::save(&self.ctx.client, &self.ctx.leadership, self.id, memory).await;
        self.next(fleet, &plan, outcome, again)
    }

    /// Sees to it that the memory is about the fleet's children: what an earlier process knew, or nothing.
    async fn remember(
        &self,
        fleet: &Fleet,
        kube: &KubeState,
        temporal: &TemporalState,
        memory: &mut Memory,
    ) -> Result<(), Error> {
        let main = versions::main_child(fleet, kube, temporal).map_or(&fleet.child_name, |child| &child.name);
        if memory.child.is_empty() {
            if fleet.scaling.is_some() {
                memory.scaling = checkpoint::restore(&self.ctx.client, &self.key).await?;
            }
            memory.child.clone_from(main);
        }
        memory.follow(main, &kube.children);
        // Nothing but the status is written of a fleet that is only watched.
        if fleet.scaling.as_ref().is_none_or(|scaling| scaling.dry_run) {
            memory.saved = None;
        } else if memory.saved.is_none() {
            memory.saved = Some((memory.scaling.clone(), std::time::Instant::now()));
        }
        Ok(())
    }

    pub(super) fn observe_kube(&self, order_key: Option<&OrderKey>) -> KubeState {
        let scraper = &self.ctx.shared.scraper;
        let metrics = self.wd.spec.scaling.as_ref().and_then(|scaling| scaling.pod_metrics.clone()).unwrap_or_default();
        let target = |pod: &PodView| loads::target(pod, &metrics);
        let targets = observe::pods(&self.ctx.caches, &self.key).iter().filter_map(|pod| target(pod)).collect();
        scraper.set(self.id.clone(), targets);
        let shared = &self.ctx.shared;
        let known = Known { shared, now: Instant::now(), has_key: order_key.is_some(), metrics: &metrics };
        observe::kube_state(&self.ctx.caches, &self.key, &known)
    }

    async fn resolve(
        &self,
        kube: &KubeState,
        order_key: Option<&OrderKey>,
    ) -> Result<Result<Resolved, Blocked>, Error> {
        let shared = &self.ctx.shared;
        let state = match self.connection(false).await {
            Ok(state) => state,
            Err(ConnectionProblem::Blocked(blocked)) => return Ok(Err(blocked)),
            Err(ConnectionProblem::Call(error)) => return Err(error.into()),
        };
        let name = &self.wd.spec.worker_options.connection_ref.name;
        let connection = match connect::connect(&shared.pool, self.key.namespace, name, &state, Timestamp::now()) {
            Ok(connection) => connection,
            Err(blocked) => return Ok(Err(blocked)),
        };
        let images = kube
            .children
            .iter()
            .filter_map(|child| child.runtime_image.clone().map(|image| (child.name.clone(), image)))
            .collect();
        let uncordonable =
            kube.children.iter().filter(|child| !child.cordonable).map(|child| child.name.clone()).collect();
        let order_keys: Vec<_> = order_key.iter().map(|key| key.public()).collect();
        let around = Surroundings {
            connection: &state.facts,
            default_runtime_image: &shared.runtime_image,
            runtime_images: &images,
            order_keys: &order_keys,
            uncordonable: &uncordonable,
        };
        Ok(fleet::resolve(self.wd, &around).map(|fleet| Resolved { fleet, connection }).map_err(|invalid| Blocked {
            reason: operator_core::api::Reason::InvalidSpec,
            message: invalid.to_string(),
        }))
    }

    /// The Connection; its Secrets are read again at once when the server refused what they held.
    pub(super) async fn connection(&self, again: bool) -> Result<ConnectionState, ConnectionProblem> {
        let shared = &self.ctx.shared;
        let state = observe::connection(&self.ctx.caches, &shared.secrets, self.wd, again).await?;
        let refused = shared.pool.get(&connect::key(self.key.namespace, &state)).is_some_and(|open| open.refused());
        if refused && !again {
            return observe::connection(&self.ctx.caches, &shared.secrets, self.wd, true).await;
        }
        Ok(state)
    }

    /// Says what is to be read of the server from now on.
    fn watch(&self, resolved: &Resolved, kube: &KubeState, temporal: &TemporalState, memory: &Memory) {
        let Resolved { fleet, connection } = resolved;
        let child = versions::main_child(fleet, kube, temporal);
        let info = versions::last_info(temporal);
        let current = info.and_then(|info| info.current_build_id.clone());
        let is_new = fleet.build_id.is_some() && fleet.build_id != current;
        let phase = match child {
            _ if is_new && memory.settled != fleet.build_id => Phase::Registering,
            Some(child) if child.spec_replicas == 0 && fleet.scaling.is_some() => Phase::AtZero,
            _ => Phase::Running,
        };
        let gated = phase == Phase::Running && plan::is_gated(fleet, kube, temporal);
        // A first version by steps shares with Workers without Worker Versioning, if they poll its Task Queues.
        let is_first = current.is_none() && matches!(fleet.rollout.strategy, Strategy::Progressive(_));
        let lanes = match fleet.scaling.is_some() || is_first {
            true => plan::known_lanes(fleet, kube, temporal).into_keys().collect(),
            false => Default::default(),
        };
        self.ctx.shared.poller.set(Watch {
            fleet: self.id.clone(),
            namespace: fleet.temporal_namespace.clone(),
            connection: connection.clone(),
            deployment_name: fleet.build_id.is_some().then(|| fleet.deployment_name.clone()),
            build_ids: versions::build_ids(fleet, kube, temporal),
            main: versions::main_build_id(fleet, kube, temporal).map(str::to_owned),
            lanes,
            phase,
            gated,
        });
    }

    /// Asks the server once more when the next decision may be the one for zero.
    fn be_sure(&self, fleet: &Fleet, plan: &Plan, temporal: &TemporalState) {
        let Some((policy, decision)) = fleet.scaling.as_ref().zip(plan.decision.as_ref()) else { return };
        let idle = decision.desired > 0 && decision.backlog == Some(0) && decision.in_flight == Some(0);
        let soon = policy.policy.min_replicas == 0 && idle && decision.recheck_after < operator_core::scaling::TICK;
        let oldest = temporal.lanes.values().filter_map(Observation::age).max();
        if soon && oldest.is_some_and(|age| age > JUST_READ) {
            self.ctx.shared.poller.poke(self.id);
        }
    }

    fn plan(&self, fleet: &Fleet, kube: &KubeState, temporal: &TemporalState, memory: &Memory) -> Plan {
        let applied = memory.standing(&observe::generations(&self.ctx.caches, &self.key));
        plan::plan(&PlanInput {
            fleet,
            kube,
            applied: &applied,
            temporal,
            scaling: &memory.scaling,
            others: &memory.others,
            now: self.ctx.shared.started.elapsed(),
            clock: self.ctx.shared.clock(),
            identity: &self.ctx.shared.identity,
            former_identities: &self.ctx.shared.former_identities,
            protected: apply::is_protected(&self.wd.metadata),
            order: self.order(fleet, memory),
            since_marked: memory.marked.map(|marked| marked.elapsed()),
            resting: &memory.resting(),
            max_versions: self.ctx.shared.max_versions,
        })
    }

    /// Records the scaling decision with the state before it, if that is asked for.
    fn record(&self, plan: &Plan, state: &State) {
        if let (Some(recorder), Some((policy, input)), Some(decision)) =
            (&self.ctx.shared.recorder, &plan.basis, &plan.decision)
        {
            let fleet = format!("{}/{}", self.key.namespace, self.key.name);
            recorder.record(DecisionRecord::new(&fleet, policy, input, state, (decision, &plan.scaling)));
        }
    }

    async fn carry_out(&self, resolved: &Resolved, kube: &KubeState, plan: &Plan, memory: &mut Memory) -> Outcome {
        let work = Work {
            ctx: self.ctx,
            fleet: &resolved.fleet,
            meta: &self.wd.metadata,
            connection: &resolved.connection,
            known: kube.children.iter().map(|child| format!("Deployment/{}", child.name)).collect(),
        };
        carry_out(&work, &plan.actions, memory).await
    }

    /// Writes status and events. Gives back whether a change of the status waits for its turn.
    async fn report(
        &self,
        fleet: &Fleet,
        kube: &KubeState,
        temporal: &TemporalState,
        done: (&Plan, &Outcome),
        memory: &mut Memory,
    ) -> Result<bool, Error> {
        let (plan, outcome) = done;
        let blocked =
            outcome.failure.as_ref().and_then(|failure| report::blocked_by(failure, memory.backoff.failures()));
        let stale = status::staleness(fleet, plan, kube, temporal).any();
        memory.stale_since = stale.then(|| memory.stale_since.unwrap_or_else(std::time::Instant::now));
        let input = StatusInput {
            generation: self.wd.metadata.generation.unwrap_or(0),
            previous: &self.previous_status(memory),
            blocked: blocked.as_ref(),
            planned: Some((fleet, plan)),
            kube,
            temporal,
            annotations: self.wd.annotations(),
            order: self.order(fleet, memory),
            scaled_to: &outcome.scaled_to,
            stale_for: memory.stale_since.map(|since| since.elapsed()),
            now: Timestamp::now(),
        };
        self.ctx.shared.metrics.observed(fleet, plan, kube);
        report::report(self.ctx, &self.key, &input, outcome.events.clone(), memory).await.map_err(Error::from)
    }

    async fn report_blocked(&self, blocked: &Blocked, kube: &KubeState, memory: &mut Memory) -> Result<Requeue, Error> {
        let input = StatusInput {
            generation: self.wd.metadata.generation.unwrap_or(0),
            previous: &self.previous_status(memory),
            blocked: Some(blocked),
            planned: None,
            kube,
            temporal: &TemporalState { deployment: Observation::Unknown, ..TemporalState::default() },
            annotations: self.wd.annotations(),
            order: Order::AsSpecified,
            scaled_to: &Default::default(),
            stale_for: None,
            now: Timestamp::now(),
        };
        report::report(self.ctx, &self.key, &input, Vec::new(), memory).await?;
        Ok(Requeue::requeue(CREDENTIALS_RECHECK))
    }

    /// What the commands that are written down order of the target's rollout.
    fn order(&self, fleet: &Fleet, memory: &Memory) -> Order {
        let build_id = fleet.build_id.as_deref().unwrap_or_default();
        commands::order(&self.previous_status(memory).handled_commands, build_id)
    }

    pub(super) fn previous_status(&self, memory: &Memory) -> operator_core::api::WorkerDeploymentStatus {
        let written = memory.written.as_ref().map(|(status, _)| status.clone());
        written.or_else(|| self.wd.status.clone()).unwrap_or_default()
    }

    fn next(&self, fleet: &Fleet, plan: &Plan, outcome: Outcome, again: Option<Duration>) -> Result<Requeue, Error> {
        match outcome.failure {
            Some(Failure::Outdated) => return Ok(Requeue::requeue(AGAIN)),
            Some(Failure::NotLeader) => return Ok(Requeue::await_change()),
            Some(failure) => return Err(failure.into()),
            None => {}
        }
        let mut after = RESYNC.min(plan.recheck_after().unwrap_or(RESYNC)).min(again.unwrap_or(RESYNC));
        if fleet.child.object["spec"]["template"]["spec"]["volumes"].is_array() {
            after = after.min(CREDENTIALS_RECHECK);
        }
        Ok(Requeue::requeue(after.max(AGAIN)))
    }
}
