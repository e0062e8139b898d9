//! The demo: everything from nothing, then a burst of real work, watched until both fleets are back at zero.

mod burst;
mod failure;
mod fleets;
mod history;
mod languages;
mod outcome;
mod stage;
mod summary;
mod table;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use kube::Client;
use tokio::signal::unix::{SignalKind, signal};

use crate::polyglot::{LANGUAGES, namespace};
use fleets::Fleet;
use stage::Stage;
use table::Table;

/// Name of the demo's cluster.
pub const CLUSTER: &str = "demo";
/// Kubernetes namespace of the fleets, and Temporal namespace of the Workflow.
const NAMESPACE: &str = "demo";
/// Helm release of the operator, and its Kubernetes namespace.
const OPERATOR: &str = "temporal-worker-operator";
/// The fleet that runs the Workflow, and its Task Queues for Workflows and for the check.
const PICTURES: &str = "pictures";
const WORKFLOWS_QUEUE: &str = "pictures-workflows";
const CHECKS_QUEUE: &str = "pictures-local";
/// The fleet that does the work, and its Task Queue.
const THUMBNAILS: &str = "thumbnails";
const FLEETS: [&str; 2] = [PICTURES, THUMBNAILS];
/// How often the fleets are looked at.
const TICK: Duration = Duration::from_secs(1);

/// What is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Play {
    /// A burst of thumbnails, by two fleets.
    Pictures {
        /// Tasks of the burst.
        tasks: u32,
    },
    /// One Workflow that uses Workers of all languages.
    Languages,
}

impl Play {
    /// Kubernetes namespaces of its fleets.
    fn namespaces(self) -> Vec<String> {
        match self {
            Self::Pictures { .. } => vec![NAMESPACE.to_owned()],
            Self::Languages => LANGUAGES.map(namespace).to_vec(),
        }
    }
}

/// What the demo does.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is played.
    pub play: Play,
    /// Folder of clusters.
    pub root: PathBuf,
}

/// Runs the demo. With a terminal the cluster lives on, else it is removed at the end, however that comes.
///
/// # Errors
/// A part can't be built or started, or a task was not completed once, or a fleet did not go from zero and back.
pub async fn run(options: &Options) -> Result<()> {
    let watched = table::is_watched();
    println!("Temporal Worker Operator: the demo");
    println!("A real Kubernetes cluster and a real Temporal server, on this machine, for this demo alone.");
    let interrupted = tokio::select! {
        ended = from_nothing(options, watched) => return ended,
        interrupted = told_to_end() => interrupted?,
    };
    // A build that goes on in another thread would hold a return up.
    eprintln!("{interrupted}: what the demo started is removed");
    std::process::exit(130);
}

async fn told_to_end() -> Result<&'static str> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(tokio::select! {
        _ = interrupt.recv() => "interrupted",
        _ = terminate.recv() => "told to end",
    })
}

async fn from_nothing(options: &Options, watched: bool) -> Result<()> {
    let stage = Stage::set_up(options).await?;
    let played = match options.play {
        Play::Pictures { tasks } => pictures(&stage, tasks, watched).await,
        Play::Languages => languages::play(&stage, watched).await,
    };
    if played.is_err() {
        failure::explain(&stage, options.play).await;
    }
    if watched {
        stage.keep(options.play)?;
    } else {
        stage.end()?;
        println!("\nThe cluster is removed.");
    }
    played
}

async fn pictures(stage: &Stage, tasks: u32, watched: bool) -> Result<()> {
    stage.install().await?;
    stage.apply_fleets().await?;
    rest(stage, &FLEETS, watched).await?;
    step(6, "Work", &format!("a Workflow that has {tasks} thumbnails made and checked, starting from zero pods"));
    let ended = burst::run(stage, tasks, &mut Table::new(watched)).await;
    // What the server knows is written also when the burst did not end in time.
    let fleets = match &ended {
        Ok(fleets) => fleets.clone(),
        Err(_) => fleets::observe(&stage.client(), &FLEETS).await?,
    };
    let judged = outcome::report(stage, tasks, &fleets).await;
    ended.and(judged)
}

/// Waits until new fleets are ready for work and have no pod.
async fn rest(stage: &Stage, fleets: &[&str], watched: bool) -> Result<()> {
    let note = || "waiting for the fleets to be ready and back at zero".into();
    let mut table = Table::new(watched);
    let rested = watch((stage, fleets), &mut table, Duration::from_secs(240), note, all(Fleet::rests)).await;
    rested.map(drop).context("the fleets did not become ready and go to zero")
}

/// Whether a condition holds for every fleet.
fn all(condition: impl Fn(&Fleet) -> bool) -> impl Fn(&[Fleet]) -> bool {
    move |fleets| fleets.iter().all(&condition)
}

/// Shows the fleets once a second until `done`.
async fn watch(
    (stage, fleets): (&Stage, &[&str]),
    table: &mut Table,
    limit: Duration,
    note: impl Fn() -> String,
    done: impl Fn(&[Fleet]) -> bool,
) -> Result<Vec<Fleet>> {
    let client: Client = stage.client();
    let end = Instant::now() + limit;
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        // A busy machine answers late now and then: only the limit ends this.
        let seen = fleets::observe(&client, fleets).await;
        if let Ok(fleets) = &seen {
            table.show(fleets, &note());
            if done(fleets) {
                return seen;
            }
        }
        if Instant::now() > end {
            seen.context("the API server can't be asked")?;
            bail!("not within {} s", limit.as_secs());
        }
    }
}

/// Announces a step of the demo.
fn step(number: u32, title: &str, what: &str) {
    println!("\n[{number}/6] {title}: {what}");
}
