//! Fields whose behaviour comes with a later release.

use super::{ConnectionKind, RolloutSpec, RolloutStrategy, ScalingRoles, SunsetSpec, WorkerDeployment};

/// Paths of the fields of `object` that are set and have no behaviour yet, in the order of the spec. They are accepted,
/// and named in condition `Unsupported` so that nobody takes them for working.
#[must_use]
pub fn unsupported_fields(object: &WorkerDeployment) -> Vec<String> {
    let spec = &object.spec;
    let mut paths = Vec::new();
    if let Some(rollout) = &spec.rollout {
        rollout_fields(rollout, &mut paths);
    }
    // Old versions are never scaled down yet, so a delay that somebody chose is not kept. The defaults can't be told
    // from `sunset: {}`, which every manifest must have.
    if let Some(sunset) = &spec.sunset {
        let default = SunsetSpec::default();
        let differs = |own: &super::GoDuration, default: &super::GoDuration| own.get() != default.get();
        if differs(&sunset.scaledown_delay, &default.scaledown_delay) {
            paths.push("spec.sunset.scaledownDelay".to_owned());
        }
        if differs(&sunset.delete_delay, &default.delete_delay) {
            paths.push("spec.sunset.deleteDelay".to_owned());
        }
    }
    if let Some(roles) = spec.scaling.as_ref().and_then(|scaling| scaling.roles.as_ref()) {
        role_fields(roles, &mut paths);
    }
    if spec.worker_options.connection_ref.kind == ConnectionKind::ClusterConnection {
        paths.push("spec.workerOptions.connectionRef.kind".to_owned());
    }
    if spec.sidecar.is_some() {
        paths.push("spec.sidecar".to_owned());
    }
    paths
}

fn rollout_fields(rollout: &RolloutSpec, paths: &mut Vec<String>) {
    if rollout.strategy != RolloutStrategy::AllAtOnce {
        paths.push("spec.rollout.strategy".to_owned());
    }
    if rollout.gate.is_some() {
        paths.push("spec.rollout.gate".to_owned());
    }
    if !rollout.steps.is_empty() {
        paths.push("spec.rollout.steps".to_owned());
    }
}

/// Only one version is scaled yet, and it is current or on its way to that.
fn role_fields(roles: &ScalingRoles, paths: &mut Vec<String>) {
    let fields = [
        ("ramping", roles.ramping.is_some()),
        ("draining", roles.draining.is_some()),
        ("keepWarmForRollback", roles.keep_warm_for_rollback.is_some()),
    ];
    let set = fields.into_iter().filter(|(_, set)| *set);
    paths.extend(set.map(|(field, _)| format!("spec.scaling.roles.{field}")));
}
