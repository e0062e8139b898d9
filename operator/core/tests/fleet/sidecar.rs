//! Pods of a Worker behind a sidecar: what reaches the server, and what ends when.

use std::collections::BTreeSet;

use operator_core::build::attach;
use operator_core::build::environment::WorkerIdentity;
use operator_core::connection::{Auth, ConnectionFacts, SecretKey};
use operator_core::fleet::{Surroundings, resolve};
use serde_json::{Value, json};

use crate::fixtures::*;

fn encrypted() -> Value {
    json!({"sidecar": {"encryption": {"writeKey": {"id": "k1", "secretKeyRef": {"name": "keys", "key": "one"}}}}})
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(|one| one["name"].as_str()).collect()
}

fn by_name<'a>(list: &'a Value, name: &str) -> &'a Value {
    list.as_array().into_iter().flatten().find(|one| one["name"] == name).unwrap_or(&Value::Null)
}

fn child(patch: Value, auth: Auth) -> Value {
    resolve_with(&manifest(patch), auth, &[]).unwrap().child.object
}

#[test]
fn the_worker_knows_the_sidecar_alone_and_the_sidecar_the_server() {
    let key = SecretKey { name: "cloud".into(), key: "api-key".into() };
    let object = child(encrypted(), Auth::ApiKey(key));
    let pod = &object["spec"]["template"]["spec"];
    let worker = by_name(&pod["containers"], "worker");
    assert_eq!(by_name(&worker["env"], "TEMPORAL_ADDRESS")["value"], "127.0.0.1:7233");
    let of_worker = ["TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE", "TEMPORAL_DEPLOYMENT_NAME", "TEMPORAL_WORKER_BUILD_ID"];
    assert_eq!(names(&worker["env"]), of_worker, "no credential reaches it");
    assert_eq!(names(&worker["volumeMounts"]), ["temporal-worker-hook"]);

    let sidecar = by_name(&pod["initContainers"], "temporal-worker-sidecar");
    assert_eq!((&sidecar["restartPolicy"], &sidecar["image"]), (&json!("Always"), &json!("runtime:v9")));
    assert_eq!(by_name(&sidecar["env"], "TEMPORAL_ADDRESS")["value"], "t:7233");
    assert_eq!(by_name(&sidecar["env"], "TEMPORAL_API_KEY_FILE")["value"], "/etc/temporal/api-key/api-key");
    let of_sidecar = names(&sidecar["volumeMounts"]);
    for mount in ["temporal-worker-config", "temporal-worker-keys-0", "temporal-worker-hook", "temporal-api-key"] {
        assert!(of_sidecar.contains(&mount) && names(&pod["volumes"]).contains(&mount), "{mount}: {of_sidecar:?}");
    }
    assert_eq!(object["metadata"]["annotations"]["temporal.io/sidecar-image"], "runtime:v9");
}

#[test]
fn the_worker_ends_after_its_tasks_unless_the_user_has_a_hook() {
    let hook = json!({"exec": {"command": ["/run/temporal-worker-hook/await-drain"]}});
    let own = json!({"exec": {"command": ["sleep", "5"]}});
    let containers = json!([
        {"name": "worker", "image": "w:v1"}, {"name": "second", "lifecycle": {"preStop": own}}]);
    let object = child(json!({"sidecar": {}, "template": {"spec": {"containers": containers}}}), Auth::None);
    let pod = &object["spec"]["template"]["spec"];
    assert_eq!(by_name(&pod["containers"], "worker")["lifecycle"]["preStop"], hook);
    assert_eq!(by_name(&pod["containers"], "second")["lifecycle"]["preStop"], own);
    assert_eq!(pod["terminationGracePeriodSeconds"], 45);
}

#[test]
fn what_the_user_says_of_the_sidecar_stays_and_it_comes_last() {
    let init = json!([
        {"name": "temporal-worker-sidecar", "resources": {"limits": {"memory": "64Mi"}}}, {"name": "migrate"}]);
    let template = json!({"spec": {"containers": [{"name": "worker", "image": "w:v1"}], "initContainers": init}});
    let object = child(json!({"sidecar": {}, "template": template}), Auth::None);
    let init = &object["spec"]["template"]["spec"]["initContainers"];
    assert_eq!(names(init), ["migrate", "temporal-worker-sidecar"]);
    assert_eq!(by_name(init, "temporal-worker-sidecar")["resources"]["limits"]["memory"], "64Mi");
    let misplaced = json!({"spec": {"containers": [{"name": "temporal-worker-sidecar", "image": "w:v1"}]}});
    let refused = try_resolve(&manifest(json!({"sidecar": {}, "template": misplaced})), &[]).unwrap_err();
    assert!(refused.to_string().contains("move it to spec.template.spec.initContainers"), "{refused}");
}

#[test]
fn keys_change_without_a_new_version_and_a_sidecar_makes_one() {
    let build_id = |patch: Value| fleet(patch).build_id.unwrap();
    let plain = build_id(json!({"sidecar": {}}));
    assert_eq!(build_id(encrypted()), plain);
    assert_ne!(build_id(json!({})), plain);
    assert!(plain.starts_with("v1-"), "{plain}");
    let maps = fleet(encrypted()).config_maps;
    let limits: Value = serde_json::from_str(maps[0]["data"]["limits.json"].as_str().unwrap()).unwrap();
    assert_eq!(limits["encryption"]["writeKey"]["file"], "/etc/temporal-worker-keys/keys/one");
}

#[test]
fn another_connection_is_attached_to_the_sidecar() {
    let worker = WorkerIdentity { namespace: "default", deployment_name: "prod/orders", build_id: None };
    let live = child(json!({"sidecar": {}, "versioning": "Disabled"}), Auth::None);
    let auth = Auth::MutualTls { secret: "certs".into(), has_ca: false };
    let to = ConnectionFacts { host_port: "other:7233".into(), server_name: None, auth, ca_cert: None };
    let patch = attach::attach(&live, &to, &worker).unwrap();
    let spec = &patch["spec"]["template"]["spec"];
    assert!(spec["containers"].is_null(), "the Worker stays as it is: {spec}");
    let sidecar = by_name(&spec["initContainers"], "temporal-worker-sidecar");
    assert_eq!(by_name(&sidecar["env"], "TEMPORAL_ADDRESS")["value"], "other:7233");
    assert!(names(&sidecar["volumeMounts"]).contains(&"temporal-tls"));
}

#[test]
fn a_version_keeps_the_image_of_its_sidecar() {
    let connection = ConnectionFacts { host_port: "t:7233".into(), server_name: None, auth: Auth::None, ca_cert: None };
    let manifest = manifest(json!({"sidecar": {}, "versioning": "Disabled"}));
    let images = [("orders".to_owned(), "runtime:v8".to_owned())].into();
    let around = Surroundings {
        connection: &connection,
        default_runtime_image: "runtime:v9",
        runtime_images: &images,
        order_keys: &[],
        uncordonable: &BTreeSet::new(),
    };
    let object = resolve(&manifest, &around).unwrap().child.object;
    assert_eq!(object["spec"]["template"]["spec"]["initContainers"][0]["image"], "runtime:v8");
}
