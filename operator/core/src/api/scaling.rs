//! `spec.scaling`: the built-in autoscaler.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::GoDuration;
use super::schema::{self, DURATION, DURATION_OR_AUTO, NAME};

/// The text of `idleWindow` that leaves the time to the operator.
pub const AUTO: &str = "Auto";
/// Default of `podMetrics.path`.
pub const DEFAULT_METRICS_PATH: &str = "/metrics";

/// The built-in autoscaler of a fleet. With nothing set it runs 0 to 10 pods for a start of the tasks within 5s at p95.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.minReplicas <= self.maxReplicas")
        .message("minReplicas must not be more than maxReplicas"),
    validation = Rule::new("duration(self.targetLatency) > duration('0s')")
        .message("targetLatency must be longer than 0s"),
    validation = Rule::new("self.idleWindow == 'Auto' || duration(self.idleWindow) > duration('0s')")
        .message("idleWindow must be longer than 0s"),
    validation = Rule::new("!has(self.schedule) || self.schedule.all(entry, entry.minReplicas <= self.maxReplicas)")
        .message("schedule[].minReplicas must not be more than maxReplicas"),
    validation = Rule::new(
        "!has(self.roles) || ((!has(self.roles.current) || self.roles.current.minReplicas <= self.maxReplicas) && \
         (!has(self.roles.ramping) || self.roles.ramping.minReplicas <= self.maxReplicas) && \
         (!has(self.roles.draining) || self.roles.draining.minReplicas <= self.maxReplicas))"
    )
    .message("minReplicas of a role must not be more than maxReplicas")
)]
pub struct ScalingSpec {
    /// Fewest pods; with 0 an idle fleet has none.
    #[serde(default = "default_min_replicas")]
    #[schemars(range(min = 0))]
    pub min_replicas: i32,
    /// Most pods.
    #[serde(default = "default_max_replicas")]
    #[schemars(range(min = 1))]
    pub max_replicas: i32,
    /// Schedule-to-start latency that the share `percentile` of the tasks should stay below.
    #[serde(default = "default_target_latency")]
    #[schemars(length(max = 32), extend("pattern" = DURATION))]
    pub target_latency: GoDuration,
    /// Share of the tasks, in percent, that should start within `targetLatency`.
    #[serde(default = "default_percentile")]
    #[schemars(range(min = 50, max = 99))]
    pub percentile: i32,
    /// Time without any work after which the last pod goes; `Auto` learns it from the gaps between the fleet's own tasks.
    #[serde(default = "default_idle_window")]
    #[schemars(length(max = 32), extend("pattern" = DURATION_OR_AUTO))]
    pub idle_window: GoDuration,
    /// More pods at given times, in addition to what the tasks need; of several that hold at a time the highest counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub schedule: Vec<ScalingSchedule>,
    /// Changes that are held back: Down those to fewer pods, All every one.
    #[serde(default)]
    pub pause: ScalingPause,
    /// Decide and report, but leave replicas and pods alone.
    #[serde(default)]
    pub dry_run: bool,
    /// Limits on how fast the number of pods changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp: Option<ScalingRamp>,
    /// What a decision stands on: Full the server and the pods, ServerOnly the server alone, for pods without metrics.
    #[serde(default)]
    pub mode: ScalingMode,
    /// Fewest pods of a version by its part in the rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<ScalingRoles>,
    /// Where the pods' metrics are, if not at the container port named `metrics`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_metrics: Option<PodMetrics>,
    /// Task Queues of Workers whose queues can't be discovered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub task_queues: Vec<ScalingTaskQueue>,
}

impl Default for ScalingSpec {
    fn default() -> Self {
        Self {
            min_replicas: default_min_replicas(),
            max_replicas: default_max_replicas(),
            target_latency: default_target_latency(),
            percentile: default_percentile(),
            idle_window: default_idle_window(),
            schedule: Vec::new(),
            pause: ScalingPause::None,
            dry_run: false,
            ramp: None,
            mode: ScalingMode::Full,
            roles: None,
            pod_metrics: None,
            task_queues: Vec::new(),
        }
    }
}

fn default_min_replicas() -> i32 {
    0
}

fn default_max_replicas() -> i32 {
    10
}

fn default_target_latency() -> GoDuration {
    GoDuration::new("5s")
}

fn default_percentile() -> i32 {
    95
}

fn default_idle_window() -> GoDuration {
    GoDuration::new("180s")
}

/// More pods from each time of a cron expression on, for a while.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("duration(self.duration) > duration('0s') && duration(self.duration) <= duration('168h')")
        .message("duration must be longer than 0s and not longer than 168h")
)]
pub struct ScalingSchedule {
    /// Name of the entry.
    #[schemars(length(min = 1, max = 63), extend("pattern" = NAME))]
    pub name: String,
    /// When it begins: minute, hour, day of the month, month and day of the week, as crontab has them, such as
    /// `30 7 * * 1-5`. The pods are ordered earlier by their time to start and 30s.
    #[schemars(length(min = 1, max = 128))]
    pub cron: String,
    /// Time zone of `cron`, by its name in the tz database, such as `Europe/Berlin`. A time that the clock shows twice
    /// counts the first time; one that it skips counts when the clock goes on.
    #[serde(default = "default_timezone")]
    #[schemars(length(min = 1, max = 64))]
    pub timezone: String,
    /// How long it holds.
    #[schemars(length(max = 32), extend("pattern" = DURATION))]
    pub duration: GoDuration,
    /// Fewest pods meanwhile.
    #[schemars(range(min = 1))]
    pub min_replicas: i32,
}

fn default_timezone() -> String {
    "UTC".into()
}

/// Changes that are held back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ScalingPause {
    /// No change.
    #[default]
    None,
    /// Changes to fewer pods.
    Down,
    /// Every change.
    All,
}

/// What a decision stands on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ScalingMode {
    /// The server and the pods.
    #[default]
    Full,
    /// The server alone.
    ServerOnly,
}

/// Limits on how fast the number of pods changes; without one, and for what has no limit, it changes at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingRamp {
    /// Most pods that are added within a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub up_per_minute: Option<i32>,
    /// Most pods that are taken within a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub down_per_minute: Option<i32>,
}

/// Fewest pods of a version by its part in the rollout.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingRoles {
    /// While it is the current version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<RoleFloor>,
    /// While it gets a share of new Workflows, or waits to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramping: Option<RoleFloor>,
    /// While it runs old Workflows only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<RoleFloor>,
    /// Time for which the version that was current before keeps its pods, so that a rollback finds them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("pattern" = DURATION))]
    pub keep_warm_for_rollback: Option<GoDuration>,
}

/// Fewest pods of a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoleFloor {
    /// Fewest pods.
    #[schemars(range(min = 0))]
    pub min_replicas: i32,
}

/// Where the pods' metrics are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodMetrics {
    /// Port, by its number or by the name of a container port.
    #[serde(default = "default_metrics_port")]
    #[schemars(schema_with = "schema::port")]
    pub port: IntOrString,
    /// Path of the page, in the format of Prometheus.
    #[serde(default = "default_metrics_path")]
    #[schemars(length(min = 1, max = 256), extend("pattern" = "^/[^ ?#]*$"))]
    pub path: String,
}

impl Default for PodMetrics {
    fn default() -> Self {
        Self { port: default_metrics_port(), path: default_metrics_path() }
    }
}

fn default_metrics_port() -> IntOrString {
    IntOrString::String(crate::contract::METRICS_PORT_NAME.into())
}

fn default_metrics_path() -> String {
    DEFAULT_METRICS_PATH.into()
}

/// A Task Queue that the autoscaler watches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingTaskQueue {
    /// Name of the Task Queue.
    #[schemars(length(min = 1, max = 1000))]
    pub name: String,
    /// Types of the tasks that the Workers take from it.
    #[serde(default = "default_types")]
    #[schemars(length(min = 1, max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub types: Vec<TaskQueueType>,
}

fn default_types() -> Vec<TaskQueueType> {
    vec![TaskQueueType::Workflow, TaskQueueType::Activity]
}

/// The type of the tasks of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum TaskQueueType {
    /// Workflow Tasks.
    Workflow,
    /// Activity Tasks.
    Activity,
    /// Nexus Tasks.
    Nexus,
}
