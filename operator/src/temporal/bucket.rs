//! A token bucket whose rate follows what the server lets through.

use std::time::Duration;

use rand::RngExt as _;
use tokio::time::Instant;

/// Lowest share of the full rate that refusals can bring a bucket down to.
const LEAST_SHARE: f64 = 1.0 / 32.0;
/// Calls a second that are won back with each second after a refusal: one in ten seconds.
const RECOVERY: f64 = 0.1;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Longest that a server's own word on when to come back is obeyed.
const LONGEST_ASKED: Duration = Duration::from_secs(300);

/// What came with a refusal of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The server as a whole is out of resources, not one namespace.
    pub whole_server: bool,
    /// When the server said to come back, if it did.
    pub retry_after: Option<Duration>,
}

/// A token bucket whose rate falls by half when the server refuses, and comes back slowly.
pub(super) struct Bucket {
    full: f64,
    burst: f64,
    tokens: f64,
    filled: Instant,
    rate: f64,
    strikes: u32,
    paused_until: Option<Instant>,
}

impl Bucket {
    /// With a rate a second, and as many tokens at once.
    pub(super) fn new(full: f64, burst: f64, now: Instant) -> Self {
        Self { full, burst, tokens: burst, filled: now, rate: full, strikes: 0, paused_until: None }
    }

    /// Calls a second that the server lets through, as far as is known.
    pub(super) fn rate(&self) -> f64 {
        self.rate
    }

    /// Time until there is a token; zero when there is one.
    pub(super) fn wait(&mut self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = self.filled.max(now);
        self.tokens = (self.tokens + passed * self.rate).min(self.burst);
        self.rate = (self.rate + passed * RECOVERY).min(self.full);
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            return until - now;
        }
        let missing = 1.0 - self.tokens;
        if missing <= 1e-9 { Duration::ZERO } else { Duration::from_secs_f64(missing / self.rate) }
    }

    /// Takes the token that [`Bucket::wait`] said was there.
    pub(super) fn take(&mut self) {
        self.tokens -= 1.0;
    }

    /// A call was answered: the next refusal is the first one again.
    pub(super) fn answered(&mut self) {
        self.strikes = 0;
    }

    /// Halves the rate and pauses, at least as long as the server asked. Calls that were under way together are one
    /// refusal.
    pub(super) fn refused(&mut self, refusal: Refusal, now: Instant) {
        let asked = refusal.retry_after.map(|asked| now + asked.min(LONGEST_ASKED));
        if self.paused_until.is_some_and(|until| until > now) {
            self.paused_until = self.paused_until.max(asked);
            return;
        }
        let harder = if refusal.whole_server { 4 } else { 1 };
        self.rate = (self.rate / f64::from(2 * harder)).max(self.full * LEAST_SHARE);
        let pause = (FIRST_PAUSE * harder * 2_u32.pow(self.strikes.min(6))).min(LONGEST_PAUSE);
        self.strikes += 1;
        self.tokens = 0.0;
        self.paused_until = Some(now + pause.mul_f64(rand::rng().random_range(0.75..1.25))).max(asked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(now: Instant) -> Bucket {
        Bucket::new(10.0, 5.0, now)
    }

    fn taken_in(bucket: &mut Bucket, from: Instant, time: Duration) -> u32 {
        let (mut now, mut taken) = (from, 0);
        while now < from + time {
            let wait = bucket.wait(now);
            if wait.is_zero() {
                bucket.take();
                taken += 1;
            } else {
                now += wait;
            }
        }
        taken
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let now = Instant::now();
        let taken = taken_in(&mut bucket(now), now, Duration::from_secs(10));
        assert!((104..=105).contains(&taken), "{taken}");
    }

    #[test]
    fn a_refusal_pauses_and_halves_the_rate_which_wins_back_a_call_a_second_in_ten() {
        let now = Instant::now();
        let mut bucket = bucket(now);
        bucket.refused(Refusal::default(), now);
        assert!(bucket.wait(now) >= FIRST_PAUSE.mul_f64(0.75));
        let slow = taken_in(&mut bucket, now, Duration::from_secs(10));
        assert!((45..=55).contains(&slow), "{slow}");
        assert!((5.9..6.1).contains(&bucket.rate()), "{}", bucket.rate());
        bucket.wait(now + Duration::from_secs(30));
        assert!((7.99..8.01).contains(&bucket.rate()), "{}", bucket.rate());
        let later = now + Duration::from_secs(60);
        bucket.wait(later);
        let full = taken_in(&mut bucket, later, Duration::from_secs(10));
        assert!((103..=105).contains(&full), "{full}");
    }

    #[test]
    fn refusals_of_calls_under_way_together_count_once_and_later_ones_pause_longer() {
        let mut now = Instant::now();
        let mut bucket = bucket(now);
        bucket.refused(Refusal::default(), now);
        bucket.refused(Refusal::default(), now);
        assert_eq!((bucket.strikes, bucket.rate()), (1, 5.0));
        let first = bucket.wait(now);
        now += first;
        bucket.refused(Refusal::default(), now);
        assert!(bucket.wait(now) > first.mul_f64(1.1));
        let mut server = Bucket::new(10.0, 5.0, now);
        server.refused(Refusal { whole_server: true, retry_after: None }, now);
        assert!(server.wait(now) >= FIRST_PAUSE * 3);
        assert_eq!(server.rate(), 1.25);
    }

    #[test]
    fn nothing_is_asked_before_the_time_that_the_server_named() {
        let now = Instant::now();
        let mut bucket = bucket(now);
        let asked = |seconds| Refusal { retry_after: Some(Duration::from_secs(seconds)), ..Refusal::default() };
        bucket.refused(asked(20), now);
        assert_eq!(bucket.wait(now), Duration::from_secs(20));
        bucket.refused(asked(25), now);
        assert_eq!(bucket.wait(now), Duration::from_secs(25), "a later refusal may ask for longer");
        bucket.refused(asked(1), now);
        assert_eq!(bucket.wait(now), Duration::from_secs(25), "and never for less");
        let mut endless = Bucket::new(10.0, 5.0, now);
        endless.refused(asked(u64::MAX / 2), now);
        assert_eq!(endless.wait(now), LONGEST_ASKED);
    }

    #[test]
    fn a_bucket_never_falls_below_its_least_rate() {
        let mut now = Instant::now();
        let mut bucket = Bucket::new(100.0, 5.0, now);
        for _ in 0..20 {
            bucket.refused(Refusal::default(), now);
            now += bucket.wait(now);
        }
        assert!((100.0 / 32.0..8.0).contains(&bucket.rate()), "{}", bucket.rate());
    }
}
