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
#[derive(Clone, Debug)]
pub struct Gate {
    permits: Arc<Semaphore>,
    capacity: u32,
    closed: Arc<AtomicBool>,
}

impl Gate {
    fn new(capacity: u32) -> Self {
        let permits = usize::try_from(capacity).unwrap_or(Semaphore::MAX_PERMITS);
        Self { permits: Arc::new(Semaphore::new(permits)), capacity, closed: Arc::default() }
    }

    /// Lets no further poll begin, for good, and waits until no poll is open and no task runs, for `limit` at most.
    pub async fn close(&self, limit: Duration) {
        self.closed.store(true, Ordering::SeqCst);
        // Whoever has a permit polls, or runs a task.
        let idle = tokio::time::timeout(limit, self.permits.acquire_many(self.capacity)).await.is_ok();
        tracing::info!(idle, "polling ends");
    }

    async fn enter(&self) -> OwnedSemaphorePermit {
        let permit = self.permits.clone().acquire_owned().await;
        if !self.closed.load(Ordering::SeqCst)
            && let Ok(permit) = permit
        {
            return permit;
        }
        drop(permit);
        // Core drops this future when it shuts down.
        future::pending().await
    }

    fn try_enter(&self) -> Option<OwnedSemaphorePermit> {
        let permit = self.permits.clone().try_acquire_owned().ok()?;
        (!self.closed.load(Ordering::SeqCst)).then_some(permit)
    }
}

/// Slots of one Task Queue, for the kinds of tasks that it has, and their gate.
pub fn tuner(
    metrics: &Metrics,
    task_queue: &str,
    kinds: WorkerTaskTypes,
    activities: u32,
    ended: Ended,
) -> (TunerHolder, Gate) {
    let mut builder = TunerBuilder::default();
    let counted = |task_type, gate: &Gate| Counted {
        gate: gate.clone(),
        meters: metrics.slots(task_queue, task_type, gate.capacity),
        ended: (ended == Ended::BySlots).then(|| (metrics.clone(), task_queue.to_owned(), task_type)),
    };
    let gate = Gate::new(activities);
    if kinds.enable_remote_activities {
        let counted = counted(TaskType::Activity, &gate);
        builder.activity_slot_supplier(Arc::new(Slots::<ActivitySlotKind> { counted, kind: PhantomData }));
    }
    if kinds.enable_workflows {
        let counted = counted(TaskType::Workflow, &Gate::new(WORKFLOW_SLOTS));
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

    async fn reserve_slot(&self, _: &dyn SlotReservationContext) -> SlotSupplierPermit {
        SlotSupplierPermit::with_user_data(self.counted.gate.enter().await)
    }

    fn try_reserve_slot(&self, _: &dyn SlotReservationContext) -> Option<SlotSupplierPermit> {
        self.counted.gate.try_enter().map(SlotSupplierPermit::with_user_data)
    }

    fn mark_slot_used(&self, _: &dyn SlotMarkUsedContext<SlotKind = K>) {
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
        let gate = Gate::new(2);
        let (inside, poll) = (gate.enter().await, gate.try_enter().expect("room for two"));
        let waits = tokio::spawn({
            let gate = gate.clone();
            async move { gate.enter().await }
        });
        let closed = tokio::spawn({
            let gate = gate.clone();
            async move { gate.close(SETTLE_LIMIT).await }
        });
        while !gate.closed.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        drop(poll);
        assert!(gate.try_enter().is_none());
        tokio::task::yield_now().await;
        assert!(!closed.is_finished(), "somebody is inside");
        drop(inside);
        closed.await.expect("no panic");
        assert!(!waits.is_finished() && gate.try_enter().is_none());
        waits.abort();
    }

    #[tokio::test]
    async fn a_gate_waits_for_its_limit_at_most() {
        let gate = Gate::new(1);
        let _inside = gate.enter().await;
        gate.close(Duration::from_millis(50)).await;
        assert!(gate.try_enter().is_none());
    }

    #[test]
    fn polls_end_by_themselves_unless_the_drain_timeout_is_short() {
        assert!(settle_limit(Duration::from_secs(30)) > POLL_TIMEOUT);
        assert_eq!(settle_limit(Duration::from_secs(4)), Duration::from_secs(2));
    }
}
