//! Slots: how many tasks of one kind a Worker runs at a time, counted exactly.
//!
//! The counts come from the slot supplier, which core calls once when a task takes a slot and once when the slot is
//! free again (after the result was reported). A poll that waits for a task holds a permit, but runs nothing.

use std::future;
use std::marker::PhantomData;
use std::sync::Arc;

use temporalio_common::worker::WorkerTaskTypes;
use temporalio_sdk_core::{
    ActivitySlotKind, SlotKind, SlotMarkUsedContext, SlotReleaseContext, SlotReservationContext, SlotSupplier,
    SlotSupplierPermit, TunerBuilder, TunerHolder, WorkflowSlotKind,
};
use tokio::sync::Semaphore;

use crate::metrics::{Metrics, SlotMeters, TaskType};

/// Workflow tasks at a time of a Task Queue. They are short, so the number bounds CPU more than throughput.
const WORKFLOW_SLOTS: usize = 100;

/// The door of a Worker's slots. Once closed no further poll starts; polls under way go on.
#[derive(Clone, Debug, Default)]
pub struct Gate(Vec<Arc<Semaphore>>);

impl Gate {
    /// Stops handing out slots, for good.
    pub fn close(&self) {
        for permits in &self.0 {
            permits.close();
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
        let permits = Arc::new(Semaphore::new(capacity));
        gate.0.push(permits.clone());
        let ended = (ended == Ended::BySlots).then(|| (metrics.clone(), task_queue.to_owned(), task_type));
        Counted { permits, meters: metrics.slots(task_queue, task_type, capacity), ended }
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
    permits: Arc<Semaphore>,
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
        match self.counted.permits.clone().acquire_owned().await {
            Ok(permit) => SlotSupplierPermit::with_user_data(permit),
            // The gate is closed: core drops this future when it shuts down.
            Err(_) => future::pending().await,
        }
    }

    fn try_reserve_slot(&self, _: &dyn SlotReservationContext) -> Option<SlotSupplierPermit> {
        self.counted.permits.clone().try_acquire_owned().ok().map(SlotSupplierPermit::with_user_data)
    }

    fn mark_slot_used(&self, _: &dyn SlotMarkUsedContext<SlotKind = K>) {
        self.counted.meters.occupy();
    }

    fn release_slot(&self, context: &dyn SlotReleaseContext<SlotKind = K>) {
        // Without info the permit was only held by a poll that found no task.
        if context.info().is_some() {
            self.counted.meters.free();
            if let Some((metrics, task_queue, task_type)) = &self.counted.ended {
                metrics.ended(task_queue, *task_type, "unreported");
            }
        }
    }

    fn available_slots(&self) -> Option<usize> {
        Some(self.counted.permits.available_permits())
    }

    fn slot_supplier_kind(&self) -> String {
        "Fixed".to_owned()
    }
}
