//! Doubt never shrinks: each kind of it, with the same fleet without it as a control.

use operator_core::observed::{LaneStats, Observation, PodLoad};
use operator_core::scaling::{IdleWindow, Input, Outcome, Policy, State, decide};

use crate::fixtures::*;

/// Three idle pods, and what spoils the proof.
type Spoil = fn(&mut Input);

const DOUBTS: [(&str, Spoil, &str); 9] = [
    (
        "a backlog is old",
        |input| {
            input.lanes.insert(lane(), stale(LaneStats::default()));
        },
        r#"the backlog of activity queue "thumbnails" is 41s old"#,
    ),
    (
        "a backlog was never read",
        |input| {
            input.lanes.insert(lane(), Observation::Unknown);
        },
        r#"the backlog of activity queue "thumbnails" was never read"#,
    ),
    (
        "one of two lanes was never read",
        |input| {
            input.pods.iter_mut().for_each(|pod| pod.load = known(two_lanes()));
            input.lanes.insert(activity("mail"), Observation::Unknown);
        },
        r#"the backlog of activity queue "mail" was never read"#,
    ),
    ("lanes may be missing", |input| input.lanes_complete = false, "the Task Queues of the fleet are not all known"),
    ("no lane is named", |input| input.lanes.clear(), "the Task Queues of the fleet are not all known"),
    ("a pod's metrics are old", |input| input.pods[1].load = stale(load(0, 0)), "metrics of pod p1 are 41s old"),
    (
        "a pod's metrics were never read",
        |input| input.pods[1].load = Observation::Unknown,
        "metrics of pod p1 were never read",
    ),
    (
        "metrics of a pod that is being deleted were never read",
        |input| {
            let mut going = pod("going", Observation::Unknown);
            going.terminating = true;
            input.pods.push(going);
        },
        "metrics of pod going were never read",
    ),
    (
        "a pod's metrics miss a lane",
        |input| input.pods[1].load = known(PodLoad::default()),
        r#"pod p1 tells no slots of activity queue "thumbnails""#,
    ),
];

fn two_lanes() -> PodLoad {
    let mut both = load(0, 0);
    both.lanes.insert(activity("mail"), both.lanes[&lane()].clone());
    both
}

#[test]
fn no_doubt_ever_shrinks_a_fleet_and_each_is_named() {
    for (name, spoil, words) in DOUBTS {
        let mut input = fleet(0, &[0, 0, 0]);
        spoil(&mut input);
        let decision = settled(&policy(), &input);
        assert_eq!((decision.desired, decision.outcome), (3, Outcome::MetricsStale), "{name}: {}", decision.reason);
        assert_eq!(decision.reason, format!("Kept at 3: {words}, a lower need is not proven."), "{name}");
        assert!(decision.victims.is_empty(), "{name}");
        let hasty = Policy { idle_window: IdleWindow::Fixed(seconds(0)), ..policy() };
        assert_eq!(settled(&hasty, &input).desired, 3, "{name}");
    }
}

#[test]
fn no_doubt_ever_takes_the_last_pod() {
    for (name, spoil, _) in DOUBTS {
        let mut input = fleet(0, &[0, 0]);
        spoil(&mut input);
        input.pods.retain(|pod| pod.name != "p0");
        input.current = 1;
        let decision = settled(&policy(), &input);
        assert_eq!((decision.desired, decision.outcome), (1, Outcome::MetricsStale), "{name}");
        assert!(decision.reason.ends_with("idleness not proven."), "{name}: {}", decision.reason);
    }
}

#[test]
fn without_doubt_the_same_fleets_shrink() {
    assert_eq!(settled(&policy(), &fleet(0, &[0, 0, 0])).desired, 0);
    let mut input = fleet(0, &[0, 0, 0]);
    input.pods.iter_mut().for_each(|pod| pod.load = known(two_lanes()));
    input.lanes.insert(activity("mail"), live(0));
    assert_eq!(settled(&policy(), &input).desired, 0);
}

#[test]
fn one_doubtful_look_holds_but_does_not_start_the_window_anew() {
    let mut state = State::default();
    let mut input = fleet(0, &[0, 0, 0]);
    watch(&policy(), &mut input, &mut state, seconds(55));
    input.now += seconds(1);
    input.pods[0].load = stale(load(0, 0));
    assert_eq!(watch(&policy(), &mut input, &mut state, seconds(4)).desired, 3);
    input.pods[0].load = known(load(0, 0));
    input.now += seconds(1);
    assert_eq!(watch(&policy(), &mut input, &mut state, seconds(0)).desired, 1);
    // But idleness is proven from then on only.
    assert_eq!(watch(&policy(), &mut input, &mut state, seconds(179)).desired, 1);
    assert_eq!(watch(&policy(), &mut input, &mut state, seconds(1)).desired, 0);
}

#[test]
fn a_first_look_and_one_after_a_long_gap_hold() {
    let mut state = State::default();
    let mut input = fleet(0, &[0, 0, 0]);
    assert_eq!(first(&input).desired, 3);
    watch(&policy(), &mut input, &mut state, seconds(50));
    input.now += seconds(500);
    let (decision, _) = decide(&policy(), &input, &state);
    assert_eq!((decision.desired, decision.outcome), (3, Outcome::Holding));
}

#[test]
fn a_state_that_was_written_and_read_remembers_slots_and_no_times() {
    let mut state = State::default();
    let mut input = fleet(0, &[0, 0, 0]);
    assert_eq!(watch(&policy(), &mut input, &mut state, seconds(300)).desired, 0);
    let text = serde_json::to_string(&state).unwrap();
    let read: State = serde_json::from_str(&text).unwrap();
    assert_eq!(decide(&policy(), &input, &read).0.desired, 3, "windows start anew");
    assert_eq!(
        decide(&policy(), &Input { declared_slots: Default::default(), ..at_zero(live(50)) }, &read).0.desired,
        5
    );
    assert_eq!(serde_json::from_str::<State>("{}").unwrap(), State::default());
}
