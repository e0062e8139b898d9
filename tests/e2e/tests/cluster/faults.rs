//! The leader is killed while there is much to do, and the Temporal server is cut off while much is being done.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::bed::{OPERATOR, OPERATOR_CONTAINER, TAKEOVER};
use e2e::ground::{Ground, TEMPORAL_NAMESPACE, is_ready, runtime_fleet};
use e2e::tasks::{Burst, Order, Tasks};
use e2e::wait::within;
use e2e::{ClusterBed, eventually};
use harness::audit;
use harness::{TemporalOptions, TemporalServer};
use jiff::Timestamp;
use kube::ResourceExt as _;
use nix::sys::signal::Signal;
use serde_json::json;

/// How long the server is away.
const CUT: Duration = Duration::from_secs(120);

/// Falls of the replicas of a namespace's Deployments in a span of time.
fn falls(bed: &ClusterBed, namespace: &str, span: (Timestamp, Timestamp)) -> Result<Vec<audit::Decrease>> {
    let mut falls = audit::decreases(&bed.writes_in(namespace)?);
    falls.retain(|fall| fall.time > span.0 && fall.time < span.1);
    Ok(falls)
}

pub async fn the_leader_is_killed_with_work_undone(bed: Arc<ClusterBed>) -> Result<()> {
    const FLEET: &str = "orders";
    let ground = bed.ground("the_leader_is_killed_with_work_undone").await?;
    let mut fleet = runtime_fleet(FLEET, "killed-leader", 2);
    // Longer than any task: pods that the tasks needed stay until all is done.
    fleet["spec"]["scaling"] = json!({"maxReplicas": 8, "idleWindow": "30s"});
    ground.apply(&fleet).await?;
    ground.is_current(FLEET).await?;

    let tasks = bed.tasks()?;
    let begun = Timestamp::now();
    let (bursts, needed) = leave_work_undone(&ground, &tasks, FLEET).await?;
    let (holder, pod) = bed.leader().await?;
    // Otherwise the container starts again within a second, and is a candidate like the standby.
    let no_restart = PausedKubelet::of(&bed)?;
    let killed_at = Instant::now();
    let killed = bed.cluster.signal_container((OPERATOR, &pod), OPERATOR_CONTAINER, Signal::SIGKILL).await?;
    ensure!(killed > 0, "nothing was killed");
    ensure!(bed.leader().await?.0 == holder, "another replica than the one that was killed held the Lease");
    let (waiting, replicas) = (waiting(&tasks, &bursts).await?, ground.replicas(FLEET).await?);
    ensure!(waiting > 0 && replicas < needed, "at the kill: {waiting} wait, {replicas} of {needed} replicas");

    let (new, new_pod) = within(TAKEOVER, "another replica leads", async || {
        let leader = bed.leader().await?;
        ensure!(leader.0 != holder, "{holder} still does");
        Ok(leader)
    })
    .await?;
    println!("{new} leads {:.1} s after {holder} was killed", killed_at.elapsed().as_secs_f64());
    eventually("the new leader goes on", async || {
        let replicas = ground.replicas(FLEET).await?;
        ensure!(replicas >= needed, "{replicas} of {needed} replicas");
        Ok(())
    })
    .await?;
    ensure!(new_pod != pod, "{new_pod} was killed, and leads");
    drop(no_restart);
    for burst in &bursts {
        tasks.finish_once_each(burst, Duration::from_secs(150)).await?;
    }
    let mut falls = falls(&bed, &ground.namespace, (begun, Timestamp::now()))?;
    // One pod more, for the margin, may come and go.
    falls.retain(|fall| fall.to < i64::from(needed));
    ensure!(falls.is_empty(), "replicas fell below {needed} while work was left: {falls:?}");
    eventually("the new leader takes the fleet to zero", async || ground.settled_at(FLEET, 0).await).await
}

/// Starts no container anew until it is dropped.
struct PausedKubelet(Arc<ClusterBed>);

impl PausedKubelet {
    fn of(bed: &Arc<ClusterBed>) -> Result<Self> {
        bed.cluster.signal_component("kubelet", Signal::SIGSTOP)?;
        Ok(Self(bed.clone()))
    }
}

impl Drop for PausedKubelet {
    fn drop(&mut self) {
        if let Err(error) = self.0.cluster.signal_component("kubelet", Signal::SIGCONT) {
            eprintln!("the kubelet stays paused: {error:#}");
        }
    }
}

/// Gives the fleet more to do, step by step, until it is seen with tasks that wait and fewer replicas than they need.
async fn leave_work_undone(ground: &Ground, tasks: &Tasks, fleet: &str) -> Result<(Vec<Burst>, i32)> {
    let mut bursts = Vec::new();
    for needed in [2, 4, 6, 8] {
        // Two more pods with two slots each.
        bursts.push(tasks.start(&Order::work("killed-leader", 4, 25.0)).await?);
        let burst = bursts.last().context("no burst")?;
        eventually("the tasks are scheduled", async || {
            let pending = tasks.pending(burst).await?;
            ensure!(pending.waiting + pending.running == 4, "{pending:?}");
            Ok(())
        })
        .await?;
        // The first step starts pods, so that the others are seen by the statistics of a running fleet.
        let replicas = ground.replicas(fleet).await?;
        if needed > 2 && waiting(tasks, &bursts).await? > 0 && replicas < needed {
            return Ok((bursts, needed));
        }
        eventually("the fleet follows", async || {
            let replicas = ground.replicas(fleet).await?;
            ensure!(replicas >= needed, "{replicas} of {needed} replicas");
            Ok(())
        })
        .await?;
    }
    anyhow::bail!("the operator was faster than every step")
}

async fn waiting(tasks: &Tasks, bursts: &[Burst]) -> Result<usize> {
    let mut sum = 0;
    for burst in bursts {
        sum += tasks.pending(burst).await?.waiting;
    }
    Ok(sum)
}

async fn ready_pods(ground: &Ground, fleet: &str) -> Result<BTreeSet<String>> {
    let pods = ground.pods(fleet).await?;
    Ok(pods.iter().filter(|pod| is_ready(pod)).map(|pod| pod.name_any()).collect())
}

/// While the server is cut off: the status says it, and the pods stay Ready.
async fn says_it_and_stays_ready(
    ground: &Ground,
    fleet: &str,
    (pods, cut): (&BTreeSet<String>, Instant),
) -> Result<()> {
    let message = within(CUT, "the status says it", async || {
        ground.has_condition(fleet, ("Ready", "False", "TemporalClientCreationFailed")).await
    })
    .await?;
    ensure!(message.contains("does not answer") && message.contains("nothing is scaled down"), "{message}");
    while cut.elapsed() < CUT {
        let ready = ready_pods(ground, fleet).await?;
        ensure!(pods.is_subset(&ready), "of {pods:?} only {ready:?} are Ready after {:?}", cut.elapsed());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let stalled = ground.condition(fleet, "Stalled").await;
    ensure!(stalled.is_err(), "what heals alone is not Stalled: {stalled:?}");
    Ok(())
}

pub async fn the_server_is_cut_off_in_a_burst(bed: Arc<ClusterBed>) -> Result<()> {
    const FLEET: &str = "orders";
    let server = TemporalServer::start_in(&bed.cluster, TemporalOptions::default()).await?;
    let namespace = "the-server-is-cut-off-in-a-burst";
    let ground = Ground::with_connection(bed.client.clone(), namespace, &server.host_port()).await?;
    ground.apply(&runtime_fleet(FLEET, "cut-off", 8)).await?;
    ground.is_current(FLEET).await?;

    // Tasks end while the server is away, and afterwards; and some have no slot yet.
    let tasks = Tasks::on(&server.host_port(), TEMPORAL_NAMESPACE)?;
    let mut order = Order::work("cut-off", 40, 30.0);
    order.inputs[20..].fill(json!(150.0));
    let running = tasks.start(&order).await?;
    eventually("every slot of five Ready pods runs a task", async || {
        let pending = tasks.pending(&running).await?;
        let ready = ready_pods(&ground, FLEET).await?.len();
        ensure!((pending.running, ready) == (40, 5), "{pending:?}, {ready} pods are Ready");
        Ok(())
    })
    .await?;
    let waiting = tasks.start(&Order::work("cut-off", 8, 5.0)).await?;
    eventually("eight tasks wait", async || {
        let pending = tasks.pending(&waiting).await?;
        ensure!(pending.waiting == 8, "{pending:?}");
        Ok(())
    })
    .await?;
    let pods = ready_pods(&ground, FLEET).await?;
    server.set_cut_off(true)?;
    let (cut_at, cut) = (Timestamp::now(), Instant::now());
    let pending = tasks.pending(&running).await?;
    ensure!(pending.running >= 30, "{pending:?} when the server was cut off");
    eventually("packets are dropped", async || {
        let dropped = server.dropped_packets()?;
        ensure!(dropped > 0, "{dropped} packets");
        Ok(())
    })
    .await?;
    says_it_and_stays_ready(&ground, FLEET, (&pods, cut)).await?;
    let pending = tasks.pending(&running).await?;
    ensure!(pending.running >= 30, "{pending:?}: the server was not cut off");

    let joined_at = Timestamp::now();
    server.set_cut_off(false)?;
    for burst in [&running, &waiting] {
        let activities = tasks.finish(burst, Duration::from_secs(240)).await?;
        ensure!(activities.len() == burst.count, "{} activities", activities.len());
        for (id, activity) in activities {
            ensure!(activity.result.is_some(), "activity {id} was lost: {activity:?}");
            let explained = activity.attempt == 1 || activity.cause.is_some();
            ensure!(explained, "activity {id} ran again without a cause: {activity:?}");
        }
    }
    let falls = falls(&bed, namespace, (cut_at, joined_at))?;
    ensure!(falls.is_empty(), "replicas fell: {falls:?}");
    eventually("it is ready again", async || {
        ground.has_condition(FLEET, ("Ready", "True", "RolloutComplete")).await.map(|_| ())
    })
    .await?;
    eventually("all is done: no pod", async || ground.settled_at(FLEET, 0).await).await
}
