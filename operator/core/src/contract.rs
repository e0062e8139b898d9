//! The contract between the operator and a pod that runs the worker runtime.
//!
//! The operator writes environment variables and two mounted files; the runtime reads them and exports metrics that the
//! operator reads back. Both sides use this module, so that they can't drift apart. It depends on nothing of Kubernetes.
//!
//! * [`RuntimeConfig`] says *what* a version runs: Task Queues, handlers, activities. It belongs to the version.
//! * [`RuntimeLimits`] says *how much*: slots, timeouts, drain. It changes without a new version.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `host:port` of the Temporal frontend.
pub const ENV_ADDRESS: &str = "TEMPORAL_ADDRESS";
/// Temporal namespace of the Worker.
pub const ENV_NAMESPACE: &str = "TEMPORAL_NAMESPACE";
/// Temporal Worker Deployment name, `<Kubernetes namespace>/<WorkerDeployment name>`.
pub const ENV_DEPLOYMENT_NAME: &str = "TEMPORAL_DEPLOYMENT_NAME";
/// Build ID of the version; absent when Worker Versioning is off.
pub const ENV_BUILD_ID: &str = "TEMPORAL_WORKER_BUILD_ID";
/// Name that the server's certificate is verified against (SNI).
pub const ENV_TLS_SERVER_NAME: &str = "TEMPORAL_TLS_SERVER_NAME";
/// `true` when the connection uses TLS.
pub const ENV_TLS: &str = "TEMPORAL_TLS";
/// Path of the client certificate's private key (PEM).
pub const ENV_TLS_CLIENT_KEY_PATH: &str = "TEMPORAL_TLS_CLIENT_KEY_PATH";
/// Path of the client certificate (PEM).
pub const ENV_TLS_CLIENT_CERT_PATH: &str = "TEMPORAL_TLS_CLIENT_CERT_PATH";
/// Path of the certificates that sign the server's certificate (PEM); set when the Connection names them.
pub const ENV_TLS_SERVER_CA_CERT_PATH: &str = "TEMPORAL_TLS_SERVER_CA_CERT_PATH";
/// API key of the Temporal namespace.
pub const ENV_API_KEY: &str = "TEMPORAL_API_KEY";
/// Path of a file that holds it, for the runtime: a file can change while a process runs.
pub const ENV_API_KEY_FILE: &str = "TEMPORAL_API_KEY_FILE";

/// `metadata.uid` of the pod, by the downward API. Without it a Worker takes no orders ([`crate::cordon`]).
pub const ENV_POD_UID: &str = "POD_UID";

/// Path of the file that the runtime writes a token into at its start, for the services of its pod to know it by.
pub const ENV_TOKEN_FILE: &str = "WORKER_RUNTIME_TOKEN_FILE";
/// Folder with a folder for each Secret that holds encryption keys, in the runtime's container.
pub const KEYS_MOUNT_PATH: &str = "/etc/temporal-worker-keys";
/// Folder of that file in every container of a pod with services.
pub const TOKEN_MOUNT_PATH: &str = "/run/temporal-worker";
/// Its name.
pub const TOKEN_FILE: &str = "token";

/// Path of the [`RuntimeConfig`], for a Worker that is built on the library.
pub const ENV_CONFIG: &str = "WORKER_RUNTIME_CONFIG";
/// Path of the [`RuntimeLimits`], for a Worker that is built on the library.
pub const ENV_LIMITS: &str = "WORKER_RUNTIME_LIMITS";

/// Folder of the Connection's client certificate in a pod.
pub const TLS_MOUNT_PATH: &str = "/etc/temporal/tls";
/// Folder of the Connection's API key in the runtime's container.
pub const API_KEY_MOUNT_PATH: &str = "/etc/temporal/api-key";
/// Folder of the Connection's server CA in a pod, when the Connection names one of its own.
pub const TLS_CA_MOUNT_PATH: &str = "/etc/temporal/ca";
/// Folder with [`CONFIG_FILE`] and [`LIMITS_FILE`] in a pod of a runtime fleet.
pub const CONFIG_MOUNT_PATH: &str = "/etc/temporal-worker";
/// File name of the [`RuntimeConfig`].
pub const CONFIG_FILE: &str = "runtime.json";
/// File name of the [`RuntimeLimits`].
pub const LIMITS_FILE: &str = "limits.json";

/// Where a Worker behind a sidecar finds it.
pub const SIDECAR_ADDRESS: &str = "127.0.0.1:7233";
/// Port of a sidecar's `/metrics`: not one that Workers commonly use, because it shares their network.
pub const SIDECAR_METRICS_PORT: u16 = 7234;
/// Container port name of [`SIDECAR_METRICS_PORT`].
pub const SIDECAR_METRICS_PORT_NAME: &str = "sidecar-metrics";
/// Port of its probes and orders.
pub const SIDECAR_PROBES_PORT: u16 = 7235;
/// Container port name of [`SIDECAR_PROBES_PORT`].
pub const SIDECAR_PROBES_PORT_NAME: &str = "sidecar-probes";
/// Folder that a sidecar puts the program of the Worker's preStop hook into.
pub const HOOK_MOUNT_PATH: &str = "/run/temporal-worker-hook";
/// Name of that program, there and in the runtime's image.
pub const HOOK_PROGRAM: &str = "await-drain";
/// Name of the sidecar's container in a pod.
pub const SIDECAR_CONTAINER: &str = "temporal-worker-sidecar";
/// Name of the runtime's container in a pod.
pub const RUNTIME_CONTAINER: &str = "temporal-worker-runtime";
/// Port of `/metrics`.
pub const METRICS_PORT: u16 = 8080;
/// Port of `/healthz` and `/readyz`.
pub const PROBES_PORT: u16 = 8081;
/// Container port name of [`PROBES_PORT`].
pub const PROBES_PORT_NAME: &str = "probes";
/// Container port name by which a pod of any SDK says where its metrics are.
pub const METRICS_PORT_NAME: &str = "metrics";
/// Path on [`PROBES_PORT`] that answers only once the runtime has drained (or at once when it does not run); the
/// preStop hook of handler containers waits on it.
pub const DRAINED_PATH: &str = "/drained";
/// Path on [`PROBES_PORT`]: a POST from within the pod has the runtime drain as SIGTERM does, and is answered when it has.
pub const DRAIN_PATH: &str = "/drain";
/// Path on [`PROBES_PORT`]: a POST orders the Worker to take no new task, a GET asks for its [`CordonStatus`].
pub const CORDON_PATH: &str = "/cordon";
/// Path on [`PROBES_PORT`]: a POST orders the Worker to take tasks again.
pub const UNCORDON_PATH: &str = "/uncordon";

/// Gauge: slots that run a task now. Labels [`LABEL_TASK_QUEUE`], [`LABEL_TASK_TYPE`].
pub const METRIC_SLOTS_USED: &str = "temporal_worker_runtime_slots_used";
/// Gauge: slots that are free now. Same labels.
pub const METRIC_SLOTS_AVAILABLE: &str = "temporal_worker_runtime_slots_available";
/// Counter: tasks taken from the server, counted when they start. Same labels.
pub const METRIC_TASKS_STARTED: &str = "temporal_worker_runtime_tasks_started_total";
/// Counter: tasks that ended, whatever their outcome. Same labels, and `outcome`.
pub const METRIC_TASKS_ENDED: &str = "temporal_worker_runtime_tasks_ended_total";
/// Histogram: time from the moment when a task could start until it did, in seconds. Same labels.
pub const METRIC_SCHEDULE_TO_START: &str = "temporal_worker_runtime_schedule_to_start_seconds";
/// Histogram: time from the start of a task until it ended, in seconds. Same labels.
pub const METRIC_EXECUTION: &str = "temporal_worker_runtime_execution_seconds";
/// Gauge: Workflows in the cache. Label [`LABEL_TASK_QUEUE`].
pub const METRIC_CACHED_WORKFLOWS: &str = "temporal_worker_runtime_cached_workflows";
/// Counter: CPU time of the container, with all its processes, in seconds.
pub const METRIC_CPU_SECONDS: &str = "temporal_worker_runtime_cpu_seconds_total";
/// Gauge: CPUs that the container may use: its limit, else those of the machine.
pub const METRIC_CPU_LIMIT: &str = "temporal_worker_runtime_cpu_limit";
/// Gauge, without labels: 1 while the Worker takes no new task, by an order, 0 while it does. Absent where it takes no
/// orders.
pub const METRIC_CORDONED: &str = "temporal_worker_runtime_cordoned";
/// Gauge, without labels: open polls that may still bring a task, over all Task Queues. Absent where [`METRIC_CORDONED`]
/// is.
pub const METRIC_OPEN_POLLS: &str = "temporal_worker_runtime_open_polls";
/// Counter: payloads that a sidecar changed. Label `outcome`: `encrypted`, `decrypted` or `refused`.
pub const METRIC_SIDECAR_PAYLOADS: &str = "temporal_worker_runtime_sidecar_payloads_total";
/// Counter: calls of the Worker behind a sidecar. Labels `method` and `code`.
pub const METRIC_SIDECAR_CALLS: &str = "temporal_worker_runtime_sidecar_calls_total";
/// Label: name of the Task Queue.
pub const LABEL_TASK_QUEUE: &str = "task_queue";
/// Label: `activity`, `workflow` or `nexus`.
pub const LABEL_TASK_TYPE: &str = "task_type";

/// Version of [`RuntimeConfig`]'s format.
pub const CONFIG_VERSION: u32 = 1;

/// Variable of a handler's environment: index of the device that its task has, from 0.
pub const ENV_DEVICE_INDEX: &str = "TEMPORAL_DEVICE_INDEX";

/// Folder with a folder for each handler that comes from an image of its own.
pub const HANDLERS_MOUNT_PATH: &str = "/handlers";

/// Path of the program of the preStop hook in a Worker's container.
#[must_use]
pub fn hook_path() -> String {
    format!("{HOOK_MOUNT_PATH}/{HOOK_PROGRAM}")
}

/// Default time that running tasks get after SIGTERM before they are cancelled, in seconds.
pub const DEFAULT_DRAIN_SECONDS: u64 = 30;

/// What a version of a runtime fleet runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuntimeConfig {
    /// [`CONFIG_VERSION`].
    pub version: u32,
    /// Names of the Task Queues to poll.
    pub task_queues: Vec<String>,
    /// Programs and services that do the work. Empty for a Worker that brings its own code.
    #[serde(default)]
    pub handlers: Vec<HandlerConfig>,
    /// Which handler runs which activity type.
    #[serde(default)]
    pub activities: Vec<ActivityConfig>,
}

/// One handler: a program or a local service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HandlerConfig {
    /// Name that activities refer to.
    pub name: String,
    /// What it is.
    #[serde(flatten)]
    pub kind: HandlerKind,
}

/// The two kinds of handlers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HandlerKind {
    /// A program.
    Exec(ExecConfig),
    /// A service in the same pod: arguments as a JSON array in a POST, the result as JSON in the answer.
    Http(HttpConfig),
}

/// A program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExecConfig {
    /// Program and arguments; no shell is involved.
    pub command: Vec<String>,
    /// How long it runs.
    #[serde(default, skip_serializing_if = "ExecMode::is_once")]
    pub mode: ExecMode,
    /// Folder that the program starts in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Environment variables, on top of a cleared environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

/// How long a program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(schemars::JsonSchema))]
pub enum ExecMode {
    /// For one task: arguments as a JSON array on stdin, the result as JSON on stdout.
    #[default]
    Once,
    /// For one task after another, as one of several processes: a JSON object a line, in both directions.
    Pool,
}

impl ExecMode {
    fn is_once(&self) -> bool {
        *self == Self::Once
    }
}

/// A local service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpConfig {
    /// `http://` address in the pod.
    pub url: String,
    /// Path of the Unix socket that the service listens on, in place of the host and port of `url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
}

/// Which handler runs an activity type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ActivityConfig {
    /// Activity type, or what it begins with and a `*`. The exact type wins, then the longest beginning.
    #[serde(rename = "type")]
    pub activity_type: String,
    /// Name of a [`HandlerConfig`].
    pub handler: String,
}

/// How much a pod of a runtime fleet runs, and for how long. Everything has a default, so an absent file is valid.
/// Unknown fields are left alone: a newer operator may write them beside a running, older runtime.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuntimeLimits {
    /// Most activities at a time, by Task Queue; [`DEFAULT_SLOTS`] where a queue is missing.
    pub max_concurrent_activities: BTreeMap<String, u32>,
    /// What else bounds a Task Queue, by its name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub task_queues: BTreeMap<String, QueueLimits>,
    /// How full memory and CPU may get before a Task Queue takes more than its least slots; without it slots are fixed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_targets: Option<ResourceTargets>,
    /// Compression of calls to the server.
    #[serde(skip_serializing_if = "GrpcCompression::is_none")]
    pub grpc_compression: GrpcCompression,
    /// Time limit of one task in milliseconds, by handler name; none where a handler is missing: then the activity's
    /// own timeouts alone bound it.
    pub handler_timeout_ms: BTreeMap<String, u64>,
    /// Most processes of a handler whose program stays, by handler name; as many as tasks run at a time where a handler is
    /// missing.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub handler_processes: BTreeMap<String, u32>,
    /// Most memory of all processes of one run of a handler's program, in bytes, by handler name; none where it is missing.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub handler_memory_bytes: BTreeMap<String, u64>,
    /// Most processes and threads of one run of a handler's program, by handler name; none where it is missing.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub handler_pids: BTreeMap<String, u32>,
    /// Time that running tasks get after SIGTERM, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_timeout_ms: Option<u64>,
    /// Keys of payloads; none are encrypted without. The file is looked at again and again, and a change replaces no pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<EncryptionConfig>,
    /// Public keys whose [orders](crate::cordon) count, in hexadecimal digits. Read anew at each order: a change
    /// of keys replaces no pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub order_keys: Vec<String>,
}

/// What bounds a Task Queue beside its slots.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueLimits {
    /// Slots that resource targets never take away; 1 when not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_concurrent_activities: Option<u32>,
    /// Activities that this process starts per second, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_activities_per_second: Option<f64>,
    /// Activities of the Task Queue that the server hands out per second, over all Workers, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_task_queue_activities_per_second: Option<f64>,
    /// Number of open polls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pollers: Option<Pollers>,
    /// Devices of the container that tasks are spread over; a handler gets the index of its own as `TEMPORAL_DEVICE_INDEX`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<u32>,
}

/// Number of open polls of a Task Queue: between these, as the server advises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pollers {
    /// Least.
    pub minimum: u32,
    /// Most.
    pub maximum: u32,
}

/// How full the container may get, as parts of 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResourceTargets {
    /// Of its memory.
    pub memory: f64,
    /// Of its CPU.
    pub cpu: f64,
}

/// Compression of calls to the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(schemars::JsonSchema))]
pub enum GrpcCompression {
    /// None: it costs more CPU than all else that a small task needs.
    #[default]
    None,
    /// gzip.
    Gzip,
}

impl GrpcCompression {
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// With what payloads are encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EncryptionConfig {
    /// What happens to payloads that are not encrypted.
    #[serde(default)]
    pub mode: EncryptionMode,
    /// The key that encrypts.
    pub write_key: KeyFile,
    /// Keys that decrypt, beside it.
    #[serde(default)]
    pub read_keys: Vec<KeyFile>,
    /// Temporal namespaces whose payloads are read, beside the Worker's own.
    #[serde(default)]
    pub namespaces: Vec<String>,
}

/// What happens to payloads that are not encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(schemars::JsonSchema))]
pub enum EncryptionMode {
    /// They are refused.
    #[default]
    Require,
    /// They are read as they are.
    Migrate,
}

/// A key and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFile {
    /// Id that encrypted payloads carry.
    pub id: String,
    /// Path of the file that holds it.
    pub file: String,
}

/// How far a Worker takes new tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CordonStatus {
    /// Whether it takes no new task, by an order.
    pub cordoned: bool,
    /// When that lapses, by the pod's clock.
    pub until: Option<jiff::Timestamp>,
    /// Open polls that may still bring a task.
    pub open_polls: u64,
    /// Tasks that run, those whose end is not yet reported included.
    pub running_tasks: u64,
    /// Whether it is cordoned, runs nothing, and nothing can come any more.
    pub empty: bool,
}

/// Slots of a Task Queue when nothing says otherwise.
pub const DEFAULT_SLOTS: u32 = 10;

impl RuntimeLimits {
    /// Slots for activities of one Task Queue.
    #[must_use]
    pub fn slots(&self, task_queue: &str) -> u32 {
        self.max_concurrent_activities.get(task_queue).copied().unwrap_or(DEFAULT_SLOTS)
    }

    /// Time that running tasks get after SIGTERM.
    #[must_use]
    pub fn drain_timeout(&self) -> std::time::Duration {
        std::time::Duration::from_millis(self.drain_timeout_ms.unwrap_or(DEFAULT_DRAIN_SECONDS * 1000))
    }
}

/// A violation of the contract in a [`RuntimeConfig`]: field, value and remedy in one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct ConfigError {
    /// Path of the field.
    pub field: String,
    /// What is wrong and what to do.
    pub problem: String,
}

impl RuntimeConfig {
    /// Every violation of the rules that the schema can't state, empty when the configuration can run.
    #[must_use]
    pub fn violations(&self) -> Vec<ConfigError> {
        let mut found = Vec::new();
        let mut say = |field: String, problem: String| found.push(ConfigError { field, problem });
        if self.version != CONFIG_VERSION {
            say("version".into(), format!("is {}, this runtime reads {CONFIG_VERSION}", self.version));
        }
        if self.task_queues.is_empty() {
            say("taskQueues".into(), "is empty; name at least one Task Queue".into());
        }
        for handler in &self.handlers {
            if let HandlerKind::Exec(exec) = &handler.kind
                && exec.command.first().is_none_or(String::is_empty)
            {
                say(format!("handlers[{}].exec.command", handler.name), "is empty; name a program".into());
            }
        }
        for activity in &self.activities {
            if !self.handlers.iter().any(|handler| handler.name == activity.handler) {
                let field = format!("activities[{}].handler", activity.activity_type);
                say(field, format!("{:?} names no entry of handlers", activity.handler));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> RuntimeConfig {
        serde_json::from_str(
            r#"{"version":1,"taskQueues":["q"],
                "handlers":[{"name":"cat","exec":{"command":["cat"]}},{"name":"web","http":{"url":"http://127.0.0.1:9000/"}}],
                "activities":[{"type":"Echo","handler":"cat"}]}"#,
        )
        .unwrap()
    }

    #[test]
    fn what_the_operator_writes_the_runtime_reads() {
        let text = serde_json::to_string(&config()).unwrap();
        assert_eq!(serde_json::from_str::<RuntimeConfig>(&text).unwrap(), config());
        assert!(text.contains(r#""exec":{"command":["cat"]}"#), "{text}");
    }

    #[test]
    fn a_route_to_a_missing_handler_is_named() {
        let mut config = config();
        config.activities[0].handler = "dog".into();
        assert_eq!(config.violations()[0].to_string(), r#"activities[Echo].handler: "dog" names no entry of handlers"#);
    }

    #[test]
    fn absent_limits_have_defaults() {
        let limits: RuntimeLimits = serde_json::from_str("{}").unwrap();
        assert_eq!((limits.slots("q"), limits.drain_timeout().as_secs()), (DEFAULT_SLOTS, DEFAULT_DRAIN_SECONDS));
    }
}
