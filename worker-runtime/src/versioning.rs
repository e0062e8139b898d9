//! Worker Versioning, in the words of core and of the SDK.

use temporalio_common::worker::{VersioningBehavior, WorkerDeploymentOptions, WorkerDeploymentVersion};
use temporalio_sdk_core::WorkerVersioningStrategy;

use crate::settings::Version;

/// How a Worker without Workflows presents itself.
pub fn strategy(version: Option<&Version>) -> WorkerVersioningStrategy {
    match version {
        Some(version) => WorkerVersioningStrategy::WorkerDeploymentBased(options(version, None)),
        None => WorkerVersioningStrategy::None { build_id: String::new() },
    }
}

/// Options of a versioned Worker. `behavior` is for its Workflows; an activity has none.
pub fn options(version: &Version, behavior: Option<VersioningBehavior>) -> WorkerDeploymentOptions {
    let version =
        WorkerDeploymentVersion::builder().deployment_name(&version.deployment).build_id(&version.build_id).build();
    WorkerDeploymentOptions::new(version)
        .use_worker_versioning(true)
        .maybe_default_versioning_behavior(behavior)
        .build()
}
