//! What is to be done: the tasks of a run, drawn once, so that every policy gets the same.

use crate::time::{Micros, SECOND, count, seconds};

/// A task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// When it is added to the Task Queue.
    pub arrival: Micros,
    /// How long a slot is busy with it.
    pub service: Micros,
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

/// What is out of the ordinary.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// Tasks a second that the server gives out at most, with a burst of one second.
    pub rate_limit: Option<f64>,
    /// Whether no pod ever becomes Ready.
    pub never_ready: bool,
    /// When the server can't be read. Workers still get their tasks.
    pub server_outages: Vec<Window>,
    /// When the pods' metrics can't be read.
    pub scrape_outages: Vec<Window>,
}

/// Tasks and the fleet that is to do them.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Name of the trace.
    pub name: String,
    /// The tasks by time of arrival.
    pub tasks: Vec<Task>,
    /// Slots of a pod.
    pub slots: u32,
    /// Median of a pod's start-up time.
    pub startup: Micros,
    /// Longest time that a task should wait.
    pub target: Micros,
    /// What is out of the ordinary.
    pub options: Options,
}

impl Workload {
    /// Ordinary tasks for an ordinary fleet: 10 slots a pod, 20 s of start-up, 5 s of waiting. The tasks may be in any
    /// order.
    #[must_use]
    pub fn new(name: &str, mut tasks: Vec<Task>) -> Self {
        tasks.sort_by_key(|task| task.arrival);
        Self {
            name: name.into(),
            tasks,
            slots: 10,
            startup: 20 * SECOND,
            target: 5 * SECOND,
            options: Options::default(),
        }
    }

    /// Replica-seconds that the work takes when every slot is always busy: the least cost, with waiting unlimited.
    #[must_use]
    pub fn work_bound(&self) -> f64 {
        self.total_service() / f64::from(self.slots)
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
