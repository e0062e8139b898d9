//! Workflows of a Worker on the Go SDK, through a rollout, a way back in mid-ramp, the end of old versions and of the fleet.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::bed::GO_WORKER_IMAGE;
use e2e::ground::{CONNECTION, TEMPORAL_NAMESPACE};
use e2e::holds::{Behavior, Hold, Holds};
use e2e::wait::within;
use e2e::{ClusterBed, Ground, eventually};
use harness::{TemporalOptions, TemporalServer};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::DeleteParams;
use operator_core::api::{VersionStatus, WorkerDeployment};
use serde_json::{Value, json};

const FLEET: &str = "orders";
const QUEUE: &str = "holds";
/// Workflows of each kind that are started at a time.
const EACH: usize = 4;
/// Time in which the server lets go of what nobody polls any more, and the operator has asked it again after a refusal.
const SUNSET: Duration = Duration::from_secs(300);

/// The fleet at a release, which stays at its only step for as long as `pause`.
fn release(name: &str, pause: &str) -> Value {
    let environment = json!([{"name": "TASK_QUEUE", "value": QUEUE}, {"name": "RELEASE", "value": name}]);
    json!({
        "apiVersion": "temporal.io/v1alpha1",
        "kind": "WorkerDeployment",
        "metadata": {"name": FLEET},
        "spec": {
            "workerOptions": {"connectionRef": {"name": CONNECTION}, "temporalNamespace": TEMPORAL_NAMESPACE},
            "replicas": 1,
            "template": {"spec": {"containers": [{"name": "worker", "image": GO_WORKER_IMAGE, "env": environment}]}},
            "rollout": {"strategy": "Progressive", "steps": [{"rampPercentage": 50, "pauseDuration": pause}]},
            "sunset": {"scaledownDelay": "5s", "deleteDelay": "40s"},
        },
    })
}

/// The Build ID of the version that is current, once that is another than those.
async fn current(ground: &Ground, before: &[&str]) -> Result<String> {
    eventually("a new version is current", async || {
        ground.has_condition(FLEET, ("Ready", "True", "RolloutComplete")).await?;
        let current = ground.status(FLEET).await?.current_version.context("no version is current")?;
        ensure!(!before.contains(&current.build_id.as_str()), "still {}", current.build_id);
        Ok(current.build_id)
    })
    .await
}

/// The Build ID of the version that has a share.
async fn ramping(ground: &Ground) -> Result<String> {
    eventually("the target has its share", async || {
        ground.has_condition(FLEET, ("Ready", "False", "Ramping")).await?;
        let target = ground.status(FLEET).await?.target_version;
        ensure!(target.ramp_percentage == Some(50.0), "{target:?}");
        Ok(target.version.build_id)
    })
    .await
}

/// Releases Workflows: pinned ones end where they began, and others on the version `current`.
async fn end(holds: &Holds, held: &[Hold], current: &str) -> Result<()> {
    for hold in held {
        holds.release(hold).await?;
    }
    for hold in held {
        let (before, after) = holds.ended(hold).await?;
        let wanted = if hold.behavior == Behavior::Pinned { before.as_str() } else { current };
        ensure!(after == wanted, "{hold:?} began on {before} and ended on {after}; {current} is current");
    }
    Ok(())
}

/// The versions that Workflows began on.
async fn versions(holds: &Holds, held: &[Hold]) -> Result<BTreeSet<String>> {
    let mut versions = BTreeSet::new();
    for hold in held {
        versions.insert(holds.began(hold).await?);
    }
    Ok(versions)
}

/// Starts Workflows until some began on `version`, which has half of them.
async fn start_on(holds: &Holds, version: &str) -> Result<Vec<Hold>> {
    let mut held = Vec::new();
    eventually(&format!("a Workflow of each kind began on {version}"), async || {
        held.extend(holds.start(EACH).await?);
        for behavior in [Behavior::Pinned, Behavior::AutoUpgrade] {
            let of_kind: Vec<_> = held.iter().filter(|hold| hold.behavior == behavior).cloned().collect();
            ensure!(versions(holds, &of_kind).await?.contains(version), "no {behavior:?} one yet");
        }
        Ok(())
    })
    .await?;
    Ok(held)
}

pub async fn workflows_keep_to_their_versions_through_a_rollout_and_a_way_back(bed: Arc<ClusterBed>) -> Result<()> {
    let server = TemporalServer::start_in(&bed.cluster, TemporalOptions::quick_to_drain()).await?;
    let namespace = "workflows-keep-to-their-versions";
    let ground = Ground::with_connection(bed.client.clone(), namespace, &server.host_port()).await?;
    let holds = Holds::on(&server.host_port(), TEMPORAL_NAMESPACE, QUEUE)?;

    ground.apply(&release("one", "30s")).await?;
    let one = current(&ground, &[]).await?;
    let of_one = holds.start(EACH).await?;
    ensure!(versions(&holds, &of_one).await? == BTreeSet::from([one.clone()]), "no other version is there");

    ground.apply(&release("two", "30s")).await?;
    let two = ramping(&ground).await?;
    let in_the_ramp = start_on(&holds, &two).await?;
    ensure!(current(&ground, &[&one]).await? == two, "the version that had a share is current");

    // Release three gets its share, and is given up in the middle: the old template is applied again.
    ground.apply(&release("three", "10m")).await?;
    let three = ramping(&ground).await?;
    let of_three = start_on(&holds, &three).await?;
    ground.apply(&release("two", "30s")).await?;
    eventually("the version before has all of the traffic", async || {
        ground.has_condition(FLEET, ("Ready", "True", "RolloutComplete")).await?;
        let status = ground.status(FLEET).await?;
        let given_up = status.deprecated_versions.iter().find(|old| old.version.build_id == three);
        let given_up = given_up.context("the version that was given up is not told")?;
        ensure!(given_up.version.status == VersionStatus::Draining, "{given_up:?}");
        Ok(())
    })
    .await?;
    ensure!(current(&ground, &[]).await? == two, "another version is current");
    let afterwards = holds.start(EACH).await?;
    ensure!(versions(&holds, &afterwards).await? == BTreeSet::from([two.clone()]), "it has all of the traffic");
    for held in [of_one, in_the_ramp, of_three, afterwards] {
        end(&holds, &held, &two).await?;
    }

    only_is_left(&ground, &two).await?;
    is_deleted(&ground).await
}

/// Old versions end once no Workflow is pinned to them: pods, records, Deployments.
async fn only_is_left(ground: &Ground, version: &str) -> Result<()> {
    within(SUNSET, "only the current version is left", async || {
        let children: Vec<String> = ground.children(FLEET).await?.into_keys().collect();
        let status = ground.status(FLEET).await?;
        ensure!(children.len() == 1 && status.deprecated_versions.is_empty(), "{children:?}, {status:?}");
        ensure!(status.version_count == Some(1), "the server has {:?}", status.version_count);
        ensure!(status.current_version.is_some_and(|current| current.build_id == version), "another is current");
        Ok(())
    })
    .await
}

/// The fleet ends whole: no Deployment, and nothing that holds the object.
async fn is_deleted(ground: &Ground) -> Result<()> {
    let fleets = ground.api::<WorkerDeployment>();
    fleets.delete(FLEET, &DeleteParams::default()).await?;
    within(SUNSET, "the fleet is gone", async || {
        ensure!(fleets.get_opt(FLEET).await?.is_none(), "it is there");
        let left = ground.api::<Deployment>().list(&Default::default()).await?.items;
        ensure!(left.is_empty(), "{} Deployments are left", left.len());
        Ok(())
    })
    .await?;
    let gone = ground.events(FLEET).await?;
    ensure!(!gone.iter().any(|(reason, _)| reason == "DeletionIncomplete"), "{gone:?}");
    Ok(())
}
