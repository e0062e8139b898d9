//! `temporal-worker-operator plan`, beside what the operator then does. The operator runs only where it is said, so that all
//! that is written meanwhile is the command's.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::host::{Operator, install_kinds};
use e2e::worker::Worker;
use e2e::{Ground, HostBed, eventually};
use harness::ControlPlane;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::ResourceExt as _;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use operator_core::api::{Connection, WorkerDeployment};
use serde_json::{Value, json};

use super::{ORDERS_CHILD, orders};

const BUILD_ID: &str = "v1.2.3-45d8";
const QUEUE: &str = "planned-queue";
const NOTHING: i32 = 0;
const WRITES: i32 = 3;
const BLOCKED: i32 = 4;
/// The value of a variable, which may be anything.
const SECRET: &str = "hunter2-in-the-clear";

struct Stage {
    bed: Arc<HostBed>,
    control_plane: ControlPlane,
    ground: Ground,
}

impl Stage {
    async fn set(bed: Arc<HostBed>, namespace: &str) -> Result<Self> {
        let control_plane = ControlPlane::start().await?;
        install_kinds(&control_plane.client()).await?;
        let ground = Ground::with_connection(control_plane.client(), namespace, &bed.server.host_port()).await?;
        Ok(Self { bed, control_plane, ground })
    }

    async fn operator(&self) -> Result<Operator> {
        Operator::start(&self.bed.programs, self.control_plane.kubeconfig_path(), &[]).await
    }

    /// Runs the command, and gives back its exit code and what it printed.
    fn run(&self, arguments: &[&str], stdin: &dyn Display) -> Result<(i32, String)> {
        let mut child = Command::new(self.bed.programs.program("temporal-worker-operator")?)
            .env("KUBECONFIG", self.control_plane.kubeconfig_path())
            .arg("plan")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("no stdin")?.write_all(stdin.to_string().as_bytes())?;
        let output = child.wait_with_output()?;
        let said = String::from_utf8([output.stdout, output.stderr].concat())?;
        Ok((output.status.code().context("it was killed")?, said))
    }

    /// The plan for the fleet as it is stored, or as `manifest` would make it. Fails when anything was written.
    async fn plan(&self, manifest: Option<&Value>, worker: Option<&Worker>) -> Result<(i32, Value)> {
        let before = (self.objects().await?, self.stored_writes()?);
        let routing = async || match worker {
            Some(worker) => worker.routing().await.map(Some),
            None => Ok(None),
        };
        let routed = routing().await?;
        let name = format!("{}/orders", self.ground.namespace);
        let arguments: &[&str] = if manifest.is_some() { &["-f", "-", "-o", "json"] } else { &[&name, "-o", "json"] };
        let (code, said) = self.run(arguments, manifest.unwrap_or(&Value::Null))?;
        let after = (self.objects().await?, self.stored_writes()?);
        ensure!(before == after, "something was written: {before:?}, {after:?}: {said}");
        ensure!(routed == routing().await?, "something was written to the server: {said}");
        ensure!(!said.contains(SECRET), "the value of a variable is shown: {said}");
        let plans: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
        Ok((code, plans["plans"][0].clone()))
    }

    /// Versions of everything in the namespace.
    async fn objects(&self) -> Result<BTreeMap<String, String>> {
        let mut versions = BTreeMap::new();
        let all = ListParams::default();
        for fleet in self.ground.api::<WorkerDeployment>().list(&all).await? {
            versions.insert(format!("fleet {}", fleet.name_any()), fleet.resource_version().unwrap_or_default());
        }
        for child in self.ground.api::<Deployment>().list(&all).await? {
            versions.insert(format!("child {}", child.name_any()), child.resource_version().unwrap_or_default());
        }
        for map in self.ground.api::<ConfigMap>().list(&all).await? {
            versions.insert(format!("map {}", map.name_any()), map.resource_version().unwrap_or_default());
        }
        for connection in self.ground.api::<Connection>().list(&all).await? {
            let name = format!("connection {}", connection.name_any());
            versions.insert(name, connection.resource_version().unwrap_or_default());
        }
        for event in self.ground.api::<k8s_openapi::api::events::v1::Event>().list(&all).await? {
            versions.insert(format!("event {}", event.name_any()), event.resource_version().unwrap_or_default());
        }
        Ok(versions)
    }

    /// Requests to write anything anywhere, but those of the API server itself, and those to the kinds of a file, which are only
    /// tried: of these the versions tell.
    fn stored_writes(&self) -> Result<Vec<String>> {
        let is_tried = |resource: &str| ["workerdeployments", "connections", "clusterconnections"].contains(&resource);
        let events = self.control_plane.audit_events()?.into_iter();
        let writes = events.filter(|event| event.is_write_from_outside() && !is_tried(&event.resource));
        Ok(writes.map(|event| format!("{} {}/{} by {}", event.verb, event.resource, event.name, event.user)).collect())
    }

    /// What the operator wrote in the namespace since there were so many events: resources with verbs, but for the status.
    fn writes_since(&self, count: usize) -> Result<Vec<String>> {
        let events = self.control_plane.audit_events()?;
        let own = events.into_iter().skip(count).filter(|event| event.namespace == self.ground.namespace);
        let own = own.filter(|event| !event.resource.ends_with("/status") && event.resource != "events");
        Ok(own.map(|event| format!("{} {}/{}", event.verb, event.resource, event.name)).collect())
    }

    /// Writes a pod of the version that is ready, at no address.
    async fn ready_pod(&self) -> Result<()> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "planned-pod",
                "labels": {"temporal.io/deployment-name": "orders", "temporal.io/build-id": BUILD_ID}},
            "spec": {"containers": [{"name": "worker", "image": "example.com/worker:v1"}]},
        }))?;
        let pods = self.ground.api::<Pod>();
        pods.create(&PostParams::default(), &pod).await?;
        let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        pods.patch_status("planned-pod", &PatchParams::default(), &Patch::Merge(&status)).await?;
        Ok(())
    }
}

fn fleet() -> Value {
    let mut fleet = orders();
    fleet["spec"]["scaling"] = json!({"minReplicas": 2, "taskQueues": [{"name": QUEUE, "types": ["Workflow"]}]});
    fleet
}

/// The words of a plan's writes.
fn actions(plan: &Value) -> Vec<String> {
    let writes = plan["writes"].as_array().cloned().unwrap_or_default();
    let word = |write: &Value, part: &str| write[part].as_str().unwrap_or_default().to_owned();
    writes.iter().map(|write| format!("{} {}", word(write, "action"), word(write, "object"))).collect()
}

fn condition<'a>(plan: &'a Value, type_: &str) -> Result<&'a str> {
    let all = plan["conditions"].as_array().context("no conditions")?;
    let found = all.iter().find(|condition| condition["type"] == type_);
    found.and_then(|found| found["reason"].as_str()).with_context(|| format!("no condition {type_}: {plan:#}"))
}

pub async fn it_says_what_the_operator_then_does_and_writes_nothing(bed: Arc<HostBed>) -> Result<()> {
    let stage = Stage::set(bed, "planned").await?;
    a_new_fleet(&stage).await?;
    let worker = Worker::of(&stage.bed.server.host_port(), "default", QUEUE)?;
    worker.register("planned/orders", BUILD_ID).await?;
    stage.ready_pod().await?;
    a_version_that_polls(&stage, &worker).await?;
    nothing_to_do(&stage, &worker).await?;
    a_change(&stage, &worker).await?;
    let Stage { control_plane, ground, .. } = stage;
    drop(ground);
    control_plane.stop()
}

async fn a_new_fleet(stage: &Stage) -> Result<()> {
    let (code, by_file) = stage.plan(Some(&with_namespace(fleet())), None).await?;
    stage.ground.apply(&fleet()).await?;
    let (stored_code, plan) = stage.plan(None, None).await?;
    let expected = ["Protect WorkerDeployment/orders".to_owned(), format!("Apply Deployment/{ORDERS_CHILD}")];
    ensure!(code == WRITES && actions(&by_file) == expected, "exit code {code}: {by_file:#}");
    ensure!(stored_code == WRITES && actions(&plan) == expected, "exit code {stored_code}: {plan:#}");
    ensure!(plan["writes"][1]["summary"] == "create it with image ghcr.io/acme/worker:v1.2.3", "{plan:#}");
    ensure!(condition(&plan, "Ready")? == "WaitingForPollers", "{plan:#}");

    let count = stage.control_plane.audit_events()?.len();
    let operator = stage.operator().await?;
    eventually("the operator has scaled what it made", async || {
        let replicas = stage.ground.replicas("orders").await?;
        ensure!(replicas == 2, "{replicas} replicas");
        Ok(())
    })
    .await?;
    operator.kill()?;
    let mut written = stage.writes_since(count)?;
    // A plan is the fleet's alone: what keeps its Connection is written for all fleets together.
    written.retain(|write| !write.starts_with("patch connections/"));
    let first = ["patch workerdeployments/orders".to_owned(), format!("patch deployments/{ORDERS_CHILD}")];
    ensure!(written.starts_with(&first), "planned {expected:?}, written {written:?}");
    Ok(())
}

async fn a_version_that_polls(stage: &Stage, worker: &Worker) -> Result<()> {
    let (code, plan) = stage.plan(None, Some(worker)).await?;
    let server = "Worker Deployment planned/orders";
    let expected = [format!("ClaimManager {server}"), format!("SetCurrent {server}")];
    ensure!(code == WRITES && actions(&plan) == expected, "exit code {code}: {plan:#}");
    let summary = |write: usize| plan["writes"][write]["summary"].as_str().unwrap_or_default().to_owned();
    ensure!(summary(1).contains(BUILD_ID), "{plan:#}");

    let operator = stage.operator().await?;
    let manager = eventually("the operator has made it current", async || {
        let (_, current, manager) = worker.routing().await?;
        ensure!(current == BUILD_ID, "{current:?} is current");
        Ok(manager)
    })
    .await?;
    eventually("the operator says so", async || {
        stage.ground.has_condition("orders", ("Ready", "True", "RolloutComplete")).await
    })
    .await?;
    operator.kill()?;
    ensure!(summary(0).contains(&manager), "planned {:?}, and the manager is {manager:?}", summary(0));
    Ok(())
}

async fn nothing_to_do(stage: &Stage, worker: &Worker) -> Result<()> {
    let (code, plan) = stage.plan(None, Some(worker)).await?;
    ensure!(code == NOTHING && actions(&plan).is_empty(), "exit code {code}: {plan:#}");
    ensure!(condition(&plan, "Ready")? == "RolloutComplete", "{plan:#}");
    let (code, text) = stage.run(&["planned/orders"], &Value::Null)?;
    let said = ["Nothing is to be written.", "Ready True RolloutComplete", BUILD_ID, ORDERS_CHILD];
    ensure!(code == NOTHING && said.iter().all(|part| text.contains(part)), "exit code {code}: {text}");
    Ok(())
}

async fn a_change(stage: &Stage, worker: &Worker) -> Result<()> {
    let mut slower = with_namespace(fleet());
    slower["spec"]["minReadySeconds"] = json!(9);
    let (code, plan) = stage.plan(Some(&slower), Some(worker)).await?;
    let expected = [format!("Apply Deployment/{ORDERS_CHILD}")];
    ensure!(code == WRITES && actions(&plan) == expected, "exit code {code}: {plan:#}");
    ensure!(plan["writes"][0]["changes"] == json!(["spec.minReadySeconds: null → 9"]), "{plan:#}");

    let mut newer = with_namespace(fleet());
    let worker_container = &mut newer["spec"]["template"]["spec"]["containers"][0];
    worker_container["image"] = json!("ghcr.io/acme/worker:v1.2.4");
    worker_container["env"] = json!([{"name": "PASSWORD", "value": SECRET}]);
    let (code, plan) = stage.plan(Some(&newer), Some(worker)).await?;
    ensure!(code == WRITES && plan["writes"].as_array().map(Vec::len) == Some(1), "exit code {code}: {plan:#}");
    ensure!(plan["writes"][0]["summary"] == "create it with image ghcr.io/acme/worker:v1.2.4", "{plan:#}");
    ensure!(plan["currentVersion"]["buildID"] == BUILD_ID, "{plan:#}");
    Ok(())
}

/// A fleet and the ClusterConnection that it is to use, neither of them stored.
fn with_a_shared_connection(
    fleet: &Value,
    said: &impl Fn(&[&str], &dyn Display, i32, &[&str]) -> Result<()>,
) -> Result<()> {
    let mut fleet = fleet.clone();
    fleet["spec"]["workerOptions"]["connectionRef"] = json!({"kind": "ClusterConnection", "name": "shared"});
    said(&["-f", "-"], &fleet, BLOCKED, &["ConnectionNotFound", "ClusterConnection \"shared\" does not exist"])?;
    let both = |allowed: Value| {
        let shared = json!({"apiVersion": "temporal.io/v1alpha1", "kind": "ClusterConnection",
            "metadata": {"name": "shared"}, "spec": {"hostPort": "localhost:1", "allowedNamespaces": allowed}});
        format!("{fleet}\n---\n{shared}")
    };
    said(&["-f", "-"], &both(json!({})), BLOCKED, &["ConnectionNotAllowed", "namespace unplanned"])?;
    let by_label = json!({"selector": {"matchLabels": {"kubernetes.io/metadata.name": "unplanned"}}});
    said(&["-f", "-"], &both(by_label), WRITES, &["create it with image", "TemporalClientCreationFailed"])
}

fn with_namespace(mut fleet: Value) -> Value {
    fleet["metadata"]["namespace"] = json!("planned");
    fleet
}

pub async fn what_can_not_be_planned_is_named_with_its_remedy(bed: Arc<HostBed>) -> Result<()> {
    let stage = Stage::set(bed, "unplanned").await?;
    let said = |arguments: &[&str], stdin: &dyn Display, code: i32, parts: &[&str]| {
        let (is, said) = stage.run(arguments, stdin)?;
        if is != code || !parts.iter().all(|part| said.contains(part)) {
            bail!("{arguments:?} exits with {is} instead of {code}, and says: {said}");
        }
        Ok(())
    };
    said(&["unplanned/absent"], &Value::Null, 1, &["unplanned/absent does not exist"])?;
    let mut fleet = orders();
    fleet["metadata"]["namespace"] = json!("unplanned");
    fleet["spec"]["rollout"]["strategy"] = json!("Slow");
    let parts = ["stdin", "WorkerDeployment \"orders\"", "spec.rollout.strategy", "AllAtOnce"];
    said(&["-f", "-"], &fleet, 1, &parts)?;
    fleet["spec"]["rollout"]["strategy"] = json!("Manual");
    fleet["spec"]["workerOptions"]["connectionRef"]["name"] = json!("elsewhere");
    said(&["-f", "-"], &fleet, BLOCKED, &["ConnectionNotFound", "\"elsewhere\" does not exist", "create it"])?;
    with_a_shared_connection(&fleet, &said)?;
    said(&["-f", "-"], &json!({"kind": "ConfigMap", "apiVersion": "v1"}), 1, &["ConfigMap", "apiVersion"])?;
    said(&["orders"], &Value::Null, 1, &["NAMESPACE/NAME"])?;
    let Stage { control_plane, ground, .. } = stage;
    drop(ground);
    control_plane.stop()
}
