//! From a plain Deployment to a fleet, by the commands that `migrate plan` prints, while its Workers run tasks.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::bed::HANDLERS_IMAGE;
use e2e::ground::{SLEEP, TEMPORAL_NAMESPACE, is_ready, replicas_of};
use e2e::stream::Stream;
use e2e::tasks::Order;
use e2e::{ClusterBed, Ground, eventually};
use harness::tools::{Tool, Tools};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

const OLD: &str = "plain";
const FLEET: &str = "plain-fleet";
const QUEUE: &str = "cutover";
const PODS: usize = 2;
/// Seconds that a task takes: more than the time between two bursts, so that some run at each moment.
const TASK: f64 = 1.5;
/// Time that stopping Workers have. With the five seconds that the runtime adds it is below Kubernetes' thirty, and just long
/// enough to let polls end by themselves.
const DRAIN_MS: u64 = 24_000;

/// What the Workers do: their own files, which no operator wrote.
fn files() -> Value {
    let config = json!({
        "version": 1,
        "taskQueues": [QUEUE],
        "handlers": [{"name": "sleep", "exec": {"command": SLEEP}}],
        "activities": [{"type": "Work", "handler": "sleep"}],
    });
    let limits = json!({"maxConcurrentActivities": {QUEUE: 4}, "drainTimeoutMs": DRAIN_MS});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": OLD},
        "data": {"config.json": config.to_string(), "limits.json": limits.to_string()}})
}

/// Workers that know nothing of the operator. They lose no task as they stop, unlike those of most SDKs.
fn deployment(address: &str) -> Value {
    let environment = json!([
        {"name": "TEMPORAL_ADDRESS", "value": address},
        {"name": "TEMPORAL_NAMESPACE", "value": TEMPORAL_NAMESPACE},
    ]);
    let container = json!({"name": "worker", "image": HANDLERS_IMAGE, "env": environment,
        "args": ["run", "--config=/files/config.json", "--limits=/files/limits.json"],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8081}, "periodSeconds": 1},
        "ports": [{"name": "metrics", "containerPort": 8080}],
        "volumeMounts": [{"name": "files", "mountPath": "/files"}]});
    let pod = json!({"containers": [container], "volumes": [{"name": "files", "configMap": {"name": OLD}}]});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": OLD},
        "spec": {"replicas": PODS, "selector": {"matchLabels": {"app": OLD}},
            "template": {"metadata": {"labels": {"app": OLD}}, "spec": pod}},
    })
}

/// Pods of both: those that take tasks, and all.
async fn pods(ground: &Ground) -> Result<(usize, usize)> {
    let pods = ground.api::<Pod>().list(&ListParams::default().labels(&format!("app={OLD}"))).await?;
    let serves = |pod: &&Pod| is_ready(pod) && pod.metadata.deletion_timestamp.is_none();
    Ok((pods.items.iter().filter(serves).count(), pods.items.len()))
}

/// Waits until so many pods are there and serve.
async fn settle(ground: &Ground) -> Result<()> {
    eventually("as many pods as there have to be serve, and no others are left", async || {
        let (serving, all) = pods(ground).await?;
        ensure!((serving, all) == (PODS, PODS), "{serving} of {all} serve");
        Ok(())
    })
    .await
}

/// The commands of the way over that `kubectl` carries out, up to the way back.
fn commands(plan: &str) -> Vec<String> {
    let forward = plan.lines().take_while(|line| !line.starts_with("#  Back"));
    let commands = forward.filter_map(|line| line.strip_prefix("#       "));
    commands.filter(|command| command.starts_with("kubectl ")).map(ToOwned::to_owned).collect()
}

fn run(shell: &mut Command) -> Result<String> {
    let output = shell.output()?;
    ensure!(output.status.success(), "{shell:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Carries out all commands, one after the other, in a folder with the plan.
async fn carry_out(kubectl: &Path, kubeconfig: &Path, folder: &Path, plan: &str) -> Result<()> {
    std::fs::write(folder.join("fleet.yaml"), plan)?;
    let bin = kubectl.parent().context("kubectl is in no folder")?.to_owned();
    for command in commands(plan) {
        let mut shell = Command::new("sh");
        let path = std::env::join_paths([bin.clone(), "/usr/bin".into(), "/bin".into()])?;
        shell.arg("-c").arg(&command).current_dir(folder).env("PATH", path).env("KUBECONFIG", kubeconfig);
        spawn_blocking(move || run(&mut shell)).await??;
    }
    Ok(())
}

pub async fn a_deployment_becomes_a_fleet_under_load_without_a_gap(bed: Arc<ClusterBed>) -> Result<()> {
    let ground = bed.ground("a_deployment_becomes_a_fleet").await?;
    ground.apply(&files()).await?;
    ground.apply(&deployment(&bed.server.host_port())).await?;
    settle(&ground).await?;
    let kubeconfig = bed.cluster.kubeconfig_path();
    let queue = format!("--task-queue={QUEUE}=Activity");
    let plan = run(Command::new(bed.programs.program("temporal-worker-operator")?)
        .args(["migrate", "plan", "--from-deployment", OLD, "-n", &ground.namespace, &queue])
        .env("KUBECONFIG", &kubeconfig))?;
    ensure!(commands(&plan).len() >= 7, "{plan}");

    let (tools, folder) = (Tools::ensure_async(&[Tool::Kubectl]).await?, tempfile::tempdir()?);
    let tasks = bed.tasks()?;
    let (stream, fewest) = (Stream::of(&tasks), AtomicUsize::new(usize::MAX));
    let watch = async {
        loop {
            let (serving, _) = pods(&ground).await?;
            fewest.fetch_min(serving, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let over = async {
        stream.next().await?;
        carry_out(tools.program("kubectl")?, &kubeconfig, folder.path(), &plan).await?;
        settle(&ground).await?;
        stream.next().await.map(|_| ())
    };
    let moved = stream.during(|| Order::work(QUEUE, 4, TASK), async {
        tokio::select! {
            failed = watch => failed,
            done = over => done,
        }
    });
    moved.await?;

    stream.ends_once_each().await?;
    let fewest = fewest.into_inner();
    ensure!(fewest >= PODS, "there were only {fewest} pods at a time");
    ensure!(ground.api::<Deployment>().get_opt(OLD).await?.is_none(), "the Deployment is still there");
    let child = ground.api::<Deployment>().get(FLEET).await?;
    ensure!(replicas_of(&child) == i32::try_from(PODS)?, "{:?}", child.spec);
    Ok(())
}
