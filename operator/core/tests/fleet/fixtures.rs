//! A fleet of one Task Queue, its cluster and its server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use jiff::Timestamp;
use operator_core::api::{ConditionType, Reason, WorkerDeployment, WorkerDeploymentStatus};
use operator_core::clock::Clock;
use operator_core::connection::{Auth, ConnectionFacts};
use operator_core::fleet::{Fleet, InvalidSpec, Surroundings, resolve};
use operator_core::observed::{
    ChildState, DeploymentInfo, KubeState, LaneKey, LaneStats, Observation, PodLoad, PodState, SlotUse, TaskType,
    TemporalState, VersionInfo, VersionStatus,
};
use operator_core::plan::{Action, Plan, PlanInput, plan};
use operator_core::rollout::gate::Record;
use operator_core::scaling::State;
use operator_core::status::{Blocked, STALE_GRACE, StatusInput, compute, staleness};
use serde_json::{Value, json};

pub const NOW: Timestamp = Timestamp::UNIX_EPOCH;

pub fn manifest(patch: Value) -> WorkerDeployment {
    let mut spec = json!({
        "workerOptions": {"connectionRef": {"name": "temporal"}, "temporalNamespace": "default"},
        "rollout": {"strategy": "AllAtOnce"},
        "sunset": {},
        "template": {"metadata": {"labels": {"app": "orders"}}, "spec": {"containers": [
            {"name": "worker", "image": "acme/orders:v1", "env": [{"name": "TEMPORAL_ADDRESS", "value": "mine"}]}]}},
    });
    spec.as_object_mut().unwrap().extend(patch.as_object().unwrap().clone());
    let metadata = json!({"name": "orders", "namespace": "prod", "uid": "u-1", "generation": 3});
    let object =
        json!({"apiVersion": "temporal.io/v1alpha1", "kind": "WorkerDeployment", "metadata": metadata, "spec": spec});
    serde_json::from_value(object).unwrap()
}

pub fn runtime() -> Value {
    json!({
        "taskQueues": [{"name": "q", "maxConcurrentActivities": 4}],
        "handlers": [{"name": "cat", "exec": {"command": ["cat"], "timeout": "90s"}}],
        "activities": [{"type": "Echo", "handler": "cat"}],
    })
}

pub fn try_resolve(manifest: &WorkerDeployment, images: &[(&str, &str)]) -> Result<Fleet, InvalidSpec> {
    resolve_with(manifest, Auth::None, images)
}

pub fn resolve_with(manifest: &WorkerDeployment, auth: Auth, images: &[(&str, &str)]) -> Result<Fleet, InvalidSpec> {
    let connection = ConnectionFacts { host_port: "t:7233".into(), server_name: None, auth, ca_cert: None };
    let images = images.iter().map(|(child, image)| ((*child).into(), (*image).into())).collect();
    let around = Surroundings {
        connection: &connection,
        default_runtime_image: "runtime:v9",
        runtime_images: &images,
        order_keys: &[],
        uncordonable: &BTreeSet::new(),
    };
    resolve(manifest, &around)
}

pub fn fleet(patch: Value) -> Fleet {
    try_resolve(&manifest(patch), &[]).unwrap()
}

pub fn lane() -> LaneKey {
    LaneKey { task_queue: "q".into(), task_type: TaskType::Activity }
}

pub fn known<T>(value: T) -> Observation<T> {
    Observation::Known { value, age: Duration::ZERO }
}

/// A cluster in which the fleet's child has `replicas`, of which `busy` pods run a task.
pub fn cluster(fleet: &Fleet, replicas: u32, busy: u32) -> KubeState {
    let pod = |index: u32| {
        let used = u64::from(index < busy);
        let load = PodLoad::of([(lane(), SlotUse { used, available: 4 - used, started: used, ..SlotUse::default() })]);
        PodState {
            name: format!("pod-{index}"),
            build_id: fleet.build_id.clone(),
            ready: true,
            terminating: false,
            may_run: true,
            waiting: None,
            deletion_cost: 0,
            restarts: 0,
            may_be_cordoned: false,
            unreadable: None,
            cordoned: false,
            shown_cordoned: false,
            load: known(load),
        }
    };
    let child = ChildState {
        name: fleet.child_name.clone(),
        uid: "c-1".into(),
        build_id: fleet.build_id.clone(),
        spec_replicas: replicas,
        ready_replicas: replicas,
        resource_version: "77".into(),
        ..ChildState::default()
    };
    KubeState { children: vec![child], pods: (0..replicas).map(pod).collect(), ..KubeState::default() }
}

/// A server on which the fleet's version is current and `backlog` tasks wait.
pub fn server(fleet: &Fleet, backlog: u64) -> TemporalState {
    let build_id = fleet.build_id.clone().unwrap_or_default();
    let version = VersionInfo { status: VersionStatus::Current, lanes: [lane()].into(), ..VersionInfo::default() };
    let info = DeploymentInfo {
        current_build_id: Some(build_id.clone()),
        versions: BTreeMap::from([(build_id, known(Some(version)))]),
        conflict_token: vec![1],
        ..DeploymentInfo::default()
    };
    TemporalState {
        deployment: known(Some(info)),
        lanes: BTreeMap::from([(lane(), known(LaneStats { backlog, ..LaneStats::default() }))]),
        ..TemporalState::default()
    }
}

pub fn plan_of(fleet: &Fleet, kube: &KubeState, temporal: &TemporalState) -> Plan {
    plan(&plan_input(fleet, kube, temporal, &State::default()))
}

/// What a plan stands on when nothing was applied and no victim was marked.
pub fn plan_input<'a>(
    fleet: &'a Fleet,
    kube: &'a KubeState,
    temporal: &'a TemporalState,
    scaling: &'a State,
) -> PlanInput<'a> {
    const NONE: &BTreeMap<String, String> = &BTreeMap::new();
    const NONE_RESTS: &BTreeSet<String> = &BTreeSet::new();
    static NO_GATES: LazyLock<Record> = LazyLock::new(Record::default);
    const NO_OTHERS: &BTreeMap<String, State> = &BTreeMap::new();
    PlanInput {
        fleet,
        kube,
        applied: NONE,
        temporal,
        scaling,
        now: Duration::from_secs(1000),
        others: NO_OTHERS,
        clock: Clock::at(NOW),
        identity: "me",
        former_identities: NONE_RESTS,
        outdated: false,
        since_marked: None,
        resting: NONE_RESTS,
        max_versions: 75,
        protected: true,
        order: Default::default(),
        gates: &NO_GATES,
    }
}

pub fn scales(plan: &Plan) -> Vec<(u32, u32)> {
    let scale = |action: &Action| match action {
        Action::Scale { from, to, .. } => Some((*from, *to)),
        _ => None,
    };
    plan.actions.iter().filter_map(scale).collect()
}

pub fn status(
    fleet: &Fleet,
    kube: &KubeState,
    temporal: &TemporalState,
    blocked: Option<&Blocked>,
) -> WorkerDeploymentStatus {
    status_after(&WorkerDeploymentStatus::default(), (fleet, kube, temporal), blocked)
}

pub fn status_after(
    previous: &WorkerDeploymentStatus,
    (fleet, kube, temporal): (&Fleet, &KubeState, &TemporalState),
    blocked: Option<&Blocked>,
) -> WorkerDeploymentStatus {
    let plan = plan_of(fleet, kube, temporal);
    compute(&StatusInput {
        generation: 3,
        previous,
        blocked,
        planned: Some((fleet, &plan)),
        kube,
        temporal,
        scaled_to: &BTreeMap::new(),
        annotations: &BTreeMap::new(),
        order: Default::default(),
        stale_for: staleness(fleet, &plan, kube, temporal).any().then_some(STALE_GRACE),
        now: NOW,
    })
}

pub fn words(status: &WorkerDeploymentStatus, type_: ConditionType) -> (String, String) {
    let condition = status.condition(type_).unwrap_or_else(|| panic!("no condition {type_}"));
    (condition.status.clone(), condition.reason.clone())
}

pub fn says(status: &str, reason: Reason) -> (String, String) {
    (status.to_owned(), reason.as_str().to_owned())
}
