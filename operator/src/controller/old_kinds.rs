//! Hands what TemporalWorkerDeployments own over to WorkerDeployments, and keeps them and TemporalConnections until then.
//!
//! Nothing of them is run. A WorkerDeployment waits meanwhile: without its Deployments it would be planned for as a new one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use kube::Resource as _;
use operator_core::api::{Reason, set_condition};
use operator_core::backoff::RetryClass;
use operator_core::border::Border;
use operator_core::events;
use operator_core::old_kinds::{Old, OldKind, Step, holds_its_successor, must_ask, ready, steps};
use operator_core::status::Blocked;

use super::Context;
use super::memory::Rest;
use crate::kube::client::CallError;
use crate::kube::events::Regarding;
use crate::kube::observe::FleetKey;
use crate::kube::old_kinds::{self, OldView};
use crate::kube::watches;
use crate::settings::RESYNC;

/// Changes that come together are looked at once.
const SETTLE: Duration = Duration::from_millis(200);
/// Objects that are handed over at a time: one that takes long holds up few others.
const AT_A_TIME: usize = 4;
/// Looks at an object in one go: what it owns is read again once it was handed over.
const LOOKS: usize = 2;

/// Watches the deprecated kinds of a scope and does what is due, for as long as the process lives.
pub(super) async fn hand_over(ctx: Arc<Context>, namespace: Option<&str>) {
    let watch = |kind| old_kinds::watch(ctx.client.clone(), namespace, kind, &ctx.old_kinds);
    tokio::select! {
        () = watch(OldKind::WorkerDeployment) => {}
        () = watch(OldKind::Connection) => {}
        () = keep_looking(&ctx) => {}
    }
}

/// Whether a fleet waits for what the TemporalWorkerDeployment of its name owns, and what of that failed.
pub(super) fn holds(ctx: &Context, fleet: &FleetKey<'_>) -> Option<Option<Blocked>> {
    let old = ctx.old_kinds.fleet(fleet.namespace, fleet.name)?;
    if !holds_its_successor(old.is_labelled, old.owned_in(&ctx.caches)) {
        return None;
    }
    ctx.old_kinds.changed.notify_one();
    let failure = ctx.old_kinds.failures.lock().get(&old.uid).cloned();
    Some(failure.map(|failure| Blocked {
        reason: Reason::PlanExecutionFailed,
        message: format!(
            "{} {:?} still owns the Deployments of this fleet, and handing them over failed: {failure}",
            OldKind::WorkerDeployment.name(),
            fleet.name
        ),
    }))
}

async fn keep_looking(ctx: &Context) {
    ctx.caches.wait_until_ready().await;
    for kind in OldKind::ALL {
        ctx.old_kinds.wait_until_known(kind).await;
    }
    let mut led = ctx.leadership.clone().gained().boxed();
    let mut successors = ctx.caches.uses_changed.subscribe();
    let mut resting = HashMap::new();
    loop {
        let pause = look(ctx, &mut resting).await;
        let woken = async {
            tokio::select! {
                () = ctx.old_kinds.changed.notified() => {}
                _ = successors.changed() => {}
                _ = led.next() => {}
            }
        };
        _ = tokio::time::timeout(pause, woken).await;
        tokio::time::sleep(SETTLE).await;
    }
}

/// Looks at every object that does not rest after a failure, each on its own. Gives back the time until the next look.
async fn look(ctx: &Context, resting: &mut HashMap<String, Rest>) -> Duration {
    if !ctx.leadership.may_write() {
        return RESYNC;
    }
    let objects: Vec<_> = OldKind::ALL
        .into_iter()
        .flat_map(|kind| ctx.old_kinds.all(kind).into_iter().map(move |old| (kind, old)))
        .collect();
    let known: HashSet<_> = objects.iter().map(|(_, old)| old.uid.clone()).collect();
    resting.retain(|uid, _| known.contains(uid));
    ctx.old_kinds.failures.lock().retain(|uid, _| known.contains(uid));
    let now = Instant::now();
    let is_due = |old: &OldView| resting.get(&old.uid).is_none_or(|rest| rest.until <= now);
    let due: Vec<_> = objects.into_iter().filter(|(_, old)| is_due(old)).collect();
    let looks = due.into_iter().map(|(kind, old)| async move { (one(ctx, kind, &old).await, kind, old) });
    let looked: Vec<_> = stream::iter(looks).buffer_unordered(AT_A_TIME).collect().await;
    for (outcome, kind, old) in looked {
        take(ctx, resting, (kind, &old), outcome);
    }
    let next = resting.values().map(|rest| rest.until.saturating_duration_since(Instant::now())).min();
    next.unwrap_or(RESYNC).min(RESYNC)
}

/// What is not finished rests, and what failed is said.
fn take(
    ctx: &Context,
    resting: &mut HashMap<String, Rest>,
    (kind, old): (OldKind, &OldView),
    outcome: Result<End, CallError>,
) {
    let failure = outcome.as_ref().err().map(ToString::to_string);
    if let Some(error) = &failure {
        tracing::warn!(namespace = old.namespace, name = old.name, kind = kind.name(), error, "not handed over");
    }
    if matches!(outcome, Ok(End::Done)) {
        resting.remove(&old.uid);
    } else {
        let backoff = resting.get(&old.uid).map(|rest| rest.backoff).unwrap_or_default();
        let (backoff, after) = backoff.next(RetryClass::Transient, rand::random());
        resting.insert(old.uid.clone(), Rest { backoff, until: Instant::now() + after });
    }
    let mut failures = ctx.old_kinds.failures.lock();
    match failure {
        Some(failure) => failures.insert(old.uid.clone(), failure),
        None => failures.remove(&old.uid),
    };
}

/// How a look at an object ended.
enum End {
    /// There is nothing to do until something changes.
    Done,
    /// It still owns something.
    Unfinished,
}

async fn one(ctx: &Context, kind: OldKind, view: &OldView) -> Result<End, CallError> {
    let old = Old {
        kind,
        is_guarded: view.is_guarded(),
        is_leaving: view.is_leaving,
        is_labelled: view.is_labelled,
        has_successor: has_successor(ctx, kind, view),
        owned: None,
    };
    let mut look = Look { ctx, view: view.clone(), old };
    let failure = match look.migrate().await {
        Ok(Some(end)) => return Ok(end),
        Ok(None) => None,
        // The watch shows what it is now.
        Err(error) if error.is_conflict() => return Ok(End::Done),
        Err(error) => Some(error),
    };
    let said = failure.as_ref().map(ToString::to_string);
    match look.report(said.as_deref()).await {
        Err(error) if !error.is_conflict() => Err(failure.unwrap_or(error)),
        _ => failure.map_or(Ok(End::Done), Err),
    }
}

fn has_successor(ctx: &Context, kind: OldKind, view: &OldView) -> bool {
    let (namespace, name) = (view.namespace.as_str(), view.name.as_str());
    let is_leaving = match kind {
        OldKind::WorkerDeployment => {
            let found = watches::named(&ctx.caches.fleets, Border::Successor, namespace, name);
            found.map(|fleet| fleet.meta().deletion_timestamp.is_some())
        }
        OldKind::Connection => {
            let found = watches::named(&ctx.caches.connections, Border::Successor, namespace, name);
            found.map(|connection| connection.meta().deletion_timestamp.is_some())
        }
    };
    is_leaving == Some(false)
}

/// One look at an object.
struct Look<'a> {
    ctx: &'a Context,
    view: OldView,
    old: Old,
}

impl Look<'_> {
    /// Does what is due. Gives back how it ended, unless its condition is to be written.
    async fn migrate(&mut self) -> Result<Option<End>, CallError> {
        // Before anything else, as the rest may fail.
        if steps(&self.old).contains(&Step::Guard) {
            self.carry_out(Step::Guard, None).await?;
        }
        for _ in 0..LOOKS {
            let found = self.ask().await?;
            let due = steps(&self.old);
            for step in &due {
                self.carry_out(*step, found.as_ref()).await?;
            }
            if due.contains(&Step::Release) {
                return Ok(Some(End::Done));
            }
            if !due.contains(&Step::HandOver) {
                return Ok(None);
            }
        }
        Ok(Some(End::Unfinished))
    }

    /// Reads what it owns and to whom that goes, where that matters.
    async fn ask(&mut self) -> Result<Option<(String, old_kinds::Owned)>, CallError> {
        let seen = match self.old.kind {
            OldKind::WorkerDeployment => self.view.owned_in(&self.ctx.caches),
            OldKind::Connection => 0,
        };
        self.old.owned = None;
        if !must_ask(&self.old, seen) {
            return Ok(None);
        }
        let owned = old_kinds::owned(&self.ctx.client, &self.view).await?;
        // After that: an owner that is gone when it is written down would take all of it along.
        let successor = old_kinds::successor(&self.ctx.client, self.view.named()).await?;
        (self.old.has_successor, self.old.owned) = (successor.is_some(), Some(owned.count()));
        Ok(successor.map(|uid| (uid, owned)))
    }

    async fn carry_out(&mut self, step: Step, found: Option<&(String, old_kinds::Owned)>) -> Result<(), CallError> {
        let Some(_permit) = self.ctx.leadership.permit().await else { return Ok(()) };
        let (client, kind, view) = (&self.ctx.client, self.old.kind, &mut self.view);
        match step {
            Step::Guard => {
                old_kinds::set_guarded(client, kind, view, true).await?;
                self.old.is_guarded = true;
            }
            Step::HandOver => {
                let Some((to, owned)) = found else { return Ok(()) };
                let objects = old_kinds::hand_over(client, view, owned, to).await?;
                let event = events::handed_over(view.named(), objects);
                tracing::info!(namespace = view.namespace, name = view.name, objects, "handed over");
                let about = Regarding { namespace: &view.namespace, name: &view.name, uid: to };
                self.ctx.shared.events.publish(&about, &event).await;
            }
            Step::Label => {
                old_kinds::set_labelled(client, kind, view).await?;
                self.old.is_labelled = true;
            }
            Step::Release => old_kinds::set_guarded(client, kind, view, false).await?,
        }
        Ok(())
    }

    /// Says what becomes of it, if it does not say so already.
    async fn report(&self, failure: Option<&str>) -> Result<(), CallError> {
        let mut conditions = self.view.conditions.clone();
        let update = ready(&self.old, self.view.named(), failure);
        if !set_condition(&mut conditions, update, self.view.generation, Timestamp::now()) {
            return Ok(());
        }
        let Some(_permit) = self.ctx.leadership.permit().await else { return Ok(()) };
        old_kinds::write_conditions(&self.ctx.client, self.old.kind, &self.view, &conditions).await
    }
}
