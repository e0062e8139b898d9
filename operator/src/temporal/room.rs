//! How many reads one server has under way at a time, whatever their Temporal namespaces. More than it can do at once would wait there,
//! and with them what is urgent, and the calls of Workers.
//!
//! The number follows TCP Vegas (Brakmo and Peterson, 1995), with reads for segments: of `n` under way, `n × (1 − shortest / took)` wait
//! at the server, where `shortest` is the time of a read that met no other. The number grows while fewer than three wait and falls
//! while more than six do. A server that is far away takes long without having any wait, and gets many.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// A place for one read; given back with the value.
pub(super) type Permit = OwnedSemaphorePermit;

/// Reads under way to a server of which nothing is known yet, and the most.
const FIRST: usize = 16;
const MOST: usize = 64;
/// Reads that wait at the server: fewer, and it gets more; more, and it gets fewer. So it never has less than the latter under way.
const WAITING: (f64, f64) = (3.0, 6.0);
/// Time for which the shortest read stands at least; twice that at most.
const STANDS: Duration = Duration::from_secs(60);

/// The places of one kind of read.
pub(super) struct Places {
    free: Arc<Semaphore>,
    size: Mutex<Size>,
}

struct Size {
    limit: Limit,
    /// Places that there are, free or taken.
    there: usize,
}

impl Places {
    pub(super) fn new(now: Instant) -> Self {
        let size = Size { limit: Limit::new(now), there: FIRST };
        Self { free: Arc::new(Semaphore::new(FIRST)), size: Mutex::new(size) }
    }

    /// Where a place is waited for.
    pub(super) fn free(&self) -> Arc<Semaphore> {
        self.free.clone()
    }

    /// Gives a place back after a read that took so long, if it was answered.
    pub(super) fn ended(&self, place: Permit, took: Duration, answered: bool, now: Instant) {
        let mut size = self.size.lock();
        let wanted = size.limit.ended(took, answered, now);
        if wanted > size.there {
            self.free.add_permits(wanted - size.there);
            size.there = wanted;
        }
        if wanted < size.there {
            size.there -= 1;
            place.forget();
        }
    }
}

/// The number of reads under way that a server bears.
struct Limit {
    number: f64,
    /// The shortest reads, of this minute and of the one before.
    shortest: [Option<Duration>; 2],
    since: Instant,
}

impl Limit {
    fn new(now: Instant) -> Self {
        Self { number: FIRST as f64, shortest: [None; 2], since: now }
    }

    fn ended(&mut self, took: Duration, answered: bool, now: Instant) -> usize {
        if now.saturating_duration_since(self.since) >= STANDS {
            self.shortest = [None, self.shortest[0]];
            self.since = now;
        }
        // A refusal costs the server no time.
        if answered {
            self.shortest[0] = Some(self.shortest[0].map_or(took, |shortest| shortest.min(took)));
        }
        if let Some(shortest) = self.shortest.iter().flatten().min().filter(|shortest| took >= **shortest) {
            let waiting = self.number * (1.0 - shortest.as_secs_f64() / took.as_secs_f64().max(f64::MIN_POSITIVE));
            let step = 1.0 / self.number;
            if waiting < WAITING.0 && answered {
                self.number += step;
            } else if waiting > WAITING.1 {
                self.number -= step;
            }
            self.number = self.number.min(MOST as f64);
        }
        self.number as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number after so many reads, of which each takes as long as a server needs that has this many under way.
    fn settled(limit: &mut Limit, start: Instant, took: impl Fn(f64) -> f64) -> usize {
        let end = |limit: &mut Limit, number| {
            let took = Duration::from_secs_f64(took(limit.number) / 1000.0);
            limit.ended(took, true, start + Duration::from_millis(number))
        };
        (0..20_000).map(|number| end(limit, number)).last().unwrap()
    }

    #[test]
    fn a_server_far_away_that_has_time_gets_as_many_as_there_may_be() {
        let now = Instant::now();
        assert_eq!(settled(&mut Limit::new(now), now, |_| 80.0), MOST);
    }

    #[test]
    fn a_server_with_two_processors_is_kept_busy_and_no_more() {
        let now = Instant::now();
        let mut limit = Limit::new(now);
        limit.ended(Duration::from_millis(5), true, now);
        let number = settled(&mut limit, now, |under_way| 5.0 * (under_way / 2.0).max(1.0));
        assert!((5..=8).contains(&number), "{number}");
        assert_eq!(settled(&mut limit, now, |_| 5.0), MOST, "it has more of them now");
    }

    #[test]
    fn refusals_do_not_count_as_short_reads_and_reads_out_of_time_count_as_long_ones() {
        let now = Instant::now();
        let mut limit = Limit::new(now);
        for _ in 0..3000 {
            limit.ended(Duration::from_micros(100), false, now);
            limit.ended(Duration::from_millis(80), true, now);
        }
        assert_eq!(limit.number as usize, MOST);
        let least = (0..3000).map(|_| limit.ended(Duration::from_secs(10), false, now)).last();
        assert!(least < Some(7), "{least:?}");
    }

    #[test]
    fn a_shortest_read_of_long_ago_is_forgotten() {
        let start = Instant::now();
        let mut limit = Limit::new(start);
        limit.ended(Duration::from_millis(1), true, start);
        let slow = |limit: &mut Limit, second| {
            let now = start + Duration::from_secs(second);
            (0..5000).map(|_| limit.ended(Duration::from_millis(80), true, now)).last().unwrap()
        };
        assert!(slow(&mut limit, 59) < 8, "the server moved away");
        assert!(slow(&mut limit, 61) < 8);
        assert_eq!(slow(&mut limit, 130), MOST);
    }

    #[tokio::test]
    async fn places_go_as_they_are_given_back_and_come_again() {
        let now = Instant::now();
        let places = Places::new(now);
        let take = || places.free().try_acquire_owned().ok();
        let mut taken: Vec<_> = std::iter::from_fn(take).collect();
        assert_eq!(taken.len(), FIRST);
        places.ended(taken.pop().unwrap(), Duration::from_millis(1), true, now);
        for _ in 0..2000 {
            let place = taken.pop().or_else(take).unwrap();
            places.ended(place, Duration::from_secs(1), true, now);
        }
        drop(taken);
        let count = || std::iter::from_fn(take).collect::<Vec<_>>().len();
        let least = count();
        assert!((5..7).contains(&least), "{least}");
        for _ in 0..5000 {
            places.ended(take().unwrap(), Duration::from_millis(1), true, now);
        }
        assert_eq!(count(), MOST);
    }
}
