//! A fleet with a decision that is made up.

use std::time::Duration;

use jiff::Timestamp;
use operator_core::api::{ConditionType, WorkerDeployment, WorkerDeploymentStatus};
use operator_core::connection::{Auth, ConnectionFacts};
use operator_core::fleet::{Fleet, Surroundings, resolve};
use operator_core::observed::{
    ChildState, KubeState, LaneKey, LaneStats, Observation, PodLoad, PodState, TaskType, TemporalState,
};
use operator_core::plan::Plan;
use operator_core::scaling::{Decision, LaneReport, Limit, Outcome, Report, Slo, State};
use operator_core::status::{StatusInput, compute};
use serde_json::{Value, json};

pub fn now() -> Timestamp {
    "2026-08-07T10:00:00Z".parse().unwrap()
}

pub fn manifest(scaling: Value) -> WorkerDeployment {
    let spec = json!({
        "workerOptions": {"connectionRef": {"name": "temporal"}, "temporalNamespace": "default"},
        "versioning": "Disabled",
        "template": {"spec": {"containers": [{"name": "worker", "image": "acme/video:v1"}]}},
        "scaling": scaling,
    });
    let metadata = json!({"name": "video", "namespace": "prod", "uid": "u-1", "generation": 3});
    let object =
        json!({"apiVersion": "temporal.io/v1alpha1", "kind": "WorkerDeployment", "metadata": metadata, "spec": spec});
    serde_json::from_value(object).unwrap()
}

pub fn fleet(options: Value) -> Fleet {
    let mut scaling = json!({"taskQueues": [{"name": "video", "types": ["Activity"]}]});
    scaling.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    let connection = ConnectionFacts { host_port: "t:7233".into(), server_name: None, auth: Auth::None, ca_cert: None };
    let images = Default::default();
    let around = Surroundings {
        connection: &connection,
        default_runtime_image: "runtime",
        runtime_images: &images,
        order_keys: &[],
        uncordonable: &Default::default(),
    };
    resolve(&manifest(scaling), &around).unwrap()
}

pub fn lane() -> LaneKey {
    LaneKey { task_queue: "video".into(), task_type: TaskType::Activity }
}

pub fn pod(name: &str, load: Observation<PodLoad>) -> PodState {
    PodState { name: name.into(), ready: true, may_run: true, load, ..PodState::default() }
}

pub fn known<T>(value: T) -> Observation<T> {
    Observation::Known { value, age: Duration::ZERO }
}

pub fn cluster() -> KubeState {
    let child = ChildState { name: "video".into(), spec_replicas: 4, ready_replicas: 2, ..ChildState::default() };
    let pods = vec![pod("video-a", known(PodLoad::default())), pod("video-b", known(PodLoad::default()))];
    KubeState { children: vec![child], pods, ..KubeState::default() }
}

pub fn server() -> TemporalState {
    let lanes = [(lane(), known(LaneStats::default()))].into();
    TemporalState { lanes, ..TemporalState::default() }
}

/// A decision for six pods, with everything that a report can hold but limits.
pub fn decision() -> Decision {
    let lane_report = LaneReport {
        lane: lane(),
        backlog: Some(1840),
        backlog_age: Some(Duration::from_millis(12_345)),
        arrival_rate: Some(3.904),
        in_flight: 40,
        slots_per_pod: Some(8.25),
        service_time: Some(Duration::from_micros(10_203_004)),
        offered_load: 39.84,
        rate_replicas: 6,
        burst_replicas: 22,
        metrics_age: Some(Duration::from_millis(2_017)),
    };
    let report = Report {
        lanes: vec![lane_report],
        binding: Some(lane()),
        limits: Vec::new(),
        slo: Some(Slo { target: Duration::from_secs(5), late_share: 0.0123, hold_multiplier: 1.3 }),
        next_down_in: Some(Duration::from_millis(42_400)),
    };
    Decision {
        desired: 22,
        victims: Vec::new(),
        any_ends_in_time: false,
        cordon: Vec::new(),
        backlog: Some(1840),
        in_flight: Some(40),
        outcome: Outcome::Backlog,
        reason: "22 replicas: so it is.".into(),
        recheck_after: Duration::from_secs(5),
        report,
    }
}

pub struct Scene {
    pub fleet: Fleet,
    pub decision: Decision,
    pub scaling: State,
    pub kube: KubeState,
    pub temporal: TemporalState,
    pub stale_for: Option<Duration>,
    pub now: Timestamp,
    pub previous: WorkerDeploymentStatus,
}

impl Scene {
    pub fn new(options: Value) -> Self {
        Self {
            fleet: fleet(options),
            decision: decision(),
            scaling: State::default(),
            kube: cluster(),
            temporal: server(),
            stale_for: None,
            now: now(),
            previous: WorkerDeploymentStatus::default(),
        }
    }

    pub fn limited(limit: Limit) -> Self {
        let mut scene = Self::new(json!({}));
        scene.decision.report.limits.push(limit);
        scene
    }

    pub fn late(share: f64) -> Self {
        let mut scene = Self::new(json!({}));
        scene.decision.report.slo =
            Some(Slo { target: Duration::from_secs(5), late_share: share, hold_multiplier: 2.0 });
        scene
    }

    pub fn status(&self) -> WorkerDeploymentStatus {
        let plan = Plan { decision: Some(self.decision.clone()), scaling: self.scaling.clone(), ..Plan::default() };
        compute(&StatusInput {
            generation: 3,
            previous: &self.previous,
            blocked: None,
            planned: Some((&self.fleet, &plan)),
            kube: &self.kube,
            temporal: &self.temporal,
            scaled_to: &Default::default(),
            annotations: &Default::default(),
            order: Default::default(),
            stale_for: self.stale_for,
            now: self.now,
        })
    }

    pub fn condition(&self, type_: ConditionType) -> String {
        said(&self.status(), type_)
    }
}

pub fn said(status: &WorkerDeploymentStatus, type_: ConditionType) -> String {
    status.condition(type_).map_or_else(String::new, |one| format!("{} {}: {}", one.status, one.reason, one.message))
}
