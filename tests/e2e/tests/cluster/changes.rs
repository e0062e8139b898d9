//! Pods whose configuration changes while they work, and a runtime that is killed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::ClusterBed;
use e2e::ground::{Ground, runtime_fleet};
use e2e::load::all_run;
use e2e::stream::Stream;
use e2e::tasks::Order;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use operator_core::contract::RUNTIME_CONTAINER;
use serde_json::{Value, json};

const FLEET: &str = "changing";
/// What tasks of the changed handler print.
const CHANGED: u64 = 7;

/// Waits until all tasks of a burst run as they do after the change.
async fn changed(ground: &Ground, stream: &Stream<'_>) -> Result<()> {
    ground
        .once_mounted(FLEET, "the change is in the pods", async || {
            let ended = stream.next().await?;
            ensure!(ended.values().all(|one| one.result == Some(json!(CHANGED))), "some tasks run as before");
            Ok(())
        })
        .await
}

pub async fn running_pods_take_a_change_over_and_a_killed_one_loses_nothing(bed: Arc<ClusterBed>) -> Result<()> {
    let ground = bed.ground("running_pods_take_a_change_over").await?;
    let mut fleet = runtime_fleet(FLEET, FLEET, 3);
    fleet["spec"]["versioning"] = json!("Disabled");
    fleet["spec"]["scaling"] = json!({"minReplicas": 2, "maxReplicas": 2});
    ground.apply(&fleet).await?;
    let tasks = bed.tasks()?;
    let burst = tasks.start(&Order::work(FLEET, 4, 0.1)).await?;
    tasks.finish_once_each(&burst, Duration::from_secs(90)).await?;

    let before = ground.restarts(FLEET).await?;
    let runtime = &mut fleet["spec"]["runtime"];
    runtime["taskQueues"][0]["maxConcurrentActivities"] = json!(4);
    let script: &mut Value = &mut runtime["handlers"][0]["exec"]["command"][2];
    *script = json!(script.as_str().context("a script")?.replace("echo \"$n\"", &format!("echo {CHANGED}")));
    let stream = Stream::of(&tasks);
    let change = async {
        stream.next().await?;
        ground.apply(&fleet).await?;
        changed(&ground, &stream).await
    };
    stream.during(|| Order::work(FLEET, 6, 0.5), change).await?;
    let ended = stream.ends_once_each().await?;
    let after = ended.iter().filter(|one| one.result == Some(json!(CHANGED))).count();
    ensure!((1..ended.len()).contains(&after), "{after} of {} tasks ran as changed", ended.len());
    ensure!(ground.restarts(FLEET).await? == before, "pods were replaced or restarted: {before:?}");

    // Killed while it works: its tasks time out, and are done by somebody else.
    let burst = tasks.start(&Order { start_to_close_s: 10, ..Order::work(FLEET, 6, 6.0) }).await?;
    all_run(&tasks, &burst).await?;
    let victim = before.keys().next().context("no pod")?;
    let processes = bed.container_processes((&ground.namespace, victim), RUNTIME_CONTAINER).await?;
    // The runtime was there before its handlers' programs.
    kill(Pid::from_raw(processes.into_iter().min().context("no process")?), Signal::SIGKILL)?;
    let ended = tasks.finish(&burst, Duration::from_secs(90)).await?;
    ensure!(ended.values().all(|activity| activity.result.is_some()), "{ended:?}");
    let again = ended.values().filter(|activity| activity.attempt == 2).count();
    ensure!((1..6).contains(&again), "{again} tasks ran again: {ended:?}");
    Ok(())
}
