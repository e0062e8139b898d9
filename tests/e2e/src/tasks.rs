//! Work for fleets: Workflows that start activities, and what their histories say.
//!
//! The Workflow itself runs in the test process, so that a fleet under test is the only thing that a task can be lost by.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use temporalio_protos::temporal::api::command::v1::command::Attributes as CommandAttributes;
use temporalio_protos::temporal::api::command::v1::{
    Command, CompleteWorkflowExecutionCommandAttributes, ScheduleActivityTaskCommandAttributes,
};
use temporalio_protos::temporal::api::common::v1::{
    ActivityType, Payload, Payloads, RetryPolicy, WorkflowExecution, WorkflowType,
};
use temporalio_protos::temporal::api::enums::v1::{CommandType, PendingActivityState, WorkflowExecutionStatus};
use temporalio_protos::temporal::api::history::v1::HistoryEvent;
use temporalio_protos::temporal::api::history::v1::history_event::Attributes as Event;
use temporalio_protos::temporal::api::taskqueue::v1::TaskQueue;
use temporalio_protos::temporal::api::workflow::v1::PendingActivityInfo;
use temporalio_protos::temporal::api::workflowservice::v1 as wire;
use temporalio_protos::temporal::api::workflowservice::v1::workflow_service_client::WorkflowServiceClient;
use tokio::task::AbortHandle;
use tonic::transport::{Channel, Endpoint};

use crate::codec;
use crate::history::{self, Activity};
use crate::wait::within;

const CALL_LIMIT: Duration = Duration::from_secs(10);
const POLL_LIMIT: Duration = Duration::from_secs(70);

/// Activities of one kind to start together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// Activity type.
    pub activity_type: String,
    /// Task Queue of the activities.
    pub task_queue: String,
    /// The argument of each activity.
    pub inputs: Vec<Value>,
    /// Time limit of one attempt, in seconds.
    pub start_to_close_s: u64,
    /// Most attempts; 0 for no limit.
    pub attempts: i32,
    /// Whether the arguments are payloads, as [`codec::to_json`] has them, and stored as they are.
    pub sealed: bool,
}

impl Order {
    /// Activities `Work` that run `seconds` each.
    #[must_use]
    pub fn work(task_queue: &str, count: usize, seconds: f64) -> Self {
        Self {
            activity_type: "Work".into(),
            task_queue: task_queue.into(),
            inputs: vec![seconds.into(); count],
            start_to_close_s: 300,
            attempts: 0,
            sealed: false,
        }
    }
}

/// Activities that have not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Not taken by a Worker, or to be tried again.
    pub waiting: usize,
    /// Taken by a Worker.
    pub running: usize,
    /// Of all of them, those that were taken before, and not completed.
    pub again: usize,
}

/// Starts work on a server, and runs the Workflow that the work belongs to until it is dropped.
pub struct Tasks {
    client: WorkflowServiceClient<Channel>,
    namespace: String,
    driver_queue: String,
    driver: AbortHandle,
}

/// Work that was started.
#[derive(Clone, Debug)]
pub struct Burst {
    /// Workflow ID.
    pub workflow_id: String,
    /// How many activities.
    pub count: usize,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Tasks {
    /// Work on the server at `host:port`.
    ///
    /// # Errors
    /// The address is none.
    pub fn on(host_port: &str, namespace: &str) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{host_port}"))?.connect_timeout(CALL_LIMIT);
        let client = WorkflowServiceClient::new(endpoint.connect_lazy());
        let driver_queue = format!("driver-{:08x}", rand::random::<u32>());
        let driver = Driver { client: client.clone(), namespace: namespace.into(), queue: driver_queue.clone() };
        let driver = tokio::spawn(driver.run()).abort_handle();
        Ok(Self { client, namespace: namespace.into(), driver_queue, driver })
    }

    /// Starts activities.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn start(&self, order: &Order) -> Result<Burst> {
        let workflow_id = format!("burst-{}-{:08x}", order.task_queue, rand::random::<u32>());
        let request = wire::StartWorkflowExecutionRequest {
            namespace: self.namespace.clone(),
            workflow_id: workflow_id.clone(),
            request_id: workflow_id.clone(),
            workflow_type: Some(WorkflowType { name: "Burst".into() }),
            task_queue: Some(queue(&self.driver_queue)),
            input: Some(Payloads { payloads: vec![payload(&serde_json::to_value(order)?)] }),
            ..Default::default()
        };
        self.client.clone().start_workflow_execution(timed(request, CALL_LIMIT)).await.context("start a Workflow")?;
        Ok(Burst { workflow_id, count: order.inputs.len() })
    }

    /// How many activities wait, and how many run, by the server.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn pending(&self, burst: &Burst) -> Result<Pending> {
        let (_, activities) = self.describe(burst).await?;
        let running = activities.iter().filter(|one| one.state() == PendingActivityState::Started).count();
        let again = activities.iter().filter(|one| one.attempt > 1).count();
        Ok(Pending { waiting: activities.len() - running, running, again })
    }

    /// Waits until all activities have ended, and says how, by their IDs.
    ///
    /// # Errors
    /// They have not in time.
    pub async fn finish(&self, burst: &Burst, limit: Duration) -> Result<BTreeMap<String, Activity>> {
        within(limit, &format!("{} is complete", burst.workflow_id), async || {
            let (status, pending) = self.describe(burst).await?;
            let left: Vec<_> = pending.iter().map(told).collect();
            ensure!(status == WorkflowExecutionStatus::Completed, "{status:?} with activities to go: {left:?}");
            Ok(())
        })
        .await?;
        self.activities(burst).await
    }

    /// Waits until all activities have completed, each by its first attempt.
    ///
    /// # Errors
    /// They have not in time, or one was lost or run twice.
    pub async fn finish_once_each(&self, burst: &Burst, limit: Duration) -> Result<()> {
        let activities = self.finish(burst, limit).await?;
        ensure!(activities.len() == burst.count, "{} of {} activities", activities.len(), burst.count);
        for (id, activity) in activities {
            ensure!(activity.attempt == 1 && activity.result.is_some(), "activity {id}: {activity:?}");
        }
        Ok(())
    }

    async fn describe(&self, burst: &Burst) -> Result<(WorkflowExecutionStatus, Vec<PendingActivityInfo>)> {
        let request = wire::DescribeWorkflowExecutionRequest {
            namespace: self.namespace.clone(),
            execution: Some(execution(&burst.workflow_id)),
        };
        let answer = self.client.clone().describe_workflow_execution(timed(request, CALL_LIMIT)).await?.into_inner();
        let status = answer.workflow_execution_info.context("no info of the Workflow")?.status();
        Ok((status, answer.pending_activities))
    }

    /// What the history says of each activity, by its ID.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn activities(&self, burst: &Burst) -> Result<BTreeMap<String, Activity>> {
        history::activities(history_of(&self.client, &self.namespace, &burst.workflow_id).await?)
    }
}

/// What the server says of an activity that has not ended.
fn told(pending: &PendingActivityInfo) -> String {
    let PendingActivityInfo { activity_id, attempt, last_worker_identity, .. } = pending;
    let failure = pending.last_failure.as_ref().map(|failure| failure.message.as_str()).unwrap_or_default();
    format!("{activity_id}: {:?}, attempt {attempt}, {last_worker_identity} {failure}", pending.state())
}

/// The Worker of the Workflows: schedules what the input orders, and completes when all of it has ended.
struct Driver {
    client: WorkflowServiceClient<Channel>,
    namespace: String,
    queue: String,
}

impl Driver {
    async fn run(self) {
        loop {
            if let Err(error) = self.turn().await {
                eprintln!("driver of {}: {error:#}", self.queue);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }

    async fn turn(&self) -> Result<()> {
        let request = wire::PollWorkflowTaskQueueRequest {
            namespace: self.namespace.clone(),
            identity: "driver".into(),
            task_queue: Some(queue(&self.queue)),
            ..Default::default()
        };
        let task = self.client.clone().poll_workflow_task_queue(timed(request, POLL_LIMIT)).await?.into_inner();
        if task.task_token.is_empty() {
            return Ok(());
        }
        let workflow_id = task.workflow_execution.context("a task of no Workflow")?.workflow_id;
        let events = history_of(&self.client, &self.namespace, &workflow_id).await?;
        let request = wire::RespondWorkflowTaskCompletedRequest {
            namespace: self.namespace.clone(),
            identity: "driver".into(),
            task_token: task.task_token,
            commands: commands(&events)?,
            ..Default::default()
        };
        self.client.clone().respond_workflow_task_completed(timed(request, CALL_LIMIT)).await?;
        Ok(())
    }
}

fn commands(events: &[HistoryEvent]) -> Result<Vec<Command>> {
    let (mut scheduled, mut ended) = (0, 0);
    for event in events {
        match &event.attributes {
            Some(Event::ActivityTaskScheduledEventAttributes(_)) => scheduled += 1,
            Some(
                Event::ActivityTaskCompletedEventAttributes(_)
                | Event::ActivityTaskFailedEventAttributes(_)
                | Event::ActivityTaskTimedOutEventAttributes(_),
            ) => ended += 1,
            _ => {}
        }
    }
    if scheduled == 0 {
        return schedule(events);
    }
    let complete =
        CommandAttributes::CompleteWorkflowExecutionCommandAttributes(CompleteWorkflowExecutionCommandAttributes {
            result: None,
        });
    let done = command(CommandType::CompleteWorkflowExecution, complete);
    Ok(if ended == scheduled { vec![done] } else { Vec::new() })
}

fn schedule(events: &[HistoryEvent]) -> Result<Vec<Command>> {
    let first = events.first().and_then(|event| event.attributes.as_ref());
    let Some(Event::WorkflowExecutionStartedEventAttributes(started)) = first else { bail!("no start in the history") };
    let input = started.input.as_ref().and_then(|input| input.payloads.first()).context("no input")?;
    let order: Order = serde_json::from_slice(&input.data)?;
    let one = |(number, input): (usize, &Value)| {
        let argument = if order.sealed { codec::from_json(input)? } else { payload(input) };
        let attributes = ScheduleActivityTaskCommandAttributes {
            activity_id: format!("{number:03}"),
            activity_type: Some(ActivityType { name: order.activity_type.clone() }),
            task_queue: Some(queue(&order.task_queue)),
            input: Some(Payloads { payloads: vec![argument] }),
            start_to_close_timeout: Some(Duration::from_secs(order.start_to_close_s).try_into()?),
            retry_policy: Some(RetryPolicy {
                initial_interval: Some(Duration::from_secs(1).try_into()?),
                backoff_coefficient: 1.0,
                maximum_attempts: order.attempts,
                ..Default::default()
            }),
            ..Default::default()
        };
        let attributes = CommandAttributes::ScheduleActivityTaskCommandAttributes(attributes);
        Ok(command(CommandType::ScheduleActivityTask, attributes))
    };
    order.inputs.iter().enumerate().map(one).collect()
}

fn command(kind: CommandType, attributes: CommandAttributes) -> Command {
    Command { command_type: kind.into(), attributes: Some(attributes), ..Default::default() }
}

/// All events of a Workflow's last run.
pub(crate) async fn history_of(
    client: &WorkflowServiceClient<Channel>,
    namespace: &str,
    workflow_id: &str,
) -> Result<Vec<HistoryEvent>> {
    let mut request = wire::GetWorkflowExecutionHistoryRequest {
        namespace: namespace.into(),
        execution: Some(execution(workflow_id)),
        ..Default::default()
    };
    let mut events = Vec::new();
    loop {
        let call = client.clone().get_workflow_execution_history(timed(request.clone(), CALL_LIMIT)).await;
        let answer = call.with_context(|| format!("history of {workflow_id}"))?.into_inner();
        events.extend(answer.history.unwrap_or_default().events);
        if answer.next_page_token.is_empty() {
            return Ok(events);
        }
        request.next_page_token = answer.next_page_token;
    }
}

pub(crate) fn execution(workflow_id: &str) -> WorkflowExecution {
    WorkflowExecution { workflow_id: workflow_id.into(), run_id: String::new() }
}

pub(crate) fn queue(name: &str) -> TaskQueue {
    TaskQueue { name: name.into(), ..Default::default() }
}

/// A value as SDKs store it.
#[must_use]
pub fn payload(value: &Value) -> Payload {
    let metadata = [("encoding".to_owned(), b"json/plain".to_vec())].into();
    Payload { metadata, data: value.to_string().into_bytes(), ..Default::default() }
}

pub(crate) fn timed<T>(message: T, limit: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(limit);
    request
}
