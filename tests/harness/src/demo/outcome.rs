//! What came of the burst: saves the histories and the summary, shows it, and fails when anything is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::burst::{WIDTH, WORKFLOW_ID};
use super::fleets::Fleet;
use super::history::{Run, Task};
use super::stage::{Stage, fresh_folder};
use super::summary::{FleetSummary, Replicas, Summary, WorkTimes, task_problems};
use super::{CHECKS_QUEUE, NAMESPACE, PICTURES, THUMBNAILS};
use crate::programs::{self, source_root};

/// Saves, shows and judges what came of the burst.
///
/// # Errors
/// A task was not completed once and rightly, or a fleet did not go from zero and back; every problem is named.
pub async fn report(stage: &Stage, tasks: u32, fleets: &[Fleet]) -> Result<()> {
    let folder = source_root().join("target/demo");
    let histories = save_histories(stage, &folder, WORKFLOW_ID)?;
    let run = Run::parse(histories.get(WORKFLOW_ID).context("the Workflow's history is missing")?)?;
    let events = stage.cluster.audit_events()?;
    let ways: Vec<_> = [
        (PICTURES, Some(WorkTimes::of_workflow(&run)), 1),
        (THUMBNAILS, WorkTimes::of_activities(&run, THUMBNAILS), 2),
    ]
    .into_iter()
    .filter_map(|(name, work, least)| {
        let children = fleets.iter().find(|fleet| fleet.name == name).map(|fleet| fleet.children.as_slice());
        Some((name, Replicas::of(&events, NAMESPACE, children.unwrap_or_default()), work?, least))
    })
    .collect();
    let made: Vec<&Task> = run.tasks_of(THUMBNAILS).collect();
    let completed = made.iter().filter(|task| task.completed().is_some()).count();
    let summary = Summary {
        tasks_started: made.len(),
        tasks_completed: completed,
        tasks_lost: made.len() - completed,
        fleets: ways.iter().map(|(name, replicas, work, _)| replicas.summary(name, work)).collect(),
    };
    fs::write(folder.join("summary.json"), serde_json::to_vec_pretty(&summary)?).context("write summary.json")?;
    let mut problems: Vec<String> =
        ways.iter().flat_map(|(name, replicas, work, least)| replicas.problems(name, work, *least)).collect();
    problems.extend(work_problems(stage, &run, tasks)?);
    show(&summary, &run);
    ensure!(problems.is_empty(), "not everything went as it should:\n  {}", problems.join("\n  "));
    println!("  Every task was completed once, on its first attempt, and every thumbnail is the right one.");
    println!("  Written to target/demo: summary.json, and histories/ as the Temporal server returns them.");
    Ok(())
}

/// Writes the history of a Workflow, and of every other one, into a file each, and gives them back by Workflow ID.
///
/// # Errors
/// The server does not answer, or a file can't be written.
pub fn save_histories(stage: &Stage, folder: &Path, workflow_id: &str) -> Result<BTreeMap<String, Value>> {
    fresh_folder(folder)?;
    let folder = folder.join("histories");
    fs::create_dir(&folder)?;
    let listed = stage.temporal(&["workflow", "list"])?;
    let listed = listed.as_array().into_iter().flatten();
    let ids = listed.filter_map(|workflow| workflow.pointer("/execution/workflowId")?.as_str().map(str::to_owned));
    // The list is made aside and may lag behind.
    let ids: BTreeSet<String> = ids.chain([workflow_id.to_owned()]).collect();
    let mut histories = BTreeMap::new();
    for id in ids {
        let history = stage.temporal(&["workflow", "show", "--workflow-id", &id, "--no-json-shorthand-payloads"])?;
        let file = folder.join(format!("{}.json", id.replace('/', "_")));
        fs::write(&file, serde_json::to_vec_pretty(&history)?).with_context(|| format!("write {}", file.display()))?;
        histories.insert(id, history);
    }
    Ok(histories)
}

fn work_problems(stage: &Stage, run: &Run, tasks: u32) -> Result<Vec<String>> {
    let thumbnails: Vec<&Task> = run.tasks_of(THUMBNAILS).collect();
    let checks: Vec<&Task> = run.tasks_of(CHECKS_QUEUE).collect();
    let expected = expected_thumbnails(stage)?;
    let mut problems = run.failures.clone();
    problems.extend(task_problems(&thumbnails, |input| {
        (input["width"] == WIDTH).then(|| expected.get(input["picture"].as_str()?).cloned()).flatten()
    }));
    problems.extend(task_problems(&checks, |made| Some(json!(made.as_array()?.len()))));
    if thumbnails.len() != tasks as usize {
        problems.push(format!("{} tasks were started, not {tasks}", thumbnails.len()));
    }
    let checked: usize = checks.iter().filter_map(|check| check.input.as_array()).map(Vec::len).sum();
    if checked != tasks as usize {
        problems.push(format!("the Workflow had {checked} thumbnails checked, not {tasks}"));
    }
    match &run.closed {
        Some((_, how)) if how == "WORKFLOW_EXECUTION_COMPLETED" => {}
        other => problems.push(format!("the Workflow did not complete: {other:?}")),
    }
    Ok(problems)
}

/// What the program gives for each picture when it is run here, outside the cluster.
fn expected_thumbnails(stage: &Stage) -> Result<BTreeMap<String, Value>> {
    let program = stage.programs.program("thumbnail")?;
    let mut expected = BTreeMap::new();
    for number in 0..programs::PICTURES {
        let picture = format!("picture-{number:03}.jpg");
        let mut child = Command::new(program)
            .arg(stage.pictures.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let order = json!([{"picture": picture, "width": WIDTH}]).to_string();
        child.stdin.take().context("no standard input")?.write_all(order.as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "the program thumbnail fails for {picture}");
        expected.insert(picture, serde_json::from_slice(&output.stdout)?);
    }
    Ok(expected)
}

fn show(summary: &Summary, run: &Run) {
    let workers: BTreeSet<&str> =
        run.tasks_of(THUMBNAILS).filter_map(|task| Some(task.started.as_ref()?.1.as_str())).collect();
    println!("\nSummary");
    println!(
        "  Tasks: {} started, {} completed, {} lost; done by {} pods.",
        summary.tasks_started,
        summary.tasks_completed,
        summary.tasks_lost,
        workers.len()
    );
    println!(
        "  {:<12} {:>24} {:>24} {:>14} {:>24}",
        "fleet", "task → replicas patched", "→ first task completed", "max replicas", "last task → zero"
    );
    for fleet in &summary.fleets {
        println!("{}", row(fleet));
    }
}

fn row(fleet: &FleetSummary) -> String {
    let seconds = |milliseconds: Option<i64>| {
        let shown = milliseconds.map(|value| format!("{}.{:03} s", value / 1000, value % 1000));
        shown.unwrap_or_else(|| "-".to_owned())
    };
    let back = fleet.back_to_zero_s.map_or_else(|| "-".to_owned(), |value| format!("{value:.1} s"));
    format!(
        "  {:<12} {:>24} {:>24} {:>14} {:>24}",
        fleet.name,
        seconds(fleet.cold_start_replicas_ms),
        seconds(fleet.cold_start_first_task_ms),
        fleet.max_replicas,
        back,
    )
}
