//! A changed template is a new version beside the old one.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::ground::{replicas_of, runtime_fleet};
use e2e::tasks::Order;
use e2e::{ClusterBed, eventually};
use jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::json;

pub async fn a_changed_fleet_is_a_new_version_and_the_old_one_is_left_alone(bed: Arc<ClusterBed>) -> Result<()> {
    const FLEET: &str = "orders";
    const QUEUE: &str = "changed";
    let ground = bed.ground("a_changed_fleet_is_a_new_version_and_the_old_one_is_left_alone").await?;
    let mut fleet = runtime_fleet(FLEET, QUEUE, 2);
    fleet["spec"]["scaling"] = json!({"minReplicas": 2, "maxReplicas": 4});
    ground.apply(&fleet).await?;
    eventually("two pods serve the first version", async || {
        ground.settled_at(FLEET, 2).await?;
        ground.has_condition(FLEET, ("Ready", "True", "RolloutComplete")).await
    })
    .await?;
    let old = ground.child(FLEET).await?;
    let old_build_id = ground.status(FLEET).await?.current_version.context("no current version")?.build_id;

    let changed_at = Timestamp::now();
    fleet["spec"]["runtime"]["handlers"][0]["exec"]["env"] = json!({"RELEASE": "two"});
    fleet["spec"]["scaling"] = json!({"minReplicas": 0, "maxReplicas": 4, "idleWindow": "600s"});
    ground.apply(&fleet).await?;
    let new = eventually("the new version has a Deployment", async || {
        let mut children = ground.children(FLEET).await?;
        children.remove(&old.name_any());
        children.pop_first().map(|(_, child)| child).context("there is no other Deployment")
    })
    .await?;
    ensure!(replicas_of(&new) == 1, "a new version begins with {} pods", replicas_of(&new));
    let current = eventually("the new version is current", async || {
        ground.has_condition(FLEET, ("Ready", "True", "RolloutComplete")).await?;
        let status = ground.status(FLEET).await?;
        let (current, target) = (status.current_version.unwrap_or_default(), status.target_version.version);
        ensure!(current.build_id == target.build_id, "{} is current", current.build_id);
        Ok(current.build_id)
    })
    .await?;
    ensure!(current != old_build_id, "the Build ID is the same");
    let message = ground.has_condition(FLEET, ("OldVersionsKept", "True", "SunsetNotSupported")).await?;
    ensure!(message.contains(&old.name_any()) && message.contains("left as they are"), "{message}");

    // The new version does the work now.
    let tasks = bed.tasks()?;
    let burst = tasks.start(&Order::work(QUEUE, 6, 1.0)).await?;
    tasks.finish_once_each(&burst, Duration::from_secs(90)).await?;
    let is = ground.children(FLEET).await?.remove(&old.name_any()).context("the old Deployment is gone")?;
    ensure!(is.metadata.generation == old.metadata.generation, "the old Deployment was changed: {:?}", is.spec);
    ensure!(replicas_of(&is) == 2 && is.status.and_then(|status| status.ready_replicas) == Some(2), "its pods went");
    let writes = bed.writes_in(&ground.namespace)?;
    let touched = |write: &&harness::AuditEvent| {
        write.name == old.name_any() && write.time > changed_at && write.resource != "deployments/status"
    };
    let touched: Vec<_> = writes.iter().filter(touched).collect();
    ensure!(touched.is_empty(), "somebody wrote the old Deployment: {touched:?}");
    let promoted = format!("Current version {old_build_id} → {current}.");
    let events = ground.events(FLEET).await?;
    ensure!(events.iter().any(|(_, note)| *note == promoted), "no {promoted:?} in {events:?}");
    Ok(())
}
