//! Recordings of simulated runs, made again.

use std::process::Command;

use operator_core::scaling::DecisionRecord;
use scale_sim::observation::Bounds;
use scale_sim::policies::Ours;
use scale_sim::replay::replay;
use scale_sim::simulate_with;
use scale_sim::traces::TraceName;

const BOUNDS: Bounds = Bounds { min: 0, max: 100 };

/// Every decision of a run on a recorded burst of traffic, a line each, as the operator writes them.
fn recording() -> String {
    let mut lines = String::new();
    let workload = TraceName::AzllmCode.workload(1).unwrap();
    let mut ours = Ours::new(&workload, BOUNDS).with_cordon().with_witness(Box::new(|policy, input, state, made| {
        let record = DecisionRecord::new("llm/code", policy, input, state, made).unwrap();
        lines += &(serde_json::to_string(&record).unwrap() + "\n");
    }));
    let _ = simulate_with(&workload, &mut ours, BOUNDS, 1, None);
    drop(ours);
    lines
}

#[test]
fn a_recorded_run_is_decided_again_byte_for_byte() {
    let lines = recording();
    let replayed = replay("run.jsonl", lines.as_bytes()).unwrap();
    assert_eq!((replayed.difference, replayed.cut), (None, false));
    assert_eq!(replayed.decisions, lines.lines().count());
    assert!(replayed.decisions > 500, "{}", replayed.decisions);
    assert_eq!(replayed.fleets.into_iter().collect::<Vec<_>>(), ["llm/code"]);
}

#[test]
fn a_changed_byte_is_found_with_its_line_and_what_it_is_part_of() {
    let lines: Vec<String> = recording().lines().map(Into::into).collect();
    let busy = lines.iter().position(|line| line.contains("\"desired\":3,")).unwrap();
    let difference = |from: &str, to: &str| {
        let mut changed = lines.clone();
        assert!(changed[busy].contains(from), "{from}");
        changed[busy] = changed[busy].replacen(from, to, 1);
        replay("run.jsonl", changed.join("\n").as_bytes()).unwrap().difference.unwrap()
    };
    let found = difference("\"decision\":{\"desired\":3,", "\"decision\":{\"desired\":4,");
    assert_eq!((found.line, found.what, found.fleet.as_str()), (busy + 1, "the decision", "llm/code"));
    assert!(found.recorded.contains("\"desired\":4,") && found.made.contains("\"desired\":3,"), "{found:?}");
    let found = difference("\"next\":\"", "\"next\":\"0");
    assert_eq!((found.line, found.what), (busy + 1, "the state after"));
    // A number that no writer writes so.
    let found = difference("\"percentile\":0.95,", "\"percentile\":0.950,");
    assert_eq!((found.line, found.what), (busy + 1, "what was recorded"));
}

#[test]
fn the_command_says_what_came_of_it_and_fails_at_a_difference() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.jsonl");
    let scale_sim = || Command::new(env!("CARGO_BIN_EXE_scale-sim")).arg("replay").arg(&file).output().unwrap();
    let lines = recording();
    // The operator was ended in the middle of a line.
    let (start, _) = lines.split_at(lines.len() - 100);
    std::fs::write(&file, start).unwrap();
    let output = scale_sim();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("decisions of 1 fleets, each made again byte for byte"), "{said}");
    assert!(said.contains("its last line is cut off"), "{said}");

    std::fs::write(&file, lines.replacen("\"decision\":{\"desired\":", "\"decision\":{\"desired\":7", 1)).unwrap();
    let output = scale_sim();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(!output.status.success() && said.contains("line 1, fleet llm/code: the decision differs"), "{said}");

    std::fs::write(&file, "{}\n").unwrap();
    let output = scale_sim();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("line 1: is no recorded decision: missing field"), "{said}");
}
