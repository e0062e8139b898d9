//! What the operator uses while nothing happens.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::leader::{Leader, Usage};

const LENGTH: Duration = Duration::from_secs(60);
const SAMPLE: Duration = Duration::from_secs(1);

/// What the replica that leads used. Memory in MB (10^6 bytes), the most over the time.
#[derive(Clone, Debug, Serialize)]
pub struct AtRest {
    /// How long it was watched.
    pub seconds: f64,
    /// Resident memory of the process, pages of the program's file included.
    pub resident_mb: f64,
    /// The part of it that is the process's own.
    pub anonymous_mb: f64,
    /// The part of it that is mapped files, which can be dropped and read again.
    pub files_mb: f64,
    /// What the container's control group is charged, without file pages that can be dropped.
    pub working_set_mb: Option<f64>,
    /// Threads of the process.
    pub threads: u64,
    /// Processor time, in percent of one core.
    pub cpu_percent: f64,
    /// Calls to the Temporal server.
    pub temporal_calls_per_second: f64,
}

/// Watches the leader for a minute.
///
/// # Errors
/// It ends meanwhile, or its metrics can't be read.
pub async fn measure(leader: &Leader) -> Result<AtRest> {
    let (calls, first, begin) = (leader.temporal_calls().await?, leader.usage()?, Instant::now());
    let (mut most, mut last) = (first, first);
    while begin.elapsed() < LENGTH {
        tokio::time::sleep(SAMPLE).await;
        last = leader.usage()?;
        most = most_of(most, last);
    }
    let seconds = begin.elapsed().as_secs_f64();
    let calls = leader.temporal_calls().await? - calls;
    ensure!(calls > 0.0, "pod {} made no call to Temporal: it does not watch the fleet", leader.pod);
    Ok(AtRest {
        seconds,
        resident_mb: megabytes(most.resident),
        anonymous_mb: megabytes(most.anonymous),
        files_mb: megabytes(most.files),
        working_set_mb: most.working_set.map(megabytes),
        threads: most.threads,
        cpu_percent: (last.cpu.saturating_sub(first.cpu)).as_secs_f64() / seconds * 100.0,
        temporal_calls_per_second: calls / seconds,
    })
}

fn most_of(a: Usage, b: Usage) -> Usage {
    Usage {
        resident: a.resident.max(b.resident),
        anonymous: a.anonymous.max(b.anonymous),
        files: a.files.max(b.files),
        threads: a.threads.max(b.threads),
        working_set: a.working_set.max(b.working_set),
        cpu: a.cpu.max(b.cpu),
    }
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
