//! The status of a fleet.

use std::collections::BTreeMap;
use std::time::Duration;

use operator_core::api::{ConditionType, Reason, WorkerDeploymentStatus};
use operator_core::observed::{FailureClass, Observation, PollingDegraded, TemporalFailure, TemporalState, Waiting};
use operator_core::status::{Blocked, StatusInput, must_write, says_more_already};
use serde_json::json;

use crate::fixtures::*;

#[test]
fn a_connection_whose_readings_come_late_says_so_with_the_remedy() {
    let fleet = fleet(json!({"runtime": runtime(), "scaling": {}}));
    let kube = cluster(&fleet, 1, 0);
    let health = |factor: f64| {
        let degraded = Some(PollingDegraded { factor });
        let status = status(&fleet, &kube, &TemporalState { degraded, ..server(&fleet, 0) }, None);
        let condition = status.condition(ConditionType::ConnectionHealthy).unwrap();
        assert_eq!(words(&status, ConditionType::ConnectionHealthy), says("True", Reason::PollingDegraded));
        condition.message.clone()
    };
    let message = health(2.6);
    assert!(message.contains("up to 4 times") && message.contains("--temporal-calls-per-second"), "{message}");
    assert_eq!(message, health(3.9), "what changes a little is not written anew");
}

#[test]
fn each_situation_has_its_conditions() {
    let fleet = fleet(json!({"runtime": runtime(), "scaling": {}}));
    let (kube, temporal) = (cluster(&fleet, 1, 0), server(&fleet, 0));
    let current = status(&fleet, &kube, &temporal, None);
    assert_eq!(words(&current, ConditionType::Ready), says("True", Reason::RolloutComplete));
    assert_eq!(words(&current, ConditionType::Progressing), says("False", Reason::RolloutComplete));
    assert_eq!(words(&current, ConditionType::ConnectionHealthy), says("True", Reason::ConnectionHealthy));
    assert_eq!(current.observed_generation, Some(3));

    let unread = status(&fleet, &kube, &TemporalState::default(), None);
    assert_eq!(words(&unread, ConditionType::Ready), says("Unknown", Reason::PollerStatusUnknown));

    let unseen = TemporalState { deployment: known(None), ..TemporalState::default() };
    let waiting = status(&fleet, &kube, &unseen, None);
    assert_eq!(words(&waiting, ConditionType::Ready), says("False", Reason::WaitingForPollers));
    assert_eq!(words(&waiting, ConditionType::Progressing), says("True", Reason::WaitingForPollers));

    let blocked = Blocked { reason: Reason::ConnectionNotFound, message: "gone".into() };
    let blocked = status(&fleet, &kube, &temporal, Some(&blocked));
    assert_eq!(words(&blocked, ConditionType::Ready), says("False", Reason::ConnectionNotFound));
    assert_eq!(words(&blocked, ConditionType::Stalled), says("True", Reason::ConnectionNotFound));
}

#[test]
fn pods_that_can_not_start_are_named_with_their_image() {
    let fleet = fleet(json!({"runtime": runtime(), "scaling": {}}));
    let mut kube = cluster(&fleet, 1, 0);
    kube.children[0].ready_replicas = 0;
    kube.pods[0].ready = false;
    kube.pods[0].waiting = Some(Waiting {
        container: "w".into(),
        image: "nowhere/x:1".into(),
        reason: "ImagePullBackOff".into(),
        message: "not found".into(),
        last_words: None,
    });
    let status = status(&fleet, &kube, &server(&fleet, 0), None);
    assert_eq!(words(&status, ConditionType::Stalled), says("True", Reason::PodStartFailed));
    let message = &status.condition(ConditionType::Ready).unwrap().message;
    assert!(["pod-0", "container w", "nowhere/x:1", "ImagePullBackOff"].iter().all(|word| message.contains(word)));
}

#[test]
fn what_a_crashing_container_said_last_is_in_the_condition() {
    let fleet = fleet(json!({"runtime": runtime(), "scaling": {}}));
    let mut kube = cluster(&fleet, 1, 0);
    kube.children[0].ready_replicas = 0;
    kube.pods[0].waiting = Some(Waiting {
        container: "temporal-worker-runtime".into(),
        image: "runtime:v9".into(),
        reason: "CrashLoopBackOff".into(),
        message: "back-off".into(),
        last_words: Some("handlers[y].exec.command[0]: \"/y\" is not there".into()),
    });
    let status = status(&fleet, &kube, &server(&fleet, 0), None);
    assert_eq!(words(&status, ConditionType::Stalled), says("True", Reason::PodCrashLooping));
    let message = &status.condition(ConditionType::Ready).unwrap().message;
    assert!(message.ends_with("It said: handlers[y].exec.command[0]: \"/y\" is not there"), "{message}");
}

#[test]
fn numbers_alone_are_written_at_most_every_thirty_seconds() {
    let fleet = fleet(json!({"runtime": runtime(), "scaling": {"minReplicas": 1}}));
    let kube = cluster(&fleet, 1, 1);
    let quiet = status(&fleet, &kube, &server(&fleet, 0), None);
    let busier = status(&fleet, &kube, &server(&fleet, 2), None);
    assert_ne!(quiet, busier);
    assert!(!must_write(&quiet, &busier, Duration::from_secs(29)));
    assert!(must_write(&quiet, &busier, Duration::from_secs(30)));
    assert!(!must_write(&quiet, &quiet, Duration::from_secs(999)), "at rest nothing is written");
    let unread = status(&fleet, &kube, &TemporalState::default(), None);
    assert!(must_write(&quiet, &unread, Duration::ZERO), "a condition changed");
}

#[test]
fn until_the_server_is_heard_of_a_status_of_this_generation_says_more_than_a_new_one() {
    let fleet = fleet(json!({"runtime": runtime()}));
    let kube = cluster(&fleet, 1, 0);
    let says_more = |temporal: &TemporalState, generation: Option<i64>, blocked: Option<&Blocked>| {
        let plan = plan_of(&fleet, &kube, temporal);
        let previous = WorkerDeploymentStatus { observed_generation: generation, ..Default::default() };
        says_more_already(&StatusInput {
            generation: 3,
            previous: &previous,
            blocked,
            planned: Some((&fleet, &plan)),
            kube: &kube,
            temporal,
            scaled_to: &BTreeMap::new(),
            annotations: &BTreeMap::new(),
            order: Default::default(),
            stale_for: None,
            now: NOW,
        })
    };
    let unheard = TemporalState { deployment: Observation::Unknown, ..TemporalState::default() };
    assert!(says_more(&unheard, Some(3), None));
    assert!(!says_more(&unheard, Some(2), None), "the user changed something meanwhile");
    assert!(!says_more(&unheard, None, None), "it has no status yet");
    assert!(!says_more(&server(&fleet, 0), Some(3), None), "the server answered");
    let failure = TemporalFailure { class: FailureClass::Unreachable, message: "no answer".into() };
    let silent = TemporalState { failure: Some(failure), ..unheard.clone() };
    assert!(!says_more(&silent, Some(3), None), "its silence is news");
    let blocked = Blocked { reason: Reason::ConnectionNotFound, message: String::new() };
    assert!(!says_more(&unheard, Some(3), Some(&blocked)));
}

#[test]
fn a_status_of_the_go_controller_is_of_the_generation_that_its_conditions_say() {
    let fleet = fleet(json!({}));
    let kube = cluster(&fleet, 1, 0);
    let unheard = TemporalState { deployment: Observation::Unknown, ..TemporalState::default() };
    let says_more = |generation: i64| {
        let plan = plan_of(&fleet, &kube, &unheard);
        let mut previous = status(&fleet, &kube, &server(&fleet, 0), None);
        previous.observed_generation = None;
        previous.conditions.iter_mut().for_each(|condition| condition.observed_generation = Some(generation));
        let input = StatusInput {
            generation: 3,
            previous: &previous,
            blocked: None,
            planned: Some((&fleet, &plan)),
            kube: &kube,
            temporal: &unheard,
            scaled_to: &BTreeMap::new(),
            annotations: &BTreeMap::new(),
            order: Default::default(),
            stale_for: None,
            now: NOW,
        };
        says_more_already(&input)
    };
    assert!(says_more(3), "nothing of it is known better yet");
    assert!(!says_more(2));
}
