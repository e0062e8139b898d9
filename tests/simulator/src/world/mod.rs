//! The cluster and the Task Queue: pods that start, work and end, and tasks that wait for their slots.
//!
//! Pods: Starting for a lognormal time, Ready, and once removed Terminating until their work is done or the grace period
//! is over. The queue is first in, first out; a task goes to any free slot with equal chances, at once. What a pod's end
//! kills comes back later.

mod events;
mod pod;
mod queue;
mod replica_set;
mod tally;

use crate::observation::{Ideal, Observation, Pods};
use crate::random::{Purpose, Stream};
use crate::time::{Micros, SECOND, micros, seconds};
use crate::workload::{Window, Workload};

use events::{Event, Events};
pub use pod::{Phase, Pod, PodId, RUN_BOUNDS, Scrape, WAIT_BOUNDS};
use queue::{Queue, Waiting};
pub use tally::Counts;
use tally::Tally;

/// Standard deviation of the logarithm of a pod's start-up time.
const STARTUP_SIGMA: f64 = 0.3;
/// Time that a pod which is removed has for its tasks.
const GRACE: Micros = 30 * SECOND;
/// Time until a task that was killed waits again.
const RETURN_AFTER: Micros = 30 * SECOND;
/// Time between two reads of the pods' metrics.
const SCRAPE_EVERY: Micros = 5 * SECOND;
/// A run goes on for so long after the last arrival, so that scaling down counts.
const TAIL: Micros = 400 * SECOND;
/// A run is given up when no task was done for so long and twice the longest service time: a policy may kill, again and
/// again, what outlasts its pods.
const PATIENCE: Micros = 3_600 * SECOND;

/// What the world wants of its driver.
pub(crate) enum Want {
    /// A decision, now.
    Decision,
    /// A note of the run's course, now.
    Note,
}

/// A slot of a pod.
#[derive(Clone, Copy, Debug)]
struct Seat {
    pod: PodId,
    slot: u32,
}

/// The streams of chance that a run draws from while it goes on.
#[derive(Debug)]
struct Chance {
    startup: Stream,
    dispatch: Stream,
    identity: Stream,
}

/// The state of a run.
pub(crate) struct World<'a> {
    workload: &'a Workload,
    now: Micros,
    events: Events,
    chance: Chance,
    replicas: u32,
    pods: Vec<Pod>,
    existing: Vec<PodId>,
    /// Free slots of Ready pods.
    free: Vec<Seat>,
    queue: Queue,
    tally: Tally,
    /// Whether the run may end.
    ending: bool,
    /// When a task was last done.
    progressed: Micros,
    /// Time without that after which the run is given up.
    patience: Micros,
    over: bool,
}

impl<'a> World<'a> {
    /// A world before its first moment, with so many replicas ordered.
    pub fn new(workload: &'a Workload, seed: u64, replicas: u32) -> Self {
        let mut world = Self {
            workload,
            now: 0,
            events: Events::default(),
            chance: Chance {
                startup: Stream::new(seed, Purpose::StartUp),
                dispatch: Stream::new(seed, Purpose::Dispatch),
                identity: Stream::new(seed, Purpose::Identity),
            },
            replicas,
            pods: Vec::new(),
            existing: Vec::new(),
            free: Vec::new(),
            queue: Queue::new(workload.options.rate_limit),
            tally: Tally::new(workload.tasks.len()),
            ending: false,
            progressed: 0,
            patience: PATIENCE + 2 * workload.tasks.iter().map(|task| task.service).max().unwrap_or(0),
            over: false,
        };
        (0..replicas).for_each(|_| world.create_pod());
        world.tally.most_replicas = replicas;
        world.plan_course(seed);
        world
    }

    fn plan_course(&mut self, seed: u64) {
        if let Some(first) = self.workload.tasks.first() {
            self.events.plan(first.arrival, Event::Arrive { task: 0 });
        }
        let scrape = Stream::new(seed, Purpose::Scrape).phase(SCRAPE_EVERY);
        self.events.plan(scrape, Event::Scrape);
        self.events.plan(0, Event::Decide);
        let last = self.workload.last_arrival();
        self.events.plan(last + TAIL, Event::MayEnd);
    }

    /// Goes on until the driver is wanted; none when the run is over.
    pub fn advance(&mut self) -> Option<Want> {
        while !self.over {
            let (at, event) = self.events.next()?;
            self.now = at;
            match event {
                Event::Decide => return Some(Want::Decision),
                Event::Note => return Some(Want::Note),
                other => self.happen(other),
            }
        }
        None
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Finish { pod, slot } => self.finish(Seat { pod, slot }),
            Event::GraceOver { pod } => self.kill(pod),
            Event::Ready { pod } => self.become_ready(pod),
            Event::Return { task } => self.add(task),
            Event::Arrive { task } => self.arrive(task),
            Event::Turn => {
                self.queue.turn_came();
                self.dispatch();
            }
            Event::Scrape => self.scrape(),
            Event::MayEnd => {
                self.ending = true;
                self.progressed = self.now;
                self.end_if_done();
                self.events.plan(self.now + self.patience, Event::GiveUp);
            }
            Event::GiveUp => self.give_up_if_stuck(),
            Event::Decide | Event::Note => {}
        }
    }

    /// This moment.
    pub fn now(&self) -> Micros {
        self.now
    }

    /// Asks for a decision at `at`, or as soon after now as time goes on.
    pub fn plan_decision(&mut self, at: Micros) {
        self.events.plan(at.max(self.now + 1), Event::Decide);
    }

    /// Asks for a note after `wait`.
    pub fn plan_note(&mut self, wait: Micros) {
        self.events.plan(self.now + wait.max(1), Event::Note);
    }

    /// What may be seen now.
    pub fn observe(&mut self) -> Observation<'_> {
        let readable = !Window::any(&self.workload.options.server_outages, self.now);
        let server = readable.then(|| self.queue.stats(self.now));
        let (waiting, unmatched) = (self.queue.len(), self.queue.unmatched());
        Observation {
            replicas: self.replicas,
            server,
            live_backlog: readable.then_some(waiting),
            scrapes_fail: Window::any(&self.workload.options.scrape_outages, self.now),
            ideal: Ideal { waiting, running: self.running(), unmatched },
            pods: Pods { all: &self.pods, existing: &self.existing },
        }
    }

    /// Tasks that run.
    fn running(&self) -> u64 {
        let counts = self.tally.counts;
        counts.started - counts.finished - counts.killed
    }

    /// Tasks that wait.
    pub fn waiting(&self) -> u64 {
        self.queue.len()
    }

    /// Replicas that are ordered.
    pub fn replicas(&self) -> u32 {
        self.replicas
    }

    /// Tasks that arrived.
    pub fn arrived(&self) -> u64 {
        self.tally.counts.arrived
    }

    /// Orders so many replicas; of those too many, the named ones go as far as a ReplicaSet lets that decide.
    pub fn scale(&mut self, replicas: u32, named: &[PodId]) {
        if replicas != self.replicas {
            self.tally.scale_events += 1;
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

    fn create_pod(&mut self) {
        let id = PodId::try_from(self.pods.len()).unwrap_or(PodId::MAX);
        self.pods.push(Pod::new(id, self.chance.identity.bits(), self.workload.slots, self.now));
        self.existing.push(id);
        let startup = self.chance.startup.lognormal(seconds(self.workload.startup), STARTUP_SIGMA);
        if !self.workload.options.never_ready {
            self.events.plan(self.now + micros(startup), Event::Ready { pod: id });
        }
    }

    fn become_ready(&mut self, id: PodId) {
        if self.pod(id).phase() != Phase::Starting {
            return;
        }
        let now = self.now;
        self.pod_mut(id).become_ready(now);
        self.free.extend((0..self.workload.slots).map(|slot| Seat { pod: id, slot }));
        self.dispatch();
    }

    fn terminate(&mut self, id: PodId) {
        let now = self.now;
        self.pod_mut(id).terminate(now);
        self.free.retain(|seat| seat.pod != id);
        if self.pod(id).phase() == Phase::Gone {
            self.bury(id);
        } else {
            self.events.plan(now + GRACE, Event::GraceOver { pod: id });
        }
    }

    fn kill(&mut self, id: PodId) {
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
    fn bury(&mut self, id: PodId) {
        self.existing.retain(|other| *other != id);
        self.tally.pod_time += self.now - self.pod(id).created();
    }

    fn arrive(&mut self, task: u32) {
        self.tally.counts.arrived += 1;
        if let Some(next) = self.workload.tasks.get(task as usize + 1) {
            self.events.plan(next.arrival, Event::Arrive { task: task + 1 });
        }
        self.add(task);
    }

    fn add(&mut self, task: u32) {
        self.queue.add(task, self.now);
        self.dispatch();
        self.queue.note_unmatched();
    }

    /// Gives tasks to free slots.
    fn dispatch(&mut self) {
        while !self.free.is_empty() {
            let Some(first) = self.queue.take(self.now, &mut self.events) else { return };
            let seat = self.free.swap_remove(self.chance.dispatch.below(self.free.len()));
            self.start(first, seat);
        }
    }

    fn start(&mut self, waiting: Waiting, seat: Seat) {
        let task = self.workload.tasks[waiting.task as usize];
        self.tally.start(waiting.task, self.now - task.arrival);
        let waited = self.now - waiting.since;
        self.pod_mut(seat.pod).start(seat.slot, waiting.task, waited);
        self.events.plan(self.now + task.service, Event::Finish { pod: seat.pod, slot: seat.slot });
    }

    fn finish(&mut self, seat: Seat) {
        // What a kill cut off does not finish.
        if self.pod(seat.pod).phase() == Phase::Gone {
            return;
        }
        self.tally.counts.finished += 1;
        self.progressed = self.now;
        let task = self.pod(seat.pod).slots[seat.slot as usize];
        let ran = task.map_or(0, |task| self.workload.tasks[task as usize].service);
        self.pod_mut(seat.pod).finish(seat.slot, ran);
        match self.pod(seat.pod).phase() {
            Phase::Ready => {
                self.free.push(seat);
                self.dispatch();
            }
            Phase::Gone => self.bury(seat.pod),
            Phase::Starting | Phase::Terminating => {}
        }
        self.end_if_done();
    }

    fn scrape(&mut self) {
        if !Window::any(&self.workload.options.scrape_outages, self.now) {
            for id in &self.existing {
                self.pods[*id as usize].read(self.now);
            }
        }
        self.events.plan(self.now + SCRAPE_EVERY, Event::Scrape);
    }

    fn end_if_done(&mut self) {
        let hopeless = self.workload.options.never_ready;
        self.over |= self.ending && (hopeless || self.tally.all_done());
    }

    fn give_up_if_stuck(&mut self) {
        let end = self.progressed + self.patience;
        self.over |= self.now >= end;
        self.events.plan(end, Event::GiveUp);
    }

    fn pod(&self, id: PodId) -> &Pod {
        &self.pods[id as usize]
    }

    fn pod_mut(&mut self, id: PodId) -> &mut Pod {
        &mut self.pods[id as usize]
    }

    /// The figures of a run that is over.
    pub fn close(mut self) -> Closed {
        self.tally.counts.running = self.existing.iter().map(|id| u64::from(self.pod(*id).metrics.used)).sum();
        let open: Micros = self.existing.iter().map(|id| self.now - self.pod(*id).created()).sum();
        Closed {
            end: self.now,
            counts: self.tally.counts,
            pod_time: self.tally.pod_time + open,
            scale_events: self.tally.scale_events,
            most_replicas: self.tally.most_replicas,
            waits: self.tally.waits(self.workload.tasks.iter().map(|task| task.arrival), self.now),
        }
    }
}

/// What is left of a world.
pub(crate) struct Closed {
    pub end: Micros,
    pub counts: Counts,
    pub pod_time: Micros,
    pub scale_events: u64,
    pub most_replicas: u32,
    pub waits: Vec<Micros>,
}

#[cfg(test)]
mod tests;
