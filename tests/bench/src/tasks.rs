//! Tasks of the benchmark of the cold start: activities that give back what they get.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::activities::{Activities, Completed, Kind};
use serde_json::json;

/// Temporal namespace of all tasks.
pub const NAMESPACE: &str = "default";
/// Activity type of all tasks.
pub const ACTIVITY_TYPE: &str = "Echo";
const COMPLETION_LIMIT: Duration = Duration::from_secs(60);

/// Starts tasks and waits for their end.
pub struct Tasks(Activities);

impl Tasks {
    /// Connects to a server.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn connect(host_port: &str) -> Result<Self> {
        Ok(Self(Activities::connect(host_port, NAMESPACE).await?))
    }

    /// Starts a task; returns its activity ID once the server has accepted it.
    ///
    /// # Errors
    /// The server refuses or does not answer.
    pub async fn start(&self, task_queue: &str) -> Result<String> {
        let kind = Kind {
            activity_type: ACTIVITY_TYPE.to_owned(),
            task_queue: task_queue.to_owned(),
            start_to_close: Duration::from_secs(30),
        };
        self.0.start(&kind, &json!(1)).await
    }

    /// Waits until a task is completed, on its first attempt.
    ///
    /// # Errors
    /// It is not completed within a minute, or ended otherwise.
    pub async fn completed(&self, activity_id: &str) -> Result<Completed> {
        let completed = self.0.completed(activity_id, COMPLETION_LIMIT).await?;
        ensure!(completed.attempt == 1, "activity {activity_id} was completed at attempt {}", completed.attempt);
        Ok(completed)
    }
}
