//! Slots: how many tasks of one kind a Worker runs at a time, counted exactly.
//!
//! The counts come from the slot supplier, which core calls once when a task takes a slot and once when the slot is
//! free again (after the result was reported). A poll that waits for a task holds a permit, but runs nothing.

use std::future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use temporalio_common::worker::WorkerTaskTypes;
use temporalio_sdk_core::{
    ActivitySlotKind, SlotKind, SlotMarkUsedContext, SlotReleaseContext, SlotReservationContext, SlotSupplier,
    SlotSupplierPermit, TunerBuilder, TunerHolder, WorkflowSlotKind,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::metrics::{Metrics, SlotMeters, TaskType};

/// Workflow tasks at a time of a Task Queue. They are short, so the number bounds CPU more than throughput.
const WORKFLOW_SLOTS: usize = 100;

/// How long the polls that still wait go without a task before they are cut.
const QUIET_TIME: Duration = Duration::from_millis(1500);
/// Longest time that polls stay open once the door is closed.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);

/// How much of the drain time polls may stay open for: never more than half.
pub fn settle_limit(drain_timeout: Duration) -> Duration {
    SETTLE_LIMIT.min(drain_timeout / 2)
}

/// The door of a Worker's slots.
///
/// A task that the server sends at the moment when its poll is cut is lost until its timeout: nobody runs it, and the
/// server can't know. Cut at once, that happened in nearly every drain under a stream of tasks, whether the server was
/// set to end polls by itself or not. So the door is closed first, and polls are cut once none is left, or once no
/// task has come for a while.
#[derive(Clone, Debug, Default)]
pub struct Gate(Vec<Arc<Door>>);

#[derive(Debug)]
struct Door {
    permits: Arc<Semaphore>,
    /// Permits that polls hold.
    polls: watch::Sender<usize>,
}

impl Gate {
    /// Stops handing out slots, for good, and waits until the polls under way may be cut, for `limit` at most.
    pub async fn close(&self, limit: Duration) {
        for door in &self.0 {
            door.permits.close();
        }
        let settled = join_all(self.0.iter().map(|door| door.settled()));
        let quiet = tokio::time::timeout(limit, settled).await.is_ok();
        let polls = self.0.iter().map(|door| *door.polls.borrow()).sum::<usize>();
        tracing::info!(polls, quiet, "cutting the polls that still wait");
    }
}

impl Door {
    async fn settled(&self) {
        let mut polls = self.polls.subscribe();
        while *polls.borrow_and_update() > 0 {
            match tokio::time::timeout(QUIET_TIME, polls.changed()).await {
                Ok(Ok(())) => {}
                // Quiet, or the slots are gone.
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }
}

/// Slots of one Task Queue, for the kinds of tasks that it has, and their gate.
pub fn tuner(
    metrics: &Metrics,
    task_queue: &str,
    kinds: WorkerTaskTypes,
    activities: usize,
    ended: Ended,
) -> (TunerHolder, Gate) {
    let (mut builder, mut gate) = (TunerBuilder::default(), Gate::default());
    let mut slots = |task_type, capacity| {
        let door = Arc::new(Door { permits: Arc::new(Semaphore::new(capacity)), polls: watch::Sender::new(0) });
        gate.0.push(door.clone());
        let ended = (ended == Ended::BySlots).then(|| (metrics.clone(), task_queue.to_owned(), task_type));
        Counted { door, meters: metrics.slots(task_queue, task_type, capacity), ended }
    };
    if kinds.enable_remote_activities {
        let counted = slots(TaskType::Activity, activities);
        builder.activity_slot_supplier(Arc::new(Slots::<ActivitySlotKind> { counted, kind: PhantomData }));
    }
    if kinds.enable_workflows {
        let counted = slots(TaskType::Workflow, WORKFLOW_SLOTS);
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
    door: Arc<Door>,
    meters: SlotMeters,
    ended: Option<(Metrics, String, TaskType)>,
}

impl Counted {
    fn reserved(&self, permit: OwnedSemaphorePermit) -> SlotSupplierPermit {
        self.door.polls.send_modify(|polls| *polls += 1);
        SlotSupplierPermit::with_user_data(permit)
    }

    fn poll_ended(&self) {
        self.door.polls.send_modify(|polls| *polls -= 1);
    }
}

struct Slots<K> {
    counted: Counted,
    kind: PhantomData<fn() -> K>,
}

#[async_trait::async_trait]
impl<K: SlotKind + Send + Sync> SlotSupplier for Slots<K> {
    type SlotKind = K;

    async fn reserve_slot(&self, _: &dyn SlotReservationContext) -> SlotSupplierPermit {
        match self.counted.door.permits.clone().acquire_owned().await {
            Ok(permit) => self.counted.reserved(permit),
            // The gate is closed: core drops this future when it shuts down.
            Err(_) => future::pending().await,
        }
    }

    fn try_reserve_slot(&self, _: &dyn SlotReservationContext) -> Option<SlotSupplierPermit> {
        self.counted.door.permits.clone().try_acquire_owned().ok().map(|permit| self.counted.reserved(permit))
    }

    fn mark_slot_used(&self, _: &dyn SlotMarkUsedContext<SlotKind = K>) {
        self.counted.meters.occupy();
        self.counted.poll_ended();
    }

    fn release_slot(&self, context: &dyn SlotReleaseContext<SlotKind = K>) {
        if context.info().is_none() {
            // The permit was only held by a poll that found no task.
            return self.counted.poll_ended();
        }
        self.counted.meters.free();
        if let Some((metrics, task_queue, task_type)) = &self.counted.ended {
            metrics.ended(task_queue, *task_type, "unreported");
        }
    }

    fn available_slots(&self) -> Option<usize> {
        Some(self.counted.door.permits.available_permits())
    }

    fn slot_supplier_kind(&self) -> String {
        "Fixed".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn door(polls: usize) -> Arc<Door> {
        Arc::new(Door { permits: Arc::new(Semaphore::new(5)), polls: watch::Sender::new(polls) })
    }

    #[tokio::test]
    async fn a_gate_without_polls_closes_at_once() {
        let begun = Instant::now();
        let gate = Gate(vec![door(0)]);
        gate.close(SETTLE_LIMIT).await;
        assert!(begun.elapsed() < QUIET_TIME);
        assert!(gate.0[0].permits.is_closed());
    }

    #[tokio::test]
    async fn a_gate_waits_for_tasks_until_it_is_quiet() {
        let (door, begun) = (door(2), Instant::now());
        let stream = tokio::spawn({
            let door = door.clone();
            async move {
                tokio::time::sleep(QUIET_TIME / 2).await;
                door.polls.send_modify(|polls| *polls -= 1);
            }
        });
        Gate(vec![door]).close(SETTLE_LIMIT).await;
        stream.await.unwrap();
        assert!(begun.elapsed() >= QUIET_TIME + QUIET_TIME / 2 && begun.elapsed() < SETTLE_LIMIT);
    }

    #[tokio::test]
    async fn a_gate_closes_within_its_limit() {
        let begun = Instant::now();
        Gate(vec![door(1)]).close(QUIET_TIME / 3).await;
        assert!(begun.elapsed() < QUIET_TIME);
    }
}
