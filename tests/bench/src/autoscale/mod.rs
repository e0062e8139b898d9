//! Recorded traffic on the real cluster, and what the simulator says of the same tasks.

mod pods;
mod slice;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::activities::{Activities, Completed, Kind};
use harness::programs::Profile;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use scale_sim::{Bounds, PolicyName, Workload, simulate};
use serde::Serialize;
use serde_json::{Value, json};

use self::pods::{Life, Register, median, pod_seconds};
use self::slice::{AZLLM_CODE, NAB_ELB, Slice};
use crate::figures::load;
use crate::figures::{self, Figure};
use crate::fleet::{self, Fleet};
use crate::stage::{Stage, WORKER_IMAGE};
use crate::tasks::NAMESPACE;

const ACTIVITY_TYPE: &str = "Sleep";
/// Most pods of a fleet, on the cluster and in the simulator.
const MAX_REPLICAS: u32 = 12;
/// Time that all tasks get to end after the last one was started.
const END_LIMIT: Duration = Duration::from_secs(300);
/// Time after which a task was sent so late that the traffic was not the recorded one.
const LATE: Duration = Duration::from_secs(1);
/// Seeds of the simulator: they draw start-up times and which slot gets a task.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=5;
/// How far a figure may be from the simulator's, as a share of that.
const TOLERANCE: f64 = 0.25;
/// Difference of two waits, in seconds, that is none: the simulator leaves out what the server takes to hand out a task.
const SAME_WAIT_S: f64 = 0.1;

#[derive(Serialize)]
struct Report {
    profile: String,
    cores: usize,
    /// Mean number of runnable processes over a minute, before and after.
    load: [f64; 2],
    slices: Vec<Played>,
    figures: Vec<Figure>,
}

/// A slice, as it went and as it was predicted.
#[derive(Serialize)]
struct Played {
    name: &'static str,
    seconds: f64,
    tasks: usize,
    slots: u32,
    /// The same tasks, as `scale-sim run --trace` reads them.
    file: String,
    /// Median time from a pod's creation until it is Ready.
    start_up_s: f64,
    /// Median time from the order to end until a pod was gone.
    shutdown_s: f64,
    /// The longest time by which a task was sent too late.
    latest_s: f64,
    cluster: Measured,
    simulator: Measured,
    pods: Vec<Life>,
}

/// What is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct Measured {
    /// Pod-seconds from creation until gone.
    cost_replica_s: f64,
    /// Percentiles of the time from accepted to started.
    wait_p50_s: f64,
    wait_p95_s: f64,
    /// Tasks that were started more than once; starts that were cut off, in the simulator.
    killed: f64,
}

/// Runs the benchmark and prints what it found.
///
/// # Errors
/// It could not measure. A mark that is missed is no error.
pub async fn run(length: Duration, profile: Profile) -> Result<()> {
    let stage = Stage::set_up(profile).await?;
    let report = measure(&stage, length, profile).await;
    if report.is_err() {
        stage.explain();
    }
    stage.end()?;
    let report = report?;
    println!("\n{}", figures::table(&report.figures));
    let file = figures::write("autoscale", &report)?;
    println!("\n{} written", file.display());
    Ok(())
}

async fn measure(stage: &Stage, length: Duration, profile: Profile) -> Result<Report> {
    let before = load()?;
    let mut slices = Vec::new();
    for slice in [AZLLM_CODE, NAB_ELB] {
        slices.push(play(stage, &slice, length).await.with_context(|| format!("slice {}", slice.name))?);
    }
    let figures = slices.iter().zip([AZLLM_CODE, NAB_ELB]).flat_map(|(played, slice)| compared(played, &slice));
    Ok(Report {
        profile: format!("{profile:?}").to_lowercase(),
        cores: std::thread::available_parallelism()?.get(),
        load: [before, load()?],
        figures: figures.collect(),
        slices,
    })
}

async fn play(stage: &Stage, slice: &Slice, length: Duration) -> Result<Played> {
    let workload = slice.workload(length)?;
    let file = slice.write(&workload)?;
    let client = stage.cluster.client();
    let scaling = json!({"minReplicas": 0, "maxReplicas": MAX_REPLICAS});
    let fleet = Fleet::apply(client.clone(), slice.fleet, sleeper(slice.fleet, workload.slots), Some(scaling)).await?;
    fleet.wait_ready().await?;
    fleet.wait_at_zero().await?;
    println!("{}: {} tasks in {} s", slice.name, workload.tasks.len(), length.as_secs());
    let labels = format!("{}={}", fleet::LABEL, slice.fleet);
    let register = Register::open(Api::<Pod>::namespaced(client, fleet::NAMESPACE), &labels);

    let activities = Activities::connect(&stage.server.host_port(), NAMESPACE).await?;
    let kind = Kind {
        activity_type: ACTIVITY_TYPE.to_owned(),
        task_queue: slice.fleet.to_owned(),
        start_to_close: Duration::from_secs(120),
    };
    let played = activities.play(&kind, &slice::arrivals(&workload)).await?;
    if played.latest > LATE {
        println!("{}: a task was sent {:.1} s late: the machine is too busy", slice.name, played.latest.as_secs_f64());
    }
    let done = activities.all_completed(&played.ids, END_LIMIT).await?;
    fleet.wait_at_zero().await?;
    let pods = register.lives().await?;
    ensure!(!pods.is_empty(), "no pod was seen");
    fleet.delete().await?;

    let start_up = median(&pods, Life::start_up).context("no pod was Ready")?;
    let shutdown = median(&pods, Life::shutdown).context("no pod ended")?;
    Ok(Played {
        name: slice.name,
        seconds: length.as_secs_f64(),
        tasks: workload.tasks.len(),
        slots: workload.slots,
        file: file.display().to_string(),
        start_up_s: start_up.as_secs_f64(),
        shutdown_s: shutdown.as_secs_f64(),
        latest_s: played.latest.as_secs_f64(),
        cluster: measured(&done, pod_seconds(&pods, Timestamp::now())),
        simulator: predicted(&workload, start_up, shutdown),
        pods,
    })
}

/// Activities that take as many seconds as their argument says.
fn sleeper(task_queue: &str, slots: u32) -> Value {
    const SLEEP: &str = r#"read -r task || [ -n "$task" ]; exec sleep "${task//[^0-9.]/}""#;
    json!({
        "image": WORKER_IMAGE,
        "taskQueues": [{"name": task_queue, "maxConcurrentActivities": slots}],
        "handlers": [{"name": "sleep", "exec": {"command": ["bash", "-c", SLEEP]}}],
        "activities": [{"type": ACTIVITY_TYPE, "handler": "sleep"}],
    })
}

fn measured(done: &[Completed], cost_replica_s: f64) -> Measured {
    // The start of a task that was started again tells nothing of its first wait; there should be none.
    let first = done.iter().filter(|task| task.attempt == 1);
    let mut waits: Vec<f64> = first.map(|task| task.started.duration_since(task.accepted).as_secs_f64()).collect();
    waits.sort_by(f64::total_cmp);
    let rank = |percent: usize| waits.get((waits.len() * percent).div_ceil(100).saturating_sub(1)).copied();
    Measured {
        cost_replica_s,
        wait_p50_s: rank(50).unwrap_or(f64::NAN),
        wait_p95_s: rank(95).unwrap_or(f64::NAN),
        killed: done.iter().filter(|task| task.attempt > 1).count() as f64,
    }
}

/// The simulator's figures for the operator's own decision: the mean over its seeds.
fn predicted(workload: &Workload, start_up: Duration, shutdown: Duration) -> Measured {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let workload = Workload { startup: micros(start_up), shutdown: micros(shutdown), ..workload.clone() };
    let bounds = Bounds { min: 0, max: MAX_REPLICAS };
    let runs = SEEDS.map(|seed| simulate(&workload, PolicyName::Ours, bounds, seed).figures);
    let runs: Vec<_> = runs.collect();
    let mean = |value: fn(&scale_sim::Figures) -> f64| runs.iter().map(value).sum::<f64>() / runs.len() as f64;
    Measured {
        cost_replica_s: mean(|run| run.cost_replica_s),
        wait_p50_s: mean(|run| run.wait_p50_s),
        wait_p95_s: mean(|run| run.wait_p95_s),
        killed: mean(|run| run.killed as f64),
    }
}

fn compared(played: &Played, slice: &Slice) -> [Figure; 4] {
    const AGAINST: &str = "simulator, same tasks";
    let Played { cluster, simulator, .. } = played;
    let figure = |name, unit, value, predicted: f64, same| {
        Figure::new(name, unit, value).against(AGAINST, predicted).near(TOLERANCE, same)
    };
    let [cost, p50, p95, killed] = slice.figures;
    [
        figure(cost, "pod s", cluster.cost_replica_s, simulator.cost_replica_s, 0.0),
        figure(p50, "s", cluster.wait_p50_s, simulator.wait_p50_s, SAME_WAIT_S),
        figure(p95, "s", cluster.wait_p95_s, simulator.wait_p95_s, SAME_WAIT_S),
        figure(killed, "tasks", cluster.killed, simulator.killed, 0.0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(wait_ms: i64, attempt: i32) -> Completed {
        let at = |ms: i64| Timestamp::from_millisecond(ms).unwrap();
        let (accepted, started, completed) = (at(1000), at(1000 + wait_ms), at(9000));
        Completed { accepted, started, completed, attempt, worker: String::new() }
    }

    #[test]
    fn waits_are_of_first_attempts_and_others_are_killed() {
        let done: Vec<_> = (1..=20).map(|n| completed(n * 100, 1)).chain([completed(60_000, 2)]).collect();
        let expected = Measured { cost_replica_s: 7.0, wait_p50_s: 1.0, wait_p95_s: 1.9, killed: 1.0 };
        assert_eq!(measured(&done, 7.0), expected);
    }

    #[test]
    fn the_prediction_depends_on_the_start_up_and_the_shutdown_that_were_measured() {
        let workload = NAB_ELB.workload(Duration::from_secs(60)).unwrap();
        let predicted =
            |start_up, shutdown| predicted(&workload, Duration::from_millis(start_up), Duration::from_millis(shutdown));
        let (quick, slow, lingering) = (predicted(500, 0), predicted(20_000, 0), predicted(500, 10_000));
        assert!(quick.cost_replica_s > 0.0 && quick.wait_p95_s < slow.wait_p95_s, "{quick:?} {slow:?}");
        assert!(quick.cost_replica_s + 10.0 <= lingering.cost_replica_s, "{quick:?} {lingering:?}");
        assert_eq!(quick, predicted(500, 0));
    }
}
