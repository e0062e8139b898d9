//! Orders to pods on real HTTP servers: who gets which, and what becomes of those that come to nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::{Json, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Router, serve};
use jiff::Timestamp;
use operator_core::cordon::{OrderKey, Receiver, SEED_LENGTH, SignedOrder, Verb, Wish};
use operator_core::observed::Cordon;
use parking_lot::Mutex;
use prometheus::Registry;
use temporal_worker_operator::changes::FleetId;
use temporal_worker_operator::workers::{Cordons, OrderedPod};
use tokio::net::TcpListener;
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(20);

/// A pod that obeys the key of [`key`].
struct Pod {
    uid: &'static str,
    url: String,
    taken: Arc<Mutex<Vec<Verb>>>,
}

struct Ears {
    uid: &'static str,
    last: Mutex<Option<Timestamp>>,
    taken: Arc<Mutex<Vec<Verb>>>,
}

fn key() -> OrderKey {
    OrderKey::from_seed(&[3; SEED_LENGTH]).unwrap()
}

async fn obey(ears: &Ears, verb: Verb, order: &SignedOrder) -> StatusCode {
    let mut last = ears.last.lock();
    let keys = [key().public()];
    let receiver = Receiver { pod_uid: ears.uid, keys: &keys, last: *last, now: Timestamp::now() };
    if receiver.check(verb, order).is_err() {
        return StatusCode::FORBIDDEN;
    }
    *last = Some(order.order.issued_at);
    ears.taken.lock().push(verb);
    StatusCode::OK
}

impl Pod {
    async fn start(uid: &'static str) -> Self {
        let taken = Arc::<Mutex<Vec<Verb>>>::default();
        let ears = Arc::new(Ears { uid, last: Mutex::default(), taken: taken.clone() });
        let cordon = post(async |State(ears): State<Arc<Ears>>, Json(order)| obey(&ears, Verb::Cordon, &order).await);
        let uncordon =
            post(async |State(ears): State<Arc<Ears>>, Json(order)| obey(&ears, Verb::Uncordon, &order).await);
        let router = Router::new().route("/cordon", cordon).route("/uncordon", uncordon).with_state(ears);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { serve(listener, router).await });
        Self { uid, url, taken }
    }

    fn ordered(&self, cordon: bool, says: Cordon) -> OrderedPod {
        OrderedPod { uid: self.uid.to_owned(), url: self.url.clone(), wish: Wish { cordon, says: Some(says) } }
    }

    async fn until_taken(&self, verbs: &[Verb]) {
        until(&format!("{} takes {verbs:?}", self.uid), || *self.taken.lock() == verbs).await;
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < end, "{what}: not within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn sent(registry: &Registry, outcome: &str) -> u64 {
    let families = registry.gather();
    let orders = families.iter().find(|family| family.name() == "temporal_worker_operator_pod_orders_total");
    let metrics = orders.map(|family| family.get_metric()).unwrap_or_default();
    let of_outcome = metrics.iter().filter(|one| one.get_label().iter().any(|label| label.value() == outcome));
    of_outcome.map(|metric| metric.get_counter().get_value() as u64).sum()
}

#[tokio::test]
async fn a_named_pod_is_cordoned_once_and_told_when_it_is_over() {
    let (registry, fleet) = (Registry::new(), FleetId::from("f"));
    let cordons = Cordons::new(&registry, Box::new(|| true)).unwrap();
    let (a, b) = (Pod::start("uid-a").await, Pod::start("uid-b").await);
    let say = |cordon, says| cordons.set(&fleet, &key(), vec![a.ordered(cordon, says), b.ordered(false, Cordon::Open)]);
    say(true, Cordon::Open);
    a.until_taken(&[Verb::Cordon]).await;
    for says in [Cordon::Open, Cordon::Closing, Cordon::Closed] {
        say(true, says);
    }
    say(false, Cordon::Closed);
    a.until_taken(&[Verb::Cordon, Verb::Uncordon]).await;
    say(true, Cordon::Open);
    a.until_taken(&[Verb::Cordon, Verb::Uncordon, Verb::Cordon]).await;
    assert!(b.taken.lock().is_empty(), "{:?}", b.taken.lock());
    assert_eq!(sent(&registry, "accepted"), 3);
}

#[tokio::test]
async fn a_pod_that_another_leader_cordoned_takes_tasks_again() {
    let cordons = Cordons::new(&Registry::new(), Box::new(|| true)).unwrap();
    let pod = Pod::start("uid-a").await;
    cordons.set(&FleetId::from("f"), &key(), vec![pod.ordered(false, Cordon::Closed)]);
    pod.until_taken(&[Verb::Uncordon]).await;
}

#[tokio::test]
async fn only_a_leader_gives_orders() {
    let leads = Arc::new(AtomicBool::new(false));
    let cordons = Cordons::new(&Registry::new(), {
        let leads = leads.clone();
        Box::new(move || leads.load(Ordering::SeqCst))
    })
    .unwrap();
    let pod = Pod::start("uid-a").await;
    cordons.set(&FleetId::from("f"), &key(), vec![pod.ordered(true, Cordon::Open)]);
    // Several looks at what is due.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(pod.taken.lock().is_empty());
    leads.store(true, Ordering::SeqCst);
    pod.until_taken(&[Verb::Cordon]).await;
}

#[tokio::test]
async fn a_pod_that_takes_no_order_counts_as_one_that_can_t_be_cordoned_and_holds_nobody_up() {
    let (registry, fleet) = (Registry::new(), FleetId::from("f"));
    let cordons = Cordons::new(&registry, Box::new(|| true)).unwrap();
    let (good, deaf) = (Pod::start("uid-a").await, Pod::start("uid-of-itself").await);
    // It refuses whatever names another pod.
    let deaf = OrderedPod { uid: "uid-b".into(), ..deaf.ordered(true, Cordon::Open) };
    cordons.set(&fleet, &key(), vec![deaf, good.ordered(true, Cordon::Open)]);
    good.until_taken(&[Verb::Cordon]).await;
    until("the pod counts as failing", || cordons.is_failing("uid-b")).await;
    assert!(sent(&registry, "refused") >= 3 && !cordons.is_failing("uid-a"));
    cordons.remove(&fleet);
    assert!(!cordons.is_failing("uid-b"), "it is forgotten with its fleet");
}
