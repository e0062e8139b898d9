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
    ActivitySlotKind, LocalActivitySlotKind, SlotKind, SlotMarkUsedContext, SlotReleaseContext, SlotReservationContext,
    SlotSupplier, SlotSupplierPermit, TunerBuilder, TunerHolder, WorkflowSlotKind,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cordon::{Cordon, Pass};
use crate::metrics::{Metrics, TaskType};
use crate::resources::{self, Resources};
use crate::room::{Place, Room};
use crate::transport::POLL_TIMEOUT;

/// Workflow tasks at a time of a Task Queue. They are short, so the number bounds CPU more than throughput.
const WORKFLOW_SLOTS: u32 = 100;

/// Local activities at a time of a Task Queue, as core has it.
const LOCAL_SLOTS: u32 = 100;

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
///
/// Each Worker has a gate of its own, before the [`Room`] that it shares with the one that it replaces.
#[derive(Clone, Debug)]
pub struct Gate {
    room: Room,
    closed: Arc<AtomicBool>,
    inside: watch::Sender<Inside>,
    begun: CancellationToken,
    taken: watch::Sender<u64>,
    cordon: Cordon,
}

/// Who went in through a gate and is not out again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Inside {
    polls: u32,
    tasks: u32,
}

/// A slot that was given out: somebody polls, or runs a task.
#[derive(Debug)]
struct Ticket {
    pass: Pass,
    gate: Gate,
    _place: Place,
}

impl Gate {
    /// An open gate before a room.
    pub fn new(room: Room, cordon: Cordon) -> Self {
        let (inside, begun, taken) = (watch::Sender::default(), CancellationToken::new(), watch::Sender::new(0));
        Self { room, closed: Arc::default(), inside, begun, taken, cordon }
    }

    /// Lets no further poll begin, for good.
    pub fn shut(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Whether it was shut.
    pub fn is_shut(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Waits until no poll is open and no task runs.
    async fn emptied(&self) {
        // Fails only when the sender is gone, and `self` holds it.
        let _ = self.inside.subscribe().wait_for(|inside| *inside == Inside::default()).await;
    }

    /// Waits until no poll is open.
    async fn unpolled(&self) {
        let _ = self.inside.subscribe().wait_for(|inside| inside.polls == 0).await;
    }

    /// Waits, behind a gate that was shut because another Worker took over, for the end of its polls and of its tasks.
    pub async fn retired(&self, task_queue: &str) {
        self.unpolled().await;
        tracing::info!(task_queue, "a Worker that was replaced polls no more");
        self.emptied().await;
    }

    /// Lets no further poll begin, for good, and waits until no poll is open and no task runs, for `limit` at most.
    pub async fn close(&self, limit: Duration) {
        self.shut();
        let idle = tokio::time::timeout(limit, self.emptied()).await.is_ok();
        tracing::info!(idle, "polling ends");
    }

    /// Waits for the first task.
    pub async fn first_task(&self) {
        self.begun.cancelled().await;
    }

    /// Waits until so many activities were begun, local ones included.
    pub async fn has_taken(&self, activities: u64) {
        // Fails only when the sender is gone, and `self` holds it.
        let _ = self.taken.subscribe().wait_for(|taken| *taken >= activities).await;
    }

    /// Whether a poll should be open: there is a slot for what it brings, and nothing says that none may begin.
    pub fn wants_polls(&self) -> bool {
        !self.is_shut() && !self.cordon.is_on() && !self.room.is_full()
    }

    async fn enter(&self, sticky: bool) -> Ticket {
        loop {
            if !sticky {
                self.cordon.lifted().await;
            }
            self.room.vacancy().await;
            if self.is_shut() {
                // Core drops this future when it shuts down.
                return future::pending().await;
            }
            if let Some(ticket) = self.try_enter(sticky) {
                return ticket;
            }
        }
    }

    /// Counted first and looked at the cordon then: whoever sees the cordon and no open poll has seen all of them.
    fn try_enter(&self, sticky: bool) -> Option<Ticket> {
        let place = self.room.take()?;
        self.inside.send_modify(|inside| inside.polls += 1);
        let ticket = Ticket { pass: self.cordon.pass(sticky), gate: self.clone(), _place: place };
        let open = !self.is_shut() && (sticky || !self.cordon.is_on());
        open.then_some(ticket)
    }
}

impl Ticket {
    /// The poll brought a task.
    fn run(&self) {
        if self.pass.run() {
            self.gate.inside.send_modify(|inside| {
                inside.tasks += 1;
                inside.polls = inside.polls.saturating_sub(1);
            });
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let runs = self.pass.runs();
        self.gate.inside.send_modify(|inside| {
            let counted = if runs { &mut inside.tasks } else { &mut inside.polls };
            *counted = counted.saturating_sub(1);
        });
    }
}

/// A Task Queue and what its slots are for. Outlives the Workers that poll it.
#[derive(Clone, Debug)]
pub struct Lane {
    /// Its name.
    pub task_queue: String,
    /// The kinds of tasks that it has.
    pub kinds: WorkerTaskTypes,
    /// Who counts the end of a task.
    pub ended: Ended,
    activities: Room,
    workflows: Room,
    locals: Room,
    metrics: Metrics,
    cordon: Cordon,
}

impl Lane {
    /// A Task Queue with slots for so many `activities`.
    pub fn new(task_queue: &str, kinds: WorkerTaskTypes, activities: u32, ended: Ended, around: &Around<'_>) -> Self {
        let Around { metrics, cordon } = around;
        let room =
            |enabled: bool, kind, capacity| Room::new(capacity, enabled.then(|| metrics.slots(task_queue, kind)));
        Self {
            task_queue: task_queue.to_owned(),
            kinds,
            ended,
            activities: room(kinds.enable_remote_activities, TaskType::Activity, activities),
            workflows: room(kinds.enable_workflows, TaskType::Workflow, WORKFLOW_SLOTS),
            locals: Room::new(LOCAL_SLOTS, None),
            metrics: (*metrics).clone(),
            cordon: (*cordon).clone(),
        }
    }

    /// Sets how many activities run at a time.
    pub fn resize(&self, activities: u32) {
        if self.activities.capacity() != activities {
            tracing::info!(task_queue = self.task_queue, slots = activities, "number of slots changed");
            self.activities.resize(activities);
        }
    }

    /// Slots for one Worker, and the gate of its activities.
    pub fn tuner(&self, resources: Option<&Resources>) -> (TunerHolder, Gate) {
        let mut builder = TunerBuilder::default();
        let counted = |kind, gate: &Gate| Counted {
            gate: gate.clone(),
            ended: (self.ended == Ended::BySlots).then(|| (self.metrics.clone(), self.task_queue.clone(), kind)),
        };
        let gate = Gate::new(self.activities.clone(), self.cordon.clone());
        if self.kinds.enable_remote_activities {
            let (counted, resources) = (counted(TaskType::Activity, &gate), resources.and_then(resources::activities));
            builder.activity_slot_supplier(Arc::new(Slots::<ActivitySlotKind> {
                counted,
                resources,
                kind: PhantomData,
            }));
        }
        if self.kinds.enable_workflows {
            let counted = counted(TaskType::Workflow, &Gate::new(self.workflows.clone(), self.cordon.clone()));
            let slots = Slots::<WorkflowSlotKind> { counted, resources: None, kind: PhantomData };
            builder.workflow_slot_supplier(Arc::new(slots));
        }
        if self.kinds.enable_local_activities {
            builder
                .local_activity_slot_supplier(Arc::new(LocalSlots { gate: gate.clone(), room: self.locals.clone() }));
        }
        (builder.build(), gate)
    }
}

/// Slots of local activities: no poll brings them, and no gate holds them. They are counted by that of the others.
struct LocalSlots {
    gate: Gate,
    room: Room,
}

#[async_trait::async_trait]
impl SlotSupplier for LocalSlots {
    type SlotKind = LocalActivitySlotKind;

    async fn reserve_slot(&self, context: &dyn SlotReservationContext) -> SlotSupplierPermit {
        loop {
            self.room.vacancy().await;
            if let Some(permit) = self.try_reserve_slot(context) {
                return permit;
            }
        }
    }

    fn try_reserve_slot(&self, _: &dyn SlotReservationContext) -> Option<SlotSupplierPermit> {
        self.room.take().map(SlotSupplierPermit::with_user_data)
    }

    fn mark_slot_used(&self, _: &dyn SlotMarkUsedContext<SlotKind = LocalActivitySlotKind>) {
        self.gate.taken.send_modify(|taken| *taken += 1);
    }

    fn release_slot(&self, _: &dyn SlotReleaseContext<SlotKind = LocalActivitySlotKind>) {}

    fn available_slots(&self) -> Option<usize> {
        usize::try_from(self.room.free()).ok()
    }

    fn slot_supplier_kind(&self) -> String {
        "Fixed".to_owned()
    }
}

/// What the slots of a process have in common.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    /// Where they are shown.
    pub metrics: &'a Metrics,
    /// What holds them.
    pub cordon: &'a Cordon,
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
    ended: Option<(Metrics, String, TaskType)>,
}

type Supplier<K> = Arc<dyn SlotSupplier<SlotKind = K> + Send + Sync>;

struct Slots<K> {
    counted: Counted,
    /// Says whether memory and CPU allow one more; they always do without.
    resources: Option<Supplier<K>>,
    kind: PhantomData<fn() -> K>,
}

/// Shows that there is no room, for as long as it lives.
struct Short<'a>(&'a Room);

impl<'a> Short<'a> {
    fn of(room: &'a Room) -> Self {
        room.set_short(true);
        Self(room)
    }
}

impl Drop for Short<'_> {
    fn drop(&mut self) {
        self.0.set_short(false);
    }
}

#[async_trait::async_trait]
impl<K: SlotKind + Send + Sync> SlotSupplier for Slots<K> {
    type SlotKind = K;

    async fn reserve_slot(&self, context: &dyn SlotReservationContext) -> SlotSupplierPermit {
        let Counted { gate, .. } = &self.counted;
        loop {
            let ticket = gate.enter(context.is_sticky()).await;
            let Some(resources) = &self.resources else { return SlotSupplierPermit::with_user_data(ticket) };
            if resources.try_reserve_slot(context).is_some() {
                return SlotSupplierPermit::with_user_data(ticket);
            }
            // Whoever waits for memory or CPU is no open poll.
            drop(ticket);
            let short = Short::of(&gate.room);
            let _ = resources.reserve_slot(context).await;
            drop(short);
            if let Some(ticket) = gate.try_enter(context.is_sticky()) {
                return SlotSupplierPermit::with_user_data(ticket);
            }
        }
    }

    fn try_reserve_slot(&self, context: &dyn SlotReservationContext) -> Option<SlotSupplierPermit> {
        let ticket = self.counted.gate.try_enter(context.is_sticky())?;
        if let Some(resources) = &self.resources {
            resources.try_reserve_slot(context)?;
        }
        Some(SlotSupplierPermit::with_user_data(ticket))
    }

    fn mark_slot_used(&self, context: &dyn SlotMarkUsedContext<SlotKind = K>) {
        if let Some(ticket) = context.permit().user_data::<Ticket>() {
            ticket.run();
        }
        self.counted.gate.begun.cancel();
        self.counted.gate.taken.send_modify(|taken| *taken += 1);
        self.counted.gate.room.occupy();
    }

    fn release_slot(&self, context: &dyn SlotReleaseContext<SlotKind = K>) {
        if context.info().is_none() {
            // The permit was only held by a poll that found no task.
            return;
        }
        self.counted.gate.room.vacate();
        if let Some((metrics, task_queue, task_type)) = &self.counted.ended {
            metrics.ended(task_queue, *task_type, "unreported");
        }
    }

    fn available_slots(&self) -> Option<usize> {
        usize::try_from(self.counted.gate.room.free()).ok()
    }

    fn slot_supplier_kind(&self) -> String {
        if self.resources.is_some() { "ResourceBased" } else { "Fixed" }.to_owned()
    }
}

#[cfg(test)]
mod tests;
