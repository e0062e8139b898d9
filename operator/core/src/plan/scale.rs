//! Replicas of every version: the one place where they are decided, whichever way the user has them decided.

use std::collections::BTreeSet;

use super::{Action, Plan, PlanInput, VICTIM_COST, VersionPlan, signals};
use crate::fleet::Scaling;
use crate::observed::{ChildState, PodState, VersionStatus};
use crate::rollout::Stage;
use crate::rollout::sunset::Sunset;
use crate::scaling::versions::ramp_floor;
use crate::scaling::{self, Decision, Floor, Policy, State};
use crate::versions::{Version, main_child, versions};

/// Decides replicas of every version, and holds a change of the routing back that has too few pods.
pub(super) fn scale(input: &PlanInput<'_>, planned: &mut Plan) {
    let all = versions(input.fleet, input.kube, input.temporal);
    let main = main_child(input.fleet, input.kube, input.temporal).map(|child| child.name.as_str());
    match &input.fleet.scaling {
        Some(scaling) => {
            let (main, others): (Vec<_>, Vec<_>) =
                all.iter().partition(|version| Some(version.child.name.as_str()) == main);
            main.into_iter().for_each(|version| scale_main(input, scaling, version, planned));
            others.into_iter().for_each(|version| scale_other(input, scaling, version, planned));
        }
        None => all.iter().for_each(|version| scale_fixed(input, version, planned)),
    }
}

/// The version that does the work, or the target while none does.
fn scale_main(input: &PlanInput<'_>, scaling: &Scaling, version: &Version<'_>, planned: &mut Plan) {
    let mut floors = signals::floors_of_main(input, version, planned.stage());
    floors.extend(version.is_target.then(|| without_traffic(planned.stage(), version)).flatten());
    let seen = signals::input(input, version, floors, signals::serves(version, planned.stage()));
    let (decision, state) = scaling::decide(&scaling.policy, &seen, input.scaling);
    planned.basis = Some((scaling.policy.clone(), seen));
    planned.scaling = state;
    carry_out(input, version, &decision, planned);
    planned.decision = Some(decision);
}

/// Any other version. A drained one is left to its sunset; one that the server is not asked for, as the fleet or it is
/// unversioned, or that works elsewhere, is left as it is.
fn scale_other(input: &PlanInput<'_>, scaling: &Scaling, version: &Version<'_>, planned: &mut Plan) {
    let status = version.known().map(|info| info.status);
    let is_left = !version.is_target && version.is_elsewhere(input.fleet);
    if input.fleet.build_id.is_none() || version.child.build_id.is_none() || is_left {
        return;
    }
    if sets(version, planned) || !version.is_target && status == Some(VersionStatus::Drained) {
        return;
    }
    let policy = Policy { min_replicas: 0, ..scaling.policy.clone() };
    let before = input.others.get(&version.child.name).cloned().unwrap_or_default();
    let floors = match version.is_target {
        true => target_floors(input, scaling, (version, &before), planned),
        false => signals::floors_of_old(scaling, version, &input.clock),
    };
    let seen = signals::input(input, version, floors, signals::serves(version, planned.stage()));
    let (decision, state) = scaling::decide(&policy, &seen, &before);
    carry_out(input, version, &decision, planned);
    planned.others.insert(version.child.name.clone(), VersionPlan { decision, scaling: state });
}

/// Pods of a target beside the current version: one until it has traffic, and those of the share that it has or is about to
/// get. Without these the share waits.
fn target_floors(
    input: &PlanInput<'_>,
    scaling: &Scaling,
    (version, state): (&Version<'_>, &State),
    planned: &mut Plan,
) -> Vec<Floor> {
    let Some(rollout) = &mut planned.rollout else { return Vec::new() };
    let mut floors: Vec<_> = without_traffic(Some(&rollout.stage), version).into_iter().collect();
    let name = version.child.build_id.as_deref().unwrap_or_default();
    let share = match &rollout.stage {
        Stage::Ramping { percent, .. } => Some(*percent),
        _ => None,
    };
    let coming = rollout.change.map(|change| f32::from(change.percent()));
    if let Some(percent) = share.into_iter().chain(coming).reduce(f32::max) {
        let of_current = planned.decision.as_ref().map_or(0, |decision| decision.desired);
        let total = of_current.saturating_add(own_need(input, scaling, version, state));
        let replicas = ramp_floor(total, f64::from(percent)).max(scaling.roles.ramping).max(1);
        let replicas = replicas.min(scaling.policy.max_replicas);
        let reason = format!("version {name} runs {replicas} for {percent} % of new Workflows");
        floors.push(Floor { replicas, reason });
        if !lacks_room(input, version) {
            rollout.wait_for_pods(version.child.ready_replicas, replicas);
        }
    }
    floors
}

/// Whether Kubernetes can't make more pods of a version, though none of those that it made fails. The pods of the current
/// version may be in the way: these go only with their traffic, so that it is not waited for.
fn lacks_room(input: &PlanInput<'_>, version: &Version<'_>) -> bool {
    let fails = |pod: &PodState| version.has(pod) && pod.waiting.is_some();
    version.child.failure.is_some() && !input.kube.pods.iter().any(fails)
}

/// Pods that the version's own work calls for, whatever it has: with its floors in it, they would call for more of
/// themselves.
fn own_need(input: &PlanInput<'_>, scaling: &Scaling, version: &Version<'_>, state: &State) -> u32 {
    let seen = signals::input(input, version, Vec::new(), version.known().is_some());
    let (decision, _) = scaling::decide(&scaling.policy, &seen, state);
    decision.report.lanes.iter().map(|lane| lane.rate_replicas).max().unwrap_or(0)
}

/// The floor under a target without traffic: one pod, as a version that never polled owns no backlog that could start it.
fn without_traffic(stage: Option<&Stage>, version: &Version<'_>) -> Option<Floor> {
    let name = version.child.build_id.as_deref().unwrap_or_default();
    let reason = match stage? {
        // Unknown holds whatever runs: the lanes are unknown too, and doubt neither shrinks nor wakes a fleet.
        Stage::Current | Stage::Unknown => return None,
        Stage::Registering { missing } => {
            format!("version {name} runs one pod until the server knows its Task Queues: {missing}")
        }
        Stage::Waiting(_) => format!("version {name} runs one pod until it gets traffic"),
        Stage::Ramping { .. } => format!("version {name} runs one pod while it ramps"),
    };
    Some(Floor { replicas: 1, reason })
}

fn carry_out(input: &PlanInput<'_>, version: &Version<'_>, decision: &Decision, planned: &mut Plan) {
    if input.fleet.scaling.as_ref().is_some_and(|scaling| scaling.dry_run) {
        return;
    }
    let child = version.child;
    let marks = deletion_costs(input, version, decision);
    // Victims are marked first. Where a task could be killed with them, they take none any more, and the decrease is decided
    // once more on what their pods say then.
    let may_kill =
        !decision.any_ends_in_time && (may_get_tasks(input, decision) || read_before_marked(input, decision));
    let unsure = !marks.is_empty() || may_kill;
    let not_yet = decision.desired < child.spec_replicas && unsure;
    planned.actions.extend(marks);
    if decision.desired != child.spec_replicas && !not_yet {
        planned.actions.push(scale_to(child, decision.desired, decision.reason.clone()));
    }
    planned.cordon.extend(to_cordon(input, decision));
}

/// Takes the pods of a version away whose sunset has come. Says whether it did.
fn sets(version: &Version<'_>, planned: &mut Plan) -> bool {
    let due = planned.sunsets.get(&version.child.name) == Some(&Sunset::ScaleDown);
    if due {
        let reason = "0 replicas: nobody wants this version any more, and it has no work.".into();
        planned.actions.push(scale_to(version.child, 0, reason));
    }
    due
}

/// Replicas without the autoscaler: `spec.replicas`, or somebody else's.
fn scale_fixed(input: &PlanInput<'_>, version: &Version<'_>, planned: &mut Plan) {
    if sets(version, planned) {
        return;
    }
    let status = version.known().map(|info| info.status);
    let is_new = version.is_target && !version.is_current && input.fleet.build_id.is_some();
    let serves = version.is_target || version.is_current || status == Some(VersionStatus::Ramping);
    let at_zero = version.child.spec_replicas == 0;
    let to = match input.fleet.replicas {
        Some(replicas) if serves => Some((replicas, format!("{replicas} replicas: spec.replicas says so."))),
        Some(replicas) if status == Some(VersionStatus::Draining) && at_zero && replicas > 0 => {
            Some((replicas, format!("{replicas} replicas: pinned Workflows may be open on this version.")))
        }
        None if is_new && at_zero => Some((1, "1 replica: a new version must poll before it gets traffic.".into())),
        _ => None,
    };
    if let Some((to, reason)) = to.filter(|(to, _)| *to != version.child.spec_replicas) {
        planned.actions.push(scale_to(version.child, to, reason));
    }
    if is_new
        && !lacks_room(input, version)
        && let Some(rollout) = &mut planned.rollout
    {
        let share = rollout.change.map_or(0.0, |change| f64::from(change.percent()));
        let wanted = input.fleet.replicas.map_or(0, |replicas| ramp_floor(replicas, share));
        rollout.wait_for_pods(version.child.ready_replicas, wanted);
    }
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
pub(super) fn cordon_marks(input: &PlanInput<'_>, cordon: &BTreeSet<String>) -> Vec<Action> {
    let mark = |pod: &PodState| {
        let cordoned = cordon.contains(&pod.name);
        (pod.shown_cordoned != cordoned).then(|| Action::ShowCordon { pod: pod.name.clone(), cordoned })
    };
    input.kube.pods.iter().filter(|pod| !pod.terminating).filter_map(mark).collect()
}

/// Marks the victims, and unmarks pods that were victims once.
fn deletion_costs(input: &PlanInput<'_>, version: &Version<'_>, decision: &Decision) -> Vec<Action> {
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
    input.kube.pods.iter().filter(|pod| version.has(pod) && !pod.terminating).filter_map(cost).collect()
}
