//! Gates, in worlds of fleets that have some.

use std::cell::Cell;

use operator_core::observed::{LaneKey, Observation, TaskType, TemporalState, TestRun, TestStatus};
use operator_core::plan::{Action, Plan};
use operator_core::rollout::gate::{Record, Test};
use operator_core::rollout::{Order, Strategy as By};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::worlds::{World, worlds};
use super::{CASES, given};
use crate::fixtures::known;

/// The gates of these fleets, by what their Workflow IDs have after the Build ID.
const GATES: [&str; 2] = ["", ":ramp-50"];

/// What is known of a test Workflow.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Seen {
    Unread,
    Absent,
    Is(TestStatus),
    Written(TestStatus),
}

#[derive(Clone, Debug)]
struct Gated {
    world: World,
    tests: [Seen; 2],
}

fn seen() -> impl Strategy<Value = Seen> {
    let status = prop::sample::select(vec![
        TestStatus::Running,
        TestStatus::Completed,
        TestStatus::Completed,
        TestStatus::Completed,
        TestStatus::Failed,
        TestStatus::TimedOut,
    ]);
    prop_oneof![
        1 => Just(Seen::Unread),
        2 => Just(Seen::Absent),
        4 => status.clone().prop_map(Seen::Is),
        4 => status.prop_map(Seen::Written),
    ]
}

fn gated() -> impl Strategy<Value = Gated> {
    (worlds(), 0..9_usize, [seen(), seen()]).prop_map(|(world, pick, tests)| Gated::of(world, pick, tests))
}

fn run(status: TestStatus) -> TestRun {
    TestRun { run_id: "r".into(), status, failure: None }
}

impl Gated {
    fn of(world: World, pick: usize, tests: [Seen; 2]) -> Self {
        let mut gated = Self { world: world.gated(Record::default(), pick), tests };
        let written = |(workflow_id, test)| match test {
            Seen::Written(status) => Some(Test { workflow_id, task_queue: "flows".into(), run: run(status) }),
            _ => None,
        };
        gated.world.gates.tests = gated.by_id().filter_map(written).collect();
        gated
    }

    /// Workflow IDs of the tests, with what is known of each.
    fn by_id(&self) -> impl Iterator<Item = (String, Seen)> {
        let build_id = self.world.build_id(0);
        GATES.into_iter().map(move |gate| format!("test-prod/orders:{build_id}{gate}-flows")).zip(self.tests)
    }

    /// The server, on which the target polls a Task Queue for Workflows too.
    fn temporal(&self) -> TemporalState {
        let mut temporal = self.world.temporal();
        let flows = LaneKey { task_queue: "flows".into(), task_type: TaskType::Workflow };
        if let Observation::Known { value: Some(info), .. } = &mut temporal.deployment
            && let Some(Observation::Known { value: Some(target), .. }) = info.versions.get_mut(&self.world.build_id(0))
        {
            target.lanes.insert(flows);
        }
        let told = self.by_id().filter_map(|(workflow_id, test)| match test {
            Seen::Absent => Some((workflow_id, known(None))),
            Seen::Is(status) => Some((workflow_id, known(Some(run(status))))),
            Seen::Unread | Seen::Written(_) => None,
        });
        temporal.test_workflows = told.collect();
        temporal
    }

    fn plan(&self) -> Plan {
        self.world.plan_of(&self.world.kube(), &self.temporal())
    }

    /// Whether somebody ordered it, or it goes back to what worked: then gates don't count.
    fn skips(&self) -> bool {
        let world = &self.world;
        let back = world.plan_of(&world.kube(), &self.temporal()).rollout.is_some_and(|rollout| rollout.urgent);
        world.order == Order::Promote || back && world.fleet().rollout.strategy != By::Manual
    }

    /// Whether a gate of the fleet stands before a share.
    fn has(&self, gate: usize) -> bool {
        gate == 0 || matches!(&self.world.fleet().rollout.strategy, By::Progressive(_))
    }

    fn passed(&self, gate: usize) -> bool {
        let done = matches!(self.tests[gate], Seen::Is(TestStatus::Completed) | Seen::Written(TestStatus::Completed));
        done || !self.has(gate)
    }
}

/// Fails with the smallest world of which something does not hold.
fn holds(property: impl Fn(&Gated, &Plan) -> Result<(), TestCaseError>) {
    let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    let of_world = |gated: Gated| property(&gated, &gated.plan());
    runner.run(&gated(), of_world).unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn nothing_gets_traffic_before_its_gates_are_passed() {
    let (routed, held) = (Cell::new(0_u32), Cell::new(0_u32));
    holds(|gated, plan| {
        let share = gated.world.ramp.as_ref().filter(|share| share.at == 0).map_or(0, |share| share.percent);
        let given = given(plan);
        if given <= share || gated.skips() {
            held.set(held.get() + u32::from(!gated.passed(0)));
            return Ok(());
        }
        routed.set(routed.get() + 1);
        prop_assert!(gated.passed(0), "gives {given} % to what was not tested");
        prop_assert!(given != 50 || gated.passed(1), "gives a share that has a gate of its own");
        let failed = |test: &Seen| matches!(test, Seen::Is(status) | Seen::Written(status) if status.is_failure());
        prop_assert!(!(failed(&gated.tests[0]) || gated.has(1) && failed(&gated.tests[1])), "a gate failed");
        Ok(())
    });
    let least = CASES / 100;
    assert!(
        routed.get() >= least && held.get() >= least,
        "{routed:?} routed, {held:?} held: too few to prove anything"
    );
}

#[test]
fn a_test_is_started_only_where_it_is_waited_for_and_never_twice() {
    let started = Cell::new(0_u32);
    holds(|gated, plan| {
        for action in &plan.actions {
            let Action::StartGate { workflow_id, .. } = action else { continue };
            started.set(started.get() + 1);
            let at = gated.by_id().position(|(id, _)| id == *workflow_id);
            prop_assert!(at.is_some_and(|at| gated.tests[at] == Seen::Absent && gated.has(at)), "starts {workflow_id}");
            let world = &gated.world;
            let over = matches!(world.order, Order::Pause | Order::Abort | Order::Promote);
            prop_assert!(!over && world.fresh && world.current != Some(0), "nobody waits for it");
        }
        let routes = plan.actions.iter().position(super::is_routing);
        let starts = plan.actions.iter().position(|action| matches!(action, Action::StartGate { .. }));
        prop_assert!(starts.is_none() || routes.is_none() || starts < routes, "routes first");
        let run = |test| if test == Seen::Absent { Seen::Is(TestStatus::Running) } else { test };
        let after = Gated { tests: gated.tests.map(run), ..gated.clone() };
        let again = after.plan().actions.iter().any(|action| matches!(action, Action::StartGate { .. }));
        prop_assert!(!again, "starts what runs");
        Ok(())
    });
    assert!(started.get() >= CASES / 100, "{started:?} tests are too few to prove anything");
}

#[test]
fn a_share_is_taken_away_for_a_failed_gate_only_once_that_is_written_down() {
    let taken = Cell::new(0_u32);
    holds(|gated, plan| {
        let target = gated.world.build_id(0);
        let takes = |action: &Action| matches!(action, Action::ClearRamp { from, .. } if from.0 == target);
        let by_order = gated.world.order == Order::Abort || gated.world.current == Some(0);
        if by_order || !plan.actions.iter().any(takes) {
            return Ok(());
        }
        taken.set(taken.get() + 1);
        prop_assert!(gated.world.fleet().rollout.rolls_back, "nobody asked for it");
        let written = |test: &Seen| matches!(test, Seen::Written(status) if status.is_failure());
        prop_assert!(gated.tests.iter().any(written), "no failure is written down");
        Ok(())
    });
    assert!(taken.get() > 0, "no share was taken away");
}
