//! `enter-group FOLDER PROGRAM [ARGUMENT]...`: enters a control group and becomes a program there. The runtime starts
//! handlers' programs with it, so that all that they start is in the group too.
//!
//! A program of its own, and a small one: the runtime's takes over a millisecond of CPU time to load, for each task. In images
//! it is linked statically, which saves the third of a millisecond that a dynamic linker takes.
#![deny(clippy::unwrap_used, clippy::expect_used)]

use std::convert::Infallible;
use std::env;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Exit code of what could not become the program that it should: that of `env` and `nohup`.
const NOT_STARTED: u8 = 125;

fn main() -> ExitCode {
    let Err(problem) = enter();
    eprintln!("enter-group: {problem}");
    ExitCode::from(NOT_STARTED)
}

/// Returns only when it fails.
fn enter() -> Result<Infallible, String> {
    let mut arguments = env::args_os().skip(1);
    let (Some(folder), Some(program)) = (arguments.next(), arguments.next()) else {
        return Err("name the folder of a control group, and a program".to_owned());
    };
    let processes = PathBuf::from(folder).join("cgroup.procs");
    // The file is there or the group is not: nothing is made. "0" is who writes.
    let entered = OpenOptions::new().write(true).open(&processes).and_then(|mut file| file.write_all(b"0"));
    entered.map_err(|error| format!("{} can't be written to: {error}", processes.display()))?;
    let error = Command::new(&program).args(arguments).exec();
    Err(format!("{} can't be started: {error}", program.display()))
}
