//! A Task Queue of activities as the server has it: what waits, and how fast it gives tasks out.

use std::time::Duration;

use anyhow::{Context as _, Result};
use temporalio_protos::temporal::api::enums::v1::TaskQueueType;
use temporalio_protos::temporal::api::taskqueue::v1::{RateLimit, TaskQueue};
use temporalio_protos::temporal::api::workflowservice::v1 as wire;
use temporalio_protos::temporal::api::workflowservice::v1::update_task_queue_config_request::RateLimitUpdate;
use temporalio_protos::temporal::api::workflowservice::v1::workflow_service_client::WorkflowServiceClient;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use crate::ground::TEMPORAL_NAMESPACE;

const CALL_LIMIT: Duration = Duration::from_secs(10);

/// A Task Queue of activities.
pub struct Queue {
    client: WorkflowServiceClient<Channel>,
    name: String,
}

impl Queue {
    /// The Task Queue `name` of the server at `host:port`.
    ///
    /// # Errors
    /// The address is none.
    pub fn on(host_port: &str, name: &str) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{host_port}"))?.connect_timeout(CALL_LIMIT);
        Ok(Self { client: WorkflowServiceClient::new(endpoint.connect_lazy()), name: name.to_owned() })
    }

    /// Tasks that wait. The server gives the same answer for up to five seconds.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn backlog(&self) -> Result<i64> {
        let mut request = Request::new(wire::DescribeTaskQueueRequest {
            namespace: TEMPORAL_NAMESPACE.to_owned(),
            task_queue: Some(TaskQueue { name: self.name.clone(), ..TaskQueue::default() }),
            task_queue_type: TaskQueueType::Activity.into(),
            report_stats: true,
            ..wire::DescribeTaskQueueRequest::default()
        });
        request.set_timeout(CALL_LIMIT);
        let answer = self.client.clone().describe_task_queue(request).await;
        let answer = answer.with_context(|| format!("describe the Task Queue {}", self.name))?;
        let stats = answer.into_inner().stats.with_context(|| format!("no statistics of {}", self.name))?;
        Ok(stats.approximate_backlog_count)
    }

    /// Limits how many tasks a second it gives out.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn limit_rate(&self, per_second: f32) -> Result<()> {
        let limit = RateLimitUpdate {
            rate_limit: Some(RateLimit { requests_per_second: per_second }),
            reason: "a proof".to_owned(),
        };
        let mut request = Request::new(wire::UpdateTaskQueueConfigRequest {
            namespace: TEMPORAL_NAMESPACE.to_owned(),
            identity: "e2e".to_owned(),
            task_queue: self.name.clone(),
            task_queue_type: TaskQueueType::Activity.into(),
            update_queue_rate_limit: Some(limit),
            ..wire::UpdateTaskQueueConfigRequest::default()
        });
        request.set_timeout(CALL_LIMIT);
        let answer = self.client.clone().update_task_queue_config(request).await;
        answer.with_context(|| format!("limit the rate of the Task Queue {}", self.name))?;
        Ok(())
    }
}
