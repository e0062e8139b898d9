//! What holds of the plan of any fleet with several versions, whatever the world is like.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use operator_core::observed::TestStatus;
use operator_core::plan::{Action, Plan};
use operator_core::rollout::{self, Order};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::random_world::{Answer, Seen, World, worlds};

const CASES: u32 = 20_000;

fn word(action: &Action) -> &'static str {
    match action {
        Action::Protect => "Protect",
        Action::Apply { .. } => "Apply",
        Action::SetDeletionCost { .. } => "SetDeletionCost",
        Action::ShowCordon { .. } => "ShowCordon",
        Action::Scale { .. } => "Scale",
        Action::StartGate { .. } => "StartGate",
        Action::ClaimManager { .. } => "ClaimManager",
        Action::SetRamping { .. } => "SetRamping",
        Action::SetCurrent { .. } => "SetCurrent",
        Action::NoteSuperseded { .. } => "NoteSuperseded",
        Action::DeleteVersion { .. } => "DeleteVersion",
        Action::DeleteChild { .. } => "DeleteChild",
        Action::ClearRamp { .. } => "ClearRamp",
    }
}

/// Every kind of action that these worlds call for: pods are marked and cordoned by the decision alone, which has properties
/// of its own.
const COUNTED: [&str; 11] = [
    "StartGate",
    "Protect",
    "Apply",
    "Scale",
    "ClaimManager",
    "SetRamping",
    "SetCurrent",
    "NoteSuperseded",
    "DeleteVersion",
    "DeleteChild",
    "ClearRamp",
];

fn is_routing(action: &Action) -> bool {
    matches!(action, Action::SetCurrent { .. } | Action::SetRamping { .. } | Action::ClearRamp { .. })
}

fn holds_of_old_versions(world: &World, action: &Action) -> Result<(), TestCaseError> {
    match action {
        Action::DeleteChild { child, .. } => {
            let (at, version) = world.of_child(child);
            prop_assert!(world.has_no_work(at, version), "deletes what may have work");
            prop_assert!(version.replicas == 0 && version.pods == 0, "deletes what has pods");
            prop_assert!(world.hours_over(version) >= 25, "deletes too soon");
        }
        Action::Scale { child, from, to: 0, .. } if *from > 0 => {
            let (at, version) = world.of_child(child);
            let by_work = world.fleet().scaling.is_some();
            prop_assert!(by_work || world.has_no_work(at, version), "takes the pods of what may have work");
            prop_assert!(by_work || !version.busy || version.pods == 0, "ends tasks that run");
            prop_assert!(by_work || world.hours_over(version) >= 1, "takes pods too soon");
        }
        Action::Scale { child, from, to, .. } if to < from => {
            let (_, version) = world.of_child(child);
            let read = matches!(version.answer, Answer::Is(_)) || world.fleet().replicas.is_some();
            prop_assert!(read, "shrinks what was not read");
        }
        _ => {}
    }
    Ok(())
}

fn holds_of_routing(world: &World, plan: &Plan) -> Result<(), TestCaseError> {
    let routing: Vec<_> = plan.actions.iter().filter(|action| is_routing(action)).collect();
    prop_assert!(routing.len() <= 1, "more than one change of the routing");
    let claims = plan.actions.iter().any(|action| matches!(action, Action::ClaimManager { .. }));
    prop_assert_eq!(claims, world.manager == 0 && !routing.is_empty());
    let Some(change) = routing.first() else { return Ok(()) };
    prop_assert!(world.fresh && world.manager != 2, "changes what it does not know, or what somebody else manages");
    let forward = !matches!(change, Action::ClearRamp { .. });
    let polls = world.has_target_child && world.target.pods > 0 && matches!(world.target.answer, Answer::Is(_));
    prop_assert!(!forward || polls, "routes to what does not poll");
    let held = matches!(world.order, Order::Pause | Order::Abort)
        || world.fleet().rollout.paused && world.order != Order::Promote;
    prop_assert!(!forward || !held, "goes forward though it is held");
    if let Action::ClearRamp { from, .. } = change
        && from.0 == world.build_id(0)
        && world.current != Some(0)
        && world.order != Order::Abort
    {
        let written = |seen: &Seen| matches!(seen, Seen::Written(status) if status.is_failure());
        prop_assert!(world.tests.iter().any(written), "takes a share away, and no gate's failure is written down");
    }
    if let Action::SetRamping { percent, .. } = change {
        let next = match world.ramp {
            Some((0, at, _)) if at >= 10 => vec![10, 50],
            _ => vec![10],
        };
        prop_assert!(next.contains(percent), "skips a step: {:?} → {percent}", world.ramp);
    }
    Ok(())
}

/// Whether somebody ordered it, or it goes back to what worked: then gates don't count.
fn skips_gates(world: &World) -> bool {
    let goes_back = world.target.last_current_hours_ago.is_some_and(|hours| hours <= 1);
    let manual = world.fleet().rollout.strategy == rollout::Strategy::Manual;
    world.order == Order::Promote || goes_back && !manual
}

fn holds_of_gates(world: &World, plan: &Plan) -> Result<(), TestCaseError> {
    let policy = &world.fleet().rollout;
    let steps = match &policy.strategy {
        rollout::Strategy::Progressive(steps) => steps.as_slice(),
        _ => &[],
    };
    let has_gates = [policy.gate.is_some(), steps.iter().any(|step| step.gate.is_some())];
    let passed = |at: usize| {
        !has_gates[at]
            || matches!(world.tests[at], Seen::Is(TestStatus::Completed) | Seen::Written(TestStatus::Completed))
    };
    let share = world.ramp.filter(|(at, ..)| *at == 0).map_or(0, |(_, percent, _)| percent);
    for action in &plan.actions {
        match action {
            Action::SetCurrent { .. } => prop_assert!(skips_gates(world) || passed(0), "promotes what was not tested"),
            Action::SetRamping { percent, .. } => {
                prop_assert!(skips_gates(world) || passed(0), "gives a share to what was not tested");
                let tested = *percent < 50 || *percent <= share || passed(1);
                prop_assert!(tested, "gives a share that has a gate of its own");
            }
            Action::StartGate { workflow_id, .. } => {
                let of = world.tests().position(|(id, _)| id == *workflow_id);
                prop_assert!(
                    of.is_some_and(|at| world.tests[at] == Seen::Absent && has_gates[at]),
                    "starts {workflow_id}"
                );
                let held = matches!(world.order, Order::Pause | Order::Abort) || policy.paused;
                prop_assert!(!held && !skips_gates(world) && world.fresh, "starts a test that nobody waits for");
            }
            _ => {}
        }
    }
    let mut after = world.clone();
    let started = |test: &mut Seen| *test = if *test == Seen::Absent { Seen::Is(TestStatus::Running) } else { *test };
    after.tests.iter_mut().for_each(started);
    let again = after.plan().actions.iter().any(|action| matches!(action, Action::StartGate { .. }));
    prop_assert!(!again, "starts a test that runs");
    Ok(())
}

#[test]
fn no_world_makes_the_plan_lose_work_or_route_to_nobody() {
    let counts = RefCell::new(BTreeMap::<&str, u32>::new());
    let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    runner
        .run(&worlds(), |world| {
            let plan = world.plan();
            let kinds: BTreeSet<_> = plan.actions.iter().map(word).collect();
            kinds.into_iter().for_each(|kind| *counts.borrow_mut().entry(kind).or_default() += 1);
            for action in &plan.actions {
                holds_of_old_versions(&world, action)?;
            }
            holds_of_gates(&world, &plan)?;
            holds_of_routing(&world, &plan)
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
    let counts = counts.into_inner();
    println!("{counts:?} in {CASES} worlds");
    for kind in COUNTED {
        let seen = counts.get(kind).copied().unwrap_or(0);
        assert!(seen >= CASES / 100, "{kind} in {seen} of {CASES} worlds: too few to prove anything");
    }
}

#[test]
fn the_same_world_gives_the_same_plan() {
    let mut runner = TestRunner::new(Config { cases: 2_000, failure_persistence: None, ..Config::default() });
    let same = |world: World| {
        prop_assert_eq!(world.plan().actions, world.plan().actions);
        Ok(())
    };
    runner.run(&worlds(), same).unwrap_or_else(|failure| panic!("{failure}"));
}
