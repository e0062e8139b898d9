//! Runs one test binary and follows what it reports.
//!
//! A binary reports one JSON object a line. What else appears on its standard output (a program that a test started may
//! write there) is passed on. Whatever way the binary ends, every test that was to run has an outcome: those that did
//! not report one have failed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::binaries::Target;
use crate::hang;
use crate::summary::Outcome;

/// After the end of a binary its output may stay open in a program that it left behind; nobody waits longer for it.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);
const LIST_LIMIT: Duration = Duration::from_secs(30);
const EXIT_POLL: Duration = Duration::from_millis(50);
const EVENT_START: &str = "{ \"type\": \"";

/// What came of one test.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Path of the test within its binary.
    pub path: String,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it ran.
    pub seconds: f64,
    /// What it printed, and why it failed.
    pub output: String,
}

#[derive(Debug, Default, Deserialize)]
struct Event {
    #[serde(rename = "type")]
    subject: String,
    event: String,
    name: Option<String>,
    exec_time: Option<f64>,
    stdout: Option<String>,
    message: Option<String>,
}

/// Paths of all tests of a binary, ignored ones too.
///
/// # Errors
/// The binary does not answer.
pub fn list(target: &Target) -> Result<Vec<String>> {
    let mut child = command(target).args(["--list", "--format", "terse"]).stdout(Stdio::piped()).spawn()?;
    let lines = lines_of(child.stdout.take());
    let mut paths = Vec::new();
    let end = follow(&mut child, &lines, LIST_LIMIT, |line| {
        paths.extend(line.strip_suffix(": test").map(str::to_owned));
    })?;
    ensure!(end.is_success(), "{} --list did not answer", target.executable.display());
    Ok(paths)
}

/// How tests are run.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// Longest time of all together.
    pub deadline: Duration,
    /// How many at a time; `None` for as many as there are cores.
    pub at_a_time: Option<usize>,
}

/// Runs the tests `paths` of a binary, and tells each result as it comes.
///
/// # Errors
/// The binary can't be started.
pub fn run(target: &Target, paths: &[String], how: How, tell: impl FnMut(&Report)) -> Result<()> {
    let mut command = command(target);
    // libtest's JSON is unstable; the variable is for this binary, and the programs that it starts have to drop it.
    command.env("RUSTC_BOOTSTRAP", "1").args(["-Z", "unstable-options", "--format", "json", "--report-time"]);
    if let Some(tests) = how.at_a_time {
        command.arg(format!("--test-threads={tests}"));
    }
    command.arg("--exact").args(paths);
    let title = target.executable.display().to_string();
    run_command(command, paths, how.deadline, tell).with_context(|| format!("run {title}"))
}

fn command(target: &Target) -> Command {
    let mut command = Command::new(&target.executable);
    command
        .current_dir(&target.directory)
        .env("CARGO_MANIFEST_DIR", &target.directory)
        .env("CARGO_PKG_NAME", &target.package)
        .stdin(Stdio::null());
    command
}

fn run_command(
    mut command: Command,
    paths: &[String],
    deadline: Duration,
    mut tell: impl FnMut(&Report),
) -> Result<()> {
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let lines = lines_of(child.stdout.take());
    let mut open: BTreeSet<&str> = paths.iter().map(String::as_str).collect();
    let mut started = BTreeMap::new();
    let mut failed = false;
    let end = follow(&mut child, &lines, deadline, |line| {
        let Some(event) = event_of(line) else { return eprintln!("{line}") };
        let Some(name) = event.name.as_deref().filter(|_| event.subject == "test") else { return };
        match event.event.as_str() {
            "started" => drop(started.insert(name.to_owned(), Instant::now())),
            "timeout" => eprintln!("{name} is still running"),
            _ if open.remove(name) => {
                let report = report_of(name, &event);
                failed |= report.outcome == Outcome::Failed;
                tell(&report);
            }
            _ => {}
        }
    })?;
    let limit = deadline.as_secs();
    let why = match &end {
        End::Hung(_) => format!("did not finish: all tests of its binary together took longer than {limit} s"),
        End::Exited(status) => format!("did not finish: its binary ended with {status}"),
    };
    let seen = if let End::Hung(picture) = &end { picture.as_str() } else { "" };
    // What starts before the first test and ends after the last belongs to none of them.
    if !failed && open.is_empty() && !end.is_success() {
        let output = format!("{}\n{seen}", why.replace("did not finish", "failed after its last test"));
        tell(&Report { path: "(binary)".to_owned(), outcome: Outcome::Failed, seconds: 0.0, output });
    }
    for path in open {
        let seconds = started.get(path).map_or(0.0, |start| start.elapsed().as_secs_f64());
        let why = if started.contains_key(path) { format!("{why}\n{seen}") } else { format!("did not start; {why}") };
        tell(&Report { path: path.to_owned(), outcome: Outcome::Failed, seconds, output: why });
    }
    Ok(())
}

fn event_of(line: &str) -> Option<Event> {
    let start = line.find(EVENT_START)?;
    let event = serde_json::from_str(&line[start..]).ok()?;
    if start > 0 {
        eprintln!("{}", &line[..start]);
    }
    Some(event)
}

fn report_of(name: &str, event: &Event) -> Report {
    let outcome = match event.event.as_str() {
        "ok" => Outcome::Passed,
        "ignored" => Outcome::Skipped,
        _ => Outcome::Failed,
    };
    let said = [&event.stdout, &event.message].into_iter().flatten().map(String::as_str).collect::<Vec<_>>();
    Report { path: name.to_owned(), outcome, seconds: event.exec_time.unwrap_or(0.0), output: said.join("\n") }
}

/// The lines of a program's output, as they come.
pub fn lines_of(output: Option<ChildStdout>) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let Some(output) = output else { return };
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while read_line(&mut output, &mut line) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(text).is_err() {
                return;
            }
        }
    });
    receiver
}

fn read_line(output: &mut BufReader<impl Read>, line: &mut Vec<u8>) -> bool {
    line.clear();
    output.read_until(b'\n', line).is_ok_and(|read| read > 0)
}

/// How a program ended.
#[derive(Debug)]
pub enum End {
    /// By itself.
    Exited(ExitStatus),
    /// It was killed because its time was over; with what it did then ([`hang::picture`]).
    Hung(String),
}

impl End {
    /// Whether it ended by itself, and well.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Exited(status) if status.success())
    }
}

/// Hands every line of a program to `each` until the program has ended, or kills it at the `deadline`.
pub fn follow(
    child: &mut Child,
    lines: &Receiver<String>,
    deadline: Duration,
    mut each: impl FnMut(&str),
) -> Result<End> {
    let mut end = Instant::now() + deadline;
    let mut status = None;
    loop {
        match lines.recv_timeout(EXIT_POLL) {
            Ok(line) => each(&line),
            Err(RecvTimeoutError::Disconnected) => {
                if let Some(status) = status {
                    return Ok(End::Exited(status));
                }
                std::thread::sleep(EXIT_POLL);
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if status.is_none() {
            status = child.try_wait()?;
            if status.is_some() {
                end = Instant::now() + DRAIN_LIMIT;
            }
        }
        if Instant::now() >= end {
            if let Some(status) = status {
                return Ok(End::Exited(status));
            }
            let picture = hang::picture(child.id());
            child.kill()?;
            child.wait()?;
            return Ok(End::Hung(picture));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a binary that prints `script`'s output is reported as.
    fn reports(script: &str, paths: &[&str], deadline: Duration) -> Vec<Report> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let paths: Vec<String> = paths.iter().map(|&path| path.to_owned()).collect();
        let mut reports = Vec::new();
        run_command(command, &paths, deadline, |report| reports.push(report.clone())).unwrap();
        reports
    }

    const OK: &str = r#"echo '{ "type": "test", "event": "started", "name": "a" }'
           echo '{ "type": "test", "name": "a", "event": "ok", "exec_time": 0.25 }'"#;
    const START_B: &str = r#"echo '{ "type": "test", "event": "started", "name": "b" }'"#;
    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn outcome_time_and_output_are_those_of_the_binary() {
        let script = format!(
            r#"{OK}
            printf 'noise without end of line{{ "type": "test", "name": "b", "event": "failed", "exec_time": 1.5, "stdout": "why" }}\n'
            echo '{{ "type": "test", "name": "c", "event": "ignored" }}'
            exit 101"#
        );
        let found = reports(&script, &["a", "b", "c"], LIMIT);
        let outcomes: Vec<_> = found.iter().map(|report| (report.outcome, report.seconds)).collect();
        assert_eq!(outcomes, [(Outcome::Passed, 0.25), (Outcome::Failed, 1.5), (Outcome::Skipped, 0.0)]);
        assert_eq!(found[1].output, "why");
    }

    #[test]
    fn a_crash_fails_the_test_that_ran_and_those_that_did_not_start() {
        let found = reports(&format!("{OK}; {START_B}; kill -SEGV $$"), &["a", "b", "c"], LIMIT);
        assert_eq!(found[0].outcome, Outcome::Passed);
        assert!(found[1..].iter().all(|report| report.outcome == Outcome::Failed));
        assert!(found[1].output.starts_with("did not finish: its binary ended with signal: 11"), "{}", found[1].output);
        assert!(found[2].output.starts_with("did not start"));
    }

    #[test]
    fn a_binary_that_ends_well_without_a_result_fails_its_tests() {
        assert_eq!(reports("exit 0", &["a"], LIMIT)[0].outcome, Outcome::Failed);
    }

    #[test]
    fn a_binary_that_fails_after_its_tests_is_a_failure() {
        let found = reports(&format!("{OK}; exit 1"), &["a"], LIMIT);
        assert_eq!(found[0].outcome, Outcome::Passed);
        assert_eq!((found[1].path.as_str(), found[1].outcome), ("(binary)", Outcome::Failed));
    }

    #[test]
    fn a_binary_that_hangs_is_ended_at_its_deadline() {
        let start = Instant::now();
        let found = reports(&format!("{START_B}; exec sleep 60"), &["b"], Duration::from_secs(1));
        assert_eq!(found[0].outcome, Outcome::Failed);
        assert!(found[0].output.contains("longer than 1 s"));
        assert!(found[0].output.contains("thread sleep: "), "{}", found[0].output);
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn of_a_binary_that_hangs_it_is_told_what_it_waits_for() {
        let found = reports(&format!("{START_B}; sleep 60.125; true"), &["b", "c"], Duration::from_secs(1));
        let said = &found[0].output;
        assert!(said.contains("thread sh: ") && said.contains("sleep 60.125"), "{said}");
        assert!(found[1].output.starts_with("did not start") && !found[1].output.contains("sleep"));
    }

    #[test]
    fn a_program_left_behind_with_the_output_open_holds_nobody_up() {
        let start = Instant::now();
        let found = reports(&format!("sleep 15 & {OK}"), &["a"], LIMIT);
        assert_eq!(found[0].outcome, Outcome::Passed);
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}
