//! Reads the metrics of pods.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use operator_core::observed::{Observation, PodLoad};
use parking_lot::Mutex;
use reqwest::redirect::Policy;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::metrics::Metrics;
use super::page::Page;
use super::rounds::{Rounds, Scrape};
use crate::changes::{Changes, FleetId};

/// Age up to which a pod's load tells what is: seven reads have failed by then.
pub const LOAD_FRESH: Duration = Duration::from_secs(15);
/// Time between two looks while there is nothing to do.
const IDLE: Duration = Duration::from_secs(3600);

/// How pods are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Time between two reads of a pod.
    pub interval: Duration,
    /// Time that one read gets.
    pub deadline: Duration,
    /// Reads under way at a time.
    pub concurrency: usize,
    /// Most bytes of a page.
    pub page_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(2),
            deadline: Duration::from_secs(1),
            concurrency: 64,
            page_bytes: 8 * 1024 * 1024,
        }
    }
}

/// A pod to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `metadata.uid` of the pod.
    pub pod_uid: String,
    /// `http://` address of its metrics.
    pub url: String,
}

/// Reads the pods of all fleets.
pub struct Scraper {
    settings: Settings,
    client: reqwest::Client,
    changes: Arc<Changes>,
    metrics: Metrics,
    rounds: Mutex<Rounds>,
    wake: Notify,
}

impl Scraper {
    /// A scraper without pods. Fleets whose load changed are sent to `changes`. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(settings: Settings, changes: Arc<Changes>, metrics: Metrics) -> Result<Arc<Self>, reqwest::Error> {
        // A pod must not be able to send the operator elsewhere.
        let client = reqwest::Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .timeout(settings.deadline)
            .pool_max_idle_per_host(1)
            .pool_idle_timeout(settings.interval * 5)
            .build()?;
        let rounds = Mutex::new(Rounds::new(settings.interval));
        let scraper = Arc::new(Self { settings, client, changes, metrics, rounds, wake: Notify::new() });
        tokio::spawn(scraper.clone().run());
        Ok(scraper)
    }

    /// Says which pods a fleet has. Cheap when nothing changed. Pods that are missing are forgotten.
    pub fn set(&self, fleet: FleetId, targets: Vec<Target>) {
        if self.rounds.lock().set(&fleet, targets, Instant::now()) {
            self.wake.notify_one();
        }
    }

    /// Forgets a fleet's pods.
    pub fn remove(&self, fleet: &FleetId) {
        self.rounds.lock().remove(fleet);
    }

    /// What a pod said of its load, with its age. A pod that tells of no slots was never read.
    #[must_use]
    pub fn snapshot(&self, pod_uid: &str, now: Instant) -> Observation<PodLoad> {
        self.rounds.lock().load(pod_uid, now)
    }

    async fn run(self: Arc<Self>) {
        let mut reads = FuturesUnordered::new();
        loop {
            let now = Instant::now();
            let wake_at = loop {
                if reads.len() >= self.settings.concurrency {
                    break now + IDLE;
                }
                match self.rounds.lock().next(now) {
                    Ok(scrape) => reads.push(self.read(scrape)),
                    Err(due) => break due.unwrap_or(now + IDLE),
                }
            };
            tokio::select! {
                Some((scrape, load, asked)) = reads.next(), if !reads.is_empty() => {
                    let changed = self.rounds.lock().finish(&scrape, load, asked);
                    if let Some(fleet) = changed {
                        self.changes.send(&fleet);
                    }
                }
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
    }

    async fn read(&self, scrape: Scrape) -> (Scrape, Option<PodLoad>, Instant) {
        let asked = Instant::now();
        let load = self.fetch(&scrape.target.url).await;
        let outcome = load.as_ref().map_or_else(|failure| *failure, |_| "ok");
        self.metrics.scraped(outcome, asked.elapsed());
        (scrape, load.ok(), asked)
    }

    async fn fetch(&self, url: &str) -> Result<PodLoad, &'static str> {
        let sent = self.client.get(url).send().await.map_err(|error| label(&error))?;
        let mut answer = sent.error_for_status().map_err(|_| "status")?;
        if !answer.status().is_success() {
            return Err("status");
        }
        let (mut page, mut size) = (Page::default(), 0);
        while let Some(piece) = answer.chunk().await.map_err(|error| label(&error))? {
            size += piece.len();
            if size > self.settings.page_bytes {
                return Err("too_large");
            }
            page.push(&piece);
        }
        page.finish().ok_or("no_slots")
    }
}

fn label(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() { "timeout" } else { "unreachable" }
}
