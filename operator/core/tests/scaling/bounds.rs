//! The user's bounds, and numbers that no server should send.

use operator_core::observed::{LaneStats, Observation};
use operator_core::scaling::{Floor, Outcome, Policy, State, decide};

use crate::fixtures::*;

#[test]
fn the_minimum_is_kept_whatever_the_data() {
    let policy = Policy { min_replicas: 3, ..policy() };
    for reading in [live(0), Observation::Unknown] {
        let decision = decide(&policy, &at_zero(reading), &State::default()).0;
        assert_eq!((decision.desired, decision.outcome), (3, Outcome::AtMinimum));
        assert_eq!(decision.reason, "3 replicas: the minimum.");
    }
}

#[test]
fn the_maximum_is_kept_and_named() {
    let decision = first(&at_zero(live(205)));
    assert_eq!((decision.desired, decision.outcome), (10, Outcome::AtMaximum));
    assert_eq!(
        decision.reason,
        r#"10 replicas (the maximum): activity queue "thumbnails" needs 205 slots (205 waiting + 0 running, their time is not known yet) at 10 slots per pod, 21 pods; raise spec.scaling.maxReplicas."#
    );
}

#[test]
fn a_floor_does_not_lift_above_the_maximum() {
    let mut input = at_zero(live(0));
    input.floors = vec![Floor { replicas: 50, reason: "a rollout prepares".into() }];
    assert_eq!(first(&input).desired, 10);
}

#[test]
fn a_lower_maximum_takes_idle_pods_at_once_and_leaves_the_others() {
    let lowered = Policy { max_replicas: 2, ..policy() };
    let mut input = fleet(100, &[10, 0, 10, 0, 10]);
    input.lanes.insert(lane(), Observation::Unknown);
    let decision = decide(&lowered, &input, &State::default()).0;
    assert_eq!((decision.desired, decision.outcome), (3, Outcome::PodsBusy));
    assert_eq!(decision.victims, ["p1", "p3"]);
    assert_eq!(
        decision.reason,
        "Kept at 3, above the maximum of 2: the pods run tasks, or may; only pods whose tasks end in time are removed."
    );
    input.pods[1].load = Observation::Unknown;
    assert_eq!(decide(&lowered, &input, &State::default()).0.desired, 4, "a pod that says nothing may run tasks");
    assert_eq!(decide(&lowered, &fleet(0, &[0, 0, 0]), &State::default()).0.desired, 2);
}

#[test]
fn a_maximum_of_zero_is_a_command_too() {
    let none = Policy { max_replicas: 0, ..policy() };
    assert_eq!(decide(&none, &at_zero(live(100)), &State::default()).0.desired, 0);
    assert_eq!(decide(&none, &fleet(0, &[0, 1]), &State::default()).0.desired, 1);
    let decision = decide(&none, &fleet(0, &[0, 0]), &State::default()).0;
    assert_eq!((decision.desired, decision.reason), (0, "0 replicas: the maximum.".into()));
}

#[test]
fn absurd_numbers_do_not_panic() {
    for backlog in [u64::MAX, 1 << 63, u64::from(u32::MAX) * 20] {
        for add_rate in [f64::NAN, f64::INFINITY, -1.0] {
            let mut input = at_zero(known(LaneStats { backlog, add_rate: Some(add_rate), ..LaneStats::default() }));
            input.lanes.insert(activity("mail"), live(u64::MAX));
            input.declared_slots.insert(activity("mail"), 1);
            input.pods = vec![pod("p0", known(load(u64::MAX, u64::MAX))), pod("p1", known(load(u64::MAX, u64::MAX)))];
            assert_eq!((first(&input).desired, first(&input).backlog), (10, Some(u64::MAX)));
            input.current = 2;
            assert_eq!((first(&input).desired, first(&input).in_flight), (6, None), "no pod tells of the other lane");
        }
    }
    let mut input = at_zero(live(5));
    input.declared_slots.insert(lane(), 0);
    assert_eq!(first(&input).desired, 2, "no slots are unknown slots");
}

#[test]
fn a_clock_that_goes_back_changes_nothing_for_the_worse() {
    let mut state = State::default();
    let mut input = fleet(0, &[0, 0]);
    watch(&policy(), &mut input, &mut state, seconds(30));
    input.now = seconds(0);
    assert_eq!(watch(&policy(), &mut input, &mut state, seconds(59)).desired, 2);
}
