//! What a WorkerDeployment's status says, from what was seen and concluded.
//!
//! | situation | Ready | Progressing |
//! |---|---|---|
//! | the manifest, Connection or Secret can't be used | False, the cause | False, the cause |
//! | the server refuses or does not answer | False, the cause | False, the cause |
//! | no pod can start | False, the cause | False, the cause |
//! | the target was never read from the server | Unknown `PollerStatusUnknown` | True `PollerStatusUnknown` |
//! | the target has yet to poll | False `WaitingForPollers` | True `WaitingForPollers` |
//! | the target waits for the user | False `WaitingForPromotion` | True `WaitingForPromotion` |
//! | the target has the traffic, or versioning is off | True `RolloutComplete` | False `RolloutComplete` |

mod limits;
mod scaling;
mod staleness;
mod verdict;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::{
    ConditionStatus, ConditionType, ConditionUpdate, DeprecatedVersion, Reason, TargetVersion, Version, VersionStatus,
    WorkerDeploymentStatus, remove_condition, set_condition,
};
use crate::fleet::Fleet;
use crate::names;
use crate::observed::{self, ChildState, DeploymentInfo, KubeState, PodState, PollingDegraded, TemporalState};
use crate::plan::Plan;

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
    /// Replicas after the plan was carried out, if it changed them.
    pub scaled_to: Option<u32>,
    /// Time for which readings have been missing or old without a break; none while they are fresh.
    pub stale_for: Option<Duration>,
    /// Wall clock.
    pub now: Timestamp,
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
        Some((fleet, plan)) => versions(&mut status, input, fleet, plan),
        None => keep_versions(&mut status, input.previous),
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
    let optional = [
        (ConditionType::Stalled, stalled.or_else(|| scaling::stalled(input))),
        (ConditionType::Unsupported, unsupported(input)),
        (ConditionType::OldVersionsKept, old_versions(input)),
        (ConditionType::GracePeriodTooShort, short_grace(input)),
    ];
    for (type_, holds) in optional {
        match holds {
            Some((reason, message)) => {
                let update = ConditionUpdate { type_, status: ConditionStatus::True, reason, message };
                set_condition(&mut conditions, update, Some(input.generation), input.now);
            }
            None => _ = remove_condition(&mut conditions, type_),
        }
    }
    status.conditions = conditions;
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

type Condition = (ConditionStatus, Reason, String);

fn connection_health(input: &StatusInput<'_>) -> Option<Condition> {
    if let Some(blocked) = input.blocked {
        let about = matches!(blocked.reason, Reason::ConnectionNotFound | Reason::AuthSecretInvalid);
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

fn unsupported(input: &StatusInput<'_>) -> Option<(Reason, String)> {
    let (fleet, _) = input.planned?;
    (!fleet.unsupported.is_empty()).then(|| {
        let message = format!("Set, but not acted on in this release: {}.", fleet.unsupported.join(", "));
        (Reason::FieldNotSupported, message)
    })
}

fn old_versions(input: &StatusInput<'_>) -> Option<(Reason, String)> {
    let (fleet, _) = input.planned?;
    let names: Vec<_> = others(fleet, input.kube).map(|child| child.name.as_str()).collect();
    (!names.is_empty()).then(|| {
        let message = format!(
            "Old versions are left as they are, neither scaled down nor deleted, in this release: Deployment {}.",
            names.join(", ")
        );
        (Reason::SunsetNotSupported, message)
    })
}

/// The runtime stops what outlasts its drain, and gives it back to the server; an SDK's Worker is killed with it.
fn short_grace(input: &StatusInput<'_>) -> Option<(Reason, String)> {
    let (fleet, plan) = input.planned.filter(|(fleet, plan)| fleet.runs_an_sdk() && plan.decision.is_some())?;
    let lane = plan.scaling.outlasting(fleet.grace)?;
    let message = format!(
        "{lane}: tasks run longer than the {} s that a pod gets to end. Those that run when a pod goes are lost, and tried \
         again only after their timeout: set spec.template.spec.terminationGracePeriodSeconds above the longest task.",
        fleet.grace.as_secs()
    );
    Some((Reason::TasksOutlastGracePeriod, message))
}

fn child<'a>(fleet: &Fleet, kube: &'a KubeState) -> Option<&'a ChildState> {
    kube.children.iter().find(|child| child.name == fleet.child_name)
}

fn others<'a>(fleet: &'a Fleet, kube: &'a KubeState) -> impl Iterator<Item = &'a ChildState> {
    kube.children.iter().filter(|child| child.name != fleet.child_name)
}

fn target_pods<'a>(fleet: &Fleet, kube: &'a KubeState) -> impl Iterator<Item = &'a PodState> {
    let label = fleet.build_id.as_deref().map(names::build_id_label);
    kube.pods.iter().filter(move |pod| pod.build_id == label && !pod.terminating)
}

fn keep_versions(status: &mut WorkerDeploymentStatus, previous: &WorkerDeploymentStatus) {
    status.target_version = previous.target_version.clone();
    status.current_version = previous.current_version.clone();
    status.deprecated_versions = previous.deprecated_versions.clone();
    status.version_conflict_token = previous.version_conflict_token.clone();
    status.version_count = previous.version_count;
}

fn versions(status: &mut WorkerDeploymentStatus, input: &StatusInput<'_>, fleet: &Fleet, plan: &Plan) {
    scaling::fill(status, input, fleet, plan);
    let Some(build_id) = &fleet.build_id else { return };
    let info = input.temporal.deployment.last().and_then(Option::as_ref);
    let current = info.and_then(|info| info.current_build_id.as_deref());
    let mut target = version(build_id, info, child(fleet, input.kube), &fleet.namespace);
    if current != Some(build_id) {
        let lanes = info.and_then(|info| info.versions.get(build_id)).map(|version| &version.lanes);
        let queues = lanes.into_iter().flatten().filter(|lane| lane.task_type == observed::TaskType::Workflow);
        target.task_queues =
            queues.map(|lane| crate::api::VersionTaskQueue { name: lane.task_queue.clone() }).collect();
    }
    status.target_version = TargetVersion { version: target, ..TargetVersion::default() };
    let child_of = |id: &str| {
        let label = names::build_id_label(id);
        input.kube.children.iter().find(|child| child.build_id.as_deref() == Some(&label))
    };
    status.current_version = current.map(|id| version(id, info, child_of(id), &fleet.namespace));
    let mut old: Vec<_> = others(fleet, input.kube)
        .filter(|child| child.build_id.as_deref() != current.map(names::build_id_label).as_deref())
        .map(|child| {
            let id = child.build_id.clone().unwrap_or_default();
            DeprecatedVersion {
                version: version(&id, info, Some(child), &fleet.namespace),
                ..DeprecatedVersion::default()
            }
        })
        .collect();
    old.sort_by(|a, b| a.version.build_id.cmp(&b.version.build_id));
    status.deprecated_versions = old;
    if let Some(info) = info {
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        status.version_conflict_token =
            (!info.conflict_token.is_empty()).then(|| ByteString(info.conflict_token.clone()));
        status.manager_identity = some(&info.manager_identity);
        status.last_modifier_identity = some(&info.last_modifier_identity);
        status.version_count = i32::try_from(info.version_count).ok();
    }
}

fn version(build_id: &str, info: Option<&DeploymentInfo>, child: Option<&ChildState>, namespace: &str) -> Version {
    let known = info.and_then(|info| info.versions.get(build_id)).map(|version| version.status);
    let is_current = info.and_then(|info| info.current_build_id.as_deref()) == Some(build_id);
    Version {
        build_id: build_id.to_owned(),
        status: if is_current {
            VersionStatus::Current
        } else {
            known.map_or(VersionStatus::NotRegistered, api_status)
        },
        healthy_since: child.and_then(|child| child.available_since).map(Time),
        deployment: child.map(|child| ObjectReference {
            api_version: Some("apps/v1".into()),
            kind: Some("Deployment".into()),
            name: Some(child.name.clone()),
            namespace: Some(namespace.to_owned()),
            uid: Some(child.uid.clone()),
            ..ObjectReference::default()
        }),
        ..Version::default()
    }
}

fn api_status(status: observed::VersionStatus) -> VersionStatus {
    match status {
        observed::VersionStatus::NotRegistered => VersionStatus::NotRegistered,
        observed::VersionStatus::Inactive => VersionStatus::Inactive,
        observed::VersionStatus::Ramping => VersionStatus::Ramping,
        observed::VersionStatus::Current => VersionStatus::Current,
        observed::VersionStatus::Draining => VersionStatus::Draining,
        observed::VersionStatus::Drained => VersionStatus::Drained,
    }
}
