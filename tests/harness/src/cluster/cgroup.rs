//! The control groups of one cluster: the kubelet makes all pods' groups below one of ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::wait_until;

/// Parent of all clusters' groups.
const PARENT: &str = "temporal-worker-dev";
const CONTROLLERS: &str = "+cpu +cpuset +io +memory +pids";
const REMOVE_LIMIT: Duration = Duration::from_secs(20);

/// Makes the group of a cluster in every hierarchy. Returns its path, `/temporal-worker-dev/<name>`.
///
/// # Errors
/// Control groups are not mounted, or may not be written.
pub fn create(name: &str) -> Result<String> {
    let hierarchies = hierarchies()?;
    if hierarchies.is_empty() {
        bail!("no control groups are mounted (/proc/mounts): mount them at /sys/fs/cgroup");
    }
    for hierarchy in &hierarchies {
        let mut group = hierarchy.root.clone();
        for part in [PARENT, name] {
            let parent = group.clone();
            group.push(part);
            hierarchy.make(&parent, &group).with_context(|| format!("make the control group {}", group.display()))?;
        }
        // The kubelet hands the controllers on to groups below this one itself.
    }
    Ok(format!("/{PARENT}/{name}"))
}

/// Ends what still runs in a cluster's group and removes it with all groups below.
///
/// # Errors
/// It is still there after twenty seconds.
pub fn remove(group: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let path = hierarchy.root.join(group.trim_start_matches('/'));
        let gone = wait_until(REMOVE_LIMIT, || {
            kill_members(&path);
            remove_tree(&path);
            !path.exists()
        });
        if !gone {
            bail!("the control group {} can't be removed: see its cgroup.procs", path.display());
        }
        // Succeeds when no other cluster has a group in it.
        fs::remove_dir(hierarchy.root.join(PARENT)).ok();
    }
    Ok(())
}

struct Hierarchy {
    root: PathBuf,
    unified: bool,
}

impl Hierarchy {
    fn make(&self, parent: &Path, group: &Path) -> Result<()> {
        if self.unified && parent.join("cgroup.subtree_control").exists() {
            // A hybrid machine's unified hierarchy has no controllers to hand on.
            let available = fs::read_to_string(parent.join("cgroup.controllers"))?;
            for controller in
                CONTROLLERS.split(' ').filter(|name| available.split_whitespace().any(|have| have == &name[1..]))
            {
                fs::write(parent.join("cgroup.subtree_control"), controller)
                    .with_context(|| format!("hand {controller} on to groups below {}", parent.display()))?;
            }
        }
        fs::create_dir_all(group)?;
        // In version 1 a new cpuset group is empty, and no process may enter an empty one.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if !self.unified && parent.join(file).exists() {
                fs::write(group.join(file), fs::read(parent.join(file))?)?;
            }
        }
        Ok(())
    }
}

fn hierarchies() -> Result<Vec<Hierarchy>> {
    let mounts = fs::read_to_string("/proc/mounts").context("read /proc/mounts")?;
    Ok(parse_mounts(&mounts))
}

fn parse_mounts(mounts: &str) -> Vec<Hierarchy> {
    let hierarchy = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        let unified = match *fields.get(2)? {
            "cgroup" => false,
            "cgroup2" => true,
            _ => return None,
        };
        Some(Hierarchy { root: PathBuf::from(fields[1]), unified })
    };
    mounts.lines().filter_map(hierarchy).collect()
}

fn kill_members(group: &Path) {
    for pid in fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default().lines() {
        // A 0 stands for a process of another process namespace.
        if let Some(pid) = pid.parse().ok().filter(|pid| *pid > 0) {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
    }
    for_each_below(group, kill_members);
}

fn remove_tree(group: &Path) {
    for_each_below(group, remove_tree);
    fs::remove_dir(group).ok();
}

fn for_each_below(group: &Path, act: fn(&Path)) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        act(&entry.path());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found_in_the_list_of_mounts() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let found: Vec<_> = parse_mounts(mounts).into_iter().map(|each| (each.root, each.unified)).collect();
        assert_eq!(found, [("/sys/fs/cgroup/cpu".into(), false), ("/sys/fs/cgroup/unified".into(), true)]);
    }
}
