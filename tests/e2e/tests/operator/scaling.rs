//! The autoscaler's surroundings: what survives a restart, what a dry run leaves alone, what `explain` prints. No pods run:
//! the one pod here is written into the API server, and this test serves its metrics.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::host::{Operator, install_kinds};
use e2e::tasks::{Order, Tasks};
use e2e::{Ground, HostBed, eventually};
use harness::ControlPlane;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const NAMESPACE: &str = "learned";
const FLEET: &str = "scaled";
const SLOTS: usize = 4;
const BACKLOG: usize = 12;
/// Pods that are ordered for tasks while nothing is known of a pod's slots.
const BLIND: i32 = 2;
/// Time that an operator gets to end.
const GRACE: Duration = Duration::from_secs(15);

/// A fleet without Worker Versioning, whose pods have their metrics at `port`.
pub fn fleet(name: &str, queue: &str, port: u16) -> Value {
    json!({
        "apiVersion": "temporal.io/v1alpha1",
        "kind": "WorkerDeployment",
        "metadata": {"name": name},
        "spec": {
            "workerOptions": {"connectionRef": {"name": "temporal"}, "temporalNamespace": "default"},
            "template": {"spec": {"containers": [{"name": "worker", "image": "example.com/worker:v1"}]}},
            "versioning": "Disabled",
            "scaling": {
                "idleWindow": "1s",
                "podMetrics": {"port": port, "path": "/stats"},
                "taskQueues": [{"name": queue, "types": ["Activity"]}],
            },
        },
    })
}

/// Serves the metrics of an idle Worker with [`SLOTS`] slots at `/stats`, and nothing elsewhere.
pub async fn serve_metrics(queue: &'static str) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap_or(0);
            let found = request[..length].starts_with(b"GET /stats ");
            let labels = format!("{{task_queue=\"{queue}\",task_type=\"activity\"}}");
            let page = format!(
                "temporal_worker_runtime_slots_used{labels} 0\ntemporal_worker_runtime_slots_available{labels} {SLOTS}\n\
                 temporal_worker_runtime_tasks_started_total{labels} 0\n"
            );
            let status = if found { "200 OK" } else { "404 Not Found" };
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{page}", page.len());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    Ok(port)
}

/// Writes a pod of the fleet that is ready, at an address of this machine.
pub async fn ready_pod(ground: &Ground, fleet: &str) -> Result<()> {
    let labels = json!({"temporal.io/deployment-name": fleet});
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": format!("{fleet}-pod"), "labels": labels},
        "spec": {"containers": [{"name": "worker", "image": "example.com/worker:v1"}]},
    }))?;
    let pods = ground.api::<Pod>();
    pods.create(&PostParams::default(), &pod).await?;
    let status = json!({"status": {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}],
        "conditions": [{"type": "Ready", "status": "True"}]}});
    pods.patch_status(&format!("{fleet}-pod"), &PatchParams::default(), &Patch::Merge(&status)).await?;
    Ok(())
}

pub async fn has_replicas(ground: &Ground, fleet: &str, wanted: i32) -> Result<()> {
    eventually(&format!("{fleet} has {wanted} replicas"), async || {
        let replicas = ground.replicas(fleet).await?;
        ensure!(replicas == wanted, "{replicas} replicas: {:?}", ground.scaling(fleet).await?.reason);
        Ok(())
    })
    .await
}

/// A second fleet that starts with the second operator is the control: it knows no slots, and orders fewer pods.
pub async fn what_was_learned_survives_a_restart(bed: Arc<HostBed>) -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    install_kinds(&control_plane.client()).await?;
    let ground = Ground::with_connection(control_plane.client(), NAMESPACE, &bed.server.host_port()).await?;
    let port = serve_metrics("learned-queue").await?;
    let start = || Operator::start(&bed.programs, control_plane.kubeconfig_path(), &[]);

    let mut first = start().await?;
    ground.apply(&fleet(FLEET, "learned-queue", port)).await?;
    eventually("it has its Deployment", async || ground.child(FLEET).await).await?;
    ready_pod(&ground, FLEET).await?;
    eventually("the pod was read, and read again", async || {
        let page = first.metrics().await?;
        let line =
            page.lines().find(|line| line.starts_with("temporal_worker_operator_pod_scrapes_total{outcome=\"ok\"}"));
        let reads: u32 = line.and_then(|line| line.rsplit_once(' ')).context("not read")?.1.parse()?;
        ensure!(reads >= 2, "{reads} reads");
        Ok(())
    })
    .await?;
    has_replicas(&ground, FLEET, 0).await?;
    ground.api::<Pod>().delete(&format!("{FLEET}-pod"), &DeleteParams::default().grace_period(0)).await?;
    let maps = ground.api::<ConfigMap>();
    ensure!(maps.get_opt("scaled-scaling").await?.is_none(), "it was written before its time");
    first.process.stop(GRACE)?;
    let written = maps.get("scaled-scaling").await.context("no checkpoint at the end")?;
    let owner = written.metadata.owner_references.unwrap_or_default();
    ensure!(owner.iter().any(|owner| owner.name == FLEET && owner.kind == "WorkerDeployment"), "{owner:?}");

    let second = start().await?;
    ground.apply(&fleet("blind", "unknown-queue", port)).await?;
    has_replicas(&ground, "blind", 0).await?;
    let tasks = Tasks::on(&bed.server.host_port(), "default")?;
    for queue in ["learned-queue", "unknown-queue"] {
        tasks.start(&Order::work(queue, BACKLOG, 60.0)).await?;
    }
    has_replicas(&ground, FLEET, i32::try_from(BACKLOG / SLOTS)?).await?;
    has_replicas(&ground, "blind", BLIND).await?;
    second.kill()?;
    drop(ground);
    control_plane.stop()
}

fn explain(bed: &HostBed, kubeconfig: &Path, arguments: &[&str]) -> Result<(bool, String)> {
    let output = Command::new(bed.programs.program("temporal-worker-operator")?)
        .env("KUBECONFIG", kubeconfig)
        .arg("explain")
        .args(arguments)
        .output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8(said)?))
}

pub async fn a_dry_run_is_explained_and_changes_no_replicas(bed: Arc<HostBed>) -> Result<()> {
    let ground = bed.ground("dry-run").await?;
    let mut manifest = fleet("dry", "dry-queue", 1);
    manifest["spec"]["scaling"]["dryRun"] = json!(true);
    manifest["spec"]["scaling"]["minReplicas"] = json!(3);
    ground.apply(&manifest).await?;
    eventually("it is decided", async || {
        let scaling = ground.scaling("dry").await?;
        ensure!(scaling.dry_run && scaling.desired == Some(3) && scaling.current == Some(1), "{scaling:?}");
        ground.has_condition("dry", ("ScalingActive", "False", "DryRun")).await
    })
    .await?;
    eventually("an event says what would have been", async || {
        let events = ground.events("dry").await?;
        let told = events.iter().any(|(word, note)| word == "DryRunScaledUp" && note.starts_with("would be 1 → 3"));
        ensure!(told, "{events:?}");
        Ok(())
    })
    .await?;
    ensure!(ground.replicas("dry").await? == 1, "replicas were written");
    let scaled = bed.writes_in("dry-run")?.into_iter().filter(|event| event.resource == "deployments/scale");
    ensure!(scaled.count() == 0, "the log shows a write of replicas");

    let kubeconfig = bed.control_plane.kubeconfig_path();
    let (good, text) = explain(&bed, kubeconfig, &["dry-run/dry"])?;
    ensure!(good && text.contains("3 desired (dry run: not carried out), 1 there"), "{text}");
    let (good, text) = explain(&bed, kubeconfig, &["dry-run/dry", "-o", "json"])?;
    let json: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    ensure!(good && json["status"]["desired"] == 3 && json["spec"]["dryRun"] == true, "{json:#}");
    let (good, text) = explain(&bed, kubeconfig, &["dry-run/absent"])?;
    ensure!(!good && text.contains("WorkerDeployment dry-run/absent does not exist"), "{text}");
    Ok(())
}
