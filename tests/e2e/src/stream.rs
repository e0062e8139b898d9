//! Work that comes while something else happens.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use parking_lot::Mutex;

use crate::history::Activity;
use crate::tasks::{Burst, Order, Tasks};

/// Time between two bursts.
const EVERY: Duration = Duration::from_secs(1);
/// Time within which a burst ends.
const LIMIT: Duration = Duration::from_secs(60);

/// Bursts that follow each other, a second apart.
pub struct Stream<'a> {
    tasks: &'a Tasks,
    bursts: Mutex<Vec<Burst>>,
}

impl<'a> Stream<'a> {
    /// No burst yet.
    #[must_use]
    pub fn of(tasks: &'a Tasks) -> Self {
        Self { tasks, bursts: Mutex::default() }
    }

    /// Starts bursts for as long as `work` goes on.
    ///
    /// # Errors
    /// That of `work`, or the server refuses a burst.
    pub async fn during<T>(&self, order: impl Fn() -> Order, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            refused = self.feed(order) => refused,
            done = work => done,
        }
    }

    async fn feed<T>(&self, order: impl Fn() -> Order) -> Result<T> {
        loop {
            let burst = self.tasks.start(&order()).await?;
            self.bursts.lock().push(burst);
            tokio::time::sleep(EVERY).await;
        }
    }

    /// What came of the tasks of the next burst, once all of them have ended.
    ///
    /// # Errors
    /// They don't in time.
    pub async fn next(&self) -> Result<BTreeMap<String, Activity>> {
        let started = self.bursts.lock().len();
        let next = crate::eventually("another burst", async || {
            self.bursts.lock().get(started).cloned().context("none was started")
        })
        .await?;
        self.tasks.finish(&next, LIMIT).await
    }

    /// Waits until every task of all bursts has completed, each by its first attempt, and says what came of them.
    ///
    /// # Errors
    /// One has not, or there was none.
    pub async fn ends_once_each(&self) -> Result<Vec<Activity>> {
        let bursts = self.bursts.lock().clone();
        let mut all = Vec::new();
        for burst in bursts {
            self.tasks.finish_once_each(&burst, LIMIT).await?;
            all.extend(self.tasks.activities(&burst).await?.into_values());
        }
        ensure!(!all.is_empty(), "no task was started");
        Ok(all)
    }
}
