//! What may be seen of the world from outside, and when nobody looks.

use super::queue::Queue;
use super::{STALE_AFTER, World};
use crate::observation::{Ideal, Observation, Pods, QueueSeen};
use crate::server::ServerStats;
use crate::workload::{Restart, Window};

impl<'a> World<'a> {
    /// The restart of the autoscaler that goes on.
    pub fn restart(&self) -> Option<Restart> {
        self.workload.options.restarts.iter().find(|restart| Window::any(&[restart.away], self.now)).copied()
    }

    /// The restarts that are over.
    pub fn restarts_over(&self) -> &'a [Restart] {
        let restarts = &self.workload.options.restarts;
        &restarts[..restarts.partition_point(|restart| restart.away.until <= self.now)]
    }

    /// Whether the server or the pods' metrics could not be read for too long.
    pub(super) fn is_stale(&self) -> bool {
        let options = &self.workload.options;
        let mut outages = options.server_outages.iter().chain(&options.scrape_outages);
        outages.any(|outage| (outage.from + STALE_AFTER..outage.until).contains(&self.now))
    }

    /// What may be seen now, when a rollout asks for at least `floor` replicas.
    pub fn observe(&mut self, floor: u32) -> Observation<'_> {
        let options = &self.workload.options;
        self.seen.clear();
        if !Window::any(&options.server_outages, self.now) && !self.chance.fails(options.server_loss) {
            let now = self.now;
            let queues = self.queues.iter_mut();
            self.seen.extend(queues.map(|queue| QueueSeen { live_backlog: queue.len(), stats: queue.stats(now) }));
        }
        Observation {
            replicas: self.replicas,
            server: self.seen.iter().map(|queue| queue.stats).reduce(ServerStats::and),
            live_backlog: self.seen.iter().map(|queue| queue.live_backlog).reduce(|sum, more| sum + more),
            queues: &self.seen,
            scrapes_fail: Window::any(&self.workload.options.scrape_outages, self.now),
            floor,
            ideal: Ideal { waiting: self.waiting(), running: self.running(), unmatched: self.unmatched() },
            pods: Pods { all: &self.pods, existing: &self.existing },
        }
    }

    fn unmatched(&self) -> u64 {
        self.queues.iter().map(Queue::unmatched).sum()
    }
}
