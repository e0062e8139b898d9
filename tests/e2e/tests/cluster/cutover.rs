//! From a plain Deployment to a fleet, by the commands that `migrate plan` prints, while its Workers run tasks.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::bed::GO_WORKER_IMAGE;
use e2e::ground::{TEMPORAL_NAMESPACE, is_ready, replicas_of};
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
/// Milliseconds that a task takes.
const TASK: u64 = 800;

/// Workers that know nothing of the operator.
fn deployment(address: &str) -> Value {
    let variables = [
        ("TASK_QUEUE", QUEUE),
        ("SLOTS", "4"),
        ("TEMPORAL_ADDRESS", address),
        ("TEMPORAL_NAMESPACE", TEMPORAL_NAMESPACE),
    ];
    let environment = variables.map(|(name, value)| json!({"name": name, "value": value}));
    let container = json!({"name": "worker", "image": GO_WORKER_IMAGE, "env": environment,
        "ports": [{"name": "metrics", "containerPort": 9090}]});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": OLD},
        "spec": {"replicas": PODS, "selector": {"matchLabels": {"app": OLD}}, "template": {
            "metadata": {"labels": {"app": OLD}}, "spec": {"containers": [container]}}},
    })
}

/// Pods of both that take tasks.
async fn serving(ground: &Ground) -> Result<usize> {
    let pods = ground.api::<Pod>().list(&ListParams::default().labels(&format!("app={OLD}"))).await?;
    let serves = |pod: &&Pod| is_ready(pod) && pod.metadata.deletion_timestamp.is_none();
    Ok(pods.items.iter().filter(serves).count())
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
    ground.apply(&deployment(&bed.server.host_port())).await?;
    eventually("the Deployment serves", async || {
        let count = serving(&ground).await?;
        ensure!(count == PODS, "{count} pods");
        Ok(())
    })
    .await?;
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
            let count = serving(&ground).await?;
            fewest.fetch_min(count, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let over = async {
        stream.next().await?;
        carry_out(tools.program("kubectl")?, &kubeconfig, folder.path(), &plan).await?;
        stream.next().await.map(|_| ())
    };
    let order = || Order { inputs: vec![json!(TASK); 4], ..Order::work(QUEUE, 0, 0.0) };
    let moved = stream.during(order, async {
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
