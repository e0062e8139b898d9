//! What the types say beyond the schema: defaults, the texts of the API.

use operator_core::api::{
    ConditionType, Reason, ScalingMode, ScalingPause, VersionStatus, WorkerDeployment, WorkerDeploymentStatus,
    reference_markdown,
};
use serde_json::{Value, json};

fn fleet(patch: Value) -> WorkerDeployment {
    let mut spec = json!({
        "workerOptions": { "connectionRef": { "name": "temporal" }, "temporalNamespace": "default" },
        "template": { "spec": { "containers": [{ "name": "worker", "image": "worker:v1" }] } },
        "rollout": { "strategy": "AllAtOnce" },
        "sunset": {},
    });
    let fields = spec.as_object_mut().unwrap();
    fields.extend(patch.as_object().unwrap().clone());
    let object = json!({ "apiVersion": "temporal.io/v1alpha1", "kind": "WorkerDeployment", "metadata": { "name": "orders" }, "spec": spec });
    serde_json::from_value(object).unwrap()
}

#[test]
fn absent_fields_have_the_defaults_of_the_schema() {
    let fleet = fleet(json!({ "scaling": {} })).spec;
    let scaling = fleet.scaling.unwrap();
    assert_eq!((scaling.min_replicas, scaling.max_replicas), (0, 10));
    assert_eq!((scaling.target_latency.as_str(), scaling.percentile, scaling.idle_window.as_str()), ("5s", 95, "180s"));
    assert_eq!((scaling.pause, scaling.dry_run, scaling.mode), (ScalingPause::None, false, ScalingMode::Full));
    assert!(scaling.schedule.is_empty() && scaling.ramp.is_none() && scaling.roles.is_none());
    assert_eq!((fleet.min_ready_seconds, fleet.progress_deadline_seconds), (0, 600));
}

/// The template must come back as it was stored: other values would be another build id.
#[test]
fn a_template_is_kept_verbatim() {
    let template = json!({
        "metadata": { "labels": { "app": "worker" }, "annotations": { "n": "1" } },
        "spec": { "containers": [{ "name": "w", "image": "w", "resources": { "limits": { "cpu": "1000m" } }, "newField": [1, 2.5, null] }] },
    });
    let fleet = fleet(json!({ "template": template }));
    assert_eq!(serde_json::to_value(&fleet).unwrap()["spec"]["template"], template);
    assert_eq!(fleet.spec.template.unwrap().value(), template);
}

#[test]
fn a_status_of_the_go_controller_is_read_and_written_back() {
    let status = json!({
        "targetVersion": { "buildID": "v2-1", "status": "Ramping", "rampPercentage": 25.0, "rampingSince": "2026-08-07T10:00:00Z",
            "deployment": { "name": "orders-v2-1", "namespace": "prod", "uid": "u" },
            "taskQueues": [{ "name": "orders" }],
            "testWorkflows": [{ "workflowID": "w", "runID": "r", "status": "Completed", "taskQueue": "orders" }] },
        "currentVersion": { "buildID": "v1-1", "status": "Current", "healthySince": "2026-08-07T09:00:00Z" },
        "deprecatedVersions": [{ "buildID": "v0-1", "status": "Drained", "drainedSince": "2026-08-07T08:00:00Z", "eligibleForDeletion": true }],
        "versionConflictToken": "AQI=", "lastModifierIdentity": "me", "managerIdentity": "op", "versionCount": 3,
        "conditions": [{ "type": "Ready", "status": "False", "reason": "Ramping", "message": "", "observedGeneration": 2, "lastTransitionTime": "2026-08-07T10:00:00Z" }],
    });
    let read: WorkerDeploymentStatus = serde_json::from_value(status.clone()).unwrap();
    assert_eq!(read.target_version.version.status, VersionStatus::Ramping);
    assert_eq!(serde_json::to_value(&read).unwrap(), status);
}

#[test]
fn a_blocked_target_is_written_with_empty_texts() {
    let mut status = WorkerDeploymentStatus::default();
    status.target_version.version.status = VersionStatus::Unknown;
    assert_eq!(serde_json::to_value(&status).unwrap(), json!({ "targetVersion": { "buildID": "", "status": "" } }));
    let strange = json!({ "targetVersion": { "buildID": "x", "status": "FromTheFuture" } });
    let read: WorkerDeploymentStatus = serde_json::from_value(strange).unwrap();
    assert_eq!(read.target_version.version.status, VersionStatus::Unknown);
}

#[test]
fn the_words_of_the_contract_are_kept() {
    let reasons = [
        "RolloutComplete",
        "Ramping",
        "WaitingForPromotion",
        "WaitingForPollers",
        "InvalidSpec",
        "ConnectionNotFound",
        "AuthSecretInvalid",
        "TemporalClientCreationFailed",
        "TemporalStateFetchFailed",
        "PlanGenerationFailed",
        "PlanExecutionFailed",
        "ConnectionHealthy",
        "ActivePollers",
        "PollerStatusUnknown",
        "Deprecated",
        "WorkerDeploymentExists",
        "MigratedToWorkerDeployment",
        "MigratedToConnection",
        "DeletingPendingMigration",
        "AllVersionsApplied",
        "ApplyFailed",
        "WorkerDeploymentNotFound",
    ];
    for word in reasons {
        assert!(Reason::ALL.iter().any(|reason| reason.as_str() == word), "{word}");
    }
    for word in ["Ready", "Progressing", "ConnectionHealthy", "RolloutComplete", "ScalingActive", "Stalled"] {
        assert!(ConditionType::ALL.iter().any(|type_| type_.as_str() == word), "{word}");
    }
}

#[test]
fn the_reference_names_fields_defaults_and_rules() {
    let text = reference_markdown();
    for line in [
        "| `spec.scaling.targetLatency` | duration | `\"5s\"` |",
        "| `spec.scaling.idleWindow` | duration or `Auto` | `\"180s\"` |",
        "| `spec.scaling.podMetrics.port` | integer or text (",
        "| `spec.scaling.schedule[].cron` *required* | text (",
        "| `spec.workerOptions` *required* | object |",
        "| `spec.rollout.strategy` *required* | `Manual`, `AllAtOnce`, `Progressive` |",
        "- `spec.scaling`: minReplicas must not be more than maxReplicas",
        "| `spec.allowedNamespaces.names` | list of text",
        "| `spec.allowedNamespaces.selector.matchExpressions[].operator` *required* | `In`, `NotIn`, `Exists`, `DoesNotExist` |",
        "- `object`: spec is required",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("spec.template.spec"), "a pod template is Kubernetes' own");
}
