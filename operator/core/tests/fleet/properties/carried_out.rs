//! What is left to do once a plan is carried out.

use std::collections::BTreeMap;
use std::time::Duration;

use operator_core::observed::{
    ChildState, DeploymentInfo, KubeState, Observation, Ramp, TemporalState, VersionInfo, VersionStatus,
};
use operator_core::plan::{Action, object_key};
use proptest::prelude::*;

use super::holds;
use super::worlds::{World, now};

/// Looks after which nothing is left to write: one for each kind of write, and some to spare.
const LOOKS: usize = 10;

/// What a plan is carried out on.
struct Scene {
    kube: KubeState,
    temporal: TemporalState,
    applied: BTreeMap<String, String>,
    protected: bool,
    target: String,
}

impl Scene {
    fn child(&mut self, name: &str) -> Option<&mut ChildState> {
        self.kube.children.iter_mut().find(|child| child.name == name)
    }

    fn info(&mut self) -> Option<&mut DeploymentInfo> {
        match &mut self.temporal.deployment {
            Observation::Known { value, .. } => value.as_mut(),
            _ => None,
        }
    }

    fn carry_out(&mut self, action: &Action, name: &str) {
        match action {
            Action::Protect => self.protected = true,
            Action::Apply { object, digest } => {
                self.applied.insert(object_key(object), digest.clone());
                if object["kind"] == "Deployment" && self.child(name).is_none() {
                    let build_id = Some(self.target.clone());
                    let child =
                        ChildState { name: name.to_owned(), build_id, spec_replicas: 1, ..ChildState::default() };
                    self.kube.children.push(child);
                }
            }
            Action::Scale { child, to, .. } => self.child(child).unwrap().spec_replicas = *to,
            Action::NoteSuperseded { child, at, .. } => self.child(child).unwrap().superseded_at = *at,
            Action::DeleteChild { child, .. } => self.kube.children.retain(|one| one.name != *child),
            Action::SetDeletionCost { pod, cost } => {
                let pod = self.kube.pods.iter_mut().find(|one| one.name == *pod).unwrap();
                pod.deletion_cost = cost.unwrap_or(0);
            }
            Action::ShowCordon { pod, cordoned } => {
                self.kube.pods.iter_mut().find(|one| one.name == *pod).unwrap().shown_cordoned = *cordoned;
            }
            action => self.on_the_server(action),
        }
    }

    fn on_the_server(&mut self, action: &Action) {
        let target = self.target.clone();
        let Some(info) = self.info() else { return };
        let lost = match action {
            Action::ClaimManager { .. } => {
                info.manager_identity = "me".into();
                None
            }
            Action::SetCurrent { .. } => {
                info.ramp.take_if(|ramp| ramp.build_id == target);
                say(info, &target, VersionStatus::Current);
                info.current_build_id.replace(target)
            }
            Action::SetRamping { percent, .. } => {
                say(info, &target, VersionStatus::Ramping);
                let percent = f32::from(*percent);
                let ramp = Ramp { build_id: target.clone(), percent, changed_at: Some(now()), ..Ramp::default() };
                info.ramp.replace(ramp).map(|ramp| ramp.build_id).filter(|lost| *lost != target)
            }
            Action::ClearRamp { .. } => info.ramp.take().map(|ramp| ramp.build_id),
            Action::DeleteVersion { build_id } => {
                info.summaries.remove(build_id);
                info.versions.insert(build_id.clone(), known(None));
                None
            }
            _ => None,
        };
        info.last_modifier_identity = "me".into();
        lost.into_iter().for_each(|lost| say(info, &lost, VersionStatus::Draining));
    }
}

fn known<T>(value: T) -> Observation<T> {
    Observation::Known { value, age: Duration::ZERO }
}

fn say(info: &mut DeploymentInfo, build_id: &str, status: VersionStatus) {
    let before = info.version(build_id).cloned().unwrap_or_default();
    let said = VersionInfo { status, drainage_changed_at: Some(now()), status_unchanged_for: None, ..before };
    info.versions.insert(build_id.to_owned(), known(Some(said)));
}

#[test]
fn s15_a_world_at_rest_sees_no_further_write() {
    holds(|world, _| {
        let mut scene = Scene {
            kube: world.kube(),
            temporal: world.temporal(),
            applied: BTreeMap::new(),
            protected: world.protected,
            target: world.build_id(0),
        };
        let plan = |scene: &Scene, world: &World| {
            world.plan_with(&scene.kube, &scene.temporal, (&scene.applied, scene.protected)).actions
        };
        for _ in 0..LOOKS {
            for action in plan(&scene, world) {
                scene.carry_out(&action, &world.child_name(0));
            }
        }
        prop_assert_eq!(plan(&scene, world), [], "after {} looks", LOOKS);
        Ok(())
    });
}
