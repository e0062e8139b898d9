//! What is said once.

use std::time::Duration;

use operator_core::api::{ConditionType, WorkerDeploymentStatus};
use operator_core::events::{EventData, SLO_MISSED_INTERVAL, scaling_changed};
use operator_core::fleet::Fleet;
use operator_core::observed::Observation;
use operator_core::scaling::{Limit, State};
use operator_core::status::STALE_GRACE;
use serde_json::json;

use crate::scene::*;

fn words(events: &[EventData]) -> Vec<&str> {
    events.iter().map(|event| event.reason).collect()
}

#[test]
fn a_condition_that_turns_is_said_once() {
    let good = Scene::new(json!({})).status();
    let turned = |scene: Scene| {
        let bad = scene.status();
        assert!(scaling_changed(&bad, &bad, None).is_empty(), "said twice");
        assert!(scaling_changed(&bad, &good, None).is_empty(), "the way back is said by the condition");
        scaling_changed(&good, &bad, None)
    };
    assert_eq!(words(&turned(Scene::limited(Limit::Maximum { needed: 30 }))), ["ScalingLimited"]);
    let stalled = turned(Scene::limited(Limit::Stalled { pods: 1, since: Duration::from_secs(130), why: None }));
    assert_eq!(words(&stalled), ["Stalled"]);
    assert!(stalled[0].note.contains("2m10s"), "{}", stalled[0].note);
    let mut stale = Scene::new(json!({}));
    stale.stale_for = Some(STALE_GRACE);
    stale.kube.pods[0].load = Observation::Unknown;
    assert_eq!(words(&turned(stale)), ["MetricsStale"]);
    assert_eq!(words(&turned(Scene::late(0.2))), ["SLOMissed"]);
}

#[test]
fn a_missed_target_is_said_at_most_every_fifteen_minutes() {
    let (good, bad) = (Scene::new(json!({})).status(), Scene::late(0.2).status());
    let since = |time| words(&scaling_changed(&good, &bad, Some(time))).len();
    assert_eq!(since(SLO_MISSED_INTERVAL - Duration::from_secs(1)), 0);
    assert_eq!(since(SLO_MISSED_INTERVAL), 1);
}

#[test]
fn a_dry_run_says_what_it_would_have_done() {
    let mut scene = Scene::new(json!({"dryRun": true}));
    let first = scene.status();
    let events = scaling_changed(&WorkerDeploymentStatus::default(), &first, None);
    assert_eq!(words(&events), ["DryRunScaledUp"]);
    assert_eq!(events[0].note, "would be 4 → 22: 22 replicas: so it is.");
    assert!(scaling_changed(&first, &first, None).is_empty());
    scene.decision.desired = 0;
    assert_eq!(words(&scaling_changed(&first, &scene.status(), None)), ["DryRunScaledToZero"]);
    let same = Scene { fleet: fleet(json!({})), ..scene };
    assert!(scaling_changed(&first, &same.status(), None).is_empty(), "a real one is said when it is carried out");
}

#[test]
fn tasks_that_outlast_the_grace_period_of_an_sdks_worker_are_said_with_the_remedy() {
    // A hundred tasks that took so many seconds each.
    let seen = |seconds: f64| -> State {
        let lesson = json!({"service": {"busy": 100.0 * seconds, "ended": 100.0}});
        serde_json::from_value(json!({"lanes": [[lane(), lesson]]})).unwrap()
    };
    let status = |seconds| Scene { scaling: seen(seconds), ..Scene::new(json!({})) }.status();
    let (short, long) = (status(20.0), status(40.0));
    assert_eq!(said(&short, ConditionType::GracePeriodTooShort), "");
    let message = said(&long, ConditionType::GracePeriodTooShort);
    assert!(message.starts_with("True TasksOutlastGracePeriod: "), "{message}");
    assert!(message.contains("the 30 s") && message.contains("terminationGracePeriodSeconds"), "{message}");
    assert_eq!(words(&scaling_changed(&short, &long, None)), ["GracePeriodTooShort"]);
    assert!(scaling_changed(&long, &long, None).is_empty(), "said twice");
    let learned = Scene { scaling: seen(400.0), ..Scene::new(json!({})) };
    let patient = Scene { fleet: Fleet { grace: Duration::from_secs(600), ..learned.fleet.clone() }, ..learned };
    assert_eq!(said(&patient.status(), ConditionType::GracePeriodTooShort), "");
}
