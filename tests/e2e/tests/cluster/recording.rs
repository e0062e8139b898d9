//! What the operator decided on the cluster, decided again elsewhere.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::bed::{OPERATOR, OPERATOR_CONTAINER};
use e2e::ground::runtime_fleet;
use e2e::tasks::Order;
use e2e::{ClusterBed, eventually};
use scale_sim::replay::{self, Replayed};

const FILE: &str = "recordings/decisions.jsonl";

/// The scenarios before it have left recordings too, of whatever they did to their fleets and to the leader.
pub async fn what_was_decided_is_decided_again(bed: Arc<ClusterBed>) -> Result<()> {
    const FLEET: &str = "recorded";
    let ground = bed.ground("what_was_decided_is_decided_again").await?;
    ground.apply(&runtime_fleet(FLEET, FLEET, 2)).await?;
    ground.is_current(FLEET).await?;
    let tasks = bed.tasks()?;
    let burst = tasks.start(&Order::work(FLEET, 10, 2.0)).await?;
    tasks.finish_once_each(&burst, Duration::from_secs(90)).await?;
    eventually("all is done: no pod", async || ground.settled_at(FLEET, 0).await).await?;

    let (_, leader) = bed.leader().await?;
    let pids = bed.container_processes((OPERATOR, &leader), OPERATOR_CONTAINER).await?;
    let pid = pids.first().context("the leader has no process")?;
    let path = format!("/proc/{pid}/root/{FILE}");
    let fleet = format!("{}/{FLEET}", ground.namespace);
    let recording = eventually("the recording has the way back to zero", async || {
        let recording = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        ensure!(desired(&recording, &fleet)?.ends_with(&[0]), "{:?}", desired(&recording, &fleet)?);
        Ok(recording)
    })
    .await?;
    let numbers = desired(&recording, &fleet)?;
    ensure!(numbers.iter().any(|number| *number >= 2), "the burst is not in the recording: {numbers:?}");

    let made = replay::replay(&path, recording.as_bytes())?;
    println!("{}", replay::print(&path, &made));
    ensure!(made.difference.is_none(), "{}", replay::print(&path, &made));
    ensure!(made.fleets.contains(&fleet) && made.decisions >= numbers.len(), "{} of {:?}", made.decisions, made.fleets);
    // The control: one pod more, and it is another decision.
    let Replayed { difference, .. } = replay::replay(&path, tampered(&recording, &fleet)?.as_bytes())?;
    ensure!(difference.is_some_and(|found| found.fleet == fleet), "a changed decision was not noticed");
    Ok(())
}

/// What was decided for a fleet, oldest first. A last line may be half written.
fn desired(recording: &str, fleet: &str) -> Result<Vec<u64>> {
    let of_fleet = |line: &&str| line.contains(&format!("\"fleet\":\"{fleet}\""));
    let whole = recording.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let number = |line: &str| -> Result<u64> {
        let record: serde_json::Value = serde_json::from_str(line)?;
        record["decision"]["desired"].as_u64().context("a record without a number")
    };
    whole.filter(of_fleet).map(number).collect()
}

/// The recording with the fleet's last decision, which is for no pod, changed into one for a pod.
fn tampered(recording: &str, fleet: &str) -> Result<String> {
    let from = recording.rfind(&format!("\"fleet\":\"{fleet}\"")).context("the fleet is not in the recording")?;
    let decision =
        recording[from..].find("\"decision\":{\"desired\":0").context("the last decision is not for zero")?;
    let (before, after) = recording.split_at(from + decision);
    Ok(before.to_owned() + &after.replacen("\"desired\":0", "\"desired\":1", 1))
}
