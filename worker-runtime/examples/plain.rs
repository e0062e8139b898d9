//! A Worker on the Rust SDK alone, without this library: what the operator can know of a team's own Worker. It exports
//! the SDK's metrics when `METRICS_ADDRESS` is set, and tells the server of itself each second.
#![expect(dead_code, reason = "the macro also makes what a Workflow would call the activity by")]

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use temporalio_client::{Client, ClientOptions, Connection, ConnectionOptions};
use temporalio_common::telemetry::{PrometheusExporterOptions, TelemetryOptions, start_prometheus_metric_exporter};
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};
use temporalio_sdk::runtime::worker_tuner::{FixedSizeSlotSupplier, TunerHolder, WorkerTuner};
use temporalio_sdk::runtime::{Runtime, RuntimeOptions};
use temporalio_sdk::{Worker, WorkerOptions};

struct Work;

#[activities]
impl Work {
    /// Holds a slot for so many milliseconds.
    #[activity(name = "Work")]
    async fn work(_: ActivityContext, milliseconds: u64) -> Result<u64, ActivityError> {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        Ok(milliseconds)
    }
}

fn variable(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set"))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut telemetry = TelemetryOptions::builder().build();
    if let Ok(address) = variable("METRICS_ADDRESS") {
        let socket_addr: SocketAddr = address.parse().context("METRICS_ADDRESS is no address")?;
        let exporter = PrometheusExporterOptions::builder().socket_addr(socket_addr).build();
        telemetry.metrics = Some(start_prometheus_metric_exporter(exporter)?.meter);
    }
    let options = RuntimeOptions::builder()
        .telemetry_options(telemetry)
        .heartbeat_interval(Some(Duration::from_secs(1)))
        .build()
        .map_err(anyhow::Error::msg)?;
    let runtime = Runtime::from_current_tokio(options)?;
    let address: reqwest::Url = format!("http://{}", variable("TEMPORAL_ADDRESS")?).parse()?;
    let connection = Connection::connect(ConnectionOptions::new(address).build()).await?;
    let client = Client::new(connection, ClientOptions::new(variable("TEMPORAL_NAMESPACE")?).build())?;
    let slots = FixedSizeSlotSupplier::new(variable("SLOTS")?.parse()?);
    let tuner = TunerHolder::builder()
        .workflow_task_slot_supplier(slots)
        .activity_task_slot_supplier(slots)
        .local_activity_task_slot_supplier(slots)
        .nexus_task_slot_supplier(slots)
        .build();
    let worker = WorkerOptions::new(variable("TASK_QUEUE")?)
        .register_activities(Work)
        .tuner(WorkerTuner::TunerHolder(tuner))
        .build();
    Worker::new(&runtime, client, worker)?.run().await?;
    Ok(())
}
