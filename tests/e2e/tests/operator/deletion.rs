//! Fleets that are deleted.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use e2e::{Ground, HostBed, eventually};
use kube::ResourceExt as _;
use operator_core::api::WorkerDeployment;
use operator_core::names::DELETE_PROTECTION_FINALIZER;
use serde_json::json;

use super::{orders, runs};

/// Waits until the fleet is kept, deletes it, and waits until it is gone.
async fn delete(ground: &Ground) -> Result<()> {
    eventually("the fleet is kept until its side of the server is clean", async || {
        let finalizers = ground.fleet("orders").await?.finalizers().to_vec();
        ensure!(finalizers == [DELETE_PROTECTION_FINALIZER], "{finalizers:?}");
        Ok(())
    })
    .await?;
    ground.api::<WorkerDeployment>().delete("orders", &Default::default()).await?;
    Ok(())
}

async fn gone(ground: &Ground) -> Result<()> {
    eventually("the fleet is gone", async || {
        let left = ground.api::<WorkerDeployment>().get_opt("orders").await?;
        ensure!(left.is_none(), "{:?}", left.and_then(|left| left.status).map(|status| status.conditions));
        Ok(())
    })
    .await
}

pub async fn a_deleted_fleet_has_no_pods_before_it_goes(bed: Arc<HostBed>) -> Result<()> {
    let ground = bed.ground("deleted").await?;
    let mut fleet = orders();
    fleet["spec"]["replicas"] = json!(3);
    ground.apply(&fleet).await?;
    let child = runs(&ground).await?.name_any();
    eventually("it has its replicas", async || {
        let replicas = ground.replicas("orders").await?;
        ensure!(replicas == 3, "{replicas}");
        Ok(())
    })
    .await?;
    delete(&ground).await?;
    gone(&ground).await?;
    // Nobody collects garbage here, so that its Deployment is left.
    let left = ground.api::<k8s_openapi::api::apps::v1::Deployment>().get(&child).await?;
    let replicas = left.spec.and_then(|spec| spec.replicas).context("no replicas")?;
    ensure!(replicas == 0, "{replicas} replicas");
    Ok(())
}

pub async fn a_deletion_says_what_it_waits_for_and_an_orphan_goes_at_once(bed: Arc<HostBed>) -> Result<()> {
    let ground = bed.ground("orphan").await?;
    ground.apply(&orders()).await?;
    runs(&ground).await?;
    super::holding::is_held(&ground, "temporal", true).await?;
    let connections = ground.api::<operator_core::api::Connection>();
    connections.delete("temporal", &Default::default()).await?;
    // The operator keeps it; somebody takes it away by force.
    let free = json!({"metadata": {"finalizers": null}});
    connections.patch("temporal", &Default::default(), &kube::api::Patch::Merge(free)).await?;
    delete(&ground).await?;
    let message = eventually("it says what it waits for", async || {
        let message = ground.has_condition("orders", ("Ready", "False", "Deleting")).await?;
        ensure!(message.contains("Connection"), "{message}");
        Ok(message)
    })
    .await?;
    ensure!(message.contains("spec.deletionPolicy"), "{message}");
    let mut orphan = orders();
    orphan["spec"]["deletionPolicy"] = json!("Orphan");
    ground.apply(&orphan).await?;
    gone(&ground).await
}
