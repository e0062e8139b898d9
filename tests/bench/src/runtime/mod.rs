//! The CPU time that a task takes on the runtime, beside Workers on the Go SDK in the same run; and how soon and how small the
//! runtime is.

pub mod load;
mod report;
mod size;
mod workers;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::process::Cpu;
use harness::{TemporalOptions, TemporalServer};
use rand::seq::SliceRandom as _;
use serde::Serialize;
use temporalio_protos::temporal::api::common::v1::Payload;

use self::report::Report;
use self::workers::{Scene, Variant, Worker};
use crate::figures;

/// Tasks of each Worker before it is measured: connections are made, pools filled, caches warm.
const WARM_UP: usize = 100;
/// Tasks of each Worker in a round.
const TASKS: usize = 400;
/// What a plain Go Worker takes on machines of this kind, in milliseconds a task: outside of it something is wrong.
const PLAIN_GO_MS: std::ops::RangeInclusive<f64> = 0.6..=1.3;
/// A Worker has answered its last task, and ends what follows.
const SETTLE: Duration = Duration::from_millis(200);

/// CPU time of one Worker, in milliseconds a task.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Bytes of the argument of a task.
    bytes: usize,
    /// The Worker with its children that have ended, in each round.
    rounds_ms: Vec<f64>,
    /// Median of these.
    ms: f64,
    /// Median of its children that stay.
    handlers_ms: f64,
}

/// Runs the benchmark and prints what it found.
///
/// # Errors
/// It could not measure, or the plain Go Worker took what none takes. A mark that is missed is no error.
pub async fn run(rounds: u32) -> Result<()> {
    let load_before = figures::load()?;
    if load_before > 1.0 {
        println!("the load is {load_before}: other work on this machine makes the figures worse");
    }
    let server = TemporalServer::start(TemporalOptions::default()).await?;
    let scene = Scene::new(&server).await?;
    let sizes = size::measure(&scene).await?;
    let measured = measure(&scene, rounds).await?;
    let report = Report::new(load_before, measured, sizes)?;
    println!("\n{}", figures::table(&report.figures));
    println!("\n{rounds} rounds of {TASKS} tasks each; {} written", figures::write("runtime", &report)?.display());
    let plain = report.workers["go_plain"].ms;
    ensure!(
        PLAIN_GO_MS.contains(&plain),
        "this run says nothing: the plain Go Worker took {plain:.2} ms a task, and takes {} to {} ms on a machine that \
         does nothing else",
        PLAIN_GO_MS.start(),
        PLAIN_GO_MS.end()
    );
    Ok(())
}

/// A Worker that is warm, and what its tasks are given.
struct Warm {
    variant: Variant,
    worker: Worker,
    argument: Payload,
}

impl Warm {
    async fn start(scene: &Scene, variant: Variant) -> Result<Self> {
        let worker = scene.start(&variant.host, variant.name)?;
        let plain = load::argument(variant.bytes);
        let result = load::run(&scene.host_port, variant.name, &plain, WARM_UP).await;
        let result = result.with_context(|| format!("warm {} up", variant.name))?;
        // Callers of a Worker that encrypts do so too: what it gave back is what they send.
        let argument = if variant.host.encrypts() { result } else { plain };
        let encrypted = argument.metadata.get("encoding").is_some_and(|encoding| encoding == b"binary/encrypted");
        ensure!(encrypted == variant.host.encrypts(), "{} gave back {:?}", variant.name, argument.metadata);
        Ok(Self { variant, worker, argument })
    }
}

/// Gives the Workers tasks in turns, each round in an order of its own, so that the noise of the machine meets all of them.
async fn measure(scene: &Scene, rounds: u32) -> Result<BTreeMap<&'static str, Measured>> {
    let mut workers = Vec::new();
    for variant in workers::all(scene) {
        workers.push(Warm::start(scene, variant).await?);
    }
    let mut spent = BTreeMap::<_, Vec<Cpu>>::new();
    let mut order: Vec<_> = (0..workers.len()).collect();
    for round in 1..=rounds {
        order.shuffle(&mut rand::rng());
        for number in &order {
            let Warm { variant: Variant { name, .. }, worker, argument } = &workers[*number];
            let before = Cpu::of(worker.pid())?;
            load::run(&scene.host_port, name, argument, TASKS)
                .await
                .with_context(|| format!("{name}, round {round}"))?;
            tokio::time::sleep(SETTLE).await;
            let cpu = Cpu::of(worker.pid())?.since(before);
            let [own, handlers] = [cpu.own + cpu.ended, cpu.running].map(a_task);
            println!("{round:>3}/{rounds}  {name:<22} {own:>6.3} ms a task, its processes that stay {handlers:.3} ms");
            spent.entry(*name).or_default().push(cpu);
        }
    }
    let of = |variant: &Variant| {
        let rounds = spent.get(variant.name).context("there was no round")?;
        let own: Vec<_> = rounds.iter().map(|cpu| a_task(cpu.own + cpu.ended)).collect();
        let handlers = median(rounds.iter().map(|cpu| a_task(cpu.running)).collect());
        let measured =
            Measured { bytes: variant.bytes, ms: median(own.clone()), rounds_ms: own, handlers_ms: handlers };
        Ok((variant.name, measured))
    };
    workers.iter().map(|warm| of(&warm.variant)).collect()
}

#[expect(clippy::cast_precision_loss, reason = "hundreds")]
fn a_task(cpu: Duration) -> f64 {
    cpu.as_secs_f64() * 1000.0 / TASKS as f64
}

/// The middle one, or the mean of the two in the middle; NaN of none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (left, right) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    match (values.get(left), values.get(right)) {
        (Some(left), Some(right)) => f64::midpoint(*left, *right),
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!([median(vec![3.0, 1.0, 2.0]), median(vec![4.0, 1.0, 2.0, 3.0])], [2.0, 2.5]);
        assert!(median(Vec::new()).is_nan());
    }
}
