//! The life of a fleet on the shared runtime.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::ground::runtime_fleet;
use e2e::tasks::Order;
use e2e::{ClusterBed, eventually};
use jiff::Timestamp;

const FLEET: &str = "life";
const QUEUE: &str = "life";

pub async fn from_one_to_zero_to_many_and_back(bed: Arc<ClusterBed>) -> Result<()> {
    let ground = bed.ground("from_one_to_zero_to_many_and_back").await?;
    ground.apply(&runtime_fleet(FLEET, QUEUE, 2)).await?;

    // A new version runs one pod until the server knows its queue and has made it current; then it goes to zero.
    eventually("one pod registers the version", async || ground.settled_at(FLEET, 1).await).await?;
    eventually("the version is current", async || {
        ground.has_condition(FLEET, ("Ready", "True", "RolloutComplete")).await
    })
    .await?;
    eventually("nothing to do: no pod", async || ground.settled_at(FLEET, 0).await).await?;

    let tasks = bed.tasks()?;
    let began = Timestamp::now();
    let burst = tasks.start(&Order::work(QUEUE, 40, 2.0)).await?;
    let most = eventually("many pods work", async || {
        let replicas = ground.replicas(FLEET).await?;
        ensure!(replicas >= 3, "{replicas} replicas");
        Ok(replicas)
    })
    .await?;
    ensure!(most <= 5, "{most} are more than maxReplicas");
    eventually("the status says why, with numbers", async || {
        let scaling = ground.scaling(FLEET).await?;
        let reason = scaling.reason.clone().unwrap_or_default();
        let numbers = reason.contains("waiting + ") && reason.contains("2 slots per pod");
        ensure!(numbers && scaling.desired >= Some(3) && scaling.backlog > Some(0), "{scaling:?}");
        Ok(())
    })
    .await?;
    tasks.finish_once_each(&burst, Duration::from_secs(120)).await?;
    // Straight to what is needed: once more at most, when the first look saw the burst come.
    let changes = bed.scalings((&ground.namespace, FLEET), began)?;
    let steps: Vec<_> = changes.iter().map(|(_, replicas)| *replicas).collect();
    ensure!(steps.len() <= 2 && steps.is_sorted() && steps.last() == Some(&5), "replicas over time: {changes:?}");
    eventually("all is done: no pod", async || ground.settled_at(FLEET, 0).await).await?;

    let events = ground.events(FLEET).await?;
    for reason in ["DeploymentCreated", "VersionPromoted", "ScaledFromZero", "ScaledToZero"] {
        ensure!(events.iter().any(|(word, _)| word == reason), "no event {reason} in {events:?}");
    }
    let from_zero = events.iter().find(|(word, _)| word == "ScaledFromZero").map(|(_, note)| note.as_str());
    let from_zero = from_zero.unwrap_or_default();
    ensure!(from_zero.starts_with("0 → ") && from_zero.contains(QUEUE), "{from_zero}");
    let to_zero = events.iter().find(|(word, _)| word == "ScaledToZero").map(|(_, note)| note.as_str());
    ensure!(to_zero.is_some_and(|note| note.contains("for 10s")), "{to_zero:?}");
    let table = bed.cluster.run("kubectl", &["get", "wd", FLEET, "--namespace", &ground.namespace])?;
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let build_id = ground.status(FLEET).await?.target_version.version.build_id;
    ensure!(lines[0] == ["NAME", "CURRENT", "TARGET", "RAMP", "%", "READY", "DESIRED", "BACKLOG", "AGE"], "{table}");
    // How many are Ready is as of the last decision, for half a minute at most.
    let row = &lines[1];
    ensure!(row[..3] == [FLEET, &build_id, &build_id] && row[4..6] == ["0", "0"] && row.len() == 7, "{table}");
    let scaling = ground.scaling(FLEET).await?;
    ensure!((scaling.desired, scaling.current) == (Some(0), Some(0)), "{scaling:?}");
    ensure!(scaling.last_scale_time.is_some() && scaling.reason.is_some(), "{scaling:?}");
    Ok(())
}
