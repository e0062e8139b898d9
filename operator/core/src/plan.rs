//! From everything that was seen to the writes that follow, in their order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::fleet::Fleet;
use crate::names;
use crate::observed::{
    ChildState, KubeState, LaneKey, LaneStats, Observation, PodLoad, PodState, SlotUse, TemporalState,
};
use crate::polling;
use crate::rollout::{self, Stage};
use crate::scaling::{self, Decision, Floor, Input, Pod, Policy, State};
use crate::schedule;

/// `controller.kubernetes.io/pod-deletion-cost` of a pod that should go first.
pub const VICTIM_COST: i32 = -1_000_000;

/// One write. A plan is a list of them in the order in which they are carried out; the first failure ends it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Action {
    /// Server-side apply of an object of the fleet.
    Apply {
        /// The object.
        object: Value,
        /// Its digest, to be remembered once it was applied.
        digest: String,
    },
    /// Say which pods a ReplicaSet should remove first, or that one should no longer.
    SetDeletionCost {
        /// Name of the pod.
        pod: String,
        /// The cost; none takes it away.
        cost: Option<i32>,
    },
    /// Show on a pod whether it is ordered to take no new task.
    ShowCordon {
        /// Name of the pod.
        pod: String,
        /// Whether it is.
        cordoned: bool,
    },
    /// Write `spec.replicas` of the child through its `scale` subresource.
    Scale {
        /// Name of the child.
        child: String,
        /// Replicas that the decision was based on.
        from: u32,
        /// Replicas to have.
        to: u32,
        /// Version of the child that the decision was based on.
        resource_version: String,
        /// Why.
        reason: String,
    },
    /// Give a version the traffic.
    SetCurrent {
        /// The version.
        build_id: String,
        /// Token for the change.
        conflict_token: Vec<u8>,
    },
}

/// Everything that a plan stands on.
#[derive(Clone, Copy, Debug)]
pub struct PlanInput<'a> {
    /// The fleet as the user wants it.
    pub fleet: &'a Fleet,
    /// The cluster.
    pub kube: &'a KubeState,
    /// Digests of the fleet's objects as they were last applied and not changed by others since, by `Kind/name`.
    pub applied: &'a BTreeMap<String, String>,
    /// The server.
    pub temporal: &'a TemporalState,
    /// State of the last scaling decision.
    pub scaling: &'a State,
    /// Time on the operator's monotonic clock.
    pub now: Duration,
    /// Time on the wall clock.
    pub wall: Timestamp,
    /// The operator's identity towards the server.
    pub identity: &'a str,
    /// Time since victims were last marked; none when this process never did.
    pub since_marked: Option<Duration>,
}

/// What is to be done, and what it was concluded from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The writes.
    pub actions: Vec<Action>,
    /// Where the target version is; none with Worker Versioning off.
    pub stage: Option<Stage>,
    /// The scaling decision; none without `spec.scaling` or without a child.
    pub decision: Option<Decision>,
    /// What that decision stood on beside the state before.
    pub basis: Option<(Policy, Input)>,
    /// State for the next scaling decision.
    pub scaling: State,
    /// Names of the pods that are to take no new task. All others are to take tasks.
    pub cordon: BTreeSet<String>,
}

/// Plans. Nothing is deleted, and no version but the target is touched.
#[must_use]
pub fn plan(input: &PlanInput<'_>) -> Plan {
    let fleet = input.fleet;
    let child = input.kube.children.iter().find(|child| child.name == fleet.child_name);
    let stage = fleet.build_id.as_deref().map(|build_id| stage_of(input, build_id));
    let mut actions = applies(input);
    let mut planned = Plan {
        actions: Vec::new(),
        stage,
        decision: None,
        basis: None,
        scaling: input.scaling.clone(),
        cordon: BTreeSet::new(),
    };
    if let Some(child) = child {
        scale(input, child, &mut planned, &mut actions);
    }
    if let (Some(Stage::Promote { conflict_token }), Some(build_id)) = (&planned.stage, &fleet.build_id) {
        let (build_id, conflict_token) = (build_id.clone(), conflict_token.clone());
        actions.push(Action::SetCurrent { build_id, conflict_token });
    }
    actions.extend(cordon_marks(input, &planned.cordon));
    planned.actions = actions;
    planned
}

fn stage_of(input: &PlanInput<'_>, build_id: &str) -> Stage {
    let fleet = input.fleet;
    let has_ready_pod =
        input.kube.pods.iter().any(|pod| pod.ready && !pod.terminating && belongs(fleet, pod.build_id.as_deref()));
    let target = rollout::Target {
        build_id,
        declared_lanes: &fleet.declared.lanes,
        declared_queues: &fleet.declared.task_queues,
        has_ready_pod,
        may_replace: fleet.promotion.may_replace,
        may_start: fleet.promotion.may_start,
        identity: input.identity,
    };
    rollout::stage(&target, input.temporal)
}

/// Key of an object among the applied ones.
#[must_use]
pub fn object_key(object: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!("{}/{}", word(&object["kind"]), word(&object["metadata"]["name"]))
}

fn applies(input: &PlanInput<'_>) -> Vec<Action> {
    if input.kube.foreign_deployments.contains(&input.fleet.child_name) {
        return Vec::new();
    }
    let changed = |object: &Value| {
        let digest = digest(object);
        (input.applied.get(&object_key(object)) != Some(&digest))
            .then(|| Action::Apply { object: object.clone(), digest })
    };
    input.fleet.config_maps.iter().chain([&input.fleet.child.object]).filter_map(changed).collect()
}

fn digest(object: &Value) -> String {
    let text = object.to_string();
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn scale(input: &PlanInput<'_>, child: &ChildState, planned: &mut Plan, actions: &mut Vec<Action>) {
    let fleet = input.fleet;
    let Some(scaling) = &fleet.scaling else {
        if let Some(to) = fleet.replicas.filter(|&to| to != child.spec_replicas) {
            actions.push(scale_to(child, to, format!("{to} replicas: spec.replicas says so.")));
        }
        return;
    };
    let seen = scaling_input(input, child, planned.stage.as_ref());
    let (decision, state) = scaling::decide(&scaling.policy, &seen, input.scaling);
    planned.basis = Some((scaling.policy.clone(), seen));
    planned.scaling = state;
    if scaling.dry_run {
        planned.decision = Some(decision);
        return;
    }
    let marks = deletion_costs(input, &decision);
    // Victims are marked first. Where a task could be killed with them, they take none any more, and the decrease is decided
    // once more on what their pods say then.
    let may_kill =
        !decision.any_ends_in_time && (may_get_tasks(input, &decision) || read_before_marked(input, &decision));
    let unsure = !marks.is_empty() || may_kill;
    let not_yet = decision.desired < child.spec_replicas && unsure;
    actions.extend(marks);
    if decision.desired != child.spec_replicas && !not_yet {
        actions.push(scale_to(child, decision.desired, decision.reason.clone()));
    }
    planned.cordon = to_cordon(input, &decision);
    planned.decision = Some(decision);
}

fn scale_to(child: &ChildState, to: u32, reason: String) -> Action {
    Action::Scale {
        child: child.name.clone(),
        from: child.spec_replicas,
        to,
        resource_version: child.resource_version.clone(),
        reason,
    }
}

/// Pods that are to take no new task: the surplus that the decision names, and those that go, if a task that reached them
/// now might be killed with them.
fn to_cordon(input: &PlanInput<'_>, decision: &Decision) -> BTreeSet<String> {
    let goes = |pod: &PodState| !decision.any_ends_in_time && decision.victims.contains(&pod.name);
    let named = |pod: &&PodState| decision.cordon.contains(&pod.name) || goes(pod);
    let able = |pod: &&PodState| pod.may_be_cordoned && !pod.terminating;
    input.kube.pods.iter().filter(named).filter(able).map(|pod| pod.name.clone()).collect()
}

/// Whether a pod that should go can be cordoned, and a task can still reach it.
fn may_get_tasks(input: &PlanInput<'_>, decision: &Decision) -> bool {
    let open = |pod: &PodState| pod.may_be_cordoned && !pod.terminating && !pod.cordoned;
    input.kube.pods.iter().any(|pod| decision.victims.contains(&pod.name) && open(pod))
}

/// Whether a victim's load is of a time before the victims were marked: it may have got a task since.
fn read_before_marked(input: &PlanInput<'_>, decision: &Decision) -> bool {
    let Some(since) = input.since_marked else { return false };
    let outdated = |pod: &PodState| pod.ready && !pod.terminating && pod.load.age().is_some_and(|age| age > since);
    input.kube.pods.iter().any(|pod| decision.victims.contains(&pod.name) && outdated(pod))
}

/// Shows which pods are cordoned, and no longer shows it on others.
fn cordon_marks(input: &PlanInput<'_>, cordon: &BTreeSet<String>) -> Vec<Action> {
    let mark = |pod: &PodState| {
        let cordoned = cordon.contains(&pod.name);
        (pod.shown_cordoned != cordoned).then(|| Action::ShowCordon { pod: pod.name.clone(), cordoned })
    };
    input.kube.pods.iter().filter(|pod| !pod.terminating).filter_map(mark).collect()
}

/// Marks the victims, and unmarks pods that were victims once.
fn deletion_costs(input: &PlanInput<'_>, decision: &Decision) -> Vec<Action> {
    let cost = |pod: &PodState| {
        let victim = decision.victims.contains(&pod.name);
        let marked = pod.deletion_cost == VICTIM_COST;
        let cost = match (victim, marked) {
            (true, false) => Some(VICTIM_COST),
            (false, true) => None,
            _ => return None,
        };
        Some(Action::SetDeletionCost { pod: pod.name.clone(), cost })
    };
    input.kube.pods.iter().filter(|pod| !pod.terminating).filter_map(cost).collect()
}

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

fn scaling_input(input: &PlanInput<'_>, child: &ChildState, stage: Option<&Stage>) -> Input {
    let fleet = input.fleet;
    let serves = stage.is_none_or(|stage| *stage == Stage::Current);
    let lanes = known_lanes(fleet, input.temporal);
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
        current: child.spec_replicas,
        // A version without the traffic is not sized by a backlog that belongs to another one.
        pods: input.kube.pods.iter().filter(|pod| belongs(fleet, pod.build_id.as_deref())).map(pod).collect(),
        lanes: if serves { lanes } else { BTreeMap::new() },
        lanes_complete: serves,
        declared_slots: fleet.declared.slots.clone(),
        floors: floors(input, stage),
        grace: fleet.grace,
        template: fleet.child_name.clone(),
    }
}

/// What keeps the fleet above the user's minimum just now.
fn floors(input: &PlanInput<'_>, stage: Option<&Stage>) -> Vec<Floor> {
    let fleet = input.fleet;
    let rollout = stage.zip(fleet.build_id.as_deref()).and_then(|(stage, id)| rollout::floor(stage, id));
    let Some(scaling) = &fleet.scaling else { return Vec::new() };
    let is_current = stage.is_none_or(|stage| *stage == Stage::Current);
    let role = (is_current && scaling.current_floor > scaling.policy.min_replicas).then(|| Floor {
        replicas: scaling.current_floor,
        reason: format!("spec.scaling.roles.current asks for {}", scaling.current_floor),
    });
    let scheduled = schedule::floors(&scaling.schedules, input.wall, input.scaling.start_up());
    rollout.into_iter().chain(role).chain(scheduled).collect()
}

/// Every lane of the fleet: those the manifest names and those that the server saw polled.
#[must_use]
pub fn known_lanes(fleet: &Fleet, temporal: &TemporalState) -> BTreeMap<LaneKey, Observation<LaneStats>> {
    let version = fleet.build_id.as_ref().and_then(|build_id| {
        temporal.deployment.last().and_then(Option::as_ref).and_then(|deployment| deployment.versions.get(build_id))
    });
    let reported = version.into_iter().flat_map(|version| version.lanes.iter());
    let lanes = fleet.declared.lanes.iter().chain(reported);
    lanes.map(|lane| (lane.clone(), temporal.lanes.get(lane).cloned().unwrap_or_default())).collect()
}

/// Whether the pods alone prove that none of the fleet's tasks waits.
#[must_use]
pub fn is_gated(fleet: &Fleet, kube: &KubeState, temporal: &TemporalState) -> bool {
    let Some(scaling) = &fleet.scaling else { return false };
    let pods: Vec<_> = kube.pods.iter().filter(|pod| belongs(fleet, pod.build_id.as_deref())).collect();
    polling::is_gated(&polling::Running {
        lanes: &known_lanes(fleet, temporal),
        pods: &pods,
        may_go_to_zero: scaling.policy.min_replicas == 0,
    })
}

fn belongs(fleet: &Fleet, build_id: Option<&str>) -> bool {
    build_id == fleet.build_id.as_deref().map(names::build_id_label).as_deref()
}
