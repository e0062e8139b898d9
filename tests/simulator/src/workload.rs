//! What is to be done: the tasks of a run, drawn once, so that every policy gets the same.

use crate::time::{Micros, SECOND, count, seconds};

/// A task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// When it is added to the Task Queue.
    pub arrival: Micros,
    /// How long a slot is busy with it.
    pub service: Micros,
    /// Its Task Queue, as an index into [`Workload::queues`].
    pub queue: u16,
}

/// A length of time with both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its first moment.
    pub from: Micros,
    /// The first moment after it.
    pub until: Micros,
}

impl Window {
    /// Whether `now` is in one of `windows`.
    #[must_use]
    pub fn any(windows: &[Self], now: Micros) -> bool {
        windows.iter().any(|window| (window.from..window.until).contains(&now))
    }
}

/// A time without the autoscaler: its process is started anew, or another replica takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// When nobody decides.
    pub away: Window,
    /// Whether the new one finds what the old one left to be kept; otherwise it knows nothing.
    pub checkpoint: bool,
}

/// What is out of the ordinary.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// Tasks a second that the server gives out at most from each Task Queue, with a burst of one second.
    pub rate_limit: Option<f64>,
    /// Whether no pod ever becomes Ready.
    pub never_ready: bool,
    /// When the server can't be read. Workers still get their tasks.
    pub server_outages: Vec<Window>,
    /// When the pods' metrics can't be read.
    pub scrape_outages: Vec<Window>,
    /// Share of the reads of a pod's metrics that fail, each for itself.
    pub scrape_loss: f64,
    /// Share of the reads of the server that fail.
    pub server_loss: f64,
    /// When the autoscaler is started anew.
    pub restarts: Vec<Restart>,
}

/// Tasks and the fleet that is to do them.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Name of the trace.
    pub name: String,
    /// The tasks by time of arrival.
    pub tasks: Vec<Task>,
    /// Names of the Task Queues that the fleet serves.
    pub queues: Vec<String>,
    /// Slots of a pod for each Task Queue.
    pub slots: u32,
    /// Median of a pod's start-up time.
    pub startup: Micros,
    /// Time that a pod which runs nothing takes to end.
    pub shutdown: Micros,
    /// Longest time that a task should wait.
    pub target: Micros,
    /// What is out of the ordinary.
    pub options: Options,
}

impl Workload {
    /// Ordinary tasks for an ordinary fleet: one Task Queue of the trace's name, 10 slots a pod, 20 s of start-up, 5 s of
    /// waiting. The tasks may be in any order.
    #[must_use]
    pub fn new(name: &str, mut tasks: Vec<Task>) -> Self {
        tasks.sort_by_key(|task| task.arrival);
        Self {
            name: name.into(),
            tasks,
            queues: vec![name.into()],
            slots: 10,
            startup: 20 * SECOND,
            shutdown: 0,
            target: 5 * SECOND,
            options: Options::default(),
        }
    }

    /// Replica-seconds that the work takes when every slot for the Task Queue with the most work is always busy: the least
    /// cost, with waiting unlimited.
    #[must_use]
    pub fn work_bound(&self) -> f64 {
        let mut work = vec![0; self.queues.len()];
        self.tasks.iter().for_each(|task| work[usize::from(task.queue)] += task.service);
        seconds(work.into_iter().max().unwrap_or(0)) / f64::from(self.slots)
    }

    /// Slots of a pod for all Task Queues.
    #[must_use]
    pub fn all_slots(&self) -> u32 {
        u32::try_from(self.queues.len()).unwrap_or(u32::MAX).saturating_mul(self.slots)
    }

    /// Mean service time in seconds; 0 without a task.
    #[must_use]
    pub fn mean_service(&self) -> f64 {
        self.total_service() / count(self.tasks.len().max(1) as u64)
    }

    /// When the last task arrives.
    #[must_use]
    pub fn last_arrival(&self) -> Micros {
        self.tasks.last().map_or(0, |task| task.arrival)
    }

    fn total_service(&self) -> f64 {
        seconds(self.tasks.iter().map(|task| task.service).sum())
    }
}
