//! What a plan is as a whole, and what is said of it.

use std::time::Duration;

use jiff::Timestamp;
use operator_core::api::{ConditionType, WorkerDeploymentStatus};
use operator_core::deletion::{self, Deletion, Step};
use operator_core::names;
use operator_core::observed::{KubeState, Observation, TemporalState};
use operator_core::plan::{Action, Plan};
use operator_core::status::{self, STALE_GRACE, StatusInput};
use proptest::prelude::*;

use super::holds;
use super::worlds::{World, now};

const GENERATION: i64 = 3;

#[test]
fn s10_only_the_target_s_own_objects_are_applied() {
    holds(|world, plan| {
        for action in &plan.actions {
            let Action::Apply { object, .. } = action else { continue };
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            if object["kind"] == "Deployment" {
                prop_assert_eq!(name, &world.fleet().child_name);
                let labels = &object["spec"]["template"]["metadata"]["labels"];
                prop_assert_eq!(labels[names::BUILD_ID_LABEL].as_str(), world.fleet().build_id.as_deref());
            }
        }
        Ok(())
    });
}

#[test]
fn s11_only_deployments_of_the_fleet_are_written() {
    holds(|world, plan| {
        let owned = |child: &String| world.kube().children.iter().any(|one| one.name == *child);
        for action in &plan.actions {
            match action {
                Action::Scale { child, .. }
                | Action::NoteSuperseded { child, .. }
                | Action::DeleteChild { child, .. } => prop_assert!(owned(child), "{child} is not the fleet's"),
                Action::Apply { .. } => prop_assert!(!world.is_taken, "somebody else has a Deployment of that name"),
                _ => {}
            }
        }
        Ok(())
    });
}

fn status_of(world: &World, plan: &Plan) -> WorkerDeploymentStatus {
    status::compute(&StatusInput {
        generation: GENERATION,
        previous: &WorkerDeploymentStatus::default(),
        blocked: None,
        planned: Some((world.fleet(), plan)),
        kube: &world.kube(),
        temporal: &world.temporal(),
        annotations: &Default::default(),
        order: world.order,
        scaled_to: &Default::default(),
        stale_for: (!world.fresh).then_some(STALE_GRACE),
        now: now(),
    })
}

#[test]
fn s14_a_fleet_is_called_ready_only_when_its_version_was_just_read_to_be_current() {
    holds(|world, plan| {
        let status = status_of(world, plan);
        let ready = status.condition(ConditionType::Ready).unwrap();
        prop_assert_eq!(ready.observed_generation, Some(GENERATION));
        if ready.status == "True" {
            prop_assert!(world.fresh && world.current == Some(0), "{ready:?}");
        }
        Ok(())
    });
}

#[test]
fn s17_replicas_are_within_their_bounds() {
    holds(|world, plan| {
        for action in &plan.actions {
            let Action::Scale { to, .. } = action else { continue };
            let fleet = world.fleet();
            match (&fleet.scaling, fleet.replicas) {
                (Some(scaling), _) => prop_assert!(*to <= scaling.policy.max_replicas, "{to}"),
                (None, Some(replicas)) => prop_assert!(*to == 0 || *to == replicas, "{to}"),
                (None, None) => prop_assert!(*to <= 1, "{to}"),
            }
        }
        Ok(())
    });
}

/// Place of a write in the plan, by the table of docs/rollouts.md.
fn place(action: &Action) -> Option<usize> {
    match action {
        Action::Protect => Some(0),
        Action::Apply { .. } => Some(1),
        Action::Attach { .. } | Action::Scale { .. } => Some(2),
        Action::ClaimManager { .. } => Some(3),
        Action::SetRamping { .. } | Action::SetCurrent { .. } | Action::ClearRamp { .. } => Some(4),
        Action::NoteSuperseded { .. } | Action::DeleteVersion { .. } | Action::DeleteChild { .. } => Some(5),
        _ => None,
    }
}

#[test]
fn s19_writes_are_in_the_order_in_which_each_prefix_is_safe() {
    holds(|_, plan| {
        let places: Vec<_> = plan.actions.iter().filter_map(place).collect();
        prop_assert!(places.is_sorted(), "{:?}", plan.actions);
        let mut before = None;
        for action in &plan.actions {
            if let Action::DeleteChild { build_id, .. } = action {
                let record = Action::DeleteVersion { build_id: build_id.clone() };
                prop_assert_eq!(before, Some(&record), "the Deployment of a record goes first");
            }
            before = Some(action);
        }
        Ok(())
    });
}

#[test]
fn s20_nothing_is_made_without_the_finalizer() {
    holds(|world, plan| {
        let first = plan.actions.first() == Some(&Action::Protect);
        prop_assert_eq!(first, !world.protected);
        prop_assert_eq!(plan.actions.iter().filter(|action| **action == Action::Protect).count(), usize::from(first));
        Ok(())
    });
}

fn deletion(world: &World, temporal: &TemporalState, hours: u64) -> Vec<Step> {
    let (steps, _) = deletion::plan(&Deletion {
        orphan: false,
        kube: &world.kube(),
        temporal: Some(temporal),
        identity: "me",
        former_identities: &Default::default(),
        temporal_namespace: "default",
        deployment_name: "prod/orders",
        resting: &Default::default(),
        since: Duration::from_secs(hours * 3_600),
    });
    steps
}

#[test]
fn s20_the_object_goes_only_once_nothing_is_left_or_it_is_said_what_is() {
    holds(|world, _| {
        let temporal = world.temporal();
        let has_pods = world.kube().children.iter().any(|child| child.spec_replicas + child.replicas > 0);
        for step in deletion(world, &temporal, 0) {
            match step {
                Step::Release { left } => prop_assert!(left.is_some(), "the server has records still"),
                Step::ScaleToZero { .. } => prop_assert!(has_pods),
                _ => {
                    prop_assert!(!has_pods && world.kube().pods.is_empty(), "unroutes what still has pods");
                    prop_assert!(world.fresh && world.manager != 2, "changes what it does not know, or may not");
                }
            }
        }
        let gone = TemporalState { deployment: Observation::Known { value: None, age: Duration::ZERO }, ..temporal };
        let last = [Step::Release { left: None }];
        let free = world.kube().pods.is_empty() && !has_pods;
        prop_assert_eq!(deletion(world, &gone, 0) == last, free, "a clean server lets it go, and pods do not");
        Ok(())
    });
}

/// Makes a world impossible.
fn spoil(world: &World, kube: &mut KubeState, temporal: &mut TemporalState) {
    for (at, child) in kube.children.iter_mut().enumerate() {
        child.spec_replicas = [u32::MAX, 0, 1][at % 3];
        child.ready_replicas = u32::MAX;
        child.superseded_at = Some([Timestamp::MIN, Timestamp::MAX][at % 2]);
    }
    let twice = kube.children.clone();
    kube.children.extend(twice);
    let Observation::Known { value: Some(info), .. } = &mut temporal.deployment else { return };
    if let Some(ramp) = &mut info.ramp {
        ramp.percent = [f32::NAN, -1.0, f32::INFINITY][world.manager];
        ramp.changed_at = Some([Timestamp::MIN, Timestamp::MAX][world.manager % 2]);
    }
    info.versions.extend([(String::new(), Observation::Unknown)]);
    for version in info.versions.values_mut() {
        let Observation::Known { value: Some(version), age } = version else { continue };
        *age = Duration::MAX;
        version.lanes_unchanged_for = Duration::MAX;
        version.last_current_at = Some(Timestamp::MIN);
        version.drainage_changed_at = Some(Timestamp::MAX);
    }
}

#[test]
fn s22_no_world_however_impossible_ends_the_process() {
    holds(|world, _| {
        let (mut kube, mut temporal) = (world.kube(), world.temporal());
        spoil(world, &mut kube, &mut temporal);
        let plan = world.plan_of(&kube, &temporal);
        prop_assert!(plan.rollout.is_some());
        status_of(world, &plan);
        deletion(world, &temporal, u64::MAX / 3_600);
        Ok(())
    });
}
