use operator_core::migrate::{Kind, Report, Severity};
use serde_json::{Value, json};

use super::fixtures::*;

const SCALED: &str = "ScaledObject prod/orders-keda";
const HPA: &str = "HorizontalPodAutoscaler prod/orders-hpa";

fn autoscaler(patch: Value) -> Value {
    let mut autoscaler = json!({
        "metadata": {"name": "orders-hpa", "namespace": "prod"},
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "orders-v1-2-3-45d8"}, "maxReplicas": 9},
    });
    merge(&mut autoscaler, patch);
    autoscaler
}

fn beside(fleet_spec: Value, scaler: (Kind, Value)) -> Report {
    report(&[(Kind::Fleet, fleet(json!({"spec": fleet_spec}))), (Kind::Child, child(json!({}))), scaler])
}

fn on_the_version() -> Value {
    scaled_object(json!({"scaleTargetRef": {"name": "orders-v1-2-3-45d8"}}))
}

#[test]
fn whoever_scales_a_version_beside_the_operator_blocks() {
    let scaling = json!({"scaling": {}});
    let command = "kubectl -n prod delete hpa orders-hpa";
    says(
        &beside(scaling.clone(), (Kind::Autoscaler, autoscaler(json!({})))),
        HPA,
        Severity::Blocking,
        &["one owner", command],
    );
    let keda = beside(scaling.clone(), (Kind::ScaledObject, on_the_version()));
    says(&keda, SCALED, Severity::Blocking, &["kubectl -n prod delete scaledobject orders-keda"]);
    let made =
        autoscaler(json!({"metadata": {"ownerReferences": [{"kind": "WorkerResourceTemplate", "name": "hpa"}]}}));
    says(&beside(scaling, (Kind::Autoscaler, made)), HPA, Severity::Blocking, &["Delete WorkerResourceTemplate hpa"]);
}

#[test]
fn whoever_scales_a_version_alone_goes_on() {
    let alone = beside(json!({}), (Kind::Autoscaler, autoscaler(json!({}))));
    says(&alone, HPA, Severity::Warning, &["The next version of orders has no such object", "spec.scaling"]);
    let fixed = beside(json!({"replicas": 3}), (Kind::Autoscaler, autoscaler(json!({}))));
    says(&fixed, HPA, Severity::Warning, &["spec.replicas"]);
    let made =
        autoscaler(json!({"metadata": {"ownerReferences": [{"kind": "WorkerResourceTemplate", "name": "hpa"}]}}));
    says(&beside(json!({}), (Kind::Autoscaler, made)), HPA, Severity::Fine, &["made by WorkerResourceTemplate hpa"]);
    let kedas =
        json!({"metadata": {"ownerReferences": [{"kind": "ScaledObject", "name": "orders-keda", "controller": true}]}});
    says(&beside(json!({}), (Kind::Autoscaler, autoscaler(kedas))), HPA, Severity::Fine, &["made by KEDA"]);
}

#[test]
fn scalers_of_others_are_not_looked_at() {
    let elsewhere = json!({"spec": {"scaleTargetRef": {"name": "web"}}});
    assert!(report(&[(Kind::Autoscaler, autoscaler(elsewhere))]).findings.is_empty());
    let other_namespace = json!({"metadata": {"namespace": "dev"}});
    let beside = beside(json!({}), (Kind::Autoscaler, autoscaler(other_namespace)));
    assert!(beside.findings.iter().all(|finding| finding.kind != "HorizontalPodAutoscaler"), "{beside:#?}");
    let cron = scaled_object(json!({"triggers": [{"type": "cron", "metadata": {}}]}));
    assert!(report(&[(Kind::ScaledObject, cron)]).findings.is_empty());
    // A Deployment that belongs to no fleet can be replaced.
    let plan = "temporal-worker-operator migrate plan --from-keda orders-keda -n prod";
    says(&report(&[(Kind::ScaledObject, scaled_object(json!({})))]), SCALED, Severity::Fine, &[plan]);
}

#[test]
fn templates_of_resources_are_taken_over_or_refused() {
    let object = "WorkerResourceTemplate prod/each";
    let template = |kind: &str| {
        json!({"metadata": {"name": "each", "namespace": "prod"}, "spec": {
            "workerDeploymentRef": {"name": "orders"},
            "template": {"apiVersion": "autoscaling/v2", "kind": kind, "spec": {"scaleTargetRef": {}}}}})
    };
    let hpa = || (Kind::ResourceTemplate, template("HorizontalPodAutoscaler"));
    says(&beside(json!({}), hpa()), object, Severity::Fine, &["stays"]);
    says(&beside(json!({"scaling": {}}), hpa()), object, Severity::Blocking, &["one owner"]);
    says(&beside(json!({"scaling": {"dryRun": true}}), hpa()), object, Severity::Fine, &["stays"]);
    let other = (Kind::ResourceTemplate, template("ScaledObject"));
    says(&beside(json!({}), other), object, Severity::Warning, &["workerResourceTemplate.allowedResources"]);
    says(&report(&[hpa()]), object, Severity::Warning, &["not found"]);
}
