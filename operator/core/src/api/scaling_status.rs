//! `WorkerDeployment.status.scaling`. Numbers with a fraction are texts, as Kubernetes wants of its APIs.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::GoDuration;
use super::scaling::TaskQueueType;
use super::schema;

/// The autoscaler's last decision: its inputs and its result, not live values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingStatus {
    /// Pods that the decision asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<i32>,
    /// Pods that there were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<i32>,
    /// Pods that were ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<i32>,
    /// Tasks that waited in the Task Queues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog: Option<i64>,
    /// Tasks that ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<i64>,
    /// Why this many, in one sentence with numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether the decision was only reported, because of `spec.scaling.dryRun`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// What the number follows from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<ScalingBinding>,
    /// The calculation, a Task Queue and type of tasks each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lanes: Vec<LaneStatus>,
    /// How far the start of the tasks is from its target; absent before enough tasks were seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slo: Option<SloStatus>,
    /// What keeps the number from what the work calls for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<ScalingLimit>,
    /// When the number may fall next, if time alone holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub next_down_at: Option<Time>,
    /// When the number last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub last_scale_time: Option<Time>,
}

/// What a decision follows from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingBinding {
    /// Task Queue that needs most; absent while none needs anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_queue: Option<String>,
    /// Type of its tasks.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub task_type: Option<TaskQueueType>,
    /// `Load` (the tasks that arrive and run), `Backlog` (those that wait beside them), or what overrides both: `Idle`,
    /// `Holding`, `PodsBusy`, `MetricsStale`, `AtMaximum`, `AtMinimum`, `RateLimited`, `Ineffective`, `Stalled`, `Degraded`,
    /// `Paused`, `Ramping`.
    pub term: String,
}

/// The calculation for the tasks of one type on one Task Queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LaneStatus {
    /// Name of the Task Queue.
    pub task_queue: String,
    /// Type of the tasks.
    #[serde(rename = "type")]
    pub task_type: TaskQueueType,
    /// Tasks that waited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog: Option<i64>,
    /// Time that the oldest of them had waited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<GoDuration>,
    /// Tasks that arrive a second; a decimal number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrival_rate: Option<String>,
    /// Tasks that ran.
    pub in_flight: i64,
    /// Slots of a pod that count; a decimal number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<String>,
    /// Mean time that a task holds a slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_time: Option<GoDuration>,
    /// Slots that will be busy when a pod ordered now takes its first task; a decimal number.
    pub offered_load: String,
    /// Pods for that load.
    pub rate_replicas: i32,
    /// Pods for that load and the backlog.
    pub burst_replicas: i32,
    /// Age that the oldest reading had when this was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_age: Option<GoDuration>,
}

/// How far the start of the tasks is from its target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SloStatus {
    /// The target.
    pub target: GoDuration,
    /// Share of the tasks of the last 15 minutes that started later, 0 to 1; a decimal number.
    #[serde(rename = "lateShare15m")]
    pub late_share: String,
    /// What the time that a need is held is multiplied with, to meet the target; a decimal number.
    pub hold_multiplier: String,
}

/// What keeps the number of pods from what the work calls for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingLimit {
    /// Its name.
    pub reason: String,
    /// With numbers, and what to do about it.
    pub message: String,
}
