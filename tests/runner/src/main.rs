//! `test-runner`: what `make test` and `make test-long` call.
//!
//! Builds the workspace's tests, runs each binary by its own harness, the quick ones first, and tells outcome and
//! time of every test. Exits non-zero when a test failed, or with `CI=true` when one was skipped.

mod binaries;
mod documentation;
mod kind;
mod libtest;
mod summary;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

use binaries::Target;
use kind::{Kind, is_long, kind_of};
use summary::Summary;

const LONG_DEADLINE: Duration = Duration::from_secs(4 * 60 * 60);

/// Runs the tests of the workspace and writes target/test/summary.json.
#[derive(Parser)]
struct Cli {
    /// Only tests whose name contains this text.
    #[arg(long, default_value = "")]
    filter: String,
    /// The tests that are too slow for every run, and no others.
    #[arg(long)]
    long: bool,
}

/// The tests of one binary that are to run.
struct Selection {
    target: Target,
    paths: Vec<String>,
}

impl Selection {
    fn deadline(&self, long: bool) -> Duration {
        let longest = self.paths.iter().map(|path| kind_of(&self.target, path).deadline()).max();
        if long { LONG_DEADLINE } else { longest.unwrap_or_default() }
    }
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let root = root()?;
    let start = Instant::now();
    let targets = binaries::build(&root)?;
    println!("built the tests in {:.0} s", start.elapsed().as_secs_f64());

    let mut summary = Summary::default();
    for selection in select(targets, &cli)? {
        let Selection { target, paths } = &selection;
        let title = target.title();
        libtest::run(target, paths, selection.deadline(cli.long), |report| {
            summary.add(&title, kind_of(target, &report.path), report);
        })?;
    }
    if !cli.long {
        documentation::run(&root, &cli.filter, |report| summary.add("doc", Kind::Unit, report))?;
    }
    let file = root.join("target/test/summary.json");
    summary.write(&file)?;
    ensure!(cli.long || !summary.is_empty(), "no test has {:?} in its name", cli.filter);
    println!("{} written after {:.0} s", file.display(), start.elapsed().as_secs_f64());
    let no_skips = std::env::var_os("CI").is_some_and(|value| value == "true");
    Ok(if summary.close(no_skips) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The root of the workspace that this program was built from.
fn root() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("this package lies in tests/runner")?;
    Ok(root.to_owned())
}

fn select(targets: Vec<Target>, cli: &Cli) -> Result<Vec<Selection>> {
    let mut selections = Vec::new();
    for target in targets {
        let mut paths = libtest::list(&target)?;
        paths.retain(|path| {
            is_long(&target, path) == cli.long && format!("{}::{path}", target.title()).contains(&cli.filter)
        });
        if !paths.is_empty() {
            selections.push(Selection { target, paths });
        }
    }
    Ok(selections)
}
