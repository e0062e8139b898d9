//! When to try again after a failure, an object at a time.
//!
//! The delays double from a second to five minutes and are spread by jitter, so that a thousand objects that failed
//! together do not come back together. The random number comes in as an argument.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// First delay after a passing failure.
pub const FIRST: Duration = Duration::from_secs(1);
/// First delay after the server asked for fewer calls: its token bucket fills in about a second, and others wait as well.
pub const FIRST_RATE_LIMITED: Duration = Duration::from_secs(5);
/// Longest delay, and the one after a failure that only a change of the configuration ends.
pub const LONGEST: Duration = Duration::from_secs(300);

/// What a failure says of the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RetryClass {
    /// It may pass by itself: a timeout, a conflict, a server that is away.
    Transient,
    /// It ends by a change of an object, which is watched; the retry is for changes that nobody announces.
    Config,
    /// The server asked for fewer calls.
    RateLimited,
}

/// Failures in a row. The default has none; a success is a new default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts a failure, and says how long to wait: between half and all of the class's delay, by `jitter` in 0..1.
    #[must_use]
    pub fn next(self, class: RetryClass, jitter: f64) -> (Self, Duration) {
        let delay = match class {
            RetryClass::Transient => doubled(FIRST, self.failures),
            RetryClass::RateLimited => doubled(FIRST_RATE_LIMITED, self.failures),
            RetryClass::Config => LONGEST,
        };
        let delay = delay.mul_f64(0.5 + share(jitter) / 2.0);
        (Self { failures: self.failures.saturating_add(1) }, delay)
    }

    /// Failures in a row.
    #[must_use]
    pub fn failures(self) -> u32 {
        self.failures
    }
}

/// A random number as a share: 0..1, whatever came in.
pub(crate) fn share(jitter: f64) -> f64 {
    if jitter.is_nan() { 0.0 } else { jitter.clamp(0.0, 1.0) }
}

fn doubled(first: Duration, times: u32) -> Duration {
    let factor = 2_u32.checked_pow(times).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delays(class: RetryClass, count: usize) -> Vec<u64> {
        let mut backoff = Backoff::default();
        let mut delay = || {
            let (next, delay) = backoff.next(class, 1.0);
            backoff = next;
            delay.as_secs()
        };
        (0..count).map(|_| delay()).collect()
    }

    #[test]
    fn passing_failures_double_from_a_second_to_five_minutes() {
        assert_eq!(delays(RetryClass::Transient, 11), [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    }

    #[test]
    fn a_rate_limit_is_given_more_time() {
        assert_eq!(delays(RetryClass::RateLimited, 8), [5, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn a_wrong_configuration_is_looked_at_again_slowly() {
        assert_eq!(delays(RetryClass::Config, 2), [300, 300]);
    }

    #[test]
    fn a_success_starts_anew() {
        let (failed, _) = Backoff::default().next(RetryClass::Transient, 1.0);
        assert_eq!(failed.failures(), 1);
        assert_eq!(Backoff::default().next(RetryClass::Transient, 1.0).1, FIRST);
    }

    #[test]
    fn jitter_spreads_over_the_upper_half() {
        for (jitter, millis) in [(0.0, 500), (0.5, 750), (1.0, 1000), (7.0, 1000), (-1.0, 500), (f64::NAN, 500)] {
            let (_, delay) = Backoff::default().next(RetryClass::Transient, jitter);
            assert_eq!(delay, Duration::from_millis(millis), "{jitter}");
        }
    }

    #[test]
    fn endless_failures_do_not_overflow() {
        for failures in [31, 32, 33, u32::MAX] {
            let (next, delay) = Backoff { failures }.next(RetryClass::RateLimited, 1.0);
            assert_eq!((next.failures, delay), (failures.saturating_add(1), LONGEST));
        }
    }
}
