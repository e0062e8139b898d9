//! What the operator uses while nothing happens.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use e2e::process::{Cpu, resident_kib};
use serde::Serialize;

use super::world::World;
use crate::leader::sum;

const LENGTH: Duration = Duration::from_secs(60);
const SAMPLE: Duration = Duration::from_secs(1);
/// Time without a write after which nothing happens.
const QUIET: Duration = Duration::from_secs(35);
const QUIET_LIMIT: Duration = Duration::from_secs(600);

/// What was used in a minute.
#[derive(Clone, Debug, Serialize)]
pub struct Rest {
    /// How long it was watched.
    pub seconds: f64,
    /// Most resident memory in that time, in 10^6 bytes.
    pub resident_mb: f64,
    /// Processor time a minute.
    pub cpu_seconds_per_minute: f64,
    /// Requests to the API server that write.
    pub kubernetes_writes_per_second: f64,
    /// Calls to the Temporal server.
    pub temporal_calls_per_second: f64,
    /// Those of them that the server or the budget refused.
    pub refused_calls_per_second: f64,
    /// Reconciles.
    pub reconciles_per_second: f64,
}

/// Waits until nothing is written any more, and watches the operator for a minute.
///
/// # Errors
/// It ends, or writes on for ten minutes.
pub async fn measure(world: &World) -> Result<Rest> {
    settle(world).await?;
    let pid = world.operator()?.process.id().pid.cast_unsigned();
    let (writes, page, cpu) = (writes(world)?, world.operator()?.metrics().await?, Cpu::of(pid)?);
    let began = Instant::now();
    let mut most = 0;
    while began.elapsed() < LENGTH {
        tokio::time::sleep(SAMPLE).await;
        most = most.max(resident_kib(pid)?);
    }
    let (used, seconds) = (Cpu::of(pid)?.since(cpu), began.elapsed().as_secs_f64());
    let after = world.operator()?.metrics().await?;
    let rate = |name: &str| (sum(&after, name) - sum(&page, name)) / seconds;
    Ok(Rest {
        seconds,
        resident_mb: most as f64 * 1024.0 / 1e6,
        cpu_seconds_per_minute: used.own.as_secs_f64() / seconds * 60.0,
        kubernetes_writes_per_second: (self::writes(world)? - writes) as f64 / seconds,
        temporal_calls_per_second: rate("temporal_worker_operator_temporal_calls_total"),
        refused_calls_per_second: rate("temporal_worker_operator_temporal_calls_rejected_total"),
        reconciles_per_second: rate("temporal_worker_operator_reconciles_total"),
    })
}

async fn settle(world: &World) -> Result<()> {
    let settled = async {
        let mut before = None;
        loop {
            let now = writes(world)?;
            if before == Some(now) {
                return Ok::<_, anyhow::Error>(());
            }
            before = Some(now);
            tokio::time::sleep(QUIET).await;
        }
    };
    tokio::time::timeout(QUIET_LIMIT, settled).await.context("the operator writes on for ten minutes")?
}

/// Requests of anybody that write, as the audit log has them: the benchmark sends none meanwhile.
fn writes(world: &World) -> Result<usize> {
    let events = world.control_plane.audit_events()?;
    let reads = ["get", "list", "watch"];
    Ok(events.iter().filter(|event| !reads.contains(&event.verb.as_str()) && event.resource != "leases").count())
}
