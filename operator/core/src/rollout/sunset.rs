//! When a version that nobody wants any more gives up its pods, its record on the server, and its Deployment.
//!
//! | the version, read lately and by itself | its pods go after | record and Deployment go after |
//! |---|---|---|
//! | Drained | `scaledownDelay` from when it drained | both delays, with no pod left |
//! | Inactive: it never had traffic | `scaledownDelay` from when another one was wanted | both delays, with no pod left |
//! | no record of it: it never polled | the same, and at least five minutes | the same |
//! | anything else, or not read lately | never | never |

use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Clock;
use crate::observed::{VersionInfo, VersionStatus};

/// Least time for which a version without a record is kept, whatever the user's delay: one answer may be wrong.
const ABSENT: Duration = Duration::from_secs(300);

/// The user's delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delays {
    /// From drained to no pods.
    pub scaledown: Duration,
    /// From no pods to no Deployment.
    pub delete: Duration,
}

/// An old version: neither target, nor with traffic.
#[derive(Clone, Copy, Debug)]
pub struct Old<'a> {
    /// A fresh answer of the server to a question for this version; none in it when the server has no record.
    pub info: Option<&'a VersionInfo>,
    /// When it was first seen that nobody wants it, as its Deployment says.
    pub superseded_at: Option<Timestamp>,
    /// `spec.replicas`.
    pub replicas: u32,
    /// Whether one of its pods exists still.
    pub has_pods: bool,
    /// Whether one of its pods was last seen to run a task.
    pub is_busy: bool,
}

/// What is to be done with an old version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sunset {
    /// Nothing yet; for so long, if time alone is missing.
    Keep(Option<Duration>),
    /// Note on its Deployment that nobody wants it from now on.
    Mark,
    /// Take the note away.
    Unmark,
    /// Take its pods away.
    ScaleDown,
    /// Delete its record, and then its Deployment.
    Delete,
}

/// Decides.
#[must_use]
pub fn decide(old: &Old<'_>, delays: Delays, clock: &Clock) -> Sunset {
    let elapsed = match old.info {
        // The note is of a time when there was no record: with it, the next answer without one would count from then.
        Some(info) if info.status == VersionStatus::Drained && old.superseded_at.is_some() => return Sunset::Unmark,
        Some(info) if info.status == VersionStatus::Drained => drained_for(info, clock),
        Some(VersionInfo { status: VersionStatus::Inactive, .. }) | None => match old.superseded_at {
            Some(at) => clock.since(at),
            None => return Sunset::Mark,
        },
        Some(_) if old.superseded_at.is_some() => return Sunset::Unmark,
        Some(_) => return Sunset::Keep(None),
    };
    let scaledown = if old.info.is_some() { delays.scaledown } else { delays.scaledown.max(ABSENT) };
    let deletion = scaledown.saturating_add(delays.delete);
    if old.replicas > 0 {
        return match scaledown.checked_sub(elapsed) {
            Some(left) if !left.is_zero() => Sunset::Keep(Some(left)),
            _ if old.is_busy => Sunset::Keep(None),
            _ => Sunset::ScaleDown,
        };
    }
    match deletion.checked_sub(elapsed) {
        Some(left) if !left.is_zero() => Sunset::Keep(Some(left)),
        _ if old.has_pods => Sunset::Keep(None),
        _ => Sunset::Delete,
    }
}

/// Time since it drained: by the server's clock, and by the operator's own if that saw it happen. Nobody told: none yet.
fn drained_for(info: &VersionInfo, clock: &Clock) -> Duration {
    let seen = info.status_unchanged_for;
    let told = info.drainage_changed_at.map(|at| clock.since(at));
    told.or(seen).unwrap_or_default().min(seen.unwrap_or(Duration::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600;
    const DELAYS: Delays = Delays { scaledown: Duration::from_secs(3600), delete: Duration::from_secs(7200) };

    fn hours(hours: i64) -> Timestamp {
        Timestamp::from_second(hours * HOUR).unwrap()
    }

    fn info(status: VersionStatus) -> VersionInfo {
        VersionInfo { status, drainage_changed_at: Some(hours(10)), ..VersionInfo::default() }
    }

    fn old(info: Option<&VersionInfo>, replicas: u32) -> Old<'_> {
        let is_drained = info.is_some_and(|info| info.status == VersionStatus::Drained);
        let superseded_at = (!is_drained).then(|| hours(10));
        Old { info, superseded_at, replicas, has_pods: replicas > 0, is_busy: false }
    }

    fn at(old: Old<'_>, now: i64) -> Sunset {
        decide(&old, DELAYS, &Clock::at(hours(now)))
    }

    #[test]
    fn pods_go_after_the_first_delay_and_the_rest_after_both() {
        let drained = info(VersionStatus::Drained);
        let inactive = info(VersionStatus::Inactive);
        for info in [Some(&drained), Some(&inactive), None] {
            assert_eq!(at(old(info, 2), 10), Sunset::Keep(Some(Duration::from_secs(3600))), "{info:?}");
            assert_eq!(at(old(info, 2), 11), Sunset::ScaleDown, "{info:?}");
            assert_eq!(at(old(info, 0), 12), Sunset::Keep(Some(Duration::from_secs(3600))), "{info:?}");
            assert_eq!(at(old(info, 0), 13), Sunset::Delete, "{info:?}");
            assert_eq!(at(old(info, 2), 99), Sunset::ScaleDown, "pods first: {info:?}");
        }
    }

    #[test]
    fn without_delays_a_version_goes_at_once_but_one_without_a_record_is_asked_for_again() {
        let none = Delays { scaledown: Duration::ZERO, delete: Duration::ZERO };
        let drained = info(VersionStatus::Drained);
        assert_eq!(decide(&old(Some(&drained), 2), none, &Clock::at(hours(10))), Sunset::ScaleDown);
        assert_eq!(decide(&old(None, 2), none, &Clock::at(hours(10))), Sunset::Keep(Some(ABSENT)));
    }

    #[test]
    fn a_version_that_may_have_work_is_kept_for_ever() {
        for status in [VersionStatus::Draining, VersionStatus::Ramping, VersionStatus::Current] {
            let info = info(status);
            let unmarked = Old { superseded_at: None, ..old(Some(&info), 2) };
            assert_eq!(at(unmarked, 9_999), Sunset::Keep(None), "{status:?}");
            assert_eq!(at(old(Some(&info), 2), 9_999), Sunset::Unmark, "{status:?}");
        }
    }

    #[test]
    fn a_note_of_an_answer_without_a_record_is_taken_back_once_there_is_one() {
        let drained = info(VersionStatus::Drained);
        let noted = Old { superseded_at: Some(hours(10)), ..old(Some(&drained), 2) };
        assert_eq!(at(noted, 99), Sunset::Unmark);
    }

    #[test]
    fn pods_that_run_a_task_or_exist_still_hold_it_up() {
        let drained = info(VersionStatus::Drained);
        assert_eq!(at(Old { is_busy: true, ..old(Some(&drained), 2) }, 99), Sunset::Keep(None));
        assert_eq!(at(Old { has_pods: true, ..old(Some(&drained), 0) }, 99), Sunset::Keep(None));
    }

    #[test]
    fn without_a_note_since_when_it_is_not_wanted_the_delays_begin_now() {
        let inactive = info(VersionStatus::Inactive);
        for info in [Some(&inactive), None] {
            assert_eq!(at(Old { superseded_at: None, ..old(info, 0) }, 99), Sunset::Mark);
        }
    }

    #[test]
    fn a_clock_that_differs_or_is_set_shortens_no_delay() {
        let mut drained = info(VersionStatus::Drained);
        drained.status_unchanged_for = Some(Duration::from_secs(60));
        assert!(matches!(at(old(Some(&drained), 2), 99), Sunset::Keep(Some(_))), "seen to drain a minute ago");
        drained.drainage_changed_at = None;
        assert!(matches!(at(old(Some(&drained), 2), 99), Sunset::Keep(Some(_))));
        drained.status_unchanged_for = None;
        assert!(matches!(at(old(Some(&drained), 2), 99), Sunset::Keep(Some(_))), "nobody knows since when");
        let inactive = info(VersionStatus::Inactive);
        let set = Clock { wall: hours(99), steady: hours(10) };
        assert!(matches!(decide(&old(Some(&inactive), 2), DELAYS, &set), Sunset::Keep(Some(_))));
    }
}
