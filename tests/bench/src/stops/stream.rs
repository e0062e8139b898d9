//! Activities that come at a steady rate.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::activities::{Activities, Completed, Kind};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

use crate::runtime::load::NAMESPACE;

/// One comes each.
const EVERY: Duration = Duration::from_millis(25);
/// What each takes, in milliseconds.
const TAKES: u32 = 50;
/// A lost one is tried again after this time.
const START_TO_CLOSE: Duration = Duration::from_secs(10);
/// One that is lost more than once is an error.
const LIMIT: Duration = Duration::from_secs(120);

/// Activities that come until it ends.
pub struct Stream {
    workers: Arc<Mutex<BTreeSet<String>>>,
    over: watch::Sender<bool>,
    coming: JoinHandle<Result<Vec<Completed>>>,
}

impl Stream {
    /// Begins.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn start(host_port: &str, task_queue: &str) -> Result<Self> {
        let activities = Activities::connect(host_port, NAMESPACE).await?;
        let kind = Kind {
            activity_type: "Work".to_owned(),
            task_queue: task_queue.to_owned(),
            start_to_close: START_TO_CLOSE,
        };
        let workers = Arc::<Mutex<BTreeSet<String>>>::default();
        let (over, until) = watch::channel(false);
        let coming = tokio::spawn(come(activities, kind, workers.clone(), until));
        Ok(Self { workers, over, coming })
    }

    /// How many Workers have completed a task.
    pub fn workers(&self) -> usize {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Waits for those that came. Gives how many of them had to be tried again, and how many came.
    ///
    /// # Errors
    /// One was not completed.
    #[expect(clippy::cast_precision_loss, reason = "some thousand tasks")]
    pub async fn end(self) -> Result<(f64, f64)> {
        self.over.send(true).context("the activities ended by themselves")?;
        let completed = self.coming.await??;
        ensure!(!completed.is_empty(), "no task came");
        let lost = completed.iter().filter(|task| task.attempt > 1).count();
        Ok((lost as f64, completed.len() as f64))
    }
}

async fn come(
    activities: Activities,
    kind: Kind,
    workers: Arc<Mutex<BTreeSet<String>>>,
    mut over: watch::Receiver<bool>,
) -> Result<Vec<Completed>> {
    let mut tasks = JoinSet::new();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = over.changed() => break,
        }
        let (activities, kind, workers) = (activities.clone(), kind.clone(), workers.clone());
        tasks.spawn(async move {
            let id = activities.start(&kind, &json!(TAKES)).await?;
            let completed = activities.completed(&id, LIMIT).await?;
            workers.lock().unwrap_or_else(PoisonError::into_inner).insert(completed.worker.clone());
            Ok(completed)
        });
    }
    tasks.join_all().await.into_iter().collect()
}
