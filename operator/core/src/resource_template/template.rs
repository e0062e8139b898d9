//! What is in a template.

use std::collections::BTreeSet;

use serde_json::Value;

/// Field by which an autoscaler names what it scales.
pub(super) const SCALE_TARGET: &str = "scaleTargetRef";
/// Labels of a Worker's metrics: the Worker Deployment, the Build ID, the Temporal namespace.
pub(super) const METRIC_LABELS: [&str; 3] =
    ["temporal_worker_deployment_name", "temporal_worker_build_id", "temporal_namespace"];
/// Keys of a trigger of type `temporal` that the operator fills in.
pub(super) const TRIGGER_KEYS: [&str; 3] = ["workerDeploymentName", "workerDeploymentBuildId", "namespace"];

/// Kinds that templates may have, in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedKinds(BTreeSet<String>);

impl AllowedKinds {
    /// Kinds of a list; none allows none.
    pub fn new<'a>(kinds: impl IntoIterator<Item = &'a str>) -> Self {
        let named = kinds.into_iter().map(str::trim).filter(|kind| !kind.is_empty());
        Self(named.map(str::to_ascii_lowercase).collect())
    }

    /// Whether templates may have a kind, whatever the case of its letters.
    #[must_use]
    pub fn allow(&self, kind: &str) -> bool {
        self.0.contains(&kind.to_ascii_lowercase())
    }
}

/// Whether a template scales what it is copied for: it has a `scaleTargetRef` anywhere.
#[must_use]
pub fn scales(template: &Value) -> bool {
    match template {
        Value::Object(map) => map.contains_key(SCALE_TARGET) || map.values().any(scales),
        Value::Array(list) => list.iter().any(scales),
        _ => false,
    }
}

/// A text of a template; empty when it is absent or of another type.
pub(super) fn text<'a>(template: &'a Value, pointer: &str) -> &'a str {
    template.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
