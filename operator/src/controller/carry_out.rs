//! Carries out a plan, in its order. The right to write is checked before each write; the first failure ends it.

use kube::core::DynamicObject;
use std::time::Instant;

use operator_core::events::{self, EventData};
use operator_core::fleet::Fleet;
use operator_core::observed::TemporalFailure;
use operator_core::plan::{Action, object_key};

use super::Context;
use super::memory::{Applied, Memory};
use crate::kube::apply::{self, ApplyError};
use crate::kube::client::CallError;
use crate::temporal::Connection;
use crate::temporal::routing::{Routing, set_current};

/// What came of a plan.
#[derive(Default)]
pub struct Outcome {
    /// What happened, for people.
    pub events: Vec<EventData>,
    /// Replicas after the plan, if it changed them.
    pub scaled_to: Option<u32>,
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
    #[error("version {build_id} could not be made current: {}", .failure.message)]
    Routing {
        /// The version.
        build_id: String,
        /// Why.
        failure: TemporalFailure,
    },
}

/// Everything that carrying out a plan needs.
pub struct Work<'a> {
    /// The context.
    pub ctx: &'a Context,
    /// The fleet.
    pub fleet: &'a Fleet,
    /// The channel to its server.
    pub connection: &'a Connection,
    /// The version that is current, for the event.
    pub current: Option<&'a str>,
    /// Names of the Deployments that the cache shows as the fleet's own.
    pub known: Vec<String>,
}

/// Carries out a plan.
pub async fn carry_out(work: &Work<'_>, actions: &[Action], memory: &mut Memory) -> Outcome {
    let mut outcome = Outcome::default();
    for action in actions {
        let Some(_permit) = work.ctx.leadership.permit().await else {
            outcome.failure = Some(Failure::NotLeader);
            break;
        };
        if let Err(failure) = one(work, action, memory, &mut outcome).await {
            outcome.failure = Some(failure);
            break;
        }
    }
    outcome
}

async fn one(work: &Work<'_>, action: &Action, memory: &mut Memory, outcome: &mut Outcome) -> Result<(), Failure> {
    let client = &work.ctx.client;
    let namespace = &work.fleet.namespace;
    match action {
        Action::Apply { object, digest } => {
            let key = object_key(object);
            let known = work.known.contains(&key) || memory.applied.contains_key(&key);
            if memory.only_aged(&key, digest)
                && apply::stands(client, object).await.map_err(|error| Failure::Call { what: key.clone(), error })?
            {
                memory.confirm(&key);
                return Ok(());
            }
            let applied = apply::apply(client, object, known)
                .await
                .map_err(|error| Failure::Apply { what: key.clone(), error })?;
            remember(memory, &key, digest, &applied);
            if key.starts_with("Deployment/") {
                report_apply(work.fleet, known, outcome);
            }
        }
        Action::SetDeletionCost { pod, cost } => mark(work, pod, *cost, memory).await?,
        Action::ShowCordon { pod, cordoned } => {
            let call = apply::show_cordon(client, namespace, pod, *cordoned).await;
            call.map_err(|error| Failure::Call { what: format!("cordon annotation of pod {pod}"), error })?;
        }
        Action::Scale { child, from, to, resource_version, reason } => {
            match apply::scale(client, namespace, child, resource_version, *to).await {
                Err(error) if error.is_conflict() => return Err(Failure::Outdated),
                result => {
                    result.map_err(|error| Failure::Call { what: format!("scale of Deployment {child}"), error })?
                }
            }
            outcome.scaled_to = Some(*to);
            outcome.events.push(events::scaled(*from, *to, reason));
        }
        Action::SetCurrent { conflict_token, .. } if memory.routed.as_ref() == Some(conflict_token) => {}
        Action::SetCurrent { build_id, conflict_token } => {
            let routing = Routing {
                namespace: &work.fleet.temporal_namespace,
                deployment: &work.fleet.deployment_name,
                build_id,
                conflict_token,
                identity: &work.ctx.shared.identity,
            };
            let set = set_current(work.connection, routing).await;
            work.ctx.shared.poller.poke(&work.fleet.uid.as_str().into());
            set.map_err(|failure| Failure::Routing { build_id: build_id.clone(), failure })?;
            memory.routed = Some(conflict_token.clone());
            outcome.events.push(events::promoted(work.current, build_id));
        }
    }
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

fn report_apply(fleet: &Fleet, known: bool, outcome: &mut Outcome) {
    if !known {
        outcome.events.push(events::created(&fleet.child_name));
    }
    if !fleet.child.replaced_variables.is_empty() {
        outcome.events.push(events::variables_replaced(&fleet.child.replaced_variables));
    }
}

fn remember(memory: &mut Memory, key: &str, digest: &str, applied: &DynamicObject) {
    let generation = applied.metadata.generation;
    memory.applied.insert(key.to_owned(), Applied { digest: digest.to_owned(), generation, at: Instant::now() });
}
