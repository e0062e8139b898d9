//! Old versions: their notes, their records on the server, and their Deployments.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::{Action, Plan, PlanInput};
use crate::build::runtime::config_map_name;
use crate::observed::{DeploymentInfo, PodState, VersionStatus, VersionSummary};
use crate::rollout::sunset::{Old, Sunset, decide};
use crate::versions::{Version, versions};

/// What is to become of each old version, by the name of its Deployment. Nothing without a fresh answer of the server, for
/// the Worker Deployment and for the version, that has the operator's own changes of the routing in it.
pub(super) fn sunsets(input: &PlanInput<'_>) -> BTreeMap<String, Sunset> {
    if input.outdated {
        return BTreeMap::new();
    }
    let Some(Some(info)) = input.temporal.deployment.known() else { return BTreeMap::new() };
    let all = versions(input.fleet, input.kube, input.temporal);
    let named = all.iter().filter(|version| version.child.build_id.is_some() && input.fleet.build_id.is_some());
    named.map(|version| (version.child.name.clone(), sunset(input, info, version))).collect()
}

fn sunset(input: &PlanInput<'_>, info: &DeploymentInfo, version: &Version<'_>) -> Sunset {
    let child = version.child;
    let build_id = child.build_id.as_deref().unwrap_or_default();
    if version.is_target || version.is_current || info.ramp_of(build_id).is_some() {
        return if child.superseded_at.is_some() { Sunset::Unmark } else { Sunset::Keep(None) };
    }
    let Some(answer) = info.known_version(build_id).filter(|_| !version.is_elsewhere(input.fleet)) else {
        return Sunset::Keep(None);
    };
    let own = || input.kube.pods.iter().filter(|pod| version.has(pod));
    let old = Old {
        info: answer,
        superseded_at: child.superseded_at,
        replicas: child.spec_replicas,
        has_pods: child.replicas > 0 || own().next().is_some(),
        is_busy: own().any(is_busy),
    };
    match decide(&old, input.fleet.sunset, &input.clock) {
        Sunset::Delete if input.resting.contains(build_id) => Sunset::Keep(None),
        decided => decided,
    }
}

fn is_busy(pod: &PodState) -> bool {
    pod.may_run && pod.load.last().is_some_and(|load| load.lanes.values().any(|slots| slots.used > 0))
}

/// The writes of the sunsets, but for replicas, and of records without a Deployment. They come last: none of them is urgent.
pub(super) fn carry_out(input: &PlanInput<'_>, planned: &mut Plan) {
    for child in &input.kube.children {
        let Some(sunset) = planned.sunsets.get(&child.name) else { continue };
        let resource_version = child.resource_version.clone();
        let note = |at| Action::NoteSuperseded { child: child.name.clone(), at, resource_version };
        match sunset {
            Sunset::Keep(_) | Sunset::ScaleDown => {}
            // The later of the two clocks: the delay counts from no earlier than now.
            Sunset::Mark => planned.actions.push(note(Some(input.clock.wall.max(input.clock.steady)))),
            Sunset::Unmark => planned.actions.push(note(None)),
            Sunset::Delete => {
                let build_id = child.build_id.clone().unwrap_or_default();
                // Also of what the server denies: one answer may be wrong, and it refuses to delete what has work.
                planned.actions.push(Action::DeleteVersion { build_id: build_id.clone() });
                planned.actions.push(Action::DeleteChild {
                    build_id,
                    child: child.name.clone(),
                    config_map: config_map_name(&child.name),
                    uid: child.uid.clone(),
                    resource_version: child.resource_version.clone(),
                });
            }
        }
    }
    let records = forgotten_records(input);
    planned.actions.extend(records.into_iter().map(|build_id| Action::DeleteVersion { build_id }));
}

/// Records of versions that have no Deployment any more, and no work, for as long as both delays.
fn forgotten_records(input: &PlanInput<'_>) -> Vec<String> {
    let Some(Some(info)) = input.temporal.deployment.known() else { return Vec::new() };
    if !info.manager_identity.is_empty() && info.manager_identity != input.identity {
        // They may be of another cluster's fleet, which has the Deployments.
        return Vec::new();
    }
    let used = |id: &str| {
        let has_child = input.kube.children.iter().any(|child| child.build_id.as_deref() == Some(id));
        let is_current = info.current_build_id.as_deref() == Some(id);
        has_child || is_current || input.fleet.build_id.as_deref() == Some(id) || info.ramp_of(id).is_some()
    };
    let delay = input.fleet.sunset.scaledown.saturating_add(input.fleet.sunset.delete);
    let is_over = |summary: &VersionSummary| since(summary).is_some_and(|at| input.clock.since(at) >= delay);
    let forgotten = info
        .summaries
        .iter()
        .filter(|(id, summary)| !used(id.as_str()) && !input.resting.contains(id.as_str()) && is_over(summary));
    forgotten.map(|(id, _)| id.clone()).collect()
}

fn since(summary: &VersionSummary) -> Option<Timestamp> {
    match summary.status {
        VersionStatus::Drained => summary.drainage_changed_at,
        VersionStatus::Inactive => summary.created_at,
        _ => None,
    }
}

/// How many old versions have work or pods, if they are so many that a target without a Deployment gets none.
pub(super) fn at_limit(input: &PlanInput<'_>) -> Option<usize> {
    let all = versions(input.fleet, input.kube, input.temporal);
    if input.fleet.build_id.is_none() || all.iter().any(|version| version.is_target) {
        return None;
    }
    let over = |version: &Version<'_>| {
        version.child.replicas == 0 && version.known().is_some_and(|info| info.status == VersionStatus::Drained)
    };
    let old = all.iter().filter(|version| !version.is_current && version.child.build_id.is_some());
    let kept = old.filter(|version| !over(version)).count();
    (kept >= input.max_versions).then_some(kept)
}

/// Time until the next sunset, if time alone is missing.
pub(super) fn due_in(planned: &Plan) -> Option<Duration> {
    let left = |sunset: &Sunset| match sunset {
        Sunset::Keep(left) => *left,
        _ => None,
    };
    planned.sunsets.values().filter_map(left).min()
}
