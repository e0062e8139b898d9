//! Time that has passed since a moment, by a clock that may jump.

use std::time::Duration;

use jiff::Timestamp;

/// One moment on two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// The wall clock. It may be set forwards or back at any time.
    pub wall: Timestamp,
    /// The wall clock as it was when the process started, and the time since then by its monotonic clock.
    pub steady: Timestamp,
}

impl Clock {
    /// A moment at which the wall clock was never set since the process started.
    #[must_use]
    pub const fn at(moment: Timestamp) -> Self {
        Self { wall: moment, steady: moment }
    }

    /// Time since a moment, as far as both clocks say so: a clock that was set shortens no delay. A moment that is yet to
    /// come is none ago.
    #[must_use]
    pub fn since(&self, then: Timestamp) -> Duration {
        elapsed(then, self.wall).min(elapsed(then, self.steady))
    }

    /// Time since a moment, as far as either clock says so: a clock that was set prolongs no time within which something is
    /// still allowed.
    #[must_use]
    pub fn since_at_most(&self, then: Timestamp) -> Duration {
        elapsed(then, self.wall).max(elapsed(then, self.steady))
    }
}

/// Time from one moment to another; none if it lies before.
fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_shortens_no_delay() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(Clock::at(at(90)).since(at(30)), Duration::from_secs(60));
        assert_eq!(Clock { wall: at(9_000), steady: at(90) }.since(at(30)), Duration::from_secs(60), "set forwards");
        assert_eq!(Clock { wall: at(40), steady: at(90) }.since(at(30)), Duration::from_secs(10), "set back");
        assert_eq!(Clock::at(at(10)).since(at(30)), Duration::ZERO, "yet to come");
        let set_back = Clock { wall: at(40), steady: at(90) };
        assert_eq!(set_back.since_at_most(at(30)), Duration::from_secs(60), "nor prolongs what is allowed for a time");
    }
}
