//! How many calls a fleet has: a token bucket each.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Calls a second. The server makes two calls at most each half second: it batches what it tells for so long.
const RATE: f64 = 20.0;
/// Calls at once.
const BURST: f64 = 40.0;

/// A bucket for each fleet that called lately.
#[derive(Default)]
pub struct Limit(Mutex<HashMap<String, (f64, Instant)>>);

impl Limit {
    /// Takes a call of a fleet's; says whether it has one. Only for callers that are known: each fleet takes memory.
    pub fn take(&self, fleet_uid: &str, now: Instant) -> bool {
        let mut buckets = self.0.lock();
        let tokens = |(tokens, at): &(f64, Instant)| {
            (tokens + now.saturating_duration_since(*at).as_secs_f64() * RATE).min(BURST)
        };
        let have = buckets.get(fleet_uid).map_or(BURST, tokens);
        if have < 1.0 {
            return false;
        }
        if !buckets.contains_key(fleet_uid) {
            // A full bucket is as good as none.
            buckets.retain(|_, bucket| tokens(bucket) < BURST);
        }
        buckets.insert(fleet_uid.to_owned(), (have - 1.0, now));
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_fleet_has_a_burst_and_then_its_rate_and_takes_nothing_from_another() {
        let (limit, start) = (Limit::default(), Instant::now());
        let taken = (0..100).filter(|_| limit.take("a", start)).count();
        assert_eq!(taken, BURST as usize);
        assert!(limit.take("b", start));
        let later = start + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| limit.take("a", later)).count(), RATE as usize);
    }

    #[test]
    fn a_fleet_that_is_quiet_is_forgotten() {
        let (limit, start) = (Limit::default(), Instant::now());
        for fleet in 0..100 {
            limit.take(&fleet.to_string(), start);
        }
        limit.take("late", start + Duration::from_secs(10));
        assert_eq!(limit.0.lock().len(), 1);
    }
}
