//! Gates of a rollout: their argument, their failures, and what has them run again. The pod and its Worker are played.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use e2e::host::{Operator, install_kinds};
use e2e::worker::Worker;
use e2e::{Ground, HostBed, eventually};
use harness::ControlPlane;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Patch, PatchParams, PostParams};
use operator_core::api::{TestWorkflow, WorkerDeployment};
use operator_core::names::{BUILD_ID_LABEL, DEPLOYMENT_NAME_LABEL};
use serde_json::{Value, json};

use super::{orders, says};

const FLEET: &str = "orders";
const BUILD_ID: &str = "v1.2.3-45d8";
/// What the argument holds, and nobody may read.
const CANARY: &str = "canary-5d1f0c";

/// A fleet whose target has a Ready pod and polls, and is gated by a Workflow whose argument is in a Secret.
async fn gated(bed: &HostBed, client: Client, namespace: &str) -> Result<(Ground, Worker)> {
    let ground = Ground::with_connection(client, namespace, &bed.server.host_port()).await?;
    let mut fleet = orders();
    fleet["spec"]["scaling"] = json!({"minReplicas": 1, "taskQueues": [{"name": namespace, "types": ["Workflow"]}]});
    let key = json!({"name": "gate", "key": "argument"});
    fleet["spec"]["rollout"] = json!({"strategy": "AllAtOnce",
        "gate": {"workflowType": "Smoke", "inputFrom": {"secretKeyRef": key}}});
    ground.apply(&fleet).await?;
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "worker", "labels": {DEPLOYMENT_NAME_LABEL: FLEET, BUILD_ID_LABEL: BUILD_ID}},
        "spec": {"containers": [{"name": "worker", "image": "worker:1"}]},
    }))?;
    ground.api::<Pod>().create(&PostParams::default(), &pod).await?;
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    ground.api::<Pod>().patch_status("worker", &PatchParams::default(), &Patch::Merge(status)).await?;
    let worker = Worker::of(&bed.server.host_port(), "default", namespace)?;
    worker.register(&format!("{namespace}/{FLEET}"), BUILD_ID).await?;
    Ok((ground, worker))
}

async fn command(ground: &Ground, verb: &str, value: &str) -> Result<()> {
    let annotation = format!("temporal.io/{verb}");
    let patch = json!({"metadata": {"annotations": {annotation: value}}});
    let patched = ground.api::<WorkerDeployment>().patch(FLEET, &PatchParams::default(), &Patch::Merge(&patch)).await;
    patched.map(|_| ()).context("annotate")
}

/// The only test that the status names, once its status is `word`.
async fn test_is(ground: &Ground, word: &str) -> Result<TestWorkflow> {
    eventually(&format!("the test is {word}"), async || {
        let tests = ground.status(FLEET).await?.target_version.test_workflows;
        let [test] = &tests[..] else { anyhow::bail!("{tests:?}") };
        ensure!(test.status == word, "{test:?}");
        Ok(test.clone())
    })
    .await
}

async fn told(ground: &Ground, reason: &str) -> Result<usize> {
    Ok(ground.events(FLEET).await?.iter().filter(|(word, _)| word == reason).count())
}

fn secret(text: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "gate"}, "stringData": {"argument": text}})
}

pub async fn a_gate_waits_for_its_argument_fails_and_is_run_again_once_whatever_ends_in_between(
    bed: Arc<HostBed>,
) -> Result<()> {
    // An API server of its own, for operators that come and go.
    let control_plane = ControlPlane::start().await?;
    install_kinds(&control_plane.client()).await?;
    let start = || Operator::start(&bed.programs, control_plane.kubeconfig_path(), &[]);
    let operator = start().await?;
    let (ground, worker) = gated(&bed, control_plane.client(), "gates").await?;
    let first = fails(&ground, &worker).await.with_context(|| operator.log().unwrap_or_default())?;
    nothing_shows_the_argument(&operator, &ground).await?;
    operator.kill()?;

    let operator = start().await?;
    command(&ground, "retry-gate", &format!("{BUILD_ID}@1")).await?;
    let second = test_is(&ground, "Running").await.with_context(|| operator.log().unwrap_or_default())?;
    ensure!(second.workflow_id != first.workflow_id, "{second:?}");
    operator.kill()?;
    worker.complete_workflow().await?;

    let operator = start().await?;
    ground.is_current(FLEET).await.with_context(|| operator.log().unwrap_or_default())?;
    // Another command shows that the annotation was seen again.
    command(&ground, "pause", &format!("{BUILD_ID}@2")).await?;
    eventually("both commands are answered, and each thing was said once", async || {
        let mut said = [0; 3];
        for (count, reason) in said.iter_mut().zip(["TestWorkflowStarted", "GateWorkflowFailed", "CommandAccepted"]) {
            *count = told(&ground, reason).await?;
        }
        ensure!(said == [2, 1, 2], "{said:?}");
        Ok(())
    })
    .await?;
    operator.kill()?;
    drop(ground);
    control_plane.stop()
}

/// The gate waits for its Secret, is run, and fails. Gives its test.
async fn fails(ground: &Ground, worker: &Worker) -> Result<TestWorkflow> {
    let missing = ["Secret \"gate\"", "does not exist in namespace gates", "create it"];
    let message = eventually("the missing Secret is named", async || {
        ground.has_condition(FLEET, ("Ready", "False", "TestWorkflowStartFailed")).await
    })
    .await?;
    says(&message, &missing)?;
    ground.has_condition(FLEET, ("Stalled", "True", "TestWorkflowStartFailed")).await?;

    ground.apply(&secret(&format!("{{{CANARY}"))).await?;
    eventually("that it is no JSON is said, and not what it is", async || {
        let message = ground.has_condition(FLEET, ("Ready", "False", "TestWorkflowStartFailed")).await?;
        says(&message, &["holds no JSON text", "\"argument\""])
    })
    .await?;
    ground.apply(&secret(&json!({"password": CANARY}).to_string())).await?;
    let first = test_is(ground, "Running").await?;
    let expected = format!("test-gates/{FLEET}:{BUILD_ID}-gates");
    ensure!(first.workflow_id == expected && first.task_queue == "gates", "{first:?}");
    worker.fail_workflow(&format!("the password {CANARY} is wrong")).await?;
    let failed = test_is(ground, "Failed").await?;
    ensure!(failed.run_id == first.run_id && failed.message.is_none(), "{failed:?}");
    let message = ground.has_condition(FLEET, ("Ready", "False", "GateFailed")).await?;
    says(&message, &[&expected, "temporal.io/retry-gate"])?;
    let status = ground.status(FLEET).await?;
    ensure!(status.current_version.is_none(), "it was made current: {:?}", status.current_version);
    eventually("an event says it", async || {
        ensure!(told(ground, "GateWorkflowFailed").await? == 1, "{:?}", ground.events(FLEET).await?);
        Ok(failed.clone())
    })
    .await
}

async fn nothing_shows_the_argument(operator: &Operator, ground: &Ground) -> Result<()> {
    let status = serde_json::to_string(&ground.status(FLEET).await?)?;
    let events = format!("{:?}", ground.events(FLEET).await?);
    let (log, metrics) = (operator.log()?, operator.metrics().await?);
    for (what, text) in [("status", &status), ("events", &events), ("log", &log), ("metrics", &metrics)] {
        ensure!(!text.contains(CANARY), "the argument is in the {what}");
    }
    // The control: the log is that of this fleet.
    ensure!(log.contains("GateWorkflowFailed"), "the log says nothing of it");
    Ok(())
}
