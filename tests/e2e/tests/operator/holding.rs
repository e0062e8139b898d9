//! Connections are kept while a fleet uses them, and no longer.

use std::sync::Arc;

use anyhow::{Result, ensure};
use e2e::{Ground, HostBed, eventually};
use kube::ResourceExt as _;
use operator_core::api::{Connection, WorkerDeployment};
use operator_core::names::{DELETE_PROTECTION_FINALIZER, FIELD_MANAGER};
use serde_json::{Value, json};

use super::{orders, runs};

fn named(name: &str, connection: &str) -> Value {
    let mut fleet = orders();
    fleet["metadata"]["name"] = json!(name);
    fleet["spec"]["workerOptions"]["connectionRef"]["name"] = json!(connection);
    fleet
}

pub async fn is_held(ground: &Ground, connection: &str, held: bool) -> Result<()> {
    eventually(&format!("{connection} is held: {held}"), async || {
        let finalizers = ground.api::<Connection>().get(connection).await?.finalizers().to_vec();
        ensure!(finalizers.iter().any(|one| one == DELETE_PROTECTION_FINALIZER) == held, "{finalizers:?}");
        Ok(())
    })
    .await
}

async fn is_gone(ground: &Ground, connection: &str) -> Result<()> {
    eventually(&format!("{connection} is gone"), async || {
        let left = ground.api::<Connection>().get_opt(connection).await?;
        ensure!(left.is_none(), "{:?}", left.map(|left| left.metadata));
        Ok(())
    })
    .await
}

pub async fn a_connection_that_is_used_goes_when_the_fleet_has_another(bed: Arc<HostBed>) -> Result<()> {
    let ground = bed.ground("held").await?;
    let other = json!({"apiVersion": "temporal.io/v1alpha1", "kind": "Connection", "metadata": {"name": "other",
        "finalizers": ["example.com/theirs"]}, "spec": {"hostPort": bed.server.host_port()}});
    ground.apply(&other).await?;
    ground.apply(&orders()).await?;
    is_held(&ground, "temporal", true).await?;
    ground.api::<Connection>().delete("temporal", &Default::default()).await?;
    // It is used as before: the fleet gets its Deployment, and follows a change.
    runs(&ground).await?;
    let kept = ground.api::<Connection>().get("temporal").await?;
    ensure!(kept.metadata.deletion_timestamp.is_some(), "{:?}", kept.metadata);

    ground.apply(&named("orders", "other")).await?;
    is_gone(&ground, "temporal").await?;
    is_held(&ground, "other", true).await?;
    let held = ground.api::<Connection>().get("other").await?;
    ensure!(held.finalizers().iter().any(|one| one == "example.com/theirs"), "{:?}", held.finalizers());
    let own = held.managed_fields().iter().find(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER));
    let own = own.and_then(|entry| entry.fields_v1.as_ref()).map(|fields| fields.0.to_string()).unwrap_or_default();
    ensure!(own.contains("f:finalizers") && !own.contains("f:spec"), "the operator owns {own}");
    let writes = bed.writes_in("held")?;
    let updates = writes.iter().filter(|write| write.resource == "connections" && write.verb == "update").count();
    ensure!(updates == 0, "{updates} updates");

    // A fleet without versions goes at once, and lets it go.
    let mut plain = named("orders", "other");
    plain["spec"]["deletionPolicy"] = json!("Orphan");
    ground.apply(&plain).await?;
    ground.api::<WorkerDeployment>().delete("orders", &Default::default()).await?;
    is_held(&ground, "other", false).await
}

pub async fn fleets_that_are_deleted_together_after_their_connection_leave_nothing(bed: Arc<HostBed>) -> Result<()> {
    let ground = bed.ground("held-by-two").await?;
    for name in ["one", "two"] {
        ground.apply(&named(name, "temporal")).await?;
    }
    is_held(&ground, "temporal", true).await?;
    let fleets = ground.api::<WorkerDeployment>();
    for name in ["one", "two"] {
        eventually("the fleet is kept", async || {
            let finalizers = fleets.get(name).await?.finalizers().to_vec();
            ensure!(finalizers == [DELETE_PROTECTION_FINALIZER], "{finalizers:?}");
            Ok(())
        })
        .await?;
    }
    ground.api::<Connection>().delete("temporal", &Default::default()).await?;
    for name in ["one", "two"] {
        fleets.delete(name, &Default::default()).await?;
    }
    eventually("both fleets are gone, with what they had on the server", async || {
        let left: Vec<_> = fleets.list(&Default::default()).await?.into_iter().map(|fleet| fleet.name_any()).collect();
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await?;
    is_gone(&ground, "temporal").await?;
    for name in ["one", "two"] {
        let events = ground.events(name).await?;
        ensure!(!events.iter().any(|(reason, _)| reason == "DeletionIncomplete"), "{events:?}");
    }
    Ok(())
}
