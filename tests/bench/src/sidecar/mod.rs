//! What the sidecar costs: time of a call, CPU time of a task, memory, and encryption; against the same Go Worker and the same server
//! without it, in the same run.

mod calls;
pub mod scene;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::process::{Cpu, resident_kib};
use harness::{TemporalOptions, TemporalServer};
use serde::Serialize;

use self::calls::Times;
use self::scene::{Scene, Sidecar, Worker};
use crate::figures::{self, Figure};
use crate::runtime::load;

/// Bytes of a MB.
const MB: f64 = 1_000_000.0;
/// Tasks of each Worker in a round, after as many that warm it up in the first.
const TASKS: usize = 400;
/// Bytes of an argument.
const ARGUMENT: usize = 100;
/// Time without a task after which memory is read.
const IDLE: Duration = Duration::from_secs(15);
/// A Worker has answered its last task, and ends what follows.
const SETTLE: Duration = Duration::from_millis(200);

/// What was found.
#[derive(Debug, Serialize)]
struct Report {
    load_before: f64,
    direct: Times,
    through: Times,
    worker_alone_ms: Vec<f64>,
    worker_ms: Vec<f64>,
    sidecar_ms: Vec<f64>,
    call_alone_us: f64,
    call_among_many_us: f64,
    figures: Vec<Figure>,
}

/// Runs the benchmark and prints what it found.
///
/// # Errors
/// It could not measure. A mark that is missed is no error.
pub async fn run(rounds: u32) -> Result<()> {
    let load_before = figures::load()?;
    let server = TemporalServer::start(TemporalOptions::default()).await?;
    let scene = Scene::new(&server).await?;
    let (plain, encrypting) = (scene.sidecar("plain", false).await?, scene.sidecar("encrypting", true).await?);
    let beside = scene.worker("beside", &plain.address)?;
    let alone = scene.worker("alone", &scene.host_port)?;
    for queue in ["beside", "alone"] {
        tasks(&scene, queue).await?;
    }
    let mut used = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..rounds {
        let [worker, sidecar] = used_by(&scene, "beside", [beside.pid(), plain.pid()]).await?;
        let [without] = used_by(&scene, "alone", [alone.pid()]).await?;
        for (list, value) in used.iter_mut().zip([without, worker, sidecar]) {
            list.push(value);
        }
    }
    let (direct, through) = calls::compare(&scene.host_port, &plain.address).await?;
    let [call_alone_us, call_among_many_us] = calls::cost(&plain).await?;
    let encryption_us = calls::encryption(&plain, &encrypting).await?;
    let (idle_mb, idle_worker) = idle(&scene).await?;
    drop(idle_worker);
    let [worker_alone_ms, worker_ms, sidecar_ms] = used;
    let share = 100.0 * median(&sidecar_ms)? / median(&worker_alone_ms)?;
    let figures = vec![
        Figure::new("added to a call, p50", "ms", through.p50 - direct.p50).against("a call", direct.p50).mark(0.3),
        Figure::new("added to a call, p99", "ms", through.p99 - direct.p99).against("a call", direct.p99).mark(1.5),
        Figure::new("CPU beside the Worker's", "%", share).mark(25.0),
        Figure::new("CPU of a call among many", "µs", call_among_many_us)
            .against("a call that is alone", call_alone_us),
        Figure::new("idle memory", "MB", idle_mb).mark(12.0),
        Figure::new("encryption of a payload of 1 KiB", "µs", encryption_us).mark(10.0),
    ];
    println!("\n{}", figures::table(&figures));
    let report = Report {
        load_before,
        direct,
        through,
        worker_alone_ms,
        worker_ms,
        sidecar_ms,
        call_alone_us,
        call_among_many_us,
        figures,
    };
    println!("\n{rounds} rounds of {TASKS} tasks each; {} written", figures::write("sidecar", &report)?.display());
    Ok(())
}

async fn tasks(scene: &Scene, queue: &str) -> Result<()> {
    load::run(&scene.host_port, queue, &load::argument(ARGUMENT), TASKS).await.map(drop)
}

/// CPU time of processes while a Worker runs tasks, in milliseconds a task.
#[expect(clippy::cast_precision_loss, reason = "a few hundred tasks")]
async fn used_by<const N: usize>(scene: &Scene, queue: &str, processes: [u32; N]) -> Result<[f64; N]> {
    let before: Vec<_> = processes.iter().map(|process| Cpu::of(*process)).collect::<Result<_>>()?;
    tasks(scene, queue).await?;
    tokio::time::sleep(SETTLE).await;
    let mut used = [0.0; N];
    for ((used, process), before) in used.iter_mut().zip(processes).zip(before) {
        *used = Cpu::of(process)?.since(before).own.as_secs_f64() * 1000.0 / TASKS as f64;
    }
    Ok(used)
}

/// Resident memory of a sidecar with an idle Worker, in MB.
#[expect(clippy::cast_precision_loss, reason = "megabytes")]
async fn idle(scene: &Scene) -> Result<(f64, (Sidecar, Worker))> {
    let sidecar = scene.sidecar("idle", true).await?;
    let worker = scene.worker("idle", &sidecar.address)?;
    tokio::time::sleep(IDLE).await;
    Ok((resident_kib(sidecar.pid())? as f64 * 1024.0 / MB, (sidecar, worker)))
}

fn median(values: &[f64]) -> Result<f64> {
    ensure!(!values.is_empty(), "nothing was measured");
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().context("nothing was measured")
}
