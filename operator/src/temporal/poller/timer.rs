//! When one thing is read next, and how its last read went.

use std::time::Duration;

use operator_core::observed::{FailureClass, TemporalFailure};
use rand::RngExt as _;
use tokio::time::Instant;

use crate::temporal::errors::CallError;

const FIRST_RETRY: Duration = Duration::from_millis(500);
/// Least share of a period that the second read waits for.
const FIRST_WAIT: f64 = 0.2;
/// The server may be back at any moment: look every few seconds.
const LONGEST_RETRY: Duration = Duration::from_secs(5);
/// What the server refuses, or fails at, seldom changes by itself.
const LONGEST_RETRY_REFUSED: Duration = Duration::from_secs(30);

/// Timer of one repeated read.
#[derive(Debug)]
pub(super) struct Timer {
    first: Instant,
    last: Option<Instant>,
    stretch: f64,
    /// A first read was answered.
    spread: bool,
    retry_at: Option<Instant>,
    asap: bool,
    failures: u32,
    /// A read is under way.
    pub busy: bool,
    /// Why the last read failed.
    pub failure: Option<TemporalFailure>,
}

impl Timer {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            first: now,
            last: None,
            stretch: 1.0,
            spread: false,
            retry_at: None,
            asap: false,
            failures: 0,
            busy: false,
            failure: None,
        }
    }

    /// When it is due, for a period that may have changed since; never while a read is under way.
    pub(super) fn due(&self, period: Duration) -> Option<Instant> {
        if self.busy {
            return None;
        }
        if let Some(retry_at) = self.retry_at {
            return Some(retry_at);
        }
        match self.last {
            Some(last) if !self.asap => Some(last + period.mul_f64(self.stretch)),
            _ => Some(self.first),
        }
    }

    /// Whether a read that was made regularly was left out for two periods.
    pub(super) fn starves(&self, period: Duration, now: Instant) -> bool {
        let waits = self.retry_at.is_none() && !self.busy;
        waits && self.last.is_some_and(|last| now.saturating_duration_since(last) >= period * 2)
    }

    /// Makes it due at once, and once more when a read is under way: that one may have missed what happened.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.asap = true;
        self.first = now;
    }

    /// Makes a failed read due again soon: the server is back.
    pub(super) fn forgive(&mut self, now: Instant) {
        if self.retry_at.is_some() {
            self.retry_at = Some(now + FIRST_RETRY.mul_f64(rand::rng().random_range(0.0..1.0)));
        }
    }

    /// Forgets how the last read went: it is not read any more, so nothing would ever take a failure back.
    pub(super) fn rest(&mut self) {
        self.failures = 0;
        self.retry_at = None;
        self.failure = None;
    }

    /// Begins a read. Gives the time since the one before.
    pub(super) fn start(&mut self, now: Instant) -> Option<Duration> {
        self.busy = true;
        self.asap = false;
        let before = self.last.replace(now);
        before.map(|before| now.saturating_duration_since(before))
    }

    /// Ends a read that was answered. Says whether it had failed before. The first wait is a part of a period, so that
    /// what was read together for the first time is not read together for ever.
    pub(super) fn succeeded(&mut self, stretch: f64) -> bool {
        self.busy = false;
        self.failures = 0;
        self.retry_at = None;
        let first = !std::mem::replace(&mut self.spread, true);
        self.stretch = if first { stretch * rand::rng().random_range(FIRST_WAIT..1.0) } else { stretch };
        self.failure.take().is_some()
    }

    /// Ends a read that failed. Says whether the failure is news.
    pub(super) fn failed(&mut self, error: &CallError, now: Instant) -> bool {
        self.busy = false;
        let longest = match error.failure.class {
            FailureClass::Unreachable | FailureClass::ResourceExhausted => LONGEST_RETRY,
            _ => LONGEST_RETRY_REFUSED,
        };
        self.retry_at = Some(now + backoff(self.failures, longest));
        self.failures += 1;
        let news = self.failure.as_ref().is_none_or(|before| before.class != error.failure.class);
        self.failure = Some(error.failure.clone());
        news
    }
}

/// Time to wait after a number of failures in a row: doubling up to a limit, with jitter so that nobody marches in step.
pub(super) fn backoff(failures: u32, longest: Duration) -> Duration {
    let wait = (FIRST_RETRY * 2_u32.pow(failures.min(10))).min(longest);
    wait.mul_f64(rand::rng().random_range(0.75..1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(5);

    #[test]
    fn a_hurried_timer_runs_once_more_after_the_read_under_way() {
        let now = Instant::now();
        let mut timer = Timer::new(now);
        timer.start(now);
        assert_eq!(timer.due(PERIOD), None);
        timer.hurry(now);
        timer.succeeded(1.0);
        assert_eq!(timer.due(PERIOD), Some(now));
        timer.start(now);
        timer.succeeded(1.0);
        assert_eq!(timer.due(PERIOD), Some(now + PERIOD));
    }

    #[test]
    fn what_is_first_read_together_is_read_again_spread_over_the_period() {
        let now = Instant::now();
        let second = || {
            let mut timer = Timer::new(now);
            timer.start(now);
            timer.succeeded(1.0);
            (timer.due(PERIOD).unwrap() - now).as_secs_f64() / PERIOD.as_secs_f64()
        };
        let waits: Vec<f64> = (0..400).map(|_| second()).collect();
        for tenth in 2..10 {
            let share = f64::from(tenth) / 10.0..f64::from(tenth + 1) / 10.0;
            let within = waits.iter().filter(|wait| share.contains(wait)).count();
            assert!((20..90).contains(&within), "{within} of 400 in {share:?}");
        }
    }

    #[test]
    fn retries_slow_down_to_a_limit_that_depends_on_the_failure() {
        let now = Instant::now();
        let mut timer = Timer::new(now);
        for (class, longest) in
            [(FailureClass::Unreachable, LONGEST_RETRY), (FailureClass::Other, LONGEST_RETRY_REFUSED)]
        {
            for _ in 0..10 {
                timer.start(now);
                timer.failed(&CallError::local(class, "x"), now);
            }
            let wait = timer.due(PERIOD).unwrap() - now;
            assert!(wait <= longest && wait >= longest.mul_f64(0.75), "{class:?}: {wait:?}");
        }
        assert!(timer.succeeded(1.0));
        timer.start(now);
        assert!(!timer.succeeded(1.0));
        assert_eq!(timer.due(PERIOD), Some(now + PERIOD));
    }
}
