//! What holds of the plan of any fleet with several versions, whatever the world is like: the invariants of docs/model.md, each in
//! worlds of its own.

mod carried_out;
mod gates;
mod routing;
mod versions;
mod whole;
mod worlds;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use operator_core::plan::{Action, Plan};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use worlds::{World, worlds};

/// Worlds of each property.
const CASES: u32 = 10_000;

/// Fails with the smallest world of which something does not hold.
fn holds(property: impl Fn(&World, &Plan) -> Result<(), TestCaseError>) {
    let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    let of_world = |world: World| property(&world, &world.plan());
    runner.run(&worlds(), of_world).unwrap_or_else(|failure| panic!("{failure}"));
}

fn word(action: &Action) -> &'static str {
    match action {
        Action::Protect => "Protect",
        Action::Apply { .. } => "Apply",
        Action::Scale { .. } => "Scale",
        Action::StartGate { .. } => "StartGate",
        Action::ClaimManager { .. } => "ClaimManager",
        Action::SetRamping { .. } => "SetRamping",
        Action::SetCurrent { .. } => "SetCurrent",
        Action::NoteSuperseded { .. } => "NoteSuperseded",
        Action::DeleteVersion { .. } => "DeleteVersion",
        Action::DeleteChild { .. } => "DeleteChild",
        Action::ClearRamp { .. } => "ClearRamp",
        // Pods are marked and cordoned by the scaling decision alone, which has properties of its own.
        _ => "of pods",
    }
}

/// Every kind of action that these worlds call for.
const COUNTED: [&str; 10] = [
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

/// What a plan takes from which version: pods, record or Deployment.
fn taken(plan: &Plan) -> BTreeSet<(&'static str, String)> {
    let one = |action: &Action| match action {
        Action::Scale { child, from, to: 0, .. } if *from > 0 => Some(("pods", child.clone())),
        Action::DeleteVersion { build_id } => Some(("record", build_id.clone())),
        Action::DeleteChild { child, .. } => Some(("Deployment", child.clone())),
        _ => None,
    };
    plan.actions.iter().filter_map(one).collect()
}

/// The share of the traffic that a plan gives to the target.
fn given(plan: &Plan) -> u8 {
    let share = |action: &Action| match action {
        Action::SetCurrent { .. } => Some(100),
        Action::SetRamping { percent, .. } => Some(*percent),
        _ => None,
    };
    plan.actions.iter().find_map(share).unwrap_or(0)
}

#[test]
fn each_kind_of_action_is_in_one_of_a_hundred_worlds() {
    let counts = RefCell::new(BTreeMap::<&str, u32>::new());
    holds(|_, plan| {
        let kinds: BTreeSet<_> = plan.actions.iter().map(word).collect();
        kinds.into_iter().for_each(|kind| *counts.borrow_mut().entry(kind).or_default() += 1);
        Ok(())
    });
    let counts = counts.into_inner();
    println!("{counts:?} in {CASES} worlds");
    for kind in COUNTED {
        let seen = counts.get(kind).copied().unwrap_or(0);
        assert!(seen >= CASES / 100, "{kind} in {seen} of {CASES} worlds: too few to prove anything");
    }
}
