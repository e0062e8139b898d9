use operator_core::migrate::replace::task_queue;
use operator_core::migrate::{Refused, Replacement, Scaler, Source, Wish, replace};
use serde_json::{Value, json};

use super::fixtures::*;

fn source(deployment: Value) -> Source {
    Source { deployment, ..Source::default() }
}

fn with_autoscaler(spec: Value) -> Source {
    let autoscaler = json!({"metadata": {"name": "orders-hpa", "namespace": "prod"}, "spec": spec});
    Source { scaler: Scaler::Autoscaler(autoscaler), ..source(deployment(json!({}))) }
}

fn queue() -> Wish {
    Wish { task_queues: vec![task_queue("orders").unwrap()], ..Wish::default() }
}

fn replaced(source: &Source, wish: &Wish) -> Replacement {
    let replacement = replace(source, wish).unwrap();
    replacement.manifests().for_each(is_taken);
    replacement
}

fn refused(source: &Source, wish: &Wish) -> String {
    let Err(Refused(sentences)) = replace(source, wish) else { panic!("it is replaced") };
    sentences.join("\n")
}

#[test]
fn an_autoscaler_becomes_bounds_and_its_metrics_are_said() {
    let spec = json!({"minReplicas": 3, "maxReplicas": 12, "metrics": [
        {"type": "Resource", "resource": {"name": "cpu"}},
        {"type": "External", "external": {"metric": {"name": "temporal_backlog"}}}]});
    let replacement = replaced(&with_autoscaler(spec.clone()), &queue());
    let scaling = &replacement.fleet["spec"]["scaling"];
    assert_eq!((&scaling["minReplicas"], &scaling["maxReplicas"]), (&json!(3), &json!(12)));
    assert!(replacement.notes.join("\n").contains("Resource cpu, External temporal_backlog"), "{replacement:#?}");
    let commands = replacement.steps.iter().flat_map(|step| step.commands.clone()).collect::<Vec<_>>().join("\n");
    assert!(
        commands.contains("\"selectPolicy\":\"Disabled\"") && commands.ends_with("delete hpa orders-hpa"),
        "{commands}"
    );
    assert!(replacement.back.commands.join("\n").contains("\"selectPolicy\":\"Max\""));
    // Nobody else knows the queues.
    assert!(refused(&with_autoscaler(spec), &Wish::default()).contains("--task-queue"));
}

#[test]
fn a_deployment_that_nobody_scales_keeps_its_number() {
    let fixed = replaced(&source(deployment(json!({}))), &Wish::default());
    assert_eq!((&fixed.fleet["spec"]["replicas"], fixed.fleet["spec"].get("scaling")), (&json!(4), None));
    assert!(fixed.steps.iter().all(|step| step.commands.iter().all(|it| !it.contains("explain"))), "{fixed:#?}");
    let scaled = replaced(&source(deployment(json!({}))), &queue());
    let scaling = &scaled.fleet["spec"]["scaling"];
    assert_eq!((&scaling["minReplicas"], &scaling["maxReplicas"]), (&json!(4), &json!(4)));
    let idle = replaced(&source(deployment(json!({"spec": {"replicas": 0}}))), &queue());
    assert_eq!(idle.fleet["spec"]["scaling"]["maxReplicas"], 1);
}

#[test]
fn what_is_not_written_out_is_asked_for() {
    let bare = deployment(json!({"spec": {"template": {"spec": {"containers": [{"name": "worker", "image": "w:1",
        "envFrom": [{"secretRef": {"name": "temporal"}}]}]}}}}));
    let said = refused(&source(bare.clone()), &queue());
    assert!(said.contains("--address") && said.contains("--temporal-namespace"), "{said}");
    let wish = Wish { address: Some("t:7233".into()), temporal_namespace: Some("shop".into()), ..queue() };
    let replacement = replaced(&source(bare), &wish);
    let notes = replacement.notes.join("\n");
    assert!(notes.contains("envFrom") && notes.contains("No container has a port named metrics"), "{notes}");
    let wrong = Wish { address: Some("temporal".into()), ..queue() };
    assert!(refused(&source(deployment(json!({}))), &wrong).contains("HOST:PORT"));
}

#[test]
fn credentials_of_the_container_become_the_connection_s() {
    let with = |variables: Value, volume: Value| {
        let mut deployment = deployment(json!({}));
        let pod = &mut deployment["spec"]["template"]["spec"];
        pod["volumes"] = json!([volume]);
        let container = &mut pod["containers"][0];
        container["volumeMounts"] = json!([{"name": "certs", "mountPath": "/certs"}]);
        container["env"].as_array_mut().unwrap().extend(variables.as_array().unwrap().clone());
        replaced(&source(deployment), &queue())
    };
    let spec = |replacement: &Replacement| replacement.connection.as_ref().unwrap()["spec"].clone();
    let volume = json!({"name": "certs", "secret": {"secretName": "client"}});
    let reference = json!({"name": "TEMPORAL_API_KEY", "valueFrom": {"secretKeyRef": {"name": "cloud", "key": "k"}}});
    let key = with(json!([reference]), volume.clone());
    assert_eq!(spec(&key)["apiKeySecretRef"], json!({"name": "cloud", "key": "k"}));
    assert!(!key.fleet.to_string().contains("TEMPORAL_API_KEY"), "{key:#?}");

    let path = |path: &str| json!([{"name": "TEMPORAL_TLS_CLIENT_CERT_PATH", "value": path}]);
    assert_eq!(spec(&with(path("/certs/tls.crt"), volume.clone()))["mutualTLSSecretRef"], json!({"name": "client"}));
    let renamed = with(path("/certs/client.pem"), volume.clone());
    assert_eq!(spec(&renamed).get("mutualTLSSecretRef"), None);
    assert!(renamed.notes.join("\n").contains("/certs/client.pem is not taken over"), "{renamed:#?}");

    let literal = with(json!([{"name": "TEMPORAL_API_KEY", "value": "hunter2"}]), volume);
    let notes = literal.notes.join("\n");
    assert!(notes.contains("TEMPORAL_API_KEY is no reference to a Secret") && !notes.contains("hunter2"), "{notes}");
}

#[test]
fn a_connection_that_says_the_same_is_used() {
    let connection = |name: &str, address: &str| json!({"metadata": {"name": name, "namespace": "prod"}, "spec": {"hostPort": address}});
    let mut source = source(deployment(json!({})));
    let used = |source: &Source, wish: &Wish| {
        let replacement = replaced(source, wish);
        let name = replacement.fleet["spec"]["workerOptions"]["connectionRef"]["name"].clone();
        (name.as_str().unwrap().to_owned(), replacement.connection.is_some())
    };
    source.connections = vec![connection("production", "temporal.temporal:7233")];
    assert_eq!(used(&source, &queue()), ("production".into(), false));
    source.connections = vec![connection("temporal", "other:7233")];
    assert_eq!(used(&source, &queue()), ("orders-fleet".into(), true));
    let asked = Wish { connection: Some("temporal".into()), ..queue() };
    assert_eq!(used(&source, &asked), ("temporal".into(), false));
    let absent = Wish { connection: Some("absent".into()), ..queue() };
    assert!(refused(&source, &absent).contains("Connection absent does not exist"));
}

#[test]
fn what_the_deployment_says_of_rollouts_is_the_fleet_s() {
    let spec = |patch: Value| replaced(&source(deployment(json!({"spec": patch}))), &queue()).fleet["spec"].clone();
    let usual = spec(json!({}));
    for field in ["deploymentStrategy", "minReadySeconds", "progressDeadlineSeconds"] {
        assert_eq!(usual.get(field), None, "{field}");
    }
    let surge = spec(
        json!({"strategy": {"rollingUpdate": {"maxSurge": 2}}, "minReadySeconds": 9, "progressDeadlineSeconds": 900}),
    );
    assert_eq!(surge["deploymentStrategy"], json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2}}));
    assert_eq!((&surge["minReadySeconds"], &surge["progressDeadlineSeconds"]), (&json!(9), &json!(900)));
    let recreate = spec(json!({"strategy": {"type": "Recreate", "rollingUpdate": null}}));
    assert_eq!(recreate["deploymentStrategy"], json!({"type": "Recreate"}));
}

#[test]
fn metrics_are_found_by_the_usual_annotations() {
    let patch = |annotations: Value| {
        let mut deployment = deployment(json!({"spec": {"template": {"metadata": {"annotations": annotations}}}}));
        deployment["spec"]["template"]["spec"]["containers"][0]["ports"] = json!([]);
        replaced(&source(deployment), &queue()).fleet["spec"]["scaling"].clone()
    };
    let annotated = patch(json!({"prometheus.io/port": "9464", "prometheus.io/path": "/prom"}));
    assert_eq!(annotated["podMetrics"], json!({"port": 9464, "path": "/prom"}));
    assert_eq!(patch(json!({"a": "b"})).get("podMetrics"), None);
}

#[test]
fn who_keeps_the_deployment_is_named() {
    let kept =
        |metadata: Value| replaced(&source(deployment(json!({"metadata": metadata}))), &queue()).notes.join("\n");
    assert!(
        kept(json!({"annotations": {"meta.helm.sh/release-name": "shop"}})).contains("kept by Helm (release shop)")
    );
    assert!(kept(json!({"labels": {"argocd.argoproj.io/instance": "shop"}})).contains("kept by Argo CD (shop)"));
    assert!(!kept(json!({})).contains("kept by"));
}
