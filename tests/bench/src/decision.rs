//! The time of one scaling decision, on lanes taken from simulated runs while they were busy.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context as _, Result};
use operator_core::scaling::decide;
use scale_sim::lanes::{self, Lane};
use serde::Serialize;

use crate::figures::{self, Distribution, Figure};

/// Lanes that are decided on.
const LANES: usize = 10_000;
/// How often each of them is; the median counts.
const ROUNDS: usize = 9;
/// Most time that a decision may take, in microseconds a lane.
const MARK_US: f64 = 50.0;

#[derive(Serialize)]
struct Report {
    conditions: Conditions,
    /// Means over the lanes, spread over the rounds, in microseconds a lane.
    decide_us: Distribution,
    clone_us: Distribution,
    figures: Vec<Figure>,
}

/// What was decided on.
#[derive(Serialize)]
struct Conditions {
    lanes: usize,
    rounds: usize,
    /// Pods of a fleet, a mean over the lanes.
    mean_pods: f64,
}

/// Runs the benchmark and prints what it found.
///
/// # Errors
/// It could not measure. A mark that is missed is no error.
pub fn run() -> Result<()> {
    let lanes = lanes::busy(LANES, 1)?;
    anyhow::ensure!(lanes.len() == LANES, "the traces have {} busy lanes, not {LANES}", lanes.len());
    let report = measure(&lanes)?;
    println!("{}", figures::table(&report.figures));
    let file = figures::write("decision", &report)?;
    println!("\n{LANES} lanes, {ROUNDS} rounds; {} written", file.display());
    Ok(())
}

fn measure(lanes: &[Lane]) -> Result<Report> {
    let (mut decisions, mut clones) = (Vec::new(), Vec::new());
    // In turns, so that what else the machine does hits both alike.
    for _ in 0..ROUNDS {
        decisions.push(mean_us(lanes, |lane| drop(black_box(decide(&lane.policy, &lane.input, &lane.state)))));
        clones.push(mean_us(lanes, |lane| drop(black_box((lane.input.clone(), lane.state.clone())))));
    }
    let spread = |times: Vec<f64>| Distribution::of(times).context("there was no round");
    let (decide_us, clone_us) = (spread(decisions)?, spread(clones)?);
    let pods: usize = lanes.iter().map(|lane| lane.input.pods.len()).sum();
    let conditions =
        Conditions { lanes: lanes.len(), rounds: ROUNDS, mean_pods: pods as f64 / lanes.len().max(1) as f64 };
    let figures = vec![
        Figure::new("decision_per_busy_lane", "µs", decide_us.p50)
            .against("a copy of input and state", clone_us.p50)
            .mark(MARK_US),
        Figure::new("decision_per_busy_lane_slowest_round", "µs", decide_us.max),
    ];
    Ok(Report { conditions, decide_us, clone_us, figures })
}

/// Microseconds a lane.
fn mean_us(lanes: &[Lane], work: impl Fn(&Lane)) -> f64 {
    let start = Instant::now();
    lanes.iter().for_each(|lane| work(black_box(lane)));
    start.elapsed().as_secs_f64() * 1e6 / lanes.len().max(1) as f64
}
