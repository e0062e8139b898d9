//! Workers on the Go SDK that, as that SDK does by default, cut off what runs when they are asked to end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::bed::GO_WORKER_IMAGE;
use e2e::codec::{self, KEYS};
use e2e::ground::{CONNECTION, TEMPORAL_NAMESPACE};
use e2e::load::{all_run, metric_of};
use e2e::stream::Stream;
use e2e::tasks::{Burst, Order, Tasks, payload};
use e2e::{ClusterBed, Ground, eventually};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{EvictParams, Patch, PatchParams};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use operator_core::contract::{METRIC_CORDONED, METRIC_SLOTS_USED, SIDECAR_CONTAINER, SIDECAR_METRICS_PORT};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

const BESIDE: &str = "beside";
const ALONE: &str = "alone";
/// Task Queue of the fleet whose sidecars are killed. Two fleets on one queue would take each other's traffic away.
const KILLED_QUEUE: &str = "beside-killed";
/// Milliseconds that a task takes.
const TASK: u64 = 15_000;
/// The same of those that come while Workers are replaced.
const SHORT_TASK: u64 = 200;
/// Seconds after which the server gives a task that nobody answers for to another Worker.
const LOST_AFTER: u64 = 30;
const PODS: i32 = 2;
/// Time in which tasks end that were begun before pods went.
const END: Duration = Duration::from_secs(90);

/// Two pods of a Worker with four slots that gives running tasks no time.
fn fleet(name: &str, task_queue: &str) -> Value {
    let variables = [("TASK_QUEUE", task_queue), ("SLOTS", "4"), ("DRAIN", "0s")];
    let environment = variables.map(|(name, value)| json!({"name": name, "value": value}));
    let container = json!({"name": "worker", "image": GO_WORKER_IMAGE, "env": environment});
    json!({
        "apiVersion": "temporal.io/v1alpha1",
        "kind": "WorkerDeployment",
        "metadata": {"name": name},
        "spec": {
            "workerOptions": {"connectionRef": {"name": CONNECTION}, "temporalNamespace": TEMPORAL_NAMESPACE},
            "scaling": {"minReplicas": PODS, "maxReplicas": PODS},
            "template": {"spec": {"containers": [container]}},
            "rollout": {"strategy": "AllAtOnce"},
            "sunset": {},
        },
    })
}

/// The same behind a sidecar that encrypts.
fn beside(task_queue: &str) -> Value {
    let mut fleet = fleet(BESIDE, task_queue);
    let key = json!({"id": "k1", "secretKeyRef": {"name": "keys", "key": "k1"}});
    fleet["spec"]["sidecar"] = json!({"encryption": {"writeKey": key}});
    fleet
}

fn keys() -> Value {
    let (id, key) = KEYS[0];
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "data": {id: STANDARD.encode(key)}})
}

fn order(task_queue: &str) -> Order {
    Order { inputs: vec![json!(TASK); 6], start_to_close_s: LOST_AFTER, ..Order::work(task_queue, 0, 0.0) }
}

/// The same with encrypted arguments.
fn sealed(order: Order) -> Result<Order> {
    let plain: Vec<_> = order.inputs.iter().map(payload).collect();
    Ok(Order { inputs: codec::seal("k1", &plain)?.iter().map(codec::to_json).collect(), sealed: true, ..order })
}

/// Starts a burst, and waits until all of it runs.
async fn run(tasks: &Tasks, order: &Order) -> Result<Burst> {
    let burst = tasks.start(order).await?;
    all_run(tasks, &burst).await?;
    Ok(burst)
}

async fn serves(ground: &Ground, fleet: &str) -> Result<()> {
    ground.is_current(fleet).await?;
    eventually("two pods serve", async || ground.settled_at(fleet, PODS).await).await
}

async fn restart(ground: &Ground, fleet: &str) -> Result<()> {
    let child = ground.child(fleet).await?.name_any();
    let annotation = json!({"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"});
    let patch = json!({"spec": {"template": {"metadata": {"annotations": annotation}}}});
    let api = ground.api::<Deployment>();
    api.patch(&child, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    Ok(())
}

pub async fn a_go_worker_loses_no_task_that_it_loses_without(bed: Arc<ClusterBed>) -> Result<()> {
    let ground = bed.ground("a_go_worker_loses_no_task").await?;
    ground.apply(&keys()).await?;
    for fleet in [beside(BESIDE), fleet(ALONE, ALONE)] {
        ground.apply(&fleet).await?;
    }
    let tasks = bed.tasks()?;
    let order_beside = spawn_blocking(|| sealed(order(BESIDE))).await??;
    let short = Order { inputs: vec![json!(SHORT_TASK); 4], ..order(BESIDE) };
    let short = spawn_blocking(|| sealed(short)).await??;
    for fleet in [BESIDE, ALONE] {
        serves(&ground, fleet).await?;
    }

    let stream = Stream::of(&tasks);
    let restarted = async {
        stream.next().await?;
        let (kept, lost) = (run(&tasks, &order_beside).await?, run(&tasks, &order(ALONE)).await?);
        for fleet in [BESIDE, ALONE] {
            restart(&ground, fleet).await?;
        }
        eventually("the Workers without a sidecar lose tasks", async || {
            let pending = tasks.pending(&lost).await?;
            ensure!(pending.again > 0, "{pending:?}");
            Ok(())
        })
        .await?;
        tasks.finish_once_each(&kept, END).await?;
        Ok(kept)
    };
    let kept = stream.during(|| short.clone(), restarted).await?;
    // Nor one that came as a Worker was asked to end.
    stream.ends_once_each().await?;
    let told: Vec<_> = tasks.activities(&kept).await?.into_values().flat_map(|one| one.payloads).collect();
    ensure!(told.iter().all(|payload| codec::key_of(payload).as_deref() == Some("k1")), "{told:?}");
    serves(&ground, BESIDE).await?;

    // As when its node is drained.
    let burst = run(&tasks, &order_beside).await?;
    let pod = ground.pods(BESIDE).await?.first().context("no pod")?.name_any();
    ground.api::<Pod>().evict(&pod, &EvictParams::default()).await?;
    let pending = tasks.pending(&burst).await?;
    ensure!(pending.running == order_beside.inputs.len(), "{pending:?}: they ended before the pod was to go");
    tasks.finish_once_each(&burst, END).await?;
    eventually("another pod is there", async || ground.settled_at(BESIDE, PODS).await).await
}

pub async fn a_sidecar_that_is_killed_loses_no_task(bed: Arc<ClusterBed>) -> Result<()> {
    let ground = bed.ground("a_sidecar_that_is_killed").await?;
    ground.apply(&keys()).await?;
    ground.apply(&beside(KILLED_QUEUE)).await?;
    let tasks = bed.tasks()?;
    let order = spawn_blocking(|| sealed(order(KILLED_QUEUE))).await??;
    serves(&ground, BESIDE).await?;
    let burst = run(&tasks, &order).await?;
    for pod in ground.pods(BESIDE).await? {
        let processes = bed.container_processes((&ground.namespace, &pod.name_any()), SIDECAR_CONTAINER).await?;
        ensure!(!processes.is_empty(), "no sidecar runs in {}", pod.name_any());
        for process in processes {
            kill(Pid::from_raw(process), Signal::SIGKILL)?;
        }
    }
    eventually("the sidecars are started again", async || {
        let restarts = ground.pods(BESIDE).await?.iter().map(restarts_of_sidecar).collect::<Vec<_>>();
        ensure!(restarts.len() == 2 && restarts.iter().all(|restarts| *restarts == 1), "{restarts:?}");
        Ok(())
    })
    .await?;
    tasks.finish_once_each(&burst, END).await?;
    a_busy_pod_is_cordoned_before_it_goes(&ground, &tasks, &order).await
}

/// Lowers the maximum to one pod while two are busy.
async fn a_busy_pod_is_cordoned_before_it_goes(ground: &Ground, tasks: &Tasks, order: &Order) -> Result<()> {
    let burst = run(tasks, order).await?;
    let mut fleet = beside(KILLED_QUEUE);
    fleet["spec"]["scaling"] = json!({"minReplicas": 1, "maxReplicas": 1});
    ground.apply(&fleet).await?;
    eventually("one of the pods takes no more tasks, and runs what it has", async || {
        let mut cordoned = Vec::new();
        for pod in ground.pods(BESIDE).await? {
            if metric_of(&pod, SIDECAR_METRICS_PORT, METRIC_CORDONED).await? > 0.0 {
                cordoned.push(metric_of(&pod, SIDECAR_METRICS_PORT, METRIC_SLOTS_USED).await?);
            }
        }
        ensure!(cordoned.len() == 1 && cordoned[0] > 0.0, "tasks in pods that are cordoned: {cordoned:?}");
        Ok(())
    })
    .await?;
    tasks.finish_once_each(&burst, END).await?;
    eventually("one pod is left", async || ground.settled_at(BESIDE, 1).await).await
}

fn restarts_of_sidecar(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|status| status.init_container_statuses.iter().flatten());
    statuses.filter(|status| status.name == SIDECAR_CONTAINER).map(|status| status.restart_count).sum()
}
