//! What a status has of the server, for an operator that starts anew.

use operator_core::api::{VersionStatus as Word, WorkerDeploymentStatus};
use operator_core::fleet::Fleet;
use operator_core::observed::{DeploymentInfo, Observation, TemporalState, VersionSummary};
use operator_core::versions::remembered;
use serde_json::json;

use crate::fixtures::*;

fn on_the_server(info: DeploymentInfo) -> TemporalState {
    TemporalState { deployment: known(Some(info)), ..TemporalState::default() }
}

/// A fleet whose only version is current, and what a description of it says.
fn at_rest() -> (Fleet, DeploymentInfo) {
    let fleet = fleet(json!({}));
    let Observation::Known { value: Some(info), .. } = server(&fleet, 0).deployment else { panic!("known") };
    let build_ids = [fleet.build_id.clone().unwrap(), "of another cluster".into()];
    let info = DeploymentInfo {
        conflict_token: b"7".into(),
        manager_identity: "me".into(),
        last_modifier_identity: "somebody".into(),
        summaries: build_ids.map(|id| (id, VersionSummary::default())).into(),
        ..info
    };
    (fleet, info)
}

fn described(fleet: &Fleet, info: &DeploymentInfo) -> WorkerDeploymentStatus {
    status(fleet, &cluster(fleet, 1, 0), &on_the_server(info.clone()), None)
}

#[test]
fn a_status_tells_all_that_a_fleet_at_rest_needs_and_nothing_of_it_changes_by_that() {
    let (fleet, info) = at_rest();
    let before = described(&fleet, &info);
    assert_eq!(before.version_count, Some(2));
    let told = remembered(&fleet, &before).expect("it is at rest");
    let (versions, summaries) = Default::default();
    assert_eq!(told, DeploymentInfo { versions, summaries, remembered: true, ..info });
    let (kube, server) = (cluster(&fleet, 1, 0), on_the_server(told));
    assert_eq!(status_after(&before, (&fleet, &kube, &server), None), before);
    let routing = |action: &operator_core::plan::Action| !matches!(action, operator_core::plan::Action::Apply { .. });
    assert_eq!(plan_of(&fleet, &kube, &server).actions.into_iter().find(routing), None);
}

#[test]
fn a_status_of_a_fleet_that_was_not_at_rest_is_not_remembered() {
    let (fleet, info) = at_rest();
    let change = |change: &dyn Fn(&mut WorkerDeploymentStatus)| {
        let mut status = described(&fleet, &info);
        change(&mut status);
        remembered(&fleet, &status)
    };
    assert!(change(&|_| {}).is_some(), "the control");
    assert_eq!(change(&|status| status.target_version.version.build_id = "before the last edit".into()), None);
    assert_eq!(change(&|status| status.target_version.version.status = Word::Ramping), None);
    assert_eq!(change(&|status| status.target_version.ramp_percentage = Some(10.0)), None);
    assert_eq!(change(&|status| status.current_version.as_mut().unwrap().build_id = "old".into()), None);
    assert_eq!(change(&|status| status.current_version = None), None);
    assert_eq!(change(&|status| status.deprecated_versions.push(Default::default())), None);
    assert_eq!(change(&|status| status.version_conflict_token = None), None);
}
