//! What Temporal's matching service tells of a Task Queue, as it tells it.

use crate::time::{Micros, SECOND, count, seconds};

/// Width of a bucket of the server's rates.
const BUCKET: Micros = 5 * SECOND;
/// Full buckets that a rate is the mean of; one more is being filled.
const FULL_BUCKETS: usize = 6;
/// Time for which the server hands out the same statistics.
const CACHE: Micros = 5 * SECOND;
/// Time for which a queue counts as rate limited after a task had to wait for the limit.
const LIMITED_FOR: Micros = 30 * SECOND;

/// Statistics of a Task Queue.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ServerStats {
    /// When the server made them: up to 5 s before it gave them out.
    pub taken: Micros,
    /// Tasks that wait.
    pub backlog: u64,
    /// Time for which the oldest of them has waited.
    pub backlog_age: Micros,
    /// Tasks added a second, a mean of 30 s.
    pub add_rate: f64,
    /// Tasks given out a second, a mean of 30 s.
    pub dispatch_rate: f64,
    /// Whether the rate limit held a task back within the last 30 s.
    pub rate_limited: bool,
}

impl ServerStats {
    /// Of two Task Queues together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            taken: self.taken.min(other.taken),
            backlog: self.backlog + other.backlog,
            backlog_age: self.backlog_age.max(other.backlog_age),
            add_rate: self.add_rate + other.add_rate,
            dispatch_rate: self.dispatch_rate + other.dispatch_rate,
            rate_limited: self.rate_limited || other.rate_limited,
        }
    }
}

/// A rate over 30 s in buckets of 5 s: six full ones and the one that is being filled.
#[derive(Clone, Debug)]
pub struct RateTracker {
    started: Micros,
    bucket_started: Micros,
    buckets: [u64; FULL_BUCKETS + 1],
    current: usize,
}

impl RateTracker {
    /// A tracker that starts at `now`.
    #[must_use]
    pub fn new(now: Micros) -> Self {
        Self { started: now, bucket_started: now, buckets: [0; FULL_BUCKETS + 1], current: 0 }
    }

    /// Counts an event.
    pub fn count(&mut self, now: Micros) {
        self.advance(now);
        self.buckets[self.current] += 1;
    }

    /// Events a second.
    pub fn rate(&mut self, now: Micros) -> f64 {
        self.advance(now);
        let window = BUCKET * FULL_BUCKETS as u64 + (now - self.bucket_started);
        let elapsed = window.min(now - self.started);
        if elapsed == 0 { 0.0 } else { count(self.buckets.iter().sum()) / seconds(elapsed) }
    }

    fn advance(&mut self, now: Micros) {
        let passed = (now - self.bucket_started) / BUCKET;
        for _ in 0..passed.min(self.buckets.len() as u64) {
            self.current = (self.current + 1) % self.buckets.len();
            self.buckets[self.current] = 0;
        }
        self.bucket_started += passed * BUCKET;
    }
}

/// The server's side of a Task Queue: rates, the rate limit's memory and the cache of its answers.
#[derive(Clone, Debug)]
pub struct Server {
    added: RateTracker,
    dispatched: RateTracker,
    limited_at: Option<Micros>,
    cached: Option<ServerStats>,
}

impl Default for Server {
    fn default() -> Self {
        Self { added: RateTracker::new(0), dispatched: RateTracker::new(0), limited_at: None, cached: None }
    }
}

impl Server {
    /// A task was added.
    pub fn add(&mut self, now: Micros) {
        self.added.count(now);
    }

    /// A task was given out.
    pub fn dispatch(&mut self, now: Micros) {
        self.dispatched.count(now);
    }

    /// The rate limit held a task back.
    pub fn limit(&mut self, now: Micros) {
        self.limited_at = Some(now);
    }

    /// The statistics as a caller gets them; made of `backlog` tasks, the oldest as old as `age`, unless the cache answers.
    pub fn stats(&mut self, now: Micros, backlog: u64, age: Micros) -> ServerStats {
        if let Some(cached) = self.cached.filter(|stats| now - stats.taken < CACHE) {
            return cached;
        }
        let fresh = ServerStats {
            taken: now,
            backlog,
            backlog_age: age,
            add_rate: self.added.rate(now),
            dispatch_rate: self.dispatched.rate(now),
            rate_limited: self.limited_at.is_some_and(|at| now - at < LIMITED_FOR),
        };
        self.cached = Some(fresh);
        fresh
    }
}

/// A rate limit with a burst of one second, kept exactly: a task may go when the schedule of its limit is less than the
/// burst ahead of the clock.
#[derive(Clone, Debug)]
pub struct Limiter {
    spacing: f64,
    /// When the task after the last one would go without a burst, in microseconds.
    schedule: f64,
}

impl Limiter {
    /// A limit of so many tasks a second.
    #[must_use]
    pub fn new(per_second: f64) -> Self {
        Self { spacing: 1e6 / per_second, schedule: 0.0 }
    }

    /// Takes a turn, or says when there is one.
    ///
    /// # Errors
    /// The next moment with a turn, after `now`.
    pub fn take(&mut self, now: Micros) -> Result<(), Micros> {
        let ahead = self.schedule - count(now) + self.spacing - count(SECOND);
        if ahead > 0.0 {
            // At least 1 µs, so that the clock goes on.
            return Err(now + crate::time::micros(ahead / 1e6).max(1));
        }
        self.schedule = self.schedule.max(count(now)) + self.spacing;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Limiter, RateTracker, Server};
    use crate::time::{Micros, SECOND};

    fn events(tracker: &mut RateTracker, from: Micros, until: Micros, every: Micros) {
        (from..until).step_by(usize::try_from(every).unwrap()).for_each(|at| tracker.count(at));
    }

    #[test]
    fn a_step_shows_a_sixth_after_five_seconds_and_all_after_thirty() {
        let mut tracker = RateTracker::new(0);
        let start = 600 * SECOND;
        events(&mut tracker, start, start + 5 * SECOND, SECOND / 20);
        assert!((tracker.rate(start + 5 * SECOND) - 20.0 / 6.0).abs() < 1e-9);
        events(&mut tracker, start + 5 * SECOND, start + 30 * SECOND, SECOND / 20);
        assert!((tracker.rate(start + 30 * SECOND) - 20.0).abs() < 1e-9);
    }

    #[test]
    fn a_rate_is_forgotten_bucket_by_bucket() {
        let mut tracker = RateTracker::new(0);
        events(&mut tracker, 0, 60 * SECOND, SECOND / 10);
        assert!((tracker.rate(75 * SECOND) - 5.0).abs() < 1e-9);
        assert!(tracker.rate(95 * SECOND).abs() < 1e-9);
    }

    #[test]
    fn a_young_queue_divides_by_its_age() {
        let mut tracker = RateTracker::new(0);
        assert!(tracker.rate(0).abs() < 1e-9);
        events(&mut tracker, 0, 2 * SECOND, SECOND / 10);
        assert!((tracker.rate(2 * SECOND) - 10.0).abs() < 1e-9);
    }

    #[test]
    fn the_server_repeats_itself_for_five_seconds() {
        let mut server = Server::default();
        assert_eq!(server.stats(SECOND, 3, 0).backlog, 3);
        assert_eq!(server.stats(6 * SECOND - 1, 9, 0).backlog, 3);
        assert_eq!(server.stats(6 * SECOND, 9, 0).backlog, 9);
    }

    #[test]
    fn a_queue_is_rate_limited_for_half_a_minute_after_it_was() {
        let mut server = Server::default();
        server.limit(10 * SECOND);
        assert!(server.stats(39 * SECOND, 1, 0).rate_limited);
        assert!(!server.stats(44 * SECOND, 1, 0).rate_limited);
    }

    #[test]
    fn a_limit_gives_its_burst_and_then_its_rate() {
        let mut limiter = Limiter::new(10.0);
        let start = 100 * SECOND;
        assert_eq!((0..20).filter(|_| limiter.take(start).is_ok()).count(), 10);
        let next = limiter.take(start).unwrap_err();
        assert_eq!(next, start + SECOND / 10);
        assert_eq!(limiter.take(next), Ok(()));
        assert!(limiter.take(next).is_err());
    }
}
