//! Changes on the server, as a plan says: the routing, and records of versions.

use std::time::Instant;

use operator_core::backoff::RetryClass;
use operator_core::events;
use operator_core::observed::FailureClass;
use operator_core::plan::Action;

use super::carry_out::{Failure, Outcome, Work};
use super::memory::{Memory, Rest};
use crate::temporal::routing::{self, Drained, Routing};

/// Changes the routing, unless the reading that the change follows from is older than the last one.
pub(super) async fn route(
    work: &Work<'_>,
    action: &Action,
    token: &Vec<u8>,
    memory: &mut Memory,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    if memory.routed.as_ref() == Some(token) {
        return Ok(());
    }
    let newer = outcome.token.take();
    let routing = Routing {
        namespace: &work.fleet.temporal_namespace,
        deployment: &work.fleet.deployment_name,
        conflict_token: newer.as_ref().unwrap_or(token),
        identity: &work.ctx.shared.identity,
    };
    let (what, done, event) = match action {
        Action::SetCurrent { build_id, from, .. } => (
            format!("version {build_id} could not be made current"),
            routing::set_current(work.connection, routing, build_id).await,
            events::promoted(from.as_deref(), build_id),
        ),
        Action::SetRamping { build_id, percent, from, .. } => (
            format!("version {build_id} could not be given {percent} % of new Workflows"),
            routing::set_ramping(work.connection, routing, (build_id, *percent)).await,
            events::ramped(from.as_ref(), build_id, *percent),
        ),
        Action::ClearRamp { from, .. } => (
            format!("the share of version {} could not be taken away", from.0),
            routing::set_ramping(work.connection, routing, ("", 0)).await,
            events::ramp_cleared(from),
        ),
        Action::ClaimManager { from, .. } => {
            let claimed = routing::claim_manager(work.connection, routing).await;
            let failed =
                |failure| Failure::Routing { what: "the manager's identity could not be claimed".into(), failure };
            outcome.token = Some(claimed.map_err(failed)?);
            outcome.events.push(events::manager_claimed(routing.deployment, from, routing.identity));
            return Ok(());
        }
        _ => return Ok(()),
    };
    work.ctx.shared.poller.poke(&work.fleet.uid.as_str().into());
    done.map_err(|failure| Failure::Routing { what, failure })?;
    memory.routed = Some(token.clone());
    outcome.events.push(event);
    if let Action::SetCurrent { build_id, .. } | Action::SetRamping { build_id, .. } = action {
        let noted = routing::note_controller(work.connection, routing, build_id, env!("CARGO_PKG_VERSION")).await;
        // It is for people: nothing follows from it, and the next change of the routing notes it again.
        outcome.events.extend(noted.err().map(|failure| events::metadata_not_updated(build_id, &failure.message)));
    }
    Ok(())
}

/// Deletes the record of a version. A refusal is tried again later, and ends what follows for this version alone: it says so.
///
/// # Errors
/// The server could not be asked.
pub(super) async fn delete_record(
    work: &Work<'_>,
    build_id: &str,
    memory: &mut Memory,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let routing = Routing {
        namespace: &work.fleet.temporal_namespace,
        deployment: &work.fleet.deployment_name,
        conflict_token: &[],
        identity: &work.ctx.shared.identity,
    };
    let deleted = routing::delete_version(work.connection, routing, build_id, Drained::Surely).await;
    work.ctx.shared.poller.poke(&work.fleet.uid.as_str().into());
    match deleted {
        Ok(()) => {
            memory.resting.remove(build_id);
            outcome.events.push(events::version_deleted(build_id));
            Ok(())
        }
        Err(failure) if failure.class == FailureClass::Unreachable => {
            Err(Failure::Routing { what: format!("the record of version {build_id} could not be deleted"), failure })
        }
        Err(failure) => {
            let before = memory.resting.get(build_id).map(|rest| rest.backoff).unwrap_or_default();
            // The server counts pollers for five minutes after their last poll: nothing is gained by asking often.
            let (backoff, after) = before.next(RetryClass::Config, rand::random());
            let until = Instant::now() + after;
            let first = before.failures() == 0;
            memory.resting.insert(build_id.to_owned(), Rest { backoff, until });
            outcome.events.extend(first.then(|| events::version_not_deleted(build_id, &failure.message)));
            Ok(())
        }
    }
}
