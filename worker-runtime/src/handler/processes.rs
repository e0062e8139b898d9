//! Processes, as `/proc` tells of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use parking_lot::Mutex;

/// List of the children of a thread. Kernels without `CONFIG_PROC_CHILDREN` have none.
const OWN_CHILDREN: &str = "/proc/thread-self/children";
/// How long what was seen counts as the present.
const FRESH: Duration = Duration::from_millis(100);

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) id: Pid,
    parent: Pid,
    /// Number of its threads.
    pub(super) threads: u64,
    /// Memory that it has in RAM, in bytes, with what it shares with others.
    pub(super) resident: u64,
}

impl Process {
    fn read(id: i32) -> Option<Self> {
        let status = fs::read(format!("/proc/{id}/status")).ok()?;
        Self::parse(Pid::from_raw(id), &String::from_utf8_lossy(&status))
    }

    /// A process that has ended, and was not collected, has no memory.
    fn parse(id: Pid, status: &str) -> Option<Self> {
        let parent = Pid::from_raw(number(status, "PPid:")?.try_into().ok()?);
        let resident = number(status, "VmRSS:").unwrap_or_default() * 1024;
        Some(Self { id, parent, threads: number(status, "Threads:")?, resident })
    }

    /// Memory that it has in RAM, in bytes; of what several processes share, each has its part.
    pub(super) fn part_of_memory(&self) -> u64 {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.id));
        rollup.ok().and_then(|rollup| number(&rollup, "Pss:")).map_or(self.resident, |kib| kib * 1024)
    }
}

/// The number behind a name at the start of a line.
fn number(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_ascii_whitespace().next()?.parse().ok()
}

/// All processes, looked at once for all who ask at about the same time.
#[derive(Debug, Default)]
pub(super) struct Snapshot(Mutex<Option<(Instant, Arc<[Process]>)>>);

impl Snapshot {
    /// The processes as they were at most a tenth of a second ago.
    pub(super) fn take(&self) -> Arc<[Process]> {
        let mut kept = self.0.lock();
        match &*kept {
            Some((at, processes)) if at.elapsed() < FRESH => processes.clone(),
            _ => {
                let processes: Arc<[Process]> = all().collect();
                *kept = Some((Instant::now(), processes.clone()));
                processes
            }
        }
    }
}

fn all() -> impl Iterator<Item = Process> {
    let ids = fs::read_dir("/proc").into_iter().flatten().flatten();
    ids.filter_map(|entry| Process::read(entry.file_name().to_str()?.parse().ok()?))
}

/// `roots` and all that descend from them.
pub(super) fn with_descendants(processes: &[Process], roots: impl IntoIterator<Item = Pid>) -> BTreeSet<Pid> {
    let mut children = BTreeMap::<Pid, Vec<Pid>>::new();
    for process in processes {
        children.entry(process.parent).or_default().push(process.id);
    }
    let (mut found, mut new) = (BTreeSet::new(), Vec::from_iter(roots));
    while let Some(process) = new.pop() {
        if found.insert(process) {
            new.extend(children.get(&process).into_iter().flatten());
        }
    }
    found
}

/// The children of processes.
pub(super) fn children(parents: &BTreeSet<Pid>) -> Vec<Pid> {
    if Path::new(OWN_CHILDREN).exists() { listed_children(parents) } else { searched_children(parents) }
}

/// By the lists of all their threads.
fn listed_children(parents: &BTreeSet<Pid>) -> Vec<Pid> {
    let threads = parents.iter().filter_map(|parent| fs::read_dir(format!("/proc/{parent}/task")).ok());
    let lists =
        threads.flatten().flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let parse = |list: String| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>();
    lists.flat_map(parse).map(Pid::from_raw).collect()
}

/// By the parents of all processes.
fn searched_children(parents: &BTreeSet<Pid>) -> Vec<Pid> {
    all().filter(|process| parents.contains(&process.parent)).map(|process| process.id).collect()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_status_tells_parent_threads_and_memory() {
        let status = "Name:\tPPid: 9\\n\nState:\tS (sleeping)\nPid:\t42\nPPid:\t7\nVmRSS:\t    12 kB\nThreads:\t3\n";
        let read = |status: &str| Process::parse(Pid::from_raw(42), status);
        let process = Process { id: Pid::from_raw(42), parent: Pid::from_raw(7), threads: 3, resident: 12 * 1024 };
        assert_eq!(read(status), Some(process));
        assert_eq!(read("PPid:\t7\nThreads:\t1\n").unwrap().resident, 0, "it has ended");
        assert_eq!([read(""), read("PPid:\tx\nThreads:\t1\n"), read("Threads:\t1\n")], [None; 3]);
    }

    #[test]
    fn children_are_found_with_and_without_the_lists_of_the_kernel() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let id = Pid::from_raw(child.id().cast_signed());
        let own = BTreeSet::from([Pid::this()]);
        assert!(searched_children(&own).contains(&id) && children(&own).contains(&id));
        assert!(!searched_children(&BTreeSet::from([id])).contains(&id));
        let found: Vec<_> = all().collect();
        assert!(with_descendants(&found, [Pid::this()]).is_superset(&[Pid::this(), id].into()));
        assert_eq!(with_descendants(&found, [id]), [id].into());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!searched_children(&own).contains(&id));
    }
}
