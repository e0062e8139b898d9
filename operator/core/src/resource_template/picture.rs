//! What a template needs to know of its fleet.

use crate::api::WorkerDeployment;
use crate::fleet::Fleet;
use crate::observed::{DeploymentInfo, KubeState, TemporalState, VersionStatus};
use crate::plan::Plan;
use crate::rollout::sunset::Sunset;
use crate::versions::{Version, versions};

/// A fleet with its versions, as they were last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// Name of the WorkerDeployment.
    pub fleet: String,
    /// Its Temporal namespace.
    pub temporal_namespace: String,
    /// Whether `spec.scaling` decides the replicas.
    pub is_scaled: bool,
    /// Whether the fleet is being deleted: its pods go.
    pub is_deleted: bool,
    /// Versions that have a Deployment.
    pub versions: Vec<VersionPicture>,
}

/// A version that has a Deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionPicture {
    /// Build ID; empty with Worker Versioning off.
    pub build_id: String,
    /// Name of the Deployment.
    pub child: String,
    /// What it is to new Workflows, if that is known.
    pub traffic: Option<Traffic>,
    /// Whether it is past its sunset, so that it is held at zero pods, if that is known.
    pub is_pinned: Option<bool>,
}

/// What a version is to new Workflows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// It gets them.
    Current,
    /// It gets a share of them.
    Ramping,
    /// It had them.
    Draining,
    /// It never had any.
    Inactive,
}

/// What a picture is made of.
#[derive(Clone, Copy, Debug)]
pub struct PictureInput<'a> {
    /// The fleet's object.
    pub object: &'a WorkerDeployment,
    /// Its Deployments.
    pub kube: &'a KubeState,
    /// The fleet, the server, and what was planned on them; none where nothing could be.
    pub planned: Option<(&'a Fleet, &'a TemporalState, &'a Plan)>,
}

/// Makes the picture of a fleet. What the server did not answer lately is not known in it.
#[must_use]
pub fn picture(input: &PictureInput<'_>) -> Picture {
    let meta = &input.object.metadata;
    let spec = &input.object.spec;
    let mut picture = Picture {
        fleet: meta.name.clone().unwrap_or_default(),
        temporal_namespace: spec.worker_options.temporal_namespace.clone(),
        is_scaled: spec.scaling.as_ref().is_some_and(|scaling| !scaling.dry_run),
        is_deleted: meta.deletion_timestamp.is_some(),
        versions: Vec::new(),
    };
    picture.versions = match input.planned {
        Some((fleet, temporal, plan)) => {
            let known = |version: &Version<'_>| of_version(fleet, temporal, plan, version);
            versions(fleet, input.kube, temporal).iter().map(known).collect()
        }
        None => input.kube.children.iter().map(|child| unknown(child.build_id.as_deref(), &child.name)).collect(),
    };
    picture.versions.sort_by(|a, b| a.child.cmp(&b.child));
    picture
}

fn unknown(build_id: Option<&str>, child: &str) -> VersionPicture {
    let build_id = build_id.unwrap_or_default().to_owned();
    VersionPicture { build_id, child: child.to_owned(), traffic: None, is_pinned: None }
}

fn of_version(fleet: &Fleet, temporal: &TemporalState, plan: &Plan, version: &Version<'_>) -> VersionPicture {
    let unread = unknown(version.child.build_id.as_deref(), &version.child.name);
    if fleet.build_id.is_none() {
        return VersionPicture { traffic: Some(Traffic::Current), is_pinned: Some(false), ..unread };
    }
    let traffic = temporal.deployment.known().and_then(|info| traffic(info.as_ref(), fleet, plan, version));
    let is_pinned = if version.is_target { Some(false) } else { is_pinned(traffic, plan, version) };
    VersionPicture { traffic, is_pinned, ..unread }
}

/// None where it was not answered for lately, or the operator changed the routing since.
fn traffic(info: Option<&DeploymentInfo>, fleet: &Fleet, plan: &Plan, version: &Version<'_>) -> Option<Traffic> {
    let Some(info) = info else { return Some(Traffic::Inactive) };
    // Sunsets are decided on answers that have the operator's own changes of the routing in them.
    plan.sunsets.get(&version.child.name)?;
    let build_id = version.child.build_id.as_deref()?;
    if version.is_current {
        return Some(Traffic::Current);
    }
    if info.ramp_of(build_id).is_some() {
        return Some(Traffic::Ramping);
    }
    match info.known_version(build_id).filter(|_| !version.is_elsewhere(fleet))? {
        Some(answer) if matches!(answer.status, VersionStatus::Draining | VersionStatus::Drained) => {
            Some(Traffic::Draining)
        }
        _ => Some(Traffic::Inactive),
    }
}

fn is_pinned(traffic: Option<Traffic>, plan: &Plan, version: &Version<'_>) -> Option<bool> {
    if matches!(traffic?, Traffic::Current | Traffic::Ramping) {
        return Some(false);
    }
    match plan.sunsets.get(&version.child.name)? {
        Sunset::ScaleDown | Sunset::Delete => Some(true),
        _ if version.child.spec_replicas > 0 => Some(false),
        _ => {
            let drained = version.known().is_some_and(|info| info.status == VersionStatus::Drained);
            Some(drained || version.child.superseded_at.is_some())
        }
    }
}
