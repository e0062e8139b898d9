//! What the status says of gates, and what it stands for when it is read back.

use crate::api::{Reason, TargetVersion, TestWorkflow, WorkerDeploymentStatus};
use crate::commands;
use crate::fleet::Fleet;
use crate::observed::{TaskType, TemporalState, TestRun, TestStatus};
use crate::plan::Plan;
use crate::rollout::gate::{GateHold, Record, Test};
use crate::rollout::{Hold, Stage};
use crate::versions::last_info;

/// What a status says of the gates of a version. Nothing in it could not be started: that is the caller's to add.
#[must_use]
pub fn record(status: &WorkerDeploymentStatus, build_id: &str) -> Record {
    let target = &status.target_version;
    let own = target.test_workflows.iter().filter(|_| target.version.build_id == build_id);
    Record {
        tests: own.filter_map(test).collect(),
        retries: commands::retries(&status.handled_commands, build_id),
        ..Record::default()
    }
}

/// A word of another release is no test that this one knows.
fn test(told: &TestWorkflow) -> Option<Test> {
    let run =
        TestRun { run_id: told.run_id.clone(), status: TestStatus::of(&told.status)?, failure: told.message.clone() };
    Some(Test { workflow_id: told.workflow_id.clone(), task_queue: told.task_queue.clone(), run })
}

/// The tests that the status names: those that it named, as they are now, without those that count no more.
pub(super) fn tests(previous: &TargetVersion, fleet: &Fleet, plan: &Plan) -> Vec<TestWorkflow> {
    let of_target = Some(&previous.version.build_id) == fleet.build_id.as_ref();
    let mut told = if of_target { previous.test_workflows.clone() } else { Vec::new() };
    let Some(gates) = plan.rollout.as_ref().map(|rollout| &rollout.gates) else { return told };
    for test in &gates.tests {
        let now = TestWorkflow {
            workflow_id: test.workflow_id.clone(),
            run_id: test.run.run_id.clone(),
            status: test.run.status.as_str().to_owned(),
            task_queue: test.task_queue.clone(),
            message: test.run.failure.clone(),
        };
        match told.iter_mut().find(|before| before.workflow_id == now.workflow_id) {
            Some(before) => *before = now,
            None => told.push(now),
        }
    }
    if let Some(ids) = &gates.ids {
        told.retain(|test| ids.contains(&test.workflow_id));
    }
    told
}

/// Whether a gate needs somebody, or another try, and what to say then.
pub(super) fn verdict(stage: &Stage, fleet: &Fleet) -> Option<(Reason, String, bool)> {
    let (Stage::Waiting(hold) | Stage::Ramping { hold, .. }) = stage else { return None };
    let build_id = fleet.build_id.as_deref().unwrap_or_default();
    match hold {
        Hold::Gate(GateHold::Failed(test)) => Some((Reason::GateFailed, failed(test, stage, build_id), true)),
        Hold::Gate(GateHold::Unstarted(unstarted)) => {
            let message = format!("The gate of version {build_id} can't be run: {}", unstarted.why);
            Some((Reason::TestWorkflowStartFailed, message, unstarted.stalled))
        }
        _ => None,
    }
}

fn failed(test: &Test, stage: &Stage, build_id: &str) -> String {
    let Test { workflow_id, task_queue, run } = test;
    let said = run.failure.as_ref().map(|failure| format!(": {failure}")).unwrap_or_default();
    let share = match stage {
        Stage::Ramping { percent, .. } => format!("{percent} %"),
        _ => "none".to_owned(),
    };
    format!(
        "A gate of version {build_id}, which gets {share} of new Workflows, is not passed: test Workflow {workflow_id:?} on \
         Task Queue {task_queue:?} is {}{said}. Change the template, or annotate the object with {}={build_id}@<time> to run \
         it again, or with {}={build_id}@<time> to go on without it.",
        run.status.as_str(),
        commands::annotation("retry-gate"),
        commands::annotation("promote"),
    )
}

/// The rest of a sentence: what a gate waits for.
pub(super) fn why(hold: &GateHold) -> String {
    match hold {
        GateHold::Unread => "it is read from the server whether its gate was run.".into(),
        GateHold::Starting => "its gate is being started.".into(),
        GateHold::Running(test) => {
            format!("its gate runs, test Workflow {:?} on Task Queue {:?}.", test.workflow_id, test.task_queue)
        }
        GateHold::Settling(_) => "its gate is passed on the Task Queues that it polled, and it may poll more.".into(),
        GateHold::Unstarted(unstarted) => unstarted.why.clone(),
        GateHold::Failed(test) => format!("test Workflow {:?} is {}.", test.workflow_id, test.run.status.as_str()),
    }
}

/// A sentence for a version whose gate is passed because nothing could run it.
pub(super) fn not_run(fleet: &Fleet, temporal: &TemporalState) -> &'static str {
    let build_id = fleet.build_id.as_deref().unwrap_or_default();
    let lanes = last_info(temporal).and_then(|info| info.version(build_id)).map(|version| &version.lanes);
    let none =
        lanes.is_some_and(|lanes| !lanes.is_empty() && lanes.iter().all(|one| one.task_type != TaskType::Workflow));
    if fleet.rollout.gate.is_some() && none {
        " It polls no Task Queue for Workflows, so its gate is not run."
    } else {
        ""
    }
}
