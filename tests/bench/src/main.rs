//! `bench`: measures speed, against a baseline of the same run; but for the scaling decision on a real cluster and a real
//! Temporal server.
//!
//! Every benchmark prints a table with ratios and writes `target/bench/<name>.json`. It fails when it could not
//! measure; whether a mark was met stands in the file.

mod at_rest;
mod autoscale;
mod cold_start;
mod decision;
mod detection;
mod figures;
mod fleet;
mod leader;
mod push;
mod runtime;
mod scale;
mod sidecar;
mod stage;
mod stops;
mod tasks;
mod trials;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use harness::programs::Profile;

/// Measures the operator on a real cluster.
#[derive(Parser)]
#[command(name = "bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Benchmark,
}

#[derive(Subcommand)]
enum Benchmark {
    /// From the first task of a fleet at zero to its completion, and what the operator uses at rest.
    ColdStart {
        /// How often; as often, in turns, replicas are raised by hand for the floor.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
        trials: u32,
        /// How the project's programs are built; figures of `dev` say nothing about what users get.
        #[arg(long, value_enum, default_value_t = Profile::Release)]
        profile: Profile,
    },
    /// Recorded traffic, against the simulator's prediction for the same tasks.
    Autoscale {
        /// Length of each of the two slices; a short one says little about what autoscalers cost.
        #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(10..=300))]
        seconds: u64,
        /// How the project's programs are built; figures of `dev` say nothing about what users get.
        #[arg(long, value_enum, default_value_t = Profile::Release)]
        profile: Profile,
    },
    /// From a task on an idle Task Queue to the operator's poller having seen it.
    Detection {
        /// How often, for each number of Task Queues.
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
        trials: u32,
    },
    /// From a task of a fleet at zero to the write of its replicas, with the server's calls to the push endpoint and without.
    Push {
        /// How often, each.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..))]
        trials: u32,
    },
    /// CPU time of a task on the runtime, beside Workers on the Go SDK. Needs no cluster.
    Runtime {
        /// How often each Worker is measured, in turns.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
    },
    /// What the sidecar costs, beside the same Go Worker without it. Needs no cluster.
    Sidecar {
        /// How often each Worker is measured, in turns.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
    },
    /// Tasks that are lost while Workers of four SDKs are stopped, without the sidecar and with it. Needs no cluster.
    Stops {
        /// Stops of each SDK's Workers, each way.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
    },
    /// What the operator uses with many fleets, and how soon all are right after a restart. Needs no cluster.
    Scale {
        /// Fleets, over 20 Temporal namespaces.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(20..=2000))]
        fleets: u16,
        /// Restarts with children intact, and as many with children deleted.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
        restarts: u16,
        /// Tasks for fleets at zero; 0 leaves out what is measured with `spec.scaling`.
        #[arg(long, default_value_t = 50)]
        tasks: u16,
    },
    /// One scaling decision, on lanes taken from simulated runs. Needs no cluster.
    Decision,
}

impl Benchmark {
    async fn run(self) -> Result<()> {
        match self {
            Self::ColdStart { trials, profile } => cold_start::run(trials, profile).await,
            Self::Autoscale { seconds, profile } => autoscale::run(Duration::from_secs(seconds), profile).await,
            Self::Detection { trials } => detection::run(trials).await,
            Self::Push { trials } => push::run(trials).await,
            Self::Runtime { rounds } => runtime::run(rounds).await,
            Self::Sidecar { rounds } => sidecar::run(rounds).await,
            Self::Stops { rounds } => stops::run(rounds).await,
            Self::Scale { fleets, restarts, tasks } => {
                scale::run(scale::Extent { fleets: fleets.into(), restarts: restarts.into(), tasks: tasks.into() })
                    .await
            }
            Self::Decision => decision::run(),
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let benchmark = Cli::parse().command;
    tokio::select! {
        outcome = benchmark.run() => exit_code(outcome),
        _ = tokio::signal::ctrl_c() => {
            eprintln!("interrupted: what was started is ended");
            // The cluster ends with this process; a build in another thread would be waited for otherwise.
            std::process::exit(130);
        }
    }
}

fn exit_code(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
