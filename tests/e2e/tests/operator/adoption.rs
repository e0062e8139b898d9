//! Fleets that temporal-worker-controller made, and what its hash leaves to be told apart.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::peer::deployment;
use e2e::{Ground, HostBed, eventually};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use kube::api::PostParams;
use operator_core::build_id;
use operator_core::names::FIELD_MANAGER;
use serde_json::{Value, json};

use super::{orders, runs};

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

/// The orders with another template whose hash is the same, as a hash has 10,000 values.
fn colliding() -> Result<Value> {
    let build_id = |fleet: &Value| build_id::compute(&fleet["spec"]["template"], None);
    let taken = build_id(&orders())?;
    for count in 0..1_000_000 {
        let mut fleet = orders();
        fleet["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = json!(format!("orders-{count}"));
        if build_id(&fleet)? == taken {
            return Ok(fleet);
        }
    }
    bail!("no template has the hash of {taken}")
}

pub async fn a_template_with_the_hash_of_another_one_is_a_version_of_its_own(bed: Arc<HostBed>) -> Result<()> {
    let ground = bed.ground("collision").await?;
    ground.apply(&orders()).await?;
    let first = runs(&ground).await?;
    let mut fleet = colliding()?;
    ground.apply(&fleet).await?;
    let build_id = build_id::compute_past(&fleet["spec"]["template"], 1)?;
    let is_target = async || {
        let version = ground.status("orders").await?.target_version.version;
        ensure!(version.build_id == build_id, "{version:?}");
        let children = ground.children("orders").await?;
        ensure!(children.len() == 2, "{:?}", children.keys());
        let kept = children.get(&first.name_any()).context("the first version is gone")?;
        ensure!(kept.spec.as_ref().map(|spec| &spec.template) == first.spec.as_ref().map(|spec| &spec.template));
        let events = ground.events("orders").await?;
        ensure!(events.iter().filter(|(reason, _)| reason == "BuildIDCollision").count() == 1, "{events:?}");
        Ok(())
    };
    eventually("the other template has a version", is_target).await?;
    // An edit elsewhere makes no third one.
    fleet["spec"]["sunset"] = json!({"deleteDelay": "48h"});
    ground.apply(&fleet).await?;
    eventually("the edit was seen", async || ground.condition("orders", "Ready").await).await?;
    is_target().await
}
