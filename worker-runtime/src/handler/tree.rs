//! The processes that a handler's program starts, and their end.
//!
//! A process group is not enough: whoever opens a session of its own leaves it, and outlives its task. So a program that has
//! to end is stopped (SIGSTOP) with all its descendants until there is no new one, and then killed. Descendants that lost
//! their parent meanwhile are not in that tree; as the subreaper of its descendants (`prctl(2)`,
//! `PR_SET_CHILD_SUBREAPER`), this process adopts them, and knows by a mark in their environment which run they belong to.
//! One whose run is over, or that has no mark, is killed and collected.
//!
//! Where each run has a [control group](super::groups), all that is in it is killed at once, and nothing leaves it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use parking_lot::Mutex;

use super::groups::{Group, Groups};
use super::limits::{LOOK_PAUSE, Limits, Watch};
use super::processes::{Process, Snapshot, children};

/// Variable of the environment that marks the processes of a run.
pub(super) const MARK: &str = "TEMPORAL_HANDLER_RUN";
/// Looks at a tree that grows while it is stopped.
const LOOKS: usize = 100;
/// Looks for adopted processes after a kill, and the time between two of them.
const SWEEPS: u32 = 50;
const SWEEP_PAUSE: Duration = Duration::from_millis(20);

/// The programs that run now.
#[derive(Debug, Default)]
pub struct Programs {
    /// What all marks begin with: nobody else's do.
    name: String,
    live: Mutex<BTreeMap<String, Live>>,
    started: AtomicU64,
    groups: Option<Groups>,
    snapshot: Snapshot,
}

/// A run that goes on.
#[derive(Debug)]
struct Live {
    root: Pid,
    group: Option<Arc<Group>>,
}

/// A running program and all that it starts, killed when dropped at the latest.
#[derive(Debug)]
pub(super) struct Tree {
    watch: Watch,
    ended: bool,
}

impl Programs {
    /// Makes this process adopt what handlers leave behind, and makes control groups for them if it may.
    pub fn open() -> Arc<Self> {
        if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
            tracing::warn!(%error, "processes that handlers leave behind can't be adopted; those in sessions of their own may live on");
        }
        let groups = Groups::open();
        match &groups {
            Ok(Groups { holds, .. }) => tracing::info!(
                memory = holds.memory,
                pids = holds.pids,
                "each run of a handler's program has a control group of its own; what the kernel does not limit there is \
                 counted every {LOOK_PAUSE:?}"
            ),
            Err(error) => tracing::info!(
                "runs of handlers' programs have no control groups ({error}); limits of memory and processes are counted \
                 every {LOOK_PAUSE:?}"
            ),
        }
        let name = format!("{:016x}", rand::random::<u64>());
        Arc::new(Self { name, groups: groups.ok(), ..Self::default() })
    }

    /// All processes, as they were a moment ago.
    pub(super) fn processes(&self) -> Arc<[Process]> {
        self.snapshot.take()
    }

    /// The group of a new run, where there are groups.
    ///
    /// # Errors
    /// The system can't make it.
    pub(super) fn group(&self, mark: &str, limits: Limits) -> io::Result<Option<Group>> {
        self.groups.as_ref().map(|groups| groups.make(mark, limits)).transpose()
    }

    /// Processes of a run that this process adopted.
    pub(super) fn adopted(&self, mark: &str) -> Vec<Pid> {
        own_children().into_iter().filter(|child| mark_of(*child) == mark).collect()
    }

    /// A mark for the next program.
    pub(super) fn mark(&self) -> String {
        format!("{}-{}", self.name, self.started.fetch_add(1, Ordering::Relaxed))
    }

    /// The program that was started with a mark, by the id of its process.
    pub(super) fn track(
        self: &Arc<Self>,
        mark: String,
        root: Option<u32>,
        limits: Limits,
        group: Option<Group>,
    ) -> Tree {
        let group = group.map(Arc::new);
        let root = root.and_then(|root| i32::try_from(root).ok()).map(Pid::from_raw);
        if let Some(root) = root {
            self.live.lock().insert(mark.clone(), Live { root, group: group.clone() });
        }
        Tree { watch: Watch { programs: self.clone(), mark, root, limits, group }, ended: false }
    }

    /// Kills adopted processes that belong to no live run, and collects the dead. Says whether there were any.
    fn sweep(&self) -> bool {
        let live = self.live.lock();
        let stranger =
            |child: &Pid| !live.values().any(|run| run.root == *child) && !live.contains_key(&mark_of(*child));
        let mut strangers: Vec<Pid> = own_children().into_iter().filter(stranger).collect();
        if !strangers.is_empty() {
            let grouped: BTreeSet<Pid> =
                live.values().flat_map(|run| &run.group).flat_map(|it| it.processes()).collect();
            strangers.retain(|child| !grouped.contains(child));
        }
        drop(live);
        for stranger in &strangers {
            kill_tree(*stranger);
            let _ = waitpid(*stranger, Some(WaitPidFlag::WNOHANG));
        }
        !strangers.is_empty()
    }
}

impl Tree {
    /// What tells whether it is over its limits.
    pub(super) fn watch(&self) -> Watch {
        self.watch.clone()
    }

    /// Notes that the program has ended and was collected: what it left behind ends too.
    pub(super) fn ended(&mut self) {
        self.end(true);
    }

    fn end(&mut self, collected: bool) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let Watch { programs, mark, group, .. } = &self.watch;
        let Some(Live { root, .. }) = programs.live.lock().remove(mark) else { return };
        let killed = group.as_ref().is_some_and(|group| group.kill());
        // The process group may be there though its leader is not.
        let left = killpg(root, Signal::SIGKILL).is_ok();
        if !collected && !killed {
            kill_tree(root);
        }
        let gone = group.as_ref().is_none_or(|group| group.remove());
        if programs.sweep() || left || !collected || !gone {
            tokio::spawn(settle(programs.clone(), group.clone()));
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.end(false);
    }
}

/// Sweeps until nothing is left. Bounded: a process that can't die now is left as it is.
async fn settle(programs: Arc<Programs>, group: Option<Arc<Group>>) {
    let mut clean = 0;
    for _ in 0..SWEEPS {
        tokio::time::sleep(SWEEP_PAUSE).await;
        let gone = group.as_ref().is_none_or(|group| group.remove());
        clean = if programs.sweep() || !gone { 0 } else { clean + 1 };
        if clean >= 2 {
            return;
        }
    }
}

/// Stops a process and its descendants until there is no new one, so that none can start another, and kills them.
fn kill_tree(root: Pid) {
    let mut seen = BTreeSet::from([root]);
    let mut new = vec![root];
    for _ in 0..LOOKS {
        for process in &new {
            let _ = kill(*process, Signal::SIGSTOP);
        }
        new = children(&seen).into_iter().filter(|process| !seen.contains(process)).collect();
        if new.is_empty() {
            break;
        }
        seen.extend(&new);
    }
    for process in seen {
        let _ = kill(process, Signal::SIGKILL);
    }
}

fn own_children() -> Vec<Pid> {
    children(&BTreeSet::from([Pid::this()]))
}

/// The mark in the environment of a process; empty without one.
fn mark_of(process: Pid) -> String {
    let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
    let mark = environment
        .split(|byte| *byte == 0)
        .find_map(|variable| variable.strip_prefix(MARK.as_bytes()).and_then(|rest| rest.strip_prefix(b"=")));
    String::from_utf8_lossy(mark.unwrap_or_default()).into_owned()
}
