//! Deployments that another operator made: what of them stays, whatever this one would give to a new one.

use operator_core::build::attach::attached;
use operator_core::connection::{Auth, ConnectionFacts};
use operator_core::fleet::{Fleet, Surroundings, resolve_beside};
use operator_core::names;
use operator_core::observed::{ChildState, KubeState};
use operator_core::plan::Action;
use serde_json::{Value, json};

use crate::fixtures::*;

fn by_certificate(secret: &str) -> ConnectionFacts {
    let auth = Auth::MutualTls { secret: secret.into(), has_ca: true };
    ConnectionFacts { host_port: "t:7233".into(), server_name: None, auth, ca_cert: None }
}

fn beside(connection: &ConnectionFacts, patch: Value, children: &[ChildState]) -> Fleet {
    let around = Surroundings {
        connection,
        default_runtime_image: "runtime:v9",
        runtime_images: &Default::default(),
        order_keys: &[],
        uncordonable: &Default::default(),
    };
    resolve_beside(&manifest(patch), &around, children).unwrap()
}

fn has_ca_variable(child: &Value) -> bool {
    child.to_string().contains("TEMPORAL_TLS_SERVER_CA_CERT_PATH")
}

/// The fleet's child as the peer makes it: without the variable that names the CA, and maybe without the template's hash.
fn peers(fleet: &Fleet, has_hash: bool) -> (Value, ChildState) {
    let mut object = fleet.child.object.clone();
    let template = &mut object["spec"]["template"];
    let env = template["spec"]["containers"][0]["env"].as_array_mut().unwrap();
    env.retain(|variable| variable["name"] != "TEMPORAL_TLS_SERVER_CA_CERT_PATH");
    let annotations = template["metadata"]["annotations"].as_object_mut().unwrap();
    let hash = annotations.get(names::POD_TEMPLATE_SPEC_HASH_ANNOTATION).cloned();
    if !has_hash {
        annotations.remove(names::POD_TEMPLATE_SPEC_HASH_ANNOTATION);
    }
    let child = ChildState {
        name: fleet.child_name.clone(),
        build_id: fleet.build_id.clone(),
        attached: attached(&object),
        template_hash: hash.filter(|_| has_hash).and_then(|hash| hash.as_str().map(str::to_owned)),
        made_elsewhere: true,
        spec_replicas: 2,
        ready_replicas: 2,
        ..ChildState::default()
    };
    (object, child)
}

#[test]
fn the_template_of_an_adopted_target_is_applied_as_it_is() {
    let connection = by_certificate("certs");
    let new = beside(&connection, json!({}), &[]);
    assert!(has_ca_variable(&new.child.object), "a new version has it");
    for has_hash in [true, false] {
        let (object, child) = peers(&new, has_hash);
        let fleet = beside(&connection, json!({}), std::slice::from_ref(&child));
        assert_eq!(fleet.child.object["spec"]["template"], object["spec"]["template"]);
        // The control: with the same child of its own it would be changed.
        let own = ChildState { made_elsewhere: false, ..child };
        assert_ne!(beside(&connection, json!({}), &[own]).child.object["spec"]["template"], object["spec"]["template"]);
    }
}

#[test]
fn what_changes_in_the_connection_reaches_an_adopted_target_whole() {
    let (_, child) = peers(&beside(&by_certificate("certs"), json!({}), &[]), true);
    let fleet = beside(&by_certificate("renewed"), json!({}), &[child]);
    assert!(has_ca_variable(&fleet.child.object));
    assert!(fleet.child.object.to_string().contains("renewed"));
}

#[test]
fn a_current_version_that_was_made_elsewhere_is_not_attached_anew_for_the_name_of_a_ca() {
    let connection = by_certificate("certs");
    let old = beside(&connection, json!({}), &[]);
    let (_, mut child) = peers(&old, true);
    let next = json!({"template": {"spec": {"containers": [{"name": "worker", "image": "acme/orders:v2"}]}}});
    let attaches = |connection: &ConnectionFacts, child: &ChildState| {
        let fleet = beside(connection, next.clone(), std::slice::from_ref(child));
        let kube = KubeState { children: vec![child.clone()], ..KubeState::default() };
        let plan = plan_of(&fleet, &kube, &server(&old, 0));
        plan.actions.iter().any(|action| matches!(action, Action::Attach { .. }))
    };
    assert!(!attaches(&connection, &child));
    assert!(attaches(&by_certificate("renewed"), &child), "another Secret is a change");
    child.made_elsewhere = false;
    assert!(attaches(&connection, &child), "one of its own gets the name");
}

#[test]
fn with_a_build_id_of_the_users_a_changed_template_is_applied_in_place() {
    let connection = by_certificate("certs");
    let custom = json!({"workerOptions": {"connectionRef": {"name": "temporal"}, "temporalNamespace": "default",
        "unsafeCustomBuildID": "v1"}});
    let (_, child) = peers(&beside(&connection, custom.clone(), &[]), true);
    let mut changed = custom;
    changed["template"] = json!({"spec": {"containers": [{"name": "worker", "image": "acme/orders:v2"}]}});
    let fleet = beside(&connection, changed, std::slice::from_ref(&child));
    let hash =
        &fleet.child.object["spec"]["template"]["metadata"]["annotations"][names::POD_TEMPLATE_SPEC_HASH_ANNOTATION];
    assert!(hash.is_string() && hash.as_str() != child.template_hash.as_deref(), "{hash}");
}
