//! Slots: how many tasks of one kind a Worker runs at a time, counted exactly.
//!
//! The counts come from the slot supplier, which core calls once when a task takes a slot and once when the slot is
//! free again (after the result was reported). A poll that waits for a task holds a permit, but runs nothing.

use std::future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use temporalio_common::worker::WorkerTaskTypes;
use temporalio_sdk_core::{
    ActivitySlotKind, SlotKind, SlotMarkUsedContext, SlotReleaseContext, SlotReservationContext, SlotSupplier,
    SlotSupplierPermit, TunerBuilder, TunerHolder, WorkflowSlotKind,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::cordon::{Cordon, Pass};
use crate::metrics::{Metrics, SlotMeters, TaskType};
use crate::transport::POLL_TIMEOUT;

/// Workflow tasks at a time of a Task Queue. They are short, so the number bounds CPU more than throughput.
const WORKFLOW_SLOTS: u32 = 100;

/// Longest time that a closed gate waits: an open poll ends within [`POLL_TIMEOUT`], and its answer comes.
const SETTLE_LIMIT: Duration = POLL_TIMEOUT.saturating_add(Duration::from_secs(1));

/// How much of the drain timeout a gate may wait for: never more than half.
pub fn settle_limit(drain_timeout: Duration) -> Duration {
    SETTLE_LIMIT.min(drain_timeout / 2)
}

/// The door of a Worker's activity slots.
///
/// A task that the server hands out at the moment when its poll is cut is lost until its timeout: nobody runs it, and
/// the server can't know. Under a stream of tasks that happened in nearly every drain. So a drain closes the gate, which
/// lets no further poll begin, and cuts nothing: open polls end with a task, which is run, or with the server's answer
/// that there is none. What is left is a server that does not answer in time, and a drain timeout below twice
/// [`SETTLE_LIMIT`], which ends the wait early.
///
/// Workflow tasks have no gate: until the Worker is shut down it serves its sticky Workflows, and a Workflow task whose
/// poll is cut comes again after ten seconds, to nobody's harm.
///
/// The [`Cordon`] of the process holds the gate too, of both kinds of tasks, but not for good.
#[derive(Clone, Debug)]
pub struct Gate {
    permits: Arc<Semaphore>,
    capacity: u32,
    closed: Arc<AtomicBool>,
    begun: CancellationToken,
    cordon: Cordon,
}

/// A slot that was given out: somebody polls, or runs a task.
#[derive(Debug)]
struct Ticket {
    pass: Pass,
    _permit: OwnedSemaphorePermit,
}

impl Gate {
    fn new(capacity: u32, cordon: Cordon) -> Self {
        let permits = usize::try_from(capacity).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            permits: Arc::new(Semaphore::new(permits)),
            capacity,
            closed: Arc::default(),
            begun: CancellationToken::new(),
            cordon,
        }
    }

    /// Lets no further poll begin, for good, and waits until no poll is open and no task runs, for `limit` at most.
    pub async fn close(&self, limit: Duration) {
        self.closed.store(true, Ordering::SeqCst);
        // Whoever has a permit polls, or runs a task.
        let idle = tokio::time::timeout(limit, self.permits.acquire_many(self.capacity)).await.is_ok();
        tracing::info!(idle, "polling ends");
    }

    /// Waits for the first task.
    pub async fn first_task(&self) {
        self.begun.cancelled().await;
    }

    async fn enter(&self, sticky: bool) -> Ticket {
        loop {
            if !sticky {
                self.cordon.lifted().await;
            }
            let permit = self.permits.clone().acquire_owned().await;
            if !self.closed.load(Ordering::SeqCst)
                && let Ok(permit) = permit
            {
                if let Some(ticket) = self.ticket(permit, sticky) {
                    return ticket;
                }
                continue;
            }
            drop(permit);
            // Core drops this future when it shuts down.
            return future::pending().await;
        }
    }

    fn try_enter(&self, sticky: bool) -> Option<Ticket> {
        let permit = self.permits.clone().try_acquire_owned().ok()?;
        if self.closed.load(Ordering::SeqCst) { None } else { self.ticket(permit, sticky) }
    }

    /// Counted first and looked at the cordon then: whoever sees the cordon and no open poll has seen all of them.
    fn ticket(&self, permit: OwnedSemaphorePermit, sticky: bool) -> Option<Ticket> {
        let ticket = Ticket { pass: self.cordon.pass(sticky), _permit: permit };
        (sticky || !self.cordon.is_on()).then_some(ticket)
    }
}

/// A Task Queue and what its slots are for.
#[derive(Clone, Copy, Debug)]
pub struct Lane<'a> {
    /// Its name.
    pub task_queue: &'a str,
    /// The kinds of tasks that it has.
    pub kinds: WorkerTaskTypes,
    /// Activities at a time.
    pub activities: u32,
    /// Who counts the end of a task.
    pub ended: Ended,
}

/// Slots of one Task Queue, and the gate of its activities.
pub fn tuner(metrics: &Metrics, cordon: &Cordon, lane: Lane<'_>) -> (TunerHolder, Gate) {
    let Lane { task_queue, kinds, activities, ended } = lane;
    let mut builder = TunerBuilder::default();
    let counted = |task_type, gate: &Gate| Counted {
        gate: gate.clone(),
        meters: metrics.slots(task_queue, task_type, gate.capacity),
        ended: (ended == Ended::BySlots).then(|| (metrics.clone(), task_queue.to_owned(), task_type)),
    };
    let gate = Gate::new(activities, cordon.clone());
    if kinds.enable_remote_activities {
        let counted = counted(TaskType::Activity, &gate);
        builder.activity_slot_supplier(Arc::new(Slots::<ActivitySlotKind> { counted, kind: PhantomData }));
    }
    if kinds.enable_workflows {
        let counted = counted(TaskType::Workflow, &Gate::new(WORKFLOW_SLOTS, cordon.clone()));
        builder.workflow_slot_supplier(Arc::new(Slots::<WorkflowSlotKind> { counted, kind: PhantomData }));
    }
    (builder.build(), gate)
}

/// Who counts the end of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The code that runs the task and knows its outcome.
    ByRunner,
    /// The slots, when they become free: the SDK does not say the outcome.
    BySlots,
}

struct Counted {
    gate: Gate,
    meters: SlotMeters,
    ended: Option<(Metrics, String, TaskType)>,
}

struct Slots<K> {
    counted: Counted,
    kind: PhantomData<fn() -> K>,
}

#[async_trait::async_trait]
impl<K: SlotKind + Send + Sync> SlotSupplier for Slots<K> {
    type SlotKind = K;

    async fn reserve_slot(&self, context: &dyn SlotReservationContext) -> SlotSupplierPermit {
        SlotSupplierPermit::with_user_data(self.counted.gate.enter(context.is_sticky()).await)
    }

    fn try_reserve_slot(&self, context: &dyn SlotReservationContext) -> Option<SlotSupplierPermit> {
        self.counted.gate.try_enter(context.is_sticky()).map(SlotSupplierPermit::with_user_data)
    }

    fn mark_slot_used(&self, context: &dyn SlotMarkUsedContext<SlotKind = K>) {
        if let Some(ticket) = context.permit().user_data::<Ticket>() {
            ticket.pass.run();
        }
        self.counted.gate.begun.cancel();
        self.counted.meters.occupy();
    }

    fn release_slot(&self, context: &dyn SlotReleaseContext<SlotKind = K>) {
        if context.info().is_none() {
            // The permit was only held by a poll that found no task.
            return;
        }
        self.counted.meters.free();
        if let Some((metrics, task_queue, task_type)) = &self.counted.ended {
            metrics.ended(task_queue, *task_type, "unreported");
        }
    }

    fn available_slots(&self) -> Option<usize> {
        Some(self.counted.gate.permits.available_permits())
    }

    fn slot_supplier_kind(&self) -> String {
        "Fixed".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_gate_lets_nobody_in_and_waits_for_those_inside() {
        let gate = Gate::new(2, Cordon::default());
        let (inside, poll) = (gate.enter(false).await, gate.try_enter(false).expect("room for two"));
        let waits = tokio::spawn({
            let gate = gate.clone();
            async move { gate.enter(false).await }
        });
        let closed = tokio::spawn({
            let gate = gate.clone();
            async move { gate.close(SETTLE_LIMIT).await }
        });
        while !gate.closed.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        drop(poll);
        assert!(gate.try_enter(false).is_none());
        tokio::task::yield_now().await;
        assert!(!closed.is_finished(), "somebody is inside");
        drop(inside);
        closed.await.expect("no panic");
        assert!(!waits.is_finished() && gate.try_enter(false).is_none());
        waits.abort();
    }

    #[tokio::test]
    async fn a_gate_waits_for_its_limit_at_most() {
        let gate = Gate::new(1, Cordon::default());
        let _inside = gate.enter(false).await;
        gate.close(Duration::from_millis(50)).await;
        assert!(gate.try_enter(false).is_none());
    }

    #[tokio::test]
    async fn a_cordoned_gate_holds_all_but_sticky_polls_until_it_is_lifted() {
        let cordon = Cordon::default();
        let gate = Gate::new(3, cordon.clone());
        let inside = gate.enter(false).await;
        let until = crate::cordon::Until { instant: tokio::time::Instant::now(), wall: jiff::Timestamp::UNIX_EPOCH };
        cordon.set(Some(until));
        assert!(gate.try_enter(false).is_none());
        let waits = tokio::spawn({
            let gate = gate.clone();
            async move { gate.enter(false).await }
        });
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        drop((gate.enter(true).await, gate.try_enter(true).expect("sticky polls go on")));
        assert_eq!((cordon.status().open_polls, gate.permits.available_permits()), (1, 2), "nobody else holds a slot");
        cordon.set(None);
        let entered = waits.await.expect("no panic");
        assert_eq!(cordon.status().open_polls, 2);
        drop((inside, entered));
        assert_eq!((cordon.status().open_polls, gate.permits.available_permits()), (0, 3));
    }

    #[tokio::test]
    async fn a_lifted_cordon_does_not_open_a_gate_that_was_closed() {
        let gate = Gate::new(1, Cordon::default());
        gate.close(SETTLE_LIMIT).await;
        gate.cordon.set(None);
        assert!(gate.try_enter(false).is_none());
        let waits = tokio::time::timeout(Duration::from_millis(50), gate.enter(false)).await;
        assert!(waits.is_err());
    }

    #[test]
    fn polls_end_by_themselves_unless_the_drain_timeout_is_short() {
        assert!(settle_limit(Duration::from_secs(30)) > POLL_TIMEOUT);
        assert_eq!(settle_limit(Duration::from_secs(4)), Duration::from_secs(2));
    }
}
