use std::collections::BTreeSet;

use super::*;
use crate::clock::Clock;
use crate::observed::{DeploymentInfo, LaneKey, Ramp, TemporalState, VersionStatus};
use crate::rollout::{Move, Order, Policy, Rollout, Stage, Step, decide};
use jiff::Timestamp;

const ID: &str = "test-ns/app:b2-q";

fn gate() -> Gate {
    Gate { workflow_type: "Smoke".into(), input: Input::Nothing }
}

fn known<T>(value: T) -> Observation<T> {
    Observation::Known { value, age: Duration::ZERO }
}

fn run(status: TestStatus) -> TestRun {
    let failure = status.is_failure().then(|| "disk full".to_owned());
    TestRun { run_id: "r1".into(), status, failure }
}

fn test(workflow_id: &str, status: TestStatus) -> Test {
    Test { workflow_id: workflow_id.into(), task_queue: "q".into(), run: run(status) }
}

fn lane(task_queue: &str, task_type: TaskType) -> LaneKey {
    LaneKey { task_queue: task_queue.into(), task_type }
}

/// b1 is current; b2 is the target, polls the same and is gated. Nothing was read of its tests.
struct World {
    policy: Policy,
    order: Order,
    ready: bool,
    lanes: BTreeSet<LaneKey>,
    settled: u64,
    ramp: Option<u8>,
    last_current_at: Option<Timestamp>,
    manager: &'static str,
    seen: BTreeMap<String, Observation<Option<TestRun>>>,
    record: Record,
}

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

impl World {
    fn by(strategy: Strategy) -> Self {
        let window = Some(Duration::from_secs(3600));
        Self {
            policy: Policy { strategy, gate: Some(gate()), rolls_back: false, paused: false, rollback_window: window },
            order: Order::AsSpecified,
            ready: true,
            lanes: [lane("q", TaskType::Workflow)].into(),
            settled: 99,
            ramp: None,
            last_current_at: None,
            manager: "me",
            seen: BTreeMap::new(),
            record: Record::default(),
        }
    }

    /// With a gate before 50 % alone.
    fn in_mid_ramp() -> Self {
        let step = |percent, gate| Step { percent, pause: Duration::from_secs(60), gate };
        let mut world = Self::by(Strategy::Progressive(vec![step(10, None), step(50, Some(gate()))]));
        (world.policy.gate, world.ramp) = (None, Some(10));
        world
    }

    fn saw(mut self, workflow_id: &str, status: TestStatus) -> Self {
        self.seen.insert(workflow_id.into(), known(Some(run(status))));
        self
    }

    fn absent(mut self, workflow_id: &str) -> Self {
        self.seen.insert(workflow_id.into(), known(None));
        self
    }

    fn wrote(mut self, workflow_id: &str, status: TestStatus) -> Self {
        self.record.tests.push(test(workflow_id, status));
        self
    }

    fn temporal(&self) -> TemporalState {
        let version = |status| VersionInfo {
            status,
            lanes: self.lanes.clone(),
            lanes_unchanged_for: Duration::from_secs(self.settled),
            last_current_at: self.last_current_at,
            ..VersionInfo::default()
        };
        let ramp = self.ramp.map(|percent| Ramp {
            build_id: "b2".into(),
            percent: f32::from(percent),
            changed_at: Some(now() - Duration::from_secs(600)),
            ..Ramp::default()
        });
        let info = DeploymentInfo {
            current_build_id: Some("b1".into()),
            ramp,
            manager_identity: self.manager.into(),
            last_modifier_identity: "me".into(),
            versions: [("b1", VersionStatus::Current), ("b2", VersionStatus::Inactive)]
                .map(|(id, status)| (id.to_owned(), known(Some(version(status)))))
                .into(),
            ..DeploymentInfo::default()
        };
        TemporalState { deployment: known(Some(info)), test_workflows: self.seen.clone(), ..TemporalState::default() }
    }

    fn decide(&self) -> Rollout {
        let target = Target {
            build_id: "b2",
            declared_lanes: &BTreeSet::new(),
            declared_queues: &BTreeSet::new(),
            has_ready_pod: self.ready,
            policy: &self.policy,
            order: self.order,
            deployment_name: "ns/app",
            gates: &self.record,
            identity: "me",
            former_identities: &BTreeSet::new(),
        };
        decide(&target, &self.temporal(), &Clock::at(now()))
    }

    fn starts(&self) -> Vec<String> {
        self.decide().gates.start.into_iter().map(|start| start.workflow_id).collect()
    }

    fn hold(&self) -> GateHold {
        match self.decide().stage {
            Stage::Waiting(Hold::Gate(hold)) | Stage::Ramping { hold: Hold::Gate(hold), .. } => hold,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn nothing_changes_until_every_test_has_succeeded_and_then_it_does() {
    let unread = World::by(Strategy::AllAtOnce);
    assert_eq!((unread.hold(), unread.decide().change), (GateHold::Unread, None));
    assert_eq!((unread.decide().gates.read, unread.starts()), ([ID.to_owned()].into(), vec![]), "it is read first");
    let absent = World::by(Strategy::AllAtOnce).absent(ID);
    assert_eq!((absent.hold(), absent.starts()), (GateHold::Starting, vec![ID.to_owned()]));
    assert_eq!(absent.decide().change, None);
    let running = World::by(Strategy::AllAtOnce).saw(ID, TestStatus::Running);
    assert_eq!((running.starts(), running.decide().change), (vec![], None), "nor is it started twice");
    assert!(matches!(running.hold(), GateHold::Running(test) if test.workflow_id == ID));
    let done = World::by(Strategy::AllAtOnce).saw(ID, TestStatus::Completed);
    assert_eq!(done.decide().change, Some(Move::Current));
    let mut free = World::by(Strategy::AllAtOnce);
    free.policy.gate = None;
    assert_eq!(free.decide().change, Some(Move::Current), "the control: without a gate");
}

#[test]
fn each_workflow_queue_has_a_test_of_its_own_and_all_of_them_count() {
    let mut world = World::by(Strategy::AllAtOnce).saw(ID, TestStatus::Completed).absent("test-ns/app:b2-r");
    world.lanes.extend([lane("r", TaskType::Workflow), lane("activities", TaskType::Activity)]);
    assert_eq!((world.starts(), world.decide().change), (vec!["test-ns/app:b2-r".to_owned()], None));
    let world = world.saw("test-ns/app:b2-r", TestStatus::Completed);
    assert_eq!(world.decide().change, Some(Move::Current));
}

#[test]
fn a_version_without_workflow_queues_passes_once_it_is_sure_that_it_has_none() {
    let mut world = World::by(Strategy::AllAtOnce);
    (world.lanes, world.settled) = ([lane("q", TaskType::Activity)].into(), 29);
    let waits = world.decide();
    assert_eq!((world.hold(), waits.change), (GateHold::Settling(Duration::from_secs(1)), None));
    assert_eq!(waits.due_in, Some(Duration::from_secs(1)));
    world.settled = 30;
    assert_eq!(world.decide().change, Some(Move::Current));
}

#[test]
fn tests_run_before_the_queues_have_settled_and_count_from_then() {
    let mut world = World::by(Strategy::AllAtOnce).absent(ID);
    world.settled = 0;
    assert_eq!(world.starts(), [ID]);
    let mut world = world.saw(ID, TestStatus::Completed);
    assert_eq!(world.decide().change, None, "a queue may come that was not tested");
    world.settled = 30;
    assert_eq!(world.decide().change, Some(Move::Current));
}

#[test]
fn what_was_not_read_lately_is_neither_started_nor_passed_but_what_ended_stays_so() {
    let stale = |value| Observation::Stale { value, age: Duration::from_secs(600) };
    let mut world = World::by(Strategy::AllAtOnce);
    world.seen.insert(ID.into(), stale(None));
    assert_eq!((world.starts(), world.hold()), (vec![], GateHold::Unread));
    world.seen.insert(ID.into(), stale(Some(run(TestStatus::Running))));
    assert_eq!(world.decide().change, None);
    world.seen.insert(ID.into(), stale(Some(run(TestStatus::Completed))));
    assert_eq!(world.decide().change, Some(Move::Current));
}

#[test]
fn what_is_written_down_is_neither_read_nor_run_again() {
    let passed = World::by(Strategy::AllAtOnce).wrote(ID, TestStatus::Completed).decide();
    assert_eq!((passed.change, passed.gates.read, passed.gates.start), (Some(Move::Current), [].into(), vec![]));
    let gone = World::by(Strategy::AllAtOnce).wrote(ID, TestStatus::Completed).absent(ID).decide();
    assert_eq!(gone.change, Some(Move::Current), "the server forgets what ended long ago");
    let running = World::by(Strategy::AllAtOnce).wrote(ID, TestStatus::Running).decide();
    assert_eq!((running.change, running.gates.read.len()), (None, 1), "what ran then is read");
}

#[test]
fn any_end_but_success_is_a_failure_that_holds_the_version() {
    for status in [TestStatus::Failed, TestStatus::Canceled, TestStatus::Terminated, TestStatus::TimedOut] {
        let mut world = World::by(Strategy::AllAtOnce).saw(ID, status);
        let rollout = world.decide();
        assert_eq!((rollout.change, rollout.gates.failed), (None, Some(GateId::Rollout)), "{status:?}");
        assert_eq!(rollout.gates.read, [ID.to_owned()].into(), "it is kept in sight until it is written down");
        assert_eq!(rollout.stage, Stage::Waiting(Hold::Gate(GateHold::Failed(test(ID, status)))));
        world.ready = false;
        assert_eq!(world.decide().stage, rollout.stage, "and that is said before anything else");
    }
}

#[test]
fn by_hand_the_gate_is_run_and_nothing_is_changed() {
    let world = World::by(Strategy::Manual).absent(ID);
    assert_eq!((world.starts(), world.decide().change), (vec![ID.to_owned()], None));
    let passed = World::by(Strategy::Manual).saw(ID, TestStatus::Completed).decide();
    assert_eq!(passed.stage, Stage::Waiting(Hold::Manual));
    let mut failed = World::by(Strategy::Manual).wrote(ID, TestStatus::Failed);
    (failed.policy.rolls_back, failed.ramp) = (true, Some(10));
    assert_eq!(failed.decide().change, None, "nor is a share of somebody else's taken away");
}

#[test]
fn a_step_has_a_gate_of_its_own_that_is_run_when_it_is_due() {
    let id = "test-ns/app:b2:ramp-50-q";
    let world = World::in_mid_ramp().absent(id);
    assert_eq!((world.starts(), world.decide().change), (vec![id.to_owned()], None));
    assert_eq!(World::in_mid_ramp().saw(id, TestStatus::Completed).decide().change, Some(Move::Ramp(50)));
    let mut first = World::in_mid_ramp();
    first.ramp = None;
    assert_eq!(first.decide().change, Some(Move::Ramp(10)), "the step before has none");
    let mut above = World::in_mid_ramp();
    above.ramp = Some(70);
    assert_eq!(above.decide().change, Some(Move::Ramp(50)), "less traffic needs no gate");
}

#[test]
fn a_failed_gate_takes_the_share_away_once_that_is_written_down_and_only_if_asked_to() {
    let id = "test-ns/app:b2:ramp-50-q";
    let change = |rolls_back, world: World| {
        let policy = Policy { rolls_back, ..world.policy.clone() };
        World { policy, ..world }.decide().change
    };
    assert_eq!(change(true, World::in_mid_ramp().saw(id, TestStatus::Failed)), None, "not written down yet");
    let written = || World::in_mid_ramp().wrote(id, TestStatus::Failed);
    assert_eq!(change(true, written()), Some(Move::ClearRamp));
    assert_eq!(change(false, written()), None);
    let foreign = World { manager: "somebody", ..written() };
    assert_eq!(change(true, foreign), None);
    let mut away = written();
    away.ramp = None;
    assert_eq!(change(true, away), None, "and it gets no other");
}

#[test]
fn a_retry_is_run_under_another_id_and_leaves_what_passed_alone() {
    let failed = World::by(Strategy::AllAtOnce).wrote(ID, TestStatus::Failed);
    let retried = |value: &str| World {
        record: Record { retries: [(GateId::Rollout, value.into())].into(), ..failed.record.clone() },
        ..World::by(Strategy::AllAtOnce)
    };
    let ids: BTreeSet<_> =
        ["b2@1", "b2@2"].map(|value| retried(value).decide().gates.read).into_iter().flatten().collect();
    assert_eq!(ids.len(), 2, "{ids:?}");
    assert!(ids.iter().all(|id| id.starts_with("test-ns/app:b2:retry-") && id.ends_with("-q")), "{ids:?}");
    let id = retried("b2@1").decide().gates.read.pop_first().unwrap();
    let again = retried("b2@1").absent(&id);
    assert_eq!((again.starts(), again.decide().gates.failed), (vec![id.clone()], None));
    assert_eq!(again.saw(&id, TestStatus::Completed).decide().change, Some(Move::Current));
    // A retry of a step's gate does not touch that of the rollout.
    let mut world = World::in_mid_ramp().wrote(ID, TestStatus::Completed);
    (world.policy.gate, world.record.retries) = (Some(gate()), [(GateId::Step(50), "b2@1".into())].into());
    let read = world.decide().gates.read;
    assert!(read.len() == 1 && read.first().unwrap().starts_with("test-ns/app:b2:ramp-50:retry-"), "{read:?}");
}

#[test]
fn a_promotion_a_pause_an_abort_and_a_rollback_run_no_gate() {
    let with = |change: fn(&mut World)| {
        let mut world = World::by(Strategy::AllAtOnce).absent(ID);
        change(&mut world);
        assert_eq!(world.starts(), Vec::<String>::new());
        assert_eq!(world.decide().gates.read, [].into(), "nor is it read");
        let failed = World { seen: [(ID.to_owned(), known(Some(run(TestStatus::Failed))))].into(), ..world };
        (failed.decide().stage, failed.decide().change)
    };
    let current = Some(Move::Current);
    let changing = Stage::Waiting(Hold::Changing(Move::Current));
    assert_eq!(with(|world| world.order = Order::Promote), (changing.clone(), current));
    assert_eq!(with(|world| world.last_current_at = Some(now() - Duration::from_secs(60))), (changing, current));
    assert_eq!(with(|world| world.order = Order::Pause), (Stage::Waiting(Hold::Paused), None));
    assert_eq!(with(|world| world.policy.paused = true), (Stage::Waiting(Hold::Paused), None));
    assert_eq!(with(|world| world.order = Order::Abort), (Stage::Waiting(Hold::Aborted), None));
}

#[test]
fn what_could_not_be_started_is_said_and_tried_again_after_a_rest() {
    let unstarted = |resting| Unstarted { why: "no such ConfigMap".into(), stalled: true, resting };
    let mut world = World::by(Strategy::AllAtOnce).absent(ID);
    world.record.unstarted.insert(ID.into(), unstarted(true));
    assert_eq!((world.starts(), world.hold()), (vec![], GateHold::Unstarted(unstarted(true))));
    world.record.unstarted.insert(ID.into(), unstarted(false));
    assert_eq!((world.starts(), world.hold()), (vec![ID.to_owned()], GateHold::Unstarted(unstarted(false))));
}

#[test]
fn a_failure_is_cut_and_never_shown_when_it_may_quote_a_secret() {
    let told = |input| {
        let gate = Gate { workflow_type: "Smoke".into(), input };
        let run = TestRun { failure: Some("é".repeat(MAX_FAILURE)), ..run(TestStatus::Failed) };
        shown(&gate, &run).failure
    };
    let long = told(Input::Nothing).unwrap();
    assert!(long.len() <= MAX_FAILURE && long.ends_with('…'), "{}", long.len());
    let key = Key { name: "s".into(), key: "k".into(), optional: false };
    assert_eq!(told(Input::Secret(key.clone())), None);
    assert!(told(Input::ConfigMap(key)).is_some(), "the control");
}

#[test]
fn no_two_gates_of_a_version_have_the_same_ids() {
    let policy = World::in_mid_ramp().policy;
    let record = Record { retries: [(GateId::Step(50), "b2@1".into())].into(), ..Record::default() };
    let target = Target {
        build_id: "b2",
        declared_lanes: &BTreeSet::new(),
        declared_queues: &BTreeSet::new(),
        has_ready_pod: true,
        policy: &policy,
        order: Order::AsSpecified,
        deployment_name: "ns/app",
        gates: &record,
        identity: "me",
        former_identities: &BTreeSet::new(),
    };
    let gates = [GateId::Rollout, GateId::Step(10), GateId::Step(50)];
    let queues = ["q", "ramp-10-q", ":ramp-10-q", ":ramp-50-q", "-q"];
    let all: Vec<_> = gates.iter().flat_map(|&id| queues.map(|queue| workflow_id(&target, id, queue))).collect();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{all:?}");
    assert_eq!(gates.map(|id| GateId::of(&id.to_string())), gates.map(Some));
}
