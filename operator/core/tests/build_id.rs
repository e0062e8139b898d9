//! Build IDs against vectors that the Go types of Kubernetes v0.36.3 produced, and values of the peer's own tests.

use operator_core::build_id::{
    RuntimeInputs, compute, compute_runtime, connection_spec_hash, go_json, hash, template_hash,
};
use serde_json::{Value, json};

fn vectors() -> Vec<Value> {
    let file: Value = serde_json::from_str(include_str!("data/build-id-vectors.json")).unwrap();
    file["vectors"].as_array().unwrap().clone()
}

fn template_with_image(image: &str) -> Value {
    json!({"spec": {"containers": [{"name": "w", "image": image}]}})
}

/// The Build ID without its hash.
fn prefix(image: &str) -> String {
    let build_id = compute(&template_with_image(image), None).unwrap();
    let (prefix, hash) = build_id.rsplit_once('-').unwrap();
    assert_eq!(hash.len(), 4, "{build_id}");
    prefix.to_owned()
}

fn runtime() -> Value {
    json!({
        "taskQueues": [{"name": "orders", "maxConcurrentActivities": 10}, {"name": "mail"}],
        "handlers": [
            {"name": "resize", "exec": {"command": ["resize", ""], "workingDir": "/srv", "timeout": "30s", "env": {"A": "1", "B": ""}}},
            {"name": "web", "http": {"url": "http://127.0.0.1:9000/", "timeout": "5s"}},
        ],
        "activities": [{"type": "Resize", "handler": "resize"}, {"type": "Charge", "handler": "web"}],
        "drainTimeout": "60s",
    })
}

fn runtime_id(runtime: &Value) -> String {
    compute_runtime(RuntimeInputs { runtime, template: None, unsafe_custom_build_id: None }).unwrap()
}

#[test]
fn the_json_is_that_of_go() {
    for vector in vectors() {
        assert_eq!(go_json(&vector["template"]).unwrap(), vector["go_json"].as_str().unwrap(), "{}", vector["name"]);
    }
}

#[test]
fn the_hashes_are_those_of_go() {
    for vector in vectors() {
        let go_json = vector["go_json"].as_str().unwrap();
        let hash = hash(go_json, None);
        assert_eq!(hash.value(), vector["fnv32a"], "{}", vector["name"]);
        assert_eq!(hash.short(), vector["short"], "{}", vector["name"]);
        assert_eq!(hash.long(), vector["long"], "{}", vector["name"]);
        assert_eq!(template_hash(go_json), vector["pod_template_spec_hash"], "{}", vector["name"]);
    }
}

#[test]
fn a_count_of_collisions_is_mixed_in() {
    let template =
        json!({"metadata": {"name": "test-pod"}, "spec": {"containers": [{"name": "main", "image": "nginx:latest"}]}});
    let text = go_json(&template).unwrap();
    assert_eq!(hash(&text, None).short(), "8bbc");
    assert_eq!(hash(&text, Some(5)).short(), "6df8");
}

#[test]
fn a_build_id_is_the_tag_and_a_hash() {
    let basic = vectors().into_iter().find(|vector| vector["name"] == "basic").unwrap();
    assert_eq!(compute(&basic["template"], None).unwrap(), "v1.2.3-45d8");
}

#[test]
fn a_template_without_an_image_is_all_hash() {
    for name in ["peer-empty", "nil-containers", "null-template", "empty-lists"] {
        let vector = vectors().into_iter().find(|vector| vector["name"] == name).unwrap();
        assert_eq!(compute(&vector["template"], None).unwrap(), vector["long"], "{name}");
    }
    assert_eq!(compute(&template_with_image(""), None).unwrap().len(), 10);
}

#[test]
fn a_custom_build_id_is_cleaned_and_wins() {
    let template = template_with_image("i:1");
    for (custom, build_id) in [("v1", "v1"), ("release/2 (eu)", "release-2-eu"), ("-._x_.-", "x"), ("a_b.C", "a_b.C")] {
        assert_eq!(compute(&template, Some(custom)).unwrap(), build_id);
    }
    assert_eq!(compute(&template, Some(&"x".repeat(80))).unwrap().len(), 63);
    for nothing in [None, Some(""), Some("-._"), Some("é")] {
        assert!(compute(&template, nothing).unwrap().starts_with("1-"), "{nothing:?}");
    }
}

#[test]
fn a_custom_build_id_does_not_look_at_the_template() {
    assert_eq!(compute(&json!({"spec": {"containers": "none"}}), Some("v1")).unwrap(), "v1");
}

#[test]
fn the_prefix_follows_the_grammar_of_image_references() {
    let sha = "0123456789abcdef".repeat(4);
    let table = [
        ("ghcr.io/acme/worker:v1.2.3", "v1.2.3"),
        ("localhost:5000/worker:1", "1"),
        ("localhost:5000", "5000"),
        ("[::1]:5000/worker:1", "1"),
        ("worker:V1_rc-2", "V1_rc-2"),
        // A digest gives way to a tag, and is cut to make room for the hash.
        (&format!("worker:v1@sha256:{sha}"), "v1"),
        (&format!("worker@sha256:{sha}"), &sha[..58]),
        // The first component of a path may be a domain.
        ("library/busybox", "busybox"),
        ("docker.io/library/busybox", "library-busybox"),
        ("a__b/c", "a__b-c"),
        ("my.test_image", "my.test_image"),
        ("busybox", "busybox"),
        // What does not parse is used as it is: upper case, wrong digests, empty parts, bad tags.
        ("ghcr.io/Acme/worker:v1", "ghcr.io-Acme-worker-v1"),
        ("worker@sha256:abc", "worker-sha256-abc"),
        (&format!("w@sha256:{}", "A".repeat(64)), &format!("w-sha256-{}", "A".repeat(49))),
        (&format!("w@md5:{}", "a".repeat(32)), &format!("w-md5-{}", "a".repeat(32))),
        ("ghcr.io//worker:v1", "ghcr.io-worker-v1"),
        ("worker:-v1", "worker--v1"),
        ("worker:", "worker-"),
        ("a.-b", "a.-b"),
        ("héllo:1", "h-llo-1"),
        ("_x:1", "x-1"),
    ];
    for (image, expected) in table {
        assert_eq!(prefix(image), expected, "{image}");
    }
}

#[test]
fn a_build_id_fits_a_label_value() {
    assert_eq!(compute(&template_with_image(&format!("w:{}", "t".repeat(128))), None).unwrap().len(), 63);
    // The cut falls inside a character, which becomes a dash as a whole.
    let cut = compute(&template_with_image(&format!("{}é", "W".repeat(57))), None).unwrap();
    assert!(cut.starts_with(&format!("{}--", "W".repeat(57))), "{cut}");
}

#[test]
fn errors_name_path_value_and_remedy() {
    let in_container = |field: Value| json!({"spec": {"containers": [field]}});
    let table = [
        (
            in_container(json!({"resources": {"limits": {"cpu": "abc"}}})),
            r#"spec.containers[0].resources.limits.cpu: "abc" is not a quantity; write a number with an optional unit, such as 500m, 2 or 1Gi"#,
        ),
        (
            in_container(json!({"resources": {"limits": {"nvidia.com/gpu": true}}})),
            r#"spec.containers[0].resources.limits["nvidia.com/gpu"]: true is not a quantity; write a number with an optional unit, such as 500m, 2 or 1Gi"#,
        ),
        (
            in_container(json!({"env": [{"name": "PORT", "value": 8080}]})),
            "spec.containers[0].env[0].value: 8080 is not a string; put it in quotes",
        ),
        (
            in_container(json!({"tty": "true"})),
            r#"spec.containers[0].tty: "true" is not a boolean; write true or false, without quotes"#,
        ),
        (
            in_container(json!({"ports": [{"containerPort": 4294967296_u64}]})),
            "spec.containers[0].ports[0].containerPort: 4294967296 is not an integer of 32 bits; write a whole number without quotes",
        ),
        (
            json!({"spec": {"terminationGracePeriodSeconds": 1.5}}),
            "spec.terminationGracePeriodSeconds: 1.5 is not an integer of 64 bits; write a whole number without quotes",
        ),
        (in_container(json!({"args": "x"})), r#"spec.containers[0].args: "x" is not a list"#),
        (json!({"spec": []}), "spec: a list is not an object"),
        (json!(1), "template: 1 is not an object"),
    ];
    for (template, message) in table {
        assert_eq!(go_json(&template).unwrap_err().to_string(), message);
        assert!(compute(&template, None).is_err());
    }
    let error = go_json(&json!({"spec": []})).unwrap_err().within("spec.template");
    assert_eq!(error.to_string(), "spec.template.spec: a list is not an object");
    assert_eq!(go_json(&json!(1)).unwrap_err().within("spec.template").path, "spec.template");
}

#[test]
fn numbers_are_read_as_an_api_server_stores_them() {
    let seconds = |value: Value| go_json(&json!({"spec": {"terminationGracePeriodSeconds": value}})).unwrap();
    assert_eq!(seconds(json!(30.0)), seconds(json!(30)));
    assert_eq!(seconds(json!("030")), seconds(json!(24)), "octal digits of YAML 1.1");
}

#[test]
fn a_connection_hash_is_the_peers() {
    assert_eq!(
        connection_spec_hash("localhost:7233", None, None),
        "358b7a2f9d32942953e381974426b76b16914846005182e4f25fc2f327ca151c"
    );
    let cloud = connection_spec_hash("production.abc123.tmprl.cloud:7233", None, Some("temporal-cloud-mtls"));
    assert!(cloud.starts_with("e1fefc54") && cloud.ends_with("2850a"), "{cloud}");
    assert_ne!(connection_spec_hash("h:1", Some("sni"), None), connection_spec_hash("h:1", None, None));
    assert_eq!(connection_spec_hash("", Some("sni"), Some("secret")), "");
}

#[test]
fn a_runtime_build_id_does_not_change_between_releases() {
    assert_eq!(runtime_id(&runtime()), "runtime-4cc9d7bbfc");
    assert_eq!(runtime_id(&json!({})), "runtime-d5cc984c54");
}

#[test]
fn a_runtime_build_id_starts_with_what_names_the_version() {
    let template = template_with_image("ghcr.io/acme/handlers:v7");
    let id = |runtime: &Value, template| {
        compute_runtime(RuntimeInputs { runtime, template, unsafe_custom_build_id: None }).unwrap()
    };
    assert!(id(&runtime(), Some(&template)).starts_with("v7-"));
    let mut explicit = runtime();
    explicit["image"] = json!("ghcr.io/acme/runtime:v9");
    assert!(id(&explicit, Some(&template)).starts_with("v9-"));
    let long = format!("w:{}", "t".repeat(128));
    explicit["image"] = json!(long);
    assert_eq!(id(&explicit, None).len(), 63);
    let inputs = RuntimeInputs { runtime: &explicit, template: None, unsafe_custom_build_id: Some("mine") };
    assert_eq!(compute_runtime(inputs).unwrap(), "mine");
}

#[test]
fn a_runtime_build_id_changes_with_what_a_version_does() {
    let changes: [(&str, Value); 10] = [
        ("/handlers/0/image", json!("acme/handler:1")),
        ("/image", json!("runtime:2")),
        ("/mode", json!("Library")),
        ("/taskQueues/0/name", json!("other")),
        ("/handlers/0/exec/command", json!(["resize"])),
        ("/handlers/0/exec/workingDir", json!("/tmp")),
        ("/handlers/0/exec/env/B", json!("2")),
        ("/handlers/1/http/url", json!("http://127.0.0.1:9001/")),
        ("/handlers/1/name", json!("site")),
        ("/activities/0/handler", json!("web")),
    ];
    for (path, value) in changes {
        let mut changed = runtime();
        let (parent, key) = path.rsplit_once('/').unwrap();
        changed.pointer_mut(parent).unwrap()[key] = value;
        assert_ne!(runtime_id(&changed), runtime_id(&runtime()), "{path}");
    }
    let template = json!({"spec": {"containers": [{"name": "w"}]}});
    let empty = json!({});
    let inputs = |template| RuntimeInputs { runtime: &empty, template, unsafe_custom_build_id: None };
    assert_ne!(compute_runtime(inputs(Some(&template))).unwrap(), compute_runtime(inputs(None)).unwrap());
}

#[test]
fn a_runtime_build_id_keeps_with_what_changes_hot() {
    let changes: [(&str, Value); 12] = [
        ("/taskQueues/0/maxConcurrentActivities", json!(500)),
        ("/handlers/0/exec/timeout", json!("1h")),
        ("/handlers/0/exec/mode", json!("Once")),
        ("/handlers/0/exec/processes", json!(7)),
        ("/handlers/0/exec/limits", json!({"memory": "1Gi", "pids": 9})),
        ("/taskQueues/0/slotsPer", json!("nvidia.com/gpu")),
        ("/resourceTargets", json!({"memory": 80, "cpu": 90})),
        ("/grpcCompression", json!("Gzip")),
        ("/handlers/1/http/timeout", Value::Null),
        ("/drainTimeout", json!("5m")),
        ("/encryption", json!({"writeKey": {"id": "k2"}})),
        ("/mode", json!("Shared")),
    ];
    for (path, value) in changes {
        let mut changed = runtime();
        let (parent, key) = path.rsplit_once('/').unwrap();
        changed.pointer_mut(parent).unwrap()[key] = value;
        assert_eq!(runtime_id(&changed), runtime_id(&runtime()), "{path}");
    }
}

#[test]
fn a_runtime_build_id_keeps_with_order_and_empty_fields() {
    let mut changed = runtime();
    for list in ["taskQueues", "handlers", "activities"] {
        changed[list].as_array_mut().unwrap().reverse();
    }
    changed["activities"][0]["extra"] = json!([]);
    changed["image"] = Value::Null;
    assert_eq!(runtime_id(&changed), runtime_id(&runtime()));
    assert_eq!(runtime_id(&json!({"handlers": [], "taskQueues": null})), runtime_id(&json!({})));
}

#[test]
fn a_template_that_says_nothing_is_no_template() {
    let id = |template| compute_runtime(RuntimeInputs { runtime: &runtime(), template, unsafe_custom_build_id: None });
    assert_eq!(id(Some(&json!({}))).unwrap(), id(None).unwrap());
}
