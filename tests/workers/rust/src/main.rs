//! A Worker in Rust on the runtime's library, as a team would write it: the library reads what the operator puts into its environment,
//! honours Worker Versioning, encrypts, exports metrics and probes, and finishes what runs on SIGTERM.
//!
//! Its Workflow `GreetEverywhere` uses Workers of other languages by nothing but the names of their Task Queues, Activities and Workflows.

mod names;

use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use temporalio_macros::{activities, workflow, workflow_methods};
use temporalio_sdk::activities::{ActivityContext, ActivityError};
use temporalio_sdk::{
    ActivityOptions, ChildWorkflowOptions, SignalWorkflowOptions, WorkerOptions, WorkflowContext, WorkflowResult,
};
use temporalio_workflow::join_all;

/// Time limit of one greeting. A fleet may have to come up from zero first: waiting for that does not count.
const GREETING: Duration = Duration::from_secs(30);

/// Whom to greet, and by whom.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Request {
    /// The name.
    name: String,
    /// Task Queues whose Workers have the Activity `Greet`.
    greeters: Vec<String>,
    /// Task Queues whose Workers have the Workflow `Listen`.
    listeners: Vec<String>,
}

/// What came of it, each in the order of the Task Queues.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Answer {
    /// What the Activities said.
    greetings: Vec<String>,
    /// What the Workflows heard.
    heard: Vec<String>,
}

/// Has a name greeted by Workers of many Task Queues, and tells Workflows of many others of it, all at the same time.
#[workflow]
#[derive(Default)]
struct GreetEverywhere;

#[workflow_methods]
impl GreetEverywhere {
    #[run]
    async fn run(ctx: &mut WorkflowContext<Self>, request: Request) -> WorkflowResult<Answer> {
        let greetings = join_all(request.greeters.iter().map(|task_queue| {
            let options = ActivityOptions::with_start_to_close_timeout(GREETING).task_queue(task_queue.clone()).build();
            ctx.execute_activity(Greetings::greet, request.name.clone(), options)
        }));
        let heard = join_all(request.listeners.iter().map(|task_queue| {
            let ctx = &*ctx;
            let name = request.name.clone();
            async move {
                let options = ChildWorkflowOptions::builder().task_queue(task_queue.clone()).build();
                let listener = ctx.start_child_workflow(names::Listen, (), options).await?;
                listener.signal(names::Say, name, SignalWorkflowOptions::default()).await?;
                WorkflowResult::Ok(listener.result().await?)
            }
        }));
        let (greetings, heard) = temporalio_workflow::join!(greetings, heard);
        Ok(Answer {
            greetings: greetings.into_iter().collect::<Result<_, _>>()?,
            heard: heard.into_iter().collect::<WorkflowResult<_>>()?,
        })
    }
}

struct Greetings;

#[activities]
impl Greetings {
    /// Tells which language's Worker took the task. Those of all languages have it by this name.
    #[activity(name = "Greet")]
    async fn greet(_: ActivityContext, name: String) -> Result<String, ActivityError> {
        Ok(format!("rust greets {name}"))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<worker_runtime::Ended> {
    worker_runtime::init_logs();
    let task_queue = std::env::var("TASK_QUEUE").context("TASK_QUEUE is not set; name the Task Queue to poll")?;
    let worker = WorkerOptions::new(task_queue).register_workflow::<GreetEverywhere>()?.register_activities(Greetings);
    worker_runtime::Worker::builder().task_queue(worker.build()).build()?.run().await
}
