use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::json;

use super::*;
use crate::build_id::{go_json, template_hash};

const OURS: &str = "latest-8bbc";

/// The peer's own vector: its hash is 8bbc, and 6df8 with five collisions.
fn template() -> Value {
    json!({"metadata": {"name": "test-pod"}, "spec": {"containers": [{"name": "main", "image": "nginx:latest"}]}})
}

fn hash() -> String {
    template_hash(&go_json(&template()).unwrap())
}

/// The hash of some other template.
fn other_hash() -> String {
    "0".repeat(64)
}

fn child(build_id: &str, template_hash: Option<String>) -> ChildState {
    ChildState { build_id: Some(build_id.into()), template_hash, ..ChildState::default() }
}

fn status(build_id: &str, generation: i64, reason: &str) -> WorkerDeploymentStatus {
    let mut status = WorkerDeploymentStatus::default();
    status.target_version.version.build_id = build_id.into();
    status.conditions = vec![Condition {
        type_: "Ready".into(),
        status: "True".into(),
        reason: reason.into(),
        message: String::new(),
        observed_generation: Some(generation),
        last_transition_time: Time(jiff::Timestamp::UNIX_EPOCH),
    }];
    status
}

/// What is chosen at generation 3, and the name of its origin.
fn chosen(status: Option<&WorkerDeploymentStatus>, children: &[ChildState]) -> (String, &'static str) {
    let (template, hash) = (template(), hash());
    let from = Candidates { template: &template, hash: &hash, generation: 3, status, children };
    let Chosen { build_id, origin } = choose(&from).unwrap();
    let name = match origin {
        Origin::Computed => "computed",
        Origin::Status { .. } => "status",
        Origin::SameTemplate { .. } => "same template",
        Origin::Collision { .. } => "collision",
    };
    assert_eq!(origin.why().is_some(), origin != Origin::Computed);
    (build_id, name)
}

#[test]
fn the_status_wins_for_the_generation_that_it_was_computed_for() {
    let told = |build_id: &str, generation, reason: &str| chosen(Some(&status(build_id, generation, reason)), &[]);
    for reason in ["RolloutComplete", "Ramping", "WaitingForPromotion", "WaitingForPollers", "ConnectionHealthy"] {
        assert_eq!(told("latest-7f96", 3, reason), ("latest-7f96".into(), "status"), "{reason}");
    }
    assert_eq!(told("latest-7f96", 2, "RolloutComplete"), (OURS.into(), "computed"), "of an older spec");
    assert_eq!(told("", 3, "RolloutComplete"), (OURS.into(), "computed"));
    assert_eq!(told(OURS, 3, "RolloutComplete"), (OURS.into(), "computed"));
    assert_eq!(chosen(None, &[]), (OURS.into(), "computed"));
}

#[test]
fn a_status_that_only_says_what_blocks_has_the_target_of_an_older_spec() {
    for reason in ["ConnectionNotFound", "InvalidSpec", "AuthSecretInvalid", "TemporalStateFetchFailed"] {
        assert_eq!(chosen(Some(&status("latest-7f96", 3, reason)), &[]), (OURS.into(), "computed"), "{reason}");
    }
}

#[test]
fn a_version_of_this_very_template_is_the_target_whatever_its_hash() {
    let children = [child("latest-7f96", Some(hash()))];
    assert_eq!(chosen(None, &children), ("latest-7f96".into(), "same template"));
    for no_hash_of_this_image in ["v1-7f96", "latest-7f9", "latest-zzzz", "mine"] {
        let children = [child(no_hash_of_this_image, Some(hash()))];
        assert_eq!(chosen(None, &children), (OURS.into(), "computed"), "{no_hash_of_this_image}");
    }
    let both = [child("latest-7f96", Some(hash())), child(OURS, Some(hash()))];
    assert_eq!(chosen(None, &both), (OURS.into(), "computed"));
}

#[test]
fn a_version_of_another_template_keeps_its_build_id_and_the_new_one_gets_another() {
    let holder = || child(OURS, Some(other_hash()));
    let past = |count| build_id::compute_past(&template(), count).unwrap();
    assert_eq!(past(5), "latest-6df8", "the peer's vector");
    assert_eq!(chosen(None, &[holder()]), (past(1), "collision"));
    let taken = [holder(), child(&past(1), Some(other_hash())), child(&past(2), None)];
    assert_eq!(chosen(None, &taken), (past(3), "collision"));
    // Once it is there it is found again, also when the one that was in its way is gone.
    assert_eq!(chosen(None, &[holder(), child(&past(1), Some(hash()))]), (past(1), "same template"));
    assert_eq!(chosen(None, &[child(&past(1), Some(hash()))]), (past(1), "same template"));
    // The peer's own status had it for the old template's version, as it did not look.
    assert_eq!(chosen(Some(&status(OURS, 3, "RolloutComplete")), &[holder()]), (past(1), "collision"));
}

#[test]
fn a_version_that_does_not_say_its_template_is_no_collision() {
    for hash in [None, Some(String::new()), Some("by hand".to_owned()), Some("0".repeat(63))] {
        assert_eq!(chosen(None, &[child(OURS, hash)]), (OURS.into(), "computed"));
    }
}

#[test]
fn pods_keep_the_hash_that_they_have_unless_their_template_changes_in_place() {
    let (own, old) = (hash(), other_hash());
    let with = |template_hash: Option<&str>, made_elsewhere| ChildState {
        template_hash: template_hash.map(str::to_owned),
        made_elsewhere,
        ..ChildState::default()
    };
    let kept = |child: &ChildState, in_place| kept_hash(Some(child), &own, in_place);
    assert_eq!(kept_hash(None, &own, false), Some(own.clone()));
    assert_eq!(kept(&with(Some(&old), false), false), Some(old.clone()), "computed by another release");
    assert_eq!(kept(&with(Some(&old), true), true), Some(own.clone()));
    assert_eq!(kept(&with(None, true), false), None, "of a release that had none");
    assert_eq!(kept(&with(None, false), false), Some(own.clone()), "somebody took it away");
    assert_eq!(kept(&with(Some("by hand"), false), false), Some(own.clone()));
}
