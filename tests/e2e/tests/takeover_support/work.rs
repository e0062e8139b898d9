//! Work of a fleet that is under way while something else happens.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::eventually;
use e2e::ground::TEMPORAL_NAMESPACE;
use e2e::holds::{Hold, Holds};
use e2e::tasks::{Burst, Order, Tasks};
use serde_json::json;

/// Milliseconds that the long activity takes.
const LONG: u64 = 20_000;
const LIMIT: Duration = Duration::from_secs(60);

/// Workflows that wait on a fleet's pods, and an activity that runs on one.
pub struct Work {
    holds: Holds,
    held: Vec<Hold>,
    tasks: Tasks,
    burst: Burst,
    queue: String,
}

impl Work {
    /// Waits until all of it is under way on the version `build_id`.
    pub async fn begin(address: &str, queue: &str, build_id: &str) -> Result<Self> {
        let holds = Holds::on(address, TEMPORAL_NAMESPACE, queue)?;
        let held = holds.start(1).await?;
        for hold in &held {
            let version = holds.began(hold).await?;
            ensure!(version == build_id, "{hold:?} began on {version}");
        }
        let tasks = Tasks::on(address, TEMPORAL_NAMESPACE)?;
        let burst = tasks.start(&Order { inputs: vec![json!(LONG)], ..Order::work(queue, 0, 0.0) }).await?;
        eventually("the activity runs", async || {
            let pending = tasks.pending(&burst).await?;
            ensure!(pending.running == 1, "{pending:?}");
            Ok(())
        })
        .await?;
        Ok(Self { holds, held, tasks, burst, queue: queue.to_owned() })
    }

    /// All of it goes on to its end, where it began and by its first attempt.
    pub async fn ends(&self, build_id: &str) -> Result<()> {
        for hold in &self.held {
            self.holds.release(hold).await?;
        }
        for hold in &self.held {
            let versions = self.holds.ended(hold).await?;
            ensure!(versions == (build_id.to_owned(), build_id.to_owned()), "{hold:?} ran on {versions:?}");
            let attempts = self.holds.attempts(hold).await?;
            ensure!(attempts == [1, 1], "{hold:?} took attempts: {attempts:?}");
        }
        self.tasks.finish_once_each(&self.burst, LIMIT).await
    }

    /// More of it comes, and is done.
    pub async fn goes_on(&self) -> Result<()> {
        let burst = self.tasks.start(&Order { inputs: vec![json!(10); 4], ..Order::work(&self.queue, 0, 0.0) }).await?;
        self.tasks.finish_once_each(&burst, LIMIT).await
    }
}
