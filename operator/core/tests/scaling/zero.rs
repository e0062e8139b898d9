//! To zero: only when nothing started, ran or waited for the idle window.

use operator_core::observed::Observation;
use operator_core::scaling::{Floor, Input, Outcome, Pod, Policy, State};

use crate::fixtures::*;

#[test]
fn it_takes_the_whole_idle_window() {
    let mut state = State::default();
    let mut input = fleet(0, &[0]);
    let early = watch(&policy(), &mut input, &mut state, seconds(179));
    assert_eq!((early.desired, early.outcome), (1, Outcome::Holding));
    assert_eq!(early.reason, "Kept at 1: to zero after 180s without a task started, running or waiting.");
    assert_eq!(early.recheck_after, seconds(1));
    input.now += seconds(1);
    let late = watch(&policy(), &mut input, &mut state, seconds(0));
    assert_eq!((late.desired, late.outcome, late.victims), (0, Outcome::Idle, vec!["p0".to_owned()]));
    assert_eq!(late.reason, "Scaled to zero: no task started, running or waiting for 180s.");
}

#[test]
fn a_minimum_or_a_floor_keeps_pods() {
    let policy_of_one = Policy { min_replicas: 1, ..policy() };
    let decision = settled(&policy_of_one, &fleet(0, &[0]));
    assert_eq!((decision.desired, decision.outcome), (1, Outcome::AtMinimum));
    let mut input = fleet(0, &[0]);
    let reason = "version b1 runs one pod until the server knows its Task Queues";
    input.floors = vec![Floor { replicas: 1, reason: reason.into() }];
    let decision = settled(&policy(), &input);
    assert_eq!((decision.desired, decision.reason), (1, format!("1 replica: {reason}.")));
    assert_eq!(settled(&policy(), &fleet(0, &[0])).desired, 0, "the control");
}

/// What happens once, after 170 of 180 seconds.
type Event = fn(&mut Input);

const ACTIVITIES: [(&str, Event); 6] = [
    ("a task started and ended between two looks", |input| input.pods[0].load = known(load(0, 8))),
    ("a counter that went down: a new process", |input| input.pods[0].load = known(load(0, 2))),
    ("a pod appeared that has started tasks", |input| input.pods.push(pod("p9", known(load(0, 3))))),
    ("a task waits", |input| {
        input.lanes.insert(lane(), live(1));
    }),
    ("a task runs", |input| input.pods[0].load = known(load(1, 7))),
    ("a pod that goes runs a task", |input| {
        let mut going = pod("going", known(load(1, 0)));
        going.terminating = true;
        input.pods.push(going);
    }),
];

#[test]
fn any_activity_starts_the_idle_window_anew() {
    for (name, event) in ACTIVITIES {
        let mut state = State::default();
        let mut input = fleet(0, &[0]);
        input.pods[0].load = known(load(0, 7));
        watch(&policy(), &mut input, &mut state, seconds(170));
        input.now += STEP;
        let after = input.clone();
        event(&mut input);
        watch(&policy(), &mut input, &mut state, seconds(0));
        // What the counters show stays; waiting and running end.
        input.lanes = after.lanes;
        for pod in &mut input.pods {
            let started = pod.load.known().map_or(0, |load| load.lanes[&lane()].started);
            pod.load = known(load(0, started));
        }
        input.now += STEP;
        assert_eq!(watch(&policy(), &mut input, &mut state, seconds(170)).desired, 1, "{name}");
        assert_eq!(watch(&policy(), &mut input, &mut state, seconds(10)).desired, 0, "{name}");
    }
}

#[test]
fn a_new_pod_that_started_nothing_is_no_activity() {
    let mut state = State::default();
    let mut input = fleet(0, &[0]);
    watch(&policy(), &mut input, &mut state, seconds(170));
    input.pods.push(pod("p1", known(load(0, 0))));
    assert_eq!(watch(&policy(), &mut input, &mut state, seconds(10)).desired, 0);
}

#[test]
fn a_pod_that_vanished_unexpectedly_is_activity() {
    let working = || pod("p1", known(load(0, 0)));
    let going = Pod { terminating: true, ..working() };
    let cases = [("working", working(), true), ("going", going, false), ("never worked", starting("p1"), false)];
    for (name, second, activity) in cases {
        let mut state = State::default();
        let mut input = fleet(0, &[0]);
        watch(&policy(), &mut input, &mut state, seconds(160));
        input.pods.push(second);
        // Both are wanted, so that none is named to go.
        (input.current, input.floors) = (2, vec![Floor { replicas: 2, reason: "a rollout runs".into() }]);
        watch(&policy(), &mut input, &mut state, seconds(10));
        input.floors.clear();
        input.pods.truncate(1);
        assert_eq!(watch(&policy(), &mut input, &mut state, seconds(10)).desired > 0, activity, "{name}");
    }
}

#[test]
fn a_fleet_that_keeps_its_backlog_empty_never_goes() {
    let mut state = State::default();
    let mut input = fleet(0, &[0]);
    for second in 0..1000 {
        input.pods[0].load = known(load(0, second / 60));
        let decision = watch(&policy(), &mut input, &mut state, seconds(0));
        assert_eq!(decision.desired, 1);
        input.now += seconds(1);
    }
}

#[test]
fn without_metrics_one_pod_stays() {
    let mut input = fleet(0, &[0]);
    input.pods[0].load = Observation::Unknown;
    let decision = settled(&policy(), &input);
    assert_eq!(decision.desired, 1);
    assert_eq!(decision.reason, "Kept at 1: metrics of pod p0 were never read, idleness not proven.");
}

#[test]
fn ghosts_keep_one_pod() {
    assert_eq!(settled(&policy(), &fleet(5, &[0])).desired, 1);
}
