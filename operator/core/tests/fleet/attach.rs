//! What becomes of the versions of a fleet when its Connection changes.

use operator_core::build::attach::{attach, attached};
use operator_core::build::environment::WorkerIdentity;
use operator_core::connection::{Attached, Attachment, Auth, ConnectionFacts, SecretKey};
use operator_core::fleet::{Fleet, Surroundings, resolve};
use operator_core::names;
use serde_json::{Value, json};

use crate::fixtures::*;

fn key(name: &str) -> SecretKey {
    SecretKey { name: name.into(), key: "ca.crt".into() }
}

fn connections() -> Vec<ConnectionFacts> {
    let plain = ConnectionFacts { host_port: "one:7233".into(), server_name: None, auth: Auth::None, ca_cert: None };
    let tls = |secret: &str, has_ca| Auth::MutualTls { secret: secret.into(), has_ca };
    let api_key = |name: &str| Auth::ApiKey(SecretKey { name: name.into(), key: "key".into() });
    vec![
        plain.clone(),
        ConnectionFacts { host_port: "two:7233".into(), ..plain.clone() },
        ConnectionFacts { server_name: Some("name".into()), ..plain.clone() },
        ConnectionFacts { auth: tls("certs", false), server_name: Some("name".into()), ..plain.clone() },
        ConnectionFacts { auth: tls("other", true), ..plain.clone() },
        ConnectionFacts { auth: tls("certs", true), ca_cert: Some(key("ca")), ..plain.clone() },
        ConnectionFacts { auth: api_key("cloud"), ..plain.clone() },
        ConnectionFacts { auth: api_key("other"), server_name: Some("other".into()), ..plain.clone() },
        ConnectionFacts { auth: api_key("cloud"), ca_cert: Some(key("ca")), ..plain.clone() },
        ConnectionFacts { ca_cert: Some(key("other-ca")), ..plain },
    ]
}

/// Manifests of every kind of pod: two Workers, one on the library beside one that is not, the shared runtime beside a handler.
fn kinds() -> Vec<Value> {
    let mine = |name: &str| {
        json!({"name": name, "image": "acme/orders:v1", "env": [{"name": "MINE", "value": "1"}],
        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]})
    };
    let pod = json!({"containers": [mine("worker"), mine("second")], "volumes": [{"name": "scratch", "emptyDir": {}}]});
    let template = json!({"metadata": {"labels": {"app": "orders"}}, "spec": pod});
    let library = json!({"mode": "Library", "taskQueues": [{"name": "q"}]});
    vec![
        json!({"template": template}),
        json!({"template": template, "runtime": library}),
        json!({"template": template, "runtime": runtime()}),
        json!({"template": template, "versioning": "Disabled"}),
    ]
}

fn fleet_at(patch: &Value, connection: &ConnectionFacts, namespace: &str) -> Fleet {
    let mut patch = patch.clone();
    patch["workerOptions"] = json!({"connectionRef": {"name": "temporal"}, "temporalNamespace": namespace});
    let around = Surroundings {
        connection,
        default_runtime_image: "runtime:v9",
        runtime_images: &Default::default(),
        order_keys: &[],
        uncordonable: &Default::default(),
    };
    resolve(&manifest(patch), &around).unwrap()
}

/// The fleet's child as the API server has it.
fn stored(fleet: &Fleet) -> Value {
    let mut child = fleet.child.object.clone();
    child["metadata"]["resourceVersion"] = json!("7");
    for volume in child["spec"]["template"]["spec"]["volumes"].as_array_mut().into_iter().flatten() {
        if volume["secret"].is_object() {
            volume["secret"]["defaultMode"] = json!(420);
        }
    }
    child
}

fn change(child: &Value, fleet: &Fleet) -> Option<Value> {
    let worker = WorkerIdentity {
        namespace: &fleet.temporal_namespace,
        deployment_name: &fleet.deployment_name,
        build_id: fleet.build_id.as_deref(),
    };
    attach(child, &fleet.attachment.connection, &worker)
}

fn merge(into: &mut Value, patch: &Value) {
    match patch {
        Value::Object(fields) => {
            fields.iter().for_each(|(key, value)| merge(&mut into[key.as_str()], value));
        }
        value => *into = value.clone(),
    }
}

/// The object without the order of its lists, and without what the API server fills in.
fn unordered(value: &Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<_> = items.iter().map(unordered).collect();
            items.sort_by_key(Value::to_string);
            items.into()
        }
        Value::Object(fields) => {
            let kept =
                fields.iter().filter(|(key, value)| *key != "defaultMode" && **value != json!([]) && !value.is_null());
            Value::Object(kept.map(|(key, value)| (key.clone(), unordered(value))).collect())
        }
        value => value.clone(),
    }
}

#[test]
fn a_template_tells_where_its_pods_work() {
    for kind in kinds() {
        for connection in connections() {
            let fleet = fleet_at(&kind, &connection, "sales");
            assert_eq!(attached(&stored(&fleet)), Attached::To(fleet.attachment.clone()), "{kind}");
            assert_eq!(change(&stored(&fleet), &fleet), None, "nothing is to be changed");
        }
    }
}

#[test]
fn a_child_that_is_attached_anew_is_the_one_that_would_have_been_made() {
    for kind in kinds() {
        for from in connections() {
            let child = stored(&fleet_at(&kind, &from, "sales"));
            for to in connections() {
                for namespace in ["sales", "support"] {
                    let after = fleet_at(&kind, &to, namespace);
                    let mut attached_anew = child.clone();
                    if let Some(patch) = change(&child, &after) {
                        assert_eq!(patch["metadata"], json!({"resourceVersion": "7"}));
                        merge(&mut attached_anew, &patch);
                    }
                    assert_eq!(unordered(&attached_anew), unordered(&stored(&after)), "{from:?} → {to:?}");
                }
            }
        }
    }
}

#[test]
fn variables_of_the_users_stay_where_the_connection_gives_none() {
    let own = json!({"template": {"spec": {"containers": [{"name": "worker", "image": "acme/orders:v1", "env": [
        {"name": "TEMPORAL_TLS_SERVER_NAME", "value": "mine"},
        {"name": "TEMPORAL_API_KEY", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "key"}}}]}]}}});
    let [plain, moved, ..] = &connections()[..] else { unreachable!() };
    let mut child = stored(&fleet_at(&own, plain, "sales"));
    let after = fleet_at(&own, moved, "sales");
    let patch = change(&child, &after).unwrap();
    merge(&mut child, &patch);
    assert_eq!(unordered(&child), unordered(&stored(&after)));
}

#[test]
fn a_child_whose_hash_was_renewed_and_its_credentials_not_is_torn_and_mended() {
    let connections = connections();
    let (by_certificate, by_key) = (&connections[3], &connections[6]);
    let kind = &kinds()[0];
    let after = fleet_at(kind, by_key, "sales");
    let mut child = stored(&fleet_at(kind, by_certificate, "sales"));
    let hash =
        &after.child.object["spec"]["template"]["metadata"]["annotations"][names::CONNECTION_SPEC_HASH_ANNOTATION];
    child["spec"]["template"]["metadata"]["annotations"][names::CONNECTION_SPEC_HASH_ANNOTATION] = hash.clone();
    assert_ne!(attached(&child), Attached::To(after.attachment.clone()));
    let patch = change(&child, &after).unwrap();
    merge(&mut child, &patch);
    assert_eq!(attached(&child), Attached::To(after.attachment.clone()));
    assert_eq!(unordered(&child), unordered(&stored(&after)));
}

#[test]
fn a_child_that_lacks_a_volume_or_has_one_too_many_is_torn() {
    let kind = &kinds()[0];
    let by_certificate = fleet_at(kind, &connections()[3], "sales");
    let mut lacks = stored(&by_certificate);
    lacks["spec"]["template"]["spec"]["volumes"].as_array_mut().unwrap().pop();
    assert_eq!(attached(&lacks), Attached::Torn);
    let mut too_many = stored(&fleet_at(kind, &connections()[0], "sales"));
    let volume = stored(&by_certificate)["spec"]["template"]["spec"]["volumes"][1].clone();
    too_many["spec"]["template"]["spec"]["volumes"].as_array_mut().unwrap().push(volume);
    assert_eq!(attached(&too_many), Attached::Torn);
    let mut half = stored(&by_certificate);
    half["spec"]["template"]["spec"]["containers"][1]["env"] = json!([]);
    assert_eq!(attached(&half), Attached::Torn);
    assert_eq!(attached(&json!({})), Attached::Torn);
}

#[test]
fn what_makes_no_difference_to_pods_is_no_difference() {
    let [.., both, _, _, _, _] = &connections()[..] else { unreachable!() };
    let without = match &both.auth {
        Auth::MutualTls { secret, .. } => Auth::MutualTls { secret: secret.clone(), has_ca: false },
        other => panic!("{other:?}"),
    };
    let without = ConnectionFacts { auth: without, ..both.clone() };
    assert_eq!(Attachment::new(both, "sales"), Attachment::new(&without, "sales"));
}
