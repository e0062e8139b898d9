//! Runs the examples of the documentation.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::binaries::cargo_test;
use crate::libtest::{End, Report, follow, lines_of};
use crate::summary::Outcome;

const DEADLINE: Duration = Duration::from_secs(10 * 60);

/// Compiles and runs every example of every library whose name contains `filter`.
///
/// Cargo reports them as text without times: `seconds` is the time since the result before it.
///
/// # Errors
/// The examples can't be built, or take longer than ten minutes.
pub fn run(root: &Path, filter: &str, mut tell: impl FnMut(&Report)) -> Result<()> {
    let mut child = cargo_test(root)
        .args(["--doc", "--quiet", "--no-fail-fast", "--", "--format", "pretty", filter])
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = lines_of(child.stdout.take());
    let mut last = Instant::now();
    let mut failed = 0;
    let end = follow(&mut child, &lines, DEADLINE, |line| match report_of(line, last.elapsed()) {
        Some(report) => {
            last = Instant::now();
            failed += usize::from(report.outcome == Outcome::Failed);
            tell(&report);
        }
        // Why an example failed stands between the results.
        None if failed > 0 => eprintln!("{line}"),
        None => {}
    })?;
    ensure!(!matches!(end, End::Hung(_)), "the examples of the documentation took too long");
    ensure!(end.is_success() || failed > 0, "the examples of the documentation could not be run");
    Ok(())
}

/// Reads `test worker-runtime/src/library.rs - library (line 29) - compile ... ok`.
fn report_of(line: &str, since: Duration) -> Option<Report> {
    let (path, result) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let outcome = match result.split([' ', ',']).next()? {
        "ok" => Outcome::Passed,
        "ignored" => Outcome::Skipped,
        "FAILED" => Outcome::Failed,
        _ => return None,
    };
    Some(Report { path: path.to_owned(), outcome, seconds: since.as_secs_f64(), output: String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_told_from_other_lines() {
        let outcome = |line: &str| report_of(line, Duration::ZERO).map(|report| report.outcome);
        assert_eq!(outcome("test a/src/b.rs - c (line 3) - compile ... ok"), Some(Outcome::Passed));
        assert_eq!(outcome("test a/src/b.rs - c (line 3) ... ignored"), Some(Outcome::Skipped));
        assert_eq!(outcome("test a/src/b.rs - c (line 3) ... FAILED"), Some(Outcome::Failed));
        assert_eq!(outcome("test result: ok. 1 passed; 0 failed"), None);
        assert_eq!(outcome("running 1 test"), None);
    }
}
