//! `WorkerResourceTemplate`: an object that every version of a fleet gets a copy of.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::schema;

/// An object that every version of a WorkerDeployment gets a copy of, such as an autoscaler.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "temporal.io",
    version = "v1alpha1",
    kind = "WorkerResourceTemplate",
    plural = "workerresourcetemplates",
    shortname = "wrt",
    namespaced,
    status = "WorkerResourceTemplateStatus",
    derive = "PartialEq",
    doc = "An object that every version of a WorkerDeployment gets a copy of, such as an autoscaler.",
    printcolumn(
        name = "Worker",
        type_ = "string",
        json_path = ".spec.workerDeploymentRef.name",
        description = "Referenced WorkerDeployment"
    ),
    printcolumn(
        name = "Kind",
        type_ = "string",
        json_path = ".spec.template.kind",
        description = "Kind of resource that is being templated"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Age"),
    validation = Rule::new("has(self.spec)").message("spec is required")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.workerDeploymentRef) || has(self.temporalWorkerDeploymentRef)")
        .message("workerDeploymentRef must be set (or temporalWorkerDeploymentRef for migration compatibility)"),
    validation = Rule::new("!(has(self.workerDeploymentRef) && has(self.temporalWorkerDeploymentRef))")
        .message("only one of workerDeploymentRef or temporalWorkerDeploymentRef may be set")
)]
pub struct WorkerResourceTemplateSpec {
    /// The WorkerDeployment, of the same namespace. It can't be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_deployment_ref: Option<FleetReference>,
    /// Deprecated: the same by its old name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temporal_worker_deployment_ref: Option<FleetReference>,
    /// The object. Each version gets a copy under a name of its own; what is left empty for the operator is filled in.
    #[schemars(schema_with = "any_object")]
    pub template: Value,
    /// Versions that get a copy: those that are Current, Ramping, or Draining (drained ones too); absent: every version that has
    /// a Deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub roles: Option<Vec<TemplateRole>>,
}

impl WorkerResourceTemplateSpec {
    /// Name of the WorkerDeployment, by whichever of the two fields.
    #[must_use]
    pub fn fleet(&self) -> &str {
        let reference = self.worker_deployment_ref.as_ref().or(self.temporal_worker_deployment_ref.as_ref());
        reference.map_or("", |reference| &reference.name)
    }
}

/// A WorkerDeployment of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FleetReference {
    /// Name of the WorkerDeployment.
    #[schemars(extend("pattern" = schema::NAME))]
    pub name: String,
}

/// What a version is to new Workflows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TemplateRole {
    /// It gets them.
    Current,
    /// It gets a share of them.
    Ramping,
    /// It had them, and runs what is left.
    Draining,
}

/// What became of the copies.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerResourceTemplateStatus {
    /// The versions that have a copy, or are to have one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<CopyStatus>,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions_by_type")]
    pub conditions: Vec<Condition>,
}

/// The copy of a version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CopyStatus {
    /// Build ID of the version; empty with Worker Versioning off.
    #[serde(rename = "buildID")]
    pub build_id: String,
    /// Name of the copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_name: Option<String>,
    /// `apiVersion` of the copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Kind of the copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Generation of the template that it was last made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_applied_generation: Option<i64>,
    /// Why it could not be applied or deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apply_error: Option<String>,
    /// Hash of what was last applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_applied_hash: Option<String>,
    /// When this last changed.
    #[schemars(schema_with = "schema::time")]
    pub last_transition_time: Time,
}

fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}
