//! What reaches the decision, and what a dry run leaves alone.

use std::collections::BTreeMap;
use std::time::Duration;

use operator_core::clock::Clock;
use operator_core::connection::{Auth, ConnectionFacts};
use operator_core::fleet::{Surroundings, resolve};
use operator_core::observed::{ChildState, KubeState, LaneStats, TemporalState};
use operator_core::plan::{Action, PlanInput, plan};
use operator_core::scaling::State;
use serde_json::{Value, json};

use crate::scene::*;

/// The same world with and without `dryRun`: the writes are the only difference.
#[test]
fn a_dry_run_decides_and_writes_neither_replicas_nor_marks() {
    let planned = |options: Value| {
        let fleet = fleet(options);
        let lanes = [(lane(), known(LaneStats { backlog: 900, ..LaneStats::default() }))].into();
        let temporal = TemporalState { lanes, ..TemporalState::default() };
        let kube = KubeState {
            children: vec![ChildState { name: "video".into(), spec_replicas: 1, ..ChildState::default() }],
            ..KubeState::default()
        };
        plan(&PlanInput {
            fleet: &fleet,
            kube: &kube,
            applied: &Default::default(),
            temporal: &temporal,
            scaling: &State::default(),
            now: Duration::from_secs(1000),
            others: &BTreeMap::new(),
            clock: Clock::at(now()),
            identity: "me",
            former_identities: &Default::default(),
            outdated: false,
            since_marked: None,
            resting: &Default::default(),
            max_versions: 75,
            protected: true,
            order: Default::default(),
            gates: &Default::default(),
        })
    };
    let is_scale = |action: &Action| matches!(action, Action::Scale { .. } | Action::SetDeletionCost { .. });
    let (real, dry) = (planned(json!({})), planned(json!({"dryRun": true})));
    assert!(real.actions.iter().any(is_scale), "{:?}", real.actions);
    assert!(!dry.actions.iter().any(is_scale), "{:?}", dry.actions);
    assert_eq!(real.decision, dry.decision);
    assert!(dry.decision.is_some_and(|decision| decision.desired > 1));
}

fn floor_of(options: Value, wall: &str) -> u32 {
    let fleet = fleet(options);
    let input = PlanInput {
        fleet: &fleet,
        kube: &KubeState {
            children: vec![ChildState { name: "video".into(), spec_replicas: 0, ..ChildState::default() }],
            ..KubeState::default()
        },
        applied: &Default::default(),
        temporal: &server(),
        scaling: &State::default(),
        now: Duration::from_secs(1000),
        others: &BTreeMap::new(),
        clock: Clock::at(wall.parse().unwrap()),
        identity: "me",
        former_identities: &Default::default(),
        outdated: false,
        since_marked: None,
        resting: &Default::default(),
        max_versions: 75,
        protected: true,
        order: Default::default(),
        gates: &Default::default(),
    };
    plan(&input).decision.unwrap().desired
}

#[test]
fn floors_of_schedule_and_role_reach_the_decision() {
    let entry =
        json!({"name": "day", "cron": "0 8 * * *", "timezone": "Europe/Berlin", "duration": "10h", "minReplicas": 3});
    let scheduled = json!({"schedule": [entry]});
    assert_eq!(floor_of(scheduled.clone(), "2026-08-07T05:00:00Z"), 0);
    assert_eq!(floor_of(scheduled.clone(), "2026-08-07T05:59:30Z"), 3, "before eight, for the pods to start");
    assert_eq!(floor_of(scheduled.clone(), "2026-08-07T12:00:00Z"), 3);
    assert_eq!(floor_of(scheduled, "2026-08-07T16:00:00Z"), 0);
    let both = json!({"roles": {"current": {"minReplicas": 2}}, "minReplicas": 1});
    assert_eq!(floor_of(both, "2026-08-07T05:00:00Z"), 2);
}

#[test]
fn an_entry_that_can_not_be_read_is_named_with_field_value_and_remedy() {
    let refused = |cron: &str, zone: &str| {
        let entry = json!({"name": "day", "cron": cron, "timezone": zone, "duration": "1h", "minReplicas": 1});
        let scaling = json!({"taskQueues": [{"name": "video"}], "schedule": [entry]});
        let connection =
            ConnectionFacts { host_port: "t:7233".into(), server_name: None, auth: Auth::None, ca_cert: None };
        let images = Default::default();
        let around = Surroundings {
            connection: &connection,
            default_runtime_image: "runtime",
            runtime_images: &images,
            order_keys: &[],
            uncordonable: &Default::default(),
        };
        resolve(&manifest(scaling), &around).unwrap_err().to_string()
    };
    insta::assert_yaml_snapshot!([
        refused("every morning", "UTC"),
        refused("0 8 31 2 *", "UTC"),
        refused("0 8 * * *", "Berlin")
    ]);
}
