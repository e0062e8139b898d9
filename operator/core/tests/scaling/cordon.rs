//! A fleet of long tasks shrinks without killing one: pods that are too many take no more tasks, and go when they are empty.

use operator_core::scaling::{Input, Outcome, Policy, State, decide};

use crate::fixtures::*;

/// Pods that can be cordoned, and run tasks of an hour.
fn long_tasks(used: &[u64]) -> Input {
    let mut input = fleet(0, used);
    input.pods.iter_mut().for_each(|pod| pod.may_be_cordoned = true);
    input
}

#[test]
fn the_surplus_is_cordoned_with_least_work_first_and_nothing_is_removed() {
    let mut state = State::default();
    let mut input = long_tasks(&[9, 1, 2, 1]);
    let decision = watch(&policy(), &mut input, &mut state, seconds(300));
    assert_eq!((decision.desired, decision.outcome), (4, Outcome::PodsBusy), "{}", decision.reason);
    assert_eq!(decision.cordon, ["p1", "p3"], "{}", decision.reason);
    assert!(decision.victims.is_empty());
    input.pods.iter_mut().for_each(|pod| pod.may_be_cordoned = false);
    input.now += STEP;
    let decision = watch(&policy(), &mut input, &mut state, seconds(0));
    assert!(decision.cordon.is_empty(), "the control: pods that can't be told are left alone");
}

#[test]
fn a_cordoned_pod_goes_when_it_is_empty() {
    let mut state = State::default();
    let mut input = long_tasks(&[9, 1, 2, 1]);
    watch(&policy(), &mut input, &mut state, seconds(300));
    input.pods[1].load = known(load(0, 1));
    input.now += STEP;
    let decision = watch(&policy(), &mut input, &mut state, seconds(0));
    assert_eq!(
        (decision.desired, &decision.victims[..], &decision.cordon[..]),
        (3, &["p1".to_owned()][..], &["p3".to_owned()][..])
    );
}

#[test]
fn demand_that_returns_takes_pods_from_the_cordon_instead_of_starting_new_ones() {
    let mut state = State::default();
    let mut input = long_tasks(&[9, 1, 2, 1]);
    watch(&policy(), &mut input, &mut state, seconds(300));
    input.lanes.insert(lane(), live(14));
    input.now += STEP;
    let decision = watch(&policy(), &mut input, &mut state, seconds(0));
    assert_eq!((decision.desired, decision.cordon.len()), (4, 1), "{}", decision.reason);
    input.lanes.insert(lane(), live(40));
    input.now += STEP;
    let decision = watch(&policy(), &mut input, &mut state, seconds(0));
    assert!(decision.desired > 4 && decision.cordon.is_empty(), "{}", decision.reason);
}

#[test]
fn doubt_cordons_nothing() {
    let mut state = State::default();
    let mut input = long_tasks(&[9, 1, 2, 1]);
    watch(&policy(), &mut input, &mut state, seconds(300));
    input.pods[0].load = stale(load(9, 9));
    input.now += STEP;
    assert!(watch(&policy(), &mut input, &mut state, seconds(0)).cordon.is_empty());
}

#[test]
fn what_cordoned_pods_run_is_no_need() {
    let policy = Policy { max_replicas: 20, ..policy() };
    let mut state = State::default();
    let mut input = long_tasks(&[2, 1, 1, 1, 1, 1, 1, 1]);
    watch(&policy, &mut input, &mut state, seconds(300));
    let decision = watch(&policy, &mut input, &mut state, seconds(100));
    let serving = 8 - decision.cordon.len();
    assert!(serving <= 2, "{:?} {}", decision.cordon, decision.reason);
    let (again, _) = decide(&policy, &input, &state);
    assert_eq!(again.cordon, decision.cordon, "the choice stands");
}
