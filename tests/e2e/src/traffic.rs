//! Work that comes one by one, at times of its own, for fleets whose handler sleeps as long as it is told.

use std::time::Duration;

use anyhow::Result;
use harness::activities::{Activities, Arrival, Kind};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::ground::TEMPORAL_NAMESPACE;

/// Time that all tasks of some traffic get to end, once the last one was started.
const END_LIMIT: Duration = Duration::from_secs(120);

/// Traffic for one Task Queue.
pub struct Traffic {
    activities: Activities,
    kind: Kind,
    arrivals: Vec<Arrival>,
}

/// How traffic was dealt with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Tasks, all of them completed.
    pub tasks: usize,
    /// Tasks that were started more than once.
    pub again: usize,
    /// The wait of the task at the 95th percentile, from accepted to started.
    pub p95_wait: Duration,
    /// The longest time by which a task was sent too late.
    pub latest: Duration,
}

impl Traffic {
    /// Traffic for a Task Queue of the server at `host:port`.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn on(host_port: &str, task_queue: &str, arrivals: Vec<Arrival>) -> Result<Self> {
        let kind = Kind {
            activity_type: "Work".to_owned(),
            task_queue: task_queue.to_owned(),
            start_to_close: Duration::from_secs(300),
        };
        Ok(Self { activities: Activities::connect(host_port, TEMPORAL_NAMESPACE).await?, kind, arrivals })
    }

    /// Starts each task at its time, and waits until all have been completed.
    ///
    /// # Errors
    /// The server does not take one, or one does not complete.
    pub async fn play(&self) -> Result<Outcome> {
        let played = self.activities.play(&self.kind, &self.arrivals).await?;
        let done = self.activities.all_completed(&played.ids, END_LIMIT).await?;
        let wait = |one: &harness::activities::Completed| one.started.duration_since(one.accepted);
        let mut waits: Vec<_> = done.iter().map(|one| wait(one).unsigned_abs()).collect();
        waits.sort_unstable();
        let p95_wait = waits.get((waits.len() * 95).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default();
        let again = done.iter().filter(|one| one.attempt > 1).count();
        Ok(Outcome { tasks: done.len(), again, p95_wait, latest: played.latest })
    }
}

/// A task every `every`, from `from` to `until`.
#[must_use]
pub fn regular(span: std::ops::Range<Duration>, every: Duration, service: Duration) -> Vec<Arrival> {
    let times = std::iter::successors(Some(span.start), |at| Some(*at + every));
    times.take_while(|at| *at < span.end).map(|at| Arrival { at, service }).collect()
}

/// Tasks that come independently of each other, `per_second` on average, for `length`. A seed gives the same ones.
#[must_use]
pub fn poisson(length: Duration, per_second: f64, service: Duration, seed: u64) -> Vec<Arrival> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut gap = move || Duration::from_secs_f64(-(1.0 - random.random::<f64>()).ln() / per_second);
    let times = std::iter::successors(Some(gap()), |at| Some(*at + gap()));
    times.take_while(|at| *at < length).map(|at| Arrival { at, service }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_in_order_within_the_span_and_as_many_as_the_rate_says() {
        let second = Duration::from_secs(1);
        let all = poisson(1000 * second, 3.0, second, 1);
        assert!((2800..3200).contains(&all.len()), "{}", all.len());
        assert!(all.is_sorted_by_key(|one| one.at) && all.last().is_some_and(|one| one.at < 1000 * second));
        assert_eq!(poisson(1000 * second, 3.0, second, 1), all);
        assert_ne!(poisson(1000 * second, 3.0, second, 2), all);
        let times: Vec<_> = regular(second..4 * second, second, second).iter().map(|one| one.at.as_secs()).collect();
        assert_eq!(times, [1, 2, 3]);
    }
}
