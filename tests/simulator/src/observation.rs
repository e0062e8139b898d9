//! What a policy may know.

use crate::server::ServerStats;
use crate::world::{Phase, Pod};

/// What there is to see at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// Replicas that are ordered: `spec.replicas`.
    pub replicas: u32,
    /// The server's statistics over all Task Queues; none while it can't be read.
    pub server: Option<ServerStats>,
    /// Tasks that wait by the server's live status, which no cache answers; none while it can't be read.
    pub live_backlog: Option<u64>,
    /// Whether the pods' metrics can't be read now.
    pub scrapes_fail: bool,
    /// The same by Task Queue, in the order of [`Workload::queues`](crate::Workload::queues); empty while it can't be read.
    pub queues: &'a [QueueSeen],
    /// Least replicas that a rollout asks for just now.
    pub floor: u32,
    /// The truth, for policies that are granted better signals than there are.
    pub ideal: Ideal,
    pub(crate) pods: Pods<'a>,
}

/// What the server says of a Task Queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueueSeen {
    /// Its statistics.
    pub stats: ServerStats,
    /// Tasks that wait by its live status.
    pub live_backlog: u64,
}

/// What is so, without delay or error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ideal {
    /// Tasks that wait.
    pub waiting: u64,
    /// Tasks that run.
    pub running: u64,
    /// Tasks since the start of the run that no slot waited for when they were added. The server tells its own scaler of
    /// each, and nobody else.
    pub unmatched: u64,
}

/// The pods of a run with those of them that still exist.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pods<'a> {
    pub all: &'a [Pod],
    pub existing: &'a [u32],
}

impl<'a> Observation<'a> {
    /// Every pod that exists, by creation; those that are ending too.
    pub fn pods(&self) -> impl Iterator<Item = &'a Pod> + use<'a> {
        let all = self.pods.all;
        self.pods.existing.iter().map(move |id| &all[*id as usize])
    }

    /// Pods that take tasks.
    #[must_use]
    pub fn ready(&self) -> u32 {
        u32::try_from(self.pods().filter(|pod| pod.phase() == Phase::Ready).count()).unwrap_or(u32::MAX)
    }

    /// Slots that run a task, and all slots, of the pods that are Ready and were read; none when there is none.
    #[must_use]
    pub fn slots(&self) -> Option<(u64, u64)> {
        let scrapes = self.pods().filter(|pod| pod.phase() == Phase::Ready).filter_map(Pod::scrape);
        let sum = scrapes.fold((0, 0), |(used, all), scrape| {
            (used + u64::from(scrape.used), all + u64::from(scrape.used) + u64::from(scrape.available))
        });
        (sum.1 > 0).then_some(sum)
    }
}

/// What a policy is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Least replicas.
    pub min: u32,
    /// Most replicas.
    pub max: u32,
}

impl Bounds {
    /// The nearest number that is allowed.
    #[must_use]
    pub fn clamp(&self, replicas: u32) -> u32 {
        replicas.max(self.min).min(self.max)
    }

    /// The same with at least `min` replicas, but never more than the maximum.
    #[must_use]
    pub fn at_least(&self, min: u32) -> Self {
        Self { min: self.min.max(min).min(self.max), ..*self }
    }
}
