//! Work that more pods would not help.

use std::time::Duration;

use operator_core::observed::{LaneStats, Observation, PodLoad, RateLimit, RateLimitSource, SlotUse, Waits};
use operator_core::scaling::{CANARY, Decision, Input, Limit, Mode, Outcome, Policy, State, decide};

use crate::fixtures::*;
use crate::saturated::Saturated;

#[test]
fn pods_that_bring_no_throughput_are_given_up_and_not_tried_again_for_five_minutes() {
    let mut fleet = Saturated::new(2, 0);
    fleet.play(120, |_, _| ());
    fleet.input.lanes.insert(lane(), cached(400));
    let decision = fleet.play(45, |fleet, decision| fleet.obey(decision));
    assert_eq!((decision.outcome, decision.desired), (Outcome::Ineffective, 10), "{}", decision.reason);
    let retry = |decision: &Decision| match decision.report.limits[..] {
        [Limit::Maximum { .. }, Limit::Ineffective { retry_in }] => Some(retry_in),
        _ => None,
    };
    assert!(retry(&decision).is_some_and(|time| time <= seconds(300)), "{:?}", decision.report.limits);
    let idle = |fleet: &mut Saturated, _: &Decision| {
        for (pod, started) in fleet.input.pods.iter_mut().zip(&fleet.started) {
            pod.load = known(load(0, *started as u64));
        }
    };
    // As soon as the pods have nothing to do, those that were added go, though tasks still wait.
    fleet.throughput = 0.0;
    let decision = fleet.play(200, |fleet, decision| idle(fleet, decision));
    assert_eq!(decision.outcome, Outcome::Ineffective, "{}", decision.reason);
    assert!(decision.cordon.is_empty());
}

#[test]
fn pods_that_bring_throughput_are_kept() {
    let mut fleet = Saturated::new(2, 0);
    fleet.play(120, |_, _| ());
    fleet.input.lanes.insert(lane(), cached(400));
    let decision = fleet.play(45, |fleet, decision| {
        fleet.obey(decision);
        fleet.throughput = 5.0 * fleet.input.pods.len() as f64;
    });
    assert_eq!((decision.outcome, decision.desired), (Outcome::AtMaximum, 10), "{}", decision.reason);
}

fn never_ready(input: &mut Input, pods: usize) {
    input.pods = (0..pods).map(|at| starting(&format!("p{at}"))).collect();
    input.current = u32::try_from(pods).unwrap();
    input.lanes.insert(lane(), live(500));
    input.declared_slots.insert(lane(), SLOTS);
}

#[test]
fn pods_that_never_become_ready_are_no_reason_for_more_and_few_go_on_trying() {
    let mut state = State::default();
    let mut input = at_zero(live(35));
    let decision = watch(&policy(), &mut input, &mut state, seconds(1));
    assert_eq!(decision.desired, 4);
    never_ready(&mut input, 4);
    input.now += seconds(1);
    let early = watch(&policy(), &mut input, &mut state, seconds(100));
    assert_eq!((early.desired, early.outcome), (8, Outcome::Backlog), "twice the first order: {}", early.reason);
    let late = watch(&policy(), &mut input, &mut state, seconds(30));
    assert_eq!((u64::from(late.desired), late.outcome), (CANARY, Outcome::Stalled), "{}", late.reason);
    // They all are of one age; the rest is by name.
    assert_eq!(late.victims.len(), 2);
    input.pods[0].ready = true;
    input.pods[0].load = known(load(0, 0));
    input.now += STEP;
    let decision = watch(&policy(), &mut input, &mut state, seconds(0));
    assert!(decision.desired > 4, "one that is Ready ends it: {}", decision.reason);
}

#[test]
fn a_pod_that_is_there_at_the_first_look_stalls_only_once_it_was_seen_long_enough() {
    let mut state = State::default();
    let mut input = at_zero(live(0));
    never_ready(&mut input, 1);
    // The operator has run for an hour when the fleet is created.
    input.now = seconds(3600);
    let first = watch(&policy(), &mut input, &mut state, seconds(0));
    assert!(first.outcome == Outcome::Backlog && first.desired > 1, "{}", first.reason);
    let late = watch(&policy(), &mut input, &mut state, seconds(130));
    assert_eq!(late.outcome, Outcome::Stalled, "{}", late.reason);
    assert!(
        matches!(late.report.limits[..], [.., Limit::Stalled { pods: 1, since, .. }] if since < seconds(140)),
        "{:?}",
        late.report.limits
    );
}

#[test]
fn an_image_that_cannot_be_pulled_stalls_at_once() {
    let mut state = State::default();
    let mut input = at_zero(live(35));
    watch(&policy(), &mut input, &mut state, seconds(1));
    never_ready(&mut input, 4);
    for pod in &mut input.pods {
        pod.failing = Some("ImagePullBackOff".into());
    }
    input.now += STEP;
    let decision = watch(&policy(), &mut input, &mut state, seconds(0));
    assert_eq!((u64::from(decision.desired), decision.outcome), (CANARY, Outcome::Stalled));
    assert!(
        matches!(&decision.report.limits[..], [.., Limit::Stalled { pods: 4, why: Some(why), .. }] if why == "ImagePullBackOff")
    );
}

#[test]
fn pods_that_restart_again_and_again_neither_shrink_nor_grow_a_fleet_much() {
    let mut state = State::default();
    let mut input = fleet(0, &[0, 0, 0, 0]);
    watch(&policy(), &mut input, &mut state, seconds(10));
    for pod in input.pods.iter_mut().take(2) {
        pod.restarts = 4;
    }
    let decision = watch(&policy(), &mut input, &mut state, seconds(100));
    assert_eq!((decision.desired, decision.outcome), (4, Outcome::Degraded), "{}", decision.reason);
    input.lanes.insert(lane(), live(90));
    assert_eq!(watch(&policy(), &mut input, &mut state, seconds(0)).desired, 5, "a quarter more");
    input.pods[1].restarts = 0;
    assert!(watch(&policy(), &mut input, &mut state, seconds(0)).desired > 5, "the control");
}

fn limited(backlog: u64, told: Option<f64>, signalled: bool) -> Observation<LaneStats> {
    known(LaneStats {
        backlog,
        add_rate: Some(5.0),
        dispatch_rate: Some(5.0),
        rate_limiting: signalled,
        rate_limit: told.map(|per_second| RateLimit { per_second, source: RateLimitSource::Worker }),
        ..LaneStats::default()
    })
}

#[test]
fn a_rate_limit_gets_the_pods_that_reach_it_and_no_more() {
    for (told, signalled) in [(Some(5.0), false), (Some(5.0), true), (None, true)] {
        let mut fleet = Saturated::new(2, 0);
        fleet.throughput = 5.0;
        fleet.play(120, |_, _| ());
        fleet.input.lanes.insert(lane(), limited(5_000, told, signalled));
        let decision = fleet.play(60, |_, _| ());
        assert_eq!((decision.outcome, decision.desired), (Outcome::RateLimited, 3), "{}", decision.reason);
        let mut control = Saturated::new(2, 0);
        control.throughput = 5.0;
        control.play(120, |_, _| ());
        control.input.lanes.insert(lane(), limited(5_000, None, false));
        assert_eq!(control.play(60, |_, _| ()).desired, 10, "the control");
    }
}

#[test]
fn a_rate_limit_holds_from_zero_too_while_nobody_knows_how_long_a_task_takes() {
    let from_zero = |told: Option<f64>| {
        let mut input = at_zero(limited(80, told, false));
        input.declared_slots.insert(lane(), 2);
        first(&input)
    };
    let decision = from_zero(Some(2.0));
    assert!(decision.outcome == Outcome::RateLimited && decision.desired <= 2, "{}", decision.reason);
    let control = from_zero(None).desired;
    assert!(control > 2, "the control: {control}");
    assert_eq!(from_zero(Some(4000.0)).desired, control, "a limit far away");
}

#[test]
fn a_rate_limit_holds_while_the_pods_tell_nothing() {
    for mode in [Mode::Full, Mode::ServerOnly] {
        let silent = |told: Option<f64>| {
            let mut input = fleet(0, &[0, 0]);
            input.lanes.insert(lane(), limited(80, told, false));
            input.declared_slots.insert(lane(), 2);
            input.pods.iter_mut().for_each(|pod| pod.load = Observation::Unknown);
            decide(&Policy { mode, ..policy() }, &input, &State::default()).0
        };
        let decision = silent(Some(2.0));
        assert!(decision.outcome == Outcome::RateLimited && decision.desired <= 3, "{mode:?}: {}", decision.reason);
        assert!(silent(None).desired > 3, "the control, {mode:?}");
    }
}

#[test]
fn pods_that_are_read_at_the_beat_of_a_rate_limited_queue_get_no_more() {
    // Two tasks a second of half a second come out by fours every two seconds, and each reading meets them.
    let after = |edges: bool| {
        let mut input = fleet(60, &[2, 2]);
        input.lanes.insert(lane(), limited(60, Some(2.0), false));
        let mut state = State::default();
        let mut most = 0;
        for beat in 0..10 {
            let started = 2 + 2 * beat;
            let ended = started - 2;
            let runs =
                if edges { vec![(seconds(1), ended), (Duration::MAX, ended)] } else { vec![(Duration::MAX, ended)] };
            for pod in &mut input.pods {
                let slots = SlotUse { used: 2, started, runs: Waits(runs.clone()), ..SlotUse::default() };
                pod.load = known(PodLoad::of([(lane(), slots)]));
            }
            let (decision, next) = decide(&policy(), &input, &state);
            (state, most) = (next, most.max(decision.desired));
            input.now += seconds(2);
        }
        most
    };
    assert_eq!(after(true), 2);
    assert!(after(false) > 2, "the control: a Worker whose histogram has no edges");
}

#[test]
fn a_rate_limit_that_is_far_away_changes_nothing() {
    for backlog in [1, 30, 5_000] {
        let play = |told| {
            let mut fleet = Saturated::new(2, 0);
            fleet.throughput = 5.0;
            fleet.play(120, |_, _| ());
            fleet.input.lanes.insert(lane(), limited(backlog, told, false));
            let decision = fleet.play(60, |_, _| ());
            (decision.desired, decision.outcome)
        };
        assert_eq!(play(Some(4000.0)), play(None), "{backlog} waiting");
    }
}

#[test]
fn tasks_that_wait_beside_free_slots_are_limited_by_something_else() {
    let mut fleet = Saturated::new(2, 0);
    fleet.play(120, |_, _| ());
    fleet.input.lanes.insert(lane(), cached(5_000));
    let mut decision = None;
    for _ in 0..10 {
        fleet.input.now += STEP;
        for (pod, started) in fleet.input.pods.iter_mut().zip(&mut fleet.started) {
            *started += 25.0;
            pod.load = known(load(5, *started as u64));
        }
        let (next, state) = decide(&policy(), &fleet.input, &fleet.state);
        (fleet.state, decision) = (state, Some(next));
    }
    let decision = decision.unwrap();
    assert_eq!(decision.outcome, Outcome::RateLimited, "{}", decision.reason);
    assert!(decision.desired <= 2, "{}", decision.reason);
}

#[test]
fn full_pods_grow_by_half_while_the_server_is_away_and_one_start_up_apart() {
    let policy = Policy { max_replicas: 100, ..policy() };
    let mut fleet = Saturated::new(4, 0);
    fleet.throughput = 100.0;
    fleet.play(120, |_, _| ());
    fleet.input.lanes.insert(lane(), stale(LaneStats::default()));
    let mut raised = Vec::new();
    for _ in 0..30 {
        fleet.input.now += STEP;
        for (pod, started) in fleet.input.pods.iter_mut().zip(&mut fleet.started) {
            *started += 125.0;
            pod.load = known(load(SLOTS, *started as u64));
        }
        let (decision, state) = decide(&policy, &fleet.input, &fleet.state);
        fleet.state = state;
        if decision.desired > fleet.input.current {
            raised.push((fleet.input.now, decision.desired, decision.outcome));
        }
    }
    let blind: Vec<_> = raised.iter().filter(|(_, desired, _)| *desired > 5).collect();
    assert!(blind.iter().all(|(_, to, outcome)| (*to, *outcome) == (6, Outcome::MetricsStale)), "{raised:?}");
    assert!(blind.len() >= 4 && blind.windows(2).all(|two| two[1].0 - two[0].0 >= seconds(30)), "{raised:?}");
    fleet.input.pods[0].load = known(load(0, 100_000));
    fleet.input.now += seconds(30);
    let decision = decide(&policy, &fleet.input, &fleet.state).0;
    assert!(decision.desired < 6, "not while slots are free: {}", decision.reason);
}
