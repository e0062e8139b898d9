//! The fleets' Deployments as a watch shows them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Replicas and since when they are so, by the name of the Deployment.
type Known = HashMap<String, (i32, Instant)>;

/// A watch of all of them. It ends with this value.
pub struct Children {
    known: watch::Receiver<Known>,
    task: JoinHandle<()>,
}

impl Drop for Children {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Children {
    /// Begins to watch.
    pub fn watch(client: Client) -> Self {
        let (sender, known) = watch::channel(Known::new());
        let events = watcher(Api::<Deployment>::all(client), Config::default()).default_backoff();
        let task = tokio::spawn(events.for_each(move |event| {
            // A watch that breaks is begun anew.
            if let Ok(event) = event {
                sender.send_modify(|known| take(known, event));
            }
            futures::future::ready(())
        }));
        Self { known, task }
    }

    /// Waits until there are so many, each with so many replicas. Gives back how long that took.
    ///
    /// # Errors
    /// There are not within `limit`.
    pub async fn all_have(&self, count: usize, replicas: i32, limit: Duration) -> Result<Duration> {
        let (began, mut known) = (Instant::now(), self.known.clone());
        let all = known.wait_for(|known| known.len() == count && known.values().all(|(is, _)| *is == replicas));
        let waited = tokio::time::timeout(limit, all).await.map(|found| found.map(|_| ()));
        waited.with_context(|| {
            let known = self.known.borrow();
            let right = known.values().filter(|(is, _)| *is == replicas).count();
            format!("{right} of {} Deployments have {replicas} replicas, and there should be {count}", known.len())
        })??;
        Ok(began.elapsed())
    }

    /// Waits until one of them has a replica; when that was seen.
    ///
    /// # Errors
    /// It does not get one within `limit`.
    pub async fn runs(&self, name: &str, limit: Duration) -> Result<Instant> {
        let mut known = self.known.clone();
        let runs = known.wait_for(|known| known.get(name).is_some_and(|(replicas, _)| *replicas > 0));
        let known = tokio::time::timeout(limit, runs).await.with_context(|| format!("{name} is not scaled"))??;
        Ok(known[name].1)
    }
}

fn take(known: &mut Known, event: Event<Deployment>) {
    match event {
        Event::Apply(child) | Event::InitApply(child) => {
            let replicas = child.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
            let entry = known.entry(child.name_any()).or_insert((replicas, Instant::now()));
            if entry.0 != replicas {
                *entry = (replicas, Instant::now());
            }
        }
        Event::Delete(child) => _ = known.remove(&child.name_any()),
        Event::Init | Event::InitDone => {}
    }
}
