//! The plan of a fleet with several versions.

use std::collections::BTreeMap;
use std::time::Duration;

use operator_core::api::{ConditionType, Reason, VersionStatus as Word};
use operator_core::fleet::Fleet;
use operator_core::observed::{
    ChildState, DeploymentInfo, KubeState, LaneStats, Observation, PodState, Ramp, TemporalState, VersionInfo,
    VersionStatus, VersionSummary, Waiting,
};
use operator_core::plan::{Action, Plan};
use operator_core::rollout::{Hold, Stage};
use operator_core::scaling::State;
use serde_json::{Value, json};

use crate::fixtures::*;

const OLD: &str = "orders-old";

/// A fleet whose current version is "old", with `pods` pods, and whose target has one.
struct World {
    fleet: Fleet,
    kube: KubeState,
    temporal: TemporalState,
}

impl World {
    fn new(patch: Value, pods: u32) -> Self {
        let fleet = fleet(patch);
        let mut kube = cluster(&fleet, 1, 0);
        let temporal = server(&fleet, 0);
        let mut world = Self { kube: KubeState::default(), temporal, fleet };
        world.kube = std::mem::take(&mut kube);
        world.add_child("old", pods);
        let target = world.fleet.build_id.clone().unwrap();
        world.say("old", VersionStatus::Current, 0);
        world.say(&target, VersionStatus::Inactive, 0);
        let info = world.info();
        info.current_build_id = Some("old".into());
        info.manager_identity = "me".into();
        world
    }

    fn info(&mut self) -> &mut DeploymentInfo {
        match &mut self.temporal.deployment {
            Observation::Known { value: Some(info), .. } => info,
            other => panic!("{other:?}"),
        }
    }

    fn add_child(&mut self, build_id: &str, pods: u32) {
        let template = self.kube.pods.first().cloned().unwrap_or_default();
        let pod = |index| PodState {
            name: format!("{build_id}-{index}"),
            build_id: Some(build_id.into()),
            ..template.clone()
        };
        self.kube.pods.extend((0..pods).map(pod));
        self.kube.children.push(ChildState {
            name: format!("orders-{build_id}"),
            build_id: Some(build_id.into()),
            spec_replicas: pods,
            ready_replicas: pods,
            replicas: pods,
            resource_version: "88".into(),
            ..ChildState::default()
        });
    }

    /// What the server says of a version, lately.
    fn say(&mut self, build_id: &str, status: VersionStatus, backlog: u64) {
        let stats = BTreeMap::from([(lane(), LaneStats { backlog, ..LaneStats::default() })]);
        let info = VersionInfo { status, lanes: [lane()].into(), stats, ..VersionInfo::default() };
        self.info().versions.insert(build_id.into(), known(Some(info)));
    }

    fn ramp(&mut self, percent: f32) {
        let build_id = self.fleet.build_id.clone().unwrap();
        self.say(&build_id, VersionStatus::Ramping, 0);
        self.info().ramp = Some(Ramp { build_id, percent, changed_at: Some(NOW), ..Ramp::default() });
    }

    fn plan(&self) -> Plan {
        plan_of(&self.fleet, &self.kube, &self.temporal)
    }

    fn scales(&self) -> Vec<(String, u32, u32)> {
        let scale = |action: Action| match action {
            Action::Scale { child, from, to, .. } => Some((child, from, to)),
            _ => None,
        };
        self.plan().actions.into_iter().filter_map(scale).collect()
    }

    fn target_name(&self) -> String {
        self.fleet.child_name.clone()
    }
}

fn scaled(strategy: Value) -> Value {
    json!({"runtime": runtime(), "scaling": {"minReplicas": 2, "maxReplicas": 20}, "rollout": strategy})
}

fn progressive() -> Value {
    let step = |percent| json!({"rampPercentage": percent, "pauseDuration": "30s"});
    json!({"strategy": "Progressive", "steps": [step(10), step(50)]})
}

fn routing(plan: &Plan) -> Vec<&Action> {
    let routes = |action: &&Action| {
        !matches!(
            action,
            Action::Apply { .. } | Action::Scale { .. } | Action::SetDeletionCost { .. } | Action::ShowCordon { .. }
        )
    };
    plan.actions.iter().filter(routes).collect()
}

#[test]
fn a_share_waits_for_its_pods_and_these_are_ordered_first() {
    let mut world = World::new(scaled(progressive()), 10);
    let target = world.target_name();
    world.say("old", VersionStatus::Current, 0);
    world.ramp(10.0);
    let changed_at = world.info().ramp.as_mut().unwrap();
    changed_at.changed_at = NOW.checked_sub(Duration::from_secs(60)).ok();
    // Half of ten pods for half of the traffic.
    assert_eq!(world.scales(), [(target.clone(), 1, 5)]);
    let plan = world.plan();
    assert_eq!(routing(&plan), Vec::<&Action>::new());
    let hold = Hold::Pods { ready: 1, wanted: 5, percent: 50 };
    assert_eq!(plan.stage(), Some(&Stage::Ramping { percent: 10.0, hold }));
    let child = world.kube.children.iter_mut().find(|child| child.name == target).unwrap();
    (child.spec_replicas, child.ready_replicas) = (5, 4);
    assert!(
        matches!(routing(&world.plan())[..], [Action::SetRamping { percent: 50, .. }]),
        "{:?}",
        world.plan().actions
    );
}

#[test]
fn a_target_that_there_is_no_room_for_is_not_waited_for_and_one_that_crashes_is() {
    let mut world = World::new(scaled(json!({"strategy": "AllAtOnce"})), 10);
    assert_eq!(routing(&world.plan()), Vec::<&Action>::new(), "the control: nine pods are missing");
    let target = world.target_name();
    let child = world.kube.children.iter_mut().find(|child| child.name == target).unwrap();
    child.failure = Some("FailedCreate: exceeded quota".into());
    assert!(matches!(routing(&world.plan())[..], [Action::SetCurrent { .. }]));
    let mut crashes = world.kube.pods[0].clone();
    crashes.name = "crashes".into();
    crashes.waiting = Some(Waiting {
        container: "w".into(),
        image: "x:1".into(),
        reason: "CrashLoopBackOff".into(),
        message: String::new(),
        last_words: None,
    });
    world.kube.pods.push(crashes);
    assert_eq!(routing(&world.plan()), Vec::<&Action>::new());
}

#[test]
fn a_target_beside_a_fleet_at_zero_needs_one_pod_to_be_promoted() {
    let mut world = World::new(json!({"runtime": runtime(), "scaling": {}}), 0);
    assert!(matches!(routing(&world.plan())[..], [Action::SetCurrent { .. }]));
    // The control: with pods that do the work it has to have as many.
    world.add_child("more", 0);
    world.kube.children.iter_mut().filter(|child| child.name == OLD).for_each(|child| child.spec_replicas = 9);
    assert_eq!(routing(&world.plan()), Vec::<&Action>::new());
}

#[test]
fn the_manager_is_claimed_before_the_first_change_and_never_without_one() {
    let mut world = World::new(json!({"runtime": runtime()}), 0);
    world.info().manager_identity.clear();
    let plan = world.plan();
    assert!(
        matches!(routing(&plan)[..], [Action::ClaimManager { .. }, Action::SetCurrent { .. }]),
        "{:?}",
        plan.actions
    );
    world.info().manager_identity = "i".into();
    assert_eq!(routing(&world.plan()), Vec::<&Action>::new(), "somebody else's");
    let former = ["i".to_owned()].into();
    let scaling = State::default();
    let input = plan_input(&world.fleet, &world.kube, &world.temporal, &scaling);
    let plan = operator_core::plan::plan(&operator_core::plan::PlanInput { former_identities: &former, ..input });
    let claimed =
        matches!(&routing(&plan)[..], [Action::ClaimManager { from, .. }, Action::SetCurrent { .. }] if from == "i");
    assert!(claimed, "{:?}", plan.actions);
    let mut manual = World::new(json!({"runtime": runtime(), "rollout": {"strategy": "Manual"}}), 0);
    manual.info().manager_identity.clear();
    assert_eq!(routing(&manual.plan()), Vec::<&Action>::new());
}

#[test]
fn the_current_version_is_scaled_by_its_work_while_the_target_waits() {
    let mut world = World::new(scaled(json!({"strategy": "Manual"})), 2);
    world.temporal.lanes.insert(lane(), known(LaneStats { backlog: 60, ..LaneStats::default() }));
    let scales = world.scales();
    let [(child, 2, to)] = &scales[..] else { panic!("{scales:?}") };
    assert!(child == OLD && *to > 2, "{scales:?}");
}

#[test]
fn a_draining_version_comes_back_from_zero_for_its_own_work_alone() {
    let mut world = World::new(scaled(json!({"strategy": "AllAtOnce"})), 2);
    world.add_child("older", 0);
    world.say("older", VersionStatus::Draining, 0);
    let older = |world: &World| world.scales().into_iter().find(|(child, ..)| child == "orders-older");
    assert_eq!(older(&world), None, "it may be at zero");
    world.say("older", VersionStatus::Draining, 3);
    assert!(matches!(older(&world), Some((_, 0, to)) if to > 0), "{:?}", world.scales());
}

#[test]
fn a_version_that_is_missing_or_could_not_be_read_is_left_as_it_is() {
    let mut world = World::new(scaled(json!({"strategy": "Manual"})), 2);
    world.add_child("older", 3);
    let touches = |world: &World| world.scales().iter().any(|(child, ..)| child == "orders-older");
    assert!(!touches(&world), "it was never asked for");
    world.info().versions.insert("older".into(), known(None));
    assert!(!touches(&world), "the server has no record of it");
    world.say("older", VersionStatus::Draining, 0);
    let old = world.info().version("older").cloned();
    world.info().versions.insert("older".into(), Observation::Stale { value: old, age: Duration::from_secs(600) });
    assert!(!touches(&world), "it was not read lately");
}

#[test]
fn a_move_from_unversioned_to_versioned_or_back_leaves_what_was_there_as_it_is() {
    let scaling = json!({"maxReplicas": 9, "idleWindow": "1s"});
    for versioning in ["Enabled", "Disabled"] {
        let mut world = World::new(json!({"runtime": runtime(), "scaling": scaling}), 2);
        let fleet = fleet(json!({"runtime": runtime(), "scaling": scaling, "versioning": versioning}));
        let unversioned = ChildState { name: "orders".into(), build_id: None, ..world.kube.children[1].clone() };
        if versioning == "Enabled" {
            world.kube.children[1] = unversioned;
            world
                .kube
                .pods
                .iter_mut()
                .filter(|pod| pod.build_id.as_deref() == Some("old"))
                .for_each(|pod| pod.build_id = None);
        } else {
            world.kube.children[0] = unversioned;
            world.temporal.deployment = Observation::Unknown;
        }
        let left = world.kube.children[1].name.clone();
        let plan = plan_of(&fleet, &world.kube, &world.temporal);
        let touched = plan.actions.iter().any(|action| matches!(action, Action::Scale { child, .. } if *child == left));
        assert!(!touched && !plan.others.contains_key(&left), "{versioning}: {:?}", plan.actions);
    }
}

#[test]
fn fixed_replicas_are_those_of_target_and_current_and_revive_a_draining_version() {
    let mut world = World::new(json!({"runtime": runtime(), "replicas": 4, "rollout": {"strategy": "Manual"}}), 1);
    world.add_child("older", 2);
    world.add_child("oldest", 0);
    world.say("older", VersionStatus::Drained, 0);
    world.say("oldest", VersionStatus::Draining, 0);
    let target = world.target_name();
    let expected = [(OLD.to_owned(), 1, 4), (target, 1, 4), ("orders-oldest".to_owned(), 0, 4)];
    assert_eq!(world.scales(), expected);
}

#[test]
fn a_target_whose_pods_are_about_to_go_gets_no_traffic_before_others_run() {
    let mut world = World::new(json!({"runtime": runtime()}), 1);
    assert!(matches!(routing(&world.plan())[..], [Action::SetCurrent { .. }]), "the control");
    world.kube.children[0].spec_replicas = 0;
    assert_eq!(routing(&world.plan()), Vec::<&Action>::new());
}

#[test]
fn a_new_version_at_zero_is_started_though_somebody_else_owns_replicas() {
    let mut world = World::new(json!({"runtime": runtime()}), 0);
    let target = world.target_name();
    world.kube.children[0].spec_replicas = 0;
    assert_eq!(world.scales(), [(target, 0, 1)], "and the current one is left at zero");
}

#[test]
fn the_status_says_where_each_version_is() {
    let mut world = World::new(scaled(progressive()), 2);
    world.add_child("older", 0);
    world.say("older", VersionStatus::Drained, 0);
    world.ramp(10.0);
    let Observation::Known { value: Some(older), .. } = world.info().versions.get_mut("older").unwrap() else {
        panic!()
    };
    older.drainage_changed_at = Some(NOW);
    let status = status(&world.fleet, &world.kube, &world.temporal, None);
    assert_eq!(words(&status, ConditionType::Ready), says("False", Reason::Ramping));
    assert_eq!(words(&status, ConditionType::Progressing), says("True", Reason::Ramping));
    let target = &status.target_version;
    assert_eq!((target.version.status, target.ramp_percentage), (Word::Ramping, Some(10.0)));
    assert!(target.ramp_last_modified_at.is_some());
    let current = status.current_version.unwrap();
    assert_eq!((current.build_id.as_str(), current.status, current.replicas), ("old", Word::Current, Some(2)));
    let [older] = &status.deprecated_versions[..] else { panic!("{:?}", status.deprecated_versions) };
    assert_eq!((older.version.status, older.eligible_for_deletion), (Word::Drained, Some(true)));
    assert!(older.drained_since.is_some());
    let message = status.conditions.iter().find(|one| one.type_ == "Ready").unwrap().message.clone();
    assert!(message.contains("10 %") && message.contains("50 % follows at"), "{message}");
}

/// The target is current, and "old" and its pods are what `status` says, for a day.
fn sunset(status: VersionStatus, pods: u32) -> World {
    let mut world = World::new(json!({"runtime": runtime(), "rollout": {"strategy": "AllAtOnce"}}), pods);
    let target = world.fleet.build_id.clone().unwrap();
    world.say(&target, VersionStatus::Current, 0);
    world.info().current_build_id = Some(target);
    world.say("old", status, 0);
    let Observation::Known { value: Some(old), .. } = world.info().versions.get_mut("old").unwrap() else { panic!() };
    old.drainage_changed_at = NOW.checked_sub(Duration::from_secs(26 * 3600)).ok();
    world
}

fn deletions(world: &World) -> Vec<String> {
    let deletion = |action: Action| match action {
        Action::DeleteVersion { build_id } => Some(build_id),
        Action::DeleteChild { child, uid, config_map, .. } => Some(format!("{child} {uid} {config_map}")),
        _ => None,
    };
    world.plan().actions.into_iter().filter_map(deletion).collect()
}

#[test]
fn a_drained_version_loses_its_pods_then_its_record_and_then_its_deployment() {
    let mut world = sunset(VersionStatus::Drained, 2);
    assert_eq!(world.scales(), [(OLD.to_owned(), 2, 0)]);
    assert_eq!(deletions(&world), Vec::<String>::new());
    let old = world.kube.children.iter_mut().find(|child| child.name == OLD).unwrap();
    (old.spec_replicas, old.uid) = (0, "u-old".into());
    assert_eq!(deletions(&world), Vec::<String>::new(), "a pod is there still");
    world.kube.children.iter_mut().filter(|child| child.name == OLD).for_each(|child| child.replicas = 0);
    assert_eq!(deletions(&world), Vec::<String>::new(), "a pod is there still");
    world.kube.pods.retain(|pod| pod.build_id.as_deref() != Some("old"));
    assert_eq!(deletions(&world), ["old", "orders-old u-old orders-old-runtime"]);
    let outdated = |world: &World, outdated| {
        let state = State::default();
        let input = plan_input(&world.fleet, &world.kube, &world.temporal, &state);
        operator_core::plan::plan(&operator_core::plan::PlanInput { outdated, ..input }).sunsets.len()
    };
    assert_eq!((outdated(&world, false), outdated(&world, true)), (2, 0), "it may have got traffic since");
    let resting = ["old".to_owned()].into();
    let state = State::default();
    let input = plan_input(&world.fleet, &world.kube, &world.temporal, &state);
    let plan = operator_core::plan::plan(&operator_core::plan::PlanInput { resting: &resting, ..input });
    assert!(!plan.actions.iter().any(|action| matches!(action, Action::DeleteVersion { .. })), "refused a moment ago");
}

#[test]
fn nothing_is_taken_away_from_a_version_that_may_have_work_or_was_not_read_lately() {
    assert_eq!(deletions(&sunset(VersionStatus::Drained, 0)).len(), 2, "the control");
    assert_eq!(deletions(&sunset(VersionStatus::Draining, 0)), Vec::<String>::new());
    let mut stale = sunset(VersionStatus::Drained, 0);
    let old = stale.info().version("old").cloned();
    stale.info().versions.insert("old".into(), Observation::Stale { value: old, age: Duration::from_secs(600) });
    assert_eq!(deletions(&stale), Vec::<String>::new());
    let mut missing = sunset(VersionStatus::Drained, 0);
    missing.info().versions.remove("old");
    assert_eq!(deletions(&missing), Vec::<String>::new());
    let mut deployment = sunset(VersionStatus::Drained, 0);
    let info = Some(deployment.info().clone());
    deployment.temporal.deployment = Observation::Stale { value: info, age: Duration::from_secs(600) };
    assert_eq!(deletions(&deployment), Vec::<String>::new());
}

#[test]
fn a_drained_version_that_is_wanted_again_is_kept() {
    let mut world = sunset(VersionStatus::Current, 2);
    world.info().current_build_id = Some("old".into());
    let target = world.fleet.build_id.clone().unwrap();
    world.say(&target, VersionStatus::Drained, 0);
    let plan = world.plan();
    assert!(matches!(routing(&plan)[..], [Action::SetCurrent { .. }]), "{:?}", plan.actions);
}

#[test]
fn a_version_that_never_had_traffic_goes_by_the_note_on_its_deployment() {
    let mut world = sunset(VersionStatus::Inactive, 2);
    let notes = |world: &World| {
        let note = |action: Action| match action {
            Action::NoteSuperseded { child, at, resource_version } => {
                assert_eq!(resource_version, "88", "it must not land on what was changed since");
                Some((child, at))
            }
            _ => None,
        };
        world.plan().actions.into_iter().filter_map(note).collect::<Vec<_>>()
    };
    assert_eq!((notes(&world), world.scales()), (vec![(OLD.to_owned(), Some(NOW))], vec![]));
    let note = |world: &mut World, hours: u64| {
        let at = NOW.checked_sub(Duration::from_secs(hours * 3600)).ok();
        world.kube.children.iter_mut().filter(|child| child.name == OLD).for_each(|child| child.superseded_at = at);
    };
    note(&mut world, 1);
    assert_eq!((notes(&world), world.scales()), (vec![], vec![(OLD.to_owned(), 2, 0)]));
    world.say("old", VersionStatus::Draining, 0);
    assert_eq!((notes(&world), world.scales()), (vec![(OLD.to_owned(), None)], vec![]), "it has traffic to drain");
}

#[test]
fn a_record_without_a_deployment_goes_after_both_delays() {
    let mut world = sunset(VersionStatus::Draining, 0);
    let drained = |hours: u64| VersionSummary {
        status: VersionStatus::Drained,
        drainage_changed_at: NOW.checked_sub(Duration::from_secs(hours * 3600)).ok(),
        ..VersionSummary::default()
    };
    world.info().summaries =
        [("gone".into(), drained(25)), ("late".into(), drained(24)), ("old".into(), drained(99))].into();
    assert_eq!(deletions(&world), ["gone"]);
    world.info().manager_identity = "of another cluster".into();
    assert_eq!(deletions(&world), Vec::<String>::new(), "whose Deployments are not here");
}

#[test]
fn a_new_version_waits_while_too_many_old_ones_have_work() {
    let mut world = World::new(json!({"runtime": runtime()}), 1);
    let target = world.target_name();
    world.kube.children.retain(|child| child.name != target);
    world.add_child("older", 0);
    world.say("older", VersionStatus::Drained, 0);
    world.add_child("oldest", 1);
    world.say("oldest", VersionStatus::Draining, 0);
    let at_limit = |max_versions| {
        let state = State::default();
        let input = plan_input(&world.fleet, &world.kube, &world.temporal, &state);
        let plan = operator_core::plan::plan(&operator_core::plan::PlanInput { max_versions, ..input });
        (plan.at_version_limit, plan.actions.iter().any(|action| matches!(action, Action::Apply { .. })))
    };
    assert_eq!(at_limit(2), (None, true));
    assert_eq!(at_limit(1), (Some(1), false));
}
