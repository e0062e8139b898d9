//! One pass of the deletion of a fleet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::runtime::controller::Action as Requeue;
use kube::{Api, ResourceExt as _};
use operator_core::api::{DeletionPolicy, WorkerDeployment};
use operator_core::backoff::RetryClass;
use operator_core::deletion::{self, Deletion, Step};
use operator_core::events;
use operator_core::identity::reclaimable;
use operator_core::names;
use operator_core::observed::{FailureClass, TemporalFailure, TemporalState};
use operator_core::status;

use super::carry_out::Failure;
use super::fleet::Error;
use super::look::Reconcile;
use super::memory::{Memory, Rest};
use super::{connect, report};
use crate::kube::apply;
use crate::kube::connection::ConnectionProblem;
use crate::kube::events::Regarding;
use crate::temporal::routing::{self, Drained, Routing};
use crate::temporal::{Connection, Phase, Watch};

/// Time until the next look after a write, and while something is waited for.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// What was seen of a fleet that is being deleted, and follows.
pub(super) struct Seen {
    /// The channel to its server.
    connection: Option<Arc<Connection>>,
    /// The server; none without a channel.
    pub temporal: Option<TemporalState>,
    /// Name of its Worker Deployment.
    deployment_name: String,
    /// What to do now.
    pub steps: Vec<Step>,
    /// What is waited for then.
    pub waiting: String,
}

/// Observes and decides.
///
/// # Errors
/// The API server could not be asked.
pub(super) async fn see(fleet: &Reconcile<'_>, since: Timestamp, memory: &Memory) -> Result<Seen, Error> {
    let kube = fleet.observe_kube(None);
    fleet.show_templates(&kube, None);
    let connection = connection(fleet).await?;
    let temporal = connection.as_ref().map(|connection| look(fleet, connection));
    let deployment_name = names::temporal_deployment_name(fleet.key.namespace, fleet.key.name);
    let shared = &fleet.ctx.shared;
    let (steps, waiting) = deletion::plan(&Deletion {
        orphan: fleet.wd.spec.deletion_policy == DeletionPolicy::Orphan,
        kube: &kube,
        temporal: temporal.as_ref(),
        identity: &shared.identity,
        former_identities: &reclaimable(&shared.former_identities, fleet.wd.annotations()),
        temporal_namespace: &fleet.wd.spec.worker_options.temporal_namespace,
        deployment_name: &deployment_name,
        resting: &memory.resting(),
        since: shared.clock().since(since),
    });
    Ok(Seen { connection, temporal, deployment_name, steps, waiting })
}

/// Does what can be done now, and says what is waited for.
pub(super) async fn run(fleet: &Reconcile<'_>, since: Timestamp, memory: &mut Memory) -> Result<Requeue, Error> {
    let Seen { connection, deployment_name, steps, waiting, .. } = see(fleet, since, memory).await?;
    let generation = fleet.wd.metadata.generation.unwrap_or(0);
    let previous = fleet.previous_status(memory);
    let now = status::deleting(&previous, generation, &waiting, Timestamp::now());
    report::write(fleet.ctx, &fleet.key, (&previous, now), memory).await?;
    let pass = Pass { fleet, connection, deployment_name };
    for step in &steps {
        let Some(_permit) = fleet.ctx.leadership.permit().await else { return Ok(Requeue::await_change()) };
        pass.one(step, memory).await?;
    }
    if matches!(steps[..], [Step::Release { .. }]) {
        super::fleet::forget(&fleet.ctx.shared, fleet.id);
        return Ok(Requeue::await_change());
    }
    Ok(Requeue::requeue(if steps.is_empty() { AGAIN.1 } else { AGAIN.0 }))
}

/// The channel to the server; none while the Connection or its Secret can't be used.
async fn connection(fleet: &Reconcile<'_>) -> Result<Option<Arc<Connection>>, Error> {
    let state = match fleet.connection().await {
        Ok(state) => state,
        Err(ConnectionProblem::Blocked(_)) => return Ok(None),
        Err(ConnectionProblem::Call(error)) => return Err(error.into()),
    };
    let reference = &fleet.wd.spec.worker_options.connection_ref;
    let (pool, namespace) = (&fleet.ctx.shared.pool, fleet.key.namespace);
    Ok(connect::connect(pool, namespace, reference, &state, Timestamp::now()).ok())
}

/// What the server says of the Worker Deployment: read often, as somebody waits for it.
fn look(fleet: &Reconcile<'_>, connection: &Arc<Connection>) -> TemporalState {
    let poller = &fleet.ctx.shared.poller;
    poller.set(Watch {
        fleet: fleet.id.clone(),
        namespace: fleet.wd.spec.worker_options.temporal_namespace.clone(),
        connection: connection.clone(),
        deployment_name: Some(names::temporal_deployment_name(fleet.key.namespace, fleet.key.name)),
        build_ids: Vec::new(),
        main: None,
        remembered: None,
        lanes: Default::default(),
        phase: Phase::Registering,
        gated: false,
    });
    poller.follow_tests(fleet.id, &Default::default());
    poller.snapshot(fleet.id, tokio::time::Instant::now())
}

struct Pass<'a> {
    fleet: &'a Reconcile<'a>,
    connection: Option<Arc<Connection>>,
    deployment_name: String,
}

impl Pass<'_> {
    async fn one(&self, step: &Step, memory: &mut Memory) -> Result<(), Error> {
        let (client, namespace) = (&self.fleet.ctx.client, self.fleet.key.namespace);
        match step {
            Step::ScaleToZero { child, resource_version, .. } => {
                match apply::scale(client, namespace, child, resource_version, 0).await {
                    Err(error) if error.is_conflict() || error.is_not_found() => {}
                    result => result?,
                }
            }
            Step::Release { left } => {
                if let Some(left) = left {
                    self.say(&events::deletion_incomplete(&self.deployment_name, left)).await;
                }
                let fleets: Api<WorkerDeployment> = Api::namespaced(client.clone(), namespace);
                apply::set_protected(&fleets, &self.fleet.wd.metadata, false).await?;
            }
            step => {
                let Some(connection) = &self.connection else { return Ok(()) };
                let done = self.on_the_server(connection, step).await;
                self.fleet.ctx.shared.poller.poke(self.fleet.id);
                self.take(step, done, memory).await?;
            }
        }
        Ok(())
    }

    async fn on_the_server(&self, connection: &Connection, step: &Step) -> Result<(), TemporalFailure> {
        let routing = |conflict_token| Routing {
            namespace: &self.fleet.wd.spec.worker_options.temporal_namespace,
            deployment: &self.deployment_name,
            conflict_token,
            identity: &self.fleet.ctx.shared.identity,
        };
        match step {
            Step::ClaimManager { conflict_token, .. } => {
                routing::claim_manager(connection, routing(conflict_token)).await.map(drop)
            }
            Step::ClearRamp { conflict_token, .. } => {
                routing::set_ramping(connection, routing(conflict_token), ("", 0)).await
            }
            Step::ClearCurrent { conflict_token, .. } => {
                routing::clear_current(connection, routing(conflict_token)).await
            }
            Step::DeleteVersion { build_id } => {
                routing::delete_version(connection, routing(&[]), build_id, Drained::OrNot).await
            }
            _ => routing::delete_deployment(connection, routing(&[])).await,
        }
    }

    /// What was refused is tried again later: the server says for how long versions must not have been polled.
    async fn take(&self, step: &Step, done: Result<(), TemporalFailure>, memory: &mut Memory) -> Result<(), Error> {
        match (step, done) {
            (Step::ClaimManager { from, .. }, Ok(())) => {
                let identity = &self.fleet.ctx.shared.identity;
                self.say(&events::manager_claimed(&self.deployment_name, from, identity)).await;
            }
            (Step::ClearRamp { from, .. }, Ok(())) => self.say(&events::ramp_cleared(from)).await,
            (Step::ClearCurrent { from, .. }, Ok(())) => self.say(&events::traffic_taken(from)).await,
            (Step::DeleteVersion { build_id }, Err(failure)) if failure.class != FailureClass::Unreachable => {
                let backoff = memory.resting.get(build_id).map(|rest| rest.backoff).unwrap_or_default();
                let (backoff, after) = backoff.next(RetryClass::RateLimited, rand::random());
                memory.resting.insert(build_id.clone(), Rest { backoff, until: Instant::now() + after });
            }
            (_, Err(failure)) if failure.class == FailureClass::FailedPrecondition => {}
            (_, Err(failure)) => {
                let what = "the Temporal server could not be cleaned up".to_owned();
                return Err(Failure::Routing { what, failure }.into());
            }
            (_, Ok(())) => {}
        }
        Ok(())
    }

    async fn say(&self, event: &events::EventData) {
        let key = &self.fleet.key;
        let about = Regarding { namespace: key.namespace, name: key.name, uid: key.uid };
        self.fleet.ctx.shared.events.publish(&about, event).await;
    }
}
