//! Processes that the harness started: how they are recorded, found again, and ended.
//!
//! A process id alone may belong to somebody else by the time it is used, so a process is only ever signalled when its
//! start time, the boot it was started in and a mark in its command line are still those of the record.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// How long a process may take to stop once it was told to.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A process, told apart from every other that may get its id later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Process id in the namespace of the harness.
    pub pid: i32,
    /// Start time in clock ticks since boot, field 22 of `/proc/<pid>/stat`.
    start_ticks: u64,
    boot: String,
    /// Text that is part of the process's command line.
    mark: String,
}

impl ProcessId {
    /// The running process `pid`, whose command line contains `mark`.
    ///
    /// # Errors
    /// The process is gone, or `/proc` can't be read.
    pub fn of(pid: i32, mark: &str) -> io::Result<Self> {
        let stat = Stat::read(pid)?;
        Ok(Self { pid, start_ticks: stat.start_ticks, boot: boot_id()?, mark: mark.to_owned() })
    }

    /// Whether this very process still runs. A zombie does not, once all its threads have ended.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let Ok(stat) = Stat::read(self.pid) else { return false };
        let has_threads = || fs::read_dir(format!("/proc/{}/task", self.pid)).is_ok_and(|tasks| tasks.count() > 1);
        stat.start_ticks == self.start_ticks
            && (!matches!(stat.state, 'Z' | 'X') || has_threads())
            && boot_id().is_ok_and(|boot| boot == self.boot)
            && command_line(self.pid).is_none_or(|line| line.contains(&self.mark))
    }

    /// Sends a signal, when the process is still the recorded one, as [`send`] does. Returns whether it was sent.
    pub fn signal(&self, signal: Signal) -> bool {
        self.is_alive() && send(self.pid, signal).is_ok()
    }

    /// Kills the process and waits until it is gone. Returns false when it still runs after `limit`.
    #[must_use]
    pub fn kill(&self, limit: Duration) -> bool {
        self.signal(Signal::SIGKILL);
        wait_until(limit, || !self.is_alive())
    }
}

/// Polls `condition` every 10 ms for at most `limit`. Returns whether it came true.
pub fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sends a signal to a process. Of SIGSTOP it waits until every thread has stopped: until then those that have not yet
/// taken notice go on, and a server still answers.
///
/// # Errors
/// There is no such process, or it still runs a while after SIGSTOP.
pub fn send(pid: i32, signal: Signal) -> io::Result<()> {
    signal::kill(Pid::from_raw(pid), signal)?;
    if signal != Signal::SIGSTOP || wait_until(STOP_LIMIT, || has_stopped(pid)) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("process {pid} runs {STOP_LIMIT:?} after {signal}")))
}

fn has_stopped(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut states = threads.filter_map(|thread| Stat::of(&thread.path()).ok()).map(|stat| stat.state).peekable();
    states.peek().is_some() && states.all(|state| state == 'T')
}

/// Ids of the direct children of a process.
#[must_use]
pub fn children(parent: i32) -> Vec<i32> {
    processes().filter(|pid| Stat::read(*pid).is_ok_and(|stat| stat.parent == parent)).collect()
}

/// Path that a process's program was called by.
#[must_use]
pub fn program(pid: i32) -> Option<String> {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(String::from_utf8_lossy(raw.split(|byte| *byte == 0).next()?).into_owned())
}

/// The id that a process has in its own process namespace.
#[must_use]
pub fn innermost_id(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    ids.split_whitespace().last()?.parse().ok()
}

/// Ids of the processes one of whose control groups has `text` in its path.
#[must_use]
pub fn in_cgroup(text: &str) -> Vec<i32> {
    processes()
        .filter(|pid| fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| groups.contains(text)))
        .collect()
}

fn processes() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// `None` in the moment in which a process changes into another program.
fn command_line(pid: i32) -> Option<String> {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).ok().filter(|raw| !raw.is_empty())?;
    Some(String::from_utf8_lossy(&raw).replace('\0', " "))
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

struct Stat {
    state: char,
    parent: i32,
    start_ticks: u64,
}

impl Stat {
    fn read(pid: i32) -> io::Result<Self> {
        Self::of(&Path::new("/proc").join(pid.to_string()))
    }

    /// Of a process or of one of its threads, by its directory in `/proc`.
    fn of(directory: &Path) -> io::Result<Self> {
        let file = directory.join("stat");
        let text = fs::read_to_string(&file)?;
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, format!("{}: {text}", file.display()));
        Self::parse(&text).ok_or_else(invalid)
    }

    /// The second field, the program's name, may hold spaces and parentheses: count from its last parenthesis on.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            start_ticks: fields.get(19)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_a_name_with_spaces_and_parentheses() {
        let stat = Stat::parse("42 (a b) c) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9876 1 2").unwrap();
        assert_eq!((stat.state, stat.parent, stat.start_ticks), ('S', 7, 9876));
    }

    #[test]
    fn a_process_that_was_stopped_does_nothing_from_then_on() {
        let mut child = std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let pid = child.id().cast_signed();
        assert!(!has_stopped(pid), "it runs");
        send(pid, Signal::SIGSTOP).unwrap();
        assert!(has_stopped(pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!has_stopped(pid), "what is gone has not stopped");
    }

    #[test]
    fn a_process_is_not_taken_for_the_recorded_one_when_its_start_time_or_mark_differs() {
        let own = std::process::id().cast_signed();
        let id = ProcessId::of(own, "harness").unwrap();
        assert!(id.is_alive());
        assert!(!ProcessId { start_ticks: id.start_ticks + 1, ..id.clone() }.is_alive());
        assert!(!ProcessId { mark: "no such mark".into(), ..id.clone() }.is_alive());
        assert!(!ProcessId { boot: "another boot".into(), ..id }.is_alive());
    }
}
