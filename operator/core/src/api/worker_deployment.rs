//! `WorkerDeployment`: a fleet of Temporal Workers.

use std::fmt;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rollout::{RolloutSpec, SunsetSpec};
use super::runtime::{EncryptionSpec, RuntimeMode, RuntimeSpec};
use super::scaling::ScalingSpec;
use super::schema;
use super::status::WorkerDeploymentStatus;
use super::template::PodTemplate;

/// Default of `spec.progressDeadlineSeconds`.
pub const DEFAULT_PROGRESS_DEADLINE_SECONDS: i32 = 600;

/// A fleet of Temporal Workers.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "temporal.io",
    version = "v1alpha1",
    kind = "WorkerDeployment",
    plural = "workerdeployments",
    shortname = "wd",
    shortname = "wdeployment",
    namespaced,
    status = "WorkerDeploymentStatus",
    derive = "PartialEq",
    doc = "A fleet of Temporal Workers.",
    printcolumn(
        name = "Current",
        type_ = "string",
        json_path = ".status.currentVersion.buildID",
        description = "Current build ID"
    ),
    printcolumn(
        name = "Target",
        type_ = "string",
        json_path = ".status.targetVersion.buildID",
        description = "Target build ID"
    ),
    printcolumn(
        name = "Ramp %",
        type_ = "number",
        json_path = ".status.targetVersion.rampPercentage",
        description = "Ramp percentage"
    ),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.scaling.ready", description = "Ready pods"),
    printcolumn(
        name = "Desired",
        type_ = "integer",
        json_path = ".status.scaling.desired",
        description = "Pods that the autoscaler asks for"
    ),
    printcolumn(
        name = "Backlog",
        type_ = "integer",
        json_path = ".status.scaling.backlog",
        description = "Waiting tasks at the last decision"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Age"),
    validation = Rule::new("size(self.metadata.name) <= 63").message("name cannot be more than 63 characters"),
    validation = Rule::new("has(self.spec)").message("spec is required")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.template) || (has(self.runtime) && self.runtime.mode == 'Shared')")
        .message("template is required unless runtime.mode is Shared"),
    validation = Rule::new("has(self.rollout) || self.versioning == 'Disabled'")
        .message("rollout is required unless versioning is Disabled"),
    validation = Rule::new("has(self.sunset) || self.versioning == 'Disabled'")
        .message("sunset is required unless versioning is Disabled; sunset: {} takes its defaults"),
    validation = Rule::new("!(has(self.scaling) && has(self.replicas))")
        .message("scaling and replicas must not both be set: scaling owns the number of pods"),
    validation = Rule::new(
        "!has(self.scaling) || has(self.runtime) || self.versioning != 'Disabled' || \
         (has(self.scaling.taskQueues) && size(self.scaling.taskQueues) > 0)"
    )
    .message("scaling.taskQueues is required with versioning Disabled and no runtime: the queues can't be discovered"),
    validation = Rule::new("!(has(self.runtime) && has(self.sidecar))")
        .message("runtime and sidecar must not both be set"),
    validation = Rule::new(
        "!has(self.sunset) || (duration(self.sunset.scaledownDelay) >= duration('0s') && \
         duration(self.sunset.deleteDelay) >= duration('0s'))"
    )
    .message("sunset delays must be durations of 0s or more")
)]
pub struct WorkerDeploymentSpec {
    /// Pods of the target and the current version, when scaling is not set; absent: somebody else's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Pods of the fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<PodTemplate>,
    /// Seconds that a pod must be ready to count as available.
    #[serde(default)]
    pub min_ready_seconds: i32,
    /// Seconds after which a rollout without progress counts as failed.
    #[serde(default = "default_progress_deadline")]
    pub progress_deadline_seconds: i32,
    /// How a change that makes no new version, such as one of the Connection, replaces the pods of a version; absent: as
    /// Kubernetes does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment_strategy: Option<DeploymentStrategy>,
    /// How a new version becomes current.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutSpec>,
    /// What happens to drained versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sunset: Option<SunsetSpec>,
    /// The Temporal side of the fleet.
    pub worker_options: WorkerOptions,
    /// The built-in autoscaler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<Box<ScalingSpec>>,
    /// The shared worker runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Box<RuntimeSpec>>,
    /// A sidecar that gives a Worker of any SDK what that lacks: credentials that change, encryption, metrics, and a drain that
    /// loses no task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<Box<SidecarSpec>>,
    /// What becomes of routing and versions on the Temporal server when the object is deleted.
    #[serde(default, skip_serializing_if = "DeletionPolicy::is_default")]
    pub deletion_policy: DeletionPolicy,
    /// Whether the fleet uses Worker Versioning; Disabled runs one Deployment with rolling updates.
    #[serde(default)]
    pub versioning: Versioning,
}

fn default_progress_deadline() -> i32 {
    DEFAULT_PROGRESS_DEADLINE_SECONDS
}

impl WorkerDeploymentSpec {
    /// Whether the operator adds its own runtime container.
    #[must_use]
    pub fn runs_shared_runtime(&self) -> bool {
        self.runtime.as_ref().is_some_and(|runtime| runtime.mode == RuntimeMode::Shared)
    }
}

/// How a Deployment replaces its pods.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.type == 'RollingUpdate' || !has(self.rollingUpdate)")
        .message("rollingUpdate must not be set unless type is RollingUpdate")
)]
pub struct DeploymentStrategy {
    /// RollingUpdate replaces pods one after another; Recreate ends all of them first.
    #[serde(rename = "type", default)]
    pub type_: DeploymentStrategyType,
    /// How many pods at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling_update: Option<RollingUpdate>,
}

/// Way in which a Deployment replaces its pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeploymentStrategyType {
    /// One after another.
    #[default]
    RollingUpdate,
    /// All at once: the old ones end first.
    Recreate,
}

/// How many pods a rolling update replaces at a time.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "!(has(self.maxSurge) && (self.maxSurge == 0 || self.maxSurge == '0%') && has(self.maxUnavailable) && \
         (self.maxUnavailable == 0 || self.maxUnavailable == '0%'))"
    )
    .message("maxSurge and maxUnavailable must not both be 0")
)]
pub struct RollingUpdate {
    /// Most pods beside the wanted number, as a number or a percentage; absent: 25%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::count_or_percentage")]
    pub max_surge: Option<IntOrString>,
    /// Most pods that may be missing of the wanted number, as a number or a percentage; absent: 25%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::count_or_percentage")]
    pub max_unavailable: Option<IntOrString>,
}

/// What becomes of the Temporal server's side of a fleet that is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Routing and versions are taken away, once no pod is left.
    #[default]
    Clean,
    /// Nothing: they stay as they are.
    Orphan,
}

impl DeletionPolicy {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether a fleet uses Worker Versioning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Versioning {
    /// A Deployment for each version.
    #[default]
    Enabled,
    /// One Deployment with rolling updates.
    Disabled,
}

/// The Temporal side of a fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerOptions {
    /// How to reach the Temporal server.
    pub connection_ref: ConnectionRef,
    /// Temporal namespace.
    #[schemars(length(min = 1))]
    pub temporal_namespace: String,
    /// Build ID in place of the computed one.
    #[serde(default, rename = "unsafeCustomBuildID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63), extend("pattern" = "^[a-zA-Z0-9]([a-zA-Z0-9._-]*[a-zA-Z0-9])?$"))]
    pub unsafe_custom_build_id: Option<String>,
}

/// A Connection or a ClusterConnection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionRef {
    /// Kind of the object. The Secrets that it names are those of the fleet's own namespace, whichever it is.
    #[serde(default)]
    pub kind: ConnectionKind,
    /// Name of the object; a Connection is one of the same namespace.
    #[schemars(extend("pattern" = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
}

/// Kind of a [`ConnectionRef`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConnectionKind {
    /// Of the same namespace.
    #[default]
    Connection,
    /// Of the cluster.
    ClusterConnection,
}

/// Kind and name, as messages write them.
impl fmt::Display for ConnectionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.kind, self.name)
    }
}

/// The sidecar of a Worker of any SDK.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SidecarSpec {
    /// Encryption of payloads: the Worker's code sees them as they are, the server never does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<EncryptionSpec>,
}
