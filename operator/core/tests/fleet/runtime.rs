//! Pods of the shared runtime: what of the template reaches them, and what a change of limits does.

use operator_core::connection::Auth;
use serde_json::{Value, json};

use crate::fixtures::*;

/// The user's own container of the runtime, beside a service.
fn template() -> Value {
    let pod = json!({
        "serviceAccountName": "models",
        "nodeSelector": {"gpu": "yes"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "imagePullSecrets": [{"name": "registry"}],
        "volumes": [
            {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "50Gi"}}}}}},
            {"name": "models", "image": {"reference": "acme/models:v3", "pullPolicy": "Always"}}],
        "containers": [
            {"name": "temporal-worker-runtime",
             "env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}],
             "envFrom": [{"secretRef": {"name": "settings"}}],
             "ports": [{"name": "metrics", "containerPort": 1}, {"name": "debug", "containerPort": 6060}],
             "resources": {"limits": {"nvidia.com/gpu": "2", "memory": "8Gi"}},
             "securityContext": {"runAsUser": 1000},
             "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}, {"name": "models", "mountPath": "/models"}]},
            {"name": "service", "image": "acme/service:v1"}],
    });
    json!({"metadata": {"labels": {"app": "orders"}}, "spec": pod})
}

fn pod_of(patch: Value) -> Value {
    fleet(patch).child.object["spec"]["template"]["spec"].clone()
}

fn runtime_of(pod: &Value) -> Value {
    let named = |container: &&Value| container["name"] == "temporal-worker-runtime";
    let found: Vec<_> = pod["containers"].as_array().unwrap().iter().filter(named).collect();
    assert_eq!(found.len(), 1, "{pod}");
    found[0].clone()
}

/// Fails unless all of `part` is in `whole`: lists of named things may have more of them.
fn holds(whole: &Value, part: &Value) {
    match (whole, part) {
        (Value::Object(fields), Value::Object(wanted)) => {
            wanted.iter().for_each(|(key, wanted)| holds(fields.get(key).unwrap_or(&Value::Null), wanted));
        }
        (Value::Array(items), Value::Array(wanted)) => {
            wanted.iter().for_each(|one| assert!(items.contains(one), "{one} is not in {whole}"));
        }
        _ => assert_eq!(whole, part),
    }
}

#[test]
fn what_the_template_says_of_pod_and_runtime_reaches_them() {
    let pod = pod_of(json!({"runtime": runtime(), "template": template()}));
    let own = &template()["spec"];
    for field in ["serviceAccountName", "nodeSelector", "tolerations", "imagePullSecrets"] {
        assert_eq!(pod[field], own[field], "{field}");
    }
    holds(&pod["volumes"], &own["volumes"]);
    let (container, wanted) = (runtime_of(&pod), &own["containers"][0]);
    for field in ["env", "envFrom", "resources", "volumeMounts", "securityContext"] {
        holds(&container[field], &wanted[field]);
    }
    assert_eq!(container["image"], "runtime:v9");
    assert_eq!(container["securityContext"]["runAsNonRoot"], true, "what is left out has our defaults");
    let names = |list: &str| -> Vec<Value> {
        container[list].as_array().unwrap().iter().map(|one| one["name"].clone()).collect()
    };
    assert_eq!(names("ports"), ["debug", "metrics", "probes"]);
    assert_eq!(container["ports"][1]["containerPort"], 8080);
    assert!(names("env").contains(&json!("TEMPORAL_ADDRESS")) && names("env").contains(&json!("POD_NAME")));
    let service = pod["containers"].as_array().unwrap().iter().find(|one| one["name"] == "service").unwrap();
    assert!(!service.to_string().contains("TOKEN") && !service.to_string().contains("TEMPORAL_ADDRESS"), "{service}");
}

#[test]
fn the_runtime_is_asked_to_drain_before_it_is_told_to_end_and_leaves_its_last_words() {
    let container = runtime_of(&pod_of(json!({"template": null, "runtime": runtime()})));
    assert_eq!(container["lifecycle"], json!({"preStop": {"exec": {"command": ["/worker-runtime", "drain"]}}}));
    assert_eq!(container["terminationMessagePolicy"], "FallbackToLogsOnError");
    let mut own = template();
    own["spec"]["containers"][0]["lifecycle"] =
        json!({"preStop": {"sleep": {"seconds": 5}}, "postStart": {"sleep": {"seconds": 1}}});
    own["spec"]["containers"][0]["terminationMessagePolicy"] = json!("File");
    let container = runtime_of(&pod_of(json!({"template": own, "runtime": runtime()})));
    assert_eq!(container["lifecycle"], own["spec"]["containers"][0]["lifecycle"]);
    assert_eq!(container["terminationMessagePolicy"], "File");
}

#[test]
fn another_image_of_the_runtime_in_the_template_is_refused() {
    let mut own = template();
    own["spec"]["containers"][0]["image"] = json!("acme/runtime:v1");
    let mut runtime = runtime();
    let resolve = |runtime: &Value| try_resolve(&manifest(json!({"template": own, "runtime": runtime})), &[]);
    let message = resolve(&runtime).unwrap_err().to_string();
    assert!(message.contains("containers[temporal-worker-runtime].image: \"acme/runtime:v1\""), "{message}");
    assert!(message.contains("set spec.runtime.image"), "{message}");
    runtime["image"] = json!("acme/runtime:v1");
    assert_eq!(
        runtime_of(&resolve(&runtime).unwrap().child.object["spec"]["template"]["spec"])["image"],
        "acme/runtime:v1"
    );
}

#[test]
fn a_change_of_the_runtimes_own_container_is_a_new_version() {
    let build_id = |template: Value| fleet(json!({"runtime": runtime(), "template": template})).build_id.unwrap();
    let mut more = template();
    more["spec"]["containers"][0]["resources"]["limits"]["memory"] = json!("16Gi");
    assert!(build_id(template()).starts_with("runtime-"), "its container names no image");
    assert_ne!(build_id(template()), build_id(more));
}

#[test]
fn a_handlers_image_is_mounted_read_only_where_its_program_is_looked_for_and_makes_a_version() {
    let with_image = |image: Option<&str>| {
        let mut runtime = runtime();
        runtime["handlers"][0]["exec"]["command"] = json!(["/handlers/cat/bin/cat"]);
        if let Some(image) = image {
            runtime["handlers"][0]["image"] = json!(image);
        }
        fleet(json!({"runtime": runtime, "template": template()}))
    };
    let fleet = with_image(Some("acme/cat:v1"));
    let pod = &fleet.child.object["spec"]["template"]["spec"];
    let volume = json!({"name": "temporal-worker-handler-0", "image": {"reference": "acme/cat:v1"}});
    assert!(pod["volumes"].as_array().unwrap().contains(&volume), "{pod}");
    let mount = json!({"name": "temporal-worker-handler-0", "mountPath": "/handlers/cat", "readOnly": true});
    assert!(runtime_of(pod)["volumeMounts"].as_array().unwrap().contains(&mount), "{pod}");
    assert_eq!(pod.to_string().matches("/handlers/cat").count(), 1, "in the runtime's container alone");
    assert!(!with_image(None).child.object.to_string().contains("temporal-worker-handler"));
    let ids = [None, Some("acme/cat:v1"), Some("acme/cat:v2")].map(|image| with_image(image).build_id.unwrap());
    assert!(ids[0] != ids[1] && ids[1] != ids[2], "{ids:?}");
}

fn limits_of(runtime: &Value, template: &Value) -> Value {
    let fleet = fleet(json!({"runtime": runtime, "template": template}));
    serde_json::from_str(fleet.config_maps[1]["data"]["limits.json"].as_str().unwrap()).unwrap()
}

#[test]
fn every_limit_reaches_the_runtimes_file() {
    let mut runtime = runtime();
    runtime["taskQueues"][0] = json!({"name": "q", "maxConcurrentActivities": 4, "minConcurrentActivities": 2,
        "maxActivitiesPerSecond": 0.5, "maxTaskQueueActivitiesPerSecond": 20, "pollers": {"minimum": 1, "maximum": 8}});
    runtime["handlers"][0]["exec"]["limits"] = json!({"memory": "512Mi", "pids": 64});
    runtime["resourceTargets"] = json!({"memory": 80, "cpu": 90});
    runtime["grpcCompression"] = json!("Gzip");
    runtime["drainTimeout"] = json!("2m");
    let expected = json!({
        "maxConcurrentActivities": {"q": 4},
        "taskQueues": {"q": {"minConcurrentActivities": 2, "maxActivitiesPerSecond": 0.5,
            "maxTaskQueueActivitiesPerSecond": 20.0, "pollers": {"minimum": 1, "maximum": 8}}},
        "resourceTargets": {"memory": 0.8, "cpu": 0.9},
        "grpcCompression": "Gzip",
        "handlerTimeoutMs": {"cat": 90_000},
        "handlerMemoryBytes": {"cat": 536_870_912},
        "handlerPids": {"cat": 64},
        "drainTimeoutMs": 120_000,
    });
    assert_eq!(limits_of(&runtime, &Value::Null), expected);
}

#[test]
fn slots_per_device_are_multiplied_and_counted_by_the_autoscaler() {
    let mut runtime = runtime();
    runtime["taskQueues"][0] = json!({"name": "q", "maxConcurrentActivities": 3, "slotsPer": "nvidia.com/gpu"});
    let whole = fleet(json!({"runtime": runtime, "template": template()}));
    assert_eq!(whole.declared.slots[&lane()], 6);
    let limits = limits_of(&runtime, &template());
    assert_eq!(
        (&limits["maxConcurrentActivities"]["q"], &limits["taskQueues"]["q"]["devices"]),
        (&json!(6), &json!(2))
    );
    // The only other container that has any, as where a service holds the devices.
    let mut others = template();
    others["spec"]["containers"][1]["resources"] = json!({"limits": {"nvidia.com/gpu": 1}});
    others["spec"]["containers"][0]["resources"] = json!({});
    assert_eq!(limits_of(&runtime, &others)["maxConcurrentActivities"]["q"], 3);
    runtime["mode"] = json!("Library");
    let library = json!({"spec": {"containers": [
        {"name": "w", "image": "acme/w:v1", "resources": {"limits": {"nvidia.com/gpu": "4"}}}]}});
    assert_eq!(limits_of(&runtime, &library)["maxConcurrentActivities"]["q"], 12);
}

#[test]
fn slots_per_a_device_that_no_container_has_name_field_value_and_remedy() {
    let mut runtime = runtime();
    runtime["taskQueues"][0]["slotsPer"] = json!("nvidia.com/gpu");
    let error = |template: Value| {
        let object = manifest(json!({"runtime": runtime, "template": template}));
        resolve_with(&object, Auth::None, &[]).unwrap_err().to_string()
    };
    let message = error(Value::Null);
    let field = "spec.template.spec.containers[temporal-worker-runtime].resources.limits";
    assert!(
        message.starts_with("spec.runtime.taskQueues[q].slotsPer: \"nvidia.com/gpu\", but no container"),
        "{message}"
    );
    assert!(message.contains(field), "{message}");
    let container =
        |name: &str, gpus: &str| json!({"name": name, "image": "i", "resources": {"limits": {"nvidia.com/gpu": gpus}}});
    let message = error(json!({"spec": {"containers": [container("a", "1"), container("b", "1")]}}));
    assert!(message.contains("more than one container has a limit of it (a, b)"), "{message}");
    let message = error(json!({"spec": {"containers": [container("a", "0")]}}));
    assert!(message.contains("the limit of container a is \"0\""), "{message}");
}

#[test]
fn limits_change_without_a_new_version_and_without_new_pods() {
    let of = |change: &dyn Fn(&mut Value)| {
        let mut runtime = runtime();
        runtime["drainTimeout"] = json!("1m");
        change(&mut runtime);
        fleet(json!({"template": null, "runtime": runtime}))
    };
    let first = of(&|_| {});
    let limited = of(&|runtime| {
        runtime["taskQueues"][0]["maxConcurrentActivities"] = 9.into();
        runtime["taskQueues"][0]["maxActivitiesPerSecond"] = 3.into();
        runtime["taskQueues"][0]["pollers"] = json!({"minimum": 2, "maximum": 4});
        runtime["handlers"][0]["exec"]["timeout"] = "5s".into();
        runtime["handlers"][0]["exec"]["limits"] = json!({"memory": "1Gi"});
        runtime["resourceTargets"] = json!({"memory": 80, "cpu": 90});
        runtime["grpcCompression"] = "Gzip".into();
    });
    assert_eq!(limited.child, first.child, "the pods read them anew");
    assert_ne!(limited.config_maps[1], first.config_maps[1]);
    let patient = of(&|runtime| runtime["drainTimeout"] = "10m".into());
    assert_eq!(patient.build_id, first.build_id);
    assert_ne!(patient.child, first.child, "Kubernetes has to give them the time");
    let other = of(&|runtime| runtime["handlers"][0]["exec"]["command"] = json!(["dog"]));
    assert_ne!(first.build_id, other.build_id);
}

#[test]
fn without_versions_a_change_of_what_runs_needs_no_new_pods_either() {
    let of = |command: &str| {
        let mut runtime = runtime();
        runtime["handlers"][0]["exec"]["command"] = json!([command]);
        fleet(json!({"template": null, "runtime": runtime, "versioning": "Disabled"}))
    };
    assert_eq!(of("cat").child, of("dog").child);
    assert_ne!(of("cat").config_maps[0], of("dog").config_maps[0]);
}

#[test]
fn the_order_of_queues_handlers_and_activities_changes_nothing() {
    let turned = |reverse: bool| {
        let mut runtime = runtime();
        runtime["taskQueues"].as_array_mut().unwrap().push(json!({"name": "another"}));
        let handler = json!({"name": "another", "exec": {"command": ["cat"]}});
        runtime["handlers"].as_array_mut().unwrap().push(handler);
        runtime["activities"].as_array_mut().unwrap().push(json!({"type": "Another", "handler": "another"}));
        for list in ["taskQueues", "handlers", "activities"] {
            let list = runtime[list].as_array_mut().unwrap();
            if reverse {
                list.reverse();
            }
        }
        fleet(json!({"runtime": runtime}))
    };
    let (one, other) = (turned(false), turned(true));
    assert_eq!(one.config_maps[0], other.config_maps[0], "it can't change: it is immutable");
    assert_eq!(one.child.object, other.child.object);
}
