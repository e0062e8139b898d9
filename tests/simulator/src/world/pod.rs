//! A pod, and what may be seen of it.

use crate::time::{Micros, SECOND};

/// Number of a pod within a run, by creation.
pub type PodId = u32;

/// Upper bounds of the SDK's histogram of waiting times; what waited longer is in one bucket more.
pub const WAIT_BOUNDS: [Micros; 6] = [SECOND / 10, SECOND / 2, SECOND, 5 * SECOND, 10 * SECOND, 100 * SECOND];

/// Upper bounds of the SDK's histogram of execution latency.
pub const RUN_BOUNDS: [Micros; 6] = [SECOND / 10, SECOND / 2, SECOND, 5 * SECOND, 10 * SECOND, 60 * SECOND];

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Scheduled, pulled or started: everything until it is Ready.
    Starting,
    /// Takes tasks.
    Ready,
    /// Takes no task, and works on those it has until its grace period is over.
    Terminating,
    /// Does not exist any more.
    Gone,
}

/// A pod's metrics as of one moment, of one Task Queue or all. Counters are since the pod's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrape {
    /// When they were read.
    pub taken: Micros,
    /// Slots that run a task.
    pub used: u32,
    /// Slots that are free.
    pub available: u32,
    /// Tasks started.
    pub started: u64,
    /// Tasks finished.
    pub completed: u64,
    /// Starts by how long the task had waited, not cumulated: one bucket for each of [`WAIT_BOUNDS`] and one for the rest.
    pub waits: [u64; WAIT_BOUNDS.len() + 1],
    /// The same of tasks finished, by how long they ran and [`RUN_BOUNDS`].
    pub runs: [u64; RUN_BOUNDS.len() + 1],
}

/// A pod. Its methods are what Kubernetes and the pod itself tell; what goes on in it at this moment is known to the
/// simulation alone.
#[derive(Clone, Debug)]
pub struct Pod {
    id: PodId,
    phase: Phase,
    created: Micros,
    ready: Option<Micros>,
    deleted: Option<Micros>,
    cordoned: bool,
    scrape: Option<Scrape>,
    /// The same by Task Queue; empty before it was read.
    scrapes: Vec<Scrape>,
    /// By what a ReplicaSet breaks ties: a UID is as good as random.
    pub(super) uid: u64,
    /// The tasks in its slots, one Task Queue's slots after another's.
    pub(super) slots: Vec<Option<u32>>,
    /// Its metrics by Task Queue at this moment.
    metrics: Vec<Scrape>,
}

impl Scrape {
    /// Everything of both.
    fn and(self, other: &Self) -> Self {
        let (mut waits, mut runs) = (self.waits, self.runs);
        waits.iter_mut().zip(other.waits).for_each(|(sum, more)| *sum += more);
        runs.iter_mut().zip(other.runs).for_each(|(sum, more)| *sum += more);
        Self {
            taken: other.taken,
            used: self.used + other.used,
            available: self.available + other.available,
            started: self.started + other.started,
            completed: self.completed + other.completed,
            waits,
            runs,
        }
    }
}

impl Pod {
    /// A pod that was just created, with so many slots for each of so many Task Queues.
    pub(super) fn new(id: PodId, uid: u64, (slots, queues): (u32, usize), now: Micros) -> Self {
        Self {
            id,
            phase: Phase::Starting,
            created: now,
            ready: None,
            deleted: None,
            cordoned: false,
            scrape: None,
            scrapes: Vec::new(),
            uid,
            slots: vec![None; slots as usize * queues],
            metrics: vec![Scrape { available: slots, ..Scrape::default() }; queues],
        }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> PodId {
        self.id
    }

    /// Where it is in its life.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// When it was created.
    #[must_use]
    pub fn created(&self) -> Micros {
        self.created
    }

    /// When it became Ready, if it did.
    #[must_use]
    pub fn ready(&self) -> Option<Micros> {
        self.ready
    }

    /// When its deletion was asked for, if it was.
    #[must_use]
    pub fn deleted(&self) -> Option<Micros> {
        self.deleted
    }

    /// Whether it was told to take no new task.
    #[must_use]
    pub fn cordoned(&self) -> bool {
        self.cordoned
    }

    /// Its metrics when they were last read, of all Task Queues together.
    #[must_use]
    pub fn scrape(&self) -> Option<&Scrape> {
        self.scrape.as_ref()
    }

    /// The same by Task Queue, in the order of [`Workload::queues`](crate::Workload::queues); empty before it was read.
    #[must_use]
    pub fn scrapes(&self) -> &[Scrape] {
        &self.scrapes
    }

    /// The same as they are now, for a policy that reads them once more before it removes the pod.
    #[must_use]
    pub fn scrapes_again(&self, now: Micros) -> Option<Vec<Scrape>> {
        let read = || self.metrics.iter().map(|metrics| Scrape { taken: now, ..*metrics }).collect();
        matches!(self.phase, Phase::Ready | Phase::Terminating).then(read)
    }

    /// Tasks that run in it at this moment.
    pub(super) fn used(&self) -> u32 {
        self.metrics.iter().map(|queue| queue.used).sum()
    }

    /// Whether it takes tasks.
    pub(super) fn takes_tasks(&self) -> bool {
        self.phase == Phase::Ready && !self.cordoned
    }

    pub(super) fn set_cordoned(&mut self, cordoned: bool) {
        self.cordoned = cordoned;
    }

    /// The Task Queue that a slot is for.
    pub(super) fn queue_of(&self, slot: u32) -> usize {
        slot as usize / (self.slots.len() / self.metrics.len()).max(1)
    }

    pub(super) fn become_ready(&mut self, now: Micros) {
        self.phase = Phase::Ready;
        self.ready = Some(now);
    }

    /// Begins its end.
    pub(super) fn terminate(&mut self, now: Micros) {
        self.deleted = Some(now);
        self.phase = Phase::Terminating;
    }

    /// Ends it. Its tasks are the caller's.
    pub(super) fn go(&mut self) {
        self.phase = Phase::Gone;
        self.slots = Vec::new();
    }

    pub(super) fn start(&mut self, slot: u32, task: u32, waited: Micros) {
        let queue = self.queue_of(slot);
        self.slots[slot as usize] = Some(task);
        let metrics = &mut self.metrics[queue];
        metrics.used += 1;
        metrics.available -= 1;
        metrics.started += 1;
        let bucket = WAIT_BOUNDS.iter().position(|bound| waited <= *bound).unwrap_or(WAIT_BOUNDS.len());
        metrics.waits[bucket] += 1;
    }

    pub(super) fn finish(&mut self, slot: u32, ran: Micros) {
        let queue = self.queue_of(slot);
        self.slots[slot as usize] = None;
        let metrics = &mut self.metrics[queue];
        metrics.used -= 1;
        metrics.available += 1;
        metrics.completed += 1;
        let bucket = RUN_BOUNDS.iter().position(|bound| ran <= *bound).unwrap_or(RUN_BOUNDS.len());
        metrics.runs[bucket] += 1;
        if self.phase == Phase::Terminating && self.used() == 0 {
            self.go();
        }
    }

    /// Reads its metrics, if it serves them.
    pub(super) fn read(&mut self, now: Micros) {
        if matches!(self.phase, Phase::Ready | Phase::Terminating) {
            self.scrapes.clone_from(&self.metrics);
            self.scrapes.iter_mut().for_each(|scrape| scrape.taken = now);
            self.scrape = self
                .scrapes
                .iter()
                .fold(None, |sum: Option<Scrape>, next| Some(sum.map_or(*next, |sum| sum.and(next))));
        }
    }

    /// A pod that is Ready and was just read, with so many of its slots busy.
    #[cfg(test)]
    pub(crate) fn busy(id: PodId, used: u32, slots: u32) -> Self {
        let mut pod = Self::new(id, 0, (slots, 1), 0);
        pod.become_ready(0);
        (0..used).for_each(|slot| pod.start(slot, slot, 0));
        pod.read(0);
        pod
    }
}
