//! `temporal-worker-operator migrate` on a real API server: what it says, and that it writes nothing.

use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use e2e::host::install_kinds;
use e2e::{Ground, HostBed};
use harness::ControlPlane;
use harness::audit::AuditEvent;
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::{ORDERS_CHILD, orders};

const NAMESPACE: &str = "moving";
const BLOCKED: i32 = 1;

struct Stage {
    bed: Arc<HostBed>,
    control_plane: ControlPlane,
    ground: Ground,
}

impl Stage {
    async fn set(bed: Arc<HostBed>) -> Result<Self> {
        let control_plane = ControlPlane::start().await?;
        install_kinds(&control_plane.client()).await?;
        let ground = Ground::with_connection(control_plane.client(), NAMESPACE, &bed.server.host_port()).await?;
        Ok(Self { bed, control_plane, ground })
    }

    /// Exit code, standard output and standard error of the command, which must not write.
    fn run(&self, arguments: &[&str]) -> Result<(i32, String, String)> {
        let before = self.writes()?.len();
        ensure!(before > 0, "the log does not even have what this test has written");
        let output = Command::new(self.bed.programs.program("temporal-worker-operator")?)
            .env("KUBECONFIG", self.control_plane.kubeconfig_path())
            .arg("migrate")
            .args(arguments)
            .output()?;
        let (out, err) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
        let written = self.writes()?.split_off(before);
        ensure!(written.is_empty(), "{arguments:?} wrote {written:?}: {out}{err}");
        Ok((output.status.code().context("it was killed")?, out, err))
    }

    fn writes(&self) -> Result<Vec<AuditEvent>> {
        let mut events = self.control_plane.audit_events()?;
        events.retain(AuditEvent::is_write_from_outside);
        Ok(events)
    }

    fn check(&self) -> Result<(i32, Value)> {
        let (code, out, err) = self.run(&["check", "-n", NAMESPACE, "-o", "json"])?;
        Ok((code, serde_json::from_str(&out).with_context(|| format!("{out}{err}"))?))
    }
}

/// What is found of an object.
fn severity<'a>(report: &'a Value, kind: &str, name: &str) -> Result<&'a str> {
    let all = report["findings"].as_array().context("no findings")?;
    let found = all.iter().find(|finding| finding["kind"] == kind && finding["name"] == name);
    found.and_then(|found| found["severity"].as_str()).with_context(|| format!("no {kind} {name}: {report:#}"))
}

fn deployment(name: &str, labels: Value, env: Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": labels},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "main", "image": "example.com/main:v1", "env": env}]}}},
    })
}

fn autoscaler(target: &str) -> Value {
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "by-cpu"},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}, "minReplicas": 2,
            "maxReplicas": 6, "metrics": [{"type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}]},
    })
}

pub async fn what_stands_in_the_way_is_listed_until_nothing_does(bed: Arc<HostBed>) -> Result<()> {
    let stage = Stage::set(bed).await?;
    let ground = &stage.ground;
    let labels = json!({"app.kubernetes.io/name": "temporal-worker-controller"});
    ground.apply(&deployment("manager", labels, json!([]))).await?;
    let stored = ground.apply(&orders()).await?;
    let mut child = deployment(ORDERS_CHILD, json!({}), json!([]));
    child["metadata"]["labels"] =
        json!({"temporal.io/deployment-name": "orders", "temporal.io/build-id": "v1.2.3-45d8"});
    child["metadata"]["ownerReferences"] = json!([{"apiVersion": "temporal.io/v1alpha1", "kind": "WorkerDeployment",
        "name": "orders", "uid": stored.metadata.uid, "controller": true, "blockOwnerDeletion": true}]);
    ground.apply(&child).await?;
    ground.apply(&autoscaler(ORDERS_CHILD)).await?;

    let (code, report) = stage.check()?;
    ensure!(code == BLOCKED && report["blocked"] == true, "exit code {code}: {report:#}");
    for (kind, name, expected) in [
        ("Deployment", "manager", "blocking"),
        ("HorizontalPodAutoscaler", "by-cpu", "warning"),
        ("WorkerDeployment", "orders", "fine"),
        ("Deployment", ORDERS_CHILD, "fine"),
    ] {
        let found = severity(&report, kind, name)?;
        ensure!(found == expected, "{kind} {name} is {found}: {report:#}");
    }
    let unread = report["unread"].to_string();
    ensure!(unread.contains("ScaledObject.keda.sh"), "{report:#}");
    let (_, text, _) = stage.run(&["check"])?;
    ensure!(text.contains("kubectl -n moving scale deployment/manager --replicas=0"), "{text}");

    let mut manager = deployment("manager", json!({"app.kubernetes.io/name": "temporal-worker-controller"}), json!([]));
    manager["spec"]["replicas"] = json!(0);
    ground.apply(&manager).await?;
    let (code, report) = stage.check()?;
    ensure!(code == 0 && report["blocked"] == false, "exit code {code}: {report:#}");
    let Stage { control_plane, ground, .. } = stage;
    drop(ground);
    control_plane.stop()
}

pub async fn what_replaces_a_deployment_is_taken_by_the_api_server(bed: Arc<HostBed>) -> Result<()> {
    let stage = Stage::set(bed).await?;
    let ground = &stage.ground;
    let env = json!([{"name": "TEMPORAL_ADDRESS", "value": "temporal.elsewhere:7233"},
        {"name": "TEMPORAL_NAMESPACE", "value": "shop"}]);
    ground.apply(&deployment("plain", json!({}), env)).await?;
    ground.apply(&autoscaler("plain")).await?;
    let (code, _, err) = stage.run(&["plan", "--from-deployment=plain", "-n", NAMESPACE])?;
    ensure!(code == 1 && err.contains("--task-queue"), "exit code {code}: {err}");
    let (code, out, err) =
        stage.run(&["plan", "--from-deployment=plain", "-n", NAMESPACE, "--task-queue=plain=Workflow"])?;
    ensure!(code == 0, "exit code {code}: {err}");
    for document in serde_yaml::Deserializer::from_str(&out) {
        ground.apply(&Value::deserialize(document)?).await?;
    }
    let fleet = ground.fleet("plain-fleet").await?;
    let scaling = fleet.spec.scaling.context("no scaling")?;
    ensure!((scaling.min_replicas, scaling.max_replicas) == (2, 6), "{scaling:?}");
    ensure!(scaling.task_queues.len() == 1 && scaling.task_queues[0].name == "plain", "{scaling:?}");
    ensure!(fleet.spec.worker_options.temporal_namespace == "shop", "{:?}", fleet.spec.worker_options);
    let (code, _, err) = stage.run(&["plan", "--from-keda=absent", "-n", NAMESPACE])?;
    ensure!(code == 1 && err.contains("absent"), "exit code {code}: {err}");
    let Stage { control_plane, ground, .. } = stage;
    drop(ground);
    control_plane.stop()
}
