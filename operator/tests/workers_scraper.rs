//! The scraper on real HTTP servers: what it reads, what it refuses, and whom it tells.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use operator_core::observed::{LaneKey, Observation, ReadFailure, SlotUse, TaskType, Unreadable};
use prometheus::Registry;
use temporal_worker_operator::changes::{Changes, FleetId};
use temporal_worker_operator::workers::{Metrics, Scraper, Seen, Settings, Target};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(5);
const SETTINGS: Settings = Settings {
    interval: Duration::from_millis(100),
    connect_deadline: Duration::from_millis(200),
    deadline: Duration::from_millis(300),
    concurrency: 64,
    page_bytes: 100_000,
};

struct Bed {
    scraper: Arc<Scraper>,
    changes: Arc<Changes>,
    registry: Registry,
}

impl Bed {
    fn new() -> Self {
        let (registry, changes) = (Registry::new(), Changes::new());
        let metrics = Metrics::register(&registry).unwrap();
        Self { scraper: Scraper::new(SETTINGS, changes.clone(), metrics).unwrap(), changes, registry }
    }

    fn used(&self, pod: &str) -> Option<u64> {
        self.seen(pod).load.known().map(|load| load.lanes[&lane()].used)
    }

    fn seen(&self, pod: &str) -> Seen {
        self.scraper.snapshot(pod, Some(&target(pod, "http://10.0.0.1:8080/metrics")), Instant::now())
    }

    async fn changed(&self) -> FleetId {
        tokio::time::timeout(SOON, self.changes.next()).await.expect("a change")
    }

    fn scrapes(&self, outcome: &str) -> f64 {
        let families = self.registry.gather();
        let scrapes = families.iter().find(|family| family.name() == "temporal_worker_operator_pod_scrapes_total");
        let metrics = scrapes.map(|family| family.get_metric()).unwrap_or_default();
        let of_outcome = metrics.iter().filter(|metric| metric.get_label()[0].value() == outcome);
        of_outcome.map(|metric| metric.get_counter().get_value()).sum()
    }

    async fn until_scraped(&self, outcome: &str, times: f64) {
        let end = Instant::now() + SOON;
        while self.scrapes(outcome) < times {
            assert!(Instant::now() < end, "{} scrapes were {outcome}", self.scrapes(outcome));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn lane() -> LaneKey {
    LaneKey { task_queue: "q".into(), task_type: TaskType::Activity }
}

fn page(used: u64) -> String {
    format!(
        "temporal_worker_runtime_slots_used{{task_queue=\"q\",task_type=\"activity\"}} {used}\n\
         temporal_worker_runtime_slots_available{{task_queue=\"q\",task_type=\"activity\"}} 5\n\
         temporal_worker_runtime_tasks_started_total{{task_queue=\"q\",task_type=\"activity\"}} 9\n"
    )
}

async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/metrics")
}

fn target(pod: &str, url: &str) -> Target {
    Target { pod_uid: pod.into(), url: url.into(), cpu_limit: None }
}

#[tokio::test]
async fn a_load_that_changes_is_told_and_one_that_stays_is_not() {
    let used = Arc::new(AtomicU64::new(1));
    let shown = used.clone();
    let url =
        serve(Router::new().route("/metrics", get(move || async move { page(shown.load(Ordering::Relaxed)) }))).await;
    let bed = Bed::new();
    bed.scraper.set("f".into(), vec![target("a", &url), target("b", &url)]);
    assert_eq!(bed.changed().await.as_str(), "f");
    assert_eq!(
        bed.seen("a").load.known().unwrap().lanes[&lane()],
        SlotUse { used: 1, available: 5, started: 9, ..SlotUse::default() }
    );
    bed.until_scraped("ok", 8.0).await;
    let quiet = tokio::time::timeout(Duration::from_millis(50), bed.changes.next()).await;
    assert!(quiet.is_err(), "nothing changed");
    used.store(4, Ordering::Relaxed);
    bed.changed().await;
    assert_eq!((bed.used("a"), bed.used("b")), (Some(4), Some(4)));
}

#[tokio::test]
async fn a_pod_that_hangs_delays_no_other() {
    let hangs = serve(Router::new().route("/metrics", get(std::future::pending::<String>))).await;
    let answers = serve(Router::new().route("/metrics", get(|| async { page(2) }))).await;
    let bed = Bed::new();
    bed.scraper.set("slow".into(), (0..20).map(|n| target(&format!("slow-{n}"), &hangs)).collect());
    bed.scraper.set("f".into(), vec![target("a", &answers)]);
    let started = Instant::now();
    assert_eq!(bed.changed().await.as_str(), "f");
    assert!(started.elapsed() < SETTINGS.deadline, "{:?}", started.elapsed());
    bed.until_scraped("timeout", 20.0).await;
    assert_eq!(bed.seen("slow-0").load, Observation::Unknown);
}

#[tokio::test]
async fn what_is_no_page_of_slots_is_no_reading() {
    let reached = Arc::new(AtomicUsize::new(0));
    let count = reached.clone();
    let elsewhere = serve(Router::new().route(
        "/metrics",
        get(move || async move {
            count.fetch_add(1, Ordering::Relaxed);
            page(1)
        }),
    ))
    .await;
    let headers = HeaderMap::from_iter([(LOCATION, elsewhere.parse().unwrap())]);
    let redirect = serve(Router::new().route("/metrics", get(|| async { (StatusCode::FOUND, headers) }))).await;
    let empty = serve(Router::new().route("/metrics", get(|| async { "go_threads 4\n" }))).await;
    let endless =
        serve(Router::new().route("/metrics", get(|| async { format!("{}{}", page(1), "# x\n".repeat(50_000)) })))
            .await;
    let bed = Bed::new();
    let pods =
        [("redirect", &*redirect), ("empty", &empty), ("endless", &endless), ("gone", "http://127.0.0.1:1/metrics")];
    bed.scraper.set("f".into(), pods.iter().map(|(pod, url)| target(pod, url)).collect());
    let failures = [ReadFailure::Status(302), ReadFailure::NoSlots, ReadFailure::TooLarge, ReadFailure::Refused];
    for ((pod, _), failure) in pods.into_iter().zip(failures) {
        bed.until_scraped(failure.as_str(), 1.0).await;
        let at = ":8080/metrics".to_owned();
        let expected = Seen { load: Observation::Unknown, unreadable: Some(Unreadable::Failed { at, failure }) };
        assert_eq!(bed.seen(pod), expected, "{pod}");
    }
    assert_eq!(reached.load(Ordering::Relaxed), 0, "a redirect was followed");
}

/// An address where packets vanish, as behind a NetworkPolicy: the queue of connections that nobody accepts is full.
async fn cut_off() -> (String, Vec<TcpStream>, TcpListener) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(connected) = tokio::time::timeout(SETTINGS.connect_deadline, TcpStream::connect(address)).await {
        waiting.push(connected.unwrap());
    }
    (format!("http://{address}/metrics"), waiting, listener)
}

#[tokio::test]
async fn a_pod_that_is_cut_off_says_so_and_is_read_again_when_it_can_be() {
    let (cut_off, waiting, listener) = cut_off().await;
    let bed = Bed::new();
    bed.scraper.set("f".into(), vec![target("a", &cut_off)]);
    assert_eq!(bed.changed().await.as_str(), "f");
    let Some(Unreadable::Failed { failure, .. }) = bed.seen("a").unreadable else { panic!("{:?}", bed.seen("a")) };
    assert_eq!(failure, ReadFailure::ConnectTimeout);
    drop(waiting);
    tokio::spawn(
        async move { axum::serve(listener, Router::new().route("/metrics", get(|| async { page(3) }))).await },
    );
    bed.changed().await;
    assert_eq!((bed.used("a"), bed.seen("a").unreadable), (Some(3), None));
}

#[tokio::test]
async fn a_pod_without_a_port_says_so() {
    let seen = Bed::new().scraper.snapshot("a", None, Instant::now());
    assert_eq!(seen, Seen { load: Observation::Unknown, unreadable: Some(Unreadable::NoPort) });
}

#[tokio::test]
async fn without_pods_nothing_is_read() {
    let url = serve(Router::new().route("/metrics", get(|| async { page(1) }))).await;
    let bed = Bed::new();
    bed.scraper.set("f".into(), vec![target("a", &url)]);
    bed.changed().await;
    bed.scraper.set("f".into(), Vec::new());
    assert_eq!(bed.seen("a"), Seen::default());
    // What was under way may still end.
    tokio::time::sleep(SETTINGS.deadline).await;
    let before = bed.scrapes("ok");
    tokio::time::sleep(SETTINGS.interval * 5).await;
    assert_eq!(bed.scrapes("ok"), before);
}
