//! Orders to pods: to take no new task, and to take tasks again. Sent, renewed and tried again in the background; what a
//! pod makes of them it says in its own metrics.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use jiff::{SignedDuration, Timestamp};
use operator_core::contract::{CORDON_PATH, UNCORDON_PATH};
use operator_core::cordon::{Correspondence, Order, OrderKey, Verb, Wish};
use parking_lot::Mutex;
use prometheus::{IntCounterVec, Opts, Registry};
use reqwest::redirect::Policy;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::changes::FleetId;

/// Time that a pod gets to answer.
const DEADLINE: Duration = Duration::from_secs(2);
/// Orders under way at a time.
const CONCURRENCY: usize = 32;
/// Time between two looks at what is due, while anything may be.
const LOOK: Duration = Duration::from_millis(500);
/// Age of a wish from which on it is not renewed: nobody decided for so long.
const WISH_HOLDS: Duration = Duration::from_secs(60);

/// Whether this replica may give orders now.
pub type MayWrite = Box<dyn Fn() -> bool + Send + Sync>;

/// A pod that takes orders, and what it should do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// `metadata.uid`.
    pub uid: String,
    /// `http://` address of its probes, without a path.
    pub url: String,
    /// What it should do.
    pub wish: Wish,
}

/// Sends the orders of all fleets.
pub struct Cordons {
    client: reqwest::Client,
    may_write: MayWrite,
    orders: IntCounterVec,
    desk: Mutex<Desk>,
    wake: Notify,
    started: Instant,
}

#[derive(Default)]
struct Desk {
    key: Option<OrderKey>,
    fleets: HashMap<FleetId, (Vec<Pod>, Duration)>,
    letters: BTreeMap<String, Letters>,
    open: HashSet<String>,
}

/// What was exchanged with one pod.
#[derive(Clone, Copy, Default)]
struct Letters {
    state: Correspondence,
    issued_at: Option<Timestamp>,
}

struct Letter {
    pod: Pod,
    verb: Verb,
    key: OrderKey,
    issued_at: Timestamp,
}

impl Cordons {
    /// Without pods. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When no HTTP client can be made, or a metric of the same name is registered already.
    pub fn new(registry: &Registry, may_write: MayWrite) -> anyhow::Result<Arc<Self>> {
        let name = "temporal_worker_operator_pod_orders_total";
        let orders = Opts::new(name, "Orders to pods to take no new task, or to take tasks again, by outcome.");
        let orders = IntCounterVec::new(orders, &["verb", "outcome"])?;
        registry.register(Box::new(orders.clone()))?;
        // A pod must not be able to send the operator elsewhere.
        let client = reqwest::Client::builder().redirect(Policy::none()).no_proxy().timeout(DEADLINE).build()?;
        let (desk, wake, started) = (Mutex::default(), Notify::new(), Instant::now());
        let cordons = Arc::new(Self { client, may_write, orders, desk, wake, started });
        tokio::spawn(cordons.clone().run());
        Ok(cordons)
    }

    /// Says what the pods of a fleet should do from now on, and whose orders they are. It has to be said again and again:
    /// after a minute of silence nothing is renewed.
    pub fn set(&self, fleet: &FleetId, key: &OrderKey, pods: Vec<Pod>) {
        let now = self.started.elapsed();
        let mut desk = self.desk.lock();
        desk.key = Some(key.clone());
        if pods.is_empty() {
            desk.remove(fleet);
            return;
        }
        let changed = desk.fleets.insert(fleet.clone(), (pods.clone(), now)).is_none_or(|(before, _)| before != pods);
        if changed {
            desk.forget_strangers();
            drop(desk);
            self.wake.notify_one();
        }
    }

    /// Forgets a fleet's pods: their cordons lapse.
    pub fn remove(&self, fleet: &FleetId) {
        self.desk.lock().remove(fleet);
    }

    /// Whether the last orders to a pod came to nothing.
    #[must_use]
    pub fn is_failing(&self, pod_uid: &str) -> bool {
        let now = self.started.elapsed();
        self.desk.lock().letters.get(pod_uid).is_some_and(|letters| letters.state.is_failing(now))
    }

    async fn run(self: Arc<Self>) {
        let mut under_way = FuturesUnordered::new();
        loop {
            let now = self.started.elapsed();
            let busy = {
                let mut desk = self.desk.lock();
                while under_way.len() < CONCURRENCY
                    && (self.may_write)()
                    && let Some(letter) = desk.next(now)
                {
                    under_way.push(self.send(letter));
                }
                desk.is_busy(now)
            };
            tokio::select! {
                Some((letter, outcome)) = under_way.next(), if !under_way.is_empty() => self.finish(&letter, outcome),
                () = self.wake.notified() => {}
                () = tokio::time::sleep(LOOK), if busy => {}
            }
        }
    }

    async fn send(&self, letter: Letter) -> (Letter, &'static str) {
        let path = match letter.verb {
            Verb::Cordon => CORDON_PATH,
            Verb::Uncordon => UNCORDON_PATH,
        };
        let order = letter.key.sign(Order::new(letter.verb, &letter.pod.uid, letter.issued_at));
        let outcome = match self.client.post(format!("{}{path}", letter.pod.url)).json(&order).send().await {
            Ok(answer) if answer.status().is_success() => "accepted",
            Ok(answer) => {
                tracing::warn!(pod_uid = letter.pod.uid, status = %answer.status(), "a pod refused an order");
                "refused"
            }
            Err(error) if error.is_timeout() => "timeout",
            Err(_) => "unreachable",
        };
        (letter, outcome)
    }

    fn finish(&self, letter: &Letter, outcome: &'static str) {
        self.orders.with_label_values(&[letter.verb.as_str(), outcome]).inc();
        let now = self.started.elapsed();
        let mut desk = self.desk.lock();
        desk.open.remove(&letter.pod.uid);
        let Some(letters) = desk.letters.get_mut(&letter.pod.uid) else { return };
        if outcome == "accepted" {
            letters.state.accepted(letter.verb, now);
        } else {
            letters.state.failed(now, rand::random());
        }
    }
}

impl Desk {
    fn remove(&mut self, fleet: &FleetId) {
        if self.fleets.remove(fleet).is_some() {
            self.forget_strangers();
        }
    }

    /// Forgets what was exchanged with pods that no fleet names any more.
    fn forget_strangers(&mut self) {
        let named: HashSet<&str> =
            self.fleets.values().flat_map(|(pods, _)| pods).map(|pod| pod.uid.as_str()).collect();
        self.letters.retain(|uid, _| named.contains(uid.as_str()));
    }

    /// Pods whose wish still holds.
    fn pods(&self, now: Duration) -> impl Iterator<Item = &Pod> {
        let holds = move |said: &Duration| now.saturating_sub(*said) < WISH_HOLDS;
        self.fleets.values().filter(move |(_, said)| holds(said)).flat_map(|(pods, _)| pods)
    }

    fn state(&self, pod: &Pod) -> Correspondence {
        self.letters.get(&pod.uid).map(|letters| letters.state).unwrap_or_default()
    }

    /// The next order that is due.
    fn next(&mut self, now: Duration) -> Option<Letter> {
        let key = self.key.clone()?;
        let due = |pod: &Pod| Some((pod.clone(), self.state(pod).due(pod.wish, now)?));
        let (pod, verb) = self.pods(now).filter(|pod| !self.open.contains(&pod.uid)).find_map(due)?;
        self.open.insert(pod.uid.clone());
        let letters = self.letters.entry(pod.uid.clone()).or_default();
        // A pod takes no order that was issued before another one, however the clock was set meanwhile.
        let after = |last: Timestamp| last.saturating_add(SignedDuration::from_millis(1)).unwrap_or(last);
        let issued_at = letters.issued_at.map_or(Timestamp::MIN, after).max(Timestamp::now());
        letters.issued_at = Some(issued_at);
        Some(Letter { pod, verb, key, issued_at })
    }

    fn is_busy(&self, now: Duration) -> bool {
        self.pods(now).any(|pod| self.state(pod).concerns(pod.wish, now))
    }
}
