//! The conditions of temporal-worker-controller, which alerts and scripts look at, for each situation.

use operator_core::api::{ConditionType, Reason, WorkerDeploymentStatus};
use operator_core::events::readiness_changed;
use operator_core::observed::{
    FailureClass, KubeState, Observation, Ramp, TemporalFailure, TemporalState, VersionInfo, VersionStatus,
};
use operator_core::status::{Blocked, StatusInput, compute};
use serde_json::json;

use crate::fixtures::*;

const DEPRECATED: [ConditionType; 2] = [ConditionType::ConnectionHealthy, ConditionType::RolloutComplete];

/// A server on which another version is current and the target has this state.
fn target_is(status: VersionStatus) -> TemporalState {
    let fleet = fleet(json!({}));
    let mut temporal = server(&fleet, 0);
    let Observation::Known { value: Some(info), .. } = &mut temporal.deployment else { unreachable!() };
    info.current_build_id = Some("old".into());
    info.manager_identity = "me".into();
    let build_id = fleet.build_id.unwrap();
    if status == VersionStatus::Ramping {
        info.ramp = Some(Ramp { build_id: build_id.clone(), percent: 20.0, ..Ramp::default() });
    }
    let version = VersionInfo { status, lanes: [lane()].into(), ..VersionInfo::default() };
    info.versions.insert(build_id, known(Some(version)));
    let old = VersionInfo { status: VersionStatus::Current, lanes: [lane()].into(), ..VersionInfo::default() };
    info.versions.insert("old".into(), known(Some(old)));
    temporal
}

fn fails(class: FailureClass) -> TemporalState {
    let failure = Some(TemporalFailure { class, message: "why".into() });
    TemporalState { failure, ..TemporalState::default() }
}

fn status_of(temporal: &TemporalState, blocked: Option<Reason>) -> WorkerDeploymentStatus {
    let manual = json!({"strategy": "Manual"});
    let fleet = fleet(json!({"rollout": manual}));
    let blocked = blocked.map(|reason| Blocked { reason, message: "why".into() });
    status(&fleet, &cluster(&fleet, 1, 0), temporal, blocked.as_ref())
}

/// Status and reason of Ready and Progressing, and those of the deprecated conditions that are there.
fn row(status: &WorkerDeploymentStatus) -> Vec<String> {
    let of = |type_| {
        let condition = status.condition(type_)?;
        Some(format!("{type_}={} {}", condition.status, condition.reason))
    };
    [ConditionType::Ready, ConditionType::Progressing].into_iter().chain(DEPRECATED).filter_map(of).collect()
}

#[test]
fn each_situation_has_the_words_of_the_contract() {
    let current = server(&fleet(json!({})), 0);
    let unregistered = TemporalState { deployment: known(None), ..TemporalState::default() };
    let on_its_way = |word: &str| (format!("Ready=False {word}"), format!("Progressing=True {word}"), None);
    let failed = |word: &str, unhealthy: bool| {
        let health = unhealthy.then(|| format!("ConnectionHealthy=False {word}"));
        (format!("Ready=False {word}"), format!("Progressing=False {word}"), health)
    };
    let cases = [
        (target_is(VersionStatus::Ramping), None, on_its_way("Ramping")),
        (target_is(VersionStatus::Inactive), None, on_its_way("WaitingForPromotion")),
        (unregistered, None, on_its_way("WaitingForPollers")),
        (current.clone(), Some(Reason::InvalidSpec), failed("InvalidSpec", false)),
        (current.clone(), Some(Reason::ConnectionNotFound), failed("ConnectionNotFound", true)),
        (current.clone(), Some(Reason::AuthSecretInvalid), failed("AuthSecretInvalid", true)),
        (current.clone(), Some(Reason::PlanExecutionFailed), failed("PlanExecutionFailed", false)),
        (fails(FailureClass::Unreachable), None, failed("TemporalClientCreationFailed", true)),
        (fails(FailureClass::Other), None, failed("TemporalStateFetchFailed", true)),
        (fails(FailureClass::ResourceExhausted), None, failed("TemporalStateFetchFailed", true)),
    ];
    for (temporal, blocked, (ready, progressing, health)) in cases {
        let status = status_of(&temporal, blocked);
        let healthy = temporal.deployment.known().is_some() && blocked.is_none();
        let health = health.or_else(|| healthy.then(|| "ConnectionHealthy=True ConnectionHealthy".to_owned()));
        let wanted: Vec<_> = [ready, progressing].into_iter().chain(health).collect();
        assert_eq!(row(&status), wanted);
        let fails = wanted[1].contains("=False");
        let event = readiness_changed(&WorkerDeploymentStatus::default(), &status);
        let reason = status.condition(ConditionType::Ready).unwrap().reason.clone();
        assert_eq!(event.map(|event| event.reason.to_owned()), fails.then_some(reason), "a failure is an event too");
    }
    let complete = ["Ready=True", "Progressing=False", "RolloutComplete=True"];
    let is = row(&status_of(&current, None));
    assert!(complete.iter().all(|word| is.contains(&format!("{word} RolloutComplete"))), "{is:?}");
}

#[test]
fn a_server_that_asks_for_fewer_calls_is_named_in_the_words_that_alerts_look_for() {
    let status = status_of(&fails(FailureClass::ResourceExhausted), None);
    let message = &status.condition(ConditionType::Ready).unwrap().message;
    assert!(message.starts_with("Rate limited by Temporal server"), "{message}");
}

#[test]
fn what_was_complete_once_stays_said_as_the_contract_has_it() {
    let before = status_of(&server(&fleet(json!({})), 0), None);
    let fleet = fleet(json!({"rollout": {"strategy": "Manual"}}));
    let (kube, temporal) = (KubeState::default(), target_is(VersionStatus::Ramping));
    let plan = plan_of(&fleet, &kube, &temporal);
    let after = compute(&StatusInput {
        generation: 4,
        previous: &before,
        blocked: None,
        planned: Some((&fleet, &plan)),
        kube: &kube,
        temporal: &temporal,
        annotations: &Default::default(),
        order: Default::default(),
        scaled_to: &Default::default(),
        stale_for: None,
        now: NOW,
    });
    assert_eq!(words(&after, ConditionType::Ready), says("False", Reason::Ramping));
    assert_eq!(words(&after, ConditionType::RolloutComplete), says("True", Reason::RolloutComplete));
}

#[test]
fn ready_is_there_from_the_first_write_and_stalled_only_for_what_does_not_heal() {
    let stalled = |temporal: &TemporalState, blocked| {
        let status = status_of(temporal, blocked);
        assert_eq!(status.observed_generation, Some(3));
        status.condition(ConditionType::Stalled).map(|condition| condition.status.clone())
    };
    let nothing = TemporalState::default();
    assert_eq!(words(&status_of(&nothing, None), ConditionType::Ready).0, "Unknown");
    assert_eq!(stalled(&fails(FailureClass::Unreachable), None), None);
    assert_eq!(stalled(&fails(FailureClass::ResourceExhausted), None), None);
    assert_eq!(stalled(&nothing, Some(Reason::PlanExecutionFailed)), None);
    for reason in
        [Reason::InvalidSpec, Reason::ConnectionNotFound, Reason::ConnectionNotAllowed, Reason::AuthSecretInvalid]
    {
        assert_eq!(stalled(&nothing, Some(reason)).as_deref(), Some("True"));
    }
    assert_eq!(stalled(&fails(FailureClass::NamespaceNotFound), None).as_deref(), Some("True"));
}
