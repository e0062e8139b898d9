//! Reads the metrics of pods.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use operator_core::observed::{Observation, PodLoad, ReadFailure, Unreadable};
use parking_lot::Mutex;
use reqwest::redirect::Policy;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::metrics::Metrics;
use super::page::Page;
use super::reading::Reading;
use super::rounds::{Rounds, Scrape};
use crate::changes::{Changes, FleetId};

/// Age up to which a pod's load tells what is: seven reads have failed by then, or two of a large fleet.
pub const LOAD_FRESH: Duration = Duration::from_secs(15);
/// Time between two looks while there is nothing to do.
const IDLE: Duration = Duration::from_secs(3600);

/// How pods are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Time between two reads of a pod.
    pub interval: Duration,
    /// Time that a connection gets. Shorter than [`Settings::deadline`], so that the two can be told apart.
    pub connect_deadline: Duration,
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
            connect_deadline: Duration::from_millis(700),
            deadline: Duration::from_secs(1),
            concurrency: 64,
            page_bytes: 8 * 1024 * 1024,
        }
    }
}

/// A pod to read.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// `metadata.uid` of the pod.
    pub pod_uid: String,
    /// `http://` address of its metrics.
    pub url: String,
    /// CPUs that the container may use whose metrics these are, if its pod says.
    pub cpu_limit: Option<f64>,
}

impl Target {
    /// Port and path, for messages: `:8080/metrics`.
    #[must_use]
    pub fn place(&self) -> String {
        let parsed = reqwest::Url::parse(&self.url).ok();
        parsed.map_or_else(
            || self.url.clone(),
            |url| format!(":{}{}", url.port_or_known_default().unwrap_or(0), url.path()),
        )
    }
}

/// What is known of a pod's load.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// What it said last, with its age. A pod that tells of no slots was never read.
    pub load: Observation<PodLoad>,
    /// Why it can't be read, while it can't.
    pub unreadable: Option<Unreadable>,
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
            .connect_timeout(settings.connect_deadline)
            .timeout(settings.deadline)
            .pool_max_idle_per_host(1)
            .pool_idle_timeout(settings.interval * 5)
            .build()?;
        let rounds = Mutex::new(Rounds::new(settings.interval, settings.concurrency));
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

    /// Reads a fleet's pods once more as soon as may be, and says so whatever they say.
    pub fn hurry(&self, fleet: &FleetId) {
        self.rounds.lock().hurry(fleet, Instant::now());
        self.wake.notify_one();
    }

    /// Forgets a fleet's pods.
    pub fn remove(&self, fleet: &FleetId) {
        self.rounds.lock().remove(fleet);
    }

    /// What is known of a pod's load; `target` is where it is read, if its metrics are anywhere.
    #[must_use]
    pub fn snapshot(&self, pod_uid: &str, target: Option<&Target>, now: Instant) -> Seen {
        let Some(target) = target else {
            return Seen { load: Observation::Unknown, unreadable: Some(Unreadable::NoPort) };
        };
        let (load, failure) = self.rounds.lock().load(pod_uid, now);
        Seen { load, unreadable: failure.map(|failure| Unreadable::Failed { at: target.place(), failure }) }
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
                Some((scrape, outcome, asked)) = reads.next(), if !reads.is_empty() => {
                    let changed = self.rounds.lock().finish(&scrape, outcome, asked);
                    if let Some(fleet) = changed {
                        self.changes.send(&fleet);
                    }
                }
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
    }

    async fn read(&self, scrape: Scrape) -> (Scrape, Result<Reading, ReadFailure>, Instant) {
        let asked = Instant::now();
        let outcome = self.fetch(&scrape.target.url).await;
        self.metrics.scraped(outcome.as_ref().map_or_else(|failure| failure.as_str(), |_| "ok"), asked.elapsed());
        (scrape, outcome, asked)
    }

    async fn fetch(&self, url: &str) -> Result<Reading, ReadFailure> {
        let mut answer = self.client.get(url).send().await.map_err(|error| class(&error))?;
        if !answer.status().is_success() {
            return Err(ReadFailure::Status(answer.status().as_u16()));
        }
        let (mut page, mut size) = (Page::default(), 0);
        while let Some(piece) = answer.chunk().await.map_err(|error| class(&error))? {
            size += piece.len();
            if size > self.settings.page_bytes {
                return Err(ReadFailure::TooLarge);
            }
            page.push(&piece);
        }
        page.finish().ok_or(ReadFailure::NoSlots)
    }
}

fn class(error: &reqwest::Error) -> ReadFailure {
    match (error.is_connect(), error.is_timeout()) {
        (true, true) => ReadFailure::ConnectTimeout,
        (true, false) if is_refused(error) => ReadFailure::Refused,
        (false, true) => ReadFailure::Timeout,
        _ => ReadFailure::Unreachable,
    }
}

fn is_refused(error: &reqwest::Error) -> bool {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::ConnectionRefused)
}
