//! Tasks that run while pods go.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::ground::runtime_fleet;
use e2e::load::{all_run, running_in, running_in_pod};
use e2e::stream::Stream;
use e2e::tasks::Order;
use e2e::{ClusterBed, eventually};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams};
use serde_json::json;

pub async fn idle_pods_go_first(bed: Arc<ClusterBed>) -> Result<()> {
    const FLEET: &str = "orders";
    let ground = bed.ground("idle_pods_go_first").await?;
    let mut fleet = runtime_fleet(FLEET, "idle-first", 1);
    ground.apply(&fleet).await?;
    eventually("the version is current and at rest", async || {
        ground.has_condition(FLEET, ("Ready", "True", "RolloutComplete")).await?;
        ground.settled_at(FLEET, 0).await
    })
    .await?;

    let tasks = bed.tasks()?;
    let mut order = Order::work("idle-first", 3, 10.0);
    order.inputs[1] = json!(60.0);
    let burst = tasks.start(&order).await?;
    all_run(&tasks, &burst).await?;
    let busy = eventually("one pod still works", async || {
        let running = running_in(&ground, FLEET).await?;
        let busy: Vec<_> = running.iter().filter(|(_, tasks)| **tasks > 0).map(|(pod, _)| pod.clone()).collect();
        ensure!(busy.len() == 1 && running.len() >= 3, "{running:?}");
        Ok(busy)
    })
    .await?;
    fleet["spec"]["scaling"]["maxReplicas"] = json!(1);
    ground.apply(&fleet).await?;
    let left = eventually("the idle pods go", async || {
        let left: Vec<_> = ground.pods(FLEET).await?.iter().map(|pod| pod.name_any()).collect();
        ensure!(left.len() == 1, "{left:?}");
        Ok(left)
    })
    .await?;
    ensure!(left == busy, "{left:?} is left, {busy:?} was busy");
    let pending = tasks.pending(&burst).await?;
    ensure!(pending.running == 1, "{pending:?}: the long task ended before the pods went");
    tasks.finish_once_each(&burst, Duration::from_secs(90)).await?;
    eventually("all is done: no pod", async || ground.settled_at(FLEET, 0).await).await
}

pub async fn a_rolling_restart_finishes_what_runs(bed: Arc<ClusterBed>) -> Result<()> {
    const FLEET: &str = "orders";
    let ground = bed.ground("a_rolling_restart_finishes_what_runs").await?;
    let mut fleet = runtime_fleet(FLEET, "restart", 2);
    fleet["spec"]["scaling"] = json!({"minReplicas": 2, "maxReplicas": 2});
    fleet["spec"]["runtime"]["drainTimeout"] = json!("60s");
    ground.apply(&fleet).await?;
    eventually("two pods serve", async || {
        ground.has_condition(FLEET, ("Ready", "True", "RolloutComplete")).await?;
        ground.settled_at(FLEET, 2).await
    })
    .await?;
    let tasks = bed.tasks()?;
    let burst = tasks.start(&Order::work("restart", 4, 20.0)).await?;
    all_run(&tasks, &burst).await?;

    let child = ground.child(FLEET).await?.name_any();
    let restart = json!({"spec": {"template": {"metadata": {"annotations": {
        "kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"}}}}});
    let api = ground.api::<Deployment>();
    api.patch(&child, &PatchParams::default(), &Patch::Strategic(restart)).await?;
    eventually("a pod is asked to go while its tasks run", async || {
        let pods = ground.pods(FLEET).await?;
        let going = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some()).count();
        let pending = tasks.pending(&burst).await?;
        ensure!(going > 0 && pending.running > 0, "{going} pods go, {pending:?}");
        Ok(())
    })
    .await?;
    tasks.finish_once_each(&burst, Duration::from_secs(120)).await?;
    eventually("the new pods are there", async || ground.settled_at(FLEET, 2).await).await
}

pub async fn an_evicted_pod_finishes_what_it_runs(bed: Arc<ClusterBed>) -> Result<()> {
    const FLEET: &str = "evicted";
    let ground = bed.ground("an_evicted_pod_finishes_what_it_runs").await?;
    let mut fleet = runtime_fleet(FLEET, FLEET, 2);
    fleet["spec"]["scaling"] = json!({"minReplicas": 1, "maxReplicas": 1});
    fleet["spec"]["runtime"]["drainTimeout"] = json!("60s");
    ground.apply(&fleet).await?;
    ground.is_current(FLEET).await?;
    let tasks = bed.tasks()?;
    let burst = tasks.start(&Order::work(FLEET, 2, 15.0)).await?;
    all_run(&tasks, &burst).await?;

    let pods = ground.pods(FLEET).await?;
    ensure!(pods.len() == 1, "{} pods", pods.len());
    let name = pods[0].name_any();
    ground.api::<Pod>().evict(&name, &EvictParams::default()).await?;
    let pending = tasks.pending(&burst).await?;
    ensure!(pending.running == 2, "{pending:?}: they ended before the pod was to go");
    tasks.finish_once_each(&burst, Duration::from_secs(90)).await?;
    eventually("the pod is gone, and another one is there", async || {
        let pods = ground.pods(FLEET).await?;
        ensure!(
            pods.len() == 1 && pods[0].name_any() != name,
            "{:?}",
            pods.iter().map(Pod::name_any).collect::<Vec<_>>()
        );
        Ok(())
    })
    .await?;
    let events = ground.api::<Event>().list(&ListParams::default()).await?.items;
    let failed = events.iter().find(|event| event.reason.as_deref() == Some("FailedPreStopHook"));
    ensure!(failed.is_none(), "the runtime's preStop hook failed: {failed:?}");
    Ok(())
}

pub async fn a_pod_that_is_deleted_under_load_loses_nothing(bed: Arc<ClusterBed>) -> Result<()> {
    const FLEET: &str = "deleted";
    let ground = bed.ground("a_pod_that_is_deleted_under_load").await?;
    let mut fleet = runtime_fleet(FLEET, FLEET, 8);
    fleet["spec"]["scaling"] = json!({"minReplicas": 2, "maxReplicas": 2});
    ground.apply(&fleet).await?;
    ground.is_current(FLEET).await?;
    eventually("two pods serve", async || ground.settled_at(FLEET, 2).await).await?;
    let tasks = bed.tasks()?;
    let stream = Stream::of(&tasks);
    let delete = async {
        stream.next().await?;
        let pods = ground.pods(FLEET).await?;
        let victim = pods.first().context("no pod")?;
        ground.api::<Pod>().delete(&victim.name_any(), &DeleteParams::default()).await?;
        ensure!(running_in_pod(victim).await? > 0, "the pod ran no task when it was to go");
        eventually("the pod is gone, and another one serves", async || {
            ensure!(!ground.restarts(FLEET).await?.contains_key(&victim.name_any()), "the pod is still there");
            ground.settled_at(FLEET, 2).await
        })
        .await?;
        stream.next().await.map(|_| victim.name_any())
    };
    let victim = stream.during(|| Order::work(FLEET, 6, 2.0), delete).await?;
    let ended = stream.ends_once_each().await?;
    let by_victim = ended.iter().filter(|activity| activity.worker == victim).count();
    ensure!(by_victim > 0 && by_victim < ended.len(), "{by_victim} of {} tasks ran in the pod that went", ended.len());
    Ok(())
}
