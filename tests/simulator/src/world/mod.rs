//! The cluster and the Task Queue: pods that start, work and end, and tasks that wait for their slots.
//!
//! Pods: Starting for a lognormal time, Ready, and once removed Terminating until their work is done or the grace period
//! is over. The queue is first in, first out; a task goes to any free slot with equal chances, at once. What a pod's end
//! kills comes back later. A pod that is cordoned takes no new task and goes on with what it has.

mod cluster;
mod events;
mod pod;
mod queue;
mod replica_set;
mod sight;
mod tally;

use crate::observation::QueueSeen;
use crate::random::{Purpose, Stream};
use crate::time::{Micros, SECOND};
use crate::workload::{Restart, Workload};

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
/// Time after which an order to take no new task lapses if nobody renews it.
const CORDON_LAPSES: Micros = 60 * SECOND;
/// Time without a reading after which it proves nothing.
const STALE_AFTER: Micros = 30 * SECOND;
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
    loss: Stream,
}

impl Chance {
    fn new(seed: u64) -> Self {
        Self {
            startup: Stream::new(seed, Purpose::StartUp),
            dispatch: Stream::new(seed, Purpose::Dispatch),
            identity: Stream::new(seed, Purpose::Identity),
            loss: Stream::new(seed, Purpose::Loss),
        }
    }

    /// Whether a read fails, when such a share of them does.
    fn fails(&mut self, share: f64) -> bool {
        share > 0.0 && self.loss.unit() < share
    }
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
    /// Free slots of the pods that take tasks, by Task Queue.
    free: Vec<Vec<Seat>>,
    queues: Vec<Queue>,
    /// What the server said of each queue when it was last asked; empty if it did not answer.
    seen: Vec<QueueSeen>,
    /// Whether tasks arrive as the workload says; otherwise [`World::feed`] brings them.
    feeds_itself: bool,
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
        Self::begin(workload, seed, replicas, true)
    }

    /// The same, but no task arrives unless it is brought.
    pub fn fed(workload: &'a Workload, seed: u64, replicas: u32) -> Self {
        Self::begin(workload, seed, replicas, false)
    }

    fn begin(workload: &'a Workload, seed: u64, replicas: u32, feeds_itself: bool) -> Self {
        let numbers = 0..u16::try_from(workload.queues.len()).unwrap_or(u16::MAX);
        let mut world = Self {
            workload,
            now: 0,
            events: Events::default(),
            chance: Chance::new(seed),
            replicas,
            pods: Vec::new(),
            existing: Vec::new(),
            free: vec![Vec::new(); workload.queues.len()],
            queues: numbers.map(|number| Queue::new(number, workload.options.rate_limit)).collect(),
            seen: Vec::new(),
            feeds_itself,
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
        if let Some(first) = self.workload.tasks.first().filter(|_| self.feeds_itself) {
            self.events.plan(first.arrival, Event::Arrive { task: 0 });
        }
        let scrape = Stream::new(seed, Purpose::Scrape).phase(SCRAPE_EVERY);
        self.events.plan(scrape, Event::Scrape);
        self.events.plan(0, Event::Decide);
        for Restart { away, .. } in &self.workload.options.restarts {
            self.events.plan(away.from + CORDON_LAPSES, Event::CordonsLapse);
        }
        let last = self.workload.last_arrival();
        self.events.plan(last + TAIL, Event::MayEnd);
    }

    /// Goes on until the driver is wanted; none when the run is over.
    pub fn advance(&mut self) -> Option<Want> {
        self.advance_to(Micros::MAX)
    }

    /// The same, but no further than to `limit`; none also when that is reached.
    pub fn advance_to(&mut self, limit: Micros) -> Option<Want> {
        while !self.over && self.events.next_at()? <= limit {
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
            Event::Turn { queue } => {
                self.queues[usize::from(queue)].turn_came();
                self.dispatch(queue.into());
            }
            Event::Scrape => self.scrape(),
            Event::CordonsLapse if self.restart().is_some() => self.cordon(&[]),
            Event::MayEnd => {
                self.ending = true;
                self.progressed = self.now;
                self.end_if_done();
                self.events.plan(self.now + self.patience, Event::GiveUp);
            }
            Event::GiveUp => self.give_up_if_stuck(),
            Event::CordonsLapse | Event::Decide | Event::Note => {}
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

    /// Tasks that run.
    fn running(&self) -> u64 {
        let counts = self.tally.counts;
        counts.started - counts.finished - counts.killed
    }

    /// Tasks that wait.
    pub fn waiting(&self) -> u64 {
        self.queues.iter().map(Queue::len).sum()
    }

    /// Replicas that are ordered.
    pub fn replicas(&self) -> u32 {
        self.replicas
    }

    /// Pods that are Ready.
    pub fn ready(&self) -> u32 {
        let ready = self.existing.iter().filter(|id| self.pod(**id).phase() == Phase::Ready).count();
        u32::try_from(ready).unwrap_or(u32::MAX)
    }

    /// Whether nothing happens any more.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Tasks that arrived.
    pub fn arrived(&self) -> u64 {
        self.tally.counts.arrived
    }

    /// Brings a task that arrives now, at `at`.
    pub fn feed(&mut self, task: u32, at: Micros) {
        self.now = at;
        self.arrive(task);
    }

    fn arrive(&mut self, task: u32) {
        self.tally.arrive(task);
        if let Some(next) = self.workload.tasks.get(task as usize + 1).filter(|_| self.feeds_itself) {
            self.events.plan(next.arrival, Event::Arrive { task: task + 1 });
        }
        self.add(task);
    }

    fn add(&mut self, task: u32) {
        let queue = usize::from(self.workload.tasks[task as usize].queue);
        self.queues[queue].add(task, self.now);
        self.dispatch(queue);
        self.queues[queue].note_unmatched();
    }

    /// Gives tasks of a Task Queue to free slots.
    fn dispatch(&mut self, queue: usize) {
        while !self.free[queue].is_empty() {
            let Some(first) = self.queues[queue].take(self.now, &mut self.events) else { return };
            let free = &mut self.free[queue];
            let seat = free.swap_remove(self.chance.dispatch.below(free.len()));
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
        let pod = self.pod(seat.pod);
        if pod.takes_tasks() {
            let queue = pod.queue_of(seat.slot);
            self.free[queue].push(seat);
            self.dispatch(queue);
        } else if pod.phase() == Phase::Gone {
            self.bury(seat.pod);
        }
        self.end_if_done();
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
        self.tally.counts.running = self.existing.iter().map(|id| u64::from(self.pod(*id).used())).sum();
        let open: Micros = self.existing.iter().map(|id| self.now - self.pod(*id).created()).sum();
        Closed {
            end: self.now,
            counts: self.tally.counts,
            pod_time: self.tally.pod_time + open,
            scale_events: self.tally.scale_events,
            stale_decreases: self.tally.stale_decreases,
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
    pub stale_decreases: u64,
    pub most_replicas: u32,
    pub waits: Vec<Micros>,
}

#[cfg(test)]
mod tests;
