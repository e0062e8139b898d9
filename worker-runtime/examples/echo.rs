//! A Rust Worker on the runtime's library, as small as can be: one Activity, which gives back its argument, on the Task Queue
//! that `TASK_QUEUE` names.
#![expect(dead_code, reason = "the macro also makes what a Workflow would call the activity by")]

use anyhow::Context as _;
use temporalio_macros::activities;
use temporalio_sdk::WorkerOptions;
use temporalio_sdk::activities::{ActivityContext, ActivityError};

struct Echo;

#[activities]
impl Echo {
    /// Gives back its argument.
    #[activity(name = "Echo")]
    async fn echo(_: ActivityContext, text: String) -> Result<String, ActivityError> {
        Ok(text)
    }
}

// One thread: activities that wait for nothing gain nothing by more.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<worker_runtime::Ended> {
    worker_runtime::init_logs();
    let task_queue = std::env::var("TASK_QUEUE").context("TASK_QUEUE is not set; name the Task Queue to poll")?;
    let echo = WorkerOptions::new(task_queue).register_activities(Echo).build();
    worker_runtime::Worker::builder().task_queue(echo).build()?.run().await
}
