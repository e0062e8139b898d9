//! Test Workflows of gates: what is known of them for a plan, and their start.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use operator_core::backoff::RetryClass;
use operator_core::events;
use operator_core::fleet::Fleet;
use operator_core::observed::{FailureClass, TemporalFailure};
use operator_core::plan::Plan;
use operator_core::rollout::gate::{Gate, Record, Unstarted};
use operator_core::status;

use super::carry_out::{Outcome, Work};
use super::look::Reconcile;
use super::memory::{Memory, Rest};
use crate::kube::gate_input::{self, InputError};
use crate::temporal::gates::{self, TestStart};

/// A test Workflow that could not be started.
#[derive(Clone, Debug)]
pub struct Failed {
    why: String,
    stalled: bool,
    rest: Rest,
    /// Generation of the object then: one that was changed is tried again at once.
    generation: Option<i64>,
}

/// A test Workflow that is to be started.
#[derive(Clone, Copy)]
pub(super) struct Test<'a> {
    pub gate: &'a Gate,
    pub build_id: &'a str,
    pub workflow_id: &'a str,
    pub task_queue: &'a str,
}

impl Reconcile<'_> {
    /// What is known of the target's gates beside the server's word.
    pub(super) fn gates(&self, fleet: &Fleet, memory: &Memory) -> Record {
        let build_id = fleet.build_id.as_deref().unwrap_or_default();
        let mut record = status::gate_record(&self.previous_status(memory), build_id);
        let now = Instant::now();
        let told = |failed: &Failed| Unstarted {
            why: failed.why.clone(),
            stalled: failed.stalled,
            resting: failed.rest.until > now && failed.generation == self.wd.metadata.generation,
        };
        record.unstarted = memory.unstarted.iter().map(|(id, failed)| (id.clone(), told(failed))).collect();
        record
    }

    /// Has the poller read what the plan needs to know, and forgets failures of what is not to be started any more.
    pub(super) fn follow_gates(&self, plan: &Plan, memory: &mut Memory) {
        let nothing = Default::default();
        let read = plan.rollout.as_ref().map_or(&nothing, |rollout| &rollout.gates.read);
        self.ctx.shared.poller.follow_tests(self.id, read);
        memory.unstarted.retain(|workflow_id, _| read.contains(workflow_id));
    }
}

/// Time until a test Workflow may be started that could not be.
pub(super) fn next_start(unstarted: &BTreeMap<String, Failed>) -> Option<Duration> {
    let now = Instant::now();
    unstarted.values().map(|failed| failed.rest.until.saturating_duration_since(now)).min()
}

/// Starts a test Workflow. That it can't be started is remembered, and ends nothing: it is the next plan's to say.
pub(super) async fn start(work: &Work<'_>, test: Test<'_>, memory: &mut Memory, outcome: &mut Outcome) {
    match try_start(work, test).await {
        Ok(run_id) => {
            memory.unstarted.remove(test.workflow_id);
            outcome.events.extend(run_id.as_ref().map(|_| events::test_started(test.workflow_id, test.task_queue)));
            work.ctx.shared.poller.test_started(&work.fleet.uid.as_str().into(), test.workflow_id, run_id);
        }
        Err((why, stalled)) => {
            let before = memory.unstarted.get(test.workflow_id).map(|failed| failed.rest.backoff).unwrap_or_default();
            let (backoff, after) = before.next(RetryClass::RateLimited, rand::random());
            let rest = Rest { backoff, until: Instant::now() + after };
            let failed = Failed { why, stalled, rest, generation: work.meta.generation };
            memory.unstarted.insert(test.workflow_id.to_owned(), failed);
        }
    }
}

/// Gives the run ID, or why there is none and whether somebody must act.
async fn try_start(work: &Work<'_>, test: Test<'_>) -> Result<Option<String>, (String, bool)> {
    let (shared, fleet) = (&work.ctx.shared, work.fleet);
    let input = &test.gate.input;
    let argument = gate_input::read(&work.ctx.client, &shared.secrets, &fleet.namespace, input).await;
    let argument = argument.map_err(|error| unusable(&error))?;
    let start = TestStart {
        namespace: &fleet.temporal_namespace,
        deployment: &fleet.deployment_name,
        build_id: test.build_id,
        workflow_id: test.workflow_id,
        workflow_type: &test.gate.workflow_type,
        task_queue: test.task_queue,
        argument: argument.as_ref().map(|argument| argument.0.as_slice()),
        identity: &shared.identity,
    };
    gates::start(work.connection, start).await.map_err(|failure| refused(&failure, test.workflow_id))
}

fn unusable(error: &InputError) -> (String, bool) {
    match error {
        InputError::Unusable(why) => (why.clone(), true),
        InputError::Call(call) => {
            (format!("the argument of its test Workflow can't be read: {call}."), call.is_forbidden())
        }
    }
}

fn refused(failure: &TemporalFailure, workflow_id: &str) -> (String, bool) {
    let passes = matches!(
        failure.class,
        FailureClass::Unreachable | FailureClass::ResourceExhausted | FailureClass::FailedPrecondition
    );
    (format!("test Workflow {workflow_id:?} could not be started: {}.", failure.message), !passes)
}
