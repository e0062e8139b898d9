//! Status and events of a fleet, written on change only.

use std::time::Instant;

use operator_core::api::{ConditionType, Reason, WorkerDeploymentStatus};
use operator_core::events::{self, EventData};
use operator_core::status::{self, Blocked, StatusInput};

use super::Context;
use super::carry_out::Failure;
use super::memory::Memory;
use crate::kube::adopt;
use crate::kube::client::CallError;
use crate::kube::events::Regarding;
use crate::kube::observe::FleetKey;

/// Writes the status if it must be written now, and publishes events. Gives back whether a change waits for its turn.
///
/// # Errors
/// [`CallError`] when the status could not be written.
pub async fn report(
    ctx: &Context,
    key: &FleetKey<'_>,
    input: &StatusInput<'_>,
    mut events: Vec<EventData>,
    memory: &mut Memory,
) -> Result<bool, CallError> {
    let new = status::compute(input);
    if let Some(ready) = new.condition(ConditionType::Ready) {
        ctx.shared.metrics.judged(&key.uid.into(), &ready.status);
    }
    // Whatever an earlier process wrote last may have been written as it ended.
    let since = memory.written_at.map_or_else(|| ctx.shared.started.elapsed(), |at| at.elapsed());
    let permit = ctx.leadership.permit().await;
    let due = status::must_write(input.previous, &new, since) && !status::says_more_already(input);
    let write = due && permit.is_some();
    let pending = !write && *input.previous != new;
    if write {
        events.extend(events::readiness_changed(input.previous, &new));
        events.extend(events::commands_handled(input.previous, &new));
        events.extend(events::gates_failed(input.previous, &new));
        let since_missed = memory.slo_missed.map(|at| at.elapsed());
        events.extend(events::scaling_changed(input.previous, &new, since_missed));
        if events.iter().any(|event| event.reason == events::SLO_MISSED) {
            memory.slo_missed = Some(Instant::now());
        }
        take_over(ctx, key, memory).await?;
        crate::kube::status::write(&ctx.client, key.namespace, key.name, &new).await?;
        memory.wrote(new);
    }
    let about = Regarding { namespace: key.namespace, name: key.name, uid: key.uid };
    for event in &events {
        tracing::info!(namespace = key.namespace, name = key.name, reason = event.reason, note = event.note, "event");
        ctx.shared.events.publish(&about, event).await;
    }
    Ok(pending)
}

/// Writes a status that was not computed from a plan, if it says something new.
///
/// # Errors
/// [`CallError`] when it could not be written; the object being gone is no error.
pub async fn write(
    ctx: &Context,
    key: &FleetKey<'_>,
    (previous, new): (&WorkerDeploymentStatus, WorkerDeploymentStatus),
    memory: &mut Memory,
) -> Result<(), CallError> {
    if *previous == new || ctx.leadership.permit().await.is_none() {
        return Ok(());
    }
    take_over(ctx, key, memory).await?;
    match crate::kube::status::write(&ctx.client, key.namespace, key.name, &new).await {
        Err(error) if error.is_not_found() => return Ok(()),
        result => result?,
    }
    memory.wrote(new);
    Ok(())
}

/// What the peer left of a status would stay in it.
async fn take_over(ctx: &Context, key: &FleetKey<'_>, memory: &mut Memory) -> Result<(), CallError> {
    if std::mem::take(&mut memory.peer_has_fields) {
        adopt::take_status(&ctx.client, key.namespace, key.name).await?;
    }
    Ok(())
}

/// What a failure to carry out a plan says in the status, after `before` others in a row; nothing for those that pass at once.
#[must_use]
pub fn blocked_by(failure: &Failure, before: u32) -> Option<Blocked> {
    let blocked = || Blocked { reason: Reason::PlanExecutionFailed, message: format!("{failure}.") };
    (!failure.passes(before)).then(blocked)
}
