//! What the status says of the autoscaler.
//!
//! | situation | ScalingActive | ScalingLimited | MetricsStale | SLOMet |
//! |---|---|---|---|---|
//! | no `spec.scaling` | False `ScalingDisabled` | absent | absent | absent |
//! | `dryRun`, `pause: All` | False `DryRun`, `Paused` | as without | as without | as without |
//! | readings missing or old for 15 s | False `SignalsStale` | as before | True, which side | as before |
//! | the number is not what the work calls for | True | True, the first limit | False | as measured |
//! | all is well | True `SignalsFresh` | False `NotLimited` | False `SignalsFresh` | True `WithinTarget` |

use jiff::{SignedDuration, Timestamp, TimestampRound, Unit};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::limits::{decimal, describe, entry, rounded, time};
use super::staleness::{STALE_GRACE, staleness};
use super::{Condition, StatusInput, main_child};
use crate::api::{
    ConditionStatus, ConditionType, GoDuration, LaneStatus, Reason, ScalingBinding, ScalingStatus, SloStatus,
    TaskQueueType, WorkerDeploymentStatus,
};
use crate::fleet::{Fleet, Scaling};
use crate::observed::TaskType;
use crate::plan::Plan;
use crate::scaling::{Decision, LaneReport, Limit, Outcome, Pause, Slo};
use crate::versions::main_pods;

/// Conditions that a fleet without `spec.scaling` does not have.
pub(super) const CONDITIONS: [ConditionType; 3] =
    [ConditionType::ScalingLimited, ConditionType::MetricsStale, ConditionType::SLOMet];
/// Share of the late tasks that are allowed, below which a missed target counts as met again.
const SLO_RECOVERY: f64 = 0.6;
/// Seconds by which a moment may move without being another one.
const SAME_MOMENT: i64 = 2;

/// The conditions of the autoscaler; one that is missing stays as it is.
pub(super) fn conditions(input: &StatusInput<'_>) -> Vec<(ConditionType, Condition)> {
    let Some((fleet, plan)) = input.planned else { return Vec::new() };
    let Some(scaling) = &fleet.scaling else {
        let message = "spec.scaling is not set; the operator does not scale this fleet.".into();
        return vec![(ConditionType::ScalingActive, (ConditionStatus::False, Reason::ScalingDisabled, message))];
    };
    let Some(decision) = &plan.decision else { return Vec::new() };
    let found = [
        (ConditionType::ScalingActive, active(input, scaling)),
        (ConditionType::ScalingLimited, Some(limited(decision, scaling))),
        (ConditionType::MetricsStale, stale(input, fleet, plan)),
        (ConditionType::SLOMet, Some(slo_met(input, decision, scaling))),
    ];
    found.into_iter().filter_map(|(type_, condition)| Some((type_, condition?))).collect()
}

/// Whether readings are fresh, or have been old for long enough to say so; none in between.
fn settled(input: &StatusInput<'_>) -> Option<bool> {
    match input.stale_for {
        None => Some(true),
        Some(time) if time >= STALE_GRACE => Some(false),
        Some(_) => None,
    }
}

fn active(input: &StatusInput<'_>, scaling: &Scaling) -> Option<Condition> {
    if scaling.dry_run {
        let message = "spec.scaling.dryRun is set: the number is reported, and somebody else's to write.".into();
        return Some((ConditionStatus::False, Reason::DryRun, message));
    }
    if scaling.policy.pause == Pause::All {
        let message = "spec.scaling.pause is All: the number stays as it is.".into();
        return Some((ConditionStatus::False, Reason::Paused, message));
    }
    Some(if settled(input)? {
        (ConditionStatus::True, Reason::SignalsFresh, "Backlog and load are known.".into())
    } else {
        let message = "Backlog or load is old or unknown: nothing is scaled down until it is read again.".into();
        (ConditionStatus::False, Reason::SignalsStale, message)
    })
}

fn stale(input: &StatusInput<'_>, fleet: &Fleet, plan: &Plan) -> Option<Condition> {
    if settled(input)? {
        return Some((ConditionStatus::False, Reason::SignalsFresh, "Backlog and load are known.".into()));
    }
    let stale = staleness(fleet, plan, input.kube, input.temporal);
    let reason = match (&stale.server, &stale.workers) {
        (Some(_), Some(_)) => Reason::ServerAndWorkersStale,
        (None, Some(_)) => Reason::WorkersStale,
        _ => Reason::ServerStale,
    };
    let causes = [stale.server, stale.workers].into_iter().flatten().collect::<Vec<_>>().join("; and ");
    Some((ConditionStatus::True, reason, format!("Nothing is scaled down. Missing or old: {causes}.")))
}

fn limited(decision: &Decision, scaling: &Scaling) -> Condition {
    let limits = decision.report.limits.iter().filter(|limit| !matches!(limit, Limit::Stalled { .. }));
    let described: Vec<_> = limits.map(|limit| describe(limit, &scaling.policy)).collect();
    match described.first() {
        None if decision.outcome == Outcome::Degraded => {
            (ConditionStatus::True, Reason::Degraded, decision.reason.clone())
        }
        None => (ConditionStatus::False, Reason::NotLimited, "The number is what the tasks call for.".into()),
        Some((reason, _)) => {
            let messages: Vec<_> = described.iter().map(|(_, message)| message.as_str()).collect();
            (ConditionStatus::True, *reason, messages.join(" "))
        }
    }
}

/// Pods that do not become ready.
pub(super) fn stalled(input: &StatusInput<'_>) -> Option<(Reason, String)> {
    let (fleet, plan) = input.planned?;
    let (scaling, decision) = (fleet.scaling.as_ref()?, plan.decision.as_ref()?);
    let limit = decision.report.limits.iter().find(|limit| matches!(limit, Limit::Stalled { .. }))?;
    Some(describe(limit, &scaling.policy))
}

fn slo_met(input: &StatusInput<'_>, decision: &Decision, scaling: &Scaling) -> Condition {
    let Some(slo) = &decision.report.slo else {
        let message = "Too few tasks started within the last 15 minutes to tell.".into();
        return (ConditionStatus::Unknown, Reason::TooFewTasks, message);
    };
    let allowed = 1.0 - scaling.policy.percentile;
    let was_missed = input
        .previous
        .condition(ConditionType::SLOMet)
        .is_some_and(|condition| condition.status == ConditionStatus::False.as_str());
    let missed = slo.late_share > allowed || (was_missed && slo.late_share > allowed * SLO_RECOVERY);
    let share = format!(
        "{} % of the tasks of the last 15 minutes started later than {}; {} % may",
        decimal(slo.late_share * 100.0),
        time(slo.target),
        decimal(allowed * 100.0)
    );
    if missed {
        let message = format!(
            "{share}, and the target counts as met again at {} %. Pods are kept {} times as long for it; a higher \
             spec.scaling.minReplicas, or a schedule, keeps some ready for bursts.",
            decimal(allowed * SLO_RECOVERY * 100.0),
            decimal(slo.hold_multiplier)
        );
        return (ConditionStatus::False, Reason::SLOMissed, message);
    }
    (ConditionStatus::True, Reason::WithinTarget, format!("{share}."))
}

/// Fills `status.scaling`.
pub(super) fn fill(status: &mut WorkerDeploymentStatus, input: &StatusInput<'_>, fleet: &Fleet, plan: &Plan) {
    let Some(scaling) = &fleet.scaling else {
        status.scaling = None;
        return;
    };
    let (Some(decision), Some(child)) = (&plan.decision, main_child(fleet, input)) else { return };
    let previous = input.previous.scaling.as_ref();
    let last = previous.and_then(|scaling| scaling.last_scale_time.clone());
    let pods = main_pods(fleet, input.kube, input.temporal);
    let ready = pods.filter(|pod| pod.ready && !pod.terminating).count();
    let scaled_to = input.scaled_to.get(&child.name).copied();
    let report = &decision.report;
    status.scaling = Some(Box::new(ScalingStatus {
        desired: Some(int(decision.desired)),
        current: Some(int(scaled_to.unwrap_or(child.spec_replicas))),
        ready: i32::try_from(ready).ok(),
        backlog: decision.backlog.map(long),
        in_flight: decision.in_flight.map(long),
        reason: Some(decision.reason.clone()),
        dry_run: scaling.dry_run,
        binding: Some(binding(decision)),
        lanes: report.lanes.iter().map(lane).collect(),
        slo: report.slo.as_ref().map(slo),
        limits: report.limits.iter().map(|limit| entry(limit, &scaling.policy)).collect(),
        next_down_at: report.next_down_in.and_then(|time| {
            let at = input.now.checked_add(time).ok()?;
            moment(at, previous.and_then(|scaling| scaling.next_down_at.clone()))
        }),
        last_scale_time: if scaled_to.is_some() { Some(Time(input.now)) } else { last },
    }));
}

/// The moment in whole seconds; the previous one if that is the same but for how it was measured.
fn moment(at: Timestamp, previous: Option<Time>) -> Option<Time> {
    let at = at.round(TimestampRound::new().smallest(Unit::Second)).ok()?;
    let same = |previous: &Time| at.duration_since(previous.0).abs() <= SignedDuration::from_secs(SAME_MOMENT);
    previous.filter(same).or(Some(Time(at)))
}

fn binding(decision: &Decision) -> ScalingBinding {
    let lane = decision.report.binding.as_ref();
    ScalingBinding {
        task_queue: lane.map(|lane| lane.task_queue.clone()),
        task_type: lane.map(|lane| task_type(lane.task_type)),
        term: term(decision).to_owned(),
    }
}

/// What decided: one of a few words, as a label of metrics needs it.
#[must_use]
pub fn term(decision: &Decision) -> &'static str {
    match decision.outcome {
        Outcome::Scaled => "Load",
        other => other.as_str(),
    }
}

fn lane(report: &LaneReport) -> LaneStatus {
    let duration = |time| GoDuration::from(rounded(time));
    LaneStatus {
        task_queue: report.lane.task_queue.clone(),
        task_type: task_type(report.lane.task_type),
        backlog: report.backlog.map(long),
        age: report.backlog_age.map(duration),
        arrival_rate: report.arrival_rate.map(decimal),
        in_flight: long(report.in_flight),
        slots: report.slots_per_pod.map(decimal),
        service_time: report.service_time.map(duration),
        offered_load: decimal(report.offered_load),
        rate_replicas: int(report.rate_replicas),
        burst_replicas: int(report.burst_replicas),
        metrics_age: report.metrics_age.map(duration),
    }
}

fn slo(slo: &Slo) -> SloStatus {
    SloStatus {
        target: slo.target.into(),
        late_share: decimal(slo.late_share),
        hold_multiplier: decimal(slo.hold_multiplier),
    }
}

fn task_type(kind: TaskType) -> TaskQueueType {
    match kind {
        TaskType::Workflow => TaskQueueType::Workflow,
        TaskType::Activity => TaskQueueType::Activity,
        TaskType::Nexus => TaskQueueType::Nexus,
    }
}

fn int(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

fn long(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The status without what changes with time alone.
pub(super) fn without_ages(status: &WorkerDeploymentStatus) -> WorkerDeploymentStatus {
    let mut status = status.clone();
    status.scaling.iter_mut().flat_map(|scaling| &mut scaling.lanes).for_each(|lane| lane.metrics_age = None);
    status
}

/// The status without measured numbers, and without the sentences that hold them.
pub(super) fn without_gauges(status: &WorkerDeploymentStatus) -> WorkerDeploymentStatus {
    let mut status = status.clone();
    if let Some(scaling) = &mut status.scaling {
        **scaling = ScalingStatus {
            desired: scaling.desired,
            dry_run: scaling.dry_run,
            last_scale_time: scaling.last_scale_time.clone(),
            ..ScalingStatus::default()
        };
    }
    let measured = [CONDITIONS.as_slice(), &[ConditionType::Stalled]].concat();
    let is_measured = |type_: &str| measured.iter().any(|one| one.as_str() == type_);
    status.conditions.iter_mut().filter(|one| is_measured(&one.type_)).for_each(|one| one.message.clear());
    status
}
