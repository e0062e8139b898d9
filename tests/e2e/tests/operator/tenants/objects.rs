//! What tenant B tries to have of A's objects: Connections, Deployments, pods, templates, pushes.

use anyhow::Result;
use operator_core::border::Border;
use operator_core::push_token::{Grant, KEY_BYTES, PushKey};
use serde_json::{Value, json};

use super::super::{old_kinds::old_fleet, templates::template};
use super::attempts::{Attempt, Expected, Push, blocked};
use super::world::{A, B, World, fleet};

/// Build ID that only Deployments of B have.
pub const STOLEN: &str = "stolen";
/// Build ID of every fleet here: they have one template.
pub const BUILD_ID: &str = "v1.2.3-45d8";
/// Replicas of B's Deployments, which nobody is to change.
pub const REPLICAS: i32 = 3;
const API_VERSION: &str = "temporal.io/v1alpha1";

fn unnoticed(way: Border, what: String, objects: Vec<Value>) -> Attempt {
    Attempt { way, what, objects, expected: Expected::Nothing }
}

/// A's Connections that nobody uses: a fleet of B that names one is not to keep it.
pub fn holds() -> Vec<Attempt> {
    let of = |name: &str, connection: Value| {
        let what = format!("connectionRef {connection}");
        blocked(Border::ConnectionHold, what, name, vec![fleet(name, B, &connection)], "ConnectionNotFound")
    };
    vec![
        of("holds-0", json!({"name": "spare-0"})),
        of("holds-1", json!({"name": "spare-1"})),
        of("holds-2", json!({"name": "spare-2"})),
        of("holds-3", json!({"kind": "ClusterConnection", "name": "spare-0"})),
    ]
}

fn owner(kind: &str, name: &str, uid: &str, is_controller: bool) -> Value {
    json!({"apiVersion": API_VERSION, "kind": kind, "name": name, "uid": uid, "controller": is_controller})
}

fn deployment(name: &str, fleet: &str, build_id: Option<&str>, owners: Vec<Value>) -> Value {
    let mut labels = json!({"temporal.io/deployment-name": fleet});
    if let Some(build_id) = build_id {
        labels["temporal.io/build-id"] = json!(build_id);
    }
    let pods =
        json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "worker", "image": "worker:1"}]}});
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "labels": labels, "ownerReferences": owners},
        "spec": {"replicas": REPLICAS, "selector": {"matchLabels": labels}, "template": pods}})
}

/// Deployments of B that look like versions of A's fleet `payments`.
pub async fn deployments(world: &World) -> Result<Vec<Attempt>> {
    let uid = world.uid(&world.a, "payments").await?;
    let other = "00000000-0000-4000-8000-000000000000";
    let of = |name: &str, uid: &str, is_controller| vec![owner("WorkerDeployment", name, uid, is_controller)];
    let owners = [
        ("no owner", vec![]),
        ("the fleet as its controller", of("payments", &uid, true)),
        ("the fleet as an owner", of("payments", &uid, false)),
        ("the fleet by name alone", of("payments", other, true)),
        ("the fleet by UID alone", of("others", &uid, true)),
        ("the fleet by its old kind", vec![owner("TemporalWorkerDeployment", "payments", &uid, true)]),
    ];
    let mut attempts = Vec::new();
    for (which, (who, owners)) in owners.into_iter().enumerate() {
        for (form, build_id) in [Some(STOLEN), Some(BUILD_ID), None].into_iter().enumerate() {
            let object = deployment(&format!("stolen-{which}-{form}"), "payments", build_id, owners.clone());
            let what = format!("{who}, Build ID {build_id:?}");
            attempts.push(unnoticed(Border::Deployments, what, vec![object]));
        }
    }
    Ok(attempts)
}

/// Pods of B that look like A's: their numbers would be read.
pub async fn pods(world: &World) -> Result<Vec<Attempt>> {
    let uid = world.uid(&world.a, "payments").await?;
    let mut attempts = Vec::new();
    for (form, build_id) in [Some(BUILD_ID), Some(STOLEN), None].into_iter().enumerate() {
        for (which, owners) in [vec![], vec![owner("WorkerDeployment", "payments", &uid, true)]].into_iter().enumerate()
        {
            for phase in ["Running", "Pending"] {
                let mut labels = json!({"temporal.io/deployment-name": "payments"});
                if let Some(build_id) = build_id {
                    labels["temporal.io/build-id"] = json!(build_id);
                }
                let name = format!("pod-{form}-{which}-{}", phase.to_ascii_lowercase());
                let ports = json!([{"name": "metrics", "containerPort": world.visits.port}]);
                let pod = json!({"apiVersion": "v1", "kind": "Pod",
                    "metadata": {"name": name, "labels": labels, "ownerReferences": owners},
                    "spec": {"containers": [{"name": "worker", "image": "worker:1", "ports": ports}]},
                    "status": {"phase": phase, "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}],
                        "conditions": [{"type": "Ready", "status": "True"}]}});
                attempts.push(unnoticed(Border::Pods, name, vec![pod]));
            }
        }
    }
    // What stands before an @ is no host.
    for (number, path) in
        ["@10.0.0.1/metrics", "metrics@10.0.0.1/", "/metrics?of=a", ":1@10.0.0.1/metrics"].into_iter().enumerate()
    {
        let mut fleet = fleet(&format!("read-elsewhere-{number}"), B, &json!({"name": "temporal"}));
        fleet["spec"]["scaling"] = json!({"podMetrics": {"path": path}});
        let what = format!("a fleet whose pods are read at {path}");
        attempts.push(Attempt { way: Border::Pods, what, objects: vec![fleet], expected: Expected::Denied });
    }
    Ok(attempts)
}

/// Arguments of gates: A's Secret and ConfigMap by name and by path, and a Secret of the operator.
pub fn gates() -> Vec<Attempt> {
    let sources = [
        ("configMapKeyRef", "argument"),
        ("secretKeyRef", "argument"),
        ("configMapKeyRef", "../../tenant-a/configmaps/argument"),
        ("secretKeyRef", "../../tenant-a/secrets/argument"),
        ("secretKeyRef", "temporal-worker-operator-push"),
        ("configMapKeyRef", "tenant-a/argument"),
    ];
    let attempt = |(number, (source, named)): (usize, (&str, &str))| {
        let name = format!("gated-{number}");
        let mut fleet = fleet(&name, B, &json!({"name": "temporal"}));
        fleet["spec"]["scaling"] = json!({"minReplicas": 1, "taskQueues": [{"name": name, "types": ["Workflow"]}]});
        let input = json!({source: {"name": named, "key": "key"}});
        fleet["spec"]["rollout"] =
            json!({"strategy": "AllAtOnce", "gate": {"workflowType": "Smoke", "inputFrom": input}});
        let labels = json!({"temporal.io/deployment-name": name, "temporal.io/build-id": BUILD_ID});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels},
            "spec": {"containers": [{"name": "worker", "image": "worker:1"}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        let what = format!("{source} {named}");
        Attempt { way: Border::GateInput, what, objects: vec![fleet, pod], expected: Expected::Ungated(name) }
    };
    sources.into_iter().enumerate().map(attempt).collect()
}

/// Objects of the deprecated kinds with the names of A's: A's own would wait for what they own.
pub fn old_kinds() -> Vec<Attempt> {
    let mut labelled = old_fleet("invoices");
    labelled["metadata"]["labels"] = json!({"temporal.io/migrated-to-wd": "true"});
    let connection = |name: &str| {
        json!({"apiVersion": API_VERSION, "kind": "TemporalConnection", "metadata": {"name": name},
            "spec": {"hostPort": "temporal:7233"}})
    };
    vec![
        unnoticed(Border::OldKinds, "TemporalWorkerDeployment payments".into(), vec![old_fleet("payments")]),
        unnoticed(Border::OldKinds, "one with the label of what is handed over".into(), vec![labelled]),
        unnoticed(Border::OldKinds, "TemporalConnection private".into(), vec![connection("private")]),
        unnoticed(Border::OldKinds, "TemporalConnection second".into(), vec![connection("second")]),
    ]
}

/// Deployments of a TemporalWorkerDeployment of B whose successor's name only A has.
pub async fn successors(world: &World) -> Result<Vec<Attempt>> {
    let uid = world.uid(&world.a, "ledger").await?;
    let old = |is_controller| owner("TemporalWorkerDeployment", "ledger", "$owner", is_controller);
    let of_a = owner("WorkerDeployment", "ledger", &uid, false);
    let forms = [
        ("a Deployment", vec![old(true)], Some(STOLEN)),
        ("one that it does not control", vec![old(false)], Some(STOLEN)),
        ("one without a Build ID", vec![old(true)], None),
        ("one that names A's fleet too", vec![old(true), of_a], Some(STOLEN)),
    ];
    let attempt = |(number, (what, owners, build_id)): (usize, (&str, Vec<Value>, Option<&str>))| {
        let object = deployment(&format!("ledger-{number}"), "ledger", build_id, owners);
        unnoticed(
            Border::Successor,
            format!("{what} of TemporalWorkerDeployment ledger"),
            vec![old_fleet("ledger"), object],
        )
    };
    Ok(forms.into_iter().enumerate().map(attempt).collect())
}

fn config_map() -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"of": "b"}})
}

fn copied(name: &str, fleet: &str, object: Value) -> Value {
    let mut template = template(name, object);
    template["spec"]["workerDeploymentRef"]["name"] = json!(fleet);
    template
}

/// Templates for fleets that only A has.
pub fn templates_for_fleets() -> Vec<Attempt> {
    let mut attempts = Vec::new();
    for fleet in ["payments", "ledger", "invoices"] {
        for field in ["workerDeploymentRef", "temporalWorkerDeploymentRef"] {
            let name = format!("for-{fleet}-{}", field.len());
            let mut template = template(&name, config_map());
            template["spec"].as_object_mut().map(|spec| spec.remove("workerDeploymentRef"));
            template["spec"][field] = json!({"name": fleet});
            let expected = Expected::Refused(name, "WorkerDeploymentNotFound");
            let what = format!("{field} {fleet}");
            attempts.push(Attempt { way: Border::TemplateFleet, what, objects: vec![template], expected });
        }
    }
    for (number, path) in ["tenant-a/payments", "../tenant-a/payments", "tenant-a.payments"].into_iter().enumerate() {
        let objects = vec![copied(&format!("for-path-{number}"), path, config_map())];
        let what = format!("workerDeploymentRef {path}");
        attempts.push(Attempt { way: Border::TemplateFleet, what, objects, expected: Expected::Denied });
    }
    attempts
}

/// Templates for B's own fleet, of objects in another namespace.
pub fn templates_elsewhere() -> Vec<Attempt> {
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "spec": {"maxUnavailable": 0, "selector": {"matchLabels": {}}}});
    let scaler = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "spec": {"scaleTargetRef": {}, "minReplicas": 1, "maxReplicas": 5}});
    let mut attempts = Vec::new();
    for (kind, object) in [("map", config_map()), ("budget", budget), ("scaler", scaler)] {
        for (field, value) in
            [("namespace", A), ("namespace", "kube-system"), ("name", "mine"), ("generateName", "mine-")]
        {
            let name = format!("in-{kind}-{}-{}", field.to_ascii_lowercase(), value.trim_end_matches('-'));
            let mut object = object.clone();
            object["metadata"] = json!({field: value});
            let objects = vec![copied(&name, "orders", object)];
            let what = format!("{kind} with {field} {value}");
            let expected = Expected::Refused(name, "InvalidSpec");
            attempts.push(Attempt { way: Border::TemplateNamespace, what, objects, expected });
        }
    }
    attempts
}

/// Calls of the push endpoint for A's fleets.
pub async fn pushes(world: &World) -> Result<Vec<Attempt>> {
    let key = world.push_key().await?;
    let (own, wanted) = (world.uid(&world.b, "orders").await?, world.uid(&world.a, "payments").await?);
    let grant = |uid: &str, serial| Grant { fleet_uid: uid.to_owned(), serial };
    let good = key.issue(&grant(&own, 0));
    let mac = |token: &str| token.rsplit('.').next().unwrap_or_default().to_owned();
    let path = |fleet: &str, scale: &str| format!("/apis/apps/v1/namespaces/{A}/deployments/{fleet}{scale}");
    let answered = |way, what: String, push, status| {
        let expected = Expected::Answered(push, status);
        Attempt { way, what, objects: Vec::new(), expected }
    };
    let mut attempts = Vec::new();
    for fleet in ["payments", "ledger", "invoices"] {
        for (method, scale) in [("GET", ""), ("GET", "/scale"), ("PUT", "/scale"), ("PATCH", "/scale")] {
            let push = Push { method, path: path(fleet, scale), token: good.clone() };
            attempts.push(answered(Border::PushFleet, format!("{method} {fleet}{scale} with B's token"), push, 403));
        }
    }
    let other = PushKey::new(&[7; KEY_BYTES])?;
    let forged = [
        ("B's signature", format!("twp1.{wanted}.0.{}", mac(&good))),
        ("no signature", format!("twp1.{wanted}.0.{}", "0".repeat(2 * KEY_BYTES))),
        ("a key of its own", other.issue(&grant(&wanted, 0))),
        ("another serial number's", format!("twp1.{wanted}.0.{}", mac(&key.issue(&grant(&own, 1))))),
    ];
    for (what, token) in forged {
        for (method, scale) in [("GET", ""), ("PUT", "/scale")] {
            let push = Push { method, path: path("payments", scale), token: token.clone() };
            attempts.push(answered(Border::PushSignature, format!("{method} with {what}"), push, 401));
        }
    }
    Ok(attempts)
}
