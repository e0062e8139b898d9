//! `TemporalWorkerDeployment` and `TemporalConnection`: what `WorkerDeployment` and `Connection` were called before version 1.7
//! of temporal-worker-controller. None can be created any more; those that exist are [handed over](crate::old_kinds).
//!
//! Their schema is the contract's and gets no additions, so their specs have types of their own where those of today have
//! some.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::connection::{KeySelector, SecretReference};
use super::duration::GoDuration;
use super::rollout::{GateSpec, RolloutStrategy, SunsetSpec};
use super::schema;
use super::status::WorkerDeploymentStatus;
use super::template::PodTemplate;
use super::worker_deployment::DEFAULT_PROGRESS_DEADLINE_SECONDS;

/// What was a fleet of Temporal Workers.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "temporal.io",
    version = "v1alpha1",
    kind = "TemporalWorkerDeployment",
    plural = "temporalworkerdeployments",
    shortname = "twd",
    shortname = "twdeployment",
    shortname = "tworkerdeployment",
    namespaced,
    status = "WorkerDeploymentStatus",
    derive = "PartialEq",
    deprecated = "TemporalWorkerDeployment is deprecated. Use WorkerDeployment instead.",
    doc = "Deprecated: use WorkerDeployment. None can be created; one that exists is handed over to the WorkerDeployment of its name.",
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
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Age"),
    validation = Rule::new("size(self.metadata.name) <= 63").message("name cannot be more than 63 characters"),
    validation = Rule {
        optional_old_self: Some(true),
        ..Rule::new("oldSelf.hasValue()")
            .message("TemporalWorkerDeployment is deprecated and cannot be created. Use WorkerDeployment instead.")
    }
)]
#[serde(rename_all = "camelCase")]
pub struct TemporalWorkerDeploymentSpec {
    /// As in WorkerDeployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// As in WorkerDeployment.
    pub template: PodTemplate,
    /// As in WorkerDeployment.
    #[serde(default)]
    pub min_ready_seconds: i32,
    /// As in WorkerDeployment.
    #[serde(default = "default_progress_deadline")]
    pub progress_deadline_seconds: i32,
    /// As in WorkerDeployment.
    pub rollout: OldRolloutSpec,
    /// As in WorkerDeployment.
    pub sunset: SunsetSpec,
    /// As in WorkerDeployment.
    pub worker_options: OldWorkerOptions,
}

fn default_progress_deadline() -> i32 {
    DEFAULT_PROGRESS_DEADLINE_SECONDS
}

/// How a new version became current.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("self.strategy != 'Progressive' || (has(self.steps) && size(self.steps) > 0)")
        .message("steps are required for Progressive rollout"),
    validation = Rule::new(
        "!has(self.gate) || !has(self.gate.inputFrom) || \
         (has(self.gate.inputFrom.configMapKeyRef) != has(self.gate.inputFrom.secretKeyRef))"
    )
    .message("exactly one of configMapKeyRef or secretKeyRef must be set")
)]
pub struct OldRolloutSpec {
    /// As in WorkerDeployment.
    pub strategy: RolloutStrategy,
    /// As in WorkerDeployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateSpec>,
    /// As in WorkerDeployment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub steps: Vec<OldRolloutStep>,
}

/// A step of a Progressive rollout.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("duration(self.pauseDuration) >= duration('30s')")
        .message("pause duration must be at least 30s")
)]
pub struct OldRolloutStep {
    /// As in WorkerDeployment.
    #[schemars(range(min = 1, max = 99), extend("format" = null))]
    pub ramp_percentage: i32,
    /// As in WorkerDeployment.
    pub pause_duration: GoDuration,
}

/// The Temporal side of what was a fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OldWorkerOptions {
    /// Its TemporalConnection.
    pub connection_ref: OldConnectionRef,
    /// As in WorkerDeployment.
    #[schemars(length(min = 1))]
    pub temporal_namespace: String,
    /// As in WorkerDeployment.
    #[serde(default, rename = "unsafeCustomBuildID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63), extend("pattern" = "^[a-zA-Z0-9]([a-zA-Z0-9._-]*[a-zA-Z0-9])?$"))]
    pub unsafe_custom_build_id: Option<String>,
}

/// A TemporalConnection of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OldConnectionRef {
    /// Its name.
    #[schemars(extend("pattern" = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
}

/// How a Temporal server was reached.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "temporal.io",
    version = "v1alpha1",
    kind = "TemporalConnection",
    plural = "temporalconnections",
    shortname = "tconn",
    namespaced,
    status = "TemporalConnectionStatus",
    derive = "PartialEq",
    deprecated = "TemporalConnection is deprecated. Use Connection instead.",
    doc = "Deprecated: use Connection. None can be created; one that exists goes when there is a Connection of its name.",
    printcolumn(
        name = "Host",
        type_ = "string",
        json_path = ".spec.hostPort",
        description = "Temporal server endpoint"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Age"),
    validation = Rule {
        optional_old_self: Some(true),
        ..Rule::new("oldSelf.hasValue()")
            .message("TemporalConnection is deprecated and cannot be created. Use Connection instead.")
    }
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.mutualTLSSecretRef) && has(self.apiKeySecretRef))")
        .message("Only one of mutualTLSSecretRef or apiKeySecretRef may be set")
)]
pub struct TemporalConnectionSpec {
    /// As in Connection.
    #[schemars(extend("pattern" = "^[a-zA-Z0-9.-]+:[0-9]+$"))]
    pub host_port: String,
    /// As in Connection.
    #[serde(default, rename = "mutualTLSSecretRef", skip_serializing_if = "Option::is_none")]
    pub mutual_tls_secret_ref: Option<SecretReference>,
    /// As in Connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_secret_ref: Option<KeySelector>,
}

/// What becomes of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TemporalConnectionStatus {
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions_by_type")]
    pub conditions: Vec<Condition>,
}
