//! Control groups of the runtime's own, version 2: one for each run of a handler's program, where it may make them.
//!
//! A group with processes can't hand controllers on to groups below it, so the runtime first moves into one of those itself.
//! A [small program](LAUNCHER) enters the group and becomes the handler's program there, so all that it starts is in there too, whatever it does to its session,
//! its parent or its environment.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use nix::unistd::Pid;
use tokio::process::Command;

use super::limits::{Limit, Limits};
use crate::cpu;

/// Group that the runtime moves into.
const LEAF: &str = "runtime";
/// What enters the group of a run, beside the runtime's own program.
const LAUNCHER: &str = "enter-group";

/// Why there are no control groups.
#[derive(Debug, thiserror::Error)]
pub(super) enum GroupsError {
    #[error("/proc/self/cgroup names no group of version 2")]
    Version,
    #[error("{} is no group of version 2 below the root", .0.display())]
    Root(PathBuf),
    #[error("{}: {error}", path.display())]
    System { path: PathBuf, error: io::Error },
    #[error("the program {LAUNCHER:?}, which enters them, is not beside the runtime's own, in {}", .0.display())]
    Launcher(PathBuf),
}

/// Which limits the kernel holds a run to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Holds {
    pub(super) memory: bool,
    pub(super) pids: bool,
}

/// Where the groups of runs are made.
#[derive(Debug)]
pub(super) struct Groups {
    own: PathBuf,
    launcher: PathBuf,
    pub(super) holds: Holds,
}

/// The group of a run, removed when dropped if nothing runs in it.
#[derive(Debug)]
pub(super) struct Group {
    folder: PathBuf,
    launcher: PathBuf,
    holds: Holds,
}

impl Groups {
    /// Moves this process into a group below its own, and takes the controllers that it can have.
    ///
    /// # Errors
    /// It may make no group.
    pub(super) fn open() -> Result<Self, GroupsError> {
        let launcher = launcher()?;
        let own = fs::read_to_string("/proc/self/cgroup").ok();
        let own = own.as_deref().and_then(cpu::folder).ok_or(GroupsError::Version)?;
        // The root group, which is the machine's, has no such file.
        if !own.join("cgroup.events").exists() {
            return Err(GroupsError::Root(own));
        }
        let leaf = own.join(LEAF);
        let failed = |path: &Path, error| GroupsError::System { path: path.to_owned(), error };
        match fs::create_dir(&leaf) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(&leaf, error)),
            _ => write(&leaf.join("cgroup.procs"), "0").map_err(|error| failed(&leaf, error))?,
        }
        let take = |controller| write(&own.join("cgroup.subtree_control"), controller).is_ok();
        let holds = Holds { memory: take("+memory"), pids: take("+pids") };
        Ok(Self { own, launcher, holds })
    }

    /// Makes the group of a run.
    ///
    /// # Errors
    /// The system said no.
    pub(super) fn make(&self, mark: &str, limits: Limits) -> io::Result<Group> {
        let folder = self.own.join(format!("run-{mark}"));
        let group = Group { folder, launcher: self.launcher.clone(), holds: self.holds };
        fs::create_dir(&group.folder)?;
        group.limit(limits)?;
        Ok(group)
    }
}

impl Group {
    /// Starts a program in it, with the arguments that are added.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(&self.launcher);
        command.arg(&self.folder).arg(program);
        command
    }

    /// Which limits the kernel holds it to.
    pub(super) fn holds(&self) -> Holds {
        self.holds
    }

    fn limit(&self, limits: Limits) -> io::Result<()> {
        if let Some(memory) = limits.memory.filter(|_| self.holds.memory) {
            self.set("memory.max", &memory.to_string())?;
            // Without the rest, half a program would go on.
            self.set("memory.oom.group", "1")?;
            // There is no such file where swap is not counted.
            match self.set("memory.swap.max", "0") {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        match limits.pids.filter(|_| self.holds.pids) {
            Some(pids) => self.set("pids.max", &pids.to_string()),
            None => Ok(()),
        }
    }

    fn set(&self, file: &str, value: &str) -> io::Result<()> {
        write(&self.folder.join(file), value)
    }

    /// The processes in it.
    pub(super) fn processes(&self) -> BTreeSet<Pid> {
        let list = fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        list.lines().filter_map(|id| id.parse().ok()).map(Pid::from_raw).collect()
    }

    /// The limit of the kernel that it ran into.
    pub(super) fn exceeded(&self, limits: Limits) -> Option<Limit> {
        // A process may also be killed for want of memory in the whole container: then this group's limit was not reached.
        let killed = || ["oom", "oom_kill"].iter().all(|event| self.counted("memory.events", event));
        let memory = limits.memory.filter(|_| self.holds.memory && killed());
        let pids = || limits.pids.filter(|_| self.holds.pids && self.counted("pids.events", "max"));
        memory.map(Limit::Memory).or_else(|| pids().map(Limit::Pids))
    }

    /// Whether an event of a file happened.
    fn counted(&self, file: &str, event: &str) -> bool {
        let events = fs::read_to_string(self.folder.join(file)).unwrap_or_default();
        let count = events.lines().find_map(|line| line.strip_prefix(event)?.strip_prefix(' '));
        count.is_some_and(|count| count.trim() != "0")
    }

    /// Kills all that is in it at once. Says whether the kernel can (since 5.14).
    pub(super) fn kill(&self) -> bool {
        self.set("cgroup.kill", "1").is_ok()
    }

    /// Removes it, once nothing runs in it. Says whether it is gone.
    pub(super) fn remove(&self) -> bool {
        fs::remove_dir(&self.folder).is_ok() || !self.folder.exists()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The file of the launcher.
fn launcher() -> Result<PathBuf, GroupsError> {
    let system = |error| GroupsError::System { path: "/proc/self/exe".into(), error };
    let own = std::env::current_exe().map_err(system)?;
    let launcher = own.with_file_name(LAUNCHER);
    if launcher.is_file() { Ok(launcher) } else { Err(GroupsError::Launcher(own.with_file_name(""))) }
}

/// Writes to a file that is there; where there is none, nothing is made.
fn write(path: &Path, value: &str) -> io::Result<()> {
    io::Write::write_all(&mut fs::OpenOptions::new().write(true).open(path)?, value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Holds = Holds { memory: true, pids: true };

    fn group(holds: Holds, files: &[(&str, &str)]) -> (tempfile::TempDir, Group) {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in files {
            fs::write(folder.path().join(file), text).unwrap();
        }
        let group = Group { folder: folder.path().to_owned(), launcher: PathBuf::new(), holds };
        (folder, group)
    }

    #[test]
    fn a_run_is_limited_by_what_the_kernel_holds() {
        let limits = Limits { memory: Some(4096), pids: Some(7) };
        let files = ["memory.max", "memory.oom.group", "pids.max"].map(|file| (file, ""));
        let (folder, group_of_both) = group(BOTH, &files);
        group_of_both.limit(limits).unwrap();
        let read = |file| fs::read_to_string(folder.path().join(file)).unwrap();
        assert_eq!(files.map(|(file, _)| read(file)), ["4096", "1", "7"]);
        assert!(!folder.path().join("memory.swap.max").exists(), "swap is not counted here");
        assert!(group(BOTH, &[]).1.limit(limits).is_err(), "its files are missing");
        group(Holds::default(), &[]).1.limit(limits).unwrap();
    }

    #[test]
    fn what_the_kernel_counted_says_which_limit_a_run_ran_into() {
        let limits = Limits { memory: Some(4096), pids: Some(7) };
        let exceeded =
            |holds, memory, pids| group(holds, &[("memory.events", memory), ("pids.events", pids)]).1.exceeded(limits);
        let calm = "low 0\nhigh 0\nmax 31\noom 0\noom_kill 0\noom_group_kill 0\n";
        assert_eq!(exceeded(BOTH, calm, "max 0\n"), None);
        assert_eq!(exceeded(BOTH, "max 3\noom 1\noom_kill 2\n", "max 0\n"), Some(Limit::Memory(4096)));
        assert_eq!(exceeded(BOTH, "max 3\noom 0\noom_kill 2\n", "max 0\n"), None, "the container's limit was reached");
        assert_eq!(exceeded(BOTH, calm, "max 12\n"), Some(Limit::Pids(7)));
        assert_eq!(
            exceeded(Holds::default(), "oom 1\noom_kill 2\n", "max 12\n"),
            None,
            "it was not the runtime's limit"
        );
    }
}
