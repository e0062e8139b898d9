//! What the operator would do now for a fleet, and why, for people and for programs.
//!
//! No value of an object is shown but a few that are never secret: a variable's may be one, and so may anything else that a
//! template or a ConfigMap holds. Of all other fields the path is shown alone.

mod text;
mod write;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::Serialize;

use crate::api::{DeprecatedVersion, ScalingStatus, TargetVersion, Version, WorkerDeploymentStatus};
use crate::plan::Plan;
use crate::rollout::sunset::Sunset;

pub use text::text;
pub use write::{Subject, Write, of_action, of_step};

/// What would be done for a fleet.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Preview {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Whether nothing can be decided until somebody changes something; a condition says what.
    pub blocked: bool,
    /// Writes in their order, but for status and events.
    pub writes: Vec<Write>,
    /// The version that the spec describes; none with Worker Versioning off, and while nothing can be decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_version: Option<TargetVersion>,
    /// The version with the traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_version: Option<Version>,
    /// Every other version that has a Deployment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deprecated_versions: Vec<DeprecatedVersion>,
    /// What becomes of versions in time, by the names of their Deployments: a sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<Waiting>,
    /// The scaling decision, as in the status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingStatus>,
    /// Conditions that the status would have.
    pub conditions: Vec<Condition>,
    /// What could not be read, and what it would take.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Why nothing is done for a version now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// Name of its Deployment.
    pub deployment: String,
    /// Why.
    pub reason: String,
}

impl Preview {
    /// From the status that the operator would write, and the writes before it.
    #[must_use]
    pub fn new(
        (namespace, name): (&str, &str),
        status: WorkerDeploymentStatus,
        plan: Option<&Plan>,
        writes: Vec<Write>,
    ) -> Self {
        let target = Some(status.target_version).filter(|target| !target.version.build_id.is_empty());
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            blocked: plan.is_none(),
            writes,
            target_version: target,
            current_version: status.current_version,
            deprecated_versions: status.deprecated_versions,
            waiting: plan.map(waiting).unwrap_or_default(),
            scaling: status.scaling.map(|scaling| *scaling),
            conditions: status.conditions,
            notes: Vec::new(),
        }
    }
}

/// Old versions that nothing is done with, and other versions' replicas.
fn waiting(plan: &Plan) -> Vec<Waiting> {
    let kept = plan.sunsets.iter().filter_map(|(deployment, sunset)| match sunset {
        Sunset::Keep(Some(left)) => {
            let reason = format!("nobody wants this version; its next step is due in {} s", left.as_secs());
            Some(Waiting { deployment: deployment.clone(), reason })
        }
        _ => None,
    });
    let scaled = plan.others.iter().map(|(deployment, other)| Waiting {
        deployment: deployment.clone(),
        reason: other.decision.reason.trim_end_matches('.').to_owned(),
    });
    kept.chain(scaled).collect()
}
