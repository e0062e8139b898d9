//! More pods: at once, as many as the tasks need, and not twice for the same tasks.

use operator_core::observed::{LaneStats, Observation};
use operator_core::scaling::{CANARY, Outcome, State, decide};

use crate::fixtures::*;

#[test]
fn from_zero_it_goes_straight_to_what_the_backlog_needs() {
    let decision = first(&at_zero(live(68)));
    assert_eq!((decision.desired, decision.outcome, decision.backlog), (7, Outcome::Scaled, Some(68)));
    assert_eq!(
        decision.reason,
        r#"7 replicas: activity queue "thumbnails" needs 68 slots (68 waiting + 0 running, their time is not known yet) at 10 slots per pod."#
    );
}

#[test]
fn tasks_that_run_need_their_slots_too() {
    let decision = first(&fleet(20, &[8]));
    assert_eq!((decision.desired, decision.backlog, decision.in_flight), (3, Some(20), Some(8)));
    assert_eq!(
        decision.reason,
        r#"3 replicas: activity queue "thumbnails" needs 28 slots (20 waiting + 8 running, their time is not known yet) at 10 slots per pod."#
    );
}

#[test]
fn tasks_on_a_pod_that_is_being_deleted_need_no_other_slot_but_are_in_flight() {
    let mut input = fleet(20, &[8, 10]);
    input.pods[1].terminating = true;
    input.current = 1;
    let decision = first(&input);
    assert_eq!((decision.desired, decision.in_flight), (3, Some(18)));
}

#[test]
fn the_lane_that_needs_most_decides() {
    let mut input = at_zero(live(15));
    input.lanes.insert(activity("mail"), live(40));
    input.declared_slots.insert(activity("mail"), 20);
    assert_eq!(first(&input).desired, 2);
    input.lanes.insert(activity("mail"), live(41));
    let decision = first(&input);
    assert_eq!((decision.desired, decision.backlog), (3, Some(56)));
    assert!(decision.reason.contains(r#"activity queue "mail" needs 41 slots"#), "{}", decision.reason);
}

#[test]
fn measured_slots_outrank_declared_ones_and_are_remembered_at_zero() {
    let mut input = fleet(40, &[0]);
    input.declared_slots.insert(lane(), 2);
    let (decision, state) = decide(&policy(), &input, &State::default());
    assert_eq!(decision.desired, 4);
    let mut zero = at_zero(live(40));
    zero.declared_slots.insert(lane(), 2);
    assert_eq!(decide(&policy(), &zero, &state).0.desired, 4);
    assert_eq!(first(&zero).desired, 10, "the control: without memory the declared ones count");
}

#[test]
fn without_known_slots_a_canary_tells_them_first() {
    let mut zero = at_zero(live(50));
    zero.declared_slots.clear();
    let (decision, state) = decide(&policy(), &zero, &State::default());
    assert_eq!(u64::from(decision.desired), CANARY);
    assert!(decision.reason.contains("no pod has told its slots yet"), "{}", decision.reason);
    assert_eq!(decide(&policy(), &fleet(30, &[0, 0]), &state).0.desired, 3);
    zero.lanes.insert(lane(), live(1));
    assert_eq!(first(&zero).desired, 1, "one task needs no second pod to try");
}

#[test]
fn pods_that_start_count_for_the_backlog_they_were_ordered_for() {
    let mut input = fleet(68, &[]);
    input.declared_slots.insert(lane(), SLOTS);
    input.pods = (0..7).map(|at| starting(&format!("p{at}"))).collect();
    input.current = 7;
    assert_eq!(settled(&policy(), &input).desired, 7);
}

#[test]
fn a_burst_that_the_pods_took_in_after_the_reading_counts_once() {
    let mut state = State::default();
    let mut input = at_zero(live(68));
    watch(&policy(), &mut input, &mut state, seconds(1));
    let mut busy = fleet(0, &[10, 10, 10, 10, 10, 10, 8]);
    busy.now = input.now + seconds(2);
    busy.lanes.insert(lane(), cached(68));
    assert_eq!(decide(&policy(), &busy, &state).0.desired, 7);
    busy.lanes.insert(lane(), cached(98));
    let (decision, _) = decide(&policy(), &busy, &state);
    assert_eq!(decision.desired, 10, "the control: 30 more have come since: {}", decision.reason);
}

#[test]
fn a_backlog_that_outlasts_the_servers_cache_counts_in_full() {
    let mut state = State::default();
    let mut input = fleet(0, &[10]);
    watch(&policy(), &mut input, &mut state, seconds(10));
    input.lanes.insert(lane(), cached(20));
    assert_eq!(decide(&policy(), &input, &state).0.desired, 3);
}

#[test]
fn at_zero_nothing_starts_a_pod_but_a_fresh_backlog() {
    for (reading, outcome) in [
        (live(0), Outcome::Idle),
        (stale_backlog(50), Outcome::MetricsStale),
        (Observation::Unknown, Outcome::MetricsStale),
    ] {
        let decision = settled(&policy(), &at_zero(reading.clone()));
        assert_eq!((decision.desired, decision.outcome), (0, outcome), "{reading:?}");
    }
    assert_eq!(first(&at_zero(live(0))).reason, "At zero: no task waits.");
    assert_eq!(first(&at_zero(live(1))).desired, 1);
}

#[test]
fn a_stale_reading_does_not_raise() {
    let mut input = fleet(0, &[5]);
    input.lanes.insert(lane(), stale_backlog(50));
    assert_eq!(settled(&policy(), &input).desired, 1);
    input.lanes.insert(lane(), live(50));
    assert!(settled(&policy(), &input).desired > 1, "the control");
}

#[test]
fn a_fresh_lane_raises_beside_one_that_cannot_be_read() {
    let mut input = at_zero(live(30));
    input.lanes.insert(activity("mail"), Observation::Unknown);
    let decision = first(&input);
    assert_eq!((decision.desired, decision.backlog), (3, None));
}

#[test]
fn a_pod_that_took_a_task_while_it_goes_does_not_bring_its_replica_back() {
    // The number is lowered, the pod not marked yet.
    let mut input = fleet(0, &[1]);
    input.current = 0;
    assert_eq!(settled(&policy(), &input).desired, 0);
    let mut input = fleet(0, &[10, 10, 1]);
    input.current = 2;
    assert_eq!(first(&input).desired, 2);
    input.lanes.insert(lane(), live(1));
    assert_eq!(first(&input).desired, 3, "the control: a task that waits needs a slot");
}

#[test]
fn a_backlog_that_no_free_slot_takes_costs_one_pod() {
    let mut input = fleet(100, &[0, 0, 0, 0]);
    let mut state = State::default();
    assert_eq!(watch(&policy(), &mut input, &mut state, seconds(10)).desired, 8);
    let decision = settled(&policy(), &input);
    assert_eq!((decision.desired, decision.victims.len()), (1, 3));
    assert!(decision.reason.contains("wait though free slots take none"), "{}", decision.reason);
}

#[test]
fn a_backlog_counts_in_full_as_soon_as_a_task_of_it_starts() {
    let mut input = fleet(100, &[0]);
    let mut state = State::default();
    assert_eq!(watch(&policy(), &mut input, &mut state, seconds(60)).desired, 1);
    input.pods[0].load = known(load(0, 1));
    input.now += STEP;
    assert_eq!(decide(&policy(), &input, &state).0.desired, 5);
}

#[test]
fn one_old_reading_seen_again_and_again_is_no_ghost() {
    let mut state = State::default();
    let mut input = fleet(100, &[0]);
    for age in 0..20 {
        let stats = *input.lanes[&lane()].last().unwrap();
        input.lanes.insert(lane(), Observation::Known { value: stats, age: seconds(age) });
        let (decision, next) = decide(&policy(), &input, &state);
        assert_eq!(decision.desired, 5, "at age {age}");
        (state, input.now) = (next, input.now + seconds(1));
    }
}

fn stale_backlog(backlog: u64) -> Observation<LaneStats> {
    stale(LaneStats { backlog, ..LaneStats::default() })
}
