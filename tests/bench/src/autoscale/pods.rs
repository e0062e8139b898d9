//! The lives of a fleet's pods, as the API server tells them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::TryStreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::watcher::{self, Event};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

/// A pod's life. Times are those of this machine's clock when the API server told: its own have whole seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Life {
    /// It exists.
    pub created: Timestamp,
    /// It was Ready for the first time.
    pub ready: Option<Timestamp>,
    /// It was told to end.
    pub deleted: Option<Timestamp>,
    /// It is no more.
    pub gone: Option<Timestamp>,
}

impl Life {
    /// Time from its creation until it was Ready.
    pub fn start_up(&self) -> Option<Duration> {
        Some(self.ready?.duration_since(self.created).unsigned_abs())
    }

    /// Time from the order to end until it was gone.
    pub fn shutdown(&self) -> Option<Duration> {
        Some(self.gone?.duration_since(self.deleted?).unsigned_abs())
    }
}

type Lives = BTreeMap<String, Life>;

/// Writes down the lives of pods from now on.
pub struct Register {
    lives: Arc<Mutex<Lives>>,
    watch: JoinHandle<Result<()>>,
}

impl Drop for Register {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Register {
    /// Watches the pods that `labels` select.
    pub fn open(api: Api<Pod>, labels: &str) -> Self {
        let lives = Arc::new(Mutex::new(Lives::new()));
        let watch = tokio::spawn(follow(api, watcher::Config::default().labels(labels), lives.clone()));
        Self { lives, watch }
    }

    /// The lives so far.
    ///
    /// # Errors
    /// The watch has ended.
    pub async fn lives(&self) -> Result<Vec<Life>> {
        ensure!(!self.watch.is_finished(), "the watch of the pods has ended");
        Ok(self.lives.lock().await.values().cloned().collect())
    }
}

async fn follow(api: Api<Pod>, config: watcher::Config, lives: Arc<Mutex<Lives>>) -> Result<()> {
    let mut events = std::pin::pin!(watcher::watcher(api, config));
    while let Some(event) = events.try_next().await? {
        see(&mut *lives.lock().await, event, Timestamp::now())?;
    }
    Ok(())
}

/// # Errors
/// The watch was begun anew: then nobody knows when the pods went that are no longer there.
fn see(lives: &mut Lives, event: Event<Pod>, now: Timestamp) -> Result<()> {
    match event {
        Event::Init => ensure!(lives.is_empty(), "the watch of the pods was interrupted"),
        Event::InitDone => {}
        Event::InitApply(pod) | Event::Apply(pod) => {
            let life = lives.entry(uid(&pod)).or_insert(Life { created: now, ready: None, deleted: None, gone: None });
            life.ready = life.ready.or_else(|| is_ready(&pod).then_some(now));
            life.deleted = life.deleted.or_else(|| pod.metadata.deletion_timestamp.as_ref().map(|_| now));
        }
        Event::Delete(pod) => {
            if let Some(life) = lives.get_mut(&uid(&pod)) {
                life.gone = Some(now);
            }
        }
    }
    Ok(())
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True")
}

/// Pod-seconds: the time that pods existed, over all of them. Those that still do count until `end`.
pub fn pod_seconds(lives: &[Life], end: Timestamp) -> f64 {
    lives.iter().map(|life| life.gone.unwrap_or(end).duration_since(life.created).as_secs_f64()).sum()
}

/// The median of a time that pods took.
pub fn median(lives: &[Life], time: fn(&Life) -> Option<Duration>) -> Option<Duration> {
    let mut times: Vec<_> = lives.iter().filter_map(time).collect();
    times.sort_unstable();
    times.get(times.len().div_ceil(2).saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, ready: &str) -> Pod {
        let body = json!({"metadata": {"uid": uid}, "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        serde_json::from_value(body).unwrap()
    }

    fn leaving(uid: &str) -> Pod {
        let metadata = json!({"uid": uid, "deletionTimestamp": "2026-01-01T00:00:00Z"});
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_pod_costs_from_its_creation_until_it_is_gone() {
        let mut lives = Lives::new();
        let story = [
            (0, Event::Init),
            (0, Event::InitDone),
            (10, Event::Apply(pod("a", "False"))),
            (13, Event::Apply(pod("a", "True"))),
            (14, Event::Apply(pod("b", "False"))),
            (15, Event::Apply(pod("b", "True"))),
            (16, Event::Apply(pod("c", "False"))),
            (20, Event::Apply(pod("a", "False"))),
            (18, Event::Apply(leaving("a"))),
            (22, Event::Delete(leaving("a"))),
        ];
        for (second, event) in story {
            see(&mut lives, event, at(second)).unwrap();
        }
        let lives: Vec<_> = lives.into_values().collect();
        assert_eq!(pod_seconds(&lives, at(30)), 12.0 + 16.0 + 14.0);
        assert_eq!(median(&lives, Life::start_up), Some(Duration::from_secs(1)));
        assert_eq!(median(&lives, Life::shutdown), Some(Duration::from_secs(4)));
    }

    #[test]
    fn an_interrupted_watch_is_no_measurement() {
        let mut lives = Lives::new();
        see(&mut lives, Event::Init, at(0)).unwrap();
        see(&mut lives, Event::InitApply(pod("a", "True")), at(1)).unwrap();
        assert!(see(&mut lives, Event::Init, at(2)).is_err());
    }
}
