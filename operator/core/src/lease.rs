//! Which replica of the operator may write: leader election by a Lease, as a state machine.
//!
//! It follows the protocol of client-go, so that any of its clients can hold the same Lease. Whose clock is right plays
//! no part: the times in a record are compared for change alone, and a holder counts as gone only when *this* process has
//! seen no change for the record's duration on its own monotonic clock. That clock must go on while the machine is
//! suspended (`CLOCK_BOOTTIME` on Linux), or a process that slept believes in a right that it has lost.
//!
//! The shell reads the Lease, calls [`step`], does what it says, and hands what the API server answered to the next
//! [`step`]: a record of ours that has changed is what confirms a write, also one whose answer was lost.
//! [`may_write`] is asked right before each write, and each write ends within [`WRITE_DEADLINE`].

pub mod others;

use std::time::Duration;

use jiff::Timestamp;

use crate::backoff::share;

/// Time after which a holder that does not renew may be replaced.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
/// Time after which a holder that could not renew stops writing.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Time between two attempts to renew, and least time between two attempts to acquire.
pub const RETRY_PERIOD: Duration = Duration::from_secs(2);
/// Longest time that a write under the Lease may take: then it ends before anybody else can hold the Lease.
pub const WRITE_DEADLINE: Duration = Duration::from_secs(5);

/// The Lease as it was just read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseView {
    /// The API server said that there is none.
    Absent,
    /// It is there.
    Present {
        /// What a write must be based on.
        resource_version: String,
        /// Its `spec`.
        record: LeaseRecord,
    },
    /// It could not be read.
    Unreadable,
}

/// `spec` of a Lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseRecord {
    /// `holderIdentity`; empty when the Lease was released.
    pub holder: String,
    /// `leaseDurationSeconds`; [`LEASE_DURATION`] where it is missing or zero.
    pub duration: Option<Duration>,
    /// `leaseTransitions`.
    pub transitions: u32,
    /// `acquireTime`, by the holder's clock.
    pub acquired: Option<Timestamp>,
    /// `renewTime`, by the holder's clock: only its change means something.
    pub renewed: Option<Timestamp>,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseAction {
    /// Nothing; read again after this time at the latest.
    Wait(Duration),
    /// Create the Lease.
    Create(Claim),
    /// Update the Lease, on condition that it still has this resource version.
    Update {
        /// The resource version.
        resource_version: String,
        /// What to write.
        claim: Claim,
    },
}

/// What to write into the Lease. `renewTime` is always the time of the write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// `holderIdentity`; empty to release it.
    pub holder: String,
    /// `leaseDurationSeconds`.
    pub duration: Duration,
    /// `leaseTransitions`.
    pub transitions: u32,
    /// Whether the holder changes: then `acquireTime` is the time of the write too, else it stays.
    pub acquires: bool,
}

/// What a candidate remembers. The default is a candidate that has seen nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseState {
    seen: Option<Seen>,
    /// When the first write was begun of those that are not confirmed, and what it was based on.
    pending: Option<Pending>,
    /// When the last write was begun.
    tried: Option<Duration>,
    /// When the last confirmed renewal was begun.
    renewed: Option<Duration>,
}

/// The Lease as it was last read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    resource_version: String,
    record: LeaseRecord,
    /// When the record was first seen like this.
    since: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pending {
    begun: Duration,
    /// None for a creation.
    based_on: Option<Seen>,
}

/// Whether this candidate may write at `now`: its last renewal that succeeded was begun less than [`RENEW_DEADLINE`] ago.
#[must_use]
pub fn may_write(state: &LeaseState, now: Duration) -> bool {
    // A clock that went back proves nothing about the time that has passed.
    state.renewed.is_some_and(|begun| now.checked_sub(begun).is_some_and(|age| age < RENEW_DEADLINE))
}

/// Takes note of the Lease, and says what to do about it.
///
/// `me` must be unique to this process, not only to its pod. `jitter` in 0..1 spreads the attempts of several candidates.
#[must_use]
pub fn step(view: &LeaseView, me: &str, state: &LeaseState, now: Duration, jitter: f64) -> (LeaseAction, LeaseState) {
    let mut next = state.clone();
    next.observe(view, me, now);
    if let Some(wait) = next.until_next_try(view, me, now, jitter) {
        return (LeaseAction::Wait(wait), next);
    }
    let action = match view {
        LeaseView::Unreadable => LeaseAction::Wait(RETRY_PERIOD),
        LeaseView::Absent => LeaseAction::Create(claim(me, 0, true)),
        LeaseView::Present { resource_version, record } => {
            let acquires = record.holder != me;
            let transitions = record.transitions.saturating_add(u32::from(acquires));
            LeaseAction::Update { resource_version: resource_version.clone(), claim: claim(me, transitions, acquires) }
        }
    };
    next.begin(&action, now);
    (action, next)
}

/// Gives the Lease up on shutdown, so that another candidate can take it at once. The right to write ends before the
/// write. There is nothing to do when the Lease was last seen in other hands.
#[must_use]
pub fn release(me: &str, state: &LeaseState) -> (LeaseAction, LeaseState) {
    let next = LeaseState { renewed: None, pending: None, ..state.clone() };
    let action = match &state.seen {
        Some(seen) if seen.record.holder == me => LeaseAction::Update {
            resource_version: seen.resource_version.clone(),
            claim: Claim {
                holder: String::new(),
                duration: Duration::from_secs(1),
                transitions: seen.record.transitions,
                acquires: false,
            },
        },
        Some(_) | None => LeaseAction::Wait(RETRY_PERIOD),
    };
    (action, next)
}

impl LeaseState {
    fn observe(&mut self, view: &LeaseView, me: &str, now: Duration) {
        let seen = match view {
            LeaseView::Unreadable => return,
            LeaseView::Absent => None,
            LeaseView::Present { resource_version, record } => {
                let unchanged = self.seen.as_ref().filter(|seen| seen.record == *record);
                let since = unchanged.map_or(now, |seen| seen.since);
                Some(Seen { resource_version: resource_version.clone(), record: record.clone(), since })
            }
        };
        self.confirm(seen.as_ref(), me);
        self.seen = seen;
    }

    /// A write of ours is confirmed by a record of ours that differs from what it was based on; a new resource version
    /// alone may be anybody's label. Of several writes without an answer the first may be the one that came through, so
    /// the right is counted from its begin, until a new resource version proves that it never will.
    fn confirm(&mut self, seen: Option<&Seen>, me: &str) {
        let mine = seen.filter(|seen| seen.record.holder == me);
        let Some(pending) = self.pending.take() else {
            self.renewed = self.renewed.filter(|_| mine.is_some());
            return;
        };
        let base = pending.based_on.as_ref();
        let changed = mine.is_some_and(|mine| base.is_none_or(|base| base.record != mine.record));
        let alive = base.map(|base| &base.resource_version) == seen.map(|seen| &seen.resource_version);
        if changed {
            self.renewed = Some(pending.begun);
        } else {
            self.renewed = self.renewed.filter(|_| mine.is_some());
            self.pending = alive.then_some(pending);
        }
    }

    /// How long to wait before a write, if there is a reason to wait.
    fn until_next_try(&self, view: &LeaseView, me: &str, now: Duration, jitter: f64) -> Option<Duration> {
        let period = RETRY_PERIOD.mul_f64(1.0 + share(jitter) / 4.0);
        let retry = self.tried.map(|tried| tried.saturating_add(period).saturating_sub(now));
        let left = match view {
            LeaseView::Present { record, .. } if record.holder != me => self.held_by_other(record, now),
            LeaseView::Present { .. } | LeaseView::Absent | LeaseView::Unreadable => None,
        };
        match (retry, left) {
            // An other's Lease is read every period: it may be released before it expires.
            (_, Some(left)) => Some(left.min(period)),
            (Some(wait), None) if !wait.is_zero() => Some(wait),
            (_, None) => None,
        }
    }

    /// Time until another holder counts as gone.
    fn held_by_other(&self, record: &LeaseRecord, now: Duration) -> Option<Duration> {
        if record.holder.is_empty() {
            return None;
        }
        let since = self.seen.as_ref()?.since;
        let duration = record.duration.filter(|duration| !duration.is_zero()).unwrap_or(LEASE_DURATION);
        let left = since.saturating_add(duration).saturating_sub(now);
        (!left.is_zero()).then_some(left)
    }

    fn begin(&mut self, action: &LeaseAction, now: Duration) {
        if matches!(action, LeaseAction::Wait(_)) {
            return;
        }
        self.tried = Some(now);
        if self.pending.is_none() {
            self.pending = Some(Pending { begun: now, based_on: self.seen.clone() });
        }
    }
}

fn claim(me: &str, transitions: u32, acquires: bool) -> Claim {
    Claim { holder: me.to_owned(), duration: LEASE_DURATION, transitions, acquires }
}

#[cfg(test)]
mod tests;
