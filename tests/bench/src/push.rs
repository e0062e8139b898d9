//! The way of a task from the server to the replicas' write: with the server's calls to the push endpoint, and without.

use anyhow::{Context as _, Result};
use e2e::push::{Push, Through};
use jiff::Timestamp;
use serde::Serialize;

use crate::figures::{self, Distribution, Figure};

/// p95 from the server's acceptance to the write, whichever replica took the call.
const MARK_MS: f64 = 150.0;

#[derive(Serialize)]
struct Report {
    with_push_ms: Distribution,
    without_push_ms: Distribution,
    figures: Vec<Figure>,
    trials: Vec<Line>,
}

#[derive(Clone, Serialize)]
struct Line {
    through: &'static str,
    accepted: Timestamp,
    patched: Timestamp,
    accepted_to_patched_ms: f64,
}

/// Runs the benchmark and prints what it found.
///
/// # Errors
/// It could not measure. A mark that is missed is no error.
pub async fn run(trials: u32) -> Result<()> {
    let push = Push::start().await?;
    let lines = measure(&push, trials).await;
    if lines.is_err() {
        push.operators.iter().for_each(|operator| eprintln!("{}", operator.log().unwrap_or_default()));
    }
    push.stop()?;
    let report = report(lines?)?;
    println!("\n{}", figures::table(&report.figures));
    println!("\n{} trials each; {} written", trials, figures::write("push", &report)?.display());
    Ok(())
}

async fn measure(push: &Push, trials: u32) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for number in 1..=trials {
        lines.push(trial(push, Through::Nobody, number, trials).await?);
    }
    push.aim(Through::Leader).await?;
    push.connect().await?;
    // The first call has the provider make its client.
    push.trial(Through::Leader).await?;
    for number in 1..=trials {
        let through = if number % 2 == 0 { Through::Standby } else { Through::Leader };
        lines.push(trial(push, through, number, trials).await?);
    }
    Ok(lines)
}

async fn trial(push: &Push, through: Through, number: u32, trials: u32) -> Result<Line> {
    let trial = push.trial(through).await.with_context(|| format!("trial {number}"))?;
    let through = match through {
        Through::Leader => "leader",
        Through::Standby => "standby",
        Through::Nobody => "nobody",
    };
    let took = trial.milliseconds();
    println!("{number:>3}/{trials}  through {through:<8}  accepted → patched {took:>6.0} ms");
    Ok(Line { through, accepted: trial.accepted, patched: trial.patched, accepted_to_patched_ms: took })
}

fn report(trials: Vec<Line>) -> Result<Report> {
    let of = |pushed: bool, through: &[&str]| {
        let of = trials.iter().filter(|line| (line.through != "nobody") == pushed && through.contains(&line.through));
        Distribution::of(of.map(|line| line.accepted_to_patched_ms)).context("there was no trial")
    };
    let without = of(false, &["nobody"])?;
    let with = of(true, &["leader", "standby"])?;
    let (leader, standby) = (of(true, &["leader"])?, of(true, &["standby"])?);
    let ms = |name, value| Figure::new(name, "ms", value);
    let against = "without push, this run";
    let figures = vec![
        ms("accepted_to_patched_p50", with.p50).against(against, without.p50),
        ms("accepted_to_patched_p95", with.p95).against(against, without.p95).mark(MARK_MS),
        ms("accepted_to_patched_p95_through_leader", leader.p95).against(against, without.p95),
        ms("accepted_to_patched_p95_through_standby", standby.p95).against(against, without.p95),
    ];
    Ok(Report { with_push_ms: with, without_push_ms: without, figures, trials })
}
