//! What a WorkerDeployment's status says, from what was seen and concluded.
//!
//! | situation | Ready | Progressing |
//! |---|---|---|
//! | the manifest, Connection or Secret can't be used | False, the cause | False, the cause |
//! | the server refuses or does not answer | False, the cause | False, the cause |
//! | no pod can start | False, the cause | False, the cause |
//! | the target was never read from the server | Unknown `PollerStatusUnknown` | True `PollerStatusUnknown` |
//! | a test Workflow of a gate failed, or can't be started | False `GateFailed`, `TestWorkflowStartFailed` | the same |
//! | the target has yet to poll | False `WaitingForPollers` | True `WaitingForPollers` |
//! | the target polls and has no traffic yet | False `WaitingForPromotion` | True `WaitingForPromotion` |
//! | the target has a share of the traffic | False `Ramping` | True `Ramping` |
//! | the target has the traffic, or versioning is off | True `RolloutComplete` | False `RolloutComplete` |

mod gates;
mod limits;
mod scaling;
mod staleness;
mod verdict;
mod versions;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::api::{
    ConditionStatus, ConditionType, ConditionUpdate, Reason, WorkerDeploymentStatus, remove_condition, set_condition,
};
use crate::commands;
use crate::fleet::Fleet;
use crate::names;
use crate::observed::{ChildState, KubeState, Observation, PodState, PollingDegraded, TemporalState};
use crate::plan::Plan;
use crate::rollout::{Order, Rollout, Stage};

pub use gates::record as gate_record;
pub use scaling::term;
pub use staleness::{STALE_GRACE, Staleness, staleness};
use verdict::{failure_message, failure_reason, verdict};

/// Least time between two writes of a status in which only measured numbers changed.
pub const QUIET_WRITE_INTERVAL: Duration = Duration::from_secs(30);

/// Why nothing could be planned or carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// The contract's word.
    pub reason: Reason,
    /// Object, field, value and remedy.
    pub message: String,
}

/// What a status is computed from.
#[derive(Clone, Copy, Debug)]
pub struct StatusInput<'a> {
    /// `metadata.generation`.
    pub generation: i64,
    /// The status as it is.
    pub previous: &'a WorkerDeploymentStatus,
    /// What stopped the reconcile, if anything.
    pub blocked: Option<&'a Blocked>,
    /// The fleet and its plan; none while the manifest can't be resolved.
    pub planned: Option<(&'a Fleet, &'a Plan)>,
    /// The cluster.
    pub kube: &'a KubeState,
    /// The server.
    pub temporal: &'a TemporalState,
    /// The object's annotations.
    pub annotations: &'a BTreeMap<String, String>,
    /// What the commands of the previous status ordered.
    pub order: Order,
    /// Replicas after the plan was carried out, by the names of the Deployments whose replicas it changed.
    pub scaled_to: &'a BTreeMap<String, u32>,
    /// Time for which readings have been missing or old without a break; none while they are fresh.
    pub stale_for: Option<Duration>,
    /// Wall clock.
    pub now: Timestamp,
}

fn addressee<'a>(build_id: &'a str, rollout: Option<&Rollout>) -> commands::Addressee<'a> {
    commands::Addressee {
        build_id,
        failed_gate: rollout.and_then(|rollout| rollout.gates.failed),
        // Nobody looks at the gates of a version that is current: none of them failed.
        gates_seen: rollout.is_some_and(|rollout| rollout.gates.ids.is_some() || rollout.stage == Stage::Current),
    }
}

/// Computes the status. Conditions and `lastScaleTime` are carried over; the rest stands on what was seen now.
#[must_use]
pub fn compute(input: &StatusInput<'_>) -> WorkerDeploymentStatus {
    let mut status = WorkerDeploymentStatus {
        conditions: input.previous.conditions.clone(),
        observed_generation: Some(input.generation),
        scaling: input.previous.scaling.clone(),
        ..WorkerDeploymentStatus::default()
    };
    match input.planned {
        Some((fleet, plan)) => {
            let handled = &input.previous.handled_commands;
            let target = fleet.build_id.as_deref().map(|build_id| addressee(build_id, plan.rollout.as_ref()));
            status.handled_commands = commands::record(handled, input.annotations, target, input.now);
            scaling::fill(&mut status, input, fleet, plan);
            versions::fill(&mut status, input, fleet);
            status.target_version.test_workflows = gates::tests(&input.previous.target_version, fleet, plan);
        }
        None => versions::keep(&mut status, input.previous),
    }
    let verdict = verdict(input);
    let mut conditions = std::mem::take(&mut status.conditions);
    let mut set = |type_, status, reason, message: &str| {
        let message = message.to_owned();
        set_condition(
            &mut conditions,
            ConditionUpdate { type_, status, reason, message },
            Some(input.generation),
            input.now,
        );
    };
    set(ConditionType::Ready, verdict.ready, verdict.reason, &verdict.message);
    set(ConditionType::Progressing, verdict.progressing.into(), verdict.reason, &verdict.message);
    let healthy = connection_health(input);
    if let Some((status, reason, message)) = &healthy {
        set(ConditionType::ConnectionHealthy, *status, *reason, message);
    }
    if verdict.reason == Reason::RolloutComplete {
        set(ConditionType::RolloutComplete, ConditionStatus::True, Reason::RolloutComplete, &verdict.message);
    }
    for (type_, (status, reason, message)) in scaling::conditions(input) {
        set(type_, status, reason, &message);
    }
    if input.planned.is_some_and(|(fleet, _)| fleet.scaling.is_none()) {
        scaling::CONDITIONS.iter().for_each(|&type_| _ = remove_condition(&mut conditions, type_));
    }
    let stalled = verdict.stalled.then(|| (verdict.reason, verdict.message.clone()));
    status.conditions = conditions;
    set_while_true(&mut status, input, stalled);
    status
}

/// Conditions that are there only while they are true.
fn set_while_true(status: &mut WorkerDeploymentStatus, input: &StatusInput<'_>, stalled: Option<(Reason, String)>) {
    let optional = [
        (ConditionType::Stalled, stalled.or_else(|| scaling::stalled(input))),
        (ConditionType::Paused, paused(input)),
        (ConditionType::GracePeriodTooShort, short_grace(input)),
    ];
    for (type_, holds) in optional {
        match holds {
            Some((reason, message)) => {
                let update = ConditionUpdate { type_, status: ConditionStatus::True, reason, message };
                status.set_condition(update, input.now);
            }
            None => _ = remove_condition(&mut status.conditions, type_),
        }
    }
}

/// The status of an object that is being deleted: what it was, and what it waits for.
#[must_use]
pub fn deleting(
    previous: &WorkerDeploymentStatus,
    generation: i64,
    waiting: &str,
    now: Timestamp,
) -> WorkerDeploymentStatus {
    let mut status = WorkerDeploymentStatus { observed_generation: Some(generation), ..previous.clone() };
    let message = format!(
        "The object is being deleted. {waiting} Set spec.deletionPolicy to Orphan to leave the Temporal server as it is."
    );
    for (type_, value) in [(ConditionType::Ready, false), (ConditionType::Progressing, true)] {
        let status_ = ConditionStatus::from(value);
        let update = ConditionUpdate { type_, status: status_, reason: Reason::Deleting, message: message.clone() };
        status.set_condition(update, now);
    }
    status
}

/// Whether the new status must be written now, given the time since the last write. Ages alone are never written.
#[must_use]
pub fn must_write(old: &WorkerDeploymentStatus, new: &WorkerDeploymentStatus, since_write: Duration) -> bool {
    if scaling::without_ages(old) == scaling::without_ages(new) {
        return false;
    }
    since_write >= QUIET_WRITE_INTERVAL || scaling::without_gauges(old) != scaling::without_gauges(new)
}

/// Whether the server was not heard of yet, neither by an answer nor by its silence, and the status is one of this generation:
/// then it says more than a new one would. So a restart of the operator turns no condition back and forth.
#[must_use]
pub fn says_more_already(input: &StatusInput<'_>) -> bool {
    let asks = input.planned.is_some_and(|(fleet, _)| fleet.build_id.is_some());
    let unheard = matches!(input.temporal.deployment, Observation::Unknown) && input.temporal.failure.is_none();
    let ready = || input.previous.condition(ConditionType::Ready)?.observed_generation;
    // temporal-worker-controller says the generation in the conditions alone.
    let is_of = input.previous.observed_generation.or_else(ready);
    asks && unheard && input.blocked.is_none() && is_of == Some(input.generation)
}

type Condition = (ConditionStatus, Reason, String);

fn connection_health(input: &StatusInput<'_>) -> Option<Condition> {
    if let Some(blocked) = input.blocked {
        let about = matches!(
            blocked.reason,
            Reason::ConnectionNotFound | Reason::ConnectionNotAllowed | Reason::AuthSecretInvalid
        );
        return about.then(|| (ConditionStatus::False, blocked.reason, blocked.message.clone()));
    }
    let (fleet, _) = input.planned?;
    match &input.temporal.failure {
        Some(failure) => Some((ConditionStatus::False, failure_reason(failure).0, failure_message(failure, fleet))),
        None => {
            let asked = input.temporal.deployment.known().is_some()
                || input.temporal.lanes.values().any(|lane| lane.known().is_some());
            asked.then(|| match &input.temporal.degraded {
                Some(degraded) => (ConditionStatus::True, Reason::PollingDegraded, degraded_message(degraded, fleet)),
                None => (ConditionStatus::True, Reason::ConnectionHealthy, "The Temporal server answers.".into()),
            })
        }
    }
}

/// The factor as a power of two: it moves, and the message is not to move with it.
fn degraded_message(degraded: &PollingDegraded, fleet: &Fleet) -> String {
    let times = (1..16).map(|power| 1_u32 << power).find(|times| f64::from(*times) >= degraded.factor);
    let times = times.unwrap_or(1 << 16);
    format!(
        "The Temporal server answers, but namespace {:?} has more to be read than the operator's budget allows: readings \
         come up to {times} times as late as they should. Spread the fleets over more Temporal namespaces, or raise \
         --temporal-calls-per-second, which helps Task Queues without pods.",
        fleet.temporal_namespace
    )
}

fn paused(input: &StatusInput<'_>) -> Option<(Reason, String)> {
    let (fleet, plan) = input.planned?;
    let by_command = input.order == Order::Pause;
    (plan.rollout.is_some() && (fleet.rollout.paused || by_command)).then(|| {
        let cause = if fleet.rollout.paused { "spec.rollout.paused" } else { "a command" };
        (Reason::Paused, format!("The traffic of every version stays as it is: {cause} says so."))
    })
}

/// The runtime stops what outlasts its drain, and gives it back to the server; an SDK's Worker is killed with it.
fn short_grace(input: &StatusInput<'_>) -> Option<(Reason, String)> {
    let (fleet, plan) = input.planned.filter(|(fleet, plan)| fleet.runs_an_sdk && plan.decision.is_some())?;
    let lane = plan.scaling.outlasting(fleet.grace)?;
    let message = format!(
        "{lane}: tasks run longer than the {} s that a pod gets to end. Those that run when a pod goes are lost, and tried \
         again only after their timeout: set spec.template.spec.terminationGracePeriodSeconds above the longest task.",
        fleet.grace.as_secs()
    );
    Some((Reason::TasksOutlastGracePeriod, message))
}

/// The version that does the work.
fn main_child<'a>(fleet: &Fleet, input: &StatusInput<'a>) -> Option<&'a ChildState> {
    crate::versions::main_child(fleet, input.kube, input.temporal)
}

fn child<'a>(fleet: &Fleet, kube: &'a KubeState) -> Option<&'a ChildState> {
    kube.children.iter().find(|child| child.name == fleet.child_name)
}

fn target_pods<'a>(fleet: &Fleet, kube: &'a KubeState) -> impl Iterator<Item = &'a PodState> {
    let label = fleet.build_id.as_deref().map(names::build_id_label);
    kube.pods.iter().filter(move |pod| pod.build_id == label && !pod.terminating)
}
