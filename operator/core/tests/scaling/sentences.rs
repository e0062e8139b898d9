//! What is said to users: each sentence once, with its numbers, what binds, and one remedy where there is one.

use std::fmt::Write;

use operator_core::observed::{LaneStats, Observation, PodLoad, RateLimit, RateLimitSource, ReadFailure, Unreadable};
use operator_core::scaling::{Decision, Floor, Pause, Policy, Ramp, State, decide};

use crate::fixtures::*;
use crate::saturated::Saturated;

/// Two pods that run tasks of two seconds in all of their slots, for two minutes.
fn working() -> Saturated {
    let mut fleet = Saturated::new(2, 0);
    fleet.play(120, |_, _| ());
    fleet
}

fn with(fleet: &Saturated, policy: &Policy) -> Decision {
    let mut input = fleet.input.clone();
    input.now += seconds(1);
    decide(policy, &input, &fleet.state).0
}

fn rate_limited(source: Option<RateLimitSource>) -> Observation<LaneStats> {
    known(LaneStats {
        backlog: 5_000,
        add_rate: Some(15.0),
        dispatch_rate: Some(5.0),
        rate_limiting: true,
        rate_limit: source.map(|source| RateLimit { per_second: 5.0, source }),
        ..LaneStats::default()
    })
}

fn at_rest() -> Vec<(&'static str, Decision)> {
    let mut floored = at_zero(live(0));
    floored.floors =
        vec![Floor { replicas: 2, reason: "version b1 runs one pod until the server knows its Task Queues".into() }];
    let mut no_slots = at_zero(live(50));
    no_slots.declared_slots.clear();
    let mut state = State::default();
    let mut idle = fleet(0, &[0]);
    let waiting = watch(&policy(), &mut idle, &mut state, seconds(100));
    let to_zero = watch(&policy(), &mut idle, &mut state, seconds(80));
    let mut unread = fleet(0, &[0]);
    unread.pods[0].load = stale(load(0, 0));
    let mut cut_off = unread.clone();
    cut_off.pods[0].unreadable =
        Some(Unreadable::Failed { at: ":9090/metrics".into(), failure: ReadFailure::ConnectTimeout });
    vec![
        ("at zero", first(&at_zero(live(0)))),
        ("at zero, blind", first(&at_zero(Observation::Unknown))),
        ("from zero", first(&at_zero(live(68)))),
        ("from zero, without slots", first(&no_slots)),
        ("the minimum", decide(&Policy { min_replicas: 3, ..policy() }, &at_zero(live(0)), &State::default()).0),
        ("a floor", first(&floored)),
        ("waiting for the idle window", waiting),
        ("the idle window is over", to_zero),
        ("idle, not proven", first(&unread)),
        ("idle, not proven, with a cause", first(&cut_off)),
        ("ghosts", settled(&policy(), &fleet(100, &[0, 0]))),
    ]
}

fn under_load() -> Vec<(&'static str, Decision)> {
    let mut backlog = working();
    backlog.input.lanes.insert(
        lane(),
        known(LaneStats { backlog: 90, backlog_age: Some(seconds(12)), add_rate: Some(10.0), ..LaneStats::default() }),
    );
    let raised = with(&backlog, &policy());
    let most = with(&backlog, &Policy { max_replicas: 4, ..policy() });
    let ramped = with(&backlog, &Policy { ramp: Ramp { up_per_minute: Some(1), down_per_minute: None }, ..policy() });
    let paused = with(&backlog, &Policy { pause: Pause::All, ..policy() });
    backlog.play(5, |fleet, decision| fleet.obey(decision));
    backlog.input.lanes.insert(lane(), cached(0));
    let episode = with(&backlog, &policy());
    let mut cpu = working();
    for _ in 0..20 {
        cpu.input.now += STEP;
        for (pod, started) in cpu.input.pods.iter_mut().zip(&mut cpu.started) {
            *started += 25.0;
            pod.load = known(PodLoad { cpu: Some(0.95), ..load(SLOTS, *started as u64) });
        }
        cpu.state = decide(&policy(), &cpu.input, &cpu.state).1;
    }
    let mut silent = working();
    silent.input.pods.iter_mut().for_each(|pod| pod.load = stale(load(SLOTS, 1_000)));
    silent.input.lanes.insert(lane(), known(LaneStats { backlog: 40, add_rate: Some(12.0), ..LaneStats::default() }));
    let mut blind = Saturated::new(4, 0);
    blind.play(120, |_, _| ());
    blind.input.lanes.insert(lane(), stale(LaneStats::default()));
    vec![
        ("a load", with(&working(), &policy())),
        ("a backlog", raised),
        ("the maximum", most),
        ("a ramp", ramped),
        ("paused", paused),
        ("an episode", episode),
        ("CPU", with(&cpu, &policy())),
        ("the pods tell nothing", with(&silent, &policy())),
        ("the server tells nothing", with(&blind, &policy())),
    ]
}

fn shrinking() -> Vec<(&'static str, Decision)> {
    let mut state = State::default();
    let mut three = fleet(0, &[5, 0, 0]);
    let holding = watch(&policy(), &mut three, &mut state, seconds(20));
    let down_paused = settled(&Policy { pause: Pause::Down, ..policy() }, &three);
    let ramp = Ramp { up_per_minute: None, down_per_minute: Some(1) };
    let busy = settled(&policy(), &fleet(0, &[1, 1, 1]));
    let over = decide(&Policy { max_replicas: 2, ..policy() }, &fleet(0, &[1, 1, 1]), &State::default()).0;
    vec![
        ("holding", holding),
        ("paused downwards", down_paused),
        ("a ramp downwards", settled(&Policy { ramp, ..policy() }, &three)),
        ("a step", settled(&policy(), &fleet(0, &[5, 0, 0, 0, 0, 0, 0, 0]))),
        ("busy pods", busy),
        ("busy pods above the maximum", over),
    ]
}

fn hopeless() -> Vec<(&'static str, Decision)> {
    let mut decisions = Vec::new();
    for (name, source) in [
        ("limited by Workers", Some(RateLimitSource::Worker)),
        ("limited by the queue", Some(RateLimitSource::Api)),
        ("limited, as measured", None),
    ] {
        let mut fleet = working();
        fleet.throughput = 5.0;
        fleet.input.lanes.insert(lane(), rate_limited(source));
        decisions.push((name, fleet.play(300, |_, _| ())));
    }
    let mut ineffective = working();
    ineffective.input.lanes.insert(lane(), cached(400));
    decisions.push(("without effect", ineffective.play(45, |fleet, decision| fleet.obey(decision))));
    let mut state = State::default();
    let mut stalled = at_zero(live(35));
    watch(&policy(), &mut stalled, &mut state, seconds(1));
    stalled.pods = (0..4).map(|at| starting(&format!("p{at}"))).collect();
    stalled.current = 4;
    stalled.now += STEP;
    stalled.lanes.insert(lane(), live(500));
    decisions.push(("a new version", watch(&policy(), &mut stalled, &mut state, seconds(5))));
    stalled.pods.iter_mut().for_each(|pod| pod.failing = Some("ImagePullBackOff".into()));
    decisions.push(("stalled", watch(&policy(), &mut stalled, &mut state, seconds(240))));
    let mut state = State::default();
    let mut crashing = fleet(0, &[0, 0, 0, 0]);
    watch(&policy(), &mut crashing, &mut state, seconds(10));
    crashing.pods.iter_mut().take(2).for_each(|pod| pod.restarts = 4);
    decisions.push(("crashing", watch(&policy(), &mut crashing, &mut state, seconds(100))));
    decisions
}

#[test]
fn every_sentence() {
    let mut text = String::new();
    for (name, decision) in at_rest().into_iter().chain(under_load()).chain(shrinking()).chain(hopeless()) {
        writeln!(text, "{name}:\n  {:?}\n  {}", decision.outcome, decision.reason).unwrap();
    }
    insta::assert_snapshot!("sentences", text);
}

#[test]
fn a_report_has_the_whole_calculation() {
    let mut fleet = working();
    fleet.input.lanes.insert(lane(), rate_limited(Some(RateLimitSource::Worker)));
    insta::assert_debug_snapshot!("report", with(&fleet, &policy()).report);
}
