//! The Deployment of a version: what is in it, who may touch it, and how its replicas are written.

use std::sync::Arc;

use anyhow::{Result, ensure};
use e2e::ground::replicas_of;
use e2e::wait::within;
use e2e::{HostBed, eventually};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams, PostParams};
use operator_core::names::FIELD_MANAGER;
use serde_json::{Value, json};

use super::{ORDERS_CHILD, fails, orders, runs};

/// A client certificate as a Secret.
pub fn certificate() -> Result<Value> {
    let folder = tempfile::tempdir()?;
    let authority = harness::pki::Authority::create(folder.path(), "test")?;
    let user = harness::pki::User { name: "client", group: "clients" };
    let files = authority.sign("client", user, &[], &[])?;
    let read = |path: &std::path::Path| std::fs::read_to_string(path);
    Ok(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "certs"}, "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": read(&files.certificate)?, "tls.key": read(&files.key)?}}))
}

pub async fn it_is_exactly_what_the_contract_says(bed: Arc<HostBed>) -> Result<()> {
    let ground = bed.ground("contract").await?;
    ground.apply(&certificate()?).await?;
    let address = bed.server.host_port();
    ground
        .apply(&json!({"apiVersion": "temporal.io/v1alpha1", "kind": "Connection", "metadata": {"name": "temporal"},
            "spec": {"hostPort": address, "tls": {"serverName": "temporal.example.com"},
                "mutualTLSSecretRef": {"name": "certs"}}}))
        .await?;
    let mut fleet = orders();
    fleet["spec"]["template"]["metadata"]["annotations"] = json!({"team": "orders"});
    fleet["spec"]["template"]["spec"]["initContainers"] = json!([{"name": "first", "image": "first:1"}]);
    fleet["spec"]["minReadySeconds"] = json!(7);
    let uid = ground.apply(&fleet).await?.uid();
    let child = serde_json::to_value(runs(&ground).await?)?;
    let status = eventually("it has a status", async || ground.status("orders").await).await?;
    let build_id = status.target_version.version.build_id.clone();
    let selector = json!({"temporal.io/deployment-name": "orders", "temporal.io/build-id": build_id});
    ensure_is(&child["spec"]["selector"], json!({"matchLabels": selector}))?;
    ensure_is(&child["spec"]["minReadySeconds"], json!(7))?;
    for condition in &status.conditions {
        let generation = condition.observed_generation;
        ensure!(generation == status.observed_generation && generation == Some(1), "{condition:?}");
    }
    has_the_contracts_metadata(&child["metadata"], selector.clone(), &uid)?;
    has_the_contracts_pod(&child["spec"]["template"], selector, &address)
}

fn has_the_contracts_metadata(metadata: &Value, selector: Value, uid: &Option<String>) -> Result<()> {
    let build_id = selector["temporal.io/build-id"].as_str().unwrap_or_default().to_owned();
    ensure_is(&metadata["name"], json!(format!("orders-{}", build_id.replace('.', "-"))))?;
    let mut labels = selector;
    for (key, value) in [
        ("name", "temporal-worker"),
        ("instance", "orders"),
        ("version", build_id.as_str()),
        ("component", "worker"),
        ("part-of", "orders"),
        ("managed-by", FIELD_MANAGER),
    ] {
        labels[format!("app.kubernetes.io/{key}")] = json!(value);
    }
    ensure_is(&metadata["labels"], labels)?;
    ensure_is(&metadata["annotations"], json!({"team": "orders"}))?;
    let owner = json!([{"apiVersion": "temporal.io/v1alpha1", "kind": "WorkerDeployment", "name": "orders", "uid": uid,
        "controller": true, "blockOwnerDeletion": true}]);
    ensure_is(&metadata["ownerReferences"], owner)
}

fn has_the_contracts_pod(pod: &Value, selector: Value, address: &str) -> Result<()> {
    let build_id = selector["temporal.io/build-id"].as_str().unwrap_or_default().to_owned();
    let mut labels = selector;
    labels["app"] = json!("worker");
    ensure_is(&pod["metadata"]["labels"], labels)?;
    let annotations = pod["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    let keys: Vec<_> = annotations.keys().map(String::as_str).collect();
    ensure!(keys == ["team", "temporal.io/connection-spec-hash", "temporal.io/pod-template-spec-hash"], "{keys:?}");
    let hash = operator_core::build_id::connection_spec_hash(address, Some("temporal.example.com"), Some("certs"));
    ensure_is(&annotations["temporal.io/connection-spec-hash"], json!(hash))?;
    let template_hash = annotations["temporal.io/pod-template-spec-hash"].as_str().unwrap_or_default();
    ensure!(template_hash.len() == 64, "{template_hash:?} is no SHA-256");
    let container = &pod["spec"]["containers"][0];
    let variable = |name: &str, value: &str| json!({"name": name, "value": value});
    let variables = json!([
        variable("TEMPORAL_TASK_QUEUE", "orders"),
        variable("TEMPORAL_ADDRESS", address),
        variable("TEMPORAL_NAMESPACE", "default"),
        variable("TEMPORAL_DEPLOYMENT_NAME", "contract/orders"),
        variable("TEMPORAL_WORKER_BUILD_ID", &build_id),
        variable("TEMPORAL_TLS_SERVER_NAME", "temporal.example.com"),
        variable("TEMPORAL_TLS", "true"),
        variable("TEMPORAL_TLS_CLIENT_KEY_PATH", "/etc/temporal/tls/tls.key"),
        variable("TEMPORAL_TLS_CLIENT_CERT_PATH", "/etc/temporal/tls/tls.crt"),
    ]);
    ensure_is(&container["env"], variables)?;
    ensure_is(&container["volumeMounts"], json!([{"name": "temporal-tls", "mountPath": "/etc/temporal/tls"}]))?;
    let volumes = json!([{"name": "temporal-tls", "secret": {"secretName": "certs", "defaultMode": 420}}]);
    ensure_is(&pod["spec"]["volumes"], volumes)?;
    ensure_is(&pod["spec"]["initContainers"][0]["env"], Value::Null)
}

fn ensure_is(is: &Value, wanted: Value) -> Result<()> {
    ensure!(*is == wanted, "{is:#} is not {wanted:#}");
    Ok(())
}

pub async fn a_variable_of_the_users_is_replaced_with_a_warning(bed: Arc<HostBed>) -> Result<()> {
    let ground = bed.ground("replaced").await?;
    let mut fleet = orders();
    let own = json!({"name": "TEMPORAL_ADDRESS", "value": "elsewhere:7233"});
    fleet["spec"]["template"]["spec"]["containers"][0]["env"] = json!([own, {"name": "COLOR", "value": "red"}]);
    ground.apply(&fleet).await?;
    let child = serde_json::to_value(runs(&ground).await?)?;
    let variables = child["spec"]["template"]["spec"]["containers"][0]["env"].as_array().cloned().unwrap_or_default();
    let addresses: Vec<_> = variables.iter().filter(|one| one["name"] == "TEMPORAL_ADDRESS").collect();
    ensure!(addresses.len() == 1 && addresses[0]["value"] == bed.server.host_port(), "{variables:?}");
    ensure!(variables.contains(&json!({"name": "COLOR", "value": "red"})), "{variables:?}");
    eventually("a warning names it", async || {
        let events = ground.events("orders").await?;
        let told = events.iter().any(|(word, note)| {
            word == "EnvironmentVariableReplaced" && note.contains("TEMPORAL_ADDRESS") && !note.contains("COLOR")
        });
        ensure!(told, "{events:?}");
        Ok(())
    })
    .await
}

pub async fn replicas_are_written_by_scale_alone(bed: Arc<HostBed>) -> Result<()> {
    let ground = bed.ground("replicas").await?;
    let mut fleet = orders();
    fleet["spec"]["replicas"] = json!(3);
    ground.apply(&fleet).await?;
    eventually("spec.replicas is followed", async || {
        let replicas = ground.replicas("orders").await?;
        ensure!(replicas == 3, "{replicas} replicas");
        Ok(())
    })
    .await?;
    let child = ground.child("orders").await?;
    let owns_replicas =
        |entry: &&ManagedFieldsEntry| entry.fields_v1.as_ref().is_some_and(|f| f.0.to_string().contains("f:replicas"));
    let owners: Vec<_> = child.managed_fields().iter().filter(owns_replicas).collect();
    ensure!(owners.is_empty(), "replicas were in an apply: {owners:?}");
    let scales = bed.writes_in("replicas")?;
    let scales: Vec<_> = scales.iter().filter(|write| write.resource == "deployments/scale").collect();
    ensure!(scales.len() == 1 && scales[0].replicas == Some(3), "{scales:?}");

    // Without the field nobody owns the replicas: an apply leaves what the user set.
    fleet["spec"].as_object_mut().expect("an object").remove("replicas");
    ground.apply(&fleet).await?;
    ground.scale_by_hand("orders", 7).await?;
    fleet["spec"]["minReadySeconds"] = json!(4);
    ground.apply(&fleet).await?;
    let child = eventually("the change was applied", async || {
        let child = ground.child("orders").await?;
        let is = child.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
        ensure!(is == Some(4), "minReadySeconds is {is:?}");
        Ok(child)
    })
    .await?;
    ensure!(replicas_of(&child) == 7, "{} replicas", replicas_of(&child));
    Ok(())
}

pub async fn a_deployment_of_somebody_else_is_never_touched(bed: Arc<HostBed>) -> Result<()> {
    for (namespace, labels) in [
        ("foreign", json!({"app": "other"})),
        ("foreign-labelled", json!({"temporal.io/deployment-name": "orders", "temporal.io/build-id": "v1.2.3-45d8"})),
    ] {
        let ground = bed.ground(namespace).await?;
        let theirs = json!({"metadata": {"name": ORDERS_CHILD, "labels": labels}, "spec": {
            "replicas": 5, "selector": {"matchLabels": {"app": "other"}},
            "template": {"metadata": {"labels": {"app": "other"}},
                "spec": {"containers": [{"name": "other", "image": "other:1"}]}}}});
        let theirs: Deployment = serde_json::from_value(theirs)?;
        let theirs = ground.api::<Deployment>().create(&PostParams::default(), &theirs).await?;
        let mut fleet = orders();
        fleet["spec"]["replicas"] = json!(2);
        ground.apply(&fleet).await?;
        let parts = [ORDERS_CHILD, "belongs to somebody else", "rename"];
        fails(&ground, "PlanExecutionFailed", &parts).await?;
        // Another change, another try.
        fleet["spec"]["replicas"] = json!(1);
        ground.apply(&fleet).await?;
        eventually("the change was seen", async || ground.condition("orders", "Ready").await).await?;
        let is = ground.api::<Deployment>().get(ORDERS_CHILD).await?;
        ensure!(is.resource_version() == theirs.resource_version(), "it was written: {is:?}");
    }
    Ok(())
}

pub async fn what_somebody_changes_is_put_back(bed: Arc<HostBed>) -> Result<()> {
    let ground = bed.ground("put-back").await?;
    ground.apply(&orders()).await?;
    let child = runs(&ground).await?;
    let image = |child: &Deployment| {
        let pod = child.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        pod.and_then(|pod| pod.containers[0].image.clone()).unwrap_or_default()
    };
    let other = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "other:2"}]);
    let other: Patch<Value> = Patch::Json(serde_json::from_value(other)?);
    let changed = ground.api::<Deployment>().patch(&child.name_any(), &PatchParams::default(), &other).await?;
    ensure!(image(&changed) == "other:2", "the change did not take");
    within(std::time::Duration::from_secs(30), "the image is the manifest's", async || {
        let is = image(&ground.child("orders").await?);
        ensure!(is == "ghcr.io/acme/worker:v1.2.3", "{is}");
        Ok(())
    })
    .await
}
