//! Starts Workflows on a Temporal server, and follows their histories as they grow.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use temporalio_protos::temporal::api::common::v1::{Payload, Payloads, WorkflowExecution, WorkflowType};
use temporalio_protos::temporal::api::history::v1::HistoryEvent;
use temporalio_protos::temporal::api::taskqueue::v1::TaskQueue;
use temporalio_protos::temporal::api::workflowservice::v1 as wire;
use temporalio_protos::temporal::api::workflowservice::v1::workflow_service_client::WorkflowServiceClient;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

const CALL_LIMIT: Duration = Duration::from_secs(10);
/// The server ends a long poll without news after 20 s.
const LONG_POLL_LIMIT: Duration = Duration::from_secs(60);
/// Histories with thousands of events exceed tonic's 4 MiB.
const MESSAGE_LIMIT: usize = 64 << 20;

/// A client of one Temporal namespace.
#[derive(Clone)]
pub struct Workflows {
    client: WorkflowServiceClient<Channel>,
    namespace: String,
}

/// A Workflow to start.
#[derive(Clone, Copy, Debug)]
pub struct NewWorkflow<'a> {
    /// Its Workflow ID.
    pub id: &'a str,
    /// Its Workflow Type.
    pub workflow_type: &'a str,
    /// Task Queue of its Workflow Tasks.
    pub task_queue: &'a str,
    /// Its only argument.
    pub input: &'a Value,
}

impl Workflows {
    /// Connects to the server at `host:port`, in plaintext.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn connect(host_port: &str, namespace: &str) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{host_port}"))?.connect_timeout(CALL_LIMIT);
        let channel = endpoint.connect().await.with_context(|| format!("connect to Temporal at {host_port}"))?;
        let client = WorkflowServiceClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT);
        Ok(Self { client, namespace: namespace.to_owned() })
    }

    /// Starts a Workflow; returns its run ID.
    ///
    /// # Errors
    /// The server refuses, or does not answer.
    pub async fn start(&self, workflow: &NewWorkflow<'_>) -> Result<String> {
        let request = wire::StartWorkflowExecutionRequest {
            namespace: self.namespace.clone(),
            workflow_id: workflow.id.to_owned(),
            workflow_type: Some(WorkflowType { name: workflow.workflow_type.to_owned() }),
            task_queue: Some(TaskQueue { name: workflow.task_queue.to_owned(), ..TaskQueue::default() }),
            input: Some(Payloads { payloads: vec![json_payload(workflow.input)?] }),
            request_id: format!("{:032x}", rand::random::<u128>()),
            identity: "dev-cluster".to_owned(),
            ..wire::StartWorkflowExecutionRequest::default()
        };
        let answer = self.client.clone().start_workflow_execution(within(CALL_LIMIT, request)).await;
        let answer = answer.with_context(|| format!("start the Workflow {}", workflow.id))?;
        Ok(answer.into_inner().run_id)
    }

    /// Shows each event of a Workflow's history to `seen` as it comes, and returns when the Workflow has closed.
    ///
    /// # Errors
    /// The server refuses, or does not answer.
    pub async fn follow(&self, workflow_id: &str, mut seen: impl FnMut(&HistoryEvent)) -> Result<()> {
        let execution = WorkflowExecution { workflow_id: workflow_id.to_owned(), run_id: String::new() };
        let mut request = wire::GetWorkflowExecutionHistoryRequest {
            namespace: self.namespace.clone(),
            execution: Some(execution),
            wait_new_event: true,
            ..wire::GetWorkflowExecutionHistoryRequest::default()
        };
        loop {
            let poll = within(LONG_POLL_LIMIT, request.clone());
            let answer = self.client.clone().get_workflow_execution_history(poll).await;
            let answer = answer.with_context(|| format!("read the history of {workflow_id}"))?.into_inner();
            answer.history.iter().flat_map(|history| &history.events).for_each(&mut seen);
            if answer.next_page_token.is_empty() {
                return Ok(());
            }
            request.next_page_token = answer.next_page_token;
        }
    }
}

fn within<T>(limit: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

fn json_payload(value: &Value) -> Result<Payload> {
    let metadata = [("encoding".to_owned(), b"json/plain".to_vec())].into();
    Ok(Payload { metadata, data: serde_json::to_vec(value)?, ..Payload::default() })
}
