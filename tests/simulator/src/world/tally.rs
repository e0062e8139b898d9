//! What is counted while a run goes on.

use crate::time::Micros;

/// What became of the tasks. Each start is finished, killed, or goes on when the run ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tasks that arrived.
    pub arrived: u64,
    /// Starts, those after a kill too.
    pub started: u64,
    /// Tasks that were done.
    pub finished: u64,
    /// Starts that the end of a pod cut off.
    pub killed: u64,
    /// Starts that went on when the run ended.
    pub running: u64,
}

/// Counts and sums of a run.
#[derive(Debug)]
pub(super) struct Tally {
    pub counts: Counts,
    /// Time that each task waited for its first start.
    waits: Vec<Option<Micros>>,
    /// Time that pods existed, over all of them.
    pub pod_time: Micros,
    /// Changes of the number of replicas.
    pub scale_events: u64,
    /// Most pods at a time, those that are ending left out.
    pub most_replicas: u32,
}

impl Tally {
    pub fn new(tasks: usize) -> Self {
        Self { counts: Counts::default(), waits: vec![None; tasks], pod_time: 0, scale_events: 0, most_replicas: 0 }
    }

    /// A task starts after it waited so long since it arrived.
    pub fn start(&mut self, task: u32, waited: Micros) {
        self.counts.started += 1;
        self.waits[task as usize].get_or_insert(waited);
    }

    /// Whether every task that arrived is done.
    pub fn all_done(&self) -> bool {
        self.counts.finished == self.counts.arrived
    }

    /// The waits; of a task that never started, the time it would have waited until `end`.
    pub fn waits(self, arrivals: impl Iterator<Item = Micros>, end: Micros) -> Vec<Micros> {
        self.waits
            .into_iter()
            .zip(arrivals)
            .map(|(wait, arrival)| wait.unwrap_or(end.saturating_sub(arrival)))
            .collect()
    }
}
