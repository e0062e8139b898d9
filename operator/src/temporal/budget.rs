//! How many calls the operator makes: one budget for each server and Temporal namespace, shared by everything that calls
//! it. Reads of the operator stand above the polls of Workers in the server's own order, so an operator that asks too
//! much starves them first.
//!
//! Within the budget each kind of call has a bucket of its own, as it has a limit of its own at the server: a refusal
//! of one kind slows that kind alone, one of the whole server slows all.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use operator_core::observed::FailureClass;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::bucket::{Bucket, Refusal};
use super::errors::CallError;
use super::metrics::Metrics;
use super::pool::Limits;
use super::room::Places;

/// Describing deployments and versions has a limit of its own at the server: 50/s for all clients of a namespace. We take
/// half, and leave the rest to people and their tools.
const DEPLOYMENT_READS: f64 = 25.0;
/// Changes of the routing: the server allows one a second.
const ROUTING_WRITES: (f64, f64) = (1.0, 2.0);
/// Queries to the server's index of Workflows, of which it allows ten a second.
const LISTS: (f64, f64) = (3.0, 3.0);
/// Share of a second's calls that may come at once.
const BURST_SECONDS: f64 = 0.25;
/// Calls a second that no plan of reads counts on: for changes of the routing, and readings out of turn.
const RESERVE: f64 = 2.0;
/// Time over which the used share of the budget is measured.
const USE_WINDOW: Duration = Duration::from_secs(10);

/// Kinds of calls, by what they cost the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads of a Task Queue, and test Workflows.
    Queue,
    /// Reads of a Worker Deployment or a version of it: queries to a Workflow of the server.
    Deployment,
    /// Changes of the routing.
    Routing,
    /// Lists of Worker Deployments and of new Workflows: queries to the server's index of Workflows.
    List,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Deployment => "deployment",
            Self::Routing => "routing",
            Self::List => "list",
        }
    }
}

/// Calls a second, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    /// Reads of Task Queues.
    pub queue: f64,
    /// Reads of deployments and versions.
    pub deployment: f64,
}

/// The budgets of every server and Temporal namespace that is called.
pub(super) struct Budgets {
    limits: Limits,
    metrics: Metrics,
    entries: Mutex<HashMap<(String, String), Weak<Budget>>>,
    rooms: Mutex<HashMap<String, Weak<Room>>>,
}

/// What one server has to do for this operator at a time.
struct Room {
    queue: Places,
    deployment: Places,
}

impl Budgets {
    pub(super) fn new(limits: Limits, metrics: Metrics) -> Self {
        Self { limits, metrics, entries: Mutex::default(), rooms: Mutex::default() }
    }

    pub(super) fn of(&self, host_port: &str, namespace: &str) -> Arc<Budget> {
        let mut entries = self.entries.lock();
        let key = (host_port.to_owned(), namespace.to_owned());
        if let Some(budget) = entries.get(&key).and_then(Weak::upgrade) {
            return budget;
        }
        entries.retain(|_, budget| budget.strong_count() > 0);
        let budget = Arc::new(Budget::new(self.limits, self.metrics.clone(), self.room(host_port)));
        entries.insert(key, Arc::downgrade(&budget));
        budget
    }

    fn room(&self, host_port: &str) -> Arc<Room> {
        let mut rooms = self.rooms.lock();
        if let Some(room) = rooms.get(host_port).and_then(Weak::upgrade) {
            return room;
        }
        rooms.retain(|_, room| room.strong_count() > 0);
        let now = Instant::now();
        let room = Arc::new(Room { queue: Places::new(now), deployment: Places::new(now) });
        rooms.insert(host_port.to_owned(), Arc::downgrade(&room));
        room
    }
}

/// The budget of one server and Temporal namespace.
pub(super) struct Budget {
    full: f64,
    buckets: Mutex<Buckets>,
    claims: Mutex<Claims>,
    metrics: Metrics,
    room: Arc<Room>,
}

struct Buckets {
    all: Bucket,
    queue: Bucket,
    deployment: Bucket,
    routing: Bucket,
    list: Bucket,
    used: u32,
    used_since: Instant,
}

/// What each poller would read in a second if nobody else did.
#[derive(Default)]
struct Claims {
    by_owner: BTreeMap<u64, Rates>,
    owners: u64,
}

impl Buckets {
    fn own(&mut self, kind: Kind) -> &mut Bucket {
        match kind {
            Kind::Queue => &mut self.queue,
            Kind::Deployment => &mut self.deployment,
            Kind::Routing => &mut self.routing,
            Kind::List => &mut self.list,
        }
    }

    /// Counts a call. Gives the share of a full budget that was used, when enough time has passed to tell.
    fn count(&mut self, full: f64, now: Instant) -> Option<f64> {
        self.used += 1;
        let passed = now.saturating_duration_since(self.used_since);
        if passed < USE_WINDOW {
            return None;
        }
        let share = f64::from(self.used) / (full * passed.as_secs_f64());
        (self.used, self.used_since) = (0, now);
        Some(share)
    }
}

impl Budget {
    fn new(limits: Limits, metrics: Metrics, room: Arc<Room>) -> Self {
        let now = Instant::now();
        let full = f64::from(limits.calls_per_second.max(1));
        let burst = (full * BURST_SECONDS).max(1.0);
        let deployment = DEPLOYMENT_READS.min(full / 2.0);
        let buckets = Buckets {
            all: Bucket::new(full, burst, now),
            queue: Bucket::new(full, burst, now),
            deployment: Bucket::new(deployment, deployment.max(1.0), now),
            routing: Bucket::new(ROUTING_WRITES.0, ROUTING_WRITES.1, now),
            list: Bucket::new(LISTS.0, LISTS.1, now),
            used: 0,
            used_since: now,
        };
        Self { full, buckets: Mutex::new(buckets), claims: Mutex::default(), metrics, room }
    }

    /// The places that the server has for reads of a kind, whatever their namespaces. Changes of the routing need none, nor
    /// do lists, of which there are two at a time.
    pub(super) fn places(&self, kind: Kind) -> Option<&Places> {
        match kind {
            Kind::Queue => Some(&self.room.queue),
            Kind::Deployment => Some(&self.room.deployment),
            Kind::Routing | Kind::List => None,
        }
    }

    /// Takes a token, or says how long there will be none.
    pub(super) fn try_take(&self, kind: Kind, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock();
        let wait = buckets.all.wait(now).max(buckets.own(kind).wait(now));
        if !wait.is_zero() {
            return Err(wait);
        }
        buckets.all.take();
        buckets.own(kind).take();
        if let Some(share) = buckets.count(self.full, now) {
            self.metrics.budget_used(share);
        }
        Ok(())
    }

    /// Waits for a token, at most until a deadline.
    pub(super) async fn take(&self, kind: Kind, deadline: Instant) -> Result<(), CallError> {
        loop {
            let now = Instant::now();
            let Err(wait) = self.try_take(kind, now) else { return Ok(()) };
            if now + wait > deadline {
                self.metrics.rejected(kind.as_str(), "operator");
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

    /// Counts a read by its class, with the time since the one before.
    pub(super) fn polled(&self, class: &'static str, gap: Duration) {
        self.metrics.polled(class, gap);
    }

    /// The server asked for fewer calls of a kind.
    pub(super) fn exhausted(&self, kind: Kind, refusal: Refusal, now: Instant) {
        self.metrics.rejected(kind.as_str(), "server");
        let mut buckets = self.buckets.lock();
        let refused = if refusal.whole_server { &mut buckets.all } else { buckets.own(kind) };
        refused.refused(refusal, now);
    }

    /// A call of a kind was answered.
    pub(super) fn answered(&self, kind: Kind) {
        let mut buckets = self.buckets.lock();
        buckets.all.answered();
        buckets.own(kind).answered();
    }

    /// A number for a poller that shares this budget.
    pub(super) fn join(&self) -> u64 {
        let mut claims = self.claims.lock();
        claims.owners += 1;
        claims.owners
    }

    /// A poller reads nothing any more.
    pub(super) fn leave(&self, owner: u64) {
        self.claims.lock().by_owner.remove(&owner);
    }

    /// Calls a second that a poller may plan with, when it would make `claim` if it were alone. Nobody gets more than it
    /// claims, and what there is too little of is shared evenly among those that claim more than that: so a tenant with a
    /// thousand Task Queues leaves one with ten alone. Reads of Task Queues have what those of deployments leave.
    pub(super) fn share(&self, owner: u64, claim: Rates) -> Rates {
        let (all, queue, deployment) = {
            let buckets = self.buckets.lock();
            (buckets.all.rate(), buckets.queue.rate(), buckets.deployment.rate())
        };
        let mut claims = self.claims.lock();
        claims.by_owner.insert(owner, claim);
        let of = |kind: fn(&Rates) -> f64| claims.by_owner.values().map(kind).collect::<Vec<_>>();
        let (queues, deployments) = (of(|claim| claim.queue), of(|claim| claim.deployment));
        let deployment = deployment.min(all / 2.0);
        let read = deployments.iter().sum::<f64>().min(deployment);
        let queue = queue.min((all - read - RESERVE).max(all / 4.0));
        Rates {
            queue: claim.queue.min(level(queues, queue)),
            deployment: claim.deployment.min(level(deployments, deployment)),
        }
    }
}

/// The most that each may have so that all together have at most `rate`, when nobody takes more than it claims.
fn level(mut claims: Vec<f64>, rate: f64) -> f64 {
    claims.sort_by(f64::total_cmp);
    let mut left = rate;
    for (served, claim) in claims.iter().enumerate() {
        let fair = left / (claims.len() - served) as f64;
        if *claim > fair {
            return fair;
        }
        left -= claim;
    }
    f64::INFINITY
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budgets(calls_per_second: u32) -> Budgets {
        Budgets::new(Limits { calls_per_second }, Metrics::register(&prometheus::Registry::new()).unwrap())
    }

    fn budget(calls_per_second: u32) -> Arc<Budget> {
        budgets(calls_per_second).of("server", "namespace")
    }

    #[test]
    fn reads_under_way_to_one_server_are_bounded_whatever_their_namespaces() {
        let budgets = budgets(120);
        let (one, other, elsewhere) = (budgets.of("a", "1"), budgets.of("a", "2"), budgets.of("b", "1"));
        let place = |budget: &Arc<Budget>, kind| budget.places(kind).unwrap().free().try_acquire_owned().ok();
        let mut under_way = vec![place(&one, Kind::Deployment).unwrap(), place(&other, Kind::Deployment).unwrap()];
        under_way.extend(std::iter::from_fn(|| place(&one, Kind::Deployment)));
        assert!(place(&other, Kind::Deployment).is_none());
        assert!(place(&elsewhere, Kind::Deployment).is_some(), "another server has room of its own");
        assert!(place(&one, Kind::Queue).is_some() && one.places(Kind::Routing).is_none(), "and so has another kind");
        under_way.pop();
        assert!(place(&other, Kind::Deployment).is_some(), "one has ended");
    }

    fn taken_in(budget: &Budget, kind: Kind, from: Instant, time: Duration) -> usize {
        let (mut now, mut taken) = (from, 0);
        while now < from + time {
            match budget.try_take(kind, now) {
                Ok(()) => taken += 1,
                Err(wait) => now += wait,
            }
        }
        taken
    }

    #[test]
    fn reads_of_deployments_stay_within_half_of_the_servers_limit() {
        let budget = budget(120);
        let now = Instant::now();
        let taken = taken_in(&budget, Kind::Deployment, now, Duration::from_secs(10));
        assert!((270..=276).contains(&taken), "{taken} in 10 s, 25 of them at once");
        assert!(budget.try_take(Kind::Queue, now + Duration::from_secs(10)).is_ok());
    }

    #[test]
    fn a_refusal_of_one_kind_slows_no_other_and_one_of_the_whole_server_slows_all() {
        let budget = budget(120);
        let now = Instant::now();
        budget.exhausted(Kind::Deployment, Refusal::default(), now);
        assert!(budget.try_take(Kind::Deployment, now).is_err());
        assert!(budget.try_take(Kind::Queue, now).is_ok());
        let wants = Rates { queue: 1000.0, deployment: 1000.0 };
        let share = budget.share(budget.join(), wants);
        assert!((12.5..12.6).contains(&share.deployment) && (105.4..=105.5).contains(&share.queue), "{share:?}");
        budget.exhausted(Kind::Queue, Refusal { whole_server: true, retry_after: None }, now);
        for kind in [Kind::Queue, Kind::Deployment, Kind::Routing] {
            assert!(budget.try_take(kind, now).is_err(), "{kind:?}");
        }
    }

    #[test]
    fn queues_have_what_the_reads_of_deployments_leave() {
        let budget = budget(120);
        let owner = budget.join();
        let queue = |deployment| budget.share(owner, Rates { queue: 1000.0, deployment }).queue;
        assert_eq!(queue(0.0), 118.0);
        assert_eq!(queue(10.0), 108.0);
        assert_eq!(queue(1000.0), 93.0);
    }

    #[test]
    fn a_poller_with_many_queues_leaves_one_with_few_alone() {
        let budget = budget(120);
        let (large, small) = (budget.join(), budget.join());
        let claim = |queue| Rates { queue, deployment: 0.0 };
        assert_eq!(budget.share(large, claim(8000.0)).queue, 118.0);
        assert_eq!(budget.share(small, claim(40.0)).queue, 40.0);
        assert_eq!(budget.share(large, claim(8000.0)).queue, 78.0);
        assert_eq!(budget.share(small, claim(900.0)).queue, 59.0);
        budget.leave(small);
        assert_eq!(budget.share(large, claim(8000.0)).queue, 118.0);
    }

    #[test]
    fn a_small_budget_is_not_used_up_by_reads_of_deployments() {
        let budget = budget(10);
        let share = budget.share(budget.join(), Rates { queue: 100.0, deployment: 100.0 });
        assert_eq!(share, Rates { queue: 3.0, deployment: 5.0 });
    }
}
