//! Pods that work, and whose word the operator can't get.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::ground::runtime_fleet;
use e2e::load::{CutMetrics, all_run, running_in};
use e2e::tasks::Order;
use e2e::wait::within;
use e2e::{ClusterBed, Ground, eventually};
use harness::audit;
use operator_core::contract::RUNTIME_CONTAINER;
use serde_json::json;

const CUT: &str = "unread";
const CONTROL: &str = "read";
/// Time within which the status must say it.
const SAID_WITHIN: Duration = Duration::from_secs(45);

pub async fn pods_whose_metrics_are_cut_off_are_kept(bed: Arc<ClusterBed>) -> Result<()> {
    let ground = bed.ground("pods_whose_metrics_are_cut_off_are_kept").await?;
    for fleet in [CUT, CONTROL] {
        let mut manifest = runtime_fleet(fleet, fleet, 1);
        manifest["spec"]["scaling"] = json!({"maxReplicas": 3, "idleWindow": "5s"});
        ground.apply(&manifest).await?;
    }
    let tasks = bed.tasks()?;
    let mut bursts = Vec::new();
    for fleet in [CUT, CONTROL] {
        ground.is_current(fleet).await?;
        bursts.push(tasks.start(&Order::work(fleet, 3, 25.0)).await?);
    }
    for (fleet, burst) in [CUT, CONTROL].iter().zip(&bursts) {
        all_run(&tasks, burst).await?;
        eventually("three pods are Ready", async || ground.settled_at(fleet, 3).await).await?;
    }

    let (cut, cut_at) = (CutMetrics::of(&bed, &ground, (CUT, RUNTIME_CONTAINER)).await?, Instant::now());
    let message = within(SAID_WITHIN, "the status says it", async || says_it(&ground).await).await?;
    println!("after {:.1} s: {message}", cut_at.elapsed().as_secs_f64());
    for burst in &bursts {
        tasks.finish_once_each(burst, Duration::from_secs(60)).await?;
    }
    // Both fleets have nothing to do. The one that is read goes to zero; then the other had the time too.
    eventually("the fleet that is read goes to zero", async || ground.settled_at(CONTROL, 0).await).await?;
    within(SAID_WITHIN, "it was cut off for long", async || {
        ground.settled_at(CUT, 3).await?;
        ensure!(cut_at.elapsed() > SAID_WITHIN - Duration::from_secs(5), "not yet");
        Ok(())
    })
    .await?;
    says_it(&ground).await?;
    ground.has_condition(CONTROL, ("MetricsStale", "False", "SignalsFresh")).await?;
    ensure!(falls(&bed, &ground)?.is_empty(), "replicas fell: {:?}", falls(&bed, &ground)?);
    ensure!(cut.dropped_packets()? > 0, "no packet was dropped");
    let running = running_in(&ground, CUT).await?;
    ensure!(running.values().all(|tasks| *tasks == 0), "its pods had work: {running:?}");

    drop(cut);
    eventually("it is read again, and goes to zero", async || ground.settled_at(CUT, 0).await).await
}

async fn says_it(ground: &Ground) -> Result<String> {
    ground.has_condition(CUT, ("ScalingActive", "False", "SignalsStale")).await?;
    let message = ground.has_condition(CUT, ("MetricsStale", "True", "WorkersStale")).await?;
    ensure!(message.contains("3 of 3 ready pods") && message.contains("NetworkPolicy"), "{message}");
    Ok(message)
}

fn falls(bed: &ClusterBed, ground: &Ground) -> Result<Vec<audit::Decrease>> {
    let mut falls = audit::decreases(&bed.writes_in(&ground.namespace)?);
    falls.retain(|fall| fall.name.starts_with(CUT) && fall.from == 3);
    Ok(falls)
}
