//! The pods: created, Ready, cordoned, removed, killed, read.

use super::events::Event;
use super::pod::{Phase, Pod, PodId};
use super::{GRACE, RETURN_AFTER, SCRAPE_EVERY, STARTUP_SIGMA, Seat, World, replica_set};
use crate::time::{micros, seconds};
use crate::workload::Window;

impl World<'_> {
    /// Orders so many replicas; of those too many, the named ones go as far as a ReplicaSet lets that decide.
    pub fn scale(&mut self, replicas: u32, named: &[PodId]) {
        if replicas != self.replicas {
            self.tally.scale_events += 1;
            self.tally.stale_decreases += u64::from(replicas < self.replicas && self.is_stale());
            self.tally.most_replicas = self.tally.most_replicas.max(replicas);
            self.replicas = replicas;
        }
        let active = || self.existing.iter().map(|id| self.pod(*id)).filter(|pod| pod.phase() != Phase::Terminating);
        let (have, want) = (active().count(), replicas as usize);
        if have > want {
            for victim in replica_set::victims(active(), have - want, named, self.now) {
                self.terminate(victim);
            }
        } else {
            (have..want).for_each(|_| self.create_pod());
        }
    }

    /// Lets the named pods take no new task, and all others take tasks.
    pub fn cordon(&mut self, named: &[PodId]) {
        let changed = |id: &PodId| self.pod(*id).cordoned() != named.contains(id);
        for id in self.existing.iter().copied().filter(changed).collect::<Vec<_>>() {
            let cordoned = named.contains(&id);
            self.pod_mut(id).set_cordoned(cordoned);
            if cordoned {
                self.withdraw(id);
            } else {
                self.offer(id);
            }
        }
    }

    pub(super) fn create_pod(&mut self) {
        let id = PodId::try_from(self.pods.len()).unwrap_or(PodId::MAX);
        let slots = (self.workload.slots, self.workload.queues.len());
        self.pods.push(Pod::new(id, self.chance.identity.bits(), slots, self.now));
        self.existing.push(id);
        let startup = self.chance.startup.lognormal(seconds(self.workload.startup), STARTUP_SIGMA);
        if !self.workload.options.never_ready {
            self.events.plan(self.now + micros(startup), Event::Ready { pod: id });
        }
    }

    pub(super) fn become_ready(&mut self, id: PodId) {
        if self.pod(id).phase() != Phase::Starting {
            return;
        }
        let now = self.now;
        self.pod_mut(id).become_ready(now);
        self.offer(id);
    }

    /// Lets tasks into the free slots of a pod, if it takes any.
    fn offer(&mut self, id: PodId) {
        let pod = &self.pods[id as usize];
        if !pod.takes_tasks() {
            return;
        }
        for (slot, _) in (0..).zip(&pod.slots).filter(|(_, task)| task.is_none()) {
            self.free[pod.queue_of(slot)].push(Seat { pod: id, slot });
        }
        (0..self.free.len()).for_each(|queue| self.dispatch(queue));
    }

    /// Lets no more tasks into a pod.
    fn withdraw(&mut self, id: PodId) {
        self.free.iter_mut().for_each(|free| free.retain(|seat| seat.pod != id));
    }

    fn terminate(&mut self, id: PodId) {
        let now = self.now;
        self.pod_mut(id).terminate(now);
        self.withdraw(id);
        let (idle, shutdown) = (self.pod(id).used() == 0, self.workload.shutdown);
        if idle && shutdown == 0 {
            self.pod_mut(id).go();
            self.bury(id);
        } else {
            let time = if idle { shutdown } else { GRACE };
            self.events.plan(now + time, Event::GraceOver { pod: id });
        }
    }

    pub(super) fn kill(&mut self, id: PodId) {
        if self.pod(id).phase() == Phase::Gone {
            return;
        }
        let tasks: Vec<u32> = self.pod(id).slots.iter().flatten().copied().collect();
        for task in tasks {
            self.tally.counts.killed += 1;
            self.events.plan(self.now + RETURN_AFTER, Event::Return { task });
        }
        self.pod_mut(id).go();
        self.bury(id);
    }

    /// Takes a pod that is gone from the list.
    pub(super) fn bury(&mut self, id: PodId) {
        self.existing.retain(|other| *other != id);
        self.tally.pod_time += self.now - self.pod(id).created();
    }

    /// Reads the pods' metrics, as far as they can be.
    pub(super) fn scrape(&mut self) {
        let options = &self.workload.options;
        if !Window::any(&options.scrape_outages, self.now) {
            for id in &self.existing {
                if !self.chance.fails(options.scrape_loss) {
                    self.pods[*id as usize].read(self.now);
                }
            }
        }
        self.events.plan(self.now + SCRAPE_EVERY, Event::Scrape);
    }
}
