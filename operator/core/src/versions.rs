//! The versions of a fleet that have a Deployment, each with its role.

use crate::api::{VersionStatus, WorkerDeploymentStatus};
use crate::connection::Attached;
use crate::fleet::Fleet;
use crate::names;
use crate::observed::{ChildState, DeploymentInfo, KubeState, Observation, PodState, TemporalState, VersionInfo};

/// A version that has a Deployment.
#[derive(Clone, Copy, Debug)]
pub struct Version<'a> {
    /// Its Deployment.
    pub child: &'a ChildState,
    /// Whether it is the one that the spec describes.
    pub is_target: bool,
    /// Whether it is current, by the last reading of the Worker Deployment, however old.
    pub is_current: bool,
    /// What was read of it: `Known` with `None` when the server has no record of it. None with Worker Versioning off, and
    /// before it was first asked for.
    pub info: Option<&'a Observation<Option<VersionInfo>>>,
}

impl Version<'_> {
    /// What the server says of it, if that is fresh and there is a record.
    #[must_use]
    pub fn known(&self) -> Option<&VersionInfo> {
        self.info.and_then(Observation::known).and_then(Option::as_ref)
    }

    /// Whether its pods work where the fleet's answers of the server don't come from: in another Temporal namespace, or at
    /// another address, if the server has no record of it. Then nothing of it follows from these answers.
    #[must_use]
    pub fn is_elsewhere(&self, fleet: &Fleet) -> bool {
        let Attached::To(at) = &self.child.attached else { return false };
        let no_record = || self.info.and_then(Observation::known) == Some(&None);
        at.temporal_namespace != fleet.temporal_namespace
            || at.connection.host_port != fleet.attachment.connection.host_port && no_record()
    }

    /// Whether a pod is one of its own.
    #[must_use]
    pub fn has(&self, pod: &PodState) -> bool {
        pod.build_id == self.child.build_id
    }
}

/// What was last read of the Worker Deployment, however old.
#[must_use]
pub fn last_info(temporal: &TemporalState) -> Option<&DeploymentInfo> {
    temporal.deployment.last().and_then(Option::as_ref)
}

/// What was last read of the Worker Deployment as the status has it, if the target had all of the traffic then and there was no
/// other version: whoever starts anew need not ask for all that again where the server says that the traffic is still so.
#[must_use]
pub fn remembered(fleet: &Fleet, status: &WorkerDeploymentStatus) -> Option<DeploymentInfo> {
    let (build_id, target) = (fleet.build_id.as_ref()?, &status.target_version);
    let current = status.current_version.as_ref()?;
    let settled = target.version.build_id == *build_id
        && current.build_id == *build_id
        && target.version.status == VersionStatus::Current
        && target.ramp_percentage.is_none()
        && status.deprecated_versions.is_empty();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    settled.then_some(DeploymentInfo {
        current_build_id: Some(build_id.clone()),
        conflict_token: status.version_conflict_token.as_ref()?.0.clone(),
        manager_identity: text(&status.manager_identity),
        last_modifier_identity: text(&status.last_modifier_identity),
        remembered: true,
        ..DeploymentInfo::default()
    })
}

/// The versions that have a Deployment; first the one that does the work ([`main_child`]).
#[must_use]
pub fn versions<'a>(fleet: &Fleet, kube: &'a KubeState, temporal: &'a TemporalState) -> Vec<Version<'a>> {
    let info = last_info(temporal);
    let version = |child: &'a ChildState| {
        let build_id = child.build_id.as_deref();
        Version {
            child,
            is_target: child.name == fleet.child_name,
            is_current: build_id.is_some() && info.and_then(|info| info.current_build_id.as_deref()) == build_id,
            info: info.zip(build_id).and_then(|(info, id)| info.versions.get(id)),
        }
    };
    let mut versions: Vec<_> = kube.children.iter().map(version).collect();
    versions.sort_by_key(|version| (!version.is_current, !version.is_target, version.child.name.as_str()));
    versions
}

/// Build ID of the version whose work the fleet's own numbers are about: the current one if it has a Deployment, else the
/// target. None with Worker Versioning off.
#[must_use]
pub fn main_build_id<'a>(fleet: &'a Fleet, kube: &KubeState, temporal: &'a TemporalState) -> Option<&'a str> {
    let target = fleet.build_id.as_deref()?;
    let current = last_info(temporal).and_then(|info| info.current_build_id.as_deref());
    let runs = |id: &&str| kube.children.iter().any(|child| child.build_id.as_deref() == Some(*id));
    Some(current.filter(runs).unwrap_or(target))
}

/// The Deployment of that version, if it is there.
#[must_use]
pub fn main_child<'a>(fleet: &Fleet, kube: &'a KubeState, temporal: &TemporalState) -> Option<&'a ChildState> {
    let main = main_build_id(fleet, kube, temporal);
    kube.children.iter().find(|child| match main {
        Some(id) if Some(id) != fleet.build_id.as_deref() => child.build_id.as_deref() == Some(id),
        _ => child.name == fleet.child_name,
    })
}

/// Pods of that version.
pub fn main_pods<'a>(
    fleet: &Fleet,
    kube: &'a KubeState,
    temporal: &TemporalState,
) -> impl Iterator<Item = &'a PodState> {
    let label = main_build_id(fleet, kube, temporal).map(names::build_id_label);
    kube.pods.iter().filter(move |pod| pod.build_id == label)
}

/// Build IDs of the versions to read from the server: the target first, then every other one that has traffic or a
/// Deployment.
#[must_use]
pub fn build_ids(fleet: &Fleet, kube: &KubeState, temporal: &TemporalState) -> Vec<String> {
    let Some(target) = fleet.build_id.clone() else { return Vec::new() };
    let info = last_info(temporal);
    let current = info.and_then(|info| info.current_build_id.clone());
    let ramping = info.and_then(|info| info.ramp.as_ref()).map(|ramp| ramp.build_id.clone());
    let children = kube.children.iter().filter_map(|child| child.build_id.clone());
    let others: std::collections::BTreeSet<_> = current.into_iter().chain(ramping).chain(children).collect();
    let others = others.into_iter().filter(|id| !id.is_empty() && *id != target);
    std::iter::once(target.clone()).chain(others).collect()
}
