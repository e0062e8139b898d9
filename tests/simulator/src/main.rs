//! The program `scale-sim`.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use scale_sim::cli::{Cli, execute};

fn main() -> ExitCode {
    let said = match execute(&Cli::parse()) {
        Ok(said) => said,
        Err(error) => {
            eprintln!("scale-sim: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    // A reader that has enough, like head, is no failure.
    let _ = std::io::stdout().write_all(said.text.as_bytes());
    if said.well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
