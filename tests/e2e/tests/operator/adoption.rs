//! Fleets that temporal-worker-controller made.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use e2e::{Ground, HostBed, eventually};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use kube::api::PostParams;
use operator_core::names::FIELD_MANAGER;

use super::orders;
use super::peer::deployment;

pub async fn its_deployment_is_taken_over_without_a_new_pod(bed: Arc<HostBed>) -> Result<()> {
    // Without a Connection nothing is made, so that theirs is there first.
    let ground = Ground::bare(bed.client.clone(), "adopted").await?;
    let uid = ground.apply(&orders()).await?.uid().context("no uid")?;
    let address = bed.server.host_port();
    let template = &orders()["spec"]["template"];
    let theirs = deployment(&uid, ("adopted", &address), template, "v1.2.3-45d8")?;
    let made: Deployment = serde_json::from_value(theirs)?;
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
