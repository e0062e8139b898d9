//! The planner's writes, in the model's words.

use operator_core::deletion::Step;
use operator_core::plan::Action;

use crate::fleets::Fleets;
use crate::world::{Child, Cluster, Id};

/// One write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// Give the object its finalizer.
    Protect,
    /// Apply the ConfigMap of a version.
    ApplyConfigMap(Id),
    /// Apply the ConfigMap that all versions share.
    ApplyLimits,
    /// Apply the Deployment of a version.
    Apply(Id),
    /// Write its replicas.
    Scale(Id, u8),
    /// Become the manager of the routing.
    Claim,
    /// Give a version a share, in percent.
    Ramp(Id, u8),
    /// Give a version the traffic.
    SetCurrent(Id),
    /// Take a share away.
    ClearRamp,
    /// Note on a Deployment that nobody wants it, or that somebody does.
    Note(Id, bool),
    /// Delete the server's record of a version that is drained.
    DeleteRecord(Id),
    /// Delete the ConfigMap of a version.
    DeleteConfigMap(Id),
    /// Delete the Deployment of a version.
    DeleteChild(Id),
    /// Take the traffic from the current version.
    ClearCurrent,
    /// Delete the server's record of a version, drained or not.
    ForceDeleteRecord(Id),
    /// Delete the server's record of the Worker Deployment.
    DeleteServer,
    /// Let the object go; whether it was said that something is left.
    Release(bool),
}

impl Act {
    /// Whether it changes the routing.
    #[must_use]
    pub fn routes(self) -> bool {
        matches!(self, Self::Ramp(..) | Self::SetCurrent(_) | Self::ClearRamp | Self::ClearCurrent | Self::Claim)
    }

    /// Whether it is a write to the Temporal server.
    #[must_use]
    pub fn is_temporals(self) -> bool {
        self.routes() || matches!(self, Self::DeleteRecord(_) | Self::ForceDeleteRecord(_) | Self::DeleteServer)
    }
}

/// The plan's writes. What carries no precondition though it must is given back as false.
pub(crate) fn of_plan(actions: &[Action], fleets: &Fleets, cluster: &Cluster) -> (Vec<Act>, bool) {
    let mut acts = Vec::new();
    let mut conditioned = true;
    for action in actions {
        match action {
            Action::Protect => acts.push(Act::Protect),
            Action::Apply { object, .. } => {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let of_deployment = fleets.of_child(name).map(Act::Apply);
                let act = of_deployment.or_else(|| fleets.of_config_map(name).map(Act::ApplyConfigMap));
                acts.push(act.unwrap_or(Act::ApplyLimits));
            }
            Action::Scale { child, to, resource_version, .. } => {
                let Some(id) = fleets.of_child(child) else { continue };
                conditioned &= *resource_version == fleets.resource_version(id);
                acts.push(Act::Scale(id, u8::try_from(*to).unwrap_or(u8::MAX)));
            }
            Action::NoteSuperseded { child, at, .. } => {
                acts.extend(fleets.of_child(child).map(|id| Act::Note(id, at.is_some())));
            }
            Action::DeleteChild { child, uid, resource_version, .. } => {
                let Some(id) = fleets.of_child(child) else { continue };
                conditioned &= *resource_version == fleets.resource_version(id) && *uid == fleets.uid(id);
                acts.extend(cluster.config_maps[usize::from(id)].then_some(Act::DeleteConfigMap(id)));
                acts.push(Act::DeleteChild(id));
            }
            action => acts.extend(on_the_server(action, fleets)),
        }
    }
    acts.reverse();
    (acts, conditioned)
}

/// Writes to the server. Others concern pods alone, and the decision about them has tests of its own.
fn on_the_server(action: &Action, fleets: &Fleets) -> Option<Act> {
    match action {
        Action::ClaimManager { .. } => Some(Act::Claim),
        Action::SetRamping { build_id, percent, .. } => Some(Act::Ramp(fleets.of_build_id(build_id)?, *percent)),
        Action::SetCurrent { build_id, .. } => Some(Act::SetCurrent(fleets.of_build_id(build_id)?)),
        Action::ClearRamp { .. } => Some(Act::ClearRamp),
        Action::DeleteVersion { build_id } => Some(Act::DeleteRecord(fleets.of_build_id(build_id)?)),
        _ => None,
    }
}

/// The writes of a deletion.
pub(crate) fn of_deletion(steps: &[Step], fleets: &Fleets) -> Vec<Act> {
    let act = |step: &Step| match step {
        Step::ScaleToZero { child, .. } => Some(Act::Scale(fleets.of_child(child)?, 0)),
        Step::ClaimManager { .. } => Some(Act::Claim),
        Step::ClearRamp { .. } => Some(Act::ClearRamp),
        Step::ClearCurrent { .. } => Some(Act::ClearCurrent),
        Step::DeleteVersion { build_id } => Some(Act::ForceDeleteRecord(fleets.of_build_id(build_id)?)),
        Step::DeleteDeployment => Some(Act::DeleteServer),
        Step::Release { left } => Some(Act::Release(left.is_some())),
    };
    steps.iter().rev().filter_map(act).collect()
}

/// A new Deployment: an apply names no replicas, and Kubernetes makes that one.
#[must_use]
pub fn new_child() -> Child {
    Child { replicas: 1, superseded: None }
}
