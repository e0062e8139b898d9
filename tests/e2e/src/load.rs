//! What the pods of a fleet do, by their own word; and pods whose word the operator can't get.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use operator_core::contract::{METRIC_SLOTS_USED, METRICS_PORT};

use crate::bed::ClusterBed;
use crate::ground::Ground;
use crate::tasks::{Burst, Tasks};
use crate::wait::eventually;

/// Tasks that run in each pod that is not being deleted, by the pods' own metrics.
///
/// # Errors
/// A pod does not tell.
pub async fn running_in(ground: &Ground, fleet: &str) -> Result<BTreeMap<String, u64>> {
    let mut running = BTreeMap::new();
    for pod in ground.pods(fleet).await?.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        running.insert(pod.name_any(), running_in_pod(pod).await?);
    }
    Ok(running)
}

/// Tasks that run in a pod, by its own metrics.
///
/// # Errors
/// It does not tell.
pub async fn running_in_pod(pod: &Pod) -> Result<u64> {
    Ok(metric_of(pod, METRICS_PORT, METRIC_SLOTS_USED).await? as u64)
}

/// The sum of a metric's series in a pod.
///
/// # Errors
/// It does not tell.
pub async fn metric_of(pod: &Pod, port: u16, name: &str) -> Result<f64> {
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).context("a pod without address")?;
    let page = reqwest::get(format!("http://{address}:{port}/metrics")).await?.text().await?;
    let series = page.lines().filter(|line| line.starts_with(name));
    Ok(series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

/// Waits until all tasks of a burst run.
///
/// # Errors
/// They don't.
pub async fn all_run(tasks: &Tasks, burst: &Burst) -> Result<()> {
    eventually("all tasks run", async || {
        let pending = tasks.pending(burst).await?;
        ensure!(pending.running == burst.count, "{pending:?}");
        Ok(())
    })
    .await
}

/// Packets of the operator to a fleet's metrics vanish, as behind a NetworkPolicy, until this value is dropped.
pub struct CutMetrics {
    /// A process of each pod.
    pids: Vec<i32>,
}

const TABLE: &str = "inet metrics-cut";

impl CutMetrics {
    /// Cuts off the metrics of every pod that a fleet has now. Its other ports, and everybody else, are left alone.
    ///
    /// # Errors
    /// A pod has no process, or the packet filter refuses.
    pub async fn of(bed: &ClusterBed, ground: &Ground, (fleet, container): (&str, &str)) -> Result<Self> {
        let operators = bed.operator_pods().await?;
        let addresses = operators.iter().filter_map(|pod| pod.status.as_ref()?.pod_ip.clone());
        let addresses = addresses.collect::<Vec<_>>().join(", ");
        let rule = format!("ip saddr {{ {addresses} }} tcp dport {METRICS_PORT} counter drop;");
        let hook = "type filter hook input priority 0;";
        let mut cut = Self { pids: Vec::new() };
        for pod in ground.pods(fleet).await? {
            let name = pod.name_any();
            let processes = bed.container_processes((&ground.namespace, &name), container).await?;
            let pid = *processes.first().with_context(|| format!("pod {name} has no process"))?;
            cut.pids.push(pid);
            nft(pid, &format!("table {TABLE} {{ chain from_operator {{ {hook} {rule} }}; }}"))?;
        }
        ensure!(!cut.pids.is_empty(), "fleet {fleet} has no pod");
        Ok(cut)
    }

    /// Packets that have vanished.
    ///
    /// # Errors
    /// A pod is gone.
    pub fn dropped_packets(&self) -> Result<u64> {
        let mut sum = 0;
        for pid in &self.pids {
            let listing = nft(*pid, &format!("list table {TABLE}"))?;
            let counts = listing.split("counter packets ").skip(1);
            sum += counts.filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok()).sum::<u64>();
        }
        Ok(sum)
    }
}

impl Drop for CutMetrics {
    fn drop(&mut self) {
        for pid in &self.pids {
            // A pod that is gone has taken its rules along.
            let _ = nft(*pid, &format!("delete table {TABLE}"));
        }
    }
}

/// Runs a command of the packet filter in the network of a process.
fn nft(pid: i32, command: &str) -> Result<String> {
    let output = Command::new("nsenter").args(["--target", &pid.to_string(), "--net", "nft", command]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "nft {command:?} in the network of process {pid}: {}", said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
