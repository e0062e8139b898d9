//! Pods whose configuration changes while they work, and a runtime that is killed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::ground::{Ground, runtime_fleet};
use e2e::load::all_run;
use e2e::tasks::Order;
use e2e::{ClusterBed, Tasks};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use operator_core::contract::RUNTIME_CONTAINER;
use serde_json::{Value, json};

const FLEET: &str = "changing";
/// What tasks of the changed handler print.
const CHANGED: u64 = 7;

/// Runs bursts until all tasks of one run as they do after the change, and says how many; each task of each ran once.
async fn until_changed(ground: &Ground, tasks: &Tasks) -> Result<u32> {
    let mut bursts = 0;
    ground
        .once_mounted(FLEET, "the change is in the pods", async || {
            let burst = tasks.start(&Order::work(FLEET, 12, 0.5)).await?;
            tasks.finish_once_each(&burst, Duration::from_secs(60)).await?;
            bursts += 1;
            let results = tasks.activities(&burst).await?.into_values().filter_map(|activity| activity.result);
            ensure!(results.into_iter().all(|result| result == json!(CHANGED)), "some tasks run as before");
            Ok(())
        })
        .await?;
    Ok(bursts)
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
    ground.apply(&fleet).await?;
    let bursts = until_changed(&ground, &tasks).await?;
    ensure!(bursts > 1, "the change was there before the load");
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
