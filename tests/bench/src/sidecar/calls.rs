//! Calls to the server and through a sidecar.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::process::Cpu;
use futures::future::try_join_all;
use serde::Serialize;
use temporalio_protos::temporal::api::common::v1::{Payload, Payloads, WorkflowType};
use temporalio_protos::temporal::api::taskqueue::v1::TaskQueue;
use temporalio_protos::temporal::api::workflowservice::v1 as wire;
use temporalio_protos::temporal::api::workflowservice::v1::workflow_service_client::WorkflowServiceClient;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use super::scene::Sidecar;
use crate::runtime::load::{NAMESPACE, argument};

/// Calls that are timed, in turns of the two ways.
const CALLS: usize = 4_000;
const WARM_UP: usize = 500;
/// Calls that are under way at a time where there are many.
const MANY: usize = 64;
/// Calls whose payloads are encrypted, and payloads of each.
const SEALED: u32 = 200;
const PAYLOADS: u32 = 100;
const KIB: usize = 1024;

/// Times of calls, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Times {
    /// Half of all took at most this long.
    pub p50: f64,
    /// 99 % of all took at most this long.
    pub p99: f64,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Result<Self> {
        times.sort_unstable();
        let rank = |percent: usize| times.get((times.len() * percent).div_ceil(100).saturating_sub(1));
        let ms = |percent| rank(percent).map(|time| time.as_secs_f64() * 1000.0).context("nothing was measured");
        Ok(Self { p50: ms(50)?, p99: ms(99)? })
    }
}

async fn client(address: &str) -> Result<WorkflowServiceClient<Channel>> {
    Ok(WorkflowServiceClient::new(Endpoint::from_shared(format!("http://{address}"))?.connect().await?))
}

/// Times of calls that the sidecar looks into and the server answers from memory: the ends of tasks that nobody runs.
///
/// # Errors
/// A call has another answer.
pub async fn compare(direct: &str, through: &str) -> Result<(Times, Times)> {
    let clients = [client(direct).await?, client(through).await?];
    let mut times = [Vec::new(), Vec::new()];
    for number in 0..WARM_UP + CALLS {
        for (client, times) in clients.iter().zip(&mut times) {
            let took = call(client).await?;
            if number >= WARM_UP {
                times.push(took);
            }
        }
    }
    let [direct, through] = times;
    Ok((Times::of(direct)?, Times::of(through)?))
}

async fn call(client: &WorkflowServiceClient<Channel>) -> Result<Duration> {
    let request = wire::RespondActivityTaskCompletedRequest {
        namespace: NAMESPACE.into(),
        // A token that is none.
        task_token: b"none".to_vec(),
        result: Some(Payloads { payloads: vec![argument(100)] }),
        ..Default::default()
    };
    let begun = Instant::now();
    let answer = client.clone().respond_activity_task_completed(request).await;
    let took = begun.elapsed();
    ensure!(answer.as_ref().is_err_and(|status| status.code() == Code::InvalidArgument), "{answer:?}");
    Ok(took)
}

/// CPU time of a sidecar for a call, in microseconds: when each call is alone, and when there are many at a time. The work is the same;
/// the difference is what it costs to be woken up for each message.
///
/// # Errors
/// A call has another answer.
pub async fn cost(sidecar: &Sidecar) -> Result<[f64; 2]> {
    let client = client(&sidecar.address).await?;
    let mut used = [0.0; 2];
    for (used, at_a_time) in used.iter_mut().zip([1, MANY]) {
        let before = Cpu::of(sidecar.pid())?;
        for _ in 0..CALLS / at_a_time {
            try_join_all((0..at_a_time).map(|_| call(&client))).await?;
        }
        #[expect(clippy::cast_precision_loss, reason = "a few thousand calls")]
        let calls = (CALLS / at_a_time * at_a_time) as f64;
        *used = Cpu::of(sidecar.pid())?.since(before).own.as_secs_f64() * 1e6 / calls;
    }
    Ok(used)
}

/// CPU time of the encryption of a payload of 1 KiB, in microseconds: what a sidecar that encrypts uses beyond one that does not.
///
/// # Errors
/// A call has another answer.
pub async fn encryption(plain: &Sidecar, encrypting: &Sidecar) -> Result<f64> {
    let mut used = [0.0; 2];
    for (sidecar, used) in [plain, encrypting].into_iter().zip(&mut used) {
        let client = client(&sidecar.address).await?;
        start(&client).await?;
        let before = Cpu::of(sidecar.pid())?;
        for _ in 0..SEALED {
            start(&client).await?;
        }
        *used = Cpu::of(sidecar.pid())?.since(before).own.as_secs_f64() * 1e6 / f64::from(SEALED * PAYLOADS);
    }
    Ok(used[1] - used[0])
}

/// Asks for a Workflow in a Temporal namespace that is not there: the request goes all the way, and nothing is stored.
async fn start(client: &WorkflowServiceClient<Channel>) -> Result<()> {
    let payloads: Vec<Payload> = (0..PAYLOADS).map(|_| argument(KIB)).collect();
    let request = wire::StartWorkflowExecutionRequest {
        namespace: "nowhere".into(),
        workflow_id: "none".into(),
        request_id: "none".into(),
        workflow_type: Some(WorkflowType { name: "None".into() }),
        task_queue: Some(TaskQueue { name: "none".into(), ..Default::default() }),
        input: Some(Payloads { payloads }),
        ..Default::default()
    };
    let answer = client.clone().start_workflow_execution(request).await;
    ensure!(answer.as_ref().is_err_and(|status| status.code() == Code::NotFound), "{answer:?}");
    Ok(())
}
