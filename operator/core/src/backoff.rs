//! How long to wait after a failure, for each object by itself.

use std::time::Duration;

/// First wait.
const FIRST: Duration = Duration::from_secs(1);
/// Longest wait.
const LONGEST: Duration = Duration::from_secs(300);

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It may pass by itself.
    Transient,
    /// Somebody must change something; a change wakes the object anyway.
    Config,
}

/// Failures in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts a failure and gives the wait: doubling from 1 s to 5 min, half of it by chance. `jitter` is in `0..1`.
    pub fn next(&mut self, class: Class, jitter: f64) -> Duration {
        let full = match class {
            Class::Transient => FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST),
            Class::Config => LONGEST,
        };
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_five_minutes_and_never_overflows() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..40).map(|_| backoff.next(Class::Transient, 1.0).as_secs()).collect();
        assert_eq!(waits[..10], [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(waits[39], 300);
    }

    #[test]
    fn half_of_it_is_chance() {
        assert_eq!(Backoff::default().next(Class::Transient, 0.0), Duration::from_millis(500));
        assert_eq!(Backoff::default().next(Class::Transient, f64::NAN.max(0.5)), Duration::from_millis(750));
    }

    #[test]
    fn what_somebody_must_change_is_looked_at_slowly() {
        assert_eq!(Backoff::default().next(Class::Config, 1.0), LONGEST);
    }
}
