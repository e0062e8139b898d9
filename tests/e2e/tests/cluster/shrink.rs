//! Fleets get smaller while all of their pods run long tasks.
//!
//! The same load for all: eight tasks fill four pods with two slots each. Half of them end soon; the others take longer than
//! the pods' grace period, and are on two pods at least. Then one pod, or two, shall be left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::bed::HANDLERS_IMAGE;
use e2e::ground::runtime_fleet;
use e2e::load::{all_run, running_in};
use e2e::tasks::{Burst, Order, Tasks};
use e2e::traffic::{Traffic, regular};
use e2e::wait::within;
use e2e::{ClusterBed, Ground, eventually};
use operator_core::contract::{METRICS_PORT, METRICS_PORT_NAME, PROBES_PORT};
use serde_json::{Value, json};

const FLEET: &str = "long";
const PODS: i32 = 4;
const LONG: Duration = Duration::from_secs(90);
const SHORT_S: f64 = 20.0;
const SECOND: Duration = Duration::from_secs(1);

pub async fn with_cordon_a_busy_fleet_shrinks_within_one_task_time(bed: Arc<ClusterBed>) -> Result<()> {
    const LEFT: i32 = 2;
    let ground = bed.ground("with_cordon_a_busy_fleet_shrinks_within_one_task_time").await?;
    let fleet = impatient(&runtime_fleet(FLEET, "long-cordon", 2));
    ground.apply(&fleet).await?;
    let (tasks, burst) = fill(&bed, &ground, "long-cordon").await?;
    // A long task each half minute, so that no pod ever gets empty that takes new ones.
    let arrivals = regular(Duration::ZERO..LONG + 30 * SECOND, 30 * SECOND, LONG);
    let traffic = Traffic::on(&bed.server.host_port(), "long-cordon", arrivals).await?;
    lower_the_maximum(&ground, fleet, LEFT).await?;

    let limit = LONG + 45 * SECOND;
    let shrunk = within(limit, "the fleet has its new size", async || {
        let pods = ground.pods(FLEET).await?;
        let running = running_in(&ground, FLEET).await?;
        ensure!(pods.len() <= 2 && running.len() <= 2, "{} pods, which run {running:?}", pods.len());
        Ok(running)
    });
    let begun = Instant::now();
    let timed = async { shrunk.await.map(|running| (running, begun.elapsed())) };
    let (outcome, shrunk) = tokio::join!(traffic.play(), timed);
    let (outcome, (running, took)) = (outcome?, shrunk?);
    println!("{LEFT} pods after {:.1} s, which run {running:?}; {outcome:?}", took.as_secs_f64());
    ensure!(running.values().sum::<u64>() > 0, "there was no load any more: {running:?}");
    ensure!(outcome.again == 0, "tasks were killed: {outcome:?}");
    tasks.finish_once_each(&burst, SECOND).await?;
    eventually("all is done: no pod", async || ground.settled_at(FLEET, 0).await).await
}

pub async fn without_cordon_no_busy_pod_is_removed(bed: Arc<ClusterBed>) -> Result<()> {
    let ground = bed.ground("without_cordon_no_busy_pod_is_removed").await?;
    let (config, fleet) = by_template(&runtime_fleet(FLEET, "long-template", 2));
    ground.apply(&config).await?;
    ground.apply(&fleet).await?;
    let (tasks, burst) = fill(&bed, &ground, "long-template").await?;
    lower_the_maximum(&ground, fleet, 1).await?;
    // Pods without a task go; more than the maximum have one.
    let limit = within(LONG, "the long tasks are alone, and nothing else is left to remove", async || {
        let running = running_in(&ground, FLEET).await?;
        ensure!(running.values().all(|tasks| *tasks > 0), "an idle pod is left: {running:?}");
        Ok(running)
    });
    let running = limit.await?;
    ensure!(running.len() > 1, "the maximum asks for nothing: {running:?}");
    tasks.finish_once_each(&burst, LONG).await?;
    eventually("all is done: no pod", async || ground.settled_at(FLEET, 0).await).await
}

/// The control: what Kubernetes does when it is asked for one pod.
pub async fn kubernetes_alone_kills_long_tasks(bed: Arc<ClusterBed>) -> Result<()> {
    let ground = bed.ground("kubernetes_alone_kills_long_tasks").await?;
    let (config, mut fleet) = by_template(&runtime_fleet(FLEET, "long-control", 2));
    let spec = fleet["spec"].as_object_mut().context("no spec")?;
    spec.remove("scaling");
    spec.insert("replicas".into(), PODS.into());
    ground.apply(&config).await?;
    ground.apply(&fleet).await?;
    let (tasks, burst) = fill(&bed, &ground, "long-control").await?;
    fleet["spec"]["replicas"] = json!(1);
    ground.apply(&fleet).await?;
    eventually("a task that ran is to run again", async || {
        let pending = tasks.pending(&burst).await?;
        ensure!(pending.again > 0, "{pending:?}");
        Ok(())
    })
    .await
}

/// Gives a fleet its load, and waits until the short tasks are done.
async fn fill(bed: &ClusterBed, ground: &Ground, queue: &str) -> Result<(Tasks, Burst)> {
    ground.is_current(FLEET).await?;
    let tasks = bed.tasks()?;
    let mut order = Order::work(queue, 8, LONG.as_secs_f64());
    order.inputs[..4].fill(json!(SHORT_S));
    let burst = tasks.start(&order).await?;
    all_run(&tasks, &burst).await?;
    eventually("four pods are Ready", async || ground.settled_at(FLEET, PODS).await).await?;
    eventually("the short tasks are done", async || {
        let pending = tasks.pending(&burst).await?;
        ensure!((pending.running, pending.again) == (4, 0), "{pending:?}");
        Ok(())
    })
    .await?;
    Ok((tasks, burst))
}

async fn lower_the_maximum(ground: &Ground, mut fleet: Value, most: i32) -> Result<()> {
    fleet["spec"]["scaling"]["maxReplicas"] = json!(most);
    ground.apply(&fleet).await.map(|_| ())
}

/// A fleet with room for the load, whose pods get 10 s to end.
fn impatient(fleet: &Value) -> Value {
    let mut fleet = fleet.clone();
    fleet["spec"]["scaling"] = json!({"maxReplicas": PODS, "idleWindow": "10s"});
    fleet["spec"]["runtime"]["drainTimeout"] = json!("5s");
    fleet["spec"]["template"] = json!({"spec": {"terminationGracePeriodSeconds": 10, "containers": []}});
    fleet
}

/// The same pods by a template of the user's own, and its configuration: to the operator they are Workers of any SDK, which
/// nobody can tell to take no more tasks.
fn by_template(fleet: &Value) -> (Value, Value) {
    let mut fleet = impatient(fleet);
    let runtime = fleet["spec"]["runtime"].take();
    let queue = &runtime["taskQueues"][0];
    let (name, slots) = (queue["name"].as_str().unwrap_or_default(), &queue["maxConcurrentActivities"]);
    let config = json!({"version": 1, "taskQueues": [name], "handlers": runtime["handlers"],
        "activities": runtime["activities"]});
    let limits = json!({"maxConcurrentActivities": {name: slots}, "drainTimeoutMs": 5000});
    let files = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "program"},
        "data": {"runtime.json": config.to_string(), "limits.json": limits.to_string()}});
    let container = json!({
        "name": "worker",
        "image": HANDLERS_IMAGE,
        "args": ["run", "--config", "/program/runtime.json", "--limits", "/program/limits.json"],
        "ports": [{"name": METRICS_PORT_NAME, "containerPort": METRICS_PORT}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": PROBES_PORT}, "periodSeconds": 1},
        "volumeMounts": [{"name": "program", "mountPath": "/program"}],
    });
    let pod = &mut fleet["spec"]["template"]["spec"];
    pod["containers"] = json!([container]);
    pod["volumes"] = json!([{"name": "program", "configMap": {"name": "program"}}]);
    fleet["spec"].as_object_mut().expect("an object").remove("runtime");
    (files, fleet)
}
