//! How many calls the operator makes: one token bucket for each server and Temporal namespace, shared by everything that
//! calls it. Reads of the operator stand above the polls of Workers in the server's own order, so an operator that asks
//! too much starves them first.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use operator_core::observed::FailureClass;
use parking_lot::Mutex;
use rand::RngExt as _;
use tokio::time::Instant;

use super::errors::CallError;
use super::metrics::Metrics;
use super::pool::Limits;

/// Describing deployments and versions has a limit of its own: 50/s for all clients of a namespace. We take a fifth.
const DEPLOYMENT_READS: (f64, f64) = (10.0, 20.0);
/// Changes of the routing: the server allows one a second.
const ROUTING_WRITES: (f64, f64) = (1.0, 2.0);
/// Share of a second's calls that may come at once.
const BURST_SECONDS: f64 = 0.25;

/// Lowest share of the rate that refusals can bring a bucket down to.
const LEAST_FACTOR: f64 = 1.0 / 32.0;
/// Share of the rate that is won back a second after a refusal.
const RECOVERY: f64 = 0.02;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Kinds of calls, by what they cost the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads of a Task Queue.
    Queue,
    /// Reads of a Worker Deployment or a version of it: queries to a Workflow of the server.
    Deployment,
    /// Changes of the routing.
    Routing,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Deployment => "deployment",
            Self::Routing => "routing",
        }
    }
}

/// The budgets of every server and Temporal namespace that is called.
pub(super) struct Budgets {
    limits: Limits,
    metrics: Metrics,
    entries: Mutex<HashMap<(String, String), Weak<Budget>>>,
}

impl Budgets {
    pub(super) fn new(limits: Limits, metrics: Metrics) -> Self {
        Self { limits, metrics, entries: Mutex::default() }
    }

    pub(super) fn of(&self, host_port: &str, namespace: &str) -> Arc<Budget> {
        let mut entries = self.entries.lock();
        let key = (host_port.to_owned(), namespace.to_owned());
        if let Some(budget) = entries.get(&key).and_then(Weak::upgrade) {
            return budget;
        }
        entries.retain(|_, budget| budget.strong_count() > 0);
        let budget = Arc::new(Budget::new(self.limits, self.metrics.clone()));
        entries.insert(key, Arc::downgrade(&budget));
        budget
    }
}

/// The budget of one server and Temporal namespace.
pub(super) struct Budget {
    rate: f64,
    buckets: Mutex<Buckets>,
    sweep_calls: AtomicUsize,
    metrics: Metrics,
}

struct Buckets {
    all: Bucket,
    deployment: Bucket,
    routing: Bucket,
}

impl Buckets {
    fn own(&mut self, kind: Kind) -> Option<&mut Bucket> {
        match kind {
            Kind::Queue => None,
            Kind::Deployment => Some(&mut self.deployment),
            Kind::Routing => Some(&mut self.routing),
        }
    }
}

impl Budget {
    fn new(limits: Limits, metrics: Metrics) -> Self {
        let now = Instant::now();
        let rate = f64::from(limits.calls_per_second.max(1));
        let buckets = Buckets {
            all: Bucket::new(rate, (rate * BURST_SECONDS).max(1.0), now),
            deployment: Bucket::new(DEPLOYMENT_READS.0, DEPLOYMENT_READS.1, now),
            routing: Bucket::new(ROUTING_WRITES.0, ROUTING_WRITES.1, now),
        };
        Self { rate, buckets: Mutex::new(buckets), sweep_calls: AtomicUsize::new(0), metrics }
    }

    /// Takes a token, or says how long there will be none.
    pub(super) fn try_take(&self, kind: Kind, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock();
        let mut wait = buckets.all.wait(now);
        if let Some(own) = buckets.own(kind) {
            wait = wait.max(own.wait(now));
        }
        if !wait.is_zero() {
            return Err(wait);
        }
        buckets.all.tokens -= 1.0;
        if let Some(own) = buckets.own(kind) {
            own.tokens -= 1.0;
        }
        Ok(())
    }

    /// Waits for a token, at most until a deadline.
    pub(super) async fn take(&self, kind: Kind, deadline: Instant) -> Result<(), CallError> {
        loop {
            let now = Instant::now();
            let Err(wait) = self.try_take(kind, now) else { return Ok(()) };
            if now + wait > deadline {
                let message =
                    "the operator's own limit of calls to this Temporal namespace is used up; it will try again";
                return Err(CallError::local(FailureClass::ResourceExhausted, message));
            }
            self.waited(kind, wait);
            tokio::time::sleep(wait).await;
        }
    }

    /// Counts time that a call waited for its token.
    pub(super) fn waited(&self, kind: Kind, wait: Duration) {
        self.metrics.waited(kind.as_str(), wait);
    }

    /// The server asked for fewer calls of a kind.
    pub(super) fn exhausted(&self, kind: Kind, whole_server: bool, now: Instant) {
        let mut buckets = self.buckets.lock();
        let refused = match buckets.own(kind) {
            Some(own) if !whole_server => own,
            _ => &mut buckets.all,
        };
        refused.refused(whole_server, now);
    }

    /// A call of a kind was answered.
    pub(super) fn answered(&self, kind: Kind) {
        let mut buckets = self.buckets.lock();
        buckets.all.strikes = 0;
        if let Some(own) = buckets.own(kind) {
            own.strikes = 0;
        }
    }

    /// Calls a second that sweeps of queues at zero may use: what the rest does not need, and the server allows. Shared among the pollers of
    /// one budget by the `own` calls that each needs for one sweep.
    pub(super) fn sweep_share(&self, own: usize) -> f64 {
        let rate = self.rate * self.buckets.lock().all.factor;
        let share = (rate - DEPLOYMENT_READS.0).max(rate / 2.0);
        let all = self.sweep_calls.load(Ordering::Relaxed).max(own).max(1);
        share * own as f64 / all as f64
    }

    /// Says that a poller's sweep takes `new` calls, and took `old` before.
    pub(super) fn sweep_changed(&self, old: usize, new: usize) {
        self.sweep_calls.fetch_add(new, Ordering::Relaxed);
        self.sweep_calls.fetch_sub(old, Ordering::Relaxed);
    }
}

/// A token bucket whose rate falls by half when the server refuses, and comes back slowly.
struct Bucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    filled: Instant,
    factor: f64,
    strikes: u32,
    paused_until: Option<Instant>,
}

impl Bucket {
    fn new(rate: f64, burst: f64, now: Instant) -> Self {
        Self { rate, burst, tokens: burst, filled: now, factor: 1.0, strikes: 0, paused_until: None }
    }

    /// Time until there is a token; zero when there is one.
    fn wait(&mut self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = self.filled.max(now);
        self.tokens = (self.tokens + passed * self.rate * self.factor).min(self.burst);
        self.factor = (self.factor + passed * RECOVERY).min(1.0);
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            return until - now;
        }
        let missing = 1.0 - self.tokens;
        if missing <= 1e-9 { Duration::ZERO } else { Duration::from_secs_f64(missing / (self.rate * self.factor)) }
    }

    /// Halves the rate and pauses. Calls that were under way together are one refusal.
    fn refused(&mut self, whole_server: bool, now: Instant) {
        if self.paused_until.is_some_and(|until| until > now) {
            return;
        }
        let harder = if whole_server { 4 } else { 1 };
        self.factor = (self.factor / f64::from(2 * harder)).max(LEAST_FACTOR);
        let pause = (FIRST_PAUSE * harder * 2_u32.pow(self.strikes.min(6))).min(LONGEST_PAUSE);
        self.strikes += 1;
        self.tokens = 0.0;
        self.paused_until = Some(now + pause.mul_f64(rand::rng().random_range(0.75..1.25)));
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
                bucket.tokens -= 1.0;
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
    fn a_refusal_pauses_and_halves_the_rate_which_comes_back() {
        let now = Instant::now();
        let mut bucket = bucket(now);
        bucket.refused(false, now);
        assert!(bucket.wait(now) >= FIRST_PAUSE.mul_f64(0.75));
        let slow = taken_in(&mut bucket, now, Duration::from_secs(5));
        assert!((15..35).contains(&slow), "{slow}");
        let later = now + Duration::from_secs(60);
        bucket.wait(later);
        let full = taken_in(&mut bucket, later, Duration::from_secs(10));
        assert!((103..=105).contains(&full), "{full}");
    }

    #[test]
    fn refusals_of_calls_under_way_together_count_once_and_later_ones_pause_longer() {
        let mut now = Instant::now();
        let mut bucket = bucket(now);
        bucket.refused(false, now);
        bucket.refused(false, now);
        assert_eq!(bucket.strikes, 1);
        let first = bucket.wait(now);
        now += first;
        bucket.refused(false, now);
        assert!(bucket.wait(now) > first.mul_f64(1.1));
        let mut server = Bucket::new(10.0, 5.0, now);
        server.refused(true, now);
        assert!(server.wait(now) >= FIRST_PAUSE * 3);
    }

    #[test]
    fn reads_of_deployments_stay_within_their_own_share() {
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let budget = Budget::new(Limits { calls_per_second: 120 }, metrics);
        let now = Instant::now();
        let taken = (0..100).filter(|_| budget.try_take(Kind::Deployment, now).is_ok()).count();
        assert_eq!(taken, DEPLOYMENT_READS.1 as usize);
        assert!(budget.try_take(Kind::Queue, now).is_ok());
    }
}
