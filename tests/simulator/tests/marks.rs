//! Whether the operator's decision is as good as it is to be, on every trace.

use std::process::Command;

/// On five fixed seeds, and for the costs on three that are drawn: the output names them.
#[test]
fn the_operators_decision_reaches_every_mark() {
    let output = Command::new(env!("CARGO_BIN_EXE_scale-sim")).args(["table", "--marks"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    println!("{said}");
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches(" met\n").count(), 24, "a mark is missing:\n{said}");
}
