//! The operator's replica that leads: its metrics, and what its process uses.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::process;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt as _};
use nix::unistd::{SysconfVar, sysconf};

use crate::stage::OPERATOR;

const LEADS: &str = "temporal_worker_operator_leader 1";
/// Counts the live readings of Task Queues of fleets at zero, which start when a fleet has gone there.
const LIVE_READINGS: &str = "temporal_worker_operator_temporal_live_sweep_seconds_count";
const CALLS: &str = "temporal_worker_operator_temporal_calls_total";
const CONTAINER: &str = "operator";
const SCRAPE_LIMIT: Duration = Duration::from_secs(5);
const SWEEP_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(250);

/// The operator's replica that leads.
pub struct Leader {
    /// Name of its pod.
    pub pod: String,
    /// Process in this machine's namespace.
    pub pid: i32,
    url: String,
    http: reqwest::Client,
}

/// What a process uses at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Memory that is resident, in bytes: all of it, and the parts that are its own and that are mapped files.
    pub resident: u64,
    /// Own memory.
    pub anonymous: u64,
    /// Mapped files: the program and its libraries.
    pub files: u64,
    /// Threads.
    pub threads: u64,
    /// What its control group is charged, without file pages that can be dropped: what `kubectl top` shows.
    pub working_set: Option<u64>,
    /// Time on a processor so far.
    pub cpu: Duration,
}

impl Leader {
    /// Finds it.
    ///
    /// # Errors
    /// No replica says that it leads, or its process is not found.
    pub async fn find(client: &Client) -> Result<Self> {
        let http = reqwest::Client::builder().timeout(SCRAPE_LIMIT).no_proxy().build()?;
        let pods = Api::<Pod>::namespaced(client.clone(), OPERATOR).list(&ListParams::default()).await?;
        for pod in pods.items {
            let Some(address) = pod.status.as_ref().and_then(|status| status.pod_ip.clone()) else { continue };
            let url = format!("http://{address}:8080/metrics");
            let page = scrape(&http, &url).await.unwrap_or_default();
            if page.lines().any(|line| line == LEADS) {
                return Ok(Self { pid: process_of(&pod)?, pod: pod.name_any(), url, http });
            }
        }
        anyhow::bail!("no replica of the operator leads")
    }

    /// Waits until the Task Queue of a fleet at zero, of which there is one, was read live `readings` more times.
    ///
    /// # Errors
    /// It is not within a minute.
    pub async fn wait_sweeps(&self, readings: f64) -> Result<()> {
        let end = Instant::now() + SWEEP_LIMIT;
        let first = self.metric(LIVE_READINGS).await?;
        while self.metric(LIVE_READINGS).await? < first + readings {
            ensure!(Instant::now() < end, "pod {} does not read the Task Queue of the fleet at zero", self.pod);
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Calls to Temporal so far.
    ///
    /// # Errors
    /// Its metrics can't be read.
    pub async fn temporal_calls(&self) -> Result<f64> {
        self.metric(CALLS).await
    }

    /// Sum of a metric over its labels.
    async fn metric(&self, name: &str) -> Result<f64> {
        Ok(sum(&scrape(&self.http, &self.url).await?, name))
    }

    /// What its process uses now.
    ///
    /// # Errors
    /// It has ended.
    pub fn usage(&self) -> Result<Usage> {
        let read = |file: &str| {
            let path = format!("/proc/{}/{file}", self.pid);
            fs::read_to_string(&path).with_context(|| format!("read {path}: has pod {} ended?", self.pod))
        };
        let (status, stat) = (read("status")?, read("stat")?);
        let field = |name: &str| number(&status, name).with_context(|| format!("no {name} of process {}", self.pid));
        let ticks = sysconf(SysconfVar::CLK_TCK)?.context("no clock tick")?;
        Ok(Usage {
            resident: field("VmRSS")? * 1024,
            anonymous: field("RssAnon")? * 1024,
            files: field("RssFile")? * 1024,
            threads: field("Threads")?,
            working_set: read("cgroup").ok().and_then(|groups| working_set(&groups)),
            cpu: Duration::from_secs_f64(cpu_ticks(&stat).context("no processor time")? / ticks as f64),
        })
    }
}

async fn scrape(http: &reqwest::Client, url: &str) -> Result<String> {
    Ok(http.get(url).send().await?.error_for_status()?.text().await?)
}

/// Sum of a metric over all its labels; a name may begin the labels.
pub fn sum(page: &str, name: &str) -> f64 {
    let values = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        (rest.starts_with(['{', ' '])).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
    });
    values.sum()
}

/// The only process of the operator's container.
fn process_of(pod: &Pod) -> Result<i32> {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()).into_iter().flatten();
    let id = statuses.filter(|status| status.name == CONTAINER).find_map(|status| status.container_id.as_deref());
    let id = id.and_then(|id| id.strip_prefix("containerd://"));
    let id = id.with_context(|| format!("pod {} has no container {CONTAINER}", pod.name_any()))?;
    match process::in_cgroup(id)[..] {
        [pid] => Ok(pid),
        ref pids => anyhow::bail!("container {CONTAINER} of pod {} has {} processes", pod.name_any(), pids.len()),
    }
}

fn number(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// User and system time; the program's name before them may hold anything.
fn cpu_ticks(stat: &str) -> Option<f64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    Some(fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?)
}

/// From the lines of `/proc/<pid>/cgroup`, version 1 or 2.
fn working_set(groups: &str) -> Option<u64> {
    let (folder, usage, inactive) = memory_group(groups)?;
    let charged: u64 = fs::read_to_string(folder.join(usage)).ok()?.trim().parse().ok()?;
    let stat = fs::read_to_string(folder.join("memory.stat")).ok()?;
    let inactive = stat.lines().find_map(|line| line.strip_prefix(inactive)?.trim().parse::<u64>().ok())?;
    Some(charged.saturating_sub(inactive))
}

fn memory_group(groups: &str) -> Option<(PathBuf, &'static str, &'static str)> {
    let below = |root: &str, path: &str| Path::new(root).join(path.trim_start_matches('/'));
    groups.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        match controllers {
            "" => {
                let folder = below("/sys/fs/cgroup", path);
                folder.join("memory.current").exists().then_some((folder, "memory.current", "inactive_file "))
            }
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                Some((below("/sys/fs/cgroup/memory", path), "memory.usage_in_bytes", "total_inactive_file "))
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels_and_others_with_the_same_start_are_not() {
        let page =
            "# HELP calls_total Calls\ncalls_total{method=\"A\"} 2\ncalls_total{method=\"B\"} 3\ncalls_totally 9\n";
        assert_eq!(sum(page, "calls_total"), 5.0);
        assert_eq!(sum("calls_total 4\n", "calls_total"), 4.0);
    }

    #[test]
    fn memory_and_processor_time_are_read_as_the_kernel_writes_them() {
        assert_eq!(number("VmRSS:\t   12345 kB\nThreads:\t4\n", "VmRSS"), Some(12345));
        assert_eq!(number("VmRSS:\t   12345 kB\nThreads:\t4\n", "Threads"), Some(4));
        assert_eq!(cpu_ticks("42 (a b) c) S 7 42 42 0 -1 4194560 1 2 3 4 50 6 7 8 20 0"), Some(56.0));
    }

    #[test]
    fn the_control_group_of_memory_is_found_in_version_1() {
        let groups = "12:cpu,cpuacct:/a/b\n4:memory:/kubepods/pod1/c\n0::/\n";
        let (folder, ..) = memory_group(groups).unwrap();
        assert_eq!(folder, Path::new("/sys/fs/cgroup/memory/kubepods/pod1/c"));
    }
}
