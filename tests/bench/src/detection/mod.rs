//! How soon the operator's poller sees a task on an idle Task Queue, against polling the ordinary statistics each second.

mod watchers;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use harness::{TemporalOptions, TemporalServer};
use rand::RngExt as _;
use rand::seq::SliceRandom as _;
use serde::Serialize;
use tokio::sync::watch;

use self::watchers::{Counts, Watchers};
use crate::figures::{self, Distribution, Figure};

/// Longest that a task may take to be seen by either.
const LIMIT: Duration = Duration::from_secs(30);
/// Pause between two tasks, in milliseconds: at random, so that tasks come at any moment of a sweep.
const PAUSE_MS: std::ops::Range<u64> = 100..1100;
const STATISTICS: &str = "statistics each second, this run";

#[derive(Serialize)]
struct Report {
    conditions: Conditions,
    rounds: Vec<Round>,
    figures: Vec<Figure>,
}

#[derive(Serialize)]
struct Conditions {
    cores: usize,
    /// Mean number of runnable processes over a minute, before the first trial.
    load_before: f64,
    /// And after the last one.
    load_after: f64,
}

/// What was found with a number of Task Queues.
#[derive(Serialize)]
struct Round {
    queues: usize,
    trials: usize,
    /// Calls of the poller.
    calls_per_second: f64,
    accepted_to_seen_ms: Distribution,
    accepted_to_seen_by_statistics_ms: Distribution,
}

/// Times from the server's acceptance of a task, in milliseconds.
struct Trial {
    seen: f64,
    by_statistics: f64,
}

/// Runs the benchmark and prints what it found.
///
/// # Errors
/// It could not measure. A mark that is missed is no error.
pub async fn run(trials: u32) -> Result<()> {
    let cores = std::thread::available_parallelism()?.get();
    let load_before = figures::load()?;
    if load_before > cores as f64 / 2.0 {
        println!("the load is {load_before} on {cores} cores: other work on this machine makes the figures worse");
    }
    let mut rounds = Vec::new();
    for queues in [10, 50] {
        let round = measure(queues, trials).await.with_context(|| format!("with {queues} Task Queues"))?;
        println!("{queues} Task Queues: {:.1} calls/s", round.calls_per_second);
        rounds.push(round);
    }
    let conditions = Conditions { cores, load_before, load_after: figures::load()? };
    let report = Report { conditions, figures: figures_of(&rounds), rounds };
    println!("\n{}", figures::table(&report.figures));
    let file = figures::write("detection", &report)?;
    println!("\n{trials} trials each; {} written", file.display());
    Ok(())
}

async fn measure(queues: usize, trials: u32) -> Result<Round> {
    let server = TemporalServer::start(TemporalOptions::default()).await?;
    let watchers = Watchers::start(&server, queues).await?;
    let mut order: Vec<usize> = (0..queues).collect();
    let mut pending = Vec::new();
    let mut tasks = vec![0_u64; queues];
    let (calls, began) = (watchers.calls(), Instant::now());
    for number in 0..trials as usize {
        if number % queues == 0 {
            order.shuffle(&mut rand::rng());
        }
        let queue = order[number % queues];
        let pause = rand::rng().random_range(PAUSE_MS);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        watchers.add_task(queue, number).await?;
        let accepted = Instant::now();
        tasks[queue] += 1;
        pending.push(tokio::spawn(trial(watchers.counts(), (queue, tasks[queue]), accepted)));
    }
    let calls_per_second = (watchers.calls() - calls) / began.elapsed().as_secs_f64();
    let ended = try_join_all(pending).await?.into_iter().collect::<Result<Vec<Trial>>>()?;
    let of = |time: fn(&Trial) -> f64| Distribution::of(ended.iter().map(time)).context("there was no trial");
    Ok(Round {
        queues,
        trials: ended.len(),
        calls_per_second,
        accepted_to_seen_ms: of(|trial| trial.seen)?,
        accepted_to_seen_by_statistics_ms: of(|trial| trial.by_statistics)?,
    })
}

async fn trial(counts: Counts, task: (usize, u64), accepted: Instant) -> Result<Trial> {
    let (seen, by_statistics) =
        tokio::try_join!(wait(counts.poller, task, accepted), wait(counts.statistics, task, accepted))?;
    Ok(Trial { seen, by_statistics })
}

/// Time until a Task Queue is seen to hold so many tasks, in milliseconds.
async fn wait(mut counts: watch::Receiver<Vec<u64>>, task: (usize, u64), accepted: Instant) -> Result<f64> {
    let (queue, number) = task;
    let seen = counts.wait_for(|counts| counts[queue] >= number);
    tokio::time::timeout(LIMIT, seen)
        .await
        .with_context(|| format!("task {number} of queue {queue} was not seen within {} s", LIMIT.as_secs()))??;
    Ok(accepted.elapsed().as_secs_f64() * 1000.0)
}

fn figures_of(rounds: &[Round]) -> Vec<Figure> {
    let names = [("ten_queues_p50", "ten_queues_p95", 500.0), ("fifty_queues_p50", "fifty_queues_p95", 1000.0)];
    let figures = |(round, (p50, p95, mark)): (&Round, (&'static str, &'static str, f64))| {
        let (seen, baseline) = (round.accepted_to_seen_ms, round.accepted_to_seen_by_statistics_ms);
        [
            Figure::new(p50, "ms", seen.p50).against(STATISTICS, baseline.p50).mark(mark),
            Figure::new(p95, "ms", seen.p95).against(STATISTICS, baseline.p95),
        ]
    };
    rounds.iter().zip(names).flat_map(figures).collect()
}
