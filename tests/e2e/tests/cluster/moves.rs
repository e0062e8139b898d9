//! A fleet that gets Worker Versioning, and one that loses it, while tasks run.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use e2e::ground::{TEMPORAL_NAMESPACE, runtime_fleet};
use e2e::stream::Stream;
use e2e::tasks::Order;
use e2e::worker::hand_back;
use e2e::{ClusterBed, Ground, eventually};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use serde_json::{Value, json};

const FLEET: &str = "moving";
const PODS: i32 = 2;

fn fleet(mark: &str) -> Value {
    let mut fleet = runtime_fleet(FLEET, FLEET, 4);
    let spec = &mut fleet["spec"];
    spec["template"] = json!({"metadata": {"annotations": {"mark": mark}}, "spec": {"containers": []}});
    spec["scaling"] = json!({"minReplicas": PODS, "maxReplicas": PODS});
    spec["versioning"] = json!("Disabled");
    fleet
}

fn versioned(mark: &str) -> Value {
    let mut fleet = fleet(mark);
    fleet["spec"]["versioning"] = json!("Enabled");
    fleet["spec"]["rollout"] =
        json!({"strategy": "Progressive", "steps": [{"rampPercentage": 50, "pauseDuration": "30s"}]});
    fleet
}

/// Waits until tasks that start now run on the pods of one Deployment alone.
async fn runs_on(stream: &Stream<'_>, child: &str, others: &[&str]) -> Result<()> {
    eventually(&format!("all tasks run on {child}"), async || {
        let ended = stream.next().await?;
        let is_own = |worker: &str| worker.contains(child) && !others.iter().any(|other| worker.contains(other));
        ensure!(ended.values().all(|task| is_own(&task.worker)), "{ended:?}");
        Ok(())
    })
    .await
}

async fn has_pods(ground: &Ground, child: &str) -> Result<Deployment> {
    eventually(&format!("{child} has its pods"), async || {
        let found = ground.api::<Deployment>().get(child).await?;
        let status = found.status.clone().unwrap_or_default();
        let is = (status.ready_replicas, status.updated_replicas, status.replicas);
        ensure!(is == (Some(PODS), Some(PODS), Some(PODS)), "ready, updated, all: {is:?}");
        Ok(found)
    })
    .await
}

async fn to_versions(ground: &Ground, stream: &Stream<'_>) -> Result<String> {
    ground.apply(&versioned("three")).await?;
    eventually("the first version shares with the unversioned Workers", async || {
        ground.has_condition(FLEET, ("Ready", "False", "Ramping")).await
    })
    .await?;
    ground.is_current(FLEET).await?;
    let children = ground.children(FLEET).await?;
    let child = children.into_keys().find(|name| name != FLEET).context("no Deployment of a version")?;
    runs_on(stream, &child, &[]).await?;
    // Nothing of it runs any more: its activities have ended, as they are shorter than a burst.
    ground.api::<Deployment>().delete(FLEET, &DeleteParams::default()).await?;
    stream.next().await?;
    Ok(child)
}

async fn and_back(bed: &ClusterBed, ground: &Ground, (stream, version): (&Stream<'_>, &str)) -> Result<()> {
    let before = has_pods(ground, version).await?;
    ground.apply(&fleet("three")).await?;
    has_pods(ground, FLEET).await?;
    stream.next().await?;
    let after = ground.api::<Deployment>().get(version).await?;
    ensure!(after.metadata.generation == before.metadata.generation, "the version was changed: {after:?}");
    let deployment = format!("{}/{FLEET}", ground.namespace);
    eventually("the server takes the unversioned Workers", async || {
        hand_back(&bed.server.host_port(), TEMPORAL_NAMESPACE, &deployment).await
    })
    .await?;
    runs_on(stream, FLEET, &[version]).await
}

pub async fn a_fleet_moves_to_versions_and_back_with_tasks_running(bed: Arc<ClusterBed>) -> Result<()> {
    let ground = bed.ground("a_fleet_moves_to_versions_and_back").await?;
    ground.apply(&fleet("one")).await?;
    let first = has_pods(&ground, FLEET).await?;
    let tasks = bed.tasks()?;
    let stream = Stream::of(&tasks);
    let story = async {
        stream.next().await?;
        // Without versions a changed template replaces the pods of the one Deployment.
        let pods = ground.restarts(FLEET).await?;
        ground.apply(&fleet("two")).await?;
        eventually("the pods are replaced", async || {
            let now = ground.restarts(FLEET).await?;
            ensure!(now.keys().all(|pod| !pods.contains_key(pod)), "{now:?}");
            has_pods(&ground, FLEET).await
        })
        .await?;
        ensure!(ground.child(FLEET).await?.uid() == first.uid(), "it is another Deployment");
        let version = to_versions(&ground, &stream).await?;
        and_back(&bed, &ground, (&stream, &version)).await
    };
    stream.during(|| Order::work(FLEET, 4, 0.5), story).await?;
    // None was lost, and none had to be tried again.
    stream.ends_once_each().await?;
    Ok(())
}
