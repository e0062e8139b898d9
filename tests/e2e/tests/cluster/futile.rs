//! Queues that more pods don't help.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::ground::runtime_fleet;
use e2e::queue::Queue;
use e2e::tasks::Order;
use e2e::wait::within;
use e2e::{ClusterBed, Ground, eventually};
use jiff::Timestamp;
use serde_json::json;

/// Pods that a fleet may have before it is known what a pod can do.
const CANARY: i64 = 2;

pub async fn a_rate_limited_queue_gets_no_useless_pods(bed: Arc<ClusterBed>) -> Result<()> {
    const LIMITED: &str = "limited";
    const CONTROL: &str = "unlimited";
    const TASKS: usize = 80;
    let ground = bed.ground("a_rate_limited_queue_gets_no_useless_pods").await?;
    // Two tasks a second of half a second keep one slot busy.
    Queue::on(&bed.server.host_port(), LIMITED)?.limit_rate(2.0).await?;
    for fleet in [LIMITED, CONTROL] {
        ground.apply(&runtime_fleet(fleet, fleet, 2)).await?;
    }
    for fleet in [LIMITED, CONTROL] {
        ground.is_current(fleet).await?;
        eventually("nothing to do: no pod", async || ground.settled_at(fleet, 0).await).await?;
    }

    let tasks = bed.tasks()?;
    let (begun, began) = (Instant::now(), Timestamp::now());
    let control = tasks.start(&Order::work(CONTROL, TASKS, 0.5)).await?;
    let limited = tasks.start(&Order::work(LIMITED, TASKS, 0.5)).await?;
    let message = eventually("the status says why there are no more", async || {
        ground.has_condition(LIMITED, ("ScalingLimited", "True", "RateLimited")).await
    })
    .await?;
    ensure!(message.contains(LIMITED), "{message}");
    tasks.finish_once_each(&control, Duration::from_secs(120)).await?;
    tasks.finish_once_each(&limited, Duration::from_secs(150)).await?;
    // The server may let a second's worth through at once in each of its partitions.
    ensure!(begun.elapsed().as_secs() > 25, "the limit did not hold: all done after {:?}", begun.elapsed());
    let most = |fleet| -> Result<i64> {
        let changes = bed.scalings((&ground.namespace, fleet), began)?;
        Ok(changes.iter().map(|(_, replicas)| *replicas).max().unwrap_or(0))
    };
    ensure!(most(CONTROL)? == 5, "the same tasks without a limit got {} pods", most(CONTROL)?);
    ensure!(most(LIMITED)? <= CANARY, "a queue that needs one slot got {} pods", most(LIMITED)?);
    eventually("all is done: no pod", async || ground.settled_at(LIMITED, 0).await).await
}

pub async fn an_image_that_never_starts_gets_no_more_pods(bed: Arc<ClusterBed>) -> Result<()> {
    const FLEET: &str = "poison";
    const TASKS: usize = 12;
    let ground = bed.ground("an_image_that_never_starts_gets_no_more_pods").await?;
    let mut fleet = runtime_fleet(FLEET, FLEET, 2);
    fleet["spec"]["versioning"] = json!("Disabled");
    fleet["spec"].as_object_mut().expect("an object").retain(|field, _| field != "rollout" && field != "sunset");
    let good = fleet.clone();
    fleet["spec"]["runtime"]["image"] = json!("not-loaded:1");
    let tasks = bed.tasks()?;
    let burst = tasks.start(&Order::work(FLEET, TASKS, 5.0)).await?;
    ground.apply(&fleet).await?;

    within(Duration::from_secs(60), "it is Stalled at a canary of pods", async || {
        let message = ground.has_condition(FLEET, ("Stalled", "True", "PodStartFailed")).await?;
        ensure!(message.contains("not-loaded:1"), "{message}");
        held(&ground, FLEET).await
    })
    .await?;
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(20) {
        held(&ground, FLEET).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let pending = tasks.pending(&burst).await?;
    ensure!(pending.waiting == TASKS, "a pod has started: {pending:?}");

    // The control: pods that start get the work that waits.
    let healed = Timestamp::now();
    ground.apply(&good).await?;
    tasks.finish_once_each(&burst, Duration::from_secs(120)).await?;
    let changes = bed.scalings((&ground.namespace, FLEET), healed)?;
    ensure!(changes.iter().any(|(_, replicas)| *replicas > CANARY), "no more pods once they start: {changes:?}");
    ensure!(ground.condition(FLEET, "Stalled").await.is_err(), "it is Stalled still");
    Ok(())
}

/// Fails unless a fleet has pods, and no more than a canary of them.
async fn held(ground: &Ground, fleet: &str) -> Result<()> {
    let replicas = i64::from(ground.replicas(fleet).await?);
    ensure!((1..=CANARY).contains(&replicas), "{replicas} replicas");
    Ok(())
}
