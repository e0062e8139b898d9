//! The objects of a fleet.

use operator_core::connection::{Auth, SecretKey};
use serde_json::{Value, json};

use crate::fixtures::*;

#[test]
fn the_child_has_the_names_labels_annotations_and_variables_of_the_contract() {
    let fleet = fleet(json!({}));
    assert_eq!(fleet.child.replaced_variables, ["worker/TEMPORAL_ADDRESS"]);
    insta::assert_json_snapshot!(fleet.child.object);
}

#[test]
fn a_runtime_fleet_without_a_template_runs_the_runtime_with_both_files() {
    let fleet = fleet(json!({"template": null, "runtime": runtime(), "scaling": {}}));
    insta::assert_json_snapshot!(json!({"child": fleet.child.object, "configMaps": fleet.config_maps}));
}

#[test]
fn handlers_of_a_template_get_no_credentials_and_outlive_the_drain() {
    let fleet = fleet(json!({"runtime": runtime()}));
    let containers = &fleet.child.object["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers[0]["env"], json!([{"name": "TEMPORAL_ADDRESS", "value": "mine"}]));
    assert_eq!(containers[0]["lifecycle"]["preStop"]["httpGet"]["path"], "/drained");
    assert_eq!(containers[1]["name"], "temporal-worker-runtime");
    assert!(fleet.child.replaced_variables.is_empty());
}

#[test]
fn the_runtime_gets_the_api_key_as_a_file_and_nobody_else_gets_it() {
    let auth = Auth::ApiKey(SecretKey { name: "cloud".into(), key: "key".into() });
    let pod = |patch: Value| {
        let fleet = resolve_with(&manifest(patch), auth.clone(), &[]).unwrap();
        fleet.child.object["spec"]["template"]["spec"].clone()
    };
    let shared = pod(json!({"runtime": runtime()}));
    let environment = &shared["containers"][1]["env"].as_array().unwrap();
    let file = json!({"name": "TEMPORAL_API_KEY_FILE", "value": "/etc/temporal/api-key/api-key"});
    assert!(environment.contains(&file), "{environment:?}");
    assert!(!environment.iter().any(|variable| variable["name"] == "TEMPORAL_API_KEY"), "{environment:?}");
    let items = json!([{"key": "key", "path": "api-key"}]);
    let volume = json!({"name": "temporal-api-key", "secret": {"secretName": "cloud", "items": items}});
    assert!(shared["volumes"].as_array().unwrap().contains(&volume), "{shared}");
    assert!(!shared["containers"][0].to_string().contains("api-key"), "{shared}");
    let library = pod(json!({"runtime": {"mode": "Library", "taskQueues": [{"name": "q"}]}}));
    assert!(library["containers"][0]["env"].as_array().unwrap().contains(&file), "{library}");
    let other_sdk = pod(json!({}));
    assert!(other_sdk.to_string().contains("TEMPORAL_API_KEY\""), "as ever: {other_sdk}");
    assert!(!other_sdk.to_string().contains("TEMPORAL_API_KEY_FILE"), "{other_sdk}");
}

#[test]
fn services_know_the_runtime_by_a_token_of_their_pod() {
    let mut runtime = runtime();
    runtime["handlers"][0] = json!({"name": "cat", "http": {"url": "http://localhost/run", "socket": "/run/app/s"}});
    let fleet = fleet(json!({"runtime": runtime}));
    let pod = &fleet.child.object["spec"]["template"]["spec"];
    let mount = |container: &Value| {
        let mounts = container["volumeMounts"].as_array().unwrap();
        mounts.iter().find(|mount| mount["name"] == "temporal-worker-token").unwrap().clone()
    };
    assert_eq!(mount(&pod["containers"][0])["readOnly"], true);
    assert_eq!(mount(&pod["containers"][1])["readOnly"], false);
    let environment = pod["containers"][1]["env"].as_array().unwrap();
    let file = json!({"name": "WORKER_RUNTIME_TOKEN_FILE", "value": "/run/temporal-worker/token"});
    assert!(environment.contains(&file), "{environment:?}");
    let config = fleet.config_maps[0]["data"]["runtime.json"].as_str().unwrap();
    assert!(config.contains(r#""socket":"/run/app/s""#), "{config}");
    let programs_alone = crate::fixtures::fleet(json!({"runtime": crate::fixtures::runtime()}));
    assert!(!programs_alone.child.object.to_string().contains("temporal-worker-token"));
}

#[test]
fn keys_are_mounted_into_the_container_that_polls_alone_and_change_without_new_pods() {
    let key = |id: &str, secret: &str| json!({"id": id, "secretKeyRef": {"name": secret, "key": format!("{id}.key")}});
    let fleet_of = |encryption: Value| {
        let mut runtime = runtime();
        runtime["encryption"] = encryption;
        fleet(json!({"runtime": runtime}))
    };
    let first = fleet_of(json!({"writeKey": key("k1", "keys"), "namespaces": ["other"]}));
    let pod = &first.child.object["spec"]["template"]["spec"];
    let volume = json!({"name": "temporal-worker-keys-0", "secret": {"secretName": "keys"}});
    assert!(pod["volumes"].as_array().unwrap().contains(&volume), "{pod}");
    let mount =
        json!({"name": "temporal-worker-keys-0", "mountPath": "/etc/temporal-worker-keys/keys", "readOnly": true});
    assert!(pod["containers"][1]["volumeMounts"].as_array().unwrap().contains(&mount), "{pod}");
    assert!(!pod["containers"][0].to_string().contains("temporal-worker-keys"), "{pod}");
    let limits: Value = serde_json::from_str(first.config_maps[1]["data"]["limits.json"].as_str().unwrap()).unwrap();
    let file = "/etc/temporal-worker-keys/keys/k1.key";
    let expected =
        json!({"mode": "Require", "writeKey": {"id": "k1", "file": file}, "readKeys": [], "namespaces": ["other"]});
    assert_eq!(limits["encryption"], expected);

    let rotated = fleet_of(json!({"writeKey": key("k2", "keys"), "readKeys": [key("k1", "keys")]}));
    assert_eq!(rotated.child.object, first.child.object, "the pods see it in their files");
    assert_ne!(rotated.config_maps, first.config_maps);
    let moved = fleet_of(json!({"writeKey": key("k2", "other-keys"), "readKeys": [key("k1", "keys")]}));
    assert_ne!(moved.child.object, first.child.object, "a further Secret has to be mounted");
}

#[test]
fn a_worker_on_the_library_is_told_where_its_files_are_and_shows_its_metrics() {
    let library = json!({"mode": "Library", "taskQueues": [{"name": "q"}]});
    let container = |template: Value| {
        let fleet = fleet(json!({"runtime": library, "template": template}));
        fleet.child.object["spec"]["template"]["spec"]["containers"][0].clone()
    };
    let plain = container(json!({"spec": {"containers": [{"name": "w", "image": "acme/w:v1"}]}}));
    assert_eq!(plain["env"][0], json!({"name": "WORKER_RUNTIME_CONFIG", "value": "/etc/temporal-worker/runtime.json"}));
    assert_eq!(plain["env"][1], json!({"name": "WORKER_RUNTIME_LIMITS", "value": "/etc/temporal-worker/limits.json"}));
    assert_eq!(plain["ports"], json!([{"name": "metrics", "containerPort": 8080, "protocol": "TCP"}]));
    let own = container(json!({"spec": {"containers": [{"name": "w", "image": "acme/w:v1",
        "env": [{"name": "WORKER_RUNTIME_CONFIG", "value": "/mine"}], "ports": [{"name": "metrics", "containerPort": 9}]}]}}));
    assert_eq!(own["env"][0]["value"], "/mine");
    assert_eq!(own["ports"], json!([{"name": "metrics", "containerPort": 9}]));
}

#[test]
fn no_object_of_a_fleet_ever_holds_replicas() {
    for patch in [json!({}), json!({"replicas": 3}), json!({"scaling": {}}), json!({"versioning": "Disabled"})] {
        let fleet = fleet(patch);
        assert!(fleet.child.object["spec"].get("replicas").is_none(), "{}", fleet.child.object);
    }
}

#[test]
fn the_configuration_of_a_version_is_immutable_unless_the_user_names_the_version() {
    let immutable = |patch: Value| fleet(patch).config_maps[0]["immutable"].clone();
    assert_eq!(immutable(json!({"runtime": runtime()})), json!(true));
    let options =
        json!({"connectionRef": {"name": "temporal"}, "temporalNamespace": "default", "unsafeCustomBuildID": "v1"});
    assert_eq!(immutable(json!({"runtime": runtime(), "workerOptions": options})), Value::Null);
    assert_eq!(immutable(json!({"runtime": runtime(), "versioning": "Disabled"})), Value::Null);
}

#[test]
fn a_version_keeps_the_default_image_that_it_was_created_with() {
    let manifest = manifest(json!({"template": null, "runtime": runtime()}));
    let child = try_resolve(&manifest, &[]).unwrap().child_name;
    let kept = try_resolve(&manifest, &[(&child, "runtime:v8")]).unwrap();
    assert_eq!(kept.child_name, child);
    assert_eq!(kept.child.object["spec"]["template"]["spec"]["containers"][0]["image"], "runtime:v8");
}

#[test]
fn what_can_not_run_names_field_value_and_remedy() {
    let error = |patch: Value| try_resolve(&manifest(patch), &[]).unwrap_err().to_string();
    let message = error(json!({"template": {"spec": {"containers": []}}}));
    assert!(message.starts_with("spec.template.spec.containers: is empty; name the Worker's container"), "{message}");
    let message = error(json!({"template": {"spec": {"containers": [
        {"name": "w", "image": "i", "resources": {"limits": {"cpu": "lots"}}}]}}}));
    assert!(message.contains("resources.limits.cpu") && message.contains("lots"), "{message}");
    let mut dotted = manifest(json!({}));
    dotted.metadata.name = Some("orders.eu".into());
    let message = try_resolve(&dotted, &[]).unwrap_err().to_string();
    assert!(message.contains("metadata.name") && message.contains("orders.eu"), "{message}");
}
