//! The status and its conditions.

use std::time::Duration;

use operator_core::api::ConditionType;
use operator_core::observed::{
    FailureClass, Observation, PodLoad, RateLimitSource, ReadFailure, TemporalFailure, Unreadable,
};
use operator_core::plan::Plan;
use operator_core::scaling::{Decision, Limit, Outcome, Report};
use operator_core::status::{QUIET_WRITE_INTERVAL, STALE_GRACE, must_write};
use serde_json::{Value, json};

use crate::scene::*;

#[test]
fn the_status_has_the_whole_calculation() {
    insta::assert_yaml_snapshot!(Scene::new(json!({})).status().scaling);
}

#[test]
fn a_decision_without_limits_and_with_fresh_readings_is_active_and_met() {
    let scene = Scene::new(json!({}));
    let conditions = [
        ConditionType::ScalingActive,
        ConditionType::ScalingLimited,
        ConditionType::MetricsStale,
        ConditionType::SLOMet,
        ConditionType::Stalled,
    ];
    insta::assert_yaml_snapshot!(conditions.map(|type_| scene.condition(type_)));
}

#[test]
fn every_limit_has_a_condition_with_numbers_and_a_remedy() {
    let rate = |source| Limit::RateLimited { lane: lane(), per_second: 10.0, source };
    let stalled = |pods, why: Option<&str>| Limit::Stalled {
        pods,
        since: Duration::from_secs(250),
        why: why.map(ToOwned::to_owned),
    };
    let limits = [
        Limit::Maximum { needed: 14 },
        rate(Some(RateLimitSource::Worker)),
        rate(Some(RateLimitSource::Api)),
        rate(Some(RateLimitSource::System)),
        rate(None),
        Limit::Ineffective { retry_in: Duration::from_secs(300) },
        Limit::Ramp,
        Limit::Paused,
        stalled(2, Some("ImagePullBackOff")),
        stalled(1, None),
    ];
    let said = limits.map(|limit| {
        let scene = Scene::limited(limit);
        let found = [ConditionType::ScalingLimited, ConditionType::Stalled]
            .map(|type_| format!("{type_} {}", scene.condition(type_)));
        found.into_iter().find(|said| said.contains(" True ")).unwrap_or_default()
    });
    insta::assert_yaml_snapshot!(said);
}

#[test]
fn what_is_stale_is_said_with_its_cause_once_it_lasts() {
    let mut scene = Scene::new(json!({}));
    scene.kube.pods[1].load = Observation::Stale { value: PodLoad::default(), age: Duration::from_secs(41) };
    scene.kube.pods[1].unreadable =
        Some(Unreadable::Failed { at: ":8080/metrics".into(), failure: ReadFailure::ConnectTimeout });
    scene.stale_for = Some(STALE_GRACE / 2);
    assert_eq!(scene.condition(ConditionType::MetricsStale), "", "a reading that is late says nothing yet");
    scene.stale_for = Some(STALE_GRACE);
    let workers = scene.condition(ConditionType::MetricsStale);
    scene.temporal.lanes.insert(lane(), Observation::Unknown);
    scene.temporal.failure = Some(TemporalFailure { class: FailureClass::Unreachable, message: "refused".into() });
    let both = scene.condition(ConditionType::MetricsStale);
    scene.kube = cluster();
    let server = scene.condition(ConditionType::MetricsStale);
    assert!(scene.condition(ConditionType::ScalingActive).starts_with("False SignalsStale"));
    insta::assert_yaml_snapshot!([workers, both, server]);
}

#[test]
fn pods_that_start_or_end_and_pods_that_are_not_asked_are_not_stale() {
    let stale = |scene: &Scene| {
        let plan = Plan::default();
        operator_core::status::staleness(&scene.fleet, &plan, &scene.kube, &scene.temporal).any()
    };
    let mut scene = Scene::new(json!({}));
    scene.kube.pods[1].load = Observation::Unknown;
    assert!(stale(&scene));
    scene.kube.pods[1].ready = false;
    assert!(!stale(&scene), "it starts");
    (scene.kube.pods[1].ready, scene.kube.pods[1].terminating) = (true, true);
    assert!(!stale(&scene), "it ends");
    scene.kube.pods[1].terminating = false;
    scene.fleet = fleet(json!({"mode": "ServerOnly"}));
    assert!(!stale(&scene), "no pod is asked");
}

#[test]
fn a_missed_target_is_met_again_only_when_well_below() {
    let missed = Scene::late(0.06).status();
    let after = |share: f64| {
        let scene = Scene { previous: missed.clone(), ..Scene::late(share) };
        scene.condition(ConditionType::SLOMet)
    };
    assert!(Scene::late(0.04).condition(ConditionType::SLOMet).starts_with("True WithinTarget"));
    assert!(after(0.04).starts_with("False SLOMissed"), "{}", after(0.04));
    assert!(after(0.02).starts_with("True WithinTarget"), "{}", after(0.02));
    let unknown = Scene { decision: Decision { report: Report::default(), ..decision() }, ..Scene::new(json!({})) };
    insta::assert_yaml_snapshot!([after(0.04), after(0.02), unknown.condition(ConditionType::SLOMet)]);
}

#[test]
fn a_dry_run_and_a_pause_are_said() {
    let active = |options: Value| Scene::new(options).condition(ConditionType::ScalingActive);
    assert!(active(json!({"dryRun": true})).starts_with("False DryRun: spec.scaling.dryRun is set"));
    assert!(active(json!({"pause": "All"})).starts_with("False Paused: spec.scaling.pause is All"));
    assert!(active(json!({"pause": "Down"})).starts_with("True SignalsFresh"));
}

#[test]
fn a_fleet_without_scaling_has_none_of_it() {
    let mut scene = Scene::new(json!({}));
    scene.previous = scene.status();
    scene.fleet.scaling = None;
    let status = scene.status();
    assert_eq!(status.scaling, None);
    for type_ in [ConditionType::ScalingLimited, ConditionType::MetricsStale, ConditionType::SLOMet] {
        assert_eq!(said(&status, type_), "", "{type_}");
    }
    assert!(said(&status, ConditionType::ScalingActive).starts_with("False ScalingDisabled"));
}

#[test]
fn ages_are_never_worth_a_write_and_numbers_only_after_a_while() {
    let mut scene = Scene::limited(Limit::Stalled { pods: 2, since: Duration::from_secs(130), why: None });
    let old = scene.status();
    scene.decision.report.lanes[0].metrics_age = Some(Duration::from_secs(4));
    assert_ne!(scene.status(), old);
    assert!(!must_write(&old, &scene.status(), Duration::from_secs(9999)), "an age");
    scene.decision.report.limits = vec![Limit::Stalled { pods: 2, since: Duration::from_secs(135), why: None }];
    scene.decision.report.slo = None;
    assert!(must_write(&old, &scene.status(), Duration::ZERO), "the target is no longer known to be met");
    scene.decision.report.slo = decision().report.slo;
    scene.decision.report.lanes[0].in_flight = 41;
    assert!(!must_write(&old, &scene.status(), QUIET_WRITE_INTERVAL / 2), "numbers, in conditions too");
    assert!(must_write(&old, &scene.status(), QUIET_WRITE_INTERVAL));
    scene.decision.desired += 1;
    assert!(must_write(&old, &scene.status(), Duration::ZERO), "a decision");
}

#[test]
fn the_next_decrease_keeps_its_moment_while_it_comes_nearer() {
    let mut scene = Scene::new(json!({}));
    scene.previous = scene.status();
    let at = |scene: &Scene| scene.status().scaling.unwrap().next_down_at.unwrap().0;
    let first = at(&scene);
    scene.now += Duration::from_millis(5_300);
    scene.decision.report.next_down_in = Some(Duration::from_millis(37_900));
    assert_eq!(at(&scene), first);
    scene.decision.report.next_down_in = Some(Duration::from_secs(60));
    assert!(at(&scene) > first, "it was put off");
}

#[test]
fn a_fleet_whose_pods_restart_again_and_again_is_limited_by_that() {
    let mut scene = Scene::new(json!({}));
    scene.decision.outcome = Outcome::Degraded;
    assert_eq!(scene.condition(ConditionType::ScalingLimited), "True Degraded: 22 replicas: so it is.");
}
