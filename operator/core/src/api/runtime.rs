//! `spec.runtime`: run the shared worker runtime.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::connection::KeySelector;
use super::duration::GoDuration;
use super::schema::{DURATION, EXTENDED_RESOURCE, NAME, QUANTITY};
use crate::contract::{self, EncryptionMode, ExecMode, GrpcCompression};

/// The shared worker runtime of a fleet.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "self.mode != 'Shared' || (has(self.taskQueues) && size(self.taskQueues) > 0 \
         && has(self.handlers) && size(self.handlers) > 0 && has(self.activities) && size(self.activities) > 0)"
    )
    .message("mode Shared needs at least one entry in each of taskQueues, handlers and activities"),
    validation = Rule::new(
        "!has(self.activities) || self.activities.all(a, has(self.handlers) && self.handlers.exists(h, h.name == a.handler))"
    )
    .message("activities[].handler must be the name of an entry of handlers"),
    validation = Rule::new("self.mode == 'Shared' || !has(self.handlers) || self.handlers.all(h, !has(h.image))")
        .message("handlers[].image needs mode Shared: it is mounted into the operator's runtime container"),
    validation = Rule::new(
        "has(self.resourceTargets) || !has(self.taskQueues) || self.taskQueues.all(q, !has(q.minConcurrentActivities))"
    )
    .message("taskQueues[].minConcurrentActivities needs resourceTargets; without them the slots are maxConcurrentActivities"),
    validation = Rule::new("!has(self.drainTimeout) || duration(self.drainTimeout) > duration('0s')")
        .message("drainTimeout must be longer than 0s")
)]
pub struct RuntimeSpec {
    /// Shared: the operator adds its runtime container. Library: the template's container is built on the runtime's library.
    #[serde(default)]
    pub mode: RuntimeMode,
    /// Image of the runtime; the operator's --runtime-image when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,
    /// Task Queues to poll.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub task_queues: Vec<RuntimeTaskQueue>,
    /// Programs and local services that run activities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub handlers: Vec<Handler>,
    /// Which handler runs which activity type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 250), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub activities: Vec<ActivityRoute>,
    /// How full memory and CPU of a pod may get before its Task Queues take more than their least; slots are fixed when not
    /// set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_targets: Option<ResourceTargets>,
    /// Compression of calls to the Temporal server; None when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_compression: Option<GrpcCompression>,
    /// Encryption of payloads; none without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<EncryptionSpec>,
    /// Time that running tasks get after SIGTERM; 30s when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("pattern" = DURATION))]
    pub drain_timeout: Option<GoDuration>,
}

/// Where the runtime's code comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RuntimeMode {
    /// The operator's runtime image, with handlers.
    #[default]
    Shared,
    /// The user's image, built on the runtime's library.
    Library,
}

/// A Task Queue that the runtime polls.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "!has(self.minConcurrentActivities) || self.minConcurrentActivities <= self.maxConcurrentActivities"
    )
    .message("minConcurrentActivities must not be more than maxConcurrentActivities")
)]
pub struct RuntimeTaskQueue {
    /// Name of the Task Queue.
    #[schemars(length(min = 1, max = 1000))]
    pub name: String,
    /// Most activities that a pod runs at a time; with slotsPer, for each unit of that resource.
    #[serde(default = "default_slots")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_concurrent_activities: i32,
    /// Activities that a pod runs at a time however full it is, counted as maxConcurrentActivities; 1 when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub min_concurrent_activities: Option<i32>,
    /// Extended resource, such as nvidia.com/gpu, of whose units in the runtime's container each gets
    /// maxConcurrentActivities slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317), extend("pattern" = EXTENDED_RESOURCE))]
    pub slots_per: Option<String>,
    /// Activities that a pod starts a second, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000), extend("exclusiveMinimum" = true))]
    pub max_activities_per_second: Option<f64>,
    /// Activities of the Task Queue that the server hands out a second, to all pods together, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000), extend("exclusiveMinimum" = true))]
    pub max_task_queue_activities_per_second: Option<f64>,
    /// Open polls of a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pollers: Option<PollerRange>,
}

/// Open polls of a Task Queue: between these, as the server advises.
#[derive(KubeSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("self.minimum <= self.maximum").message("pollers.minimum must not be more than pollers.maximum")
)]
pub struct PollerRange {
    /// Least.
    #[schemars(range(min = 1, max = 1000))]
    pub minimum: i32,
    /// Most.
    #[schemars(range(min = 1, max = 1000))]
    pub maximum: i32,
}

/// How full a pod may get, in percent of its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResourceTargets {
    /// Memory.
    #[schemars(range(min = 1, max = 100))]
    pub memory: i32,
    /// CPU.
    #[schemars(range(min = 1, max = 100))]
    pub cpu: i32,
}

fn default_slots() -> i32 {
    i32::try_from(contract::DEFAULT_SLOTS).unwrap_or(i32::MAX)
}

/// A program or a local service that runs activities.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.exec) != has(self.http)").message("exactly one of exec and http must be set"),
    validation = Rule::new("!has(self.image) || has(self.exec)")
        .message("image needs exec: it holds the handler's program; a service's image is that of its container in template")
)]
pub struct Handler {
    /// Name that activities refer to.
    #[schemars(length(max = 63), extend("pattern" = NAME))]
    pub name: String,
    /// Image that holds the program and what it needs, mounted read-only at /handlers/ and the handler's name; the program is
    /// in the runtime's own image, or on a volume, when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,
    /// A program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecHandler>,
    /// A service in the same pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpHandler>,
}

/// A program.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.timeout) || duration(self.timeout) > duration('0s')")
        .message("exec.timeout must be longer than 0s"),
    validation = Rule::new("!has(self.processes) || (has(self.mode) && self.mode == 'Pool')")
        .message("exec.processes needs exec.mode: Pool; without it a program runs for each task, and slots bound their number")
)]
pub struct ExecHandler {
    /// Program and arguments; no shell is involved.
    #[schemars(length(min = 1, max = 64), inner(length(max = 4096)), extend("x-kubernetes-list-type" = "atomic"))]
    pub command: Vec<String>,
    /// Once, when not set: the program is started for each task; arguments as a JSON array on stdin, the result as JSON on
    /// stdout. Pool: its processes run one task after another; a JSON object a line in both directions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ExecMode>,
    /// Most processes of a pod with mode Pool; as many as tasks run at a time when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub processes: Option<i32>,
    /// Folder that the program starts in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub working_dir: Option<String>,
    /// Time limit of one task; the activity's own timeouts alone when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("pattern" = DURATION))]
    pub timeout: Option<GoDuration>,
    /// Environment variables, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub env: BTreeMap<String, String>,
    /// What one run of the program may use; the pod's limits alone when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<ExecLimits>,
}

/// What one run of a program may use, with all that it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExecLimits {
    /// Memory, such as 512Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("pattern" = QUANTITY))]
    pub memory: Option<String>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_194_304))]
    pub pids: Option<i32>,
}

/// A local service: arguments as a JSON array in a POST, the result as JSON in the answer.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.timeout) || duration(self.timeout) > duration('0s')")
        .message("http.timeout must be longer than 0s")
)]
pub struct HttpHandler {
    /// Address in the pod, such as http://127.0.0.1:9000/run.
    #[schemars(length(max = 2048), extend("pattern" = "^http://.+"))]
    pub url: String,
    /// Path of the Unix socket that the service listens on, in a volume that both containers mount; the host and port of url
    /// when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 108), extend("pattern" = "^/.+"))]
    pub socket: Option<String>,
    /// Time limit of one task; the activity's own timeouts alone when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("pattern" = DURATION))]
    pub timeout: Option<GoDuration>,
}

/// Which handler runs an activity type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActivityRoute {
    /// Activity type, or what it begins with and a `*`, such as `Billing.*` or `*`. The exact type wins, then the longest
    /// beginning.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 1000))]
    pub activity_type: String,
    /// Name of an entry of handlers.
    #[schemars(length(min = 1, max = 63))]
    pub handler: String,
}

/// Encryption of payloads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EncryptionSpec {
    /// Require refuses plaintext; Migrate still reads it.
    #[serde(default)]
    pub mode: EncryptionMode,
    /// Key that encrypts.
    pub write_key: EncryptionKey,
    /// Keys that decrypt, beside writeKey.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["id"]))]
    pub read_keys: Vec<EncryptionKey>,
    /// Temporal namespaces whose payloads are read, beside the fleet's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 255)), extend("x-kubernetes-list-type" = "set"))]
    pub namespaces: Vec<String>,
}

/// An encryption key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EncryptionKey {
    /// Id that encrypted payloads carry.
    #[schemars(length(min = 1, max = 128))]
    pub id: String,
    /// Where the key is.
    pub secret_key_ref: KeySelector,
}
