//! Events as data: what happened to a fleet, said once, at the moment that it changed.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::api::{
    ConditionType, HandledCommand, Reason, ScalingStatus, TestWorkflow, WorkerDeploymentStatus, find_condition,
};
use crate::commands::annotation;
use crate::observed::TestStatus;

mod adoption;
mod failures;

pub use adoption::{adopted, collided, handed_over};
pub use failures::failed;

/// Event that the target was missed.
pub const SLO_MISSED: &str = "SLOMissed";
/// Least time between two of them.
pub const SLO_MISSED_INTERVAL: Duration = Duration::from_secs(900);

/// Whether somebody should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It went as it should.
    Normal,
    /// Somebody should look.
    Warning,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventData {
    /// Whether somebody should look.
    pub severity: Severity,
    /// CamelCase word for machines.
    pub reason: &'static str,
    /// What the operator was doing.
    pub action: &'static str,
    /// A sentence for people.
    pub note: String,
}

/// Replicas changed.
#[must_use]
pub fn scaled(from: u32, to: u32, why: &str) -> EventData {
    let reason = match (from, to) {
        (0, _) => "ScaledFromZero",
        (_, 0) => "ScaledToZero",
        _ if to > from => "ScaledUp",
        _ => "ScaledDown",
    };
    EventData { severity: Severity::Normal, reason, action: "Scale", note: format!("{from} → {to}: {why}") }
}

/// What the status says anew of the autoscaler: a condition that turned, and with `dryRun` a number that changed.
/// `since_missed` is the time since `SLOMissed` was last said.
#[must_use]
pub fn scaling_changed(
    old: &WorkerDeploymentStatus,
    new: &WorkerDeploymentStatus,
    since_missed: Option<Duration>,
) -> Vec<EventData> {
    let Some(scaling) = &new.scaling else { return Vec::new() };
    let told = |type_, bad: &str, reason| {
        let note = turned(old, new, type_, bad)?;
        Some(EventData { severity: Severity::Warning, reason, action: "Scale", note })
    };
    let limited = if scaling.dry_run { "DryRunScalingLimited" } else { "ScalingLimited" };
    let missed = told(ConditionType::SLOMet, "False", SLO_MISSED);
    let events = [
        dry_run(old.scaling.as_deref(), scaling),
        told(ConditionType::ScalingLimited, "True", limited),
        told(ConditionType::MetricsStale, "True", "MetricsStale"),
        told(ConditionType::GracePeriodTooShort, "True", "GracePeriodTooShort"),
        stalled(old.scaling.as_deref(), scaling),
        missed.filter(|_| since_missed.is_none_or(|time| time >= SLO_MISSED_INTERVAL)),
    ];
    events.into_iter().flatten().collect()
}

/// The message of a condition that turned to `bad`, or is that for another reason than before.
fn turned(
    old: &WorkerDeploymentStatus,
    new: &WorkerDeploymentStatus,
    type_: ConditionType,
    bad: &str,
) -> Option<String> {
    let now = new.condition(type_).filter(|condition| condition.status == bad)?;
    let same = |before: &Condition| before.status == now.status && before.reason == now.reason;
    (!old.condition(type_).is_some_and(same)).then(|| now.message.clone())
}

fn stalled(old: Option<&ScalingStatus>, new: &ScalingStatus) -> Option<EventData> {
    let find = |scaling: &ScalingStatus| {
        let word = Reason::PodsNotBecomingReady.as_str();
        scaling.limits.iter().find(|limit| limit.reason == word).map(|limit| limit.message.clone())
    };
    let note = find(new).filter(|_| old.and_then(find).is_none())?;
    Some(EventData { severity: Severity::Warning, reason: "Stalled", action: "Scale", note })
}

/// With `dryRun` nothing is scaled: what would have been is said.
fn dry_run(old: Option<&ScalingStatus>, new: &ScalingStatus) -> Option<EventData> {
    let (before, to) = (old.and_then(|old| old.desired).or(new.current)?, new.desired?);
    if !new.dry_run || before == to {
        return None;
    }
    let count = |value: i32| u32::try_from(value).unwrap_or(0);
    let event = scaled(count(before), count(to), new.reason.as_deref().unwrap_or_default());
    let reason = match event.reason {
        "ScaledFromZero" => "DryRunScaledFromZero",
        "ScaledToZero" => "DryRunScaledToZero",
        "ScaledUp" => "DryRunScaledUp",
        _ => "DryRunScaledDown",
    };
    Some(EventData { reason, note: format!("would be {}", event.note), ..event })
}

/// A version got the traffic.
#[must_use]
pub fn promoted(from: Option<&str>, to: &str) -> EventData {
    let note = format!("Current version {} → {to}.", from.unwrap_or("(none)"));
    EventData { severity: Severity::Normal, reason: "VersionPromoted", action: "SetCurrentVersion", note }
}

/// A version got a share of the traffic, or another one.
#[must_use]
pub fn ramped(from: Option<&(String, f32)>, to: &str, percent: u8) -> EventData {
    let before = from.map_or("(none)".to_owned(), |(build_id, percent)| share(build_id, *percent));
    let note = format!("Ramping version {before} → {to} at {percent} %.");
    EventData { severity: Severity::Normal, reason: "VersionRamped", action: "SetRampingVersion", note }
}

/// Who routes a version could not be noted on the server.
#[must_use]
pub fn metadata_not_updated(build_id: &str, why: &str) -> EventData {
    let note = format!("The metadata of version {build_id} on the Temporal server could not be updated: {why}");
    EventData { severity: Severity::Warning, reason: "MetadataUpdateFailed", action: "UpdateMetadata", note }
}

/// A version lost its share of the traffic to the current one.
#[must_use]
pub fn ramp_cleared((build_id, percent): &(String, f32)) -> EventData {
    let note = format!("Ramping version {} → (none).", share(build_id, *percent));
    EventData { severity: Severity::Normal, reason: "RampCleared", action: "SetRampingVersion", note }
}

fn share(build_id: &str, percent: f32) -> String {
    let name = if build_id.is_empty() { "(unversioned)" } else { build_id };
    format!("{name} at {percent} %")
}

/// The operator became the manager of a Worker Deployment. `from` is the manager before, or empty.
#[must_use]
pub fn manager_claimed(deployment: &str, from: &str, identity: &str) -> EventData {
    let from = if from.is_empty() { "(none)".to_owned() } else { format!("{from:?}") };
    let note = format!("Manager of Worker Deployment {deployment:?}: {from} → {identity:?}.");
    EventData { severity: Severity::Normal, reason: "ManagerIdentityClaimed", action: "SetManager", note }
}

/// The pods of a version that is kept as it is were attached to the fleet's Connection.
#[must_use]
pub fn attached(child: &str, address: &str, temporal_namespace: &str) -> EventData {
    let note = format!(
        "Deployment {child} follows the Connection: its pods work in namespace {temporal_namespace:?} at {address}."
    );
    EventData { severity: Severity::Normal, reason: "DeploymentUpdated", action: "Attach", note }
}

/// A child Deployment was created.
#[must_use]
pub fn created(child: &str) -> EventData {
    let note = format!("Deployment {child} created.");
    EventData { severity: Severity::Normal, reason: "DeploymentCreated", action: "Apply", note }
}

/// A child Deployment was created, and scaled at once.
#[must_use]
pub fn created_with(child: &str, replicas: u32, why: &str) -> EventData {
    let note = format!("Deployment {child} created with {replicas} replicas: {why}");
    EventData { note, ..created(child) }
}

/// Commands by annotation that were taken note of.
#[must_use]
pub fn commands_handled(old: &WorkerDeploymentStatus, new: &WorkerDeploymentStatus) -> Vec<EventData> {
    let known = |command: &&HandledCommand| !old.handled_commands.contains(command);
    let event = |command: &HandledCommand| {
        let note = format!("{}={}: {}", annotation(&command.verb), command.value, command.message);
        let (severity, reason) = match command.accepted {
            true => (Severity::Normal, "CommandAccepted"),
            false => (Severity::Warning, "CommandRefused"),
        };
        EventData { severity, reason, action: "Command", note }
    };
    new.handled_commands.iter().filter(known).map(event).collect()
}

/// A test Workflow was started.
#[must_use]
pub fn test_started(workflow_id: &str, task_queue: &str) -> EventData {
    let note = format!("Test Workflow {workflow_id:?} started on Task Queue {task_queue:?}.");
    EventData { severity: Severity::Normal, reason: "TestWorkflowStarted", action: "Gate", note }
}

/// Test Workflows that ended, and not as they should.
#[must_use]
pub fn gates_failed(old: &WorkerDeploymentStatus, new: &WorkerDeploymentStatus) -> Vec<EventData> {
    let known = |test: &TestWorkflow| old.target_version.test_workflows.contains(test);
    let is_failure = |test: &TestWorkflow| TestStatus::of(&test.status).is_some_and(TestStatus::is_failure);
    let event = |test: &TestWorkflow| {
        let said = test.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
        let note = format!(
            "Test Workflow {:?} on Task Queue {:?} is {}{said}.",
            test.workflow_id, test.task_queue, test.status
        );
        EventData { severity: Severity::Warning, reason: "GateWorkflowFailed", action: "Gate", note }
    };
    let tests = new.target_version.test_workflows.iter();
    tests.filter(|test| is_failure(test) && !known(test)).map(event).collect()
}

/// The traffic went to unversioned Workers, with the object.
#[must_use]
pub fn traffic_taken(from: &str) -> EventData {
    let note = format!("Current version {from} → (unversioned): the object is being deleted.");
    EventData { severity: Severity::Normal, reason: "TrafficTaken", action: "Delete", note }
}

/// A deletion was given up: something is left on the server.
#[must_use]
pub fn deletion_incomplete(deployment: &str, left: &str) -> EventData {
    let note = format!(
        "The object goes, and Worker Deployment {deployment:?} may be left on the Temporal server: {left} Use `temporal worker \
         deployment set-current-version --deployment-name {deployment} --build-id \"\"`, and delete its versions."
    );
    EventData { severity: Severity::Warning, reason: "DeletionIncomplete", action: "Delete", note }
}

/// A child Deployment was deleted.
#[must_use]
pub fn deleted(child: &str) -> EventData {
    let note = format!("Deployment {child} deleted: nobody wants its version any more, and it has no work.");
    EventData { severity: Severity::Normal, reason: "DeploymentDeleted", action: "Delete", note }
}

/// The server's record of a version was deleted.
#[must_use]
pub fn version_deleted(build_id: &str) -> EventData {
    let note = format!("Version {build_id} deleted on the Temporal server.");
    EventData { severity: Severity::Normal, reason: "VersionDeleted", action: "DeleteVersion", note }
}

/// The server refused to delete the record of a version.
#[must_use]
pub fn version_not_deleted(build_id: &str, why: &str) -> EventData {
    let note =
        format!("Version {build_id} could not be deleted on the Temporal server, and its Deployment is kept: {why}");
    EventData { severity: Severity::Warning, reason: "VersionDeleteFailed", action: "DeleteVersion", note }
}

/// Variables of the user's were replaced.
#[must_use]
pub fn variables_replaced(names: &[String]) -> EventData {
    let note = format!(
        "spec.template sets {}, which the operator sets too: its own values are used. Remove them from the template.",
        names.join(", ")
    );
    EventData { severity: Severity::Warning, reason: "EnvironmentVariableReplaced", action: "Apply", note }
}

/// The cause that a fleet is not ready became another one, or the fleet became ready again.
#[must_use]
pub fn readiness_changed(old: &WorkerDeploymentStatus, new: &WorkerDeploymentStatus) -> Option<EventData> {
    let ready = |status: &WorkerDeploymentStatus| {
        let condition = find_condition(&status.conditions, ConditionType::Ready)?;
        Some((condition.status.clone(), condition.reason.clone(), condition.message.clone()))
    };
    let failing = |status: &WorkerDeploymentStatus| {
        // Neither ready nor on its way: something is wrong.
        find_condition(&status.conditions, ConditionType::Progressing).is_some_and(|one| one.status == "False")
            && find_condition(&status.conditions, ConditionType::Ready).is_some_and(|one| one.status == "False")
    };
    let (before, (_, reason, message)) = (ready(old), ready(new)?);
    let same = before.is_some_and(|(_, old_reason, _)| old_reason == reason);
    // Each test Workflow that failed has an event of its own.
    if reason == Reason::GateFailed.as_str() {
        return None;
    }
    if failing(new) && !same {
        let reason = failure_word(&reason);
        return Some(EventData { severity: Severity::Warning, reason, action: "Reconcile", note: message });
    }
    let known = ready(new).is_some_and(|(status, ..)| status != "Unknown");
    let recovered = failing(old) && !failing(new) && known;
    recovered.then_some(EventData {
        severity: Severity::Normal,
        reason: "Recovered",
        action: "Reconcile",
        note: message,
    })
}

/// The condition's word, as one that lives for ever.
fn failure_word(reason: &str) -> &'static str {
    crate::api::Reason::ALL.iter().map(|one| one.as_str()).find(|&word| word == reason).unwrap_or("Failed")
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::api::{ConditionStatus, ConditionUpdate, Reason};

    fn status(ready: bool, progressing: bool, reason: Reason) -> WorkerDeploymentStatus {
        let mut status = WorkerDeploymentStatus::default();
        for (type_, holds) in [(ConditionType::Ready, ready), (ConditionType::Progressing, progressing)] {
            let update = ConditionUpdate { type_, status: ConditionStatus::from(holds), reason, message: "m".into() };
            status.set_condition(update, Timestamp::UNIX_EPOCH);
        }
        status
    }

    #[test]
    fn a_failure_is_said_once_and_its_end_too() {
        let good = status(true, false, Reason::RolloutComplete);
        let bad = status(false, false, Reason::ConnectionNotFound);
        assert_eq!(readiness_changed(&good, &bad).unwrap().reason, "ConnectionNotFound");
        assert_eq!(readiness_changed(&bad, &bad), None);
        assert_eq!(readiness_changed(&bad, &good).unwrap().reason, "Recovered");
    }

    #[test]
    fn waiting_for_pollers_is_no_failure() {
        let waiting = status(false, true, Reason::WaitingForPollers);
        assert_eq!(readiness_changed(&WorkerDeploymentStatus::default(), &waiting), None);
    }

    #[test]
    fn scaling_names_both_numbers_and_the_reason() {
        let event = scaled(0, 3, "3 replicas: 25 tasks wait.");
        assert_eq!((event.reason, event.note.as_str()), ("ScaledFromZero", "0 → 3: 3 replicas: 25 tasks wait."));
        assert_eq!(scaled(3, 0, "").reason, "ScaledToZero");
        assert_eq!(scaled(3, 2, "").reason, "ScaledDown");
    }
}
