//! Gates: test Workflows that must succeed on the target before it gets traffic.
//!
//! A gate is one test Workflow for each Task Queue for Workflows of the target, pinned to it. Its Workflow IDs say which
//! gate of which version it is, and which try: so whatever ends in between, each is started once, and what came of it is
//! found again. What ended is written into the status, and counts from there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Hold, LANES_SETTLE, Strategy, Target};
use crate::observed::{Observation, TaskType, TestRun, TestStatus, VersionInfo};

/// Longest message of a failure that is passed on, in bytes: it ends in conditions.
pub const MAX_FAILURE: usize = 512;

/// A test Workflow.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gate {
    /// Workflow Type.
    pub workflow_type: String,
    /// Its argument.
    pub input: Input,
}

/// The argument of a test Workflow.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Input {
    /// None.
    Nothing,
    /// This.
    Json(Value),
    /// The JSON text under a key of a ConfigMap.
    ConfigMap(Key),
    /// The JSON text under a key of a Secret. What its Workflow fails with is never shown: it may quote the argument.
    Secret(Key),
}

/// A key of an object in the fleet's own Kubernetes namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Key {
    /// Name of the object.
    pub name: String,
    /// The key.
    pub key: String,
    /// Whether the object or the key may be missing: then there is no argument.
    pub optional: bool,
}

/// One of the gates of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GateId {
    /// That before any traffic.
    Rollout,
    /// That before this share, in percent.
    Step(u8),
}

impl fmt::Display for GateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rollout => f.write_str("rollout"),
            Self::Step(percent) => write!(f, "ramp-{percent}"),
        }
    }
}

impl GateId {
    /// The gate that a word stands for, as it is displayed.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        match word.strip_prefix("ramp-") {
            Some(percent) => percent.parse().ok().map(Self::Step),
            None => (word == "rollout").then_some(Self::Rollout),
        }
    }
}

/// A test Workflow as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// Its Workflow ID.
    pub workflow_id: String,
    /// Its Task Queue.
    pub task_queue: String,
    /// Its last run.
    pub run: TestRun,
}

/// A test Workflow that is to be started.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// What it is.
    pub gate: Gate,
    /// Its Workflow ID.
    pub workflow_id: String,
    /// Its Task Queue.
    pub task_queue: String,
}

/// What is known of a target's gates beside the server's word.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// The tests that the status names.
    pub tests: Vec<Test>,
    /// The command that last had a gate run again, by its value.
    pub retries: BTreeMap<GateId, String>,
    /// Tests that could not be started, by Workflow ID.
    pub unstarted: BTreeMap<String, Unstarted>,
}

/// Why a test could not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unstarted {
    /// Object, field and remedy, or the server's words.
    pub why: String,
    /// Whether somebody must act.
    pub stalled: bool,
    /// Whether it is not to be tried again just now.
    pub resting: bool,
}

/// Why a gate is not passed yet.
#[derive(Clone, Debug, PartialEq)]
pub enum GateHold {
    /// It was not read yet whether its tests run.
    Unread,
    /// Tests are being started.
    Starting,
    /// One could not be started.
    Unstarted(Unstarted),
    /// One runs.
    Running(Test),
    /// Its tests succeeded, and the version may have Task Queues that it did not poll yet: for so long.
    Settling(Duration),
    /// One failed: nothing goes forward until the gate is run again.
    Failed(Test),
}

/// What a look at the gates came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gates {
    /// Tests that were seen.
    pub tests: Vec<Test>,
    /// Workflow IDs that count now, tests of others are history; none when nobody looked.
    pub ids: Option<BTreeSet<String>>,
    /// Workflow IDs to be read from the server.
    pub read: BTreeSet<String>,
    /// Tests to be started.
    pub start: Vec<Start>,
    /// The gate that failed, if one did.
    pub failed: Option<GateId>,
}

/// Looks at gates, and notes what is to be read, started and written down.
pub(super) struct Keeper<'a> {
    target: &'a Target<'a>,
    version: &'a VersionInfo,
    seen: &'a BTreeMap<String, Observation<Option<TestRun>>>,
    /// What it came to so far.
    pub gates: Gates,
}

/// What is known of one test.
enum Look {
    Unread,
    Absent,
    Is(TestRun),
}

impl<'a> Keeper<'a> {
    pub(super) fn new(
        target: &'a Target<'a>,
        version: &'a VersionInfo,
        seen: &'a BTreeMap<String, Observation<Option<TestRun>>>,
    ) -> Self {
        let gates = Gates { ids: Some(BTreeSet::new()), ..Gates::default() };
        let mut keeper = Self { target, version, seen, gates };
        if target.policy.gate.is_some() {
            keeper.counts(GateId::Rollout);
        }
        keeper
    }

    /// The test that failed of any gate under its last try, and whether that is written down.
    pub(super) fn failed(&mut self) -> Option<(Test, bool)> {
        let found = gates(self.target).find_map(|(id, gate)| {
            let looks = self.looks(id, gate);
            let failure = looks.into_iter().find_map(|(workflow_id, task_queue, look)| match look {
                Look::Is(run) if run.status.is_failure() => Some(Test { workflow_id, task_queue, run }),
                _ => None,
            });
            failure.map(|test| (id, test))
        });
        let (id, test) = found?;
        self.counts(id);
        self.note(&test);
        self.gates.failed = Some(id);
        let written = self.recorded(&test.workflow_id).is_some();
        if !written {
            self.gates.read.insert(test.workflow_id.clone());
        }
        Some((test, written))
    }

    /// Whether a gate is passed; one that is not set is, and one of a version that polls no Task Queue for Workflows.
    pub(super) fn pass(&mut self, id: GateId, gate: Option<&Gate>) -> Result<(), Hold> {
        let Some(gate) = gate else { return Ok(()) };
        self.counts(id);
        let mut holds = Vec::new();
        for (workflow_id, task_queue, look) in self.looks(id, gate) {
            if self.recorded(&workflow_id).is_none() {
                self.gates.read.insert(workflow_id.clone());
            }
            match look {
                Look::Unread => holds.push(GateHold::Unread),
                Look::Absent => holds.push(self.absent(gate, workflow_id, task_queue)),
                Look::Is(run) => {
                    let test = Test { workflow_id, task_queue, run };
                    self.note(&test);
                    match test.run.status {
                        TestStatus::Completed => {}
                        TestStatus::Running => holds.push(GateHold::Running(test)),
                        _ => holds.push(GateHold::Failed(test)),
                    }
                }
            }
        }
        let unsettled = LANES_SETTLE.saturating_sub(self.version.lanes_unchanged_for);
        if !unsettled.is_zero() {
            holds.push(GateHold::Settling(unsettled));
        }
        match holds.into_iter().min_by_key(urgency) {
            Some(hold) => Err(Hold::Gate(hold)),
            None => Ok(()),
        }
    }

    /// Has a test started that the server does not know, unless that failed a moment ago.
    fn absent(&mut self, gate: &Gate, workflow_id: String, task_queue: String) -> GateHold {
        let unstarted = self.target.gates.unstarted.get(&workflow_id).cloned();
        if !unstarted.as_ref().is_some_and(|unstarted| unstarted.resting) {
            self.gates.start.push(Start { gate: gate.clone(), workflow_id, task_queue });
        }
        unstarted.map_or(GateHold::Starting, GateHold::Unstarted)
    }

    fn looks(&self, id: GateId, gate: &Gate) -> Vec<(String, String, Look)> {
        let lanes = self.version.lanes.iter().filter(|lane| lane.task_type == TaskType::Workflow);
        let look = |task_queue: &String| {
            let workflow_id = workflow_id(self.target, id, task_queue);
            let look = self.look(gate, &workflow_id);
            (workflow_id, task_queue.clone(), look)
        };
        lanes.map(|lane| look(&lane.task_queue)).collect()
    }

    /// What ended stays what it is, so an old reading of it counts too. Absence counts only while it is fresh.
    fn look(&self, gate: &Gate, workflow_id: &str) -> Look {
        if let Some(run) = self.recorded(workflow_id) {
            return Look::Is(run.clone());
        }
        match self.seen.get(workflow_id) {
            Some(Observation::Known { value: None, .. }) => Look::Absent,
            Some(Observation::Known { value: Some(run), .. } | Observation::Stale { value: Some(run), .. }) => {
                Look::Is(shown(gate, run))
            }
            _ => Look::Unread,
        }
    }

    /// A test that the status says has ended.
    fn recorded(&self, workflow_id: &str) -> Option<&TestRun> {
        let tests = self.target.gates.tests.iter();
        tests
            .filter(|test| test.run.status.is_over())
            .find(|test| test.workflow_id == workflow_id)
            .map(|test| &test.run)
    }

    fn counts(&mut self, id: GateId) {
        let lanes = self.version.lanes.iter().filter(|lane| lane.task_type == TaskType::Workflow);
        let ids = lanes.map(|lane| workflow_id(self.target, id, &lane.task_queue));
        self.gates.ids.get_or_insert_default().extend(ids);
    }

    fn note(&mut self, test: &Test) {
        if !self.gates.tests.contains(test) {
            self.gates.tests.push(test.clone());
        }
    }
}

/// Which of several reasons is said: what somebody must act on first.
fn urgency(hold: &GateHold) -> u8 {
    match hold {
        GateHold::Failed(_) => 0,
        GateHold::Unstarted(_) => 1,
        GateHold::Starting => 2,
        GateHold::Running(_) => 3,
        GateHold::Unread => 4,
        GateHold::Settling(_) => 5,
    }
}

/// Every gate that is set, in the order in which they come.
fn gates<'a>(target: &Target<'a>) -> impl Iterator<Item = (GateId, &'a Gate)> + use<'a> {
    let policy = target.policy;
    let steps = match &policy.strategy {
        Strategy::Progressive(steps) => steps.as_slice(),
        Strategy::Manual | Strategy::AllAtOnce => &[],
    };
    let of_steps = steps.iter().filter_map(|step| Some((GateId::Step(step.percent), step.gate.as_ref()?)));
    policy.gate.iter().map(|gate| (GateId::Rollout, gate)).chain(of_steps)
}

/// The Workflow ID of a test: that of temporal-worker-controller, and one of its own for the gate of a step and for each
/// retry. A Build ID has no colon, so that no Task Queue's name makes two of them the same.
fn workflow_id(target: &Target<'_>, id: GateId, task_queue: &str) -> String {
    let (deployment, build_id) = (target.deployment_name, target.build_id);
    let step = match id {
        GateId::Rollout => String::new(),
        step @ GateId::Step(_) => format!(":{step}"),
    };
    let retry = target.gates.retries.get(&id).map(|value| format!(":retry-{}", digest(value))).unwrap_or_default();
    format!("test-{deployment}:{build_id}{step}{retry}-{task_queue}")
}

fn digest(value: &str) -> String {
    Sha256::digest(value.as_bytes()).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// A run as it may be shown: its failure is cut, and left out when it may quote a Secret.
fn shown(gate: &Gate, run: &TestRun) -> TestRun {
    let failure = run.failure.as_deref().filter(|_| !matches!(gate.input, Input::Secret(_)));
    TestRun { failure: failure.map(cut), ..run.clone() }
}

fn cut(text: &str) -> String {
    if text.len() <= MAX_FAILURE {
        return text.to_owned();
    }
    let end = (0..MAX_FAILURE - 2).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    format!("{}\u{2026}", &text[..end])
}

#[cfg(test)]
mod tests;
