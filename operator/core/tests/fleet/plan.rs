//! The plan of a fleet.

use std::collections::BTreeMap;
use std::time::Duration;

use operator_core::api::{ConditionType, Reason};
use operator_core::fleet::Fleet;
use operator_core::observed::{FailureClass, KubeState, LaneStats, Observation, TemporalFailure};
use operator_core::plan::{Action, PlanInput, VICTIM_COST, object_key, plan};
use operator_core::scaling::State;
use serde_json::json;

use crate::fixtures::*;

#[test]
fn an_idle_fleet_that_stands_as_applied_needs_no_write() {
    let fleet = fleet(json!({"runtime": runtime(), "scaling": {}}));
    let (kube, temporal) = (cluster(&fleet, 0, 0), server(&fleet, 0));
    let first = plan_of(&fleet, &kube, &temporal);
    let digest = |action: &Action| match action {
        Action::Apply { object, digest } => Some((object_key(object), digest.clone())),
        _ => None,
    };
    let applied: BTreeMap<_, _> = first.actions.iter().filter_map(digest).collect();
    assert_eq!(applied.len(), 3, "two ConfigMaps and the Deployment");
    let scaling = State::default();
    let again = plan(&PlanInput { applied: &applied, ..plan_input(&fleet, &kube, &temporal, &scaling) });
    assert_eq!(again.actions, []);
}

#[test]
fn a_backlog_at_zero_orders_the_pods_for_it_on_the_version_that_was_seen() {
    let fleet = fleet(json!({"runtime": runtime(), "scaling": {}}));
    let plan = plan_of(&fleet, &cluster(&fleet, 0, 0), &server(&fleet, 9));
    assert_eq!(scales(&plan), [(0, 3)]);
    let based_on = plan.actions.iter().find_map(|action| match action {
        Action::Scale { resource_version, .. } => Some(resource_version.as_str()),
        _ => None,
    });
    assert_eq!(based_on, Some("77"));
}

#[test]
fn a_server_that_is_away_changes_nothing_but_conditions() {
    let fleet = fleet(json!({"runtime": runtime(), "scaling": {}}));
    let kube = cluster(&fleet, 3, 0);
    let mut temporal = server(&fleet, 0);
    temporal.lanes.insert(lane(), Observation::Stale { value: LaneStats::default(), age: Duration::from_secs(90) });
    temporal.failure = Some(TemporalFailure { class: FailureClass::Unreachable, message: "refused".into() });
    assert_eq!(scales(&plan_of(&fleet, &kube, &temporal)), []);
    let status = status(&fleet, &kube, &temporal, None);
    assert_eq!(words(&status, ConditionType::Ready), says("False", Reason::TemporalClientCreationFailed));
    assert_eq!(words(&status, ConditionType::ScalingActive), says("False", Reason::SignalsStale));
    assert!(status.condition(ConditionType::Stalled).is_none(), "it heals alone");
}

#[test]
fn spec_replicas_is_written_by_scale_and_no_replicas_means_hands_off() {
    let fixed = fleet(json!({"replicas": 3}));
    assert_eq!(scales(&plan_of(&fixed, &cluster(&fixed, 1, 0), &server(&fixed, 0))), [(1, 3)]);
    let free = fleet(json!({}));
    assert_eq!(scales(&plan_of(&free, &cluster(&free, 7, 0), &server(&free, 0))), [], "7 stays 7");
}

#[test]
fn a_pod_without_a_running_container_holds_nothing_up() {
    let fleet = fleet(json!({"runtime": runtime(), "scaling": {"maxReplicas": 1}}));
    let mut kube = cluster(&fleet, 2, 0);
    kube.pods[1].ready = false;
    kube.pods[1].load = Observation::Unknown;
    assert_eq!(scales(&plan_of(&fleet, &kube, &server(&fleet, 0))), [], "its load is not known");
    kube.pods[1].may_run = false;
    let plan = plan_of(&fleet, &kube, &server(&fleet, 0));
    let mark = Action::SetDeletionCost { pod: "pod-1".into(), cost: Some(VICTIM_COST) };
    assert!(plan.actions.contains(&mark) && scales(&plan).is_empty(), "first it is marked: {:?}", plan.actions);
    kube.pods[1].deletion_cost = VICTIM_COST;
    assert_eq!(scales(&plan_of(&fleet, &kube, &server(&fleet, 0))), [(2, 1)]);
}

/// What was learned of tasks of `seconds` each, of which many ended.
fn learned(fleet: &Fleet, seconds: f64) -> State {
    let tail = json!({"ended": 500.0, "maybe_longer": 0.0, "longer": 0.0});
    let lesson = json!({"slots": 4, "service": {"busy": 500.0 * seconds, "ended": 500.0}, "tail": tail});
    let lanes = json!([[lane(), lesson]]);
    serde_json::from_value(json!({"template": fleet.child_name, "proven": true, "lanes": lanes})).unwrap()
}

#[test]
fn a_victim_goes_only_once_it_was_read_after_it_was_marked_unless_all_tasks_end_in_time() {
    let fleet = fleet(json!({"runtime": runtime(), "scaling": {"maxReplicas": 1}}));
    let (mut kube, temporal) = (cluster(&fleet, 2, 1), server(&fleet, 0));
    kube.pods[1].deletion_cost = VICTIM_COST;
    let scales_after = |age: u64, state: &State| {
        let mut kube = kube.clone();
        let load = kube.pods[1].load.known().unwrap().clone();
        kube.pods[1].load = Observation::Known { value: load, age: Duration::from_millis(age) };
        let since_marked = Some(Duration::from_millis(500));
        scales(&plan(&PlanInput { since_marked, ..plan_input(&fleet, &kube, &temporal, state) }))
    };
    for state in [State::default(), learned(&fleet, 60.0)] {
        assert_eq!(scales_after(1_800, &state), [], "it may have got a task since");
        assert_eq!(scales_after(40, &state), [(2, 1)]);
    }
    assert_eq!(scales_after(1_800, &learned(&fleet, 0.5)), [(2, 1)], "what it may have got ends before it is killed");
}

#[test]
fn a_victim_that_may_get_a_long_task_is_cordoned_first_and_another_goes_at_once() {
    let fleet = fleet(json!({"runtime": runtime(), "scaling": {"maxReplicas": 1}}));
    let (mut kube, temporal) = (cluster(&fleet, 2, 1), server(&fleet, 0));
    kube.pods[1].deletion_cost = VICTIM_COST;
    kube.pods.iter_mut().for_each(|pod| pod.may_be_cordoned = true);
    let planned = |kube: &KubeState, seconds: f64| {
        let plan = plan(&plan_input(&fleet, kube, &temporal, &learned(&fleet, seconds)));
        (scales(&plan), plan.cordon.into_iter().collect::<Vec<_>>())
    };
    assert_eq!(planned(&kube, 60.0), (vec![], vec!["pod-1".to_owned()]));
    assert_eq!(planned(&kube, 0.5), (vec![(2, 1)], vec![]));
    kube.pods[1].cordoned = true;
    assert_eq!(planned(&kube, 60.0), (vec![(2, 1)], vec!["pod-1".to_owned()]), "no task can reach it");
}

#[test]
fn a_mark_that_is_no_longer_meant_is_taken_away() {
    let fleet = fleet(json!({"runtime": runtime(), "scaling": {}}));
    let mut kube = cluster(&fleet, 2, 2);
    kube.pods[1].deletion_cost = VICTIM_COST;
    let plan = plan_of(&fleet, &kube, &server(&fleet, 0));
    assert!(plan.actions.contains(&Action::SetDeletionCost { pod: "pod-1".into(), cost: None }), "{:?}", plan.actions);
}

#[test]
fn a_new_version_is_not_sized_by_the_backlog_of_the_current_one() {
    let fleet = fleet(json!({"runtime": runtime(), "scaling": {}}));
    let mut temporal = server(&fleet, 500);
    if let Observation::Known { value: Some(info), .. } = &mut temporal.deployment {
        info.current_build_id = Some("older".into());
        info.manager_identity = "me".into();
    }
    let plan = plan_of(&fleet, &cluster(&fleet, 1, 0), &temporal);
    assert_eq!(scales(&plan), []);
    assert!(plan.actions.iter().any(|action| matches!(action, Action::SetCurrent { .. })), "{:?}", plan.actions);
}

#[test]
fn a_deployment_of_somebody_else_is_never_applied_over() {
    let fleet = fleet(json!({"runtime": runtime()}));
    let kube = KubeState { foreign_deployments: [fleet.child_name.clone()].into(), ..KubeState::default() };
    let plan = plan_of(&fleet, &kube, &server(&fleet, 0));
    assert_eq!(plan.actions, []);
    let status = status(&fleet, &kube, &server(&fleet, 0), None);
    let ready = status.condition(ConditionType::Ready).unwrap();
    assert!(ready.message.contains(&fleet.child_name) && ready.message.contains("belongs to somebody else"));
}
