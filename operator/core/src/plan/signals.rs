//! What the decision on a version's replicas is given.

use std::collections::BTreeMap;
use std::time::Duration;

use super::PlanInput;
use crate::clock::Clock;
use crate::fleet::{Fleet, Scaling};
use crate::observed::{
    KubeState, LaneKey, LaneStats, Observation, PodLoad, PodState, SlotUse, TemporalState, VersionInfo,
};
use crate::polling;
use crate::rollout::Stage;
use crate::scaling::versions::role_floor;
use crate::scaling::{Floor, Input, Pod};
use crate::schedule;
use crate::versions::{Version, last_info, main_build_id, main_pods};

/// Load of a pod without a running container: it runs no task, and has nobody to say so. What its processes started
/// stays counted, so that the next one's count goes on from there.
fn without_process<L>(last: &Observation<PodLoad>, lanes: &BTreeMap<LaneKey, L>) -> Observation<PodLoad> {
    let mut load = PodLoad::of(lanes.keys().map(|lane| (lane.clone(), SlotUse::default())));
    for (lane, slots) in last.last().into_iter().flat_map(|last| &last.lanes) {
        let SlotUse { started, waits, runs, .. } = slots.clone();
        let counted = SlotUse { started, waits, runs, ..SlotUse::default() };
        load.lanes.insert(lane.clone(), counted);
    }
    Observation::Known { value: load, age: Duration::ZERO }
}

/// Whether a version is sized by the backlog of its lanes: one without traffic is not.
pub(super) fn serves(version: &Version<'_>, stage: Option<&Stage>) -> bool {
    let Some(stage) = stage else { return true };
    match (version.is_target, version.is_current) {
        (true, _) => matches!(stage, Stage::Current | Stage::Ramping { .. }),
        (false, true) => true,
        (false, false) => version.known().is_some(),
    }
}

/// What is decided on: the version's pods, and its lanes if it serves them.
pub(super) fn input(input: &PlanInput<'_>, version: &Version<'_>, floors: Vec<Floor>, serves: bool) -> Input {
    let fleet = input.fleet;
    let lanes = lanes_of(input, version);
    let pod = |pod: &PodState| Pod {
        name: pod.name.clone(),
        ready: pod.ready,
        terminating: pod.terminating,
        load: if pod.may_run { pod.load.clone() } else { without_process(&pod.load, &lanes) },
        failing: pod.waiting.as_ref().map(|waiting| waiting.reason.clone()),
        restarts: pod.restarts,
        may_be_cordoned: pod.may_be_cordoned,
        unreadable: pod.unreadable.clone(),
        cordoned: pod.cordoned,
    };
    Input {
        now: input.now,
        current: version.child.spec_replicas,
        pods: input.kube.pods.iter().filter(|pod| version.has(pod)).map(pod).collect(),
        lanes: if serves { lanes } else { BTreeMap::new() },
        lanes_complete: serves,
        declared_slots: fleet.declared.slots.clone(),
        floors,
        grace: fleet.grace,
        template: version.child.name.clone(),
    }
}

fn lanes_of(input: &PlanInput<'_>, version: &Version<'_>) -> BTreeMap<LaneKey, Observation<LaneStats>> {
    let (fleet, kube, temporal) = (input.fleet, input.kube, input.temporal);
    let main = main_build_id(fleet, kube, temporal);
    match (&version.child.build_id, version.info) {
        (Some(id), Some(info)) if main != Some(id) => own_lanes(info),
        _ => known_lanes(fleet, kube, temporal),
    }
}

/// Lanes of a version beside the one that does the work, by its own description.
fn own_lanes(info: &Observation<Option<VersionInfo>>) -> BTreeMap<LaneKey, Observation<LaneStats>> {
    let lanes = info.last().into_iter().flatten().flat_map(|version| &version.lanes);
    let stats = |lane: &LaneKey| match info.map(|info| info.as_ref().and_then(|info| info.stats.get(lane).copied())) {
        Observation::Known { value: Some(value), age } => Observation::Known { value, age },
        Observation::Stale { value: Some(value), age } => Observation::Stale { value, age },
        _ => Observation::Unknown,
    };
    lanes.map(|lane| (lane.clone(), stats(lane))).collect()
}

/// What keeps the version that does the work above the user's minimum just now.
pub(super) fn floors_of_main(input: &PlanInput<'_>, version: &Version<'_>, stage: Option<&Stage>) -> Vec<Floor> {
    let Some(scaling) = &input.fleet.scaling else { return Vec::new() };
    let is_current = stage.is_none() || version.is_current;
    let role = (is_current && scaling.roles.current > scaling.policy.min_replicas).then(|| Floor {
        replicas: scaling.roles.current,
        reason: format!("spec.scaling.roles.current asks for {}", scaling.roles.current),
    });
    let scheduled = schedule::floors(&scaling.schedules, input.clock.wall, input.scaling.start_up());
    role.into_iter().chain(scheduled).collect()
}

/// What keeps a version that is neither target nor current from going to zero.
pub(super) fn floors_of_old(scaling: &Scaling, version: &Version<'_>, clock: &Clock) -> Vec<Floor> {
    let Some(info) = version.known() else { return Vec::new() };
    let name = version.child.build_id.as_deref().unwrap_or_default();
    let role = role_floor(info.status, false, scaling.roles).replicas;
    let by_role = (role > 0).then(|| Floor { replicas: role, reason: format!("its role of {name} asks for {role}") });
    let warm = scaling.keep_warm.filter(|keep| info.last_current_at.is_some_and(|at| clock.since(at) < *keep));
    let kept = warm.map(|keep| Floor {
        replicas: version.child.spec_replicas,
        reason: format!("version {name} keeps its pods for {} s after it was current", keep.as_secs()),
    });
    by_role.into_iter().chain(kept).collect()
}

/// Every lane of the version that does the work ([`main_build_id`]): those that the server saw polled, and those that the
/// manifest names, if that is about this version.
#[must_use]
pub fn known_lanes(
    fleet: &Fleet,
    kube: &KubeState,
    temporal: &TemporalState,
) -> BTreeMap<LaneKey, Observation<LaneStats>> {
    let main = main_build_id(fleet, kube, temporal);
    let declared = (main == fleet.build_id.as_deref()).then_some(&fleet.declared.lanes);
    let version = main.and_then(|id| last_info(temporal)?.version(id));
    let reported = version.into_iter().flat_map(|version| version.lanes.iter());
    let lanes = declared.into_iter().flatten().chain(reported);
    lanes.map(|lane| (lane.clone(), temporal.lanes.get(lane).cloned().unwrap_or_default())).collect()
}

/// Whether the pods alone prove that none of the tasks waits of the version that does the work.
#[must_use]
pub fn is_gated(fleet: &Fleet, kube: &KubeState, temporal: &TemporalState) -> bool {
    let Some(scaling) = &fleet.scaling else { return false };
    let pods: Vec<_> = main_pods(fleet, kube, temporal).collect();
    polling::is_gated(&polling::Running {
        lanes: &known_lanes(fleet, kube, temporal),
        pods: &pods,
        may_go_to_zero: scaling.policy.min_replicas == 0,
    })
}
