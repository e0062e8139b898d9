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

/// How long a task waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// It never arrived here.
    Elsewhere,
    /// It did not start yet.
    Open,
    /// So long until its first start.
    Over(Micros),
}

/// Counts and sums of a run.
#[derive(Debug)]
pub(super) struct Tally {
    pub counts: Counts,
    /// Of each task.
    waits: Vec<Wait>,
    /// Time that pods existed, over all of them.
    pub pod_time: Micros,
    /// Changes of the number of replicas.
    pub scale_events: u64,
    /// Of these the decreases while readings were missing for too long to prove anything.
    pub stale_decreases: u64,
    /// Most pods at a time, those that are ending left out.
    pub most_replicas: u32,
}

impl Tally {
    pub fn new(tasks: usize) -> Self {
        Self {
            counts: Counts::default(),
            waits: vec![Wait::Elsewhere; tasks],
            pod_time: 0,
            scale_events: 0,
            stale_decreases: 0,
            most_replicas: 0,
        }
    }

    /// A task arrives.
    pub fn arrive(&mut self, task: u32) {
        self.counts.arrived += 1;
        self.waits[task as usize] = Wait::Open;
    }

    /// A task starts after it waited so long since it arrived.
    pub fn start(&mut self, task: u32, waited: Micros) {
        self.counts.started += 1;
        let wait = &mut self.waits[task as usize];
        if *wait == Wait::Open {
            *wait = Wait::Over(waited);
        }
    }

    /// Whether every task that arrived is done.
    pub fn all_done(&self) -> bool {
        self.counts.finished == self.counts.arrived
    }

    /// The waits of the tasks that arrived; of one that never started, the time it would have waited until `end`.
    pub fn waits(self, arrivals: impl Iterator<Item = Micros>, end: Micros) -> Vec<Micros> {
        let wait = |(wait, arrival): (Wait, Micros)| match wait {
            Wait::Elsewhere => None,
            Wait::Open => Some(end.saturating_sub(arrival)),
            Wait::Over(waited) => Some(waited),
        };
        self.waits.into_iter().zip(arrivals).filter_map(wait).collect()
    }
}
