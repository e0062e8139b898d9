//! Loads that stay as they are: the number of pods does too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::ground::runtime_fleet;
use e2e::load::running_in;
use e2e::queue::Queue;
use e2e::traffic::{Traffic, poisson, regular};
use e2e::{ClusterBed, Ground, eventually};
use jiff::Timestamp;
use serde_json::json;

const FLEET: &str = "steady";
const SECOND: Duration = Duration::from_secs(1);
/// How long tasks may be sent behind their times before a test says nothing about the operator.
const LATE: Duration = Duration::from_secs(2);

/// 2.4 tasks a second of 2 s are 4.8 busy slots: 60 % of two pods with four slots.
pub async fn long_a_constant_load_changes_nothing(bed: Arc<ClusterBed>) -> Result<()> {
    const WARM_UP: Duration = Duration::from_secs(60);
    const WATCHED: Duration = Duration::from_secs(300);
    let ground = bed.ground("long_a_constant_load_changes_nothing").await?;
    ground.apply(&runtime_fleet(FLEET, "constant", 4)).await?;
    ground.is_current(FLEET).await?;

    let arrivals = poisson(WARM_UP + WATCHED, 2.4, 2 * SECOND, 1);
    let traffic = Traffic::on(&bed.server.host_port(), "constant", arrivals).await?;
    let begun = Timestamp::now();
    let outcome = traffic.play().await?;
    let changes = bed.scalings((&ground.namespace, FLEET), begun)?;
    println!("{outcome:?}, replicas over time: {changes:?}");
    ensure!(outcome.latest < LATE && outcome.again == 0, "{outcome:?}");
    // What comes after the last arrival is no constant load.
    let (from, to) = (begun + WARM_UP, begun + WARM_UP + WATCHED);
    let watched: Vec<_> = changes.iter().filter(|(time, _)| (from..to).contains(time)).collect();
    ensure!(watched.len() <= 1, "a constant load changed the replicas {} times: {changes:?}", watched.len());
    // The control: the fleet follows its load.
    eventually("all is done: no pod", async || ground.settled_at(FLEET, 0).await).await
}

/// What a scaler on the backlog would take for idle.
pub async fn a_busy_queue_without_backlog_never_goes_to_zero(bed: Arc<ClusterBed>) -> Result<()> {
    const WINDOW: Duration = Duration::from_secs(5);
    const WATCHED: Duration = Duration::from_secs(45);
    let ground = bed.ground("a_busy_queue_without_backlog_never_goes_to_zero").await?;
    let mut fleet = runtime_fleet(FLEET, "busy-empty", 8);
    fleet["spec"]["scaling"] = json!({"maxReplicas": 3, "idleWindow": "5s"});
    ground.apply(&fleet).await?;
    ground.is_current(FLEET).await?;

    // Two or three tasks run at any time.
    let arrivals = regular(Duration::ZERO..Duration::from_secs(90), 2 * SECOND, 5 * SECOND);
    let traffic = Traffic::on(&bed.server.host_port(), "busy-empty", arrivals).await?;
    let queue = Queue::on(&bed.server.host_port(), "busy-empty")?;
    let begun = Timestamp::now();
    let (outcome, watched) = tokio::join!(traffic.play(), watch(&ground, &queue, WATCHED));
    let (outcome, Watched { until, longest_empty }) = (outcome?, watched?);
    ensure!(outcome.latest < LATE && outcome.again == 0, "{outcome:?}");
    ensure!(longest_empty > 4 * WINDOW, "the backlog was empty for {longest_empty:?} at a time only");
    let changes = bed.scalings((&ground.namespace, FLEET), begun)?;
    let raised = changes.iter().position(|(_, replicas)| *replicas > 0).unwrap_or(0);
    let zeros: Vec<_> = changes[raised..].iter().filter(|(at, replicas)| *replicas == 0 && *at < until).collect();
    ensure!(zeros.is_empty(), "a busy fleet was scaled to zero: {changes:?}");
    // The control: without tasks it goes there.
    eventually("all is done: no pod", async || ground.settled_at(FLEET, 0).await).await
}

struct Watched {
    until: Timestamp,
    /// The longest time for which every look at the backlog found it empty.
    longest_empty: Duration,
}

/// Looks at a fleet for a while from its first task on: a task runs at each look.
async fn watch(ground: &Ground, queue: &Queue, length: Duration) -> Result<Watched> {
    eventually("tasks run", async || running(ground).await).await?;
    let (begun, mut empty_since, mut longest_empty) = (Instant::now(), Instant::now(), Duration::ZERO);
    while begun.elapsed() < length {
        eventually("a task runs", async || running(ground).await).await?;
        if queue.backlog().await? > 0 {
            empty_since = Instant::now();
        }
        longest_empty = longest_empty.max(empty_since.elapsed());
        tokio::time::sleep(SECOND).await;
    }
    Ok(Watched { until: Timestamp::now(), longest_empty })
}

async fn running(ground: &Ground) -> Result<()> {
    let running = running_in(ground, FLEET).await?;
    ensure!(running.values().sum::<u64>() > 0, "{running:?}");
    Ok(())
}
