//! Tasks that nobody runs because a Worker stopped as they were handed out: two Workers of an SDK on one Task Queue are replaced by
//! turns while activities come, without the sidecar and with it.

mod replica;
mod stream;

use std::collections::VecDeque;

use anyhow::{Context as _, Result, ensure};
use e2e::wait::eventually;
use harness::tools::Tools;
use harness::{TemporalOptions, TemporalServer};
use serde::Serialize;

use self::replica::{Program, Replica};
use self::stream::Stream;
use crate::figures::{self, Figure};

/// Has the server end the polls of a Worker that says that it stops.
const ENDS_POLLS: (&str, &str) = ("frontend.enableCancelWorkerPollsOnShutdown", "true");

/// How Workers are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Alone,
    /// Alone, on a server that ends the polls of those that stop.
    PollsEnded,
    BehindSidecar,
}

/// SDKs, and the names of their figures for each [`Way`].
const SDKS: [(&str, [(Way, &str); 3]); 4] = [
    ("go", names("Go, alone", "Go, alone, polls ended by the server", "Go, with the sidecar")),
    ("java", names("Java, alone", "Java, alone, polls ended by the server", "Java, with the sidecar")),
    ("python", names("Python, alone", "Python, alone, polls ended by the server", "Python, with the sidecar")),
    (
        "typescript",
        names("TypeScript, alone", "TypeScript, alone, polls ended by the server", "TypeScript, with the sidecar"),
    ),
];

const fn names(alone: &'static str, polls_ended: &'static str, sidecar: &'static str) -> [(Way, &'static str); 3] {
    [(Way::Alone, alone), (Way::PollsEnded, polls_ended), (Way::BehindSidecar, sidecar)]
}

#[derive(Debug, Serialize)]
struct Report {
    load_before: f64,
    stops: u32,
    figures: Vec<Figure>,
}

/// Runs the benchmark and prints what it found.
///
/// # Errors
/// It could not measure. A mark that is missed is no error.
pub async fn run(rounds: u32) -> Result<()> {
    let load_before = figures::load()?;
    let tools = Tools::ensure_async(Tools::WORKERS).await?;
    let plain = TemporalServer::start(TemporalOptions::default()).await?;
    let (key, value) = ENDS_POLLS;
    let dynamic_config = vec![(key.to_owned(), value.to_owned())];
    let ending = TemporalServer::start(TemporalOptions { dynamic_config, ..TemporalOptions::default() }).await?;
    let mut figures = Vec::new();
    for (sdk, ways) in SDKS {
        let name = format!("{sdk}-worker");
        if !tools.has(&name) {
            continue;
        }
        for (way, title) in ways {
            let server = if way == Way::PollsEnded { &ending } else { &plain };
            let task_queue = format!("{sdk}-{way:?}").to_lowercase();
            let program =
                Program::new(tools.program(&name)?, &server.host_port(), &task_queue, way == Way::BehindSidecar)?;
            let (lost, run) = replaced(&program, rounds).await.with_context(|| title.to_owned())?;
            let figure = Figure::new(title, "tasks", lost).against("tasks that came", run);
            figures.push(if way == Way::BehindSidecar { figure.mark(0.0) } else { figure });
            println!("{title}: {lost} of {run} tasks lost");
        }
    }
    println!("\n{}", figures::table(&figures));
    let report = Report { load_before, stops: rounds, figures };
    println!("\n{rounds} stops each; {} written", figures::write("stops", &report)?.display());
    Ok(())
}

/// Replaces two Workers by turns. Gives the tasks that were lost, and all that came.
async fn replaced(program: &Program, rounds: u32) -> Result<(f64, f64)> {
    let stream = Stream::start(&program.host_port, &program.task_queue).await?;
    let mut replicas = VecDeque::new();
    for _ in 0..2 {
        replicas.push_back(joined(program, &stream).await?);
    }
    for _ in 0..rounds {
        replicas.push_back(joined(program, &stream).await?);
        let oldest = replicas.pop_front().context("no Worker is left")?;
        oldest.stop().await?;
    }
    stream.end().await
}

/// A new Worker that has completed a task.
async fn joined(program: &Program, stream: &Stream) -> Result<Replica> {
    let before = stream.workers();
    let replica = Replica::start(program).await?;
    eventually("a new Worker completes a task", async || {
        ensure!(stream.workers() > before, "{before} Workers so far");
        Ok(())
    })
    .await?;
    Ok(replica)
}
