//! A whole rollout whose operator is killed before and after each of its writes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::crossing::{Blows, Crossing};
use e2e::ground::{CONNECTION, TEMPORAL_NAMESPACE};
use e2e::holds::{Behavior, Hold, Holds};
use e2e::host::{Operator, install_kinds};
use e2e::kubelet::Kubelet;
use e2e::wait::within;
use e2e::worker::Worker;
use e2e::{Ground, HostBed};
use harness::tools::Tools;
use harness::{ControlPlane, TemporalOptions, TemporalServer};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::DeleteParams;
use operator_core::api::WorkerDeployment;
use serde_json::{Value, json};

const FLEET: &str = "orders";
const NAMESPACE: &str = "kills";
const QUEUE: &str = "holds";
/// Time for each part of the story: each write of it costs two starts of the operator. Of a version whose record was deleted by one
/// that was killed at that, the next one believes for five minutes that it may be there still.
const LIMIT: Duration = Duration::from_secs(600);
const STEPS: [u8; 3] = [10, 40, 70];
/// Workflows of each kind that are started at a time.
const EACH: usize = 2;

fn release(name: &str) -> Value {
    let environment = json!([{"name": "TASK_QUEUE", "value": QUEUE}, {"name": "RELEASE", "value": name}]);
    let steps: Vec<_> = STEPS.iter().map(|at| json!({"rampPercentage": at, "pauseDuration": "30s"})).collect();
    json!({
        "apiVersion": "temporal.io/v1alpha1",
        "kind": "WorkerDeployment",
        "metadata": {"name": FLEET},
        "spec": {
            "workerOptions": {"connectionRef": {"name": CONNECTION}, "temporalNamespace": TEMPORAL_NAMESPACE},
            "replicas": 1,
            "template": {"spec": {"containers": [{"name": "worker", "image": "worker:1", "env": environment}]}},
            "rollout": {"strategy": "Progressive", "steps": steps},
            "sunset": {"scaledownDelay": "5s", "deleteDelay": "40s"},
        },
    })
}

/// Starts the operator anew whenever it was killed.
async fn keep_alive(bed: &HostBed, crossing: &Crossing) -> Result<()> {
    loop {
        let operator = Operator::start(&bed.programs, &crossing.kubeconfig(), &[]).await?;
        let process = operator.process.id();
        crossing.operator_is(process.pid);
        while process.is_alive() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

struct Story {
    ground: Ground,
    holds: Holds,
    worker: Worker,
}

impl Story {
    /// The Build ID of the version that is current, once that is another than `before`.
    async fn current(&self, before: Option<&str>) -> Result<String> {
        within(LIMIT, "a new version is current", async || {
            self.ground.has_condition(FLEET, ("Ready", "True", "RolloutComplete")).await?;
            let current = self.ground.status(FLEET).await?.current_version.context("no version is current")?;
            ensure!(before != Some(&current.build_id), "still {}", current.build_id);
            Ok(current.build_id)
        })
        .await
    }

    /// Releases Workflows: pinned ones end where they began, and others on the version `current`.
    async fn end(&self, held: &[Hold], current: &str) -> Result<()> {
        for hold in held {
            self.holds.release(hold).await?;
            let (before, after) = self.holds.ended(hold).await?;
            let wanted = if hold.behavior == Behavior::Pinned { &before } else { current };
            ensure!(after == wanted, "{hold:?} began on {before} and ended on {after}; {current} is current");
        }
        Ok(())
    }

    /// A first version; a second one by steps, with Workflows of both kinds on the first; the end of the first; deletion.
    async fn play(&self) -> Result<()> {
        self.ground.apply(&release("one")).await?;
        let one = self.current(None).await?;
        let held = self.holds.start(EACH).await?;

        self.ground.apply(&release("two")).await?;
        let two = self.current(Some(&one)).await?;
        let old = self.ground.children(FLEET).await?;
        ensure!(old.len() == 2, "the version with open Workflows is gone: {:?}", old.keys());
        self.end(&held, &two).await?;
        within(LIMIT, "nothing is left of the first version", async || {
            let children = self.ground.children(FLEET).await?;
            ensure!(children.len() == 1, "{:?}", children.keys());
            Ok(())
        })
        .await?;
        let deployment = format!("{NAMESPACE}/{FLEET}");
        let known = self.worker.versions_of(&deployment).await?;
        ensure!(known == BTreeSet::from([two]), "the server knows {known:?}");

        self.ground.api::<WorkerDeployment>().delete(FLEET, &DeleteParams::default()).await?;
        within(LIMIT, "the fleet is gone", async || {
            let left = self.ground.api::<WorkerDeployment>().get_opt(FLEET).await?;
            ensure!(left.is_none(), "{:?}", left.map(|fleet| fleet.status));
            Ok(())
        })
        .await?;
        let known = self.worker.versions_of(&deployment).await;
        ensure!(
            known.as_ref().is_err_and(|error| error.to_string().contains("not found")),
            "the server knows {known:?}"
        );
        // Nobody collects what the fleet owned here.
        let children = self.ground.api::<Deployment>().list(&Default::default()).await?;
        let replicas: Vec<_> = children.iter().map(e2e::ground::replicas_of).collect();
        ensure!(replicas == [0], "{replicas:?}");
        Ok(())
    }
}

pub async fn long_a_kill_before_and_after_each_write_changes_nothing_of_where_a_rollout_ends(
    bed: Arc<HostBed>,
) -> Result<()> {
    let (control_plane, server) =
        tokio::try_join!(ControlPlane::start(), TemporalServer::start(TemporalOptions::quick_to_drain()))?;
    install_kinds(&control_plane.client()).await?;
    let crossing = Crossing::start(control_plane.client(), &server.host_port()).await?;
    let ground = Ground::with_connection(control_plane.client(), NAMESPACE, &crossing.host_port()).await?;
    let program = Tools::ensure_async(Tools::GO_WORKER).await?.program("go-worker")?.to_owned();
    let environment = [("TEMPORAL_ADDRESS", server.host_port().as_str()), ("METRICS_ADDRESS", "127.0.0.1:0")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let _kubelet = Kubelet::start(control_plane.client(), NAMESPACE, program, environment.into());
    let story = Story {
        holds: Holds::on(&server.host_port(), TEMPORAL_NAMESPACE, QUEUE)?,
        worker: Worker::of(&server.host_port(), TEMPORAL_NAMESPACE, QUEUE)?,
        ground,
    };
    tokio::select! {
        played = story.play() => played.with_context(|| format!("{:#?}", crossing.writes()))?,
        ended = keep_alive(&bed, &crossing) => ended.context("the operator does not start")?,
    }
    judge(&crossing)?;
    drop(story);
    control_plane.stop()
}

/// Each write was met by a kill before and one after it.
fn judge(crossing: &Crossing) -> Result<()> {
    let writes = crossing.writes();
    let both = Blows { before: 1, after: 1 };
    let (done, other): (Vec<_>, Vec<_>) = writes.iter().partition(|(_, blows)| **blows == both);
    let temporals = done.iter().filter(|(name, _)| name.starts_with("Temporal")).count();
    for (name, _) in &done {
        println!("killed before and after: {name}");
    }
    // After the kill another status followed at once.
    for (name, _) in &other {
        println!("killed before, and not made again: {name}");
    }
    println!(
        "{} writes, {temporals} of them to Temporal: {} kills before, {} after",
        done.len(),
        done.len(),
        done.len()
    );
    ensure!(other.iter().all(|(name, _)| name.contains("/status ")), "not met by both: {other:?}");
    for call in [
        "SetWorkerDeploymentManager",
        "SetWorkerDeploymentRampingVersion",
        "SetWorkerDeploymentCurrentVersion",
        "DeleteWorkerDeploymentVersion",
        "DeleteWorkerDeployment",
    ] {
        ensure!(done.iter().any(|(name, _)| name.split(' ').nth(1) == Some(call)), "{call} is not among the writes");
    }
    let ramps = done.iter().filter(|(name, _)| name.contains("RampingVersion")).count();
    ensure!(ramps >= STEPS.len(), "{ramps} shares were given");
    Ok(())
}
