//! From `spec.sidecar` to how the fleet's pods run it.

use serde_json::Value;

use super::runtime::{Context, key_secrets};
use super::{deployment, limits};
use crate::api::SidecarSpec;
use crate::build::deployment::Owner;
use crate::build::runtime as build;
use crate::build::sidecar::SidecarPod;
use crate::contract::{self, RuntimeLimits};

/// Resolves `spec.sidecar`. What is wrong is added to `wrong`: field, value and remedy, a sentence each.
pub(super) fn pod(sidecar: &SidecarSpec, context: &Context<'_>, wrong: &mut Vec<String>) -> SidecarPod {
    let Context { around, name, child_name, template } = *context;
    let kept = around.runtime_images.get(child_name).cloned();
    let image = kept.unwrap_or_else(|| around.default_runtime_image.to_owned());
    wrong.extend(misplaced(template));
    let encryption = sidecar.encryption.as_ref();
    SidecarPod {
        image,
        limits: RuntimeLimits {
            encryption: encryption.map(limits::encryption),
            order_keys: around.order_keys.to_vec(),
            ..RuntimeLimits::default()
        },
        limits_map: build::limits_map_name(name),
        cordonable: !around.uncordonable.contains(child_name),
        key_secrets: key_secrets(encryption),
    }
}

/// The ConfigMap with what changes without a new version.
pub(super) fn limits_map(owner: Owner<'_>, sidecar: &SidecarPod) -> Value {
    // Plain data with string keys: writing it as JSON can't fail.
    let text = serde_json::to_string(&sidecar.limits).unwrap_or_default();
    deployment::config_map(owner, &sidecar.limits_map, contract::LIMITS_FILE, &text, false)
}

/// A container of the sidecar's name that is none of the init containers would run beside it.
fn misplaced(template: &Value) -> Option<String> {
    let name = contract::SIDECAR_CONTAINER;
    super::runtime::containers(template).find(|container| container["name"] == name).map(|_| {
        format!(
            "spec.template.spec.containers[{name}]: is the sidecar's name, and the sidecar is an init container; move it to \
             spec.template.spec.initContainers, or name it otherwise."
        )
    })
}
