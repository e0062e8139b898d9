//! `test-runner`: what `make test` and `make test-long` call.
//!
//! Builds the workspace's tests, runs each binary by its own harness, those that need a cluster last, and tells outcome
//! and time of every test. Exits non-zero when a test failed, or with `CI=true` when one was skipped.

mod binaries;
mod documentation;
mod hang;
mod kind;
mod libtest;
mod summary;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

use binaries::{Takes, Target};
use kind::{Kind, is_long, kind_of};
use libtest::{How, Report};
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
    fn how(&self, long: bool) -> How {
        if long {
            let at_a_time = self.target.needs_machine().then_some(1);
            return How { deadline: LONG_DEADLINE, at_a_time };
        }
        let longest = self.paths.iter().map(|path| kind_of(&self.target, path).deadline()).max();
        How { deadline: longest.unwrap_or_default(), at_a_time: self.target.takes().at_a_time() }
    }
}

/// A run of the tests.
#[derive(Clone, Copy)]
struct Run<'a> {
    root: &'a Path,
    cli: &'a Cli,
    summary: &'a Mutex<Summary>,
}

impl Run<'_> {
    /// Runs all tests: those that wait beside those that compute, then those that take a part of the machine, two binaries at a
    /// time, and then those that take all of it. Long ones measure, and run one binary after another.
    fn all(self, selections: Vec<Selection>) -> Result<()> {
        if self.cli.long {
            return self.each(&selections);
        }
        let of = |takes| selections.iter().filter(move |selection| selection.target.takes() == takes);
        std::thread::scope(|scope| {
            let computing = scope.spawn(|| {
                self.each(of(Takes::Cores))?;
                documentation::run(self.root, &self.cli.filter, |report| self.add("doc", Kind::Unit, report))
            });
            self.each(of(Takes::Time))?;
            computing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        self.two_at_a_time(of(Takes::Part))?;
        self.each(of(Takes::Machine))
    }

    fn two_at_a_time<'s>(self, selections: impl Iterator<Item = &'s Selection> + Send) -> Result<()> {
        let waiting = Mutex::new(selections);
        let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
        let lane = || std::iter::from_fn(next).try_for_each(|selection| self.each([selection]));
        std::thread::scope(|scope| {
            let other = scope.spawn(lane);
            lane()?;
            other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs one binary after another.
    fn each<'s>(self, selections: impl IntoIterator<Item = &'s Selection>) -> Result<()> {
        for selection in selections {
            let Selection { target, paths } = selection;
            let title = target.title();
            libtest::run(target, paths, selection.how(self.cli.long), |report| {
                self.add(&title, kind_of(target, &report.path), report);
            })?;
        }
        Ok(())
    }

    fn add(self, title: &str, kind: Kind, report: &Report) {
        self.summary.lock().unwrap_or_else(PoisonError::into_inner).add(title, kind, report);
    }
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let root = root()?;
    let start = Instant::now();
    let targets = binaries::build(&root)?;
    println!("built the tests in {:.0} s", start.elapsed().as_secs_f64());

    let summary = Mutex::new(Summary::default());
    let run = Run { root: &root, cli: &cli, summary: &summary };
    run.all(select(targets, &cli)?)?;
    let summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
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
