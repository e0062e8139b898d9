use operator_core::api::TaskQueueType;
use operator_core::migrate::replace::task_queue;
use operator_core::migrate::{Refused, Replacement, Scaler, Source, Wish, replace};
use serde_json::{Value, json};

use super::fixtures::*;

fn source(scaled: Value, deployment: Value) -> Source {
    Source { deployment, scaler: Scaler::ScaledObject(scaled), ..Source::default() }
}

fn replaced(source: &Source, wish: &Wish) -> Replacement {
    let replacement = replace(source, wish).unwrap();
    replacement.manifests().for_each(is_taken);
    replacement
}

fn from_keda(spec: Value) -> Replacement {
    replaced(&source(scaled_object(spec), deployment(json!({}))), &Wish::default())
}

fn refused(source: &Source, wish: &Wish) -> String {
    let Err(Refused(sentences)) = replace(source, wish) else { panic!("it is replaced") };
    sentences.join("\n")
}

fn notes(replacement: &Replacement) -> String {
    replacement.notes.join("\n")
}

#[test]
fn a_scaled_object_becomes_bounds_and_task_queues() {
    let replacement = from_keda(json!({"minReplicaCount": 2, "cooldownPeriod": 30}));
    let spec = &replacement.fleet["spec"];
    assert_eq!(replacement.fleet["metadata"], json!({"name": "orders-fleet", "namespace": "prod"}));
    assert_eq!(spec["versioning"], "Disabled");
    assert_eq!(spec["workerOptions"], json!({"connectionRef": {"name": "temporal"}, "temporalNamespace": "shop"}));
    let queues = json!([{"name": "orders", "types": ["Workflow", "Activity"]}]);
    assert_eq!(spec["scaling"], json!({"minReplicas": 2, "maxReplicas": 20, "taskQueues": queues}));
    let connection = replacement.connection.as_ref().unwrap();
    assert_eq!(connection["spec"], json!({"hostPort": "temporal.temporal:7233"}));
    assert_eq!(connection["metadata"], json!({"name": "temporal", "namespace": "prod"}));
}

#[test]
fn the_template_is_copied_but_for_what_the_connection_gives() {
    let restarted = json!({"spec": {"template": {"metadata": {"annotations": {
        "kubectl.kubernetes.io/restartedAt": NOW, "team": "a"}}}}});
    let template = |patch| {
        let source = source(scaled_object(json!({})), deployment(patch));
        replaced(&source, &Wish::default()).fleet["spec"]["template"].clone()
    };
    let mut expected = deployment(json!({}))["spec"]["template"].clone();
    expected["metadata"].as_object_mut().unwrap().remove("creationTimestamp");
    expected["spec"]["containers"][0]["env"] = json!([{"name": "LOG", "value": "info"}]);
    assert_eq!(template(json!({})), expected);
    expected["metadata"]["annotations"] = json!({"team": "a"});
    assert_eq!(template(restarted), expected);
}

#[test]
fn zero_and_the_time_before_it_are_keda_s() {
    let scaling = |spec| from_keda(spec).fleet["spec"]["scaling"].clone();
    let defaults = scaling(json!({"maxReplicaCount": null}));
    assert_eq!(
        (&defaults["minReplicas"], &defaults["maxReplicas"], &defaults["idleWindow"]),
        (&json!(0), &json!(100), &json!("300s"))
    );
    assert_eq!(scaling(json!({"cooldownPeriod": 60}))["idleWindow"], "60s");
    assert_eq!(scaling(json!({"cooldownPeriod": 0})).get("idleWindow"), None);
    let idle = from_keda(json!({"idleReplicaCount": 0, "minReplicaCount": 3}));
    assert_eq!(idle.fleet["spec"]["scaling"]["minReplicas"], 0);
    assert!(notes(&idle).contains("at least 3 pods"), "{idle:#?}");
}

#[test]
fn what_can_not_be_taken_over_is_said() {
    let trigger = |metadata: Value| {
        let mut own = scaled_object(json!({}))["spec"]["triggers"][0].clone();
        merge(&mut own["metadata"], metadata);
        own
    };
    let cases = [
        (json!({"fallback": {"replicas": 3}}), "fallback"),
        (json!({"advanced": {"scalingModifiers": {"formula": "a"}}}), "scalingModifiers"),
        (json!({"advanced": {"horizontalPodAutoscalerConfig": {"behavior": {}}}}), "behavior"),
        (json!({"triggers": [trigger(json!({})), {"type": "cpu", "metadata": {}}]}), "The cpu trigger"),
        (json!({"triggers": [trigger(json!({})), {"type": "kafka", "metadata": {}}]}), "The kafka trigger"),
        (json!({"triggers": [trigger(json!({"targetQueueSize": "7"}))]}), "targetQueueSize 7"),
        (json!({"triggers": [trigger(json!({"unsafeSsl": "true"}))]}), "unsafeSsl"),
        (json!({"triggers": [trigger(json!({"buildId": "1.0"}))]}), "selects versions (buildId)"),
        (json!({"triggers": [trigger(json!({"queueTypes": null}))]}), "says no queueTypes"),
        (json!({"triggers": [trigger(json!({"queueTypes": "activity"}))]}), "watches activity tasks of orders alone"),
    ];
    let plain = notes(&from_keda(json!({})));
    for (spec, part) in cases {
        let said = notes(&from_keda(spec.clone()));
        assert!(said.contains(part) && !plain.contains(part), "{spec}: {part:?} is not in: {said}");
    }
}

/// The schedule, and what is said, of a ScaledObject of at most 10 pods with triggers of type cron.
fn with_crons(crons: &[(&str, &str, &str, &str)]) -> (Value, String) {
    let own = scaled_object(json!({}))["spec"]["triggers"].as_array().unwrap().clone();
    let cron = |(start, end, timezone, replicas): &(&str, &str, &str, &str)| {
        let metadata = json!({"start": start, "end": end, "timezone": timezone, "desiredReplicas": replicas});
        json!({"type": "cron", "metadata": metadata})
    };
    let triggers: Vec<Value> = own.into_iter().chain(crons.iter().map(cron)).collect();
    let made = from_keda(json!({"maxReplicaCount": 10, "triggers": triggers}));
    (made.fleet["spec"]["scaling"]["schedule"].clone(), notes(&made))
}

#[test]
fn cron_triggers_become_entries_of_the_schedule() {
    let (schedule, said) =
        with_crons(&[("0 8 * * 1-5", "30 18 * * 1-5", "Europe/Berlin", "5"), ("0 22 * * *", "0 6 * * *", "UTC", "20")]);
    assert_eq!(
        schedule,
        json!([
            {"name": "cron-1", "cron": "0 8 * * 1-5", "timezone": "Europe/Berlin", "duration": "10h30m0s", "minReplicas": 5},
            {"name": "cron-2", "cron": "0 22 * * *", "timezone": "UTC", "duration": "8h0m0s", "minReplicas": 10},
        ])
    );
    assert!(said.contains("(0 8 * * 1-5 to 30 18 * * 1-5, Europe/Berlin, 5 replicas) becomes entry cron-1"), "{said}");
    assert!(said.contains("becomes entry cron-2 of spec.scaling.schedule, of at most 10 pods"), "{said}");
}

#[test]
fn a_cron_trigger_that_no_entry_says_is_named_with_the_reason() {
    let cases = [
        (("0 8 * * 1-5", "0 18 * * 1,3", "UTC", "5"), "not always equally long"),
        (("0 0 1 * *", "0 0 15 * *", "UTC", "5"), "longer than 168h"),
        (("@every 1h", "0 18 * * *", "UTC", "5"), "is not a cron expression"),
        (("0 8 * * *", "0 18 31 2 *", "UTC", "5"), "never comes"),
        (("0 8 * * *", "0 18 * * *", "Berlin", "5"), "not a time zone"),
        (("0 8 * * *", "0 18 * * *", "UTC", "many"), "is no number of pods"),
        (("0 8 * * *", "0 18 * * *", "UTC", "0"), "one pod at least"),
    ];
    for (cron, why) in cases {
        let (schedule, said) = with_crons(&[cron]);
        assert_eq!(schedule, Value::Null, "{cron:?}");
        assert!(said.contains("is not taken over (") && said.contains(why), "{cron:?}: {why:?} is not in: {said}");
    }
}

#[test]
fn triggers_of_one_queue_are_one_and_asked_ones_count() {
    let trigger = |queue: &str, types: &str| json!({"type": "temporal", "metadata": {"endpoint": "t:1", "namespace": "shop", "taskQueue": queue, "queueTypes": types}});
    let triggers =
        json!({"triggers": [trigger("a", "workflow"), trigger("b", "workflow"), trigger("a", "activity,workflow")]});
    let wish = Wish { task_queues: vec![task_queue("b=Nexus").unwrap(), task_queue("c").unwrap()], ..Wish::default() };
    let queues =
        replaced(&source(scaled_object(triggers), deployment(json!({}))), &wish).fleet["spec"]["scaling"]["taskQueues"]
            .clone();
    assert_eq!(
        queues,
        json!([{"name": "a", "types": ["Workflow", "Activity"]}, {"name": "b", "types": ["Nexus"]},
            {"name": "c", "types": ["Workflow", "Activity"]}])
    );
}

#[test]
fn a_task_queue_is_named_with_its_types_or_without() {
    let read = |text| task_queue(text).map(|queue| (queue.name, queue.types));
    let both = vec![TaskQueueType::Workflow, TaskQueueType::Activity];
    assert_eq!(read("orders"), Ok(("orders".into(), both.clone())));
    assert_eq!(read("a=b"), Ok(("a=b".into(), both)));
    assert_eq!(read("a=b=activity,Nexus"), Ok(("a=b".into(), vec![TaskQueueType::Activity, TaskQueueType::Nexus])));
    assert!(read("").is_err() && read("=Workflow").is_err());
}

#[test]
fn variables_of_the_container_are_looked_up() {
    let trigger = json!({"triggers": [{"type": "temporal", "metadata": {
        "endpointFromEnv": "TEMPORAL_ADDRESS", "namespaceFromEnv": "TEMPORAL_NAMESPACE", "taskQueueFromEnv": "QUEUE",
        "queueTypes": "workflow,activity"}}]});
    let with = |variable: Value| {
        let mut deployment = deployment(json!({}));
        deployment["spec"]["template"]["spec"]["containers"][0]["env"].as_array_mut().unwrap().push(variable);
        source(scaled_object(trigger.clone()), deployment)
    };
    let written = replaced(&with(json!({"name": "QUEUE", "value": "orders"})), &Wish::default());
    assert_eq!(written.fleet["spec"]["scaling"]["taskQueues"][0]["name"], "orders");
    let hidden = with(json!({"name": "QUEUE", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}));
    assert!(refused(&hidden, &Wish::default()).contains("--task-queue"));
}

#[test]
fn credentials_become_the_connection_s() {
    let authentication = |entries: Value| json!({"metadata": {"name": "auth", "namespace": "prod"}, "spec": {"secretTargetRef": entries}});
    let mut scaled = scaled_object(json!({}));
    scaled["spec"]["triggers"][0]["authenticationRef"] = json!({"name": "auth"});
    let with = |entries: Value| {
        let mut source = source(scaled.clone(), deployment(json!({})));
        source.authentications = vec![authentication(entries)];
        replaced(&source, &Wish::default())
    };
    let spec = |replacement: &Replacement| replacement.connection.as_ref().unwrap()["spec"].clone();
    let entry = |parameter: &str, key: &str| json!({"parameter": parameter, "name": "cloud", "key": key});

    let key = with(json!([entry("apiKey", "api-key")]));
    assert_eq!(spec(&key)["apiKeySecretRef"], json!({"name": "cloud", "key": "api-key"}));
    let certificate = with(json!([entry("cert", "tls.crt"), entry("key", "tls.key"), entry("ca", "ca.crt")]));
    assert_eq!(spec(&certificate)["mutualTLSSecretRef"], json!({"name": "cloud"}));
    assert_eq!(spec(&certificate)["tls"]["caCertSecretRef"], json!({"name": "cloud"}));
    assert!(!notes(&certificate).contains("Not all credentials"), "{certificate:#?}");
    let renamed = with(json!([entry("cert", "client.pem"), entry("key", "client.key")]));
    assert_eq!(spec(&renamed).get("mutualTLSSecretRef"), None);
    assert!(notes(&renamed).contains("Not all credentials of TriggerAuthentication auth"), "{renamed:#?}");
    let missing = replaced(&source(scaled.clone(), deployment(json!({}))), &Wish::default());
    assert!(notes(&missing).contains("Credentials of TriggerAuthentication auth are not taken over"), "{missing:#?}");
}

#[test]
fn two_temporal_namespaces_are_a_question() {
    let other = scaled_object(json!({}));
    let mut other = source(other, deployment(json!({})));
    if let Scaler::ScaledObject(scaled) = &mut other.scaler {
        scaled["spec"]["triggers"][0]["metadata"]["namespace"] = json!("elsewhere");
    }
    let said = refused(&other, &Wish::default());
    assert!(said.contains("elsewhere, shop") && said.contains("--temporal-namespace"), "{said}");
    let wish = Wish { temporal_namespace: Some("shop".into()), ..Wish::default() };
    assert_eq!(replaced(&other, &wish).fleet["spec"]["workerOptions"]["temporalNamespace"], "shop");
}

#[test]
fn what_is_not_a_deployment_of_its_own_is_refused() {
    let stateful = scaled_object(json!({"scaleTargetRef": {"kind": "StatefulSet", "name": "orders"}}));
    assert!(refused(&source(stateful, deployment(json!({}))), &Wish::default()).contains("StatefulSet"));
    let no_temporal = scaled_object(json!({"triggers": [{"type": "cpu", "metadata": {}}]}));
    assert!(
        refused(&source(no_temporal, deployment(json!({}))), &Wish::default()).contains("no trigger of type temporal")
    );
    let version = source(scaled_object(json!({})), {
        let mut deployment = deployment(json!({}));
        deployment["metadata"]["ownerReferences"] = child(json!({}))["metadata"]["ownerReferences"].clone();
        deployment
    });
    assert!(refused(&version, &Wish::default()).contains("belongs to WorkerDeployment orders"));
    let same = Wish { name: Some("orders".into()), ..Wish::default() };
    assert!(refused(&source(scaled_object(json!({})), deployment(json!({}))), &same).contains("--name"));
}

#[test]
fn the_way_over_keeps_the_capacity() {
    let replacement = from_keda(json!({"minReplicaCount": 1}));
    let commands: Vec<&str> = replacement.steps.iter().flat_map(|step| &step.commands).map(String::as_str).collect();
    let at = |part: &str| {
        commands.iter().position(|it| it.contains(part)).unwrap_or_else(|| panic!("{part}: {commands:#?}"))
    };
    let order = [
        "annotate scaledobject orders-keda autoscaling.keda.sh/paused=true",
        "\"minReplicas\":4",
        "readyReplicas}'=4",
        "scale deployment/orders --replicas=0",
        "explain prod/orders-fleet",
        "delete deployment orders",
        "delete scaledobject orders-keda",
    ];
    assert!(order.map(at).is_sorted(), "{commands:#?}");
    let back = replacement.back.commands.join("\n");
    assert!(
        back.starts_with("kubectl -n prod scale deployment/orders --replicas=4") && back.contains("paused-"),
        "{back}"
    );

    let text = replacement.yaml().unwrap();
    let documents: Vec<Value> =
        text.split("\n---\n").skip(1).map(|document| serde_yaml::from_str(document).unwrap()).collect();
    assert_eq!(documents, replacement.manifests().cloned().collect::<Vec<_>>());
    let head = text.split("\n---\n").next().unwrap();
    assert!(head.lines().all(|line| line.starts_with('#')) && head.contains(order[0]), "{head}");
}
