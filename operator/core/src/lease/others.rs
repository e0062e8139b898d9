//! Who else may be writing: managers that hold a Lease of the same name in another namespace.
//!
//! Two managers in one namespace exclude each other by their Lease. One in another namespace, of temporal-worker-controller or of
//! this operator, is seen by its own: it renews that. So before a replica competes for its Lease for the first time it looks whether
//! others are renewed, and waits for those that are, at most [`LONGEST_WAIT`]: whoever may write Leases in a namespace of its own
//! must not keep the operator of all others from its work.
//!
//! As in the election itself, the times in a record are compared for change alone. A manager that was scaled to zero leaves a record
//! that never changes again.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::{LEASE_DURATION, LeaseRecord, RETRY_PERIOD};

/// Longest time that other managers are waited for.
pub const LONGEST_WAIT: Duration = Duration::from_secs(120);
/// A record this old, by the wall clock, is that of a manager which is gone, however the clocks differ.
const LONG_GONE: Duration = Duration::from_secs(600);

/// A Lease of the name that managers have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherLease {
    /// Its namespace.
    pub namespace: String,
    /// Its `spec`.
    pub record: LeaseRecord,
}

/// What was seen of them until now. The default has seen nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Others {
    seen: BTreeMap<String, Seen>,
    since: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    record: LeaseRecord,
    /// When it was first seen like this.
    since: Duration,
    /// Whether it was another one before.
    renewed: bool,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody else is there.
    Alone,
    /// Look again after [`RETRY_PERIOD`]. Those that were seen to renew are named, as `namespace/holder`.
    Wait(Vec<String>),
    /// They were waited for long enough: go on beside these, which renew still.
    Beside(Vec<String>),
}

/// Takes note of the Leases that there are, at `now` on a monotonic clock and `wall` on the other one.
#[must_use]
pub fn look(leases: &[OtherLease], own: &str, others: &Others, now: Duration, wall: Timestamp) -> (Verdict, Others) {
    let since = others.since.unwrap_or(now);
    let mut next = Others { since: Some(since), ..Others::default() };
    for lease in leases.iter().filter(|lease| lease.namespace != own && is_held(&lease.record, wall)) {
        let before = others.seen.get(&lease.namespace);
        let seen = match before.filter(|seen| seen.record == lease.record) {
            Some(same) => same.clone(),
            None => Seen { record: lease.record.clone(), since: now, renewed: before.is_some() },
        };
        next.seen.insert(lease.namespace.clone(), seen);
    }
    let is_there = |seen: &Seen| now.saturating_sub(seen.since) < duration(&seen.record);
    let there: Vec<_> = next.seen.iter().filter(|(_, seen)| is_there(seen)).collect();
    let renewed = there.iter().filter(|(_, seen)| seen.renewed);
    let named: Vec<_> = renewed.map(|(namespace, seen)| format!("{namespace}/{}", seen.record.holder)).collect();
    let verdict = match () {
        () if there.is_empty() => Verdict::Alone,
        () if now.saturating_sub(since) >= LONGEST_WAIT => Verdict::Beside(named),
        () => Verdict::Wait(named),
    };
    (verdict, next)
}

fn is_held(record: &LeaseRecord, wall: Timestamp) -> bool {
    let age = record.renewed.and_then(|renewed| Duration::try_from(wall.duration_since(renewed)).ok());
    !record.holder.is_empty() && age.is_none_or(|age| age < LONG_GONE)
}

fn duration(record: &LeaseRecord) -> Duration {
    record.duration.filter(|duration| !duration.is_zero()).unwrap_or(LEASE_DURATION)
}

/// Time until the next look.
pub const AGAIN: Duration = RETRY_PERIOD;

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::UNIX_EPOCH;

    fn lease(namespace: &str, holder: &str, renewed: i64) -> OtherLease {
        let record = LeaseRecord {
            holder: holder.into(),
            renewed: Timestamp::from_second(renewed).ok(),
            ..LeaseRecord::default()
        };
        OtherLease { namespace: namespace.into(), record }
    }

    /// What is found in each second is looked at in turn.
    fn looks(found: impl Fn(i64) -> Vec<OtherLease>, seconds: i64) -> Vec<Verdict> {
        let mut others = Others::default();
        let mut verdicts = Vec::new();
        for second in 0..=seconds {
            let now = Duration::from_secs(second.unsigned_abs());
            let wall = START + now;
            let (verdict, next) = look(&found(second), "own", &others, now, wall);
            others = next;
            verdicts.push(verdict);
        }
        verdicts
    }

    #[test]
    fn without_others_nothing_is_waited_for() {
        let own = |second| vec![lease("own", "me", second), lease("released", "", second)];
        assert_eq!(looks(own, 0), [Verdict::Alone]);
    }

    #[test]
    fn a_record_that_nobody_renews_is_waited_for_as_long_as_it_holds() {
        let verdicts = looks(|_| vec![lease("go", "gone", -3)], 15);
        assert!(verdicts[..15].iter().all(|verdict| *verdict == Verdict::Wait(Vec::new())), "{verdicts:?}");
        assert_eq!(verdicts[15], Verdict::Alone);
        let long_gone = looks(|_| vec![lease("go", "gone", -600)], 0);
        assert_eq!(long_gone, [Verdict::Alone], "its clock is not ten minutes behind");
        let clock_ahead = looks(|_| vec![lease("go", "gone", 9_999)], 15);
        assert_eq!(clock_ahead[15], Verdict::Alone, "whose clock is right plays no part");
    }

    #[test]
    fn one_that_renews_is_named_and_waited_for_until_it_ends() {
        let verdicts = looks(|second| vec![lease("go", "manager-1", second.min(40))], 60);
        assert_eq!(verdicts[0], Verdict::Wait(Vec::new()), "it may be gone");
        for second in [1, 30, 54] {
            assert_eq!(verdicts[second], Verdict::Wait(vec!["go/manager-1".into()]), "after {second} s");
        }
        assert_eq!(verdicts[55], Verdict::Alone);
    }

    #[test]
    fn one_that_never_ends_is_gone_on_beside() {
        let verdicts = looks(|second| vec![lease("tenant", "fake", second)], 120);
        assert!(matches!(verdicts[119], Verdict::Wait(_)));
        assert_eq!(verdicts[120], Verdict::Beside(vec!["tenant/fake".into()]));
    }
}
