//! What of a fleet's scaling survives a restart.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use operator_core::build::deployment::Owner;
use operator_core::checkpoint::{CheckpointError, KEY, build, is_material, restore};
use operator_core::observed::{LaneKey, LaneStats, Observation, PodLoad, SlotUse, TaskType};
use operator_core::scaling::{IdleWindow, Input, Mode, Pause, Pod, Policy, Ramp, STATE_VALID_FOR, State, decide};

const OWNER: Owner<'static> = Owner { namespace: "prod", name: "video", uid: "u-1" };

fn now() -> Timestamp {
    "2026-08-07T10:00:00Z".parse().unwrap()
}

/// The state after a decision that saw one pod with so many slots.
fn state(slots: u64) -> State {
    let lane = LaneKey { task_queue: "video".into(), task_type: TaskType::Activity };
    let policy = Policy {
        min_replicas: 0,
        max_replicas: 10,
        target_latency: Duration::from_secs(5),
        percentile: 0.95,
        idle_window: IdleWindow::Auto,
        pause: Pause::None,
        mode: Mode::Full,
        ramp: Ramp::default(),
    };
    let load = PodLoad::of([(lane.clone(), SlotUse { available: slots, ..SlotUse::default() })]);
    let load = Observation::Known { value: load, age: Duration::ZERO };
    let input = Input {
        now: Duration::from_secs(100),
        current: 1,
        lanes: BTreeMap::from([(lane, Observation::Known { value: LaneStats::default(), age: Duration::ZERO })]),
        lanes_complete: true,
        declared_slots: BTreeMap::new(),
        pods: vec![Pod { name: "video-a".into(), ready: true, load, ..Pod::default() }],
        floors: Vec::new(),
        grace: Duration::from_secs(30),
        template: "video".into(),
    };
    decide(&policy, &input, &State::default()).1
}

fn text_of(state: &State) -> String {
    let object = build(OWNER, state, now()).unwrap();
    object["data"][KEY].as_str().unwrap().to_owned()
}

#[test]
fn a_state_comes_back_from_its_config_map() {
    let object = build(OWNER, &state(7), now()).unwrap();
    assert_eq!(object["kind"], "ConfigMap");
    assert_eq!(object["metadata"]["name"], "video-scaling");
    assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "u-1");
    assert_eq!(object["metadata"]["labels"]["temporal.io/deployment-name"], "video");
    let restored = restore(&text_of(&state(7)), now()).unwrap();
    assert_eq!(serde_json::to_value(restored).unwrap(), serde_json::to_value(state(7)).unwrap());
    assert_ne!(serde_json::to_value(state(7)).unwrap(), serde_json::to_value(State::default()).unwrap());
}

#[test]
fn a_state_of_another_day_is_not_used() {
    let text = text_of(&state(7));
    let after = |seconds: i64| restore(&text, now() + SignedDuration::from_secs(seconds));
    let day = i64::try_from(STATE_VALID_FOR.as_secs()).unwrap();
    assert!(after(day).is_ok());
    assert_eq!(after(day + 1), Err(CheckpointError::Outdated(now())));
    assert!(after(-60).is_ok(), "clocks differ a little");
    assert_eq!(after(-3600), Err(CheckpointError::Outdated(now())), "it is from the future");
}

#[test]
fn what_is_no_state_is_said_and_not_used() {
    for text in ["", "{}", "[]", "{\"savedAt\": \"yesterday\", \"state\": {}}", &text_of(&state(7))[1..]] {
        let error = restore(text, now()).unwrap_err();
        assert!(matches!(error, CheckpointError::Malformed(_)), "{text}: {error}");
        assert!(error.to_string().contains("ignored"), "{error}");
    }
}

#[test]
fn only_what_differs_by_more_than_a_tenth_is_written_again() {
    assert!(!is_material(&state(100), &state(100)));
    assert!(!is_material(&state(100), &state(105)));
    assert!(is_material(&state(100), &state(120)));
    assert!(is_material(&State::default(), &state(100)), "something was learned");
}

/// The counts behind a share of late tasks fade while nothing happens, and are no news.
#[test]
fn a_fleet_at_rest_writes_nothing_however_long_it_rests() {
    let mut faded = serde_json::to_value(state(100)).unwrap();
    let at = |value: &serde_json::Value| serde_json::from_value::<State>(value.clone()).unwrap();
    faded["feedback"]["started"] = 500.into();
    let busy = at(&faded);
    faded["feedback"]["started"] = 20.into();
    assert_ne!(busy, at(&faded));
    assert!(!is_material(&busy, &at(&faded)));
    faded["feedback"]["multiplier"] = 3.into();
    assert!(is_material(&busy, &at(&faded)), "how long pods are held is");
}
