//! What WorkerResourceTemplates see of a fleet.

use std::time::Duration;

use operator_core::fleet::Fleet;
use operator_core::observed::{ChildState, KubeState, Observation, TemporalState, VersionInfo, VersionStatus};
use operator_core::plan::PlanInput;
use operator_core::resource_template::{Picture, PictureInput, Traffic, VersionPicture, picture};
use operator_core::scaling::State;
use serde_json::{Value, json};

use crate::fixtures::*;

/// A fleet whose target is current, with an old version that is `status` for a day and has so many replicas.
fn world(status: Option<VersionStatus>, replicas: u32) -> (Fleet, KubeState, TemporalState) {
    let fleet = fleet(json!({}));
    let (mut kube, mut temporal) = (cluster(&fleet, 1, 0), server(&fleet, 0));
    kube.children.push(ChildState {
        name: "orders-old".into(),
        build_id: Some("old".into()),
        spec_replicas: replicas,
        ..ChildState::default()
    });
    let Observation::Known { value: Some(info), .. } = &mut temporal.deployment else { panic!() };
    let drainage_changed_at = NOW.checked_sub(Duration::from_secs(26 * 3600)).ok();
    let answer = status.map(|status| VersionInfo { status, drainage_changed_at, ..VersionInfo::default() });
    info.versions.insert("old".into(), known(answer));
    (fleet, kube, temporal)
}

fn seen((fleet, kube, temporal): &(Fleet, KubeState, TemporalState), outdated: bool) -> Vec<VersionPicture> {
    let state = State::default();
    let plan = operator_core::plan::plan(&PlanInput { outdated, ..plan_input(fleet, kube, temporal, &state) });
    let object = manifest(json!({}));
    picture(&PictureInput { object: &object, kube, planned: Some((fleet, temporal, &plan)) }).versions
}

fn old(world: &(Fleet, KubeState, TemporalState), outdated: bool) -> (Option<Traffic>, Option<bool>) {
    let versions = seen(world, outdated);
    let old = versions.iter().find(|version| version.build_id == "old").unwrap();
    (old.traffic, old.is_pinned)
}

#[test]
fn the_role_of_a_version_is_what_the_server_says() {
    let current = &seen(&world(None, 0), false)[1];
    assert_eq!((current.traffic, current.is_pinned), (Some(Traffic::Current), Some(false)));
    assert_eq!(old(&world(Some(VersionStatus::Draining), 1), false), (Some(Traffic::Draining), Some(false)));
    assert_eq!(old(&world(Some(VersionStatus::Inactive), 1), false), (Some(Traffic::Inactive), Some(false)));
}

#[test]
fn a_version_is_held_at_zero_from_its_sunset_on() {
    for replicas in [1, 0] {
        let drained = world(Some(VersionStatus::Drained), replicas);
        assert_eq!(old(&drained, false), (Some(Traffic::Draining), Some(true)), "{replicas}");
    }
    // Somebody else's scaler has it at zero: it still has work.
    assert_eq!(old(&world(Some(VersionStatus::Draining), 0), false).1, Some(false));
    assert_eq!(old(&world(None, 0), false).1, Some(false), "nobody noted yet that nobody wants it");
    let mut unwanted = world(None, 0);
    unwanted.1.children[1].superseded_at = Some(NOW);
    assert_eq!(old(&unwanted, false).1, Some(true));
}

#[test]
fn nothing_is_known_without_a_fresh_answer() {
    let drained = world(Some(VersionStatus::Drained), 0);
    assert_eq!(old(&drained, true), (None, None), "the operator changed the routing since");
    let (fleet, kube, mut temporal) = drained;
    let Observation::Known { value, .. } = temporal.deployment else { panic!() };
    temporal.deployment = Observation::Stale { value, age: Duration::from_secs(600) };
    assert_eq!(old(&(fleet, kube.clone(), temporal), false), (None, None));
    let object = manifest(json!({}));
    let blocked = picture(&PictureInput { object: &object, kube: &kube, planned: None });
    assert!(blocked.versions.len() == 2 && blocked.versions.iter().all(|one| one.is_pinned.is_none()));
}

#[test]
fn scaling_that_only_tries_owns_no_replicas() {
    let of = |patch: Value| {
        let object = manifest(patch);
        picture(&PictureInput { object: &object, kube: &KubeState::default(), planned: None })
    };
    let expected = Picture { fleet: "orders".into(), temporal_namespace: "default".into(), ..Picture::default() };
    assert_eq!(of(json!({})), expected);
    assert_eq!(of(json!({"scaling": {}})), Picture { is_scaled: true, ..expected.clone() });
    assert_eq!(of(json!({"scaling": {"dryRun": true}})), expected);
}
