//! Fewer pods: after a while, down to the need, and idle ones only.

use operator_core::observed::Observation;
use operator_core::scaling::{IdleWindow, Outcome, Policy, State, decide};

use crate::fixtures::*;

#[test]
fn a_lower_need_must_hold_for_a_minute() {
    let mut state = State::default();
    let mut input = fleet(0, &[5, 0, 0]);
    let early = watch(&policy(), &mut input, &mut state, seconds(59));
    assert_eq!((early.desired, early.outcome), (3, Outcome::Holding));
    assert_eq!(
        early.reason,
        "Holding 3 (need 1 since 59s): highest need of the last 60s; next decrease not before 1s."
    );
    assert_eq!(early.recheck_after, seconds(1));
    input.now += seconds(1);
    let late = watch(&policy(), &mut input, &mut state, seconds(0));
    assert_eq!((late.desired, late.outcome), (1, Outcome::Scaled));
    assert_eq!(late.victims, ["p1", "p2"]);
}

#[test]
fn a_short_idle_window_shortens_the_minute() {
    let policy = Policy { idle_window: IdleWindow::Fixed(seconds(10)), ..policy() };
    let mut state = State::default();
    let mut input = fleet(0, &[5, 0, 0]);
    assert_eq!(watch(&policy, &mut input, &mut state, seconds(9)).desired, 3);
    assert_eq!(watch(&policy, &mut input, &mut state, seconds(1)).desired, 1);
    assert_eq!(first(&input).desired, 3);
    let hasty = Policy { idle_window: IdleWindow::Fixed(seconds(0)), ..policy };
    assert_eq!(decide(&hasty, &input, &State::default()).0.desired, 1);
}

#[test]
fn it_goes_to_the_highest_need_of_the_window() {
    let mut state = State::default();
    let mut input = fleet(0, &[10, 10, 0, 0, 0]);
    watch(&policy(), &mut input, &mut state, seconds(50));
    input.pods[0].load = known(load(0, 10));
    input.pods[1].load = known(load(0, 10));
    input.now += STEP;
    let decision = watch(&policy(), &mut input, &mut state, seconds(5));
    assert_eq!((decision.desired, decision.outcome), (2, Outcome::Holding), "{}", decision.reason);
    assert_eq!(watch(&policy(), &mut input, &mut state, seconds(60)).desired, 1);
}

#[test]
fn a_load_that_returns_starts_the_window_anew() {
    let mut state = State::default();
    let mut input = fleet(0, &[5, 0, 0]);
    watch(&policy(), &mut input, &mut state, seconds(50));
    input.pods[1].load = known(load(10, 10));
    input.pods[2].load = known(load(10, 10));
    input.now += STEP;
    assert_eq!(watch(&policy(), &mut input, &mut state, seconds(0)).desired, 3);
    input.pods[1].load = known(load(0, 10));
    input.pods[2].load = known(load(0, 10));
    input.now += STEP;
    assert_eq!(watch(&policy(), &mut input, &mut state, seconds(50)).desired, 2);
    assert_eq!(watch(&policy(), &mut input, &mut state, seconds(5)).desired, 1);
}

#[test]
fn a_backlog_holds_its_pods_until_it_is_gone_for_ten_seconds_and_no_longer() {
    let mut state = State::default();
    let mut input = fleet(0, &[5, 0, 0]);
    watch(&policy(), &mut input, &mut state, seconds(70));
    input.lanes.insert(lane(), live(20));
    assert_eq!(watch(&policy(), &mut input, &mut state, seconds(60)).desired, 3);
    input.lanes.insert(lane(), live(0));
    input.now += STEP;
    let decision = watch(&policy(), &mut input, &mut state, seconds(9));
    assert_eq!((decision.desired, decision.outcome), (3, Outcome::Backlog), "{}", decision.reason);
    assert_eq!(watch(&policy(), &mut input, &mut state, seconds(1)).desired, 1);
}

#[test]
fn busy_pods_stay_and_the_reason_says_so() {
    let decision = settled(&policy(), &fleet(0, &[1, 1, 1]));
    assert_eq!((decision.desired, decision.outcome), (3, Outcome::PodsBusy));
    assert_eq!(
        decision.reason,
        "Holding 3 (need 1): 3 pods have tasks that may run longer than terminationGracePeriodSeconds=30; only idle pods are removed."
    );
    let decision = settled(&policy(), &fleet(0, &[1, 0, 1]));
    assert_eq!((decision.desired, decision.victims), (2, vec!["p1".to_owned()]));
}

#[test]
fn a_pod_is_idle_only_if_no_lane_runs_a_task() {
    let mut input = fleet(0, &[0, 0]);
    let mut both = load(0, 0);
    both.lanes.insert(activity("mail"), load(3, 3).lanes[&lane()].clone());
    input.pods[1].load = known(both);
    let decision = settled(&policy(), &input);
    assert_eq!((decision.desired, decision.victims), (1, vec!["p0".to_owned()]));
}

#[test]
fn no_more_go_than_are_needed_less() {
    let decision = settled(&policy(), &fleet(0, &[10, 5, 0, 0, 0]));
    assert_eq!((decision.desired, decision.victims.len()), (3, 2), "20 to 30 slots, for the tasks to come");
    let mut input = fleet(0, &[0, 0, 0, 0]);
    input.current = 3;
    input.floors = vec![operator_core::scaling::Floor { replicas: 2, reason: "a rollout runs".into() }];
    let decision = settled(&policy(), &input);
    assert_eq!((decision.desired, decision.victims.len()), (2, 2), "the fourth pod goes as well");
}

#[test]
fn pods_that_are_not_ready_go_first() {
    let mut input = fleet(0, &[0, 0, 0]);
    input.pods[2].ready = false;
    let decision = settled(&Policy { min_replicas: 2, ..policy() }, &input);
    assert_eq!(decision.victims, ["p2"]);
}

#[test]
fn nothing_goes_while_a_pod_that_is_not_ready_may_work() {
    // A ReplicaSet would take p2 first, whatever the deletion costs say.
    let mut input = fleet(0, &[0, 0, 1]);
    input.pods[2].ready = false;
    let decision = settled(&policy(), &input);
    assert_eq!((decision.desired, decision.outcome), (3, Outcome::PodsBusy));
    input.pods[2].ready = true;
    assert_eq!(settled(&policy(), &input).desired, 1, "the control");
}

#[test]
fn a_pod_that_never_got_ready_proves_idle_only_if_its_whole_life_was_seen() {
    let mut input = fleet(0, &[5]);
    let mut state = State::default();
    watch(&policy(), &mut input, &mut state, seconds(5));
    input.pods.push(starting("p1"));
    input.current = 2;
    let seen = watch(&policy(), &mut input.clone(), &mut state, seconds(120));
    assert_eq!((seen.desired, seen.victims), (1, vec!["p1".to_owned()]));
    let unseen = settled(&policy(), &input);
    assert_eq!((unseen.desired, unseen.outcome), (2, Outcome::MetricsStale));
}

#[test]
fn a_pod_that_worked_and_went_silent_proves_nothing() {
    let mut input = fleet(0, &[5]);
    let mut state = State::default();
    watch(&policy(), &mut input, &mut state, seconds(5));
    input.pods.push(pod("p1", known(load(1, 1))));
    input.current = 2;
    watch(&policy(), &mut input, &mut state, seconds(5));
    input.pods[1].ready = false;
    input.pods[1].load = Observation::Unknown;
    input.now += STEP;
    assert_eq!(watch(&policy(), &mut input, &mut state, seconds(600)).desired, 2);
}

#[test]
fn replicas_that_have_no_pod_go_without_a_victim() {
    // A quota holds seven of ten pods back.
    let mut input = fleet(0, &[10, 10, 10]);
    input.current = 10;
    let decision = settled(&policy(), &input);
    assert_eq!((decision.desired, decision.victims.len()), (5, 0));
}

#[test]
fn the_next_decrease_waits_for_the_pods_of_the_last() {
    let mut state = State::default();
    let mut input = fleet(0, &[5, 0, 0, 0]);
    let decision = watch(&Policy { min_replicas: 2, ..policy() }, &mut input, &mut state, seconds(120));
    assert_eq!((decision.desired, decision.victims.len()), (2, 2));
    input.current = 2;
    let (decision, _) = decide(&policy(), &input, &state);
    assert_eq!((decision.desired, decision.victims.len()), (2, 2), "the list still shows four pods");
    input.pods.drain(1..3);
    assert_eq!(decide(&policy(), &input, &state).0.victims, Vec::<String>::new());
}
