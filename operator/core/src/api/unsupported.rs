//! Fields whose behaviour comes with a later release.

use super::{ConnectionKind, WorkerDeployment};

/// Paths of the fields of `object` that are set and have no behaviour yet, in the order of the spec. They are accepted,
/// and named in condition `Unsupported` so that nobody takes them for working.
#[must_use]
pub fn unsupported_fields(object: &WorkerDeployment) -> Vec<String> {
    let spec = &object.spec;
    let mut paths = Vec::new();
    if spec.worker_options.connection_ref.kind == ConnectionKind::ClusterConnection {
        paths.push("spec.workerOptions.connectionRef.kind".to_owned());
    }
    if spec.sidecar.is_some() {
        paths.push("spec.sidecar".to_owned());
    }
    paths
}
