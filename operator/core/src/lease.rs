//! Who leads: the state machine around a Lease, on a monotonic clock.
//!
//! The rules are client-go's. A record of somebody else is only taken over once it has not changed for its whole
//! duration *as seen here*, so that clocks which disagree do no harm; and the right to write ends by this replica's own
//! clock before anybody else may take the Lease.

use std::time::Duration;

/// Time that a record is valid after its last change.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
/// Time after the start of the last renewal that succeeded, in which the holder may write.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Time between two looks at the Lease.
pub const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// The Lease as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseView {
    /// Who holds it; empty when it was released.
    pub holder: String,
    /// Whatever changes with every renewal: compared, never interpreted.
    pub renewed: String,
    /// Time that the holder asked for.
    pub duration: Duration,
    /// How often it changed hands.
    pub transitions: i32,
}

/// What is remembered between two looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseState {
    seen: Option<(LeaseView, Duration)>,
    renewed: Option<Duration>,
}

/// What to do about the Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseAction {
    /// Create it.
    Create,
    /// Write this replica into it, on the version that was read.
    Take {
        /// `leaseTransitions` to write.
        transitions: i32,
    },
    /// Look again later.
    Wait,
    /// It was lost: this replica must end.
    Lost,
}

/// Decides after a look at the Lease; `view` is none when it does not exist.
#[must_use]
pub fn step(view: Option<&LeaseView>, me: &str, state: &LeaseState, now: Duration) -> (LeaseAction, LeaseState) {
    let mut next = state.clone();
    let Some(view) = view else { return (LeaseAction::Create, next) };
    let unchanged_since = match &state.seen {
        Some((seen, since)) if seen == view => *since,
        _ => now,
    };
    next.seen = Some((view.clone(), unchanged_since));
    let led = state.renewed.is_some();
    let action = if view.holder == me {
        LeaseAction::Take { transitions: view.transitions }
    } else if led {
        LeaseAction::Lost
    } else if view.holder.is_empty() || now.saturating_sub(unchanged_since) > view.duration {
        LeaseAction::Take { transitions: view.transitions.saturating_add(1) }
    } else {
        LeaseAction::Wait
    };
    (action, next)
}

/// The state after a write that began at `began` has succeeded.
#[must_use]
pub fn held(state: &LeaseState, began: Duration) -> LeaseState {
    LeaseState { renewed: Some(began), ..state.clone() }
}

/// Whether this replica may write now.
#[must_use]
pub fn may_write(state: &LeaseState, now: Duration) -> bool {
    state.renewed.is_some_and(|renewed| now.saturating_sub(renewed) < RENEW_DEADLINE)
}

/// Whether this replica led, and its right to write has ended without a renewal.
#[must_use]
pub fn expired(state: &LeaseState, now: Duration) -> bool {
    state.renewed.is_some() && !may_write(state, now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn view(holder: &str, renewed: u64) -> LeaseView {
        LeaseView { holder: holder.into(), renewed: renewed.to_string(), duration: LEASE_DURATION, transitions: 4 }
    }

    #[test]
    fn an_absent_lease_is_created_and_a_released_one_taken_at_once() {
        assert_eq!(step(None, "a", &LeaseState::default(), at(0)).0, LeaseAction::Create);
        let released = view("", 1);
        assert_eq!(step(Some(&released), "a", &LeaseState::default(), at(0)).0, LeaseAction::Take { transitions: 5 });
    }

    #[test]
    fn a_record_is_taken_over_only_after_it_stood_still_for_its_duration_here() {
        let (action, state) = step(Some(&view("b", 1)), "a", &LeaseState::default(), at(100));
        assert_eq!(action, LeaseAction::Wait);
        let (action, state) = step(Some(&view("b", 2)), "a", &state, at(114));
        assert_eq!(action, LeaseAction::Wait, "it was renewed meanwhile");
        let (action, state) = step(Some(&view("b", 2)), "a", &state, at(129));
        assert_eq!(action, LeaseAction::Wait);
        assert_eq!(step(Some(&view("b", 2)), "a", &state, at(130)).0, LeaseAction::Take { transitions: 5 });
    }

    #[test]
    fn a_holder_that_finds_another_name_has_lost() {
        let state = held(&LeaseState::default(), at(1));
        assert_eq!(step(Some(&view("b", 9)), "a", &state, at(2)).0, LeaseAction::Lost);
        assert_eq!(step(Some(&view("a", 9)), "a", &state, at(2)).0, LeaseAction::Take { transitions: 4 });
    }

    #[test]
    fn a_suspended_holder_may_not_write_when_it_wakes() {
        let state = held(&LeaseState::default(), at(50));
        assert!(may_write(&state, at(59)));
        assert!(!may_write(&state, at(60)) && expired(&state, at(60)));
        assert!(!may_write(&LeaseState::default(), at(0)) && !expired(&LeaseState::default(), at(99)));
    }

    #[test]
    fn two_candidates_with_clocks_that_disagree_never_both_may_write() {
        // "b" renewed for the last time when its clock said 1000 and that of "a" said 7, and is never heard of again.
        let b = held(&LeaseState::default(), at(1000));
        let (_, mut a) = step(Some(&view("b", 1)), "a", &LeaseState::default(), at(7));
        for passed in 1..40 {
            let (action, next) = step(Some(&view("b", 1)), "a", &a, at(7 + passed));
            a = next;
            if matches!(action, LeaseAction::Take { .. }) {
                assert!(!may_write(&b, at(1000 + passed)), "taken {passed} s after the last renewal");
                return;
            }
        }
        panic!("never taken over");
    }
}
