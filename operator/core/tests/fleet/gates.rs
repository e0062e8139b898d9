//! Gates from the manifest to the plan, the status and the events.

use std::collections::BTreeMap;

use operator_core::api::{ConditionType, Reason, WorkerDeploymentStatus};
use operator_core::events::{gates_failed, readiness_changed};
use operator_core::fleet::Fleet;
use operator_core::observed::{LaneKey, TaskType, TemporalState, TestRun, TestStatus, VersionStatus};
use operator_core::plan::{Action, Plan, PlanInput, plan};
use operator_core::rollout::gate::{Gate, GateId, Input, Key, Record, Unstarted};
use operator_core::scaling::State;
use operator_core::status::{StatusInput, compute, gate_record};
use serde_json::{Value, json};

use crate::fixtures::*;

const OLD: &str = "old";

/// A fleet whose target polls a Task Queue for Workflows beside a current version, and what was written of it so far.
struct World {
    fleet: Fleet,
    temporal: TemporalState,
    written: WorkerDeploymentStatus,
    unstarted: Option<Unstarted>,
    annotations: BTreeMap<String, String>,
}

impl World {
    fn new(rollout: Value) -> Self {
        let fleet = fleet(json!({"runtime": runtime(), "rollout": rollout}));
        let mut temporal = server(&fleet, 0);
        if let operator_core::observed::Observation::Known { value: Some(info), .. } = &mut temporal.deployment {
            let target = fleet.build_id.clone().unwrap();
            let version = info.version(&target).cloned().unwrap();
            let workflows = LaneKey { task_queue: "flows".into(), task_type: TaskType::Workflow };
            let mut own = version.clone();
            own.status = VersionStatus::Inactive;
            own.lanes_unchanged_for = std::time::Duration::from_secs(99);
            own.lanes.insert(workflows);
            info.versions = [(target, known(Some(own))), (OLD.to_owned(), known(Some(version)))].into();
            info.current_build_id = Some(OLD.to_owned());
            info.manager_identity = "me".into();
        }
        Self { fleet, temporal, written: Default::default(), unstarted: None, annotations: BTreeMap::new() }
    }

    fn gated() -> Self {
        Self::new(json!({"strategy": "AllAtOnce", "gate": {"workflowType": "Smoke"}}))
    }

    fn build_id(&self) -> String {
        self.fleet.build_id.clone().unwrap()
    }

    fn id(&self) -> String {
        format!("test-prod/orders:{}-flows", self.build_id())
    }

    fn test_is(&mut self, workflow_id: &str, status: TestStatus, failure: Option<&str>) {
        let run = TestRun { run_id: "r1".into(), status, failure: failure.map(str::to_owned) };
        self.temporal.test_workflows = [(workflow_id.to_owned(), known(Some(run)))].into();
    }

    fn record(&self) -> Record {
        let mut record = gate_record(&self.written, &self.build_id());
        record.unstarted = self.unstarted.clone().map(|unstarted| (self.id(), unstarted)).into_iter().collect();
        record
    }

    fn plan(&self) -> Plan {
        let (kube, state) = (cluster(&self.fleet, 1, 0), State::default());
        plan(&PlanInput { gates: &self.record(), ..plan_input(&self.fleet, &kube, &self.temporal, &state) })
    }

    /// What is written after a plan.
    fn status(&self) -> WorkerDeploymentStatus {
        compute(&StatusInput {
            generation: 3,
            previous: &self.written,
            blocked: None,
            planned: Some((&self.fleet, &self.plan())),
            kube: &cluster(&self.fleet, 1, 0),
            temporal: &self.temporal,
            scaled_to: &BTreeMap::new(),
            annotations: &self.annotations,
            order: Default::default(),
            stale_for: None,
            now: NOW,
        })
    }

    fn write(&mut self) {
        self.written = self.status();
    }

    fn routes_or_starts(&self) -> Vec<Action> {
        let is = |action: &Action| {
            matches!(
                action,
                Action::StartGate { .. }
                    | Action::SetCurrent { .. }
                    | Action::SetRamping { .. }
                    | Action::ClearRamp { .. }
            )
        };
        self.plan().actions.into_iter().filter(is).collect()
    }

    fn says(&self) -> String {
        let status = self.status();
        status.condition(ConditionType::Ready).unwrap().message.clone()
    }
}

#[test]
fn a_test_is_started_by_its_id_before_any_change_of_the_routing() {
    let mut world = World::gated();
    world.temporal.test_workflows = [(world.id(), known(None))].into();
    let expected = Action::StartGate {
        build_id: world.build_id(),
        workflow_id: world.id(),
        task_queue: "flows".into(),
        gate: Gate { workflow_type: "Smoke".into(), input: Input::Nothing },
    };
    assert_eq!(world.routes_or_starts(), [expected]);
    let status = world.status();
    assert_eq!(words(&status, ConditionType::Ready), says("False", Reason::WaitingForPromotion));
    world.test_is(&world.id(), TestStatus::Completed, None);
    assert!(matches!(world.routes_or_starts()[..], [Action::SetCurrent { .. }]), "{:?}", world.routes_or_starts());
}

#[test]
fn the_status_names_each_test_and_is_what_the_next_plan_stands_on() {
    let mut world = World::gated();
    world.test_is(&world.id(), TestStatus::Running, None);
    world.write();
    let told = |world: &World| {
        let tests = &world.written.target_version.test_workflows;
        tests
            .iter()
            .map(|test| (test.workflow_id.clone(), test.run_id.clone(), test.status.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(told(&world), [(world.id(), "r1".to_owned(), "Running".to_owned())]);
    assert!(world.says().contains("its gate runs"), "{}", world.says());
    world.test_is(&world.id(), TestStatus::Completed, None);
    world.write();
    assert_eq!(told(&world), [(world.id(), "r1".to_owned(), "Completed".to_owned())]);
    // A process that was started anew has read nothing of it.
    world.temporal.test_workflows.clear();
    assert!(matches!(world.routes_or_starts()[..], [Action::SetCurrent { .. }]));
    // Nor does a server that is away make it forget.
    let away = TemporalState::default();
    let before = std::mem::replace(&mut world.temporal, away);
    world.write();
    assert_eq!(told(&world).len(), 1);
    world.temporal = before;
    world.written.target_version.version.build_id = "another".into();
    assert_eq!(world.record(), Record::default(), "it is of this version alone");
}

#[test]
fn a_failed_test_is_a_condition_and_an_event_once_with_what_it_said() {
    let mut world = World::gated();
    world.test_is(&world.id(), TestStatus::Running, None);
    world.write();
    world.test_is(&world.id(), TestStatus::Failed, Some("disk full"));
    let (before, after) = (world.written.clone(), world.status());
    for type_ in [ConditionType::Ready, ConditionType::Progressing] {
        assert_eq!(words(&after, type_), says("False", Reason::GateFailed));
    }
    assert_eq!(words(&after, ConditionType::Stalled), says("True", Reason::GateFailed));
    let message = world.says();
    for part in [&*world.id(), "disk full", "temporal.io/retry-gate", "temporal.io/promote"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let events = gates_failed(&before, &after);
    assert!(
        matches!(&events[..], [event] if event.reason == "GateWorkflowFailed" && event.note.contains("disk full")),
        "{events:?}"
    );
    assert_eq!(readiness_changed(&before, &after), None, "and no other");
    world.write();
    assert_eq!(gates_failed(&world.written, &world.status()), vec![], "said once");
}

#[test]
fn a_retry_by_command_runs_the_gate_that_failed_again_once() {
    let mut world = World::gated();
    let command = ("temporal.io/retry-gate".to_owned(), format!("{}@1", world.build_id()));
    world.test_is(&world.id(), TestStatus::Failed, None);
    world.write();
    world.annotations = [command].into();
    world.write();
    let [handled] = &world.written.handled_commands[..] else { panic!("{:?}", world.written.handled_commands) };
    assert!(handled.accepted && handled.gate == Some(GateId::Rollout.to_string()), "{handled:?}");
    let read = world.plan().rollout.unwrap().gates.read;
    let [again] = &read.iter().collect::<Vec<_>>()[..] else { panic!("{read:?}") };
    assert_ne!(**again, world.id());
    world.temporal.test_workflows.insert((*again).clone(), known(None));
    assert!(
        matches!(&world.routes_or_starts()[..], [Action::StartGate { workflow_id, .. }] if workflow_id == *again),
        "{:?}",
        world.routes_or_starts()
    );
    // It fails again: the annotation is still there, and nothing is run a third time.
    world.test_is(again, TestStatus::Failed, None);
    (0..3).for_each(|_| world.write());
    assert_eq!(world.routes_or_starts(), vec![]);
    assert_eq!(world.written.handled_commands.len(), 1);
    let told: Vec<_> = world.written.target_version.test_workflows.iter().map(|test| &test.workflow_id).collect();
    assert_eq!(told, [*again], "the first try is history");
}

#[test]
fn what_keeps_a_test_from_its_start_is_a_condition_with_the_remedy() {
    let mut world = World::gated();
    world.temporal.test_workflows = [(world.id(), known(None))].into();
    let why = "ConfigMap \"tests\" of its inputFrom does not exist in namespace prod; create it.";
    world.unstarted = Some(Unstarted { why: why.into(), stalled: true, resting: true });
    let status = world.status();
    for type_ in [ConditionType::Ready, ConditionType::Progressing] {
        assert_eq!(words(&status, type_), says("False", Reason::TestWorkflowStartFailed));
    }
    assert_eq!(words(&status, ConditionType::Stalled), says("True", Reason::TestWorkflowStartFailed));
    assert!(world.says().contains(why), "{}", world.says());
    let event = readiness_changed(&WorkerDeploymentStatus::default(), &status).unwrap();
    assert_eq!(event.reason, "TestWorkflowStartFailed");
    assert_eq!(world.routes_or_starts(), vec![]);
    world.unstarted = Some(Unstarted { why: why.into(), stalled: false, resting: false });
    assert!(world.status().condition(ConditionType::Stalled).is_none());
    assert!(matches!(world.routes_or_starts()[..], [Action::StartGate { .. }]));
}

#[test]
fn a_fleet_without_workflow_queues_is_promoted_and_says_that_no_gate_was_run() {
    let mut world = World::gated();
    if let operator_core::observed::Observation::Known { value: Some(info), .. } = &mut world.temporal.deployment {
        for version in info.versions.values_mut() {
            if let operator_core::observed::Observation::Known { value: Some(version), .. } = version {
                version.lanes = [lane()].into();
            }
        }
    }
    assert!(matches!(world.routes_or_starts()[..], [Action::SetCurrent { .. }]));
    assert!(world.says().contains("no Task Queue for Workflows"), "{}", world.says());
    assert!(!World::gated().says().contains("no Task Queue for Workflows"), "the control");
}

#[test]
fn a_gate_that_can_not_be_run_is_refused_with_field_and_remedy() {
    let wrong = |gate: Value| {
        let step = json!({"rampPercentage": 10, "pauseDuration": "30s", "gate": gate});
        let rollout = json!({"strategy": "Progressive", "steps": [step], "gate": gate});
        try_resolve(&manifest(json!({"rollout": rollout})), &[]).unwrap_err().to_string()
    };
    let key = json!({"name": "tests", "key": "argument"});
    for (gate, parts) in [
        (json!({"workflowType": ""}), vec![".workflowType: is empty"]),
        (
            json!({"workflowType": "S", "input": 1, "inputFrom": {"secretKeyRef": key}}),
            vec!["both input and inputFrom"],
        ),
        (json!({"workflowType": "S", "inputFrom": {}}), vec!["exactly one of configMapKeyRef and secretKeyRef"]),
        (
            json!({"workflowType": "S", "inputFrom": {"configMapKeyRef": {"key": "k"}}}),
            vec!["configMapKeyRef.name: is empty"],
        ),
    ] {
        let message = wrong(gate);
        for part in parts.into_iter().chain(["spec.rollout.gate", "spec.rollout.steps[0].gate"]) {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
}

#[test]
fn the_argument_is_what_the_manifest_says() {
    let input = |gate: Value| {
        let fleet = fleet(json!({"rollout": {"strategy": "AllAtOnce", "gate": gate}}));
        fleet.rollout.gate.unwrap().input
    };
    let key = |optional| Key { name: "tests".into(), key: "argument".into(), optional };
    let from = |kind: &str, optional: bool| json!({"workflowType": "S", "inputFrom": {kind: {"name": "tests", "key": "argument", "optional": optional}}});
    assert_eq!(input(json!({"workflowType": "S"})), Input::Nothing);
    assert_eq!(input(json!({"workflowType": "S", "input": {"a": [1]}})), Input::Json(json!({"a": [1]})));
    assert_eq!(input(from("configMapKeyRef", false)), Input::ConfigMap(key(false)));
    assert_eq!(input(from("secretKeyRef", true)), Input::Secret(key(true)));
}
