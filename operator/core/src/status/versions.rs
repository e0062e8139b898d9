//! What the status says of the versions: target, current, and every other one that has a Deployment.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::StatusInput;
use crate::api::{DeprecatedVersion, TargetVersion, Version, VersionStatus, VersionTaskQueue, WorkerDeploymentStatus};
use crate::fleet::Fleet;
use crate::names;
use crate::observed::{self, ChildState, DeploymentInfo, Observation, TaskType};
use crate::versions::last_info;

/// Carries over what the status said, while nothing can be seen.
pub(super) fn keep(status: &mut WorkerDeploymentStatus, previous: &WorkerDeploymentStatus) {
    status.target_version = previous.target_version.clone();
    status.current_version = previous.current_version.clone();
    status.deprecated_versions = previous.deprecated_versions.clone();
    status.version_conflict_token = previous.version_conflict_token.clone();
    status.version_count = previous.version_count;
    status.handled_commands = previous.handled_commands.clone();
}

/// Fills in what was seen.
pub(super) fn fill(status: &mut WorkerDeploymentStatus, input: &StatusInput<'_>, fleet: &Fleet) {
    let Some(build_id) = &fleet.build_id else { return };
    let info = last_info(input.temporal);
    let current = info.and_then(|info| info.current_build_id.as_deref());
    status.target_version = target(input, fleet, build_id, info);
    let child_of = |id: &str| {
        let label = names::build_id_label(id);
        input.kube.children.iter().find(|child| child.build_id.as_deref() == Some(&label))
    };
    let seen = Seen { input, namespace: &fleet.namespace, info };
    status.current_version = current.map(|id| seen.version(id, child_of(id)));
    let is_old = |child: &&ChildState| {
        let id = child.build_id.as_deref();
        child.name != fleet.child_name && id.is_some() && id != current.map(names::build_id_label).as_deref()
    };
    let mut old: Vec<_> = input.kube.children.iter().filter(is_old).map(|child| seen.deprecated(child)).collect();
    old.sort_by(|a, b| a.version.build_id.cmp(&b.version.build_id));
    status.deprecated_versions = old;
    if let Some(info) = info {
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        status.version_conflict_token =
            (!info.conflict_token.is_empty()).then(|| ByteString(info.conflict_token.clone()));
        status.manager_identity = some(&info.manager_identity);
        status.last_modifier_identity = some(&info.last_modifier_identity);
        status.version_count = match info.remembered {
            true => input.previous.version_count,
            false => i32::try_from(info.summaries.len()).ok(),
        };
    }
}

fn target(input: &StatusInput<'_>, fleet: &Fleet, build_id: &str, info: Option<&DeploymentInfo>) -> TargetVersion {
    let seen = Seen { input, namespace: &fleet.namespace, info };
    let mut version = seen.version(build_id, super::child(fleet, input.kube));
    if info.and_then(|info| info.current_build_id.as_deref()) != Some(build_id) {
        let lanes = info.and_then(|info| info.version(build_id)).map(|version| &version.lanes);
        let queues = lanes.into_iter().flatten().filter(|lane| lane.task_type == TaskType::Workflow);
        version.task_queues = queues.map(|lane| VersionTaskQueue { name: lane.task_queue.clone() }).collect();
    }
    let ramp = info.and_then(|info| info.ramp_of(build_id));
    TargetVersion {
        version,
        ramp_percentage: ramp.map(|ramp| ramp.percent),
        ramping_since: ramp.and_then(|ramp| ramp.since).map(Time),
        ramp_last_modified_at: ramp.and_then(|ramp| ramp.changed_at).map(Time),
        ..TargetVersion::default()
    }
}

/// What was seen of all versions.
struct Seen<'a> {
    input: &'a StatusInput<'a>,
    namespace: &'a str,
    info: Option<&'a DeploymentInfo>,
}

impl Seen<'_> {
    fn version(&self, build_id: &str, child: Option<&ChildState>) -> Version {
        let count = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
        let replicas =
            |child: &ChildState| self.input.scaled_to.get(&child.name).copied().unwrap_or(child.spec_replicas);
        Version {
            build_id: build_id.to_owned(),
            status: self.status(build_id),
            healthy_since: child.and_then(|child| child.available_since).map(Time),
            replicas: child.map(|child| count(replicas(child))),
            ready_replicas: child.map(|child| count(child.ready_replicas)),
            deployment: child.map(|child| ObjectReference {
                api_version: Some("apps/v1".into()),
                kind: Some("Deployment".into()),
                name: Some(child.name.clone()),
                namespace: Some(self.namespace.to_owned()),
                uid: Some(child.uid.clone()),
                ..ObjectReference::default()
            }),
            ..Version::default()
        }
    }

    /// Routing counts before the version's own description, which may be older. A version that was not asked for is not one
    /// that is not registered.
    fn status(&self, build_id: &str) -> VersionStatus {
        let Some(info) = self.info else { return VersionStatus::NotRegistered };
        if info.current_build_id.as_deref() == Some(build_id) {
            return VersionStatus::Current;
        }
        if info.ramp_of(build_id).is_some() {
            return VersionStatus::Ramping;
        }
        match info.versions.get(build_id).and_then(Observation::last) {
            Some(version) => version.as_ref().map_or(VersionStatus::NotRegistered, |version| word(version.status)),
            None => info.summaries.get(build_id).map_or(VersionStatus::NotRegistered, |summary| word(summary.status)),
        }
    }

    fn deprecated(&self, child: &ChildState) -> DeprecatedVersion {
        let id = child.build_id.as_deref().unwrap_or_default();
        let version = self.version(id, Some(child));
        let drained = version.status == VersionStatus::Drained;
        let since = self.info.and_then(|info| info.version(id)).and_then(|version| version.drainage_changed_at);
        DeprecatedVersion {
            version,
            drained_since: since.filter(|_| drained).map(Time),
            eligible_for_deletion: drained.then_some(child.replicas == 0),
        }
    }
}

fn word(status: observed::VersionStatus) -> VersionStatus {
    match status {
        observed::VersionStatus::NotRegistered => VersionStatus::NotRegistered,
        observed::VersionStatus::Inactive => VersionStatus::Inactive,
        observed::VersionStatus::Ramping => VersionStatus::Ramping,
        observed::VersionStatus::Current => VersionStatus::Current,
        observed::VersionStatus::Draining => VersionStatus::Draining,
        observed::VersionStatus::Drained => VersionStatus::Drained,
    }
}
