//! Test Workflows that are to be started, as writes.

use super::{Action, PlanInput};
use crate::rollout::Rollout;

/// Test Workflows that one plan starts at most: the next one goes on.
const AT_A_TIME: usize = 8;

/// The tests that a gate calls for and the server does not know.
pub(super) fn starts(input: &PlanInput<'_>, rollout: Option<&Rollout>) -> Vec<Action> {
    let (Some(build_id), Some(rollout)) = (&input.fleet.build_id, rollout) else { return Vec::new() };
    let start = |start: &crate::rollout::gate::Start| Action::StartGate {
        build_id: build_id.clone(),
        workflow_id: start.workflow_id.clone(),
        task_queue: start.task_queue.clone(),
        gate: start.gate.clone(),
    };
    rollout.gates.start.iter().take(AT_A_TIME).map(start).collect()
}
