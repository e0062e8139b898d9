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

/// A pod's metrics as of one moment. Counters are since the pod's start.
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
    scrape: Option<Scrape>,
    /// By what a ReplicaSet breaks ties: a UID is as good as random.
    pub(super) uid: u64,
    /// The tasks in its slots.
    pub(super) slots: Vec<Option<u32>>,
    /// Its metrics at this moment.
    pub(super) metrics: Scrape,
}

impl Pod {
    /// A pod that was just created.
    pub(super) fn new(id: PodId, uid: u64, slots: u32, now: Micros) -> Self {
        Self {
            id,
            phase: Phase::Starting,
            created: now,
            ready: None,
            deleted: None,
            scrape: None,
            uid,
            slots: vec![None; slots as usize],
            metrics: Scrape { available: slots, ..Scrape::default() },
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

    /// Its metrics when they were last read.
    #[must_use]
    pub fn scrape(&self) -> Option<&Scrape> {
        self.scrape.as_ref()
    }

    /// Its metrics as they are now, for a policy that reads them once more before it removes the pod.
    #[must_use]
    pub fn scrape_again(&self, now: Micros) -> Option<Scrape> {
        matches!(self.phase, Phase::Ready | Phase::Terminating).then_some(Scrape { taken: now, ..self.metrics })
    }

    pub(super) fn become_ready(&mut self, now: Micros) {
        self.phase = Phase::Ready;
        self.ready = Some(now);
    }

    /// Begins its end. One that runs nothing is gone at once.
    pub(super) fn terminate(&mut self, now: Micros) {
        self.deleted = Some(now);
        self.phase = Phase::Terminating;
        if self.metrics.used == 0 {
            self.go();
        }
    }

    /// Ends it. Its tasks are the caller's.
    pub(super) fn go(&mut self) {
        self.phase = Phase::Gone;
        self.slots = Vec::new();
    }

    pub(super) fn start(&mut self, slot: u32, task: u32, waited: Micros) {
        self.slots[slot as usize] = Some(task);
        self.metrics.used += 1;
        self.metrics.available -= 1;
        self.metrics.started += 1;
        let bucket = WAIT_BOUNDS.iter().position(|bound| waited <= *bound).unwrap_or(WAIT_BOUNDS.len());
        self.metrics.waits[bucket] += 1;
    }

    pub(super) fn finish(&mut self, slot: u32, ran: Micros) {
        self.slots[slot as usize] = None;
        self.metrics.used -= 1;
        self.metrics.available += 1;
        self.metrics.completed += 1;
        let bucket = RUN_BOUNDS.iter().position(|bound| ran <= *bound).unwrap_or(RUN_BOUNDS.len());
        self.metrics.runs[bucket] += 1;
        if self.phase == Phase::Terminating && self.metrics.used == 0 {
            self.go();
        }
    }

    /// Reads its metrics, if it serves them.
    pub(super) fn read(&mut self, now: Micros) {
        self.scrape = self.scrape_again(now).or(self.scrape);
    }

    /// A pod that is Ready and was just read, with so many of its slots busy.
    #[cfg(test)]
    pub(crate) fn busy(id: PodId, used: u32, slots: u32) -> Self {
        let mut pod = Self::new(id, 0, slots, 0);
        pod.become_ready(0);
        (0..used).for_each(|slot| pod.start(slot, slot, 0));
        pod.read(0);
        pod
    }
}
