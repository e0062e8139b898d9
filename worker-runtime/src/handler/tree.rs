//! The processes that a handler's program starts, and their end.
//!
//! A process group is not enough: whoever opens a session of its own leaves it, and outlives its task. So a program that has
//! to end is stopped (SIGSTOP) with all its descendants until there is no new one, and then killed. Descendants that lost
//! their parent meanwhile are not in that tree; as the subreaper of its descendants (`prctl(2)`,
//! `PR_SET_CHILD_SUBREAPER`), this process adopts them, and knows by a mark in their environment which run they belong to.
//! One whose run is over, or that has no mark, is killed and collected.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use parking_lot::Mutex;

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
    live: Mutex<BTreeMap<String, Pid>>,
    started: AtomicU64,
}

/// A running program and all that it starts, killed when dropped at the latest.
#[derive(Debug)]
pub(super) struct Tree {
    programs: Arc<Programs>,
    mark: String,
    ended: bool,
}

impl Programs {
    /// Makes this process adopt what handlers leave behind.
    pub fn new() -> Arc<Self> {
        if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
            tracing::warn!(%error, "processes that handlers leave behind can't be adopted; those in sessions of their own may live on");
        }
        Arc::new(Self { name: format!("{:016x}", rand::random::<u64>()), ..Self::default() })
    }

    /// A mark for the next program.
    pub(super) fn mark(&self) -> String {
        format!("{}-{}", self.name, self.started.fetch_add(1, Ordering::Relaxed))
    }

    /// The program that was started with a mark, by the id of its process.
    pub(super) fn track(self: &Arc<Self>, mark: String, root: Option<u32>) -> Tree {
        if let Some(root) = root.and_then(|root| i32::try_from(root).ok()) {
            self.live.lock().insert(mark.clone(), Pid::from_raw(root));
        }
        Tree { programs: self.clone(), mark, ended: false }
    }

    /// Kills adopted processes that belong to no live run, and collects the dead. Says whether there were any.
    fn sweep(&self) -> bool {
        let live = self.live.lock();
        let stranger = |child: &Pid| !live.values().any(|root| root == child) && !live.contains_key(&mark_of(*child));
        let strangers: Vec<Pid> = children(std::process::id()).into_iter().filter(stranger).collect();
        drop(live);
        for stranger in &strangers {
            kill_tree(*stranger);
            let _ = waitpid(*stranger, Some(WaitPidFlag::WNOHANG));
        }
        !strangers.is_empty()
    }
}

impl Tree {
    /// Notes that the program has ended and was collected: what it left behind ends too.
    pub(super) fn ended(&mut self) {
        self.end(true);
    }

    fn end(&mut self, collected: bool) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let Some(root) = self.programs.live.lock().remove(&self.mark) else { return };
        // The group may be there though its leader is not.
        let left = killpg(root, Signal::SIGKILL).is_ok();
        if !collected {
            kill_tree(root);
        }
        if self.programs.sweep() || left || !collected {
            tokio::spawn(settle(self.programs.clone()));
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.end(false);
    }
}

/// Sweeps until nothing is left. Bounded: a process that can't die now is left as it is.
async fn settle(programs: Arc<Programs>) {
    let mut clean = 0;
    for _ in 0..SWEEPS {
        tokio::time::sleep(SWEEP_PAUSE).await;
        clean = if programs.sweep() { 0 } else { clean + 1 };
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
        let descendants = seen.iter().flat_map(|process| children(process.as_raw().unsigned_abs()));
        new = descendants.filter(|process| !seen.contains(process)).collect();
        if new.is_empty() {
            break;
        }
        seen.extend(&new);
    }
    for process in seen {
        let _ = kill(process, Signal::SIGKILL);
    }
}

/// The children of a process, of all its threads.
fn children(process: u32) -> Vec<Pid> {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return Vec::new() };
    let of_thread = |thread: &Path| fs::read_to_string(thread.join("children")).unwrap_or_default();
    let lists = threads.flatten().map(|thread| of_thread(&thread.path()));
    let parse = |list: String| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>();
    lists.flat_map(parse).map(Pid::from_raw).collect()
}

/// The mark in the environment of a process; empty without one.
fn mark_of(process: Pid) -> String {
    let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
    let mark = environment
        .split(|byte| *byte == 0)
        .find_map(|variable| variable.strip_prefix(MARK.as_bytes()).and_then(|rest| rest.strip_prefix(b"=")));
    String::from_utf8_lossy(mark.unwrap_or_default()).into_owned()
}
