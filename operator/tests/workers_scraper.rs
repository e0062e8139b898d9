//! The scraper on real HTTP servers: what it reads, what it refuses, and whom it tells.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use operator_core::observed::{LaneKey, Observation, SlotUse, TaskType};
use prometheus::Registry;
use temporal_worker_operator::changes::{Changes, FleetId};
use temporal_worker_operator::workers::{Metrics, Scraper, Settings, Target};
use tokio::net::TcpListener;
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(5);
const SETTINGS: Settings = Settings {
    interval: Duration::from_millis(100),
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
        let load = self.scraper.snapshot(pod, Instant::now());
        load.known().map(|load| load.lanes[&lane()].used)
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
    Target { pod_uid: pod.into(), url: url.into() }
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
    let load = bed.scraper.snapshot("a", Instant::now());
    assert_eq!(
        load.known().unwrap().lanes[&lane()],
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
    assert_eq!(bed.scraper.snapshot("slow-0", Instant::now()), Observation::Unknown);
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
    for outcome in ["status", "no_slots", "too_large", "unreachable"] {
        bed.until_scraped(outcome, 1.0).await;
    }
    for (pod, _) in pods {
        assert_eq!(bed.scraper.snapshot(pod, Instant::now()), Observation::Unknown, "{pod}");
    }
    assert_eq!(reached.load(Ordering::Relaxed), 0, "a redirect was followed");
}

#[tokio::test]
async fn without_pods_nothing_is_read() {
    let url = serve(Router::new().route("/metrics", get(|| async { page(1) }))).await;
    let bed = Bed::new();
    bed.scraper.set("f".into(), vec![target("a", &url)]);
    bed.changed().await;
    bed.scraper.set("f".into(), Vec::new());
    assert_eq!(bed.scraper.snapshot("a", Instant::now()), Observation::Unknown);
    // What was under way may still end.
    tokio::time::sleep(SETTINGS.deadline).await;
    let before = bed.scrapes("ok");
    tokio::time::sleep(SETTINGS.interval * 5).await;
    assert_eq!(bed.scrapes("ok"), before);
}
