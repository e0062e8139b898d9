//! What one run of a handler's program may use, with all that it starts, and who sees that it uses more.
//!
//! Where the runtime may make [control groups](super::groups), the kernel holds each run to its limits. Elsewhere, and for
//! a limit whose controller the runtime can't have, the processes of a run are counted again and again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::Pid;
use operator_core::contract::RuntimeLimits;

use super::groups::Group;
use super::processes::{Process, with_descendants};
use super::tree::Programs;

/// Time between two looks at a run.
pub(super) const LOOK_PAUSE: Duration = Duration::from_millis(250);

/// Limits of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    /// Memory in bytes.
    pub(super) memory: Option<u64>,
    /// Number of processes and threads.
    pub(super) pids: Option<u32>,
}

/// A limit that a run went over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Memory in bytes.
    Memory(u64),
    /// Number of processes and threads.
    Pids(u32),
}

impl fmt::Display for Limit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(bytes) => write!(formatter, "{bytes} bytes of memory (handlerMemoryBytes)"),
            Self::Pids(count) => write!(formatter, "{count} processes and threads (handlerPids)"),
        }
    }
}

impl Limits {
    /// Those of a handler.
    pub(super) fn of(limits: &RuntimeLimits, handler: &str) -> Self {
        let (memory, pids) = (limits.handler_memory_bytes.get(handler), limits.handler_pids.get(handler));
        Self { memory: memory.copied(), pids: pids.copied() }
    }

    fn exceeded_by<'a>(self, processes: impl Iterator<Item = &'a Process> + Clone) -> Option<Limit> {
        let threads: u64 = processes.clone().map(|process| process.threads).sum();
        if let Some(pids) = self.pids.filter(|pids| threads > u64::from(*pids)) {
            return Some(Limit::Pids(pids));
        }
        let memory = self.memory?;
        // The exact number costs more, and is never above the other.
        let over = processes.clone().map(|process| process.resident).sum::<u64>() > memory
            && processes.map(Process::part_of_memory).sum::<u64>() > memory;
        over.then_some(Limit::Memory(memory))
    }
}

/// Limits that let no program run, one line each.
pub(super) fn problems(limits: &RuntimeLimits) -> Vec<String> {
    let memory = limits.handler_memory_bytes.iter().filter(|(_, bytes)| **bytes == 0);
    let pids = limits.handler_pids.iter().filter(|(_, count)| **count == 0);
    let memory = memory.map(|(handler, _)| ("handlerMemoryBytes", handler));
    let fields = memory.chain(pids.map(|(handler, _)| ("handlerPids", handler)));
    let problem = |(field, handler)| format!("{field}[{handler}]: is 0; give at least 1, or leave it out for no limit");
    fields.map(problem).collect()
}

/// A look at a run.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    pub(super) programs: Arc<Programs>,
    pub(super) mark: String,
    pub(super) root: Option<Pid>,
    pub(super) limits: Limits,
    pub(super) group: Option<Arc<Group>>,
}

impl Watch {
    /// Waits until the run goes over a limit; never ends without one.
    pub(super) async fn exceeded(&self) -> Limit {
        if self.limits == Limits::default() {
            return std::future::pending().await;
        }
        loop {
            if let Some(limit) = self.look() {
                return limit;
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// The limit that the run is over now.
    pub(super) fn look(&self) -> Option<Limit> {
        self.held().or_else(|| {
            let held = self.group.as_ref().map(|group| group.holds()).unwrap_or_default();
            let Limits { memory, pids } = self.limits;
            let rest = Limits { memory: memory.filter(|_| !held.memory), pids: pids.filter(|_| !held.pids) };
            if rest == Limits::default() {
                return None;
            }
            let all = self.programs.processes();
            let own = match &self.group {
                Some(group) => group.processes(),
                None => with_descendants(&all, self.root.into_iter().chain(self.programs.adopted(&self.mark))),
            };
            rest.exceeded_by(all.iter().filter(|process| own.contains(&process.id)))
        })
    }

    /// The limit that the kernel held the run to, though it may have ended.
    pub(super) fn held(&self) -> Option<Limit> {
        self.group.as_ref()?.exceeded(self.limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_zero_is_named() {
        let limits = serde_json::from_str(r#"{"handlerMemoryBytes":{"a":0,"b":1},"handlerPids":{"c":0}}"#).unwrap();
        let problems = problems(&limits);
        assert_eq!(problems.len(), 2);
        assert!(problems[0].starts_with("handlerMemoryBytes[a]: is 0; give"), "{problems:?}");
        assert!(problems[1].starts_with("handlerPids[c]: is 0; give"), "{problems:?}");
    }
}
