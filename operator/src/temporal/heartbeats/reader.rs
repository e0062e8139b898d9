//! The task that reads the heartbeats of one Temporal namespace through one connection.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use operator_core::observed::{FailureClass, LaneKey, Observation, PodLoad, SlotUse};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Need;
use super::beats::{Asked, Beat, Beats, Identity};
use super::wire::{self, Listed};
use crate::changes::{Changes, FleetId};
use crate::temporal::budget::{Budget, Kind};
use crate::temporal::connection::Connection;
use crate::temporal::errors::CallError;

/// Bounds of the time between two reads: twice an interval, of those that SDKs allow (1 s to 60 s).
const EVERY: std::ops::RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_secs(15);
/// The same before an interval is known.
const EVERY_AT_FIRST: Duration = Duration::from_secs(5);
const FIRST_RETRY: Duration = Duration::from_secs(2);
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// A server that has no such list is asked again after this.
const UNSUPPORTED_RETRY: Duration = Duration::from_secs(600);
/// Time that one read may wait for the budget.
const BUDGET_WAIT: Duration = Duration::from_secs(5);
/// Pages that one read takes at most: 20,000 Workers.
const MOST_PAGES: usize = 40;
/// Workers that one read describes one by one, where the list has no heartbeats.
const MOST_DESCRIBED: usize = 50;

/// Reads the heartbeats of one Temporal namespace.
pub(super) struct Reader {
    connection: Arc<Connection>,
    namespace: String,
    budget: Arc<Budget>,
    changes: Arc<Changes>,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    needs: HashMap<FleetId, Need>,
    beats: Beats,
    /// What each fleet was last told.
    told: HashMap<FleetId, Told>,
    /// Where the descriptions one by one go on.
    described: String,
    closed: bool,
}

type Told = BTreeMap<String, (bool, BTreeMap<LaneKey, SlotUse>)>;

impl Reader {
    /// Starts the task. It ends once no fleet needs it.
    pub(super) fn start(need: &Need, changes: Arc<Changes>) -> Arc<Self> {
        let reader = Arc::new(Self {
            connection: need.connection.clone(),
            namespace: need.namespace.clone(),
            budget: need.connection.budget(&need.namespace),
            changes,
            state: Mutex::default(),
            wake: Notify::new(),
        });
        tokio::spawn(reader.clone().run());
        reader
    }

    pub(super) fn set(&self, need: Need) {
        let mut state = self.state.lock();
        let known = state.needs.get(&need.fleet);
        let new = known.is_none_or(|known| need.pods.keys().any(|pod| !known.pods.contains_key(pod)));
        state.needs.insert(need.fleet.clone(), need);
        if new {
            self.wake.notify_one();
        }
    }

    /// Takes a fleet out; says whether none is left, and ends then.
    pub(super) fn remove(&self, fleet: &FleetId) -> bool {
        let mut state = self.state.lock();
        state.needs.remove(fleet);
        state.told.remove(fleet);
        state.closed = state.needs.is_empty();
        self.wake.notify_one();
        state.closed
    }

    pub(super) fn load(&self, fleet: &FleetId, pod: &str, now: Instant) -> Observation<PodLoad> {
        let state = self.state.lock();
        state.needs.get(fleet).map(|need| state.load(need, pod, now)).unwrap_or_default()
    }

    async fn run(self: Arc<Self>) {
        let mut failures = 0_u32;
        while !self.state.lock().closed {
            let wait = match self.read().await {
                Ok(()) => {
                    failures = 0;
                    let interval = self.state.lock().beats.shortest_interval();
                    interval.map_or(EVERY_AT_FIRST, |it| (it / 2).clamp(*EVERY.start(), *EVERY.end()))
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    retry_after(&error, failures)
                }
            };
            let scatter = rand::random_range(0.9..1.1);
            self.sleep(wait.mul_f64(scatter), failures > 0).await;
        }
    }

    /// Sleeps until the next read. A pod that is new is worth an early one, unless the server just failed.
    async fn sleep(&self, wait: Duration, failed: bool) {
        let read = Instant::now();
        let early = if failed { wait } else { wait.min(*EVERY.start()) };
        tokio::select! {
            () = tokio::time::sleep_until(read + wait) => {}
            () = self.wake.notified() => {
                if !self.state.lock().closed {
                    tokio::time::sleep_until(read + early).await;
                }
            }
        }
    }

    async fn read(&self) -> Result<(), CallError> {
        let hosts = self.state.lock().hosts();
        let asked = Asked {
            at: Instant::now(),
            clock: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
        };
        let (mut beats, mut bare, mut page, mut complete) = (Vec::new(), BTreeSet::new(), Vec::new(), false);
        for _ in 0..MOST_PAGES {
            let Listed { beats: listed, bare: without, next } =
                self.within_budget(wire::list(&self.connection, &self.namespace, &hosts, page)).await?;
            beats.extend(listed);
            bare.extend(without);
            page = next;
            if page.is_empty() {
                complete = true;
                break;
            }
        }
        for instance in self.next_bare(&bare) {
            let described = wire::describe(&self.connection, &self.namespace, &hosts, &instance);
            beats.extend(self.within_budget(described).await?);
            self.state.lock().described = instance;
        }
        self.take(beats, asked, complete && bare.is_empty());
        Ok(())
    }

    /// Which Workers to describe one by one, in turn.
    fn next_bare(&self, bare: &BTreeSet<String>) -> Vec<String> {
        let after = self.state.lock().described.clone();
        let later = bare.iter().filter(|it| **it > after);
        let earlier = bare.iter().filter(|it| **it <= after);
        later.chain(earlier).take(MOST_DESCRIBED).cloned().collect()
    }

    async fn within_budget<T>(&self, call: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
        self.budget.take(Kind::Queue, Instant::now() + BUDGET_WAIT).await?;
        let answer = call.await;
        match &answer {
            Ok(_) => self.budget.answered(Kind::Queue),
            Err(error) if error.failure.class == FailureClass::ResourceExhausted => {
                self.budget.exhausted(Kind::Queue, error.refusal, Instant::now());
            }
            Err(_) => {}
        }
        answer
    }

    fn take(&self, beats: Vec<Beat>, asked: Asked, complete: bool) {
        let mut state = self.state.lock();
        state.beats.take(beats, asked, complete);
        let now = Instant::now();
        let told: HashMap<FleetId, Told> =
            state.needs.iter().map(|(fleet, need)| (fleet.clone(), state.tell(need, now))).collect();
        let before = std::mem::replace(&mut state.told, told);
        for (fleet, told) in &state.told {
            if before.get(fleet) != Some(told) {
                self.changes.send(fleet);
            }
        }
    }
}

impl State {
    fn hosts(&self) -> BTreeSet<String> {
        self.needs.values().flat_map(|need| need.pods.keys()).cloned().collect()
    }

    fn load(&self, need: &Need, pod: &str, now: Instant) -> Observation<PodLoad> {
        let Some(build_id) = need.pods.get(pod) else { return Observation::Unknown };
        let version = match (&need.deployment_name, build_id) {
            (Some(name), Some(build_id)) => Some((name.as_str(), build_id.as_str())),
            // A pod of no version of a fleet with versions is not its own.
            (Some(_), None) => return Observation::Unknown,
            (None, _) => None,
        };
        self.beats.load(Identity { pod, version }, now)
    }

    /// What a fleet is told of its pods, without ages.
    fn tell(&self, need: &Need, now: Instant) -> Told {
        let pods = need.pods.keys().filter_map(|pod| match self.load(need, pod, now) {
            Observation::Known { value, .. } => Some((pod.clone(), (true, value.lanes))),
            Observation::Stale { value, .. } => Some((pod.clone(), (false, value.lanes))),
            Observation::Unknown => None,
        });
        pods.collect()
    }
}

fn retry_after(error: &CallError, failures: u32) -> Duration {
    if error.unsupported() {
        return UNSUPPORTED_RETRY;
    }
    (FIRST_RETRY * 2_u32.pow(failures.min(8))).min(LONGEST_RETRY)
}
