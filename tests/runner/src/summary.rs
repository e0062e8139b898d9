//! What came of all tests: the lines on the terminal, and `target/test/summary.json`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::kind::Kind;
use crate::libtest::Report;

/// Lines of a failed test's output that are printed again at the end.
const REPEATED: usize = 12;

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It held.
    Passed,
    /// It did not hold, crashed, or did not end in time.
    Failed,
    /// It is marked `#[ignore]`.
    Skipped,
}

#[derive(Debug, Serialize)]
struct Test {
    name: String,
    kind: Kind,
    outcome: Outcome,
    seconds: f64,
    #[serde(skip)]
    output: String,
}

/// The results so far.
#[derive(Debug, Default)]
pub struct Summary {
    tests: Vec<Test>,
}

impl Summary {
    /// Adds a result and prints it: one line, and for a failure what the test printed.
    pub fn add(&mut self, title: &str, kind: Kind, report: &Report) {
        let name = format!("{title}::{}", report.path);
        let word = match report.outcome {
            Outcome::Passed => "ok    ",
            Outcome::Failed => "FAILED",
            Outcome::Skipped => "skip  ",
        };
        println!("{word} {:>8.2} s  {name}", report.seconds);
        if report.outcome == Outcome::Failed && !report.output.is_empty() {
            println!("{}", report.output.trim_end());
        }
        let output = if report.outcome == Outcome::Failed { beginning(&report.output) } else { String::new() };
        self.tests.push(Test { name, kind, outcome: report.outcome, seconds: report.seconds, output });
    }

    /// Whether no test was run.
    pub fn is_empty(&self) -> bool {
        self.tests.is_empty()
    }

    /// Writes the results as a JSON list of `{name, kind, outcome, seconds}`.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.tests)? + "\n";
        let folder = file.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        fs::write(file, text).with_context(|| format!("write {}", file.display()))
    }

    /// Prints the failures and skipped tests again, then the totals; returns whether the run is a success.
    pub fn close(&self, no_skips: bool) -> bool {
        let with = |outcome| self.tests.iter().filter(move |test| test.outcome == outcome);
        let named = |outcome| with(outcome).map(|test| &test.name);
        for Test { name, output, .. } in with(Outcome::Failed) {
            println!("failed: {name}\n{output}");
        }
        for name in named(Outcome::Skipped) {
            println!("skipped{}: {name}", if no_skips { ", which fails a run with CI=true" } else { "" });
        }
        let [passed, failed, skipped] =
            [Outcome::Passed, Outcome::Failed, Outcome::Skipped].map(|outcome| named(outcome).count());
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        failed == 0 && !(no_skips && skipped > 0)
    }
}

/// The first lines of a failure, which tell why: who looks at the end of a long run sees them there.
fn beginning(output: &str) -> String {
    output.lines().take(REPEATED).flat_map(|line| ["  ", line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(outcomes: &[Outcome]) -> Summary {
        let mut summary = Summary::default();
        for outcome in outcomes {
            let report = Report { path: "path".into(), outcome: *outcome, seconds: 0.5, output: String::new() };
            summary.add("package", Kind::Api, &report);
        }
        summary
    }

    #[test]
    fn a_skipped_test_fails_the_run_where_skips_are_forbidden() {
        assert!(summary(&[Outcome::Passed, Outcome::Skipped]).close(false));
        assert!(!summary(&[Outcome::Passed, Outcome::Skipped]).close(true));
        assert!(!summary(&[Outcome::Passed, Outcome::Failed]).close(false));
        assert!(summary(&[Outcome::Passed]).close(true));
    }

    #[test]
    fn a_failure_is_told_again_by_its_first_lines() {
        let output: String = (0..40).map(|line| format!("line {line}\n")).collect();
        let told = beginning(&output);
        assert!(told.starts_with("  line 0\n  line 1\n") && told.lines().count() == REPEATED, "{told}");
        assert_eq!(beginning(""), "");
    }

    #[test]
    fn the_file_is_a_list_of_name_kind_outcome_and_seconds() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("test/summary.json");
        summary(&[Outcome::Failed]).write(&file).unwrap();
        let read: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        let expected =
            serde_json::json!([{"name": "package::path", "kind": "api", "outcome": "failed", "seconds": 0.5}]);
        assert_eq!(read, expected);
    }
}
