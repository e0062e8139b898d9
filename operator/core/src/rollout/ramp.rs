//! Steps of a Progressive rollout.

use std::time::Duration;

use jiff::Timestamp;

use super::{Move, Step};
use crate::clock::Clock;
use crate::observed::Ramp;

/// What comes next for a version that may get traffic.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Next {
    /// This, now.
    Due(Move),
    /// This, later.
    Later {
        /// The change.
        then: Move,
        /// When it is due by the server's clock, if the server told when the step began.
        at: Option<Timestamp>,
        /// Time until then.
        left: Duration,
    },
    /// Nothing: somebody else gave it a share below the first step.
    Halted,
}

/// The next step, from the share that the version has. `ours` says whether the operator was the last to change the routing.
///
/// A share that is no step becomes the step below it: steps of the spec changed, or somebody else moved it. It never goes
/// forward from there before that step's pause has passed.
pub(super) fn next(steps: &[Step], ramp: Option<&Ramp>, ours: bool, clock: &Clock) -> Next {
    let Some(first) = steps.first() else { return Next::Due(Move::Current) };
    let Some(ramp) = ramp else { return Next::Due(Move::Ramp(first.percent)) };
    let reached = |step: &Step| f32::from(step.percent) <= ramp.percent;
    let Some(index) = steps.iter().rposition(reached) else {
        return if ours { Next::Due(Move::Ramp(first.percent)) } else { Next::Halted };
    };
    let step = &steps[index];
    if f32::from(step.percent) < ramp.percent {
        return Next::Due(Move::Ramp(step.percent));
    }
    let then = steps.get(index + 1).map_or(Move::Current, |next| Move::Ramp(next.percent));
    match step.pause.saturating_sub(held(ramp, clock)) {
        Duration::ZERO => Next::Due(then),
        left => Next::Later { then, at: ramp.changed_at.and_then(|at| at.checked_add(step.pause).ok()), left },
    }
}

/// Time for which the share has been what it is: by the server's time of the change, and by the operator's monotonic clock
/// if that saw it. The shorter counts, so that neither a clock that is set nor one that differs shortens a pause.
fn held(ramp: &Ramp, clock: &Clock) -> Duration {
    let seen = ramp.unchanged_for.unwrap_or(Duration::MAX);
    ramp.changed_at.map_or(ramp.unchanged_for.unwrap_or_default(), |at| clock.since(at)).min(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(60);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn steps() -> Vec<Step> {
        [10, 50].map(|percent| Step { percent, pause: PAUSE, gate: None }).into()
    }

    /// A ramp since second 100, with the time on the monotonic clock since it was seen to change.
    fn ramp(percent: f32, seen: Option<u64>) -> Ramp {
        let unchanged_for = seen.map(Duration::from_secs);
        Ramp { build_id: "b2".into(), percent, since: Some(at(100)), changed_at: Some(at(100)), unchanged_for }
    }

    fn next_at(second: i64, ramp: &Ramp) -> Next {
        next(&steps(), Some(ramp), true, &Clock::at(at(second)))
    }

    #[test]
    fn each_step_is_held_for_its_pause_and_the_last_one_leads_to_current() {
        assert_eq!(next(&steps(), None, true, &Clock::at(at(0))), Next::Due(Move::Ramp(10)));
        let later = Next::Later { then: Move::Ramp(50), at: Some(at(160)), left: Duration::from_secs(1) };
        assert_eq!(next_at(159, &ramp(10.0, None)), later);
        assert_eq!(next_at(160, &ramp(10.0, None)), Next::Due(Move::Ramp(50)));
        assert_eq!(next_at(160, &ramp(50.0, None)), Next::Due(Move::Current));
    }

    #[test]
    fn a_pause_has_passed_only_when_every_clock_says_so() {
        assert!(matches!(next_at(1_000, &ramp(10.0, Some(59))), Next::Later { .. }), "the server's clock is behind");
        assert!(matches!(next_at(150, &ramp(10.0, Some(1_000))), Next::Later { .. }), "the server's clock is ahead");
        let set = Clock { wall: at(9_000), steady: at(110) };
        assert!(matches!(next(&steps(), Some(&ramp(10.0, None)), true, &set), Next::Later { .. }), "the clock was set");
        assert_eq!(next_at(1_000, &ramp(10.0, Some(60))), Next::Due(Move::Ramp(50)), "the control");
        let untold = Ramp { changed_at: None, ..ramp(10.0, None) };
        assert!(matches!(next_at(9_000, &untold), Next::Later { .. }), "nobody knows since when");
    }

    #[test]
    fn a_share_that_is_no_step_goes_back_to_the_one_below_and_never_forward_for_somebody_else() {
        assert_eq!(next_at(9_000, &ramp(49.9, None)), Next::Due(Move::Ramp(10)));
        assert_eq!(next_at(9_000, &ramp(99.0, None)), Next::Due(Move::Ramp(50)));
        let below = ramp(5.0, None);
        assert_eq!(next(&steps(), Some(&below), false, &Clock::at(at(9_000))), Next::Halted);
        assert_eq!(next_at(9_000, &below), Next::Due(Move::Ramp(10)), "the user raised the first step");
    }
}
