//! The fleet as its manifest has it for each target, and what of it the operator can read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use operator_core::api::WorkerDeployment;
use operator_core::clock::Clock;
use operator_core::connection::{Auth, ConnectionFacts};
use operator_core::fleet::{Fleet, Surroundings, resolve};
use operator_core::observed::{
    ChildState, DeploymentInfo, KubeState, LaneKey, Observation, PodLoad, PodState, Ramp, SlotUse, TaskType,
    TemporalState, VersionInfo, VersionStatus, VersionSummary,
};
use operator_core::plan::{self, Action, PlanInput, object_key};
use operator_core::rollout;
use operator_core::scaling::State;
use serde_json::{Value, json};

use crate::world::{Age, Cluster, Id, Manager, Order, Pod, Record, STEPS, Server, Share, Status, ids};

/// The operator's identity towards the server.
pub const IDENTITY: &str = "operator";
/// The present. An hour that passes makes everything older instead.
const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);
const HOUR: Duration = Duration::from_secs(3600);

/// How the fleet is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By steps, without ConfigMaps.
    Progressive,
    /// At once, without ConfigMaps.
    AllAtOnce,
    /// By steps, on the runtime, whose pods mount ConfigMaps.
    Runtime,
}

/// The fleet with each version as its target.
pub struct Fleets {
    fleets: Vec<Fleet>,
    applied: Vec<BTreeMap<String, String>>,
}

impl Fleets {
    /// Resolves the manifests.
    ///
    /// # Panics
    /// One of them is wrong.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        let fleets: Vec<_> = ids().map(|version| fleet(kind, version)).collect();
        let mut all = Self { fleets, applied: Vec::new() };
        all.applied = ids().map(|version| all.digests(version)).collect();
        all
    }

    /// The fleet with a version as its target.
    #[must_use]
    pub fn of(&self, target: Id) -> &Fleet {
        &self.fleets[usize::from(target)]
    }

    /// What stands once the objects of a target were applied.
    #[must_use]
    pub fn applied(&self, target: Id) -> &BTreeMap<String, String> {
        &self.applied[usize::from(target)]
    }

    fn digests(&self, version: Id) -> BTreeMap<String, String> {
        let (kube, temporal) = (KubeState::default(), TemporalState::default());
        let input = Input { kube: &kube, temporal: &temporal, protected: true, ..Input::new(self.of(version)) };
        let digest = |action: Action| match action {
            Action::Apply { object, digest } => Some((object_key(&object), digest)),
            _ => None,
        };
        input.plan().actions.into_iter().filter_map(digest).collect()
    }

    /// Build ID of a version.
    #[must_use]
    pub fn build_id(&self, version: Id) -> &str {
        self.of(version).build_id.as_deref().unwrap_or_default()
    }

    pub(crate) fn uid(&self, version: Id) -> String {
        format!("uid-{version}")
    }

    pub(crate) fn resource_version(&self, version: Id) -> String {
        format!("7{version}")
    }

    pub(crate) fn of_build_id(&self, build_id: &str) -> Option<Id> {
        ids().find(|version| self.build_id(*version) == build_id)
    }

    pub(crate) fn of_child(&self, name: &str) -> Option<Id> {
        ids().find(|version| self.of(*version).child_name == name)
    }

    pub(crate) fn of_config_map(&self, name: &str) -> Option<Id> {
        ids().find(|version| name == format!("{}-runtime", self.of(*version).child_name))
    }

    /// The cluster as the operator has it in its caches.
    #[must_use]
    pub fn kube(&self, cluster: &Cluster) -> KubeState {
        let mut kube = KubeState::default();
        for version in ids() {
            let at = usize::from(version);
            let build_id = Some(self.build_id(version).to_owned());
            let pods = u32::from(cluster.pods[at] != Pod::None);
            if pods > 0 {
                kube.pods.push(pod(build_id.clone(), cluster.busy[at]));
            }
            if let Some(child) = &cluster.children[at] {
                kube.children.push(ChildState {
                    name: self.of(version).child_name.clone(),
                    uid: self.uid(version),
                    build_id,
                    spec_replicas: u32::from(child.replicas),
                    replicas: pods,
                    ready_replicas: pods,
                    resource_version: self.resource_version(version),
                    superseded_at: child.superseded.map(ago),
                    ..ChildState::default()
                });
            }
        }
        kube
    }

    /// The server as its poller has it: every version that has a Deployment or traffic was asked for lately.
    #[must_use]
    pub fn temporal(&self, server: &Server) -> TemporalState {
        let value = server.exists.then(|| self.deployment(server));
        TemporalState { deployment: known(value), unversioned: [(lane(), known(false))].into(), ..Default::default() }
    }

    fn deployment(&self, server: &Server) -> DeploymentInfo {
        let name = |version: Id| self.build_id(version).to_owned();
        let records = || ids().map(|version| (version, &server.records[usize::from(version)]));
        let summary = |(version, record): (Id, &Option<Record>)| Some((name(version), summary(record.as_ref()?)));
        let ramp = |share: &Share| Ramp {
            build_id: name(share.version),
            percent: f32::from(share.percent),
            since: Some(ago(share.since)),
            changed_at: Some(ago(share.since)),
            unchanged_for: None,
        };
        DeploymentInfo {
            current_build_id: server.current.map(name),
            ramp: server.share.as_ref().map(ramp),
            versions: records().map(|(version, record)| (name(version), known(record.as_ref().map(info)))).collect(),
            summaries: records().filter_map(summary).collect(),
            conflict_token: vec![1],
            manager_identity: match server.manager {
                Manager::Nobody => String::new(),
                Manager::Operator => IDENTITY.into(),
                Manager::Somebody => "somebody".into(),
            },
            remembered: false,
            last_modifier_identity: if server.by_operator { IDENTITY.into() } else { "somebody".into() },
        }
    }
}

/// What a plan is made from.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    pub fleet: &'a Fleet,
    pub kube: &'a KubeState,
    pub applied: &'a BTreeMap<String, String>,
    pub temporal: &'a TemporalState,
    pub clock: Clock,
    pub protected: bool,
    pub order: Order,
    pub resting: &'a BTreeSet<String>,
    pub outdated: bool,
}

impl<'a> Input<'a> {
    pub fn new(fleet: &'a Fleet) -> Self {
        const NO_DIGESTS: &BTreeMap<String, String> = &BTreeMap::new();
        const NONE_RESTS: &BTreeSet<String> = &BTreeSet::new();
        const NO_KUBE: &KubeState =
            &KubeState { children: Vec::new(), pods: Vec::new(), foreign_deployments: BTreeSet::new() };
        const NO_TEMPORAL: &TemporalState = &TemporalState {
            deployment: Observation::Unknown,
            lanes: BTreeMap::new(),
            unversioned: BTreeMap::new(),
            test_workflows: BTreeMap::new(),
            failure: None,
            degraded: None,
        };
        Self {
            fleet,
            kube: NO_KUBE,
            applied: NO_DIGESTS,
            temporal: NO_TEMPORAL,
            clock: clock(false),
            protected: false,
            order: Order::None,
            resting: NONE_RESTS,
            outdated: false,
        }
    }

    /// The operator's own plan.
    pub fn plan(&self) -> plan::Plan {
        plan::plan(&PlanInput {
            fleet: self.fleet,
            kube: self.kube,
            applied: self.applied,
            temporal: self.temporal,
            scaling: &State::default(),
            others: &BTreeMap::new(),
            now: HOUR,
            clock: self.clock,
            identity: IDENTITY,
            former_identities: &BTreeSet::new(),
            gates: &Default::default(),
            protected: self.protected,
            order: order(self.order),
            outdated: self.outdated,
            since_marked: None,
            max_versions: 75,
            resting: self.resting,
        })
    }
}

fn order(order: Order) -> rollout::Order {
    match order {
        Order::None => rollout::Order::AsSpecified,
        Order::Pause => rollout::Order::Pause,
        Order::Promote => rollout::Order::Promote,
        Order::Abort => rollout::Order::Abort,
    }
}

/// The present, on a clock that was set a day ahead or not.
pub(crate) fn clock(ahead: bool) -> Clock {
    Clock { wall: NOW + if ahead { HOUR * 24 } else { Duration::ZERO }, steady: NOW }
}

pub(crate) fn ago(age: Age) -> Timestamp {
    NOW - HOUR * u32::from(age)
}

/// The present, for what is told of it.
pub(crate) fn now() -> Timestamp {
    NOW
}

pub(crate) fn hours(age: Age) -> Duration {
    HOUR * u32::from(age)
}

pub(crate) fn known<T>(value: T) -> Observation<T> {
    Observation::Known { value, age: Duration::ZERO }
}

fn lane() -> LaneKey {
    LaneKey { task_queue: "q".into(), task_type: TaskType::Activity }
}

fn pod(build_id: Option<String>, busy: bool) -> PodState {
    let used = u64::from(busy);
    let load = PodLoad::of([(lane(), SlotUse { used, available: 4 - used, started: used, ..SlotUse::default() })]);
    let name = format!("pod-{}", build_id.as_deref().unwrap_or_default());
    PodState { name, build_id, ready: true, may_run: true, load: known(load), ..PodState::default() }
}

fn word(status: Status) -> VersionStatus {
    match status {
        Status::Inactive => VersionStatus::Inactive,
        Status::Ramping => VersionStatus::Ramping,
        Status::Current => VersionStatus::Current,
        Status::Draining => VersionStatus::Draining,
        Status::Drained => VersionStatus::Drained,
    }
}

fn drainage(record: &Record) -> Option<Timestamp> {
    matches!(record.status, Status::Draining | Status::Drained).then(|| ago(record.since))
}

fn info(record: &Record) -> VersionInfo {
    VersionInfo {
        status: word(record.status),
        lanes: [lane()].into(),
        lanes_unchanged_for: HOUR,
        last_current_at: record.last_current.map(ago),
        drainage_changed_at: drainage(record),
        ..VersionInfo::default()
    }
}

fn summary(record: &Record) -> VersionSummary {
    let drainage_changed_at = drainage(record);
    VersionSummary { status: word(record.status), created_at: Some(ago(crate::world::OLD)), drainage_changed_at }
}

fn fleet(kind: Kind, version: Id) -> Fleet {
    let steps: Vec<_> = STEPS.iter().map(|at| json!({"rampPercentage": at, "pauseDuration": "1h"})).collect();
    let rollout = match kind {
        Kind::AllAtOnce => json!({"strategy": "AllAtOnce"}),
        Kind::Progressive | Kind::Runtime => json!({"strategy": "Progressive", "steps": steps}),
    };
    let mut spec = json!({
        "replicas": 1,
        "rollout": rollout,
        "sunset": {"scaledownDelay": "1h", "deleteDelay": "1h"},
        "workerOptions": {"connectionRef": {"name": "temporal"}, "temporalNamespace": "default"},
    });
    let image = format!("acme/orders:v{version}");
    spec["template"] = json!({"spec": {"containers": [{"name": "worker", "image": image}]}});
    if kind == Kind::Runtime {
        spec["runtime"] = runtime();
    }
    resolved(&spec)
}

fn runtime() -> Value {
    json!({
        "taskQueues": [{"name": "q", "maxConcurrentActivities": 4}],
        "handlers": [{"name": "cat", "exec": {"command": ["cat"]}}],
        "activities": [{"type": "Echo", "handler": "cat"}],
    })
}

fn resolved(spec: &Value) -> Fleet {
    let object: WorkerDeployment = serde_json::from_value(json!({
        "apiVersion": "temporal.io/v1alpha1",
        "kind": "WorkerDeployment",
        "metadata": {"name": "orders", "namespace": "prod", "uid": "u-1", "generation": 1},
        "spec": spec,
    }))
    .unwrap_or_else(|error| panic!("{error}"));
    let connection = ConnectionFacts { host_port: "t:7233".into(), server_name: None, auth: Auth::None, ca_cert: None };
    let around = Surroundings {
        connection: &connection,
        default_runtime_image: "runtime:v9",
        runtime_images: &BTreeMap::new(),
        order_keys: &[],
        uncordonable: &BTreeSet::new(),
    };
    resolve(&object, &around).unwrap_or_else(|error| panic!("{error}"))
}
