//! The way of a fleet from zero: task accepted, replicas patched, task completed; and the operator at rest.

use anyhow::{Context as _, Result};
use harness::programs::Profile;
use serde::Serialize;

use crate::at_rest::{self, AtRest};
use crate::figures::{self, Distribution, Figure};
use crate::stage::Stage;
use crate::trials::{Bench, Scaler, Trial};

/// Time above the floor that finding the task and writing the replicas may add, in milliseconds.
const ABOVE_FLOOR_MS: f64 = 600.0;

/// KEDA's Temporal scaler on the same kind of machine, recorded earlier, in milliseconds: p50 and p95 from the task to
/// the patch, and from the task to its end. Where runs differed, the best of them.
struct Recorded {
    what: &'static str,
    patched: [f64; 2],
    first_task: [f64; 2],
}

const KEDA_FAST: Recorded =
    Recorded { what: "KEDA, polling each 2 s", patched: [2400.0, 5900.0], first_task: [3000.0, 6500.0] };
const KEDA: Recorded =
    Recorded { what: "KEDA, defaults", patched: [10_600.0, 25_000.0], first_task: [11_000.0, 25_000.0] };
/// The floor with a Worker in Go, recorded earlier.
const GO_FLOOR: [f64; 2] = [320.0, 470.0];

#[derive(Serialize)]
struct Report {
    conditions: Conditions,
    operator: Operator,
    floor: Floor,
    at_rest: AtRest,
    figures: Vec<Figure>,
    trials: Vec<Trial>,
}

/// What else was so.
#[derive(Serialize)]
struct Conditions {
    profile: String,
    cores: usize,
    /// Mean number of runnable processes over a minute, before the first trial.
    load_before: f64,
    /// And after the last one.
    load_after: f64,
}

#[derive(Serialize)]
struct Operator {
    accepted_to_patched_ms: Distribution,
    accepted_to_first_task_ms: Distribution,
}

#[derive(Serialize)]
struct Floor {
    patched_to_first_task_ms: Distribution,
}

/// Runs the benchmark and prints what it found.
///
/// # Errors
/// It could not measure. A mark that is missed is no error.
pub async fn run(trials: u32, profile: Profile) -> Result<()> {
    let stage = Stage::set_up(profile).await?;
    let report = measure(&stage, trials, profile).await;
    if report.is_err() {
        stage.explain();
    }
    stage.end()?;
    let report = report?;
    println!("\n{}", figures::table(&report.figures));
    let file = figures::write("cold-start", &report)?;
    println!("\n{} trials each; {} written", trials, file.display());
    Ok(())
}

async fn measure(stage: &Stage, count: u32, profile: Profile) -> Result<Report> {
    let bench = Bench::set_up(stage).await?;
    let cores = std::thread::available_parallelism()?.get();
    let load_before = figures::load()?;
    if load_before > cores as f64 / 2.0 {
        println!("the load is {load_before} on {cores} cores: other work on this machine makes the figures worse");
    }
    let mut trials = Vec::new();
    for number in 1..=count {
        for scaler in [Scaler::Operator, Scaler::Hand] {
            let trial = bench.trial(scaler).await.with_context(|| format!("trial {number}"))?;
            println!("{}", line(number, count, &trial));
            trials.push(trial);
        }
    }
    let load_after = figures::load()?;
    println!("a minute with one fleet at zero");
    let at_rest = at_rest::measure(&bench.leave_one().await?).await?;
    let conditions = Conditions { profile: format!("{profile:?}").to_lowercase(), cores, load_before, load_after };
    report(conditions, trials, at_rest)
}

fn line(number: u32, count: u32, trial: &Trial) -> String {
    let Trial { accepted_to_patched_ms, patched_to_first_task_ms, accepted_to_first_task_ms, .. } = trial;
    match trial.scaler {
        Scaler::Operator => format!(
            "{number:>3}/{count}  operator  accepted → patched {accepted_to_patched_ms:>6.0} ms  → first task \
             {patched_to_first_task_ms:>6.0} ms  together {accepted_to_first_task_ms:>6.0} ms"
        ),
        Scaler::Hand => {
            format!("{number:>3}/{count}  floor     patched → first task {patched_to_first_task_ms:>6.0} ms")
        }
    }
}

fn report(conditions: Conditions, trials: Vec<Trial>, at_rest: AtRest) -> Result<Report> {
    let of = |scaler, duration: fn(&Trial) -> f64| {
        let durations = trials.iter().filter(|trial| trial.scaler == scaler).map(duration);
        Distribution::of(durations).context("there was no trial")
    };
    let operator = Operator {
        accepted_to_patched_ms: of(Scaler::Operator, |trial| trial.accepted_to_patched_ms)?,
        accepted_to_first_task_ms: of(Scaler::Operator, |trial| trial.accepted_to_first_task_ms)?,
    };
    let floor = Floor { patched_to_first_task_ms: of(Scaler::Hand, |trial| trial.patched_to_first_task_ms)? };
    let figures = figures_of(&operator, &floor, &at_rest);
    Ok(Report { conditions, operator, floor, at_rest, figures, trials })
}

fn figures_of(operator: &Operator, floor: &Floor, at_rest: &AtRest) -> Vec<Figure> {
    let (patched, whole, floor) =
        (operator.accepted_to_patched_ms, operator.accepted_to_first_task_ms, floor.patched_to_first_task_ms);
    let ms = |name, value| Figure::new(name, "ms", value);
    vec![
        ms("accepted_to_patched_p50", patched.p50).against(KEDA_FAST.what, KEDA_FAST.patched[0]).mark(500.0),
        ms("accepted_to_patched_p95", patched.p95).against(KEDA_FAST.what, KEDA_FAST.patched[1]).mark(1000.0),
        ms("accepted_to_patched_p50_to_keda_defaults", patched.p50).against(KEDA.what, KEDA.patched[0]),
        ms("accepted_to_patched_p95_to_keda_defaults", patched.p95).against(KEDA.what, KEDA.patched[1]),
        ms("accepted_to_first_task_p50", whole.p50)
            .against("floor, this run", floor.p50)
            .mark(floor.p50 + ABOVE_FLOOR_MS),
        ms("accepted_to_first_task_p95", whole.p95).against("floor, this run", floor.p95),
        ms("accepted_to_first_task_p50_to_keda", whole.p50).against(KEDA_FAST.what, KEDA_FAST.first_task[0]),
        ms("accepted_to_first_task_p95_to_keda", whole.p95).against(KEDA_FAST.what, KEDA_FAST.first_task[1]),
        ms("accepted_to_first_task_p50_to_keda_defaults", whole.p50).against(KEDA.what, KEDA.first_task[0]),
        ms("accepted_to_first_task_p95_to_keda_defaults", whole.p95).against(KEDA.what, KEDA.first_task[1]),
        ms("floor_patched_to_first_task_p50", floor.p50).against("floor, Worker in Go", GO_FLOOR[0]),
        ms("floor_patched_to_first_task_p95", floor.p95).against("floor, Worker in Go", GO_FLOOR[1]),
        Figure::new("at_rest_resident_memory", "MB", at_rest.resident_mb).mark(30.0),
        Figure::new("at_rest_cpu_of_a_core", "%", at_rest.cpu_percent).mark(1.0),
    ]
}
