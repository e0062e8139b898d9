//! What survives a restart, and for how long.

use operator_core::observed::{Observation, PodLoad, SlotUse, Waits};
use operator_core::scaling::{IdleWindow, Input, Mode, Outcome, Policy, STATE_VALID_FOR, State, decide};

use crate::fixtures::*;
use crate::saturated::Saturated;

/// What an operator leaves that saw two pods work off ten tasks of two seconds a second.
fn checkpoint() -> State {
    let mut fleet = Saturated::new(2, 0);
    fleet.play(120, |_, _| ());
    serde_json::from_str(&serde_json::to_string(&fleet.state).unwrap()).unwrap()
}

fn zero(backlog: u64) -> Input {
    Input { declared_slots: Default::default(), ..at_zero(live(backlog)) }
}

#[test]
fn a_restart_remembers_service_time_and_slots_for_a_day() {
    let fresh = checkpoint().restored(seconds(60));
    let decision = decide(&policy(), &zero(70), &fresh).0;
    // 70 tasks of 2 s in 7 s: 16 slots.
    assert_eq!((decision.desired, decision.outcome), (2, Outcome::Scaled), "{}", decision.reason);
    let old = checkpoint().restored(STATE_VALID_FOR + seconds(1));
    let decision = decide(&policy(), &zero(70), &old).0;
    assert!(decision.reason.contains("no pod has told its slots yet"), "{}", decision.reason);
}

#[test]
fn another_template_learns_anew() {
    let mut input = zero(70);
    input.template = "another".into();
    let decision = decide(&policy(), &input, &checkpoint()).0;
    assert!(decision.reason.contains("no pod has told its slots yet"), "{}", decision.reason);
}

#[test]
fn after_a_restart_nothing_is_lowered_for_a_hold() {
    let mut state = checkpoint();
    let mut input = fleet(0, &[0, 0, 0]);
    assert_eq!(watch(&policy(), &mut input, &mut state, seconds(59)).desired, 3);
    input.now += seconds(1);
    assert!(watch(&policy(), &mut input, &mut state, seconds(0)).desired < 3);
}

/// A task of five seconds each `gap` seconds, and what an Auto window makes of it after an hour.
fn learned_window(gap: u64) -> u64 {
    let policy = Policy { idle_window: IdleWindow::Auto, ..policy() };
    let mut state = State::default();
    let mut input = fleet(0, &[0]);
    let mut started = 0;
    for second in (0..gap * 12).step_by(5) {
        let busy = second % gap == 0;
        started += u64::from(busy);
        input.pods[0].load = known(load(u64::from(busy), started));
        input.now += STEP;
        state = decide(&policy, &input, &state).1;
    }
    input.pods[0].load = known(load(0, started + 1));
    (0..200)
        .map(|_| {
            input.now += STEP;
            let (decision, next) = decide(&policy, &input, &state);
            state = next;
            decision.desired
        })
        .take_while(|desired| *desired > 0)
        .count() as u64
        * 5
}

#[test]
fn an_automatic_idle_window_follows_the_gaps() {
    // A start from zero costs as much as 140 s of a pod.
    assert!((90..200).contains(&learned_window(100)), "{}", learned_window(100));
    assert!(learned_window(1_000) < 100, "{}", learned_window(1_000));
}

#[test]
fn late_starts_lengthen_the_hold() {
    let play = |on_time: u64| {
        let mut state = State::default();
        let mut input = fleet(0, &[10, 10, 10]);
        let mut started = 0;
        for _ in 0..100 {
            started += 50;
            for pod in &mut input.pods {
                let in_time = started * on_time / 100;
                let waits = Waits(vec![(seconds(5), in_time), (std::time::Duration::MAX, started)]);
                let slots = SlotUse { used: 10, started, waits, ..SlotUse::default() };
                pod.load = known(PodLoad::of([(lane(), slots)]));
            }
            input.now += STEP;
            state = decide(&policy(), &input, &state).1;
        }
        decide(&policy(), &input, &state).0.report.slo.unwrap()
    };
    let (good, bad) = (play(100), play(80));
    assert!(good.late_share < 0.01 && (good.hold_multiplier - 1.0).abs() < 1e-9, "{good:?}");
    assert!(bad.late_share > 0.15 && bad.hold_multiplier > 5.0, "{bad:?}");
}

#[test]
fn by_the_servers_word_alone_a_fleet_follows_its_rates_and_never_reaches_zero() {
    let policy = Policy { mode: Mode::ServerOnly, ..policy() };
    let mut state = State::default();
    let mut input = fleet(0, &[0, 0]);
    input.pods.iter_mut().for_each(|pod| pod.load = Observation::Unknown);
    input.declared_slots.insert(lane(), SLOTS);
    let stats = |backlog, rate| {
        known(operator_core::observed::LaneStats {
            backlog,
            add_rate: Some(rate),
            dispatch_rate: Some(20.0),
            ..Default::default()
        })
    };
    // Two pods do 20 a second while tasks wait; 40 arrive.
    input.lanes.insert(lane(), stats(30, 40.0));
    let decision = watch(&policy, &mut input, &mut state, seconds(20));
    assert!((5..10).contains(&decision.desired), "{}", decision.reason);
    input.lanes.insert(lane(), stats(0, 0.0));
    input.current = 5;
    let decision = watch(&policy, &mut input, &mut state, seconds(170));
    assert_eq!(decision.desired, 5, "{}", decision.reason);
    let decision = watch(&policy, &mut input, &mut state, seconds(30));
    assert_eq!(decision.desired, 4, "a quarter at a time: {}", decision.reason);
    input.current = 1;
    assert_eq!(watch(&policy, &mut input, &mut state, seconds(2_000)).desired, 1);
}

#[test]
fn cpu_that_is_used_up_limits_the_slots_that_count() {
    let mut fleet = Saturated::new(2, 0);
    fleet.play(120, |_, _| ());
    let free = decide(&policy(), &fleet.input, &fleet.state).0;
    for _ in 0..30 {
        fleet.input.now += STEP;
        for (pod, started) in fleet.input.pods.iter_mut().zip(&mut fleet.started) {
            *started += 25.0;
            let mut told = load(SLOTS, *started as u64);
            told.cpu = Some(0.95);
            pod.load = known(told);
        }
        fleet.state = decide(&policy(), &fleet.input, &fleet.state).1;
    }
    let bound = decide(&policy(), &fleet.input, &fleet.state).0;
    let usable = |decision: &operator_core::scaling::Decision| decision.report.lanes[0].slots_per_pod.unwrap();
    assert!((usable(&free) - 10.0).abs() < 1e-9 && (usable(&bound) - 8.5).abs() < 1e-9, "{}", bound.reason);
    assert!(bound.reason.contains("8.5 usable of 10 slots per pod (CPU 85% target)"), "{}", bound.reason);
}
