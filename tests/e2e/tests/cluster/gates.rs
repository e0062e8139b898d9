//! Gates of a rollout, with a real Worker in Rust: its Workflow `CheckRelease` passes when the release agrees with thumbnails
//! of earlier ones.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use e2e::ground::{CONNECTION, TEMPORAL_NAMESPACE};
use e2e::{ClusterBed, Ground, eventually};
use harness::programs::WORKER_IMAGE;
use serde_json::{Value, json};

const FLEET: &str = "pictures";
/// Task Queue of its Workflows.
const QUEUE: &str = "pictures-workflows";

/// A fleet of one pod a version.
fn pictures(release: &str, rollout: &Value) -> Value {
    let worker = json!({"name": "worker", "image": WORKER_IMAGE, "env": [{"name": "RELEASE", "value": release}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8081}, "periodSeconds": 1}});
    json!({
        "apiVersion": "temporal.io/v1alpha1",
        "kind": "WorkerDeployment",
        "metadata": {"name": FLEET},
        "spec": {
            "workerOptions": {"connectionRef": {"name": CONNECTION}, "temporalNamespace": TEMPORAL_NAMESPACE},
            "runtime": {"mode": "Library", "taskQueues": [{"name": QUEUE}, {"name": "pictures-local"}]},
            "template": {"spec": {"containers": [worker]}},
            "replicas": 1,
            "rollout": rollout,
            "sunset": {},
        },
    })
}

pub async fn a_release_is_promoted_once_its_gate_passed_and_goes_back_when_one_fails(
    bed: Arc<ClusterBed>,
) -> Result<()> {
    let ground = bed.ground("a_release_is_promoted_once_its_gate_passed_and_goes_back_when_one_fails").await?;
    ground.apply(&pictures("one", &json!({"strategy": "AllAtOnce"}))).await?;
    ground.is_current(FLEET).await?;
    let first = current(&ground).await?;

    let expected =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "release"}, "data": {"check": "[]"}});
    ground.apply(&expected).await?;
    let source = json!({"configMapKeyRef": {"name": "release", "key": "check"}});
    let gate = json!({"workflowType": "CheckRelease", "inputFrom": source});
    ground.apply(&pictures("two", &json!({"strategy": "AllAtOnce", "gate": gate}))).await?;
    ground.is_current(FLEET).await?;
    let second = current(&ground).await?;
    ensure!(second != first, "the release made no new version");
    let id = format!("test-{}/{FLEET}:{second}-{QUEUE}", ground.namespace);
    let tests = ground.status(FLEET).await?.target_version.test_workflows;
    let [test] = &tests[..] else { anyhow::bail!("{tests:?}") };
    ensure!(test.workflow_id == id && test.status == "Completed" && test.task_queue == QUEUE, "{test:?}");
    let notes = notes(&ground).await?;
    let at =
        |part: &str| notes.iter().position(|note| note.contains(part)).with_context(|| format!("{part}: {notes:?}"));
    let promoted = at(&format!("Current version {first} → {second}."))?;
    ensure!(at(&format!("Test Workflow {id:?} started"))? < promoted, "it was promoted first: {notes:?}");

    let third = fails_at_its_second_step(&ground, &second).await?;
    // The control: nothing else kept that release from the traffic.
    ground.apply(&pictures("three", &json!({"strategy": "AllAtOnce"}))).await?;
    ground.is_current(FLEET).await?;
    ensure!(current(&ground).await? == third, "another version is current");
    Ok(())
}

/// A third release that gets a share, disagrees with what is expected of it, and loses the share. Gives its Build ID.
async fn fails_at_its_second_step(ground: &Ground, second: &str) -> Result<String> {
    let wrong = json!([{"picture": "picture-001.jpg", "width": 40, "height": 30, "bytes": 1, "sha256": "0",
        "meanColor": [0, 0, 0]}]);
    let gate = json!({"workflowType": "CheckRelease", "input": wrong});
    let steps = json!([{"rampPercentage": 20, "pauseDuration": "30s"},
        {"rampPercentage": 60, "pauseDuration": "30s", "gate": gate}]);
    let rollout = json!({"strategy": "Progressive", "onGateFailure": "Rollback", "steps": steps});
    ground.apply(&pictures("three", &rollout)).await?;
    let third = eventually("the third release has its share", async || {
        ground.has_condition(FLEET, ("Ready", "False", "Ramping")).await?;
        let target = ground.status(FLEET).await?.target_version;
        ensure!(target.ramp_percentage == Some(20.0), "{target:?}");
        Ok(target.version.build_id)
    })
    .await?;
    let message = eventually("its gate fails, and its share is taken away", async || {
        let message = ground.has_condition(FLEET, ("Ready", "False", "GateFailed")).await?;
        let target = ground.status(FLEET).await?.target_version;
        ensure!(target.ramp_percentage.is_none(), "{target:?}");
        Ok(message)
    })
    .await?;
    let id = format!("test-{}/{FLEET}:{third}:ramp-60-{QUEUE}", ground.namespace);
    ensure!(message.contains(&id) && message.contains("is wrong"), "{message}");
    ground.has_condition(FLEET, ("Stalled", "True", "GateFailed")).await?;
    let notes = notes(ground).await?;
    let told = [format!("Ramping version {third} at 20 % → (none)."), format!("Test Workflow {id:?} on Task Queue")];
    ensure!(told.iter().all(|told| notes.iter().any(|note| note.starts_with(told))), "no {told:?} in {notes:?}");
    ensure!(current(ground).await? == second, "another version is current");
    Ok(third)
}

async fn current(ground: &Ground) -> Result<String> {
    Ok(ground.status(FLEET).await?.current_version.context("no current version")?.build_id)
}

async fn notes(ground: &Ground) -> Result<Vec<String>> {
    Ok(ground.events(FLEET).await?.into_iter().map(|(_, note)| note).collect())
}
