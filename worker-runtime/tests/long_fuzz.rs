//! Runs each fuzz target for ten minutes. Needs cargo-fuzz, which it installs where it is missing.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Seconds that each target gets.
const SECONDS: u32 = 600;
const TARGETS: [&str; 5] = ["line_protocol", "failure", "configuration", "codec", "proxy"];

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

#[test]
fn every_target_finds_nothing_in_ten_minutes() {
    let found = tempfile::tempdir().unwrap();
    if !cargo(&["fuzz", "--version"]).output().unwrap().status.success() {
        run(cargo(&["install", "--locked", "cargo-fuzz"]));
    }
    for target in TARGETS {
        // New inputs go into the first folder: the corpus of the project stays as it is.
        let kept = Path::new("fuzz/corpus").join(target);
        let new: PathBuf = found.path().join(target);
        std::fs::create_dir(&new).unwrap();
        let mut command = cargo(&["fuzz", "run", target]);
        command.args([&new, &kept]).args(["--", &format!("-max_total_time={SECONDS}"), "-timeout=20"]);
        run(command);
    }
}
