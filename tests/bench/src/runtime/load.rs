//! Activities in batches: Workflows that the benchmark plays itself, each of which starts a hundred and waits for them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::wait::eventually;
use futures::future::try_join_all;
use temporalio_protos::temporal::api::command::v1::command::Attributes as CommandAttributes;
use temporalio_protos::temporal::api::command::v1::{Command, ScheduleActivityTaskCommandAttributes};
use temporalio_protos::temporal::api::common::v1::{ActivityType, Payload, Payloads, WorkflowExecution, WorkflowType};
use temporalio_protos::temporal::api::enums::v1::CommandType;
use temporalio_protos::temporal::api::history::v1::history_event::Attributes;
use temporalio_protos::temporal::api::taskqueue::v1::TaskQueue;
use temporalio_protos::temporal::api::workflowservice::v1 as wire;
use temporalio_protos::temporal::api::workflowservice::v1::workflow_service_client::WorkflowServiceClient;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

/// Temporal namespace of all tasks.
pub const NAMESPACE: &str = "default";
/// Activity type of all tasks.
pub const ACTIVITY_TYPE: &str = "Echo";
/// Activities of one Workflow.
const BATCH: usize = 100;
const CALL_LIMIT: Duration = Duration::from_secs(20);
const ACTIVITY_LIMIT: Duration = Duration::from_secs(120);

/// A string of so many bytes of JSON.
#[must_use]
pub fn argument(bytes: usize) -> Payload {
    let metadata = [("encoding".to_owned(), b"json/plain".to_vec())].into();
    let data = format!("\"{}\"", "x".repeat(bytes.saturating_sub(2))).into_bytes();
    Payload { metadata, data, ..Default::default() }
}

/// Has as many activities run on a Task Queue, each with this argument. Gives one of their results.
///
/// # Errors
/// One did not give back its argument, on its first attempt.
pub async fn run(host_port: &str, task_queue: &str, argument: &Payload, tasks: usize) -> Result<Payload> {
    // A connection for each time: the server closes every one after five minutes.
    let channel = Endpoint::from_shared(format!("http://{host_port}"))?.connect().await?;
    let load = Load { client: WorkflowServiceClient::new(channel).max_decoding_message_size(64 << 20) };
    let batches = (0..tasks.div_ceil(BATCH)).map(|number| BATCH.min(tasks - number * BATCH));
    let results = try_join_all(batches.map(|tasks| load.batch(task_queue, argument, tasks))).await?;
    results.into_iter().next().context("there was no task")
}

struct Load {
    client: WorkflowServiceClient<Channel>,
}

impl Load {
    async fn batch(&self, task_queue: &str, argument: &Payload, tasks: usize) -> Result<Payload> {
        // A Task Queue of its own, so that nobody else's Workflow Task comes.
        let id = format!("load-{:016x}", rand::random::<u64>());
        let start = wire::StartWorkflowExecutionRequest {
            namespace: NAMESPACE.into(),
            workflow_id: id.clone(),
            request_id: id.clone(),
            workflow_type: Some(WorkflowType { name: "Load".into() }),
            task_queue: Some(queue(&id)),
            ..Default::default()
        };
        self.client.clone().start_workflow_execution(timed(start)).await.context("start a Workflow")?;
        let poll = wire::PollWorkflowTaskQueueRequest {
            namespace: NAMESPACE.into(),
            task_queue: Some(queue(&id)),
            ..Default::default()
        };
        let task = self.client.clone().poll_workflow_task_queue(timed(poll)).await?.into_inner();
        ensure!(!task.task_token.is_empty(), "the Workflow's first task does not come");
        let respond = wire::RespondWorkflowTaskCompletedRequest {
            namespace: NAMESPACE.into(),
            task_token: task.task_token,
            commands: (0..tasks).map(|number| activity(task_queue, argument, number)).collect::<Result<_>>()?,
            ..Default::default()
        };
        self.client.clone().respond_workflow_task_completed(timed(respond)).await.context("start activities")?;
        // Nobody polls again: the Workflow's next task waits, and holds up no activity.
        let execution = WorkflowExecution { workflow_id: id, run_id: String::new() };
        self.ended(&execution).await?;
        let result = self.check(&execution, argument, tasks).await?;
        let end = wire::TerminateWorkflowExecutionRequest {
            namespace: NAMESPACE.into(),
            workflow_execution: Some(execution),
            ..Default::default()
        };
        self.client.clone().terminate_workflow_execution(timed(end)).await?;
        Ok(result)
    }

    /// Waits until no activity of a Workflow is open.
    async fn ended(&self, execution: &WorkflowExecution) -> Result<()> {
        eventually("the activities of a Workflow end", async || {
            let request = wire::DescribeWorkflowExecutionRequest {
                namespace: NAMESPACE.into(),
                execution: Some(execution.clone()),
            };
            let answer = self.client.clone().describe_workflow_execution(timed(request)).await?.into_inner();
            let open = answer.pending_activities.len();
            ensure!(open == 0, "{open} are open: {:?}", answer.pending_activities.first());
            Ok(())
        })
        .await
    }

    /// Checks that each was completed at once, with a result that is as long as its argument. Gives one of them.
    async fn check(&self, execution: &WorkflowExecution, argument: &Payload, tasks: usize) -> Result<Payload> {
        let request = wire::GetWorkflowExecutionHistoryRequest {
            namespace: NAMESPACE.into(),
            execution: Some(execution.clone()),
            ..Default::default()
        };
        let answer = self.client.clone().get_workflow_execution_history(timed(request)).await?.into_inner();
        let events: Vec<_> = answer.history.into_iter().flat_map(|history| history.events).collect();
        let mut results = Vec::new();
        for attributes in events.into_iter().filter_map(|event| event.attributes) {
            match attributes {
                Attributes::ActivityTaskStartedEventAttributes(started) => {
                    ensure!(started.attempt == 1, "attempt {} of an activity: {started:?}", started.attempt);
                }
                Attributes::ActivityTaskCompletedEventAttributes(ended) => {
                    let result = ended.result.and_then(|result| result.payloads.into_iter().next());
                    let result = result.context("an activity has no result")?;
                    ensure!(result.data.len() >= argument.data.len(), "a result is shorter than the argument");
                    results.push(result);
                }
                _ => {}
            }
        }
        ensure!(results.len() == tasks, "{} of {tasks} activities were completed", results.len());
        results.pop().context("there was no task")
    }
}

fn activity(task_queue: &str, argument: &Payload, number: usize) -> Result<Command> {
    let attributes = ScheduleActivityTaskCommandAttributes {
        activity_id: number.to_string(),
        activity_type: Some(ActivityType { name: ACTIVITY_TYPE.into() }),
        task_queue: Some(queue(task_queue)),
        input: Some(Payloads { payloads: vec![argument.clone()] }),
        start_to_close_timeout: Some(ACTIVITY_LIMIT.try_into()?),
        ..Default::default()
    };
    Ok(Command {
        command_type: CommandType::ScheduleActivityTask.into(),
        attributes: Some(CommandAttributes::ScheduleActivityTaskCommandAttributes(attributes)),
        ..Default::default()
    })
}

fn queue(name: &str) -> TaskQueue {
    TaskQueue { name: name.to_owned(), ..TaskQueue::default() }
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_LIMIT);
    request
}
