//! Carries out a plan, in its order. The right to write is checked before each write; the first failure ends it.

use std::collections::BTreeMap;
use std::time::Instant;

use kube::Api;
use kube::core::{DynamicObject, ObjectMeta};

use operator_core::api::WorkerDeployment;
use operator_core::build::attach;
use operator_core::build::environment::WorkerIdentity;
use operator_core::events::{self, EventData};
use operator_core::fleet::Fleet;
use operator_core::observed::{ChildState, FailureClass, TemporalFailure};
use operator_core::plan::{Action, object_key};
use serde_json::Value;

use super::memory::{Applied, Memory};
use super::{Context, gates, route};
use crate::kube::adopt::Version;
use crate::kube::apply::{self, ApplyError, Basis};
use crate::kube::client::CallError;
use crate::kube::observe::FleetKey;
use crate::kube::views;
use crate::temporal::Connection;

/// What came of a plan.
#[derive(Default)]
pub struct Outcome {
    /// What happened, for people.
    pub events: Vec<EventData>,
    /// Replicas after the plan, by the names of the children whose replicas it changed.
    pub scaled_to: BTreeMap<String, u32>,
    /// Children that it made, as the API server gave them.
    pub created: Vec<ChildState>,
    /// Token for the next change of the routing, after one within the plan.
    pub(super) token: Option<Vec<u8>>,
    /// What ended it early.
    pub failure: Option<Failure>,
}

/// Why a plan ended early.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// This replica may no longer write.
    #[error("this replica is not the leader")]
    NotLeader,
    /// What the plan was based on changed meanwhile: plan again.
    #[error("the child changed meanwhile")]
    Outdated,
    /// An object could not be applied.
    #[error("{what}: {error}")]
    Apply {
        /// The object.
        what: String,
        /// Why.
        error: ApplyError,
    },
    /// A call to the API server failed.
    #[error("{what}: {error}")]
    Call {
        /// What was to be done.
        what: String,
        /// Why it failed.
        error: CallError,
    },
    /// The server refused a change of the routing.
    #[error("{what}: {}", .failure.message)]
    Routing {
        /// What was to be done.
        what: String,
        /// Why.
        failure: TemporalFailure,
    },
}

/// Refusals in a row after which a routing that is refused as something changed is refused for good.
const REFUSALS: u32 = 3;

impl Failure {
    /// Whether it is gone once the plan is made anew, after `before` failures in a row.
    #[must_use]
    pub fn passes(&self, before: u32) -> bool {
        match self {
            Self::NotLeader | Self::Outdated => true,
            // The routing changed while it was being decided: it is read again and decided again.
            Self::Routing { failure, .. } => failure.class == FailureClass::FailedPrecondition && before < REFUSALS,
            Self::Apply { .. } | Self::Call { .. } => false,
        }
    }
}

/// Everything that carrying out a plan needs.
pub struct Work<'a> {
    /// The context.
    pub ctx: &'a Context,
    /// The fleet.
    pub fleet: &'a Fleet,
    /// Its object, as it was read.
    pub meta: &'a ObjectMeta,
    /// The channel to its server.
    pub connection: &'a Connection,
    /// The fleet's own Deployments, as the plan was made on them.
    pub children: &'a [ChildState],
}

impl Work<'_> {
    /// Whether an object, by its key, is a Deployment that there is.
    fn knows(&self, key: &str) -> bool {
        key.strip_prefix("Deployment/").is_some_and(|name| self.children.iter().any(|child| child.name == name))
    }
}

/// Carries out a plan, or what was added to one, and adds to what came of it.
pub async fn carry_out(work: &Work<'_>, actions: &[Action], memory: &mut Memory, outcome: &mut Outcome) {
    for action in actions {
        let Some(_permit) = work.ctx.leadership.permit().await else {
            outcome.failure = Some(Failure::NotLeader);
            break;
        };
        if let Err(failure) = one(work, action, memory, outcome).await {
            tell(work, action, &failure, memory, outcome);
            outcome.failure = Some(failure);
            break;
        }
    }
    if outcome.failure.is_none() {
        memory.told_failure = None;
    }
}

/// Says what failed, once until it is another thing. What passes by planning anew is not said.
fn tell(work: &Work<'_>, action: &Action, failure: &Failure, memory: &mut Memory, outcome: &mut Outcome) {
    if failure.passes(memory.backoff.failures()) {
        return;
    }
    let note = format!("{failure}.");
    let is_new = matches!(action, Action::Apply { object, .. } if !work.knows(&object_key(object)));
    if memory.told_failure.as_ref() != Some(&note) {
        outcome.events.extend(events::failed(action, is_new, &note));
        memory.told_failure = Some(note);
    }
}

async fn one(work: &Work<'_>, action: &Action, memory: &mut Memory, outcome: &mut Outcome) -> Result<(), Failure> {
    let client = &work.ctx.client;
    let namespace = &work.fleet.namespace;
    match action {
        Action::Protect => {
            let fleets: Api<WorkerDeployment> = Api::namespaced(client.clone(), namespace);
            let protected = apply::set_protected(&fleets, work.meta, true).await;
            protected.map_err(failed(|| "finalizer of the WorkerDeployment".to_owned()))?;
        }
        Action::Apply { object, digest } => apply_object(work, (object, digest), memory, outcome).await?,
        Action::SetDeletionCost { pod, cost } => mark(work, pod, *cost, memory).await?,
        Action::ShowCordon { pod, cordoned } => {
            let shown = apply::show_cordon(client, namespace, pod, *cordoned).await;
            shown.map_err(failed(|| format!("cordon annotation of pod {pod}")))?;
        }
        Action::Scale { child, .. } if memory.is_ahead_of(child, work.children) => return Err(Failure::Outdated),
        Action::Scale { child, from, to, resource_version, reason } => {
            let scaled = apply::scale(client, namespace, child, resource_version, *to).await;
            scaled.map_err(failed(|| format!("scale of Deployment {child}")))?;
            work.children.iter().filter(|known| known.name == *child).for_each(|known| memory.scaled(known));
            outcome.scaled_to.insert(child.clone(), *to);
            tell_scaled(outcome, child, (*from, *to, reason));
        }
        Action::Attach { .. } => attach(work, action, outcome).await?,
        Action::NoteSuperseded { child, at, resource_version } => {
            let noted = apply::note_superseded(client, namespace, (child, resource_version), *at).await;
            noted.map_err(failed(|| format!("annotation of Deployment {child}")))?;
        }
        Action::DeleteVersion { build_id } => route::delete_record(work, build_id, memory, outcome).await?,
        Action::DeleteChild { build_id, .. } if memory.resting.contains_key(build_id) => {}
        Action::DeleteChild { child, config_map, uid, resource_version, .. } => {
            let deleted = delete_child(work, (child, config_map), (uid, resource_version), memory).await;
            deleted.map_err(failed(|| format!("deletion of Deployment {child}")))?;
            outcome.events.push(events::deleted(child));
        }
        Action::StartGate { build_id, workflow_id, task_queue, gate } => {
            gates::start(work, gates::Test { gate, build_id, workflow_id, task_queue }, memory, outcome).await;
        }
        Action::ClaimManager { conflict_token, .. }
        | Action::SetCurrent { conflict_token, .. }
        | Action::SetRamping { conflict_token, .. }
        | Action::ClearRamp { conflict_token, .. } => {
            route::route(work, action, conflict_token, memory, outcome).await?
        }
    }
    Ok(())
}

/// What a failed call is: a conflict means that what was decided on has changed.
fn failed(what: impl FnOnce() -> String) -> impl FnOnce(CallError) -> Failure {
    |error| if error.is_conflict() { Failure::Outdated } else { Failure::Call { what: what(), error } }
}

async fn apply_object(
    work: &Work<'_>,
    (object, digest): (&Value, &str),
    memory: &mut Memory,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let client = &work.ctx.client;
    let key = object_key(object);
    let known = work.knows(&key) || memory.applied.contains_key(&key);
    if memory.only_aged(&key, digest)
        && apply::stands(client, object).await.map_err(|error| Failure::Call { what: key.clone(), error })?
    {
        memory.confirm(&key);
        return Ok(());
    }
    let applied = match apply::apply(client, object, basis(work, &key, memory)).await {
        Err(ApplyError::Call(error)) if error.is_conflict() => return Err(Failure::Outdated),
        applied => applied.map_err(|error| Failure::Apply { what: key.clone(), error })?,
    };
    remember(memory, &key, digest, &applied.object);
    if key.starts_with("Deployment/") {
        report_apply(work.fleet, (known, applied.adopted), outcome);
        if !known {
            outcome.created.extend(views::child(applied.object));
        }
    }
    Ok(())
}

/// What an object is applied on: after the first time a Deployment is as it was seen, or nothing is written.
fn basis(work: &Work<'_>, key: &str, memory: &Memory) -> Basis {
    let seen = key.strip_prefix("Deployment/").and_then(|name| work.children.iter().find(|child| child.name == name));
    match seen {
        _ if !memory.applied.contains_key(key) => Basis::Unread,
        Some(child) => {
            Basis::Seen(Version { uid: child.uid.clone(), resource_version: child.resource_version.clone() })
        }
        None if key.starts_with("Deployment/") => Basis::Unread,
        None => Basis::Applied,
    }
}

/// Attaches the pods of a child to the fleet's Connection, by a change of what its template is now.
async fn attach(work: &Work<'_>, action: &Action, outcome: &mut Outcome) -> Result<(), Failure> {
    let Action::Attach { child, uid, build_id, to } = action else { return Ok(()) };
    let fleet = work.fleet;
    let worker = WorkerIdentity {
        namespace: &to.temporal_namespace,
        deployment_name: &fleet.deployment_name,
        build_id: build_id.as_deref(),
    };
    let change = |live: &Value| attach::attach(live, &to.connection, &worker);
    let patched = apply::patch_child(&work.ctx.client, &fleet.namespace, (child, uid), change).await;
    if patched.map_err(failed(|| format!("template of Deployment {child}")))? {
        outcome.events.push(events::attached(child, &to.connection.host_port, &to.temporal_namespace));
    }
    Ok(())
}

async fn delete_child(
    work: &Work<'_>,
    (child, config_map): (&str, &str),
    preconditions: (&str, &str),
    memory: &mut Memory,
) -> Result<(), CallError> {
    let fleet = work.fleet;
    let key = FleetKey { namespace: &fleet.namespace, name: &fleet.name, uid: &fleet.uid };
    apply::delete_config_map(&work.ctx.client, &key, config_map).await?;
    apply::delete_deployment(&work.ctx.client, &fleet.namespace, child, preconditions).await?;
    memory.applied.remove(&format!("ConfigMap/{config_map}"));
    memory.applied.remove(&format!("Deployment/{child}"));
    Ok(())
}

/// Marks a victim, and has the fleet's pods read once more, or takes the mark away.
async fn mark(work: &Work<'_>, pod: &str, cost: Option<i32>, memory: &mut Memory) -> Result<(), Failure> {
    let call = apply::set_deletion_cost(&work.ctx.client, &work.fleet.namespace, pod, cost).await;
    call.map_err(|error| Failure::Call { what: format!("deletion cost of pod {pod}"), error })?;
    if cost.is_some() {
        memory.marked = Some(Instant::now());
        work.ctx.shared.scraper.hurry(&work.fleet.uid.as_str().into());
    }
    Ok(())
}

fn report_apply(fleet: &Fleet, (known, adopted): (bool, bool), outcome: &mut Outcome) {
    if adopted {
        outcome.events.push(events::adopted(&fleet.child_name));
    } else if !known {
        outcome.events.push(events::created(&fleet.child_name));
        outcome.events.extend(fleet.build_id.as_ref().and_then(|id| events::collided(id, &fleet.origin)));
    }
    if !fleet.child.replaced_variables.is_empty() {
        outcome.events.push(events::variables_replaced(&fleet.child.replaced_variables));
    }
}

/// One event says both of a Deployment that was just made.
fn tell_scaled(outcome: &mut Outcome, child: &str, (from, to, reason): (u32, u32, &str)) {
    let created = events::created(child);
    match outcome.events.iter_mut().find(|event| **event == created) {
        Some(event) => *event = events::created_with(child, to, reason),
        None => outcome.events.push(events::scaled(from, to, reason)),
    }
}

fn remember(memory: &mut Memory, key: &str, digest: &str, applied: &DynamicObject) {
    let (uid, generation) = (applied.metadata.uid.clone(), applied.metadata.generation);
    let applied = Applied { digest: digest.to_owned(), uid, generation, at: Instant::now() };
    memory.applied.insert(key.to_owned(), Box::new(applied));
}
