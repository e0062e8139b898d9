//! `spec.rollout` and `spec.sunset`: how versions come and go.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::connection::KeySelector;
use super::duration::GoDuration;
use super::schema::{self, DURATION};

/// How a new version becomes current.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.strategy != 'Progressive' || (has(self.steps) && size(self.steps) > 0)")
        .message("steps are required for Progressive rollout"),
    validation = Rule::new(
        "!has(self.gate) || !has(self.gate.inputFrom) || \
         (has(self.gate.inputFrom.configMapKeyRef) != has(self.gate.inputFrom.secretKeyRef))"
    )
    .message("exactly one of configMapKeyRef or secretKeyRef must be set")
)]
pub struct RolloutSpec {
    /// AllAtOnce: as soon as it polls. Progressive: by steps. Manual: somebody else makes it current.
    pub strategy: RolloutStrategy,
    /// Workflow that must succeed on the new version before it gets any traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateSpec>,
    /// Steps of a Progressive rollout.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub steps: Vec<RolloutStep>,
    /// Whether the traffic of every version stays as it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// How the fleet goes back to a version that was current a short time ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<RollbackSpec>,
    /// What happens to the share that a version has when one of its gates fails.
    #[serde(default, skip_serializing_if = "OnGateFailure::is_default")]
    pub on_gate_failure: OnGateFailure,
}

/// What happens to the share that a version has when one of its gates fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnGateFailure {
    /// It stays as it is.
    #[default]
    Hold,
    /// It is taken away, until the gate is retried or the target changes.
    Rollback,
}

impl OnGateFailure {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How the fleet goes back to a version that was current a short time ago.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RollbackSpec {
    /// Duration since the version was last current within which it counts as a rollback, such as 90s or 1h30m.
    #[schemars(length(max = 32), extend("pattern" = DURATION))]
    pub window: GoDuration,
    /// AllAtOnce: without steps and gate, by one pod. Progressive: as any other version.
    pub strategy: RollbackStrategy,
}

impl Default for RollbackSpec {
    fn default() -> Self {
        Self { window: GoDuration::new("1h"), strategy: RollbackStrategy::default() }
    }
}

/// How a rollback is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RollbackStrategy {
    /// At once, without steps and gate.
    #[default]
    AllAtOnce,
    /// As any other version.
    Progressive,
}

/// How a new version becomes current.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutStrategy {
    /// Somebody else makes it current.
    Manual,
    /// As soon as it polls.
    #[default]
    AllAtOnce,
    /// Step by step.
    Progressive,
}

/// A test Workflow that must succeed on the new version, once on each of its Task Queues for Workflows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateSpec {
    /// Workflow type.
    pub workflow_type: String,
    /// Its argument, any JSON; not together with inputFrom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_json")]
    pub input: Option<Value>,
    /// Where the JSON text of its argument is; read when the Workflow is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_from: Option<GateInputSource>,
}

/// Where a gate's argument is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateInputSource {
    /// In a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeySelector>,
    /// In a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeySelector>,
}

/// A step of a Progressive rollout.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("duration(self.pauseDuration) >= duration('30s')")
        .message("pause duration must be at least 30s"),
    validation = Rule::new(
        "!has(self.gate) || !has(self.gate.inputFrom) || \
         (has(self.gate.inputFrom.configMapKeyRef) != has(self.gate.inputFrom.secretKeyRef))"
    )
    .message("the gate of a step takes its input from exactly one of configMapKeyRef or secretKeyRef")
)]
pub struct RolloutStep {
    /// Share of new Workflows, in percent.
    #[schemars(range(min = 1, max = 99), extend("format" = null))]
    pub ramp_percentage: i32,
    /// Duration of the step, such as 90s or 1.5h.
    pub pause_duration: GoDuration,
    /// Workflow that must succeed on the version before it gets this share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateSpec>,
}

/// What happens to versions that are drained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SunsetSpec {
    /// Duration from drained to no pods, such as 90s or 1h30m.
    pub scaledown_delay: GoDuration,
    /// Duration from drained to deleted, such as 24h.
    pub delete_delay: GoDuration,
}

impl Default for SunsetSpec {
    fn default() -> Self {
        Self { scaledown_delay: GoDuration::new("1h"), delete_delay: GoDuration::new("24h") }
    }
}
