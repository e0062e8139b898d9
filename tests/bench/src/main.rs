//! `bench`: measures speed on a real cluster and a real Temporal server, against a baseline of the same run.
//!
//! Every benchmark prints a table with ratios and writes `target/bench/<name>.json`. It fails when it could not
//! measure; whether a mark was met stands in the file.

mod at_rest;
mod cold_start;
mod figures;
mod fleet;
mod leader;
mod stage;
mod tasks;
mod trials;

use std::process::ExitCode;

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
}

#[tokio::main]
async fn main() -> ExitCode {
    let Benchmark::ColdStart { trials, profile } = Cli::parse().command;
    tokio::select! {
        outcome = cold_start::run(trials, profile) => exit_code(outcome),
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
