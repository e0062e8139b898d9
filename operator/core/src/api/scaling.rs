//! `spec.scaling`: the built-in autoscaler.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::GoDuration;
use super::schema::DURATION;

/// The built-in autoscaler of a fleet.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.minReplicas <= self.maxReplicas")
        .message("minReplicas must not be more than maxReplicas"),
    validation = Rule::new("duration(self.targetLatency) > duration('0s')")
        .message("targetLatency must be longer than 0s"),
    validation = Rule::new("duration(self.idleWindow) > duration('0s')").message("idleWindow must be longer than 0s")
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
    /// Schedule-to-start latency to stay below, at the 95th percentile.
    #[serde(default = "default_target_latency")]
    #[schemars(length(max = 32), extend("pattern" = DURATION))]
    pub target_latency: GoDuration,
    /// Time without any work after which the last pod goes.
    #[serde(default = "default_idle_window")]
    #[schemars(length(max = 32), extend("pattern" = DURATION))]
    pub idle_window: GoDuration,
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
            idle_window: default_idle_window(),
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

fn default_idle_window() -> GoDuration {
    GoDuration::new("180s")
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
