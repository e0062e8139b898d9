//! When the operator sends an order to a pod, and which.

use std::time::Duration;

use super::{LONGEST_LIFETIME, RENEWAL, Verb};
use crate::backoff::{Backoff, RetryClass};
use crate::observed::Cordon;

/// Time that a pod's own word may lag behind an order that it accepted: two reads of its metrics.
const WORD_LAG: Duration = Duration::from_secs(5);
/// Orders that came to nothing in a row after which a pod counts as one that takes none.
const FAILING: u32 = 3;
/// Time after which such a pod gets another chance.
const FORGIVEN: Duration = Duration::from_secs(300);
/// Longest time between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// What a pod should do, and what it says that it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Whether it should take no new task.
    pub cordon: bool,
    /// Its own word.
    pub says: Option<Cordon>,
}

/// What was ordered of one pod. Times are on the operator's monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Correspondence {
    accepted: Option<(Verb, Duration)>,
    backoff: Backoff,
    next_try: Duration,
}

impl Correspondence {
    /// The order that is due, if one is: at once when the wish changed, again before the last one lapses, and again when
    /// the pod does not do what it accepted, as after a restart.
    #[must_use]
    pub fn due(&self, wish: Wish, now: Duration) -> Option<Verb> {
        let accepted = self.accepted.map(|(verb, at)| (verb, now.saturating_sub(at)));
        let verb = if wish.cordon { self.cordon_due(wish.says, accepted) } else { uncordon_due(wish.says, accepted) };
        verb.filter(|_| now >= self.next_try)
    }

    fn cordon_due(&self, says: Option<Cordon>, accepted: Option<(Verb, Duration)>) -> Option<Verb> {
        let stands = match accepted {
            Some((Verb::Cordon, age)) => age < RENEWAL && !(says == Some(Cordon::Open) && age > WORD_LAG),
            Some((Verb::Uncordon, _)) | None => false,
        };
        (!stands).then_some(Verb::Cordon)
    }

    /// Whether something may have to be sent yet.
    #[must_use]
    pub fn concerns(&self, wish: Wish, now: Duration) -> bool {
        let asleep = Self { next_try: Duration::ZERO, ..*self };
        wish.cordon || asleep.due(wish, now).is_some()
    }

    /// Notes that the pod accepted an order.
    pub fn accepted(&mut self, verb: Verb, now: Duration) {
        *self = Self { accepted: Some((verb, now)), ..Self::default() };
    }

    /// Notes that an order came to nothing. `jitter` is a random number in 0..1.
    pub fn failed(&mut self, now: Duration, jitter: f64) {
        let (backoff, wait) = self.backoff.next(RetryClass::Transient, jitter);
        self.backoff = backoff;
        self.next_try = now.saturating_add(wait.min(LONGEST_WAIT));
    }

    /// Whether the pod counts as one that takes no orders, for now.
    #[must_use]
    pub fn is_failing(&self, now: Duration) -> bool {
        self.backoff.failures() >= FAILING && now < self.next_try.saturating_add(FORGIVEN)
    }
}

fn uncordon_due(says: Option<Cordon>, accepted: Option<(Verb, Duration)>) -> Option<Verb> {
    let cordoned = match (says, accepted) {
        // Its word may be from before the last order.
        (_, Some((Verb::Uncordon, age))) if age <= WORD_LAG => false,
        (Some(Cordon::Closing | Cordon::Closed), _) => true,
        (_, Some((Verb::Cordon, age))) => age < LONGEST_LIFETIME,
        _ => false,
    };
    cordoned.then_some(Verb::Uncordon)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Option<Cordon> = Some(Cordon::Open);
    const CLOSED: Option<Cordon> = Some(Cordon::Closed);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn due(accepted: Option<(Verb, u64)>, wish: (bool, Option<Cordon>), now: u64) -> Option<Verb> {
        let accepted = accepted.map(|(verb, at)| (verb, seconds(at)));
        let (cordon, says) = wish;
        Correspondence { accepted, ..Correspondence::default() }.due(Wish { cordon, says }, seconds(now))
    }

    #[test]
    fn a_pod_is_ordered_when_the_wish_changes_and_before_the_order_lapses() {
        let cases = [
            (None, (true, OPEN), 0, Some(Verb::Cordon)),
            (Some((Verb::Cordon, 0)), (true, CLOSED), 19, None),
            (Some((Verb::Cordon, 0)), (true, CLOSED), 20, Some(Verb::Cordon)),
            (Some((Verb::Cordon, 0)), (false, CLOSED), 1, Some(Verb::Uncordon)),
            (Some((Verb::Cordon, 0)), (false, OPEN), 1, Some(Verb::Uncordon)),
            (Some((Verb::Cordon, 0)), (false, OPEN), 60, None),
            (Some((Verb::Uncordon, 0)), (true, OPEN), 1, Some(Verb::Cordon)),
            (None, (false, OPEN), 0, None),
            (None, (false, None), 0, None),
        ];
        for (accepted, wish, now, expected) in cases {
            assert_eq!(due(accepted, wish, now), expected, "{accepted:?} {wish:?} at {now}");
        }
    }

    #[test]
    fn what_a_pod_says_outweighs_what_it_accepted_once_it_had_time_to_say_it() {
        assert_eq!(due(Some((Verb::Cordon, 0)), (true, OPEN), 5), None);
        assert_eq!(due(Some((Verb::Cordon, 0)), (true, OPEN), 6), Some(Verb::Cordon), "it was started anew");
        assert_eq!(due(Some((Verb::Uncordon, 0)), (false, CLOSED), 5), None);
        assert_eq!(due(Some((Verb::Uncordon, 0)), (false, CLOSED), 6), Some(Verb::Uncordon));
        assert_eq!(due(None, (false, CLOSED), 0), Some(Verb::Uncordon), "another leader cordoned it");
    }

    #[test]
    fn failures_are_tried_again_with_growing_waits_and_end_in_doubt() {
        let (mut letters, wish) = (Correspondence::default(), Wish { cordon: true, says: OPEN });
        let mut now = seconds(100);
        for wait in [1, 2, 4, 8, 16, 20, 20] {
            assert_eq!(letters.due(wish, now), Some(Verb::Cordon));
            letters.failed(now, 1.0);
            assert_eq!(letters.due(wish, now + seconds(wait) - Duration::from_millis(1)), None, "{wait}");
            assert!(letters.concerns(wish, now));
            now += seconds(wait);
        }
        assert!(letters.is_failing(now) && letters.is_failing(now + seconds(299)));
        assert!(!letters.is_failing(now + seconds(300)), "it gets another chance");
        letters.accepted(Verb::Cordon, now);
        assert!(!letters.is_failing(now) && letters.due(wish, now).is_none());
    }

    #[test]
    fn a_pod_that_was_told_everything_concerns_nobody() {
        let mut letters = Correspondence::default();
        let (free, cordoned) = (Wish { cordon: false, says: OPEN }, Wish { cordon: true, says: CLOSED });
        assert!(!letters.concerns(free, seconds(0)) && letters.concerns(cordoned, seconds(0)));
        letters.accepted(Verb::Cordon, seconds(0));
        assert!(letters.concerns(free, seconds(1)));
        letters.accepted(Verb::Uncordon, seconds(1));
        assert!(!letters.concerns(free, seconds(1)));
    }
}
