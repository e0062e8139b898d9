//! Whether a fleet is ready or on its way, and why not.

use super::{StatusInput, child, gates, target_pods};
use crate::api::{ConditionStatus, Reason};
use crate::commands;
use crate::fleet::Fleet;
use crate::identity;
use crate::observed::{FailureClass, KubeState, TemporalFailure};
use crate::rollout::{Hold, Move, Stage};

pub(super) struct Verdict {
    pub ready: ConditionStatus,
    pub progressing: bool,
    pub stalled: bool,
    pub reason: Reason,
    pub message: String,
}

impl Verdict {
    fn failed(reason: Reason, message: String, stalled: bool) -> Self {
        Self { ready: ConditionStatus::False, progressing: false, stalled, reason, message }
    }

    fn waiting(reason: Reason, message: String) -> Self {
        Self { ready: ConditionStatus::False, progressing: true, stalled: false, reason, message }
    }
}

pub(super) fn verdict(input: &StatusInput<'_>) -> Verdict {
    if let Some(blocked) = input.blocked {
        let heals_alone = matches!(blocked.reason, Reason::PlanExecutionFailed | Reason::PlanGenerationFailed);
        return Verdict::failed(blocked.reason, blocked.message.clone(), !heals_alone);
    }
    let Some((fleet, plan)) = input.planned else {
        return Verdict::failed(Reason::PlanGenerationFailed, "nothing could be planned".into(), false);
    };
    if let Some((reason, message)) = pods_fail(fleet, input.kube) {
        return Verdict::failed(reason, message, true);
    }
    if let Some(versions) = plan.at_version_limit {
        return Verdict::failed(Reason::VersionLimitReached, limit_message(versions, fleet), true);
    }
    if let Some(failure) = &input.temporal.failure {
        let (reason, stalled) = failure_reason(failure);
        return Verdict::failed(reason, failure_message(failure, fleet), stalled);
    }
    let Some(stage) = plan.stage() else { return unversioned(fleet, input.kube) };
    if let Some((reason, message, stalled)) = gates::verdict(stage, fleet) {
        return Verdict::failed(reason, message, stalled);
    }
    let mut verdict = by_stage(stage, fleet);
    verdict.message += gates::not_run(fleet, input.temporal);
    verdict
}

fn by_stage(stage: &Stage, fleet: &Fleet) -> Verdict {
    let build_id = fleet.build_id.as_deref().unwrap_or_default();
    match stage {
        Stage::Current => complete(format!("Version {build_id} is current.")),
        Stage::Unknown => Verdict {
            ready: ConditionStatus::Unknown,
            progressing: true,
            stalled: false,
            reason: Reason::PollerStatusUnknown,
            message: format!("The Temporal server has yet to answer for version {build_id}."),
        },
        Stage::Registering { missing } => {
            Verdict::waiting(Reason::WaitingForPollers, format!("Version {build_id} waits for its pollers: {missing}."))
        }
        Stage::Waiting(hold) => Verdict::waiting(
            Reason::WaitingForPromotion,
            format!("Version {build_id} polls and has no traffic yet: {}", why(hold, fleet)),
        ),
        Stage::Ramping { percent, hold } => Verdict::waiting(
            Reason::Ramping,
            format!("Version {build_id} gets {percent} % of new Workflows: {}", why(hold, fleet)),
        ),
    }
}

fn limit_message(versions: usize, fleet: &Fleet) -> String {
    format!(
        "Deployment {} is not made: {versions} old versions have work still, or pods, as many as there may be. Wait until \
         they are drained, end their Workflows, or raise CONTROLLER_MAX_DEPLOYMENT_VERSIONS_INELIGIBLE_FOR_DELETION.",
        fleet.child_name
    )
}

/// The rest of a sentence: what keeps a version from more traffic.
fn why(hold: &Hold, fleet: &Fleet) -> String {
    let deployment = &fleet.deployment_name;
    let namespace = &fleet.temporal_namespace;
    let command = |verb: &str| {
        format!("`temporal worker deployment {verb} --namespace {namespace} --deployment-name {deployment}`")
    };
    match hold {
        Hold::Changing(to) => format!("{} is under way.", next(*to)),
        Hold::Manual => {
            format!("spec.rollout.strategy leaves the rest to you. Use {}.", command("set-current-version"))
        }
        Hold::Paused => format!(
            "the rollout is paused. Set spec.rollout.paused to false, or annotate the object with {}=<Build ID>@<time>.",
            commands::annotation("resume")
        ),
        Hold::Aborted => format!(
            "a command ended its rollout. Change the template, or annotate the object with {}=<Build ID>@<time>.",
            commands::annotation("resume")
        ),
        Hold::Gate(hold) => gates::why(hold),
        Hold::Manager(manager) => format!(
            "Worker Deployment {deployment:?} is managed by {manager:?}, which alone may change its routing. Hand it over \
             with {}.",
            identity::remedy(manager, namespace, deployment)
        ),
        Hold::Missing(missing) => format!("{missing}."),
        Hold::Pods { ready, wanted, percent } => {
            format!("{percent} % waits for four of five of {wanted} pods; {ready} are Ready.")
        }
        Hold::Pause { then, at } => {
            let at = at.map(|at| format!(" at {at}")).unwrap_or_default();
            format!("{} follows{at}.", next(*then))
        }
        Hold::Outside { by } => format!(
            "{by:?} set that, which is below the first of spec.rollout.steps. Use {} to go on, or change the steps.",
            command("set-ramping-version")
        ),
    }
}

fn next(to: Move) -> String {
    match to {
        Move::Current => "all of the traffic".into(),
        Move::Ramp(percent) => format!("{percent} %"),
        Move::ClearRamp => "none of the traffic".into(),
    }
}

fn unversioned(fleet: &Fleet, kube: &KubeState) -> Verdict {
    match child(fleet, kube) {
        Some(child) if child.spec_replicas == 0 || child.ready_replicas > 0 => {
            complete(format!("Deployment {} runs, without Worker Versioning.", child.name))
        }
        _ => Verdict::waiting(
            Reason::WaitingForPollers,
            format!("Deployment {} has no ready pod yet.", fleet.child_name),
        ),
    }
}

fn complete(message: String) -> Verdict {
    Verdict {
        ready: ConditionStatus::True,
        progressing: false,
        stalled: false,
        reason: Reason::RolloutComplete,
        message,
    }
}

/// Why the fleet has no ready pod, if that will not heal alone.
fn pods_fail(fleet: &Fleet, kube: &KubeState) -> Option<(Reason, String)> {
    if kube.foreign_deployments.contains(&fleet.child_name) {
        let message = format!(
            "Deployment {} exists and belongs to somebody else; delete or rename it, or rename this WorkerDeployment.",
            fleet.child_name
        );
        return Some((Reason::PlanExecutionFailed, message));
    }
    let child = child(fleet, kube)?;
    if child.ready_replicas > 0 || child.spec_replicas == 0 {
        return None;
    }
    let waiting = target_pods(fleet, kube).find_map(|pod| pod.waiting.as_ref().map(|waiting| (pod, waiting)));
    if let Some((pod, waiting)) = waiting {
        let crash = waiting.reason == "CrashLoopBackOff";
        let (reason, remedy) = if crash {
            (Reason::PodCrashLooping, "look at its log with `kubectl logs --previous`")
        } else {
            (Reason::PodStartFailed, "correct the image, its pull secret or the container's configuration")
        };
        let said = waiting.last_words.as_ref().map(|said| format!(" It said: {said}")).unwrap_or_default();
        let message = format!(
            "Pod {}: container {} with image {:?} does not start ({}: {}); {remedy}.{said}",
            pod.name, waiting.container, waiting.image, waiting.reason, waiting.message
        );
        return Some((reason, message));
    }
    child
        .failure
        .as_ref()
        .map(|failure| (Reason::ProgressDeadlineExceeded, format!("Deployment {}: {failure}", child.name)))
}

/// Condition reason of a failure of the server, and whether it needs somebody to act.
pub(super) fn failure_reason(failure: &TemporalFailure) -> (Reason, bool) {
    match failure.class {
        FailureClass::Unreachable => (Reason::TemporalClientCreationFailed, false),
        FailureClass::NamespaceNotFound => (Reason::NamespaceNotFound, true),
        FailureClass::PermissionDenied => (Reason::PermissionDenied, true),
        FailureClass::Unauthenticated => (Reason::AuthSecretInvalid, true),
        FailureClass::ResourceExhausted | FailureClass::FailedPrecondition | FailureClass::Other => {
            (Reason::TemporalStateFetchFailed, false)
        }
    }
}

pub(super) fn failure_message(failure: &TemporalFailure, fleet: &Fleet) -> String {
    let said = &failure.message;
    let namespace = &fleet.temporal_namespace;
    match failure.class {
        FailureClass::Unreachable => format!(
            "The Temporal server does not answer: {said}. Check the Connection's spec.hostPort and spec.tls, and that the \
             operator may reach it; nothing is scaled down meanwhile."
        ),
        FailureClass::NamespaceNotFound => format!(
            "spec.workerOptions.temporalNamespace: {namespace:?} does not exist on the server ({said}); create it or \
             correct the name."
        ),
        FailureClass::PermissionDenied => format!(
            "The Connection's credentials may not read Worker Deployments and Task Queues of Temporal namespace \
             {namespace:?} ({said}); grant them that."
        ),
        FailureClass::Unauthenticated => {
            format!("The server refuses the Connection's credentials ({said}); put valid ones into its Secret.")
        }
        FailureClass::ResourceExhausted => {
            format!("Rate limited by Temporal server: {said}. The operator asks less often.")
        }
        FailureClass::FailedPrecondition | FailureClass::Other => {
            format!("Temporal namespace {namespace:?} could not be read: {said}.")
        }
    }
}
