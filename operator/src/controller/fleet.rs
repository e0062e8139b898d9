//! The driver of one reconcile.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use kube::runtime::controller::Action as Requeue;
use operator_core::api::{ConnectionKind, WorkerDeployment};
use operator_core::backoff::RetryClass;
use operator_core::fleet::Fleet;
use operator_core::observed::{ChildState, FailureClass, KubeState, Observation, TemporalState};
use operator_core::plan::{Action, Plan};
use operator_core::rollout::{Hold, Stage};
use operator_core::scaling::{DecisionRecord, State};
use operator_core::status::{self, Blocked};
use tokio::time::Instant;

use super::carry_out::{Failure, Outcome, Work, carry_out};
use super::look::{Reconcile, Seen};
use super::memory::Memory;
use super::{Context, Shared, checkpoint, cordon, deletion, gates, old_kinds, report};
use crate::changes::FleetId;
use crate::kube::apply;
use crate::kube::client::CallError;
use crate::kube::observe::FleetKey;
use crate::kube::watches::{FleetRef, Guarded};
use crate::settings::{RECONCILE_DEADLINE, RESYNC};

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
    if in_cache(&object, &ctx).is_none() {
        // The watch told that it is gone while this ran, and does not tell again.
        forget(&ctx.shared, &FleetId::from(object.uid().unwrap_or_default()));
    }
    result
}

async fn run(object: &Guarded<WorkerDeployment>, ctx: &Context) -> Result<Requeue, Error> {
    let id = FleetId::from(object.uid().unwrap_or_default());
    // The memory before the object: what it no longer has of the status is in a cache that is read later.
    let mut memory = ctx.shared.memories.get(&id);
    let cached = in_cache(object, ctx);
    let wd = match &cached.as_deref().unwrap_or(object).0 {
        Ok(wd) => wd,
        Err(invalid) => {
            tracing::warn!(name = object.name_any(), error = %invalid.error, "stored WorkerDeployment can't be read");
            return Ok(Requeue::await_change());
        }
    };
    if wd.metadata.deletion_timestamp.is_some() && !apply::is_protected(&wd.metadata) {
        forget(&ctx.shared, &id);
        return Ok(Requeue::await_change());
    }
    let (namespace, name, uid) = (wd.namespace().unwrap_or_default(), wd.name_any(), wd.uid().unwrap_or_default());
    let key = FleetKey { namespace: &namespace, name: &name, uid: &uid };
    if memory.key.1.is_empty() {
        memory.key = (namespace.clone(), name.clone());
        // What is news while this runs must find its fleet.
        ctx.shared.memories.put(&id, memory.clone());
    }
    memory.peer_has_fields = !wd.managed_fields().is_empty();
    let reconcile = Reconcile { wd, ctx, key, id: &id };
    let result = match &wd.metadata.deletion_timestamp {
        Some(since) => deletion::run(&reconcile, since.0, &mut memory).await,
        None => reconcile.run(&mut memory).await,
    };
    if result.is_ok() {
        memory.backoff = Default::default();
    }
    ctx.shared.memories.put(&id, memory);
    // It may show what was written by now, and does not tell again.
    if let Some(Ok(wd)) = in_cache(object, ctx).as_deref().map(|cached| &cached.0) {
        ctx.shared.memories.shown(&id, wd.status.as_ref());
    }
    result
}

/// The object as the cache has it, which may be newer.
fn in_cache(object: &Guarded<WorkerDeployment>, ctx: &Context) -> Option<Arc<Guarded<WorkerDeployment>>> {
    let cached = ctx.caches.fleets.get(&FleetRef::from_obj(object))?;
    (cached.uid() == object.uid()).then_some(cached)
}

/// Ends everything that goes on for a fleet.
pub fn forget(shared: &Shared, fleet: &FleetId) {
    shared.poller.remove(fleet);
    shared.scraper.remove(fleet);
    shared.heartbeats.remove(fleet);
    shared.cordons.remove(fleet);
    shared.memories.remove(fleet);
    shared.metrics.forget(fleet);
}

/// Whether a target polls all that it must, so that it need not be looked at each second.
fn is_settled(stage: &Stage) -> bool {
    match stage {
        Stage::Unknown | Stage::Registering { .. } => false,
        Stage::Waiting(hold) => !matches!(hold, Hold::Changing(_) | Hold::Pods { .. }),
        Stage::Ramping { .. } | Stage::Current => true,
    }
}

impl Reconcile<'_> {
    async fn run(&self, memory: &mut Memory) -> Result<Requeue, Error> {
        match old_kinds::holds(self.ctx, &self.key) {
            Some(None) => return Ok(Requeue::requeue(AGAIN)),
            Some(Some(blocked)) => return self.report_blocked(&blocked, &self.observe_kube(None), memory).await,
            None => {}
        }
        let order_key = self.ctx.shared.order_keys.get(&self.ctx.leadership).await;
        let mut seen = match self.see(order_key.as_ref(), memory).await? {
            Ok(seen) => seen,
            Err((blocked, kube)) => return self.report_blocked(&blocked, &kube, memory).await,
        };
        self.record(&seen.plan, &memory.scaling);
        if let Some(key) = &order_key {
            cordon::order(self.ctx, &self.key, self.id, &seen.kube, (key, &seen.plan.cordon));
        }
        self.be_sure(&seen);
        self.follow_gates(&seen.plan, memory);
        let obeyed = (self.order(&seen.fleet, memory), self.gates(&seen.fleet, memory));
        let outcome = self.carry_out(&mut seen, memory).await;
        let Seen { fleet, plan, .. } = &seen;
        if outcome.failure.is_none() {
            memory.scaling = plan.scaling.clone();
            memory.others.extend(plan.others.iter().map(|(child, other)| (child.clone(), other.scaling.clone())));
        }
        memory.settled = fleet.build_id.clone().filter(|_| plan.stage().is_none_or(is_settled));
        let pending = self.report(&seen, &outcome, memory).await?;
        // A command counts once it is written down, and so does a test that failed: then it is planned for.
        let ordered = (self.order(fleet, memory), self.gates(fleet, memory)) != obeyed;
        // What somebody else owns of a template is mended once it was applied, and an apply that changes nothing wakes nobody.
        let applied = plan.actions.iter().any(|action| matches!(action, Action::Apply { .. }));
        let later = (pending || applied).then_some(status::QUIET_WRITE_INTERVAL);
        let again = if ordered { Some(AGAIN) } else { later };
        let again = again.into_iter().chain(gates::next_start(&memory.unstarted)).min();
        checkpoint::save(&self.ctx.client, &self.ctx.leadership, self.id, memory).await;
        self.next(fleet, plan, outcome, again)
    }

    /// Asks the server once more when the next decision may be the one for zero.
    fn be_sure(&self, Seen { fleet, plan, temporal, .. }: &Seen) {
        let Some((policy, decision)) = fleet.scaling.as_ref().zip(plan.decision.as_ref()) else { return };
        let idle = decision.desired > 0 && decision.backlog == Some(0) && decision.in_flight == Some(0);
        let soon = policy.policy.min_replicas == 0 && idle && decision.recheck_after < operator_core::scaling::TICK;
        let oldest = temporal.lanes.values().filter_map(Observation::age).max();
        if soon && oldest.is_some_and(|age| age > JUST_READ) {
            self.ctx.shared.poller.poke(self.id);
        }
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

    async fn carry_out(&self, seen: &mut Seen, memory: &mut Memory) -> Outcome {
        let mut outcome = Outcome::default();
        carry_out(&self.work(seen), &seen.plan.actions, memory, &mut outcome).await;
        let created = std::mem::take(&mut outcome.created);
        if outcome.failure.is_none() && !created.is_empty() {
            let scales = self.scale_new(seen, created, memory);
            carry_out(&self.work(seen), &scales, memory, &mut outcome).await;
            seen.plan.actions.extend(scales);
        }
        outcome
    }

    /// Decides the replicas of Deployments that were just made, without waiting for the watch to show them.
    fn scale_new(&self, seen: &mut Seen, created: Vec<ChildState>, memory: &mut Memory) -> Vec<Action> {
        let names: BTreeSet<_> = created.iter().map(|child| child.name.clone()).collect();
        seen.kube.children.extend(created);
        memory.follow(&memory.child.clone(), &seen.kube.children);
        let again = self.plan(&seen.fleet, &seen.kube, &seen.temporal, memory);
        self.record(&again, &memory.scaling);
        let is_new = |action: &Action| matches!(action, Action::Scale { child, .. } if names.contains(child));
        let scales = again.actions.iter().filter(|action| is_new(action)).cloned().collect();
        seen.plan = Plan { actions: std::mem::take(&mut seen.plan.actions), ..again };
        scales
    }

    fn work<'a>(&'a self, seen: &'a Seen) -> Work<'a> {
        Work {
            ctx: self.ctx,
            fleet: &seen.fleet,
            meta: &self.wd.metadata,
            connection: &seen.connection,
            children: &seen.kube.children,
        }
    }

    /// Writes status and events. Gives back whether a change of the status waits for its turn.
    async fn report(&self, seen: &Seen, outcome: &Outcome, memory: &mut Memory) -> Result<bool, Error> {
        let blocked =
            outcome.failure.as_ref().and_then(|failure| report::blocked_by(failure, memory.backoff.failures()));
        let stale = status::staleness(&seen.fleet, &seen.plan, &seen.kube, &seen.temporal).any();
        memory.stale_since = stale.then(|| memory.stale_since.unwrap_or_else(std::time::Instant::now));
        let previous = self.previous_status(memory);
        let input = self.status_input(seen, (blocked.as_ref(), outcome), &previous, memory);
        self.ctx.shared.metrics.observed(&seen.fleet, &seen.plan, &seen.kube);
        report::report(self.ctx, &self.key, &input, outcome.events.clone(), memory).await.map_err(Error::from)
    }

    async fn report_blocked(&self, blocked: &Blocked, kube: &KubeState, memory: &mut Memory) -> Result<Requeue, Error> {
        let previous = self.previous_status(memory);
        let unread = TemporalState { deployment: Observation::Unknown, ..TemporalState::default() };
        let nothing = Default::default();
        let input = self.blocked_input((blocked, kube), &previous, (&unread, &nothing));
        report::report(self.ctx, &self.key, &input, Vec::new(), memory).await?;
        Ok(Requeue::requeue(CREDENTIALS_RECHECK))
    }

    fn next(&self, fleet: &Fleet, plan: &Plan, outcome: Outcome, again: Option<Duration>) -> Result<Requeue, Error> {
        match outcome.failure {
            Some(Failure::Outdated) => return Ok(Requeue::requeue(AGAIN)),
            Some(Failure::NotLeader) => return Ok(Requeue::await_change()),
            Some(failure) => return Err(failure.into()),
            None => {}
        }
        let mut after = RESYNC.min(plan.recheck_after().unwrap_or(RESYNC)).min(again.unwrap_or(RESYNC));
        // Secrets and labels of namespaces are read, not watched.
        let may_be_refused = self.wd.spec.worker_options.connection_ref.kind == ConnectionKind::ClusterConnection;
        if may_be_refused || fleet.child.object["spec"]["template"]["spec"]["volumes"].is_array() {
            after = after.min(CREDENTIALS_RECHECK);
        }
        Ok(Requeue::requeue(after.max(AGAIN)))
    }
}
