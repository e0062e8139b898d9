//! `WorkerDeployment.status`.

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conditions::{ConditionType, ConditionUpdate, find_condition, set_condition};
use super::scaling_status::ScalingStatus;
use super::schema;

/// What the operator last saw and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerDeploymentStatus {
    /// Version that the spec describes; written even when nothing is known of it, with empty texts.
    pub target_version: TargetVersion,
    /// Version that new Workflows start on; absent while they start unversioned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_version: Option<Version>,
    /// Every other version that has a Deployment, sorted by Build ID.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deprecated_versions: Vec<DeprecatedVersion>,
    /// The Temporal server's conflict token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bytes")]
    pub version_conflict_token: Option<ByteString>,
    /// Who last changed the routing in Temporal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_modifier_identity: Option<String>,
    /// Who may change the routing in Temporal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manager_identity: Option<String>,
    /// How many versions the Temporal server knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub version_count: Option<i32>,
    /// Commands by annotation that were taken note of, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub handled_commands: Vec<HandledCommand>,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Generation of the spec that this status belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The autoscaler's last decision and what it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<Box<ScalingStatus>>,
}

impl WorkerDeploymentStatus {
    /// The condition of a type.
    #[must_use]
    pub fn condition(&self, type_: ConditionType) -> Option<&Condition> {
        find_condition(&self.conditions, type_)
    }

    /// Sets a condition for `observed_generation`; see [`set_condition`].
    pub fn set_condition(&mut self, update: ConditionUpdate, now: Timestamp) -> bool {
        set_condition(&mut self.conditions, update, self.observed_generation, now)
    }
}

/// The state of a version in Temporal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VersionStatus {
    /// Temporal does not know it: no Worker of it ever polled.
    #[default]
    NotRegistered,
    /// Known, without traffic.
    Inactive,
    /// Gets a share of new Workflows.
    Ramping,
    /// Gets new Workflows.
    Current,
    /// Runs old Workflows only.
    Draining,
    /// Runs no Workflow.
    Drained,
    /// Not known: an empty text. A word of another release reads as this too.
    #[serde(rename = "", other)]
    Unknown,
}

impl VersionStatus {
    /// The word as the API writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotRegistered => "NotRegistered",
            Self::Inactive => "Inactive",
            Self::Ramping => "Ramping",
            Self::Current => "Current",
            Self::Draining => "Draining",
            Self::Drained => "Drained",
            Self::Unknown => "",
        }
    }
}

/// What every version has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// Build ID.
    #[serde(rename = "buildID")]
    pub build_id: String,
    /// State in Temporal.
    #[schemars(with = "String")]
    pub status: VersionStatus,
    /// Since when its Deployment is available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub healthy_since: Option<Time>,
    /// Its Deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::object_reference")]
    pub deployment: Option<ObjectReference>,
    /// Pods that its Deployment is to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Pods of it that are Ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// Its Task Queues for Workflows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub task_queues: Vec<VersionTaskQueue>,
    /// Never written; kept for objects of temporal-worker-controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed_by: Option<String>,
}

/// The version that the spec describes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetVersion {
    /// What every version has.
    #[serde(flatten)]
    pub version: Version,
    /// Test Workflows of the gates that count now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub test_workflows: Vec<TestWorkflow>,
    /// Share of new Workflows, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::percentage")]
    pub ramp_percentage: Option<f32>,
    /// Since when it ramps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub ramping_since: Option<Time>,
    /// When its share last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub ramp_last_modified_at: Option<Time>,
}

/// A version that is neither target nor current.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeprecatedVersion {
    /// What every version has.
    #[serde(flatten)]
    pub version: Version,
    /// Since when it is drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub drained_since: Option<Time>,
    /// Drained, and without pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eligible_for_deletion: Option<bool>,
}

/// A Task Queue of a version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionTaskQueue {
    /// Name of the Task Queue.
    pub name: String,
}

/// A command by annotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HandledCommand {
    /// The verb: pause, resume, promote, abort or retry-gate.
    pub verb: String,
    /// The annotation's value.
    pub value: String,
    /// Whether it has an effect.
    pub accepted: bool,
    /// Why not, if it has none.
    pub message: String,
    /// What retry-gate runs again: rollout, or ramp- and the percentage of a step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<String>,
    /// When it was taken note of.
    #[schemars(schema_with = "schema::time")]
    pub at: Time,
}

/// A test Workflow of a gate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TestWorkflow {
    /// Workflow ID.
    #[serde(rename = "workflowID")]
    pub workflow_id: String,
    /// Run ID.
    #[serde(rename = "runID")]
    pub run_id: String,
    /// Running, Completed, Failed, Canceled, Terminated or TimedOut.
    pub status: String,
    /// Task Queue that it runs on.
    pub task_queue: String,
    /// What its failure says, cut at 512 bytes; left out when its argument is in a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
