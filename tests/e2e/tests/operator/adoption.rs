//! Fleets that temporal-worker-controller made.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use e2e::{Ground, HostBed, eventually};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use kube::api::PostParams;
use operator_core::build_id;
use operator_core::names::FIELD_MANAGER;
use serde_json::{Value, json};

use super::{ORDERS_CHILD, orders};

/// The Deployment that it makes for `orders`, by the contract.
pub fn theirs(owner_uid: &str, namespace: &str, address: &str) -> Result<Value> {
    let selector = json!({"temporal.io/deployment-name": "orders", "temporal.io/build-id": "v1.2.3-45d8"});
    let own = &orders()["spec"]["template"];
    let mut template = own.clone();
    template["metadata"]["labels"] = json!({"app": "worker", "temporal.io/deployment-name": "orders",
        "temporal.io/build-id": "v1.2.3-45d8"});
    template["metadata"]["annotations"] = json!({
        "temporal.io/connection-spec-hash": build_id::connection_spec_hash(address, None, None),
        "temporal.io/pod-template-spec-hash": build_id::template_hash(&build_id::go_json(own)?),
    });
    let variable = |name: &str, value: &str| json!({"name": name, "value": value});
    let env = template["spec"]["containers"][0]["env"].as_array_mut().context("variables")?;
    env.extend([
        variable("TEMPORAL_ADDRESS", address),
        variable("TEMPORAL_NAMESPACE", "default"),
        variable("TEMPORAL_DEPLOYMENT_NAME", &format!("{namespace}/orders")),
        variable("TEMPORAL_WORKER_BUILD_ID", "v1.2.3-45d8"),
    ]);
    let owner = json!({"apiVersion": "temporal.io/v1alpha1", "kind": "WorkerDeployment", "name": "orders",
        "uid": owner_uid, "controller": true, "blockOwnerDeletion": true});
    Ok(json!({"metadata": {"name": ORDERS_CHILD, "labels": selector, "ownerReferences": [owner]},
        "spec": {"replicas": 4, "selector": {"matchLabels": selector}, "template": template}}))
}

pub async fn its_deployment_is_taken_over_without_a_new_pod(bed: Arc<HostBed>) -> Result<()> {
    // Without a Connection nothing is made, so that theirs is there first.
    let ground = Ground::bare(bed.client.clone(), "adopted").await?;
    let uid = ground.apply(&orders()).await?.uid().context("no uid")?;
    let address = bed.server.host_port();
    let made: Deployment = serde_json::from_value(theirs(&uid, "adopted", &address)?)?;
    let params = PostParams { field_manager: Some("manager".into()), ..PostParams::default() };
    let made = ground.api::<Deployment>().create(&params, &made).await?;
    ground.connect(&address).await?;
    let adopted = eventually("the operator has applied it", async || {
        let child = ground.child("orders").await?;
        let applied = child.managed_fields().iter().any(|entry| {
            entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.operation.as_deref() == Some("Apply")
        });
        ensure!(applied, "{:?}", child.managed_fields());
        Ok(child)
    })
    .await?;
    ensure!(adopted.uid() == made.uid(), "it is another one");
    let pods = |child: &Deployment| serde_json::to_value(child.spec.as_ref().map(|spec| &spec.template));
    ensure!(pods(&adopted)? == pods(&made)?, "its pods are replaced: {adopted:?}");
    let replicas = adopted.spec.as_ref().and_then(|spec| spec.replicas);
    ensure!(replicas == Some(4), "replicas: {replicas:?}");
    eventually("it is the target", async || {
        let target = ground.status("orders").await?.target_version;
        ensure!(target.version.build_id == "v1.2.3-45d8", "{target:?}");
        Ok(())
    })
    .await
}
