//! A changed template is a new version beside the old one.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::ground::{replicas_of, runtime_fleet};
use e2e::tasks::Order;
use e2e::{ClusterBed, Ground, eventually};
use kube::ResourceExt as _;
use operator_core::api::VersionStatus;
use serde_json::json;

const FLEET: &str = "orders";
/// Pause of the only step.
const PAUSE: i64 = 30;

pub async fn a_changed_fleet_ramps_to_its_new_version_and_the_old_one_ends_its_work(
    bed: Arc<ClusterBed>,
) -> Result<()> {
    const QUEUE: &str = "changed";
    let ground = bed.ground("a_changed_fleet_ramps_to_its_new_version").await?;
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

    fleet["spec"]["runtime"]["handlers"][0]["exec"]["env"] = json!({"RELEASE": "two"});
    fleet["spec"]["scaling"] = json!({"minReplicas": 1, "maxReplicas": 4, "idleWindow": "10s"});
    fleet["spec"]["rollout"] = json!({"strategy": "Progressive",
        "steps": [{"rampPercentage": 25, "pauseDuration": format!("{PAUSE}s")}]});
    ground.apply(&fleet).await?;
    let tasks = bed.tasks()?;
    let (build_id, began) = ramps(&ground).await?;
    ensure!(build_id != old_build_id, "the Build ID is the same");
    let while_it_ramps = tasks.start(&Order::work(QUEUE, 6, 1.0)).await?;
    tasks.finish_once_each(&while_it_ramps, Duration::from_secs(90)).await?;

    eventually("the new version is current", async || {
        ground.has_condition(FLEET, ("Ready", "True", "RolloutComplete")).await?;
        let current = ground.status(FLEET).await?.current_version.unwrap_or_default();
        ensure!(current.build_id == build_id && current.status == VersionStatus::Current, "{current:?}");
        Ok(())
    })
    .await?;
    let held = jiff::Timestamp::now().duration_since(began);
    ensure!(held.as_secs() >= PAUSE, "it was made current after {held:?}");
    let events = ground.events(FLEET).await?;
    let told = [
        format!("Ramping version (none) → {build_id} at 25 %."),
        format!("Current version {old_build_id} → {build_id}."),
    ];
    ensure!(told.iter().all(|told| events.iter().any(|(_, note)| note == told)), "no {told:?} in {events:?}");

    // The new version does the work now, and the old one goes to zero by itself.
    let burst = tasks.start(&Order::work(QUEUE, 6, 1.0)).await?;
    tasks.finish_once_each(&burst, Duration::from_secs(90)).await?;
    eventually("the old version has no pods, and is there", async || {
        let is = ground.children(FLEET).await?.remove(&old.name_any()).context("the old Deployment is gone")?;
        ensure!(replicas_of(&is) == 0, "it has {}", replicas_of(&is));
        Ok(())
    })
    .await?;
    let status = ground.status(FLEET).await?;
    let [deprecated] = &status.deprecated_versions[..] else { anyhow::bail!("{:?}", status.deprecated_versions) };
    let state = deprecated.version.status;
    ensure!(matches!(state, VersionStatus::Draining | VersionStatus::Drained), "{deprecated:?}");
    Ok(())
}

/// The target, once it has its share, and since when by the server's clock.
async fn ramps(ground: &Ground) -> Result<(String, jiff::Timestamp)> {
    eventually("the new version has its share", async || {
        ground.has_condition(FLEET, ("Ready", "False", "Ramping")).await?;
        ground.has_condition(FLEET, ("Progressing", "True", "Ramping")).await?;
        let target = ground.status(FLEET).await?.target_version;
        ensure!(target.ramp_percentage == Some(25.0), "{target:?}");
        let since = target.ramp_last_modified_at.context("it does not say since when")?;
        Ok((target.version.build_id, since.0))
    })
    .await
}
