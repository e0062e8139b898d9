//! CPU of the container, with all the processes in it, by its control group. Only version 2 tells it here.

use std::fs;
use std::path::{Path, PathBuf};

use operator_core::contract::{METRIC_CPU_LIMIT, METRIC_CPU_SECONDS};
use prometheus::{Counter, Gauge, Registry};

const CGROUPS: &str = "/sys/fs/cgroup";

/// Metrics of the control group that this process is in.
#[derive(Clone, Debug)]
pub struct Cpu {
    folder: PathBuf,
    seconds: Counter,
    limit: Gauge,
}

impl Cpu {
    /// The metrics, if the control group tells of CPU; in the root group, which is the whole machine, it does not.
    ///
    /// # Errors
    /// Two metrics share a name; a bug.
    pub fn register(registry: &Registry) -> Result<Option<Self>, prometheus::Error> {
        let own = fs::read_to_string("/proc/self/cgroup").ok();
        let Some(folder) = own.as_deref().and_then(folder) else { return Ok(None) };
        if limit(&folder).is_none() || seconds(&folder).is_none() {
            return Ok(None);
        }
        let cpu = Self {
            folder,
            seconds: Counter::new(METRIC_CPU_SECONDS, "CPU time of the container.")?,
            limit: Gauge::new(METRIC_CPU_LIMIT, "CPUs that the container may use.")?,
        };
        registry.register(Box::new(cpu.seconds.clone()))?;
        registry.register(Box::new(cpu.limit.clone()))?;
        Ok(Some(cpu))
    }

    /// Takes the present numbers.
    pub fn refresh(&self) {
        if let (Some(seconds), Some(limit)) = (seconds(&self.folder), limit(&self.folder)) {
            self.seconds.inc_by((seconds - self.seconds.get()).max(0.0));
            self.limit.set(limit);
        }
    }
}

/// Folder of the group that `/proc/self/cgroup` names.
pub fn folder(own: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new(CGROUPS).join(path))
}

fn seconds(folder: &Path) -> Option<f64> {
    let text = fs::read_to_string(folder.join("cpu.stat")).ok()?;
    let microseconds: f64 = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?.trim().parse().ok()?;
    Some(microseconds / 1e6)
}

/// CPUs that the group may use: its quota, else those of the machine.
fn limit(folder: &Path) -> Option<f64> {
    let text = fs::read_to_string(folder.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    match (quota.parse::<f64>(), period.parse::<f64>()) {
        (Ok(quota), Ok(period)) if period > 0.0 => Some(quota / period),
        _ => std::thread::available_parallelism().ok().and_then(|cpus| u32::try_from(cpus.get()).ok()).map(f64::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_tells_its_time_and_its_quota() {
        let group = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(group.path().join(file), text).unwrap();
        assert_eq!((limit(group.path()), seconds(group.path())), (None, None), "the root group");
        write("cpu.stat", "usage_usec 2500000\nuser_usec 2000000\n");
        write("cpu.max", "150000 100000\n");
        assert_eq!((limit(group.path()), seconds(group.path())), (Some(1.5), Some(2.5)));
        write("cpu.max", "max 100000\n");
        assert!(limit(group.path()).is_some_and(|cpus| cpus >= 1.0));
    }

    #[test]
    fn only_the_unified_hierarchy_counts() {
        assert_eq!(folder("12:cpu:/a\n0::/b/c\n"), Some(PathBuf::from("/sys/fs/cgroup/b/c")));
        assert_eq!(folder("0::/\n"), Some(PathBuf::from("/sys/fs/cgroup/")));
        assert_eq!(folder("12:cpu:/a\n"), None);
    }
}
