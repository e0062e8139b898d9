//! How soon the runtime takes its first task, how much memory it needs without any, and how large its program is.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::process::resident_kib;
use e2e::wait::eventually;
use harness::activities::{Activities, Kind};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use super::load::{ACTIVITY_TYPE, NAMESPACE};
use super::workers::{Host, Scene, Worker};
use crate::figures::Distribution;

/// Starts of each Worker.
const STARTS: usize = 15;
/// Time without a task after which memory is read.
const IDLE: Duration = Duration::from_secs(15);
const LIMIT: Duration = Duration::from_secs(60);
/// Bytes of a MB.
const MB: f64 = 1_000_000.0;

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Sizes {
    /// From the start of the process to the server's start time of a task that waited, in milliseconds.
    pub start_ms: Distribution,
    /// The same of the plain Go Worker.
    pub go_start_ms: Distribution,
    /// Resident memory with one idle Task Queue, in MB.
    pub one_queue_mb: f64,
    /// With fifty.
    pub fifty_queues_mb: f64,
    /// The plain Go Worker's, with one.
    pub go_one_queue_mb: f64,
    /// The program's file, in MB.
    pub program_mb: f64,
}

/// Measures all of it.
///
/// # Errors
/// A Worker does not start, or takes no task.
#[expect(clippy::cast_precision_loss, reason = "megabytes")]
pub async fn measure(scene: &Scene) -> Result<Sizes> {
    let (runtime, rival) = (Host::Runtime(scene.once(), json!({})), Host::Rival("plain"));
    let activities = Activities::connect(&scene.host_port, NAMESPACE).await?;
    Ok(Sizes {
        start_ms: starts(scene, &activities, &runtime, "starts").await?,
        go_start_ms: starts(scene, &activities, &rival, "go-starts").await?,
        one_queue_mb: idle(scene, 1).await?,
        fifty_queues_mb: idle(scene, 50).await?,
        go_one_queue_mb: {
            let worker = scene.start(&rival, "go-idle")?;
            tokio::time::sleep(IDLE).await;
            resident(&worker)?
        },
        program_mb: std::fs::metadata(scene.runtime())?.len() as f64 / MB,
    })
}

/// A task waits, a Worker starts and takes it; again and again.
async fn starts(scene: &Scene, activities: &Activities, host: &Host, queue: &str) -> Result<Distribution> {
    let kind = Kind { activity_type: ACTIVITY_TYPE.into(), task_queue: queue.into(), start_to_close: LIMIT };
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let id = activities.start(&kind, &json!("x")).await?;
        // The task has reached its queue, and the polls of the Worker before have ended.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let begun = Timestamp::now();
        let _worker = scene.start(host, queue)?;
        let completed = activities.completed(&id, LIMIT).await?;
        ensure!(completed.attempt == 1, "a Worker before took the task, and lost it");
        times.push(completed.started.duration_since(begun).as_secs_f64() * 1000.0);
    }
    Distribution::of(times).context("nothing was started")
}

/// Resident memory of the runtime after a while without tasks, in MB.
async fn idle(scene: &Scene, queues: usize) -> Result<f64> {
    let names: Vec<_> = (0..queues).map(|number| format!("idle-{queues}-{number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let worker = scene.start_runtime(&scene.once(), &json!({}), &names, port)?;
    eventually("the runtime is ready", async || {
        let answer = reqwest::get(format!("http://127.0.0.1:{port}/readyz")).await?;
        ensure!(answer.status().is_success(), "{}", answer.status());
        Ok(())
    })
    .await?;
    tokio::time::sleep(IDLE).await;
    resident(&worker)
}

#[expect(clippy::cast_precision_loss, reason = "megabytes")]
fn resident(worker: &Worker) -> Result<f64> {
    Ok(resident_kib(worker.pid())? as f64 * 1024.0 / MB)
}
