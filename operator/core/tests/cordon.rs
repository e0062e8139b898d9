//! Cordon from manifest to plan: who can be cordoned, who is, and when a cordoned pod goes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use operator_core::api::WorkerDeployment;
use operator_core::connection::{Auth, ConnectionFacts};
use operator_core::fleet::{Fleet, Surroundings, resolve};
use operator_core::observed::{
    ChildState, Cordon, DeploymentInfo, KubeState, LaneKey, LaneStats, Observation, PodLoad, PodState, SlotUse,
    TaskType, TemporalState, VersionInfo, VersionStatus,
};
use operator_core::plan::{Action, Plan, PlanInput, VICTIM_COST, plan};
use operator_core::scaling::State;
use serde_json::{Value, json};

const UID: &str = r#"{"name":"POD_UID","valueFrom":{"fieldRef":{"fieldPath":"metadata.uid"}}}"#;

/// A fleet with one slot too many at most; `patch` goes into its spec.
fn manifest(patch: &Value) -> WorkerDeployment {
    let mut spec = json!({
        "workerOptions": {"connectionRef": {"name": "temporal"}, "temporalNamespace": "default"},
        "rollout": {"strategy": "AllAtOnce"},
        "sunset": {},
        "scaling": {"maxReplicas": 1},
        "runtime": {
            "taskQueues": [{"name": "q"}],
            "handlers": [{"name": "cat", "exec": {"command": ["cat"]}}],
            "activities": [{"type": "Echo", "handler": "cat"}],
        },
    });
    spec.as_object_mut().unwrap().extend(patch.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "temporal.io/v1alpha1", "kind": "WorkerDeployment", "spec": spec,
        "metadata": {"name": "orders", "namespace": "prod", "uid": "u-1", "generation": 3},
    }))
    .unwrap()
}

fn fleet_with(patch: &Value, keys: &[&str], uncordonable: &[&str]) -> Fleet {
    let connection = ConnectionFacts { host_port: "t:7233".into(), server_name: None, auth: Auth::None, ca_cert: None };
    let keys: Vec<_> = keys.iter().map(|key| (*key).to_owned()).collect();
    let around = Surroundings {
        connection: &connection,
        default_runtime_image: "runtime:v9",
        runtime_images: &BTreeMap::new(),
        order_keys: &keys,
        uncordonable: &uncordonable.iter().map(|child| (*child).to_owned()).collect(),
    };
    resolve(&manifest(patch), &around).unwrap()
}

fn library() -> Value {
    json!({
        "runtime": {"mode": "Library", "taskQueues": [{"name": "q"}]},
        "template": {"spec": {"containers": [{"name": "worker", "image": "acme/orders:v1"}]}},
    })
}

fn lane() -> LaneKey {
    LaneKey { task_queue: "q".into(), task_type: TaskType::Activity }
}

fn known<T>(value: T) -> Observation<T> {
    Observation::Known { value, age: Duration::ZERO }
}

/// One pod more than the fleet may have, idle and Ready, that says `word` of itself.
fn cluster(fleet: &Fleet, word: Option<Cordon>) -> KubeState {
    let pod = |name: &str, used: u64, word: Option<Cordon>| PodState {
        name: name.into(),
        build_id: fleet.build_id.clone(),
        ready: true,
        may_run: true,
        may_be_cordoned: word.is_some(),
        cordoned: word == Some(Cordon::Closed),
        load: known(PodLoad {
            cordon: word,
            ..PodLoad::of([(lane(), SlotUse { used, available: 10 - used, started: used, ..SlotUse::default() })])
        }),
        ..PodState::default()
    };
    let child = ChildState {
        name: fleet.child_name.clone(),
        build_id: fleet.build_id.clone(),
        spec_replicas: 2,
        ready_replicas: 2,
        resource_version: "77".into(),
        ..ChildState::default()
    };
    let pods = vec![pod("busy", 1, Some(Cordon::Open)), pod("idle", 0, word)];
    KubeState { children: vec![child], pods, ..KubeState::default() }
}

/// A server on which the fleet's version is current and nothing waits.
fn server(fleet: &Fleet) -> TemporalState {
    let build_id = fleet.build_id.clone().unwrap_or_default();
    let version = VersionInfo { status: VersionStatus::Current, lanes: [lane()].into(), ..VersionInfo::default() };
    let info = DeploymentInfo {
        current_build_id: Some(build_id.clone()),
        versions: BTreeMap::from([(build_id, Observation::Known { value: Some(version), age: Duration::ZERO })]),
        ..DeploymentInfo::default()
    };
    let lanes = BTreeMap::from([(lane(), known(LaneStats::default()))]);
    TemporalState { deployment: known(Some(info)), lanes, ..TemporalState::default() }
}

fn plan_of(fleet: &Fleet, kube: &KubeState) -> Plan {
    let (applied, scaling, temporal) = (BTreeMap::new(), State::default(), server(fleet));
    let now = Duration::from_secs(1000);
    plan(&PlanInput {
        fleet,
        kube,
        applied: &applied,
        temporal: &temporal,
        scaling: &scaling,
        now,
        others: &BTreeMap::new(),
        clock: operator_core::clock::Clock::at(jiff::Timestamp::UNIX_EPOCH),
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
}

fn scales(plan: &Plan) -> bool {
    plan.actions.iter().any(|action| matches!(action, Action::Scale { from: 2, to: 1, .. }))
}

fn shown(plan: &Plan) -> Vec<(&str, bool)> {
    let shown = |action: &'_ Action| matches!(action, Action::ShowCordon { .. });
    let name = |action| match action {
        &Action::ShowCordon { ref pod, cordoned } => (pod.as_str(), cordoned),
        other => panic!("{other:?}"),
    };
    plan.actions.iter().filter(|action| shown(action)).map(name).collect()
}

#[test]
fn a_pod_that_goes_is_cordoned_and_goes_only_when_no_task_can_reach_it() {
    let fleet = fleet_with(&json!({}), &["k"], &[]);
    for (word, goes) in [(Cordon::Open, false), (Cordon::Closing, false), (Cordon::Closed, true)] {
        let mut kube = cluster(&fleet, Some(word));
        kube.pods[1].deletion_cost = VICTIM_COST;
        let plan = plan_of(&fleet, &kube);
        assert_eq!(plan.cordon, BTreeSet::from(["idle".to_owned()]), "{word:?}");
        assert_eq!(scales(&plan), goes, "{word:?}: {:?}", plan.actions);
    }
}

#[test]
fn a_pod_that_takes_no_orders_goes_as_it_always_did() {
    let fleet = fleet_with(&json!({}), &["k"], &[]);
    let mut kube = cluster(&fleet, None);
    kube.pods[1].deletion_cost = VICTIM_COST;
    let plan = plan_of(&fleet, &kube);
    assert!(scales(&plan) && plan.cordon.is_empty() && shown(&plan).is_empty(), "{:?}", plan.actions);
}

#[test]
fn the_cluster_shows_who_is_cordoned_and_no_longer_who_was() {
    let fleet = fleet_with(&json!({}), &["k"], &[]);
    let mut kube = cluster(&fleet, Some(Cordon::Open));
    kube.pods[0].shown_cordoned = true;
    assert_eq!(shown(&plan_of(&fleet, &kube)), [("busy", false), ("idle", true)]);
    kube.pods[0].shown_cordoned = false;
    kube.pods[1].shown_cordoned = true;
    assert!(shown(&plan_of(&fleet, &kube)).is_empty());
    kube.pods[1].terminating = true;
    let plan = plan_of(&fleet, &kube);
    assert!(plan.cordon.is_empty() && shown(&plan).is_empty(), "nobody orders a pod that ends");
}

#[test]
fn a_fleet_without_an_autoscaler_cordons_nobody() {
    let fleet = fleet_with(&json!({"scaling": null}), &["k"], &[]);
    let mut kube = cluster(&fleet, Some(Cordon::Closed));
    kube.pods[1].shown_cordoned = true;
    let plan = plan_of(&fleet, &kube);
    assert!(plan.cordon.is_empty());
    assert_eq!(shown(&plan), [("idle", false)]);
}

#[test]
fn pods_of_the_runtime_know_their_uid_without_another_build_id() {
    for patch in [json!({}), library()] {
        let (able, unable) = (fleet_with(&patch, &[], &[]), fleet_with(&patch, &[], &[&child_name(&patch)]));
        assert_eq!(able.build_id, unable.build_id);
        let told = |fleet: &Fleet| fleet.child.object["spec"]["template"].to_string().contains(UID);
        assert!(told(&able) && !told(&unable), "{}", able.child.object);
        let marked = |fleet: &Fleet| fleet.child.object["metadata"]["annotations"]["temporal.io/cordonable"] == "true";
        assert!(marked(&able) && !marked(&unable));
    }
}

#[test]
fn a_uid_of_the_users_own_stays() {
    let mut patch = library();
    patch["template"]["spec"]["containers"][0]["env"] = json!([{"name": "POD_UID", "value": "mine"}]);
    let template = fleet_with(&patch, &[], &[]).child.object["spec"]["template"].to_string();
    assert!(template.contains(r#"{"name":"POD_UID","value":"mine"}"#) && !template.contains(UID), "{template}");
}

#[test]
fn a_change_of_keys_reaches_the_pods_and_replaces_none() {
    let (old, new) = (fleet_with(&json!({}), &["k1"], &[]), fleet_with(&json!({}), &["k1", "k2"], &[]));
    assert_eq!(old.child, new.child);
    assert!(new.config_maps[1]["data"]["limits.json"].as_str().unwrap().contains(r#""orderKeys":["k1","k2"]"#));
    assert_eq!(old.config_maps[0], new.config_maps[0], "what a version runs never changes");
    // A limit that only a new pod can have does replace them: the grace period follows from it.
    let mut patch = json!({"runtime": manifest(&json!({})).spec.runtime});
    patch["runtime"]["drainTimeout"] = json!("77s");
    assert_ne!(old.child, fleet_with(&patch, &["k1"], &[]).child);
}

fn child_name(patch: &Value) -> String {
    fleet_with(patch, &[], &[]).child_name
}
