//! A cluster that temporal-worker-controller 1.8 works in, and Deployments that others scale.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::core::cel::Validator;
use operator_core::api::crds;
use operator_core::defaults;
use operator_core::migrate::{Cluster, Finding, Kind, Listed, Report, Severity, check};
use serde_json::{Value, json};

pub const NOW: &str = "2026-11-27T12:00:00Z";

/// A cluster with these objects and no others.
pub fn cluster(objects: &[(Kind, Value)]) -> Cluster {
    let mut lists: BTreeMap<Kind, Listed> = Kind::ALL.map(|kind| (kind, Listed::Objects(Vec::new()))).into();
    for (kind, object) in objects {
        match lists.get_mut(kind) {
            Some(Listed::Objects(list)) => list.push(object.clone()),
            _ => unreachable!("every kind has a list"),
        }
    }
    Cluster { lists, now: NOW.parse::<Timestamp>().unwrap() }
}

pub fn report(objects: &[(Kind, Value)]) -> Report {
    check(&cluster(objects))
}

/// The only finding about an object.
pub fn finding<'a>(report: &'a Report, object: &str) -> &'a Finding {
    let own: Vec<_> = report.findings.iter().filter(|finding| finding.object() == object).collect();
    assert_eq!(own.len(), 1, "{object}: {:#?}", report.findings);
    own[0]
}

/// Asserts what is found of an object.
pub fn says(report: &Report, object: &str, severity: Severity, parts: &[&str]) {
    let found = finding(report, object);
    let all = [Some(&found.fate), found.change.as_ref(), found.command.as_ref()];
    let said = all.into_iter().flatten().cloned().collect::<Vec<_>>().join("\n");
    assert_eq!(found.severity, severity, "{object}: {said}");
    for part in parts {
        assert!(said.contains(part), "{object}: {part:?} is not in: {said}");
    }
}

pub fn fleet(patch: Value) -> Value {
    let mut fleet = json!({
        "apiVersion": "temporal.io/v1alpha1", "kind": "WorkerDeployment",
        "metadata": {"name": "orders", "namespace": "prod", "uid": "f-1", "generation": 2},
        "spec": {
            "workerOptions": {"connectionRef": {"name": "temporal"}, "temporalNamespace": "shop"},
            "template": {"metadata": {"labels": {"app": "worker"}}, "spec": {"containers": [{
                "name": "worker", "image": "ghcr.io/acme/worker:v1.2.3",
                "env": [{"name": "TEMPORAL_TASK_QUEUE", "value": "orders"}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}}}]}},
            "rollout": {"strategy": "AllAtOnce"}, "sunset": {},
        },
        "status": {
            "targetVersion": {"buildID": "v1.2.3-45d8", "status": "Current"},
            "managerIdentity": "twc/temporal-system/ns-1",
            "conditions": [{"type": "Ready", "status": "True", "reason": "RolloutComplete", "observedGeneration": 2,
                "message": "", "lastTransitionTime": "2026-11-27T11:00:00Z"}],
        },
    });
    merge(&mut fleet, patch);
    fleet
}

pub fn child(patch: Value) -> Value {
    let mut child = json!({
        "metadata": {
            "name": "orders-v1-2-3-45d8", "namespace": "prod",
            "labels": {"temporal.io/deployment-name": "orders", "temporal.io/build-id": "v1.2.3-45d8"},
            "ownerReferences": [{"apiVersion": "temporal.io/v1alpha1", "kind": "WorkerDeployment", "name": "orders",
                "uid": "f-1", "controller": true, "blockOwnerDeletion": true}],
        },
        "spec": {"replicas": 3},
    });
    merge(&mut child, patch);
    child
}

pub fn manager(replicas: u32) -> Value {
    json!({
        "metadata": {"name": "twc-manager", "namespace": "temporal-system"},
        "spec": {"replicas": replicas, "template": {"spec": {"containers": [{
            "name": "manager", "image": "temporalio/temporal-worker-controller:v1.8.1",
            "env": [{"name": "CONTROLLER_IDENTITY", "value": "twc/temporal-system"}]}]}}},
    })
}

pub fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "temporal-system"}, "status": {"phase": "Running"}})
}

pub fn definition(name: &str, release: Option<&str>, spec: Value) -> Value {
    let annotations = release.map_or(
        json!({}),
        |release| json!({"meta.helm.sh/release-name": release, "meta.helm.sh/release-namespace": "temporal-system"}),
    );
    json!({
        "metadata": {"name": format!("{name}.temporal.io"), "annotations": annotations},
        "spec": {"group": "temporal.io", "versions": [{"name": "v1alpha1",
            "schema": {"openAPIV3Schema": {"properties": {"spec": {"properties": spec}}}}}]},
    })
}

/// A Deployment of Workers without versions.
pub fn deployment(patch: Value) -> Value {
    let mut deployment = json!({
        "metadata": {"name": "orders", "namespace": "prod", "uid": "d-1"},
        "spec": {
            "replicas": 4,
            "selector": {"matchLabels": {"app": "orders"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {
                "metadata": {"creationTimestamp": null, "labels": {"app": "orders"}},
                "spec": {"serviceAccountName": "orders", "containers": [{
                    "name": "worker", "image": "ghcr.io/acme/worker:v7",
                    "ports": [{"name": "metrics", "containerPort": 9090, "protocol": "TCP"}],
                    "env": [
                        {"name": "TEMPORAL_ADDRESS", "value": "temporal.temporal:7233"},
                        {"name": "TEMPORAL_NAMESPACE", "value": "shop"},
                        {"name": "LOG", "value": "info"},
                    ]}]},
            },
        },
    });
    merge(&mut deployment, patch);
    deployment
}

pub fn scaled_object(spec: Value) -> Value {
    let mut object = json!({
        "metadata": {"name": "orders-keda", "namespace": "prod"},
        "spec": {
            "scaleTargetRef": {"name": "orders"},
            "maxReplicaCount": 20,
            "triggers": [{"type": "temporal", "metadata": {
                "endpoint": "temporal.temporal:7233", "namespace": "shop", "taskQueue": "orders",
                "queueTypes": "workflow,activity"}}],
        },
    });
    merge(&mut object["spec"], spec);
    object
}

/// Merges as a JSON merge patch does.
pub fn merge(into: &mut Value, patch: Value) {
    match patch {
        Value::Object(patch) if into.is_object() => {
            for (key, value) in patch {
                if value.is_null() {
                    into.as_object_mut().unwrap().remove(&key);
                } else {
                    merge(into.as_object_mut().unwrap().entry(key).or_insert(Value::Null), value);
                }
            }
        }
        other => *into = other,
    }
}

/// Asserts that an API server with this operator's kinds takes an object, and drops nothing of it.
pub fn is_taken(object: &Value) {
    let kind = object["kind"].as_str().unwrap();
    let crd = crds().into_iter().find(|crd| crd["spec"]["names"]["kind"] == kind).expect(kind);
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut stored = object.clone();
    defaults::apply(schema, &mut stored);
    assert!(contains(&stored, object), "{object:#} is stored as {stored:#}");
    if let Err(errors) = Validator::new().validate(schema, &stored, None) {
        panic!("{object:#}: {:?}", errors.into_vec());
    }
}

fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, value)| whole.get(key).is_some_and(|own| contains(own, value)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(own, value)| contains(own, value))
        }
        _ => whole == part,
    }
}
