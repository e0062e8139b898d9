//! The program as a user meets it.

use std::path::Path;
use std::process::{Command, Output};

fn scale_sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_scale-sim")).args(arguments).output().unwrap()
}

fn error(arguments: &[&str]) -> String {
    let output = scale_sim(arguments);
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_file_of_tasks_is_played_with_the_given_fleet() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.csv");
    // Ten tasks of 10 s at once, two at a time, behind a start of no time: the last ones wait 40 s.
    let tasks = "100,10\n".repeat(10);
    std::fs::write(&file, format!("arrival_s,service_s\n{tasks}")).unwrap();
    let fleet = ["--slots", "2", "--startup", "0", "--min", "1", "--max", "1", "--target", "15", "--seed", "3"];
    let arguments = [&["run", "--trace", text(&file), "--policy", "kpa", "--json"], &fleet[..]].concat();
    let output = scale_sim(&arguments);
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let figures = &report["policies"]["kpa"];
    assert_eq!(figures["wait_p50_s"], 20.0);
    assert_eq!(figures["wait_p95_s"], 40.0);
    assert_eq!(figures["late_share"], 0.6);
    // One pod from the start to 400 s after the last arrival.
    assert_eq!(figures["cost_replica_s"], 500.0);
    assert_eq!((&figures["killed"], &figures["scale_events"]), (&0.into(), &0.into()));
}

#[test]
fn tasks_of_two_task_queues_have_slots_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("two.csv");
    // Two tasks of 10 s each on two queues, on a pod with one slot for each.
    let waits = |queues: [&str; 4]| {
        let tasks: String = queues.iter().map(|queue| format!("100,10,{queue}\n")).collect();
        std::fs::write(&file, format!("arrival_s,service_s,task_queue\n{tasks}")).unwrap();
        let fleet = ["--slots", "1", "--startup", "0", "--min", "1", "--max", "1"];
        let output = scale_sim(&[&["run", "--trace", text(&file), "--policy", "kpa", "--json"], &fleet[..]].concat());
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        report["policies"]["kpa"]["wait_p99_s"].as_f64().unwrap()
    };
    assert_eq!(waits(["mail", "video", "mail", "video"]), 10.0);
    assert_eq!(waits(["mail", "mail", "mail", "video"]), 20.0);
}

#[test]
fn a_run_without_json_prints_a_line_for_every_policy() {
    let output = scale_sim(&["run", "--trace", "sparse"]);
    let said = String::from_utf8(output.stdout).unwrap();
    for policy in ["ours", "ours-cordon", "keda", "keda-min1", "keda-expert", "hpa-slots", "kpa", "wci", "clairvoyant"]
    {
        assert!(said.lines().any(|line| line.split_whitespace().next() == Some(policy)), "{policy}: {said}");
    }
    assert!(said.contains("work bound"), "{said}");
}

#[test]
fn errors_say_what_is_wrong_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.csv");
    std::fs::write(&file, "arrival_s,service_s\n1,2\nsoon,2\n").unwrap();
    let name = text(&file);
    let said = error(&["run", "--trace", name]);
    assert!(said.contains(&format!("{name}, line 3: arrival_s is \"soon\"; write seconds from 0")), "{said}");
    let said = error(&["run", "--trace", "nothing"]);
    assert!(said.contains("nothing can't be opened; name a file, or one of steady, step,"), "{said}");
    let said = error(&["run", "--trace", "sparse", "--min", "5", "--max", "2"]);
    assert!(said.contains("--min 5 is above --max 2"), "{said}");
    let said = error(&["run", "--trace", "sparse", "--startup", "-3"]);
    assert!(said.contains("write seconds from 0 to 86400") || said.contains("unexpected argument"), "{said}");
    let said = error(&["run", "--trace", "sparse", "--policy", "best"]);
    assert!(said.contains("hpa-slots"), "{said}");
}

#[test]
fn the_table_has_a_row_for_each_trace_and_is_markdown_when_asked() {
    let arguments =
        ["table", "--seeds", "2", "--markdown", "--trace", "sparse", "--trace", "busyempty", "--policy", "keda"];
    let output = scale_sim(&arguments);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("| trace (work bound) |"), "{said}");
    assert_eq!(said.matches("| sparse (0.1)").count(), 2, "{said}");
    assert_eq!(said.matches("| busyempty (").count(), 2, "{said}");
    assert_eq!(scale_sim(&arguments).stdout, said.as_bytes(), "the order of the threads shows");
}

#[test]
fn marks_are_of_all_traces_and_policies() {
    let said = error(&["table", "--marks", "--trace", "sparse"]);
    assert!(said.contains("--marks") && said.contains("cannot be used with"), "{said}");
}

#[test]
fn a_plot_shows_arrivals_backlog_and_replicas_by_policy() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.svg");
    let output =
        scale_sim(&["plot", "--trace", "azllm_code", "--policy", "ours", "--policy", "kpa", "--out", text(&file)]);
    assert!(output.status.success(), "{output:?}");
    let picture = std::fs::read_to_string(&file).unwrap();
    assert!(picture.starts_with("<svg"), "{}", &picture[..80]);
    for word in ["arrivals/s", "tasks that wait", "replicas", "ours", "kpa", "minutes"] {
        assert!(picture.contains(word), "{word}");
    }
    let said = error(&["plot", "--trace", "sparse", "--out", "/nonexistent/run.svg"]);
    assert!(
        said.contains("--out /nonexistent/run.svg can't be written; name a file in a folder that exists"),
        "{said}"
    );
}
