//! Runs each fuzz target for ten minutes. Needs cargo-fuzz, which it installs where it is missing.

use std::path::Path;
use std::process::Command;

/// Seconds that each target gets.
const SECONDS: u32 = 600;

/// A cargo command in the package that runs with the features of an unstable compiler, which sanitizers need.
fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).env("RUSTC_BOOTSTRAP", "1");
    command
}

fn run(mut command: Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?} ended with {status}; what it found is in worker-runtime/fuzz/artifacts");
}

/// Runs a target, from the corpus of the project.
fn fuzz(target: &str) {
    if !cargo(&["fuzz", "--version"]).output().unwrap().status.success() {
        run(cargo(&["install", "--locked", "cargo-fuzz"]));
    }
    // New inputs go into the first folder: the corpus stays as it is.
    let new = tempfile::tempdir().unwrap();
    let mut command = cargo(&["fuzz", "run", target]);
    command.arg(new.path()).arg(Path::new("fuzz/corpus").join(target));
    command.args(["--", &format!("-max_total_time={SECONDS}"), "-timeout=20"]);
    run(command);
}

#[test]
fn ten_minutes_of_lines_of_a_pool_find_nothing() {
    fuzz("line_protocol");
}

#[test]
fn ten_minutes_of_failures_find_nothing() {
    fuzz("failure");
}

#[test]
fn ten_minutes_of_configurations_find_nothing() {
    fuzz("configuration");
}

#[test]
fn ten_minutes_of_payloads_find_nothing() {
    fuzz("codec");
}

#[test]
fn ten_minutes_of_calls_through_the_sidecar_find_nothing() {
    fuzz("proxy");
}
