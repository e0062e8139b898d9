//! Fleets at rest cost nothing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::bed::{OPERATOR, OPERATOR_CONTAINER};
use e2e::ground::{Ground, runtime_fleet};
use e2e::{ClusterBed, eventually};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use operator_core::checkpoint;
use operator_core::contract::RUNTIME_CONTAINER;
use operator_core::names::LEASE_NAME;
use serde_json::json;

/// Time in which all is written that something before it has caused, but checkpoints.
const QUIET: Duration = Duration::from_secs(35);
/// Time without anything to do.
const REST: Duration = Duration::from_secs(60);

/// Brings fleets to rest, and leaves them to the scenario that watches them.
pub async fn fleets_without_tasks_come_to_rest(bed: Arc<ClusterBed>) -> Result<()> {
    let ground = resting(&bed).await?;
    *bed.at_rest.lock() = Some(ground);
    Ok(())
}

async fn resting(bed: &ClusterBed) -> Result<Ground> {
    let ground = bed.ground("fleets_without_tasks_come_to_rest").await?;
    ground.apply(&runtime_fleet("at-zero", "at-zero", 2)).await?;
    let mut fleet = runtime_fleet("at-one", "at-one", 2);
    fleet["spec"]["scaling"] = json!({"minReplicas": 1, "maxReplicas": 2});
    ground.apply(&fleet).await?;
    at_rest(&ground).await?;
    Ok(ground)
}

/// Waits until nothing is left to be done, said or written down.
async fn at_rest(ground: &Ground) -> Result<()> {
    for (fleet, replicas) in [("at-zero", 0), ("at-one", 1)] {
        eventually(&format!("{fleet} is at rest"), async || {
            ground.has_condition(fleet, ("Ready", "True", "RolloutComplete")).await?;
            ground.settled_at(fleet, replicas).await
        })
        .await?;
    }
    // Numbers that change are written half a minute later.
    for (fleet, ready, reason) in [("at-zero", 0, "At zero"), ("at-one", 1, "1 replica: the minimum")] {
        eventually(&format!("the status of {fleet} says so"), async || {
            let scaling = ground.scaling(fleet).await?;
            let says = scaling.reason.as_deref().is_some_and(|why| why.starts_with(reason));
            ensure!(says && scaling.ready == Some(ready), "{scaling:?}");
            Ok(())
        })
        .await?;
    }
    // What was learned is written down once a minute at most.
    for fleet in ["at-zero", "at-one"] {
        eventually(&format!("what was learned of {fleet} is written down"), async || {
            let checkpoint = ground.api::<ConfigMap>().get_opt(&checkpoint::name(fleet)).await?;
            ensure!(checkpoint.is_some(), "no ConfigMap");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

pub async fn at_rest_the_operator_writes_nothing_but_its_lease(bed: Arc<ClusterBed>) -> Result<()> {
    let left = bed.at_rest.lock().take();
    let ground = match left {
        Some(ground) => ground,
        None => resting(&bed).await?,
    };
    at_rest(&ground).await?;
    // Other scenarios had the operator start anew, and left fleets that were still to be written of.
    eventually("what came before is written", async || {
        let last = writes(&bed)?.into_iter().map(|write| write.0).max().context("it never wrote")?;
        let quiet = Timestamp::now().duration_since(last).unsigned_abs();
        ensure!(quiet > QUIET, "something was written {quiet:?} ago");
        Ok(())
    })
    .await?;

    let pods = processes(&bed, &ground).await?;
    let (begun, before) = (Timestamp::now(), cpu_ticks(&bed, &pods).await?);
    tokio::time::sleep(REST).await;
    let after = cpu_ticks(&bed, &pods).await?;
    let writes: Vec<_> = writes(&bed)?.into_iter().filter(|write| write.0 > begun).collect();
    ensure!(writes.is_empty(), "written at rest: {writes:?}");
    let renewals = bed.writes_in(OPERATOR)?;
    let renewals = renewals.iter().filter(|write| write.name == LEASE_NAME && write.time > begun).count();
    ensure!(renewals > 10, "only {renewals} renewals of the Lease: the log does not show the operator");
    for ((pod, before), after) in pods.iter().zip(before).zip(after) {
        // The kernel counts in hundredths of a second.
        let share = (after - before) as f64 / 100.0 / REST.as_secs_f64();
        println!("{pod:?} used {:.2} % of a core", share * 100.0);
        ensure!(share < 0.1, "{pod:?} uses {:.1} % of a core at rest", share * 100.0);
    }
    Ok(())
}

/// Writes of the operator, but those to its Lease: time, verb, resource and name.
fn writes(bed: &ClusterBed) -> Result<Vec<(Timestamp, String, String, String)>> {
    let events = bed.cluster.audit_events()?;
    let by_operator = events.into_iter().filter(|event| event.user.ends_with(&format!(":{OPERATOR}")));
    let writes = by_operator.filter(|event| !matches!(event.verb.as_str(), "get" | "list" | "watch"));
    let writes = writes.filter(|event| event.name != LEASE_NAME);
    Ok(writes.map(|event| (event.time, event.verb, event.resource, event.name)).collect())
}

type Container = (String, String, &'static str);

/// Containers to be measured: namespace, pod, container.
async fn processes(bed: &ClusterBed, ground: &Ground) -> Result<Vec<Container>> {
    let operators = bed.operator_pods().await?.into_iter();
    let mut found: Vec<_> = operators.map(|pod| (OPERATOR.to_owned(), pod.name_any(), OPERATOR_CONTAINER)).collect();
    let workers = ground.pods("at-one").await?.into_iter();
    found.extend(workers.map(|pod| (ground.namespace.clone(), pod.name_any(), RUNTIME_CONTAINER)));
    Ok(found)
}

/// Time that each container has used, in the kernel's ticks.
async fn cpu_ticks(bed: &ClusterBed, containers: &[Container]) -> Result<Vec<u64>> {
    let mut ticks = Vec::new();
    for (namespace, pod, container) in containers {
        let mut sum = 0;
        for pid in bed.container_processes((namespace, pod), container).await? {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            let field = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok());
            sum += field(11).zip(field(12)).map(|(user, system)| user + system).context("no times in stat")?;
        }
        ticks.push(sum);
    }
    Ok(ticks)
}
