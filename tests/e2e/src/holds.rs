//! Workflows of the Worker on the Go SDK that tell by which version they run, before and after a signal.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use temporalio_protos::temporal::api::common::v1::WorkflowType;
use temporalio_protos::temporal::api::workflowservice::v1 as wire;
use temporalio_protos::temporal::api::workflowservice::v1::workflow_service_client::WorkflowServiceClient;
use tonic::transport::{Channel, Endpoint};

use crate::history;
use crate::tasks::{execution, history_of, queue, timed};
use crate::wait::within;

const CALL_LIMIT: Duration = Duration::from_secs(10);

/// How a Workflow stands to versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behavior {
    /// It ends on the version that it began on.
    Pinned,
    /// It goes on with what is current.
    AutoUpgrade,
}

/// A Workflow that waits for its signal.
#[derive(Clone, Debug)]
pub struct Hold {
    /// Workflow ID.
    pub workflow_id: String,
    /// How it stands to versions.
    pub behavior: Behavior,
}

/// Starts such Workflows on a Task Queue.
pub struct Holds {
    client: WorkflowServiceClient<Channel>,
    namespace: String,
    task_queue: String,
}

impl Holds {
    /// On the server at `host:port`.
    ///
    /// # Errors
    /// The address is none.
    pub fn on(host_port: &str, namespace: &str, task_queue: &str) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{host_port}"))?.connect_timeout(CALL_LIMIT);
        let client = WorkflowServiceClient::new(endpoint.connect_lazy());
        Ok(Self { client, namespace: namespace.into(), task_queue: task_queue.into() })
    }

    /// Starts `count` of each kind, and waits until each has begun on a version.
    ///
    /// # Errors
    /// One does not begin.
    pub async fn start(&self, count: usize) -> Result<Vec<Hold>> {
        let mut holds = Vec::new();
        for number in 0..count * 2 {
            let behavior = if number % 2 == 0 { Behavior::Pinned } else { Behavior::AutoUpgrade };
            holds.push(self.start_one(behavior).await?);
        }
        for hold in &holds {
            self.versions_once(hold, 1).await?;
        }
        Ok(holds)
    }

    async fn start_one(&self, behavior: Behavior) -> Result<Hold> {
        let workflow_id = format!("hold-{:08x}", rand::random::<u32>());
        let request = wire::StartWorkflowExecutionRequest {
            namespace: self.namespace.clone(),
            workflow_id: workflow_id.clone(),
            request_id: workflow_id.clone(),
            workflow_type: Some(WorkflowType { name: format!("Hold{behavior:?}") }),
            task_queue: Some(queue(&self.task_queue)),
            ..Default::default()
        };
        self.client.clone().start_workflow_execution(timed(request, CALL_LIMIT)).await.context("start a Workflow")?;
        Ok(Hold { workflow_id, behavior })
    }

    /// Sends the signal.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn release(&self, hold: &Hold) -> Result<()> {
        let request = wire::SignalWorkflowExecutionRequest {
            namespace: self.namespace.clone(),
            workflow_execution: Some(execution(&hold.workflow_id)),
            signal_name: "go".into(),
            request_id: hold.workflow_id.clone(),
            ..Default::default()
        };
        self.client.clone().signal_workflow_execution(timed(request, CALL_LIMIT)).await.context("signal a Workflow")?;
        Ok(())
    }

    /// The versions that it ran by before the signal, and after it.
    ///
    /// # Errors
    /// It does not end.
    pub async fn ended(&self, hold: &Hold) -> Result<(String, String)> {
        let versions = self.versions_once(hold, 2).await?;
        Ok((versions[0].clone(), versions[1].clone()))
    }

    /// The versions that it began on.
    ///
    /// # Errors
    /// It has not.
    pub async fn began(&self, hold: &Hold) -> Result<String> {
        Ok(self.versions_once(hold, 1).await?.swap_remove(0))
    }

    /// Attempts that each of its activities took.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn attempts(&self, hold: &Hold) -> Result<Vec<i32>> {
        let events = history_of(&self.client, &self.namespace, &hold.workflow_id).await?;
        Ok(history::activities(events)?.into_values().map(|activity| activity.attempt).collect())
    }

    /// The versions so far, once there are so many.
    async fn versions_once(&self, hold: &Hold, count: usize) -> Result<Vec<String>> {
        within(Duration::from_secs(60), &format!("{hold:?} has told {count} versions"), async || {
            let events = history_of(&self.client, &self.namespace, &hold.workflow_id).await?;
            let mut told: Vec<(u64, String)> = Vec::new();
            for (id, activity) in history::activities(events)? {
                if let Some(version) = activity.result.as_ref().and_then(|version| version.as_str()) {
                    told.push((id.parse()?, version.to_owned()));
                }
            }
            told.sort();
            ensure!(told.len() >= count, "{told:?}");
            anyhow::Ok(told.into_iter().map(|(_, version)| version).collect())
        })
        .await
    }
}
