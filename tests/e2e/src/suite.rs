//! Scenarios that share one environment.
//!
//! libtest starts and ends nothing around its tests, and runs the tests of a binary that needs a whole machine one after
//! the other. A scenario waits most of its time, so here they run side by side: the environment is started once, each
//! scenario gets a share of it, and it is ended with the last one. The binary understands what cargo and the test runner
//! say to libtest, and answers in its words.

use std::any::Any;
use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use serde_json::json;
use tokio::sync::Semaphore;

/// What scenarios share.
pub trait Environment: Sized + 'static {
    /// Starts it.
    fn start() -> impl Future<Output = Result<Self>>;

    /// What may explain why a scenario failed.
    fn explain(&self, scenario: &str) -> impl Future<Output = String>;

    /// Ends it.
    ///
    /// # Errors
    /// Something is left.
    fn stop(self) -> Result<()>;
}

/// One scenario.
pub struct Scenario<E> {
    /// Path, such as `life::goes_from_zero_to_many`.
    pub name: &'static str,
    /// Whether nothing else may run beside it.
    pub alone: bool,
    /// Longest time.
    pub limit: Duration,
    /// Runs it.
    pub run: fn(Arc<E>) -> LocalBoxFuture<'static, Result<()>>,
}

/// Names a scenario by its path: `scenario!(life::goes_to_zero)`; with `alone`, nothing runs beside it. It has 5 minutes
/// unless it says otherwise: `scenario!(life::goes_to_zero, minutes 8)`.
#[macro_export]
macro_rules! scenario {
    ($($path:ident)::+) => { $crate::scenario!(@ false, 5, $($path)::+) };
    ($($path:ident)::+, alone) => { $crate::scenario!(@ true, 5, $($path)::+) };
    ($($path:ident)::+, minutes $minutes:literal) => { $crate::scenario!(@ false, $minutes, $($path)::+) };
    (@ $alone:expr, $minutes:expr, $($path:ident)::+) => {
        $crate::suite::Scenario {
            name: concat!($("::", stringify!($path)),+).trim_start_matches("::"),
            alone: $alone,
            limit: std::time::Duration::from_secs(60 * $minutes),
            run: |environment| Box::pin($($path)::+(environment)),
        }
    };
}

/// Runs the scenarios that the command line names, all when it names none, and so many of them at a time.
#[must_use]
pub fn main<E: Environment>(scenarios: Vec<Scenario<E>>, side_by_side: u32) -> ExitCode {
    let command = Command::parse(std::env::args().skip(1));
    let chosen: Vec<_> = scenarios.into_iter().filter(|scenario| command.names(scenario.name)).collect();
    if command.list {
        chosen.iter().for_each(|scenario| println!("{}: test", scenario.name));
        return ExitCode::SUCCESS;
    }
    let tell = Tell { json: command.json };
    tell.begin(chosen.len());
    if chosen.is_empty() {
        return tell.end(0, 0, Duration::ZERO);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime
        .context("start the async runtime")
        .and_then(|runtime| runtime.block_on(run(chosen, side_by_side, &tell)))
    {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run<E: Environment>(scenarios: Vec<Scenario<E>>, side_by_side: u32, tell: &Tell) -> Result<ExitCode> {
    let begun = Instant::now();
    let environment = Arc::new(E::start().await.context("start the environment of the scenarios")?);
    let room = Semaphore::new(side_by_side as usize);
    let share = |scenario: &Scenario<E>| if scenario.alone { side_by_side } else { 1 };
    let mut running: FuturesUnordered<_> =
        scenarios.iter().map(|scenario| one(scenario, &environment, (&room, share(scenario)), tell)).collect();
    let (mut passed, mut failed) = (0, 0);
    while let Some(ok) = running.next().await {
        if ok { passed += 1 } else { failed += 1 }
    }
    drop(running);
    let environment = Arc::try_unwrap(environment).ok().context("a scenario has left something running")?;
    environment.stop().context("end the environment of the scenarios")?;
    Ok(tell.end(passed, failed, begun.elapsed()))
}

async fn one<E: Environment>(
    scenario: &Scenario<E>,
    environment: &Arc<E>,
    (room, share): (&Semaphore, u32),
    tell: &Tell,
) -> bool {
    // The semaphore is never closed.
    let _place = room.acquire_many(share).await;
    tell.started(scenario.name);
    let begun = Instant::now();
    let work = AssertUnwindSafe((scenario.run)(environment.clone())).catch_unwind();
    let result = match tokio::time::timeout(scenario.limit, work).await {
        Ok(Ok(result)) => result.map_err(|error| format!("{error:#}")),
        Ok(Err(panic)) => Err(panic_message(&*panic)),
        Err(_) => Err(format!("not finished within {} s", scenario.limit.as_secs())),
    };
    let result = match result {
        Ok(()) => Ok(()),
        Err(why) => Err(format!("{why}\n{}", environment.explain(scenario.name).await)),
    };
    tell.ended(scenario.name, &result, begun.elapsed());
    result.is_ok()
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    format!("panicked: {}", text.unwrap_or_default())
}

/// What of libtest's command line matters here.
#[derive(Debug, Default, PartialEq, Eq)]
struct Command {
    filters: Vec<String>,
    skipped: Vec<String>,
    exact: bool,
    list: bool,
    json: bool,
}

impl Command {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Self {
        let mut command = Self::default();
        while let Some(argument) = arguments.next() {
            let (name, value) = argument.split_once('=').map_or((argument.as_str(), None), |(n, v)| (n, Some(v)));
            let mut value = || value.map(str::to_owned).or_else(|| arguments.next()).unwrap_or_default();
            match name {
                "--exact" => command.exact = true,
                "--list" => command.list = true,
                "--skip" => command.skipped.push(value()),
                "--format" => command.json = value() == "json",
                // How many run at a time is this suite's own matter.
                "--test-threads" | "-Z" | "--color" | "--logfile" => drop(value()),
                _ if name.starts_with('-') => {}
                _ => command.filters.push(argument),
            }
        }
        command
    }

    fn names(&self, scenario: &str) -> bool {
        let hits = |filter: &String| if self.exact { scenario == filter } else { scenario.contains(filter.as_str()) };
        (self.filters.is_empty() || self.filters.iter().any(hits)) && !self.skipped.iter().any(hits)
    }
}

/// Reports as libtest does.
struct Tell {
    json: bool,
}

impl Tell {
    /// One line at once: other threads print too.
    fn line(&self, line: &str) {
        let mut out = std::io::stdout().lock();
        // Nobody listens any more: nothing to do about it.
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }

    fn begin(&self, count: usize) {
        if !self.json {
            self.line(&format!("\nrunning {count} tests"));
        }
    }

    fn started(&self, name: &str) {
        if self.json {
            self.line(&format!(r#"{{ "type": "test", "event": "started", "name": {} }}"#, json!(name)));
        }
    }

    fn ended(&self, name: &str, result: &Result<(), String>, took: Duration) {
        let seconds = took.as_secs_f64();
        match (self.json, result) {
            (true, Ok(())) => self.line(&format!(
                r#"{{ "type": "test", "name": {}, "event": "ok", "exec_time": {seconds} }}"#,
                json!(name)
            )),
            (true, Err(why)) => self.line(&format!(
                r#"{{ "type": "test", "name": {}, "event": "failed", "exec_time": {seconds}, "stdout": {} }}"#,
                json!(name),
                json!(why)
            )),
            (false, Ok(())) => self.line(&format!("test {name} ... ok ({seconds:.1} s)")),
            (false, Err(why)) => self.line(&format!("test {name} ... FAILED ({seconds:.1} s)\n{why}")),
        }
    }

    fn end(&self, passed: usize, failed: usize, took: Duration) -> ExitCode {
        if !self.json {
            let result = if failed == 0 { "ok" } else { "FAILED" };
            let seconds = took.as_secs_f64();
            self.line(&format!(
                "\ntest result: {result}. {passed} passed; {failed} failed; finished in {seconds:.1} s"
            ));
        }
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> Command {
        Command::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_runners_command_line_names_scenarios_exactly() {
        let line = "-Z unstable-options --format json --report-time --test-threads=1 --exact life::zero faults::cut";
        let command = command(line);
        assert!(command.json && command.exact && !command.list);
        assert!(command.names("life::zero") && command.names("faults::cut") && !command.names("life::zero_again"));
    }

    #[test]
    fn a_filter_is_a_part_of_a_name_and_none_means_all() {
        assert!(command("zero --nocapture").names("life::zero_again"));
        assert!(!command("--skip zero").names("life::zero_again"));
        assert!(command("--list --format terse").names("anything"));
    }
}
