//! What is under way between a Worker and the server: open polls, tasks that run, and the slots that they show.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::calls::{Lane, Poll, Task};
use crate::cordon::{Cordon, Pass};
use crate::metrics::{Metrics, SlotMeters, Time};

/// Time after which a task is taken for over that tells no timeout of its own: a server lets no Workflow task take longer.
const LONGEST_WORKFLOW_TASK: Duration = Duration::from_secs(120);
/// Time that a Worker without a connection is taken to be there still.
const RECONNECTS_WITHIN: Duration = Duration::from_secs(3);
/// Time between two looks for tasks that are over without a word.
const LOOK: Duration = Duration::from_secs(1);

/// The traffic of a sidecar. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Traffic(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cordon: Cordon,
    metrics: Metrics,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    open_polls: usize,
    tasks: HashMap<Bytes, Running>,
    lanes: HashMap<Lane, Slots>,
    connections: usize,
    /// Since when there is no connection.
    alone: Instant,
}

/// A task that runs.
#[derive(Debug)]
struct Running {
    lane: Lane,
    begun: Instant,
    until: Instant,
    _pass: Pass,
}

/// What is known of the slots of a lane.
#[derive(Debug)]
struct Slots {
    meters: SlotMeters,
    used: u32,
    /// Polls of the Worker, each for a free slot, also those that are held here.
    polls: u32,
    /// Most slots that were seen at a time: those used and those polled for.
    seen: u32,
    /// Slots that the Worker tells of itself.
    told: Option<u32>,
}

impl Slots {
    fn show(&mut self) {
        let polled = self.used.saturating_add(self.polls);
        self.seen = self.seen.max(polled);
        let all = self.told.unwrap_or(self.seen).max(polled);
        // A Worker that does not poll has no slot free, whatever it had before.
        let free = if self.polls == 0 { 0 } else { all - self.used };
        self.meters.show(self.used, free);
    }
}

impl State {
    fn slots(&mut self, lane: &Lane, metrics: &Metrics) -> &mut Slots {
        self.lanes.entry(lane.clone()).or_insert_with(|| {
            let meters = metrics.slots(&lane.task_queue, lane.task_type);
            Slots { meters, used: 0, polls: 0, seen: 0, told: None }
        })
    }

    fn change(&mut self, lane: &Lane, metrics: &Metrics, change: impl FnOnce(&mut Slots)) {
        let slots = self.slots(lane, metrics);
        change(slots);
        slots.show();
    }
}

/// A poll of the Worker, from its request to its answer.
#[derive(Debug)]
pub struct AskedPoll {
    traffic: Traffic,
    lane: Lane,
}

/// A poll that is open at the server.
#[derive(Debug)]
pub struct OpenPoll {
    traffic: Traffic,
    pass: Option<Pass>,
}

/// A connection of the Worker.
#[derive(Debug)]
pub struct Connected(Traffic);

impl Traffic {
    /// Nothing is under way.
    pub fn new(cordon: Cordon, metrics: Metrics) -> Self {
        let state = State {
            open_polls: 0,
            tasks: HashMap::new(),
            lanes: HashMap::new(),
            connections: 0,
            alone: Instant::now(),
        };
        Self(Arc::new(Inner { cordon, metrics, state: Mutex::new(state), changed: Notify::new() }))
    }

    /// The Worker has one more connection.
    pub fn connect(&self) -> Connected {
        self.0.state.lock().connections += 1;
        Connected(self.clone())
    }

    /// The Worker polls.
    pub fn ask(&self, poll: &Poll) -> AskedPoll {
        let lane = poll.lane.clone();
        self.0.state.lock().change(&lane, &self.0.metrics, |slots| slots.polls += 1);
        AskedPoll { traffic: self.clone(), lane }
    }

    /// A poll begins at the server.
    pub fn open(&self, poll: &Poll) -> OpenPoll {
        self.0.state.lock().open_polls += 1;
        OpenPoll { traffic: self.clone(), pass: Some(self.0.cordon.pass(poll.sticky)) }
    }

    /// A task came for the Worker.
    pub fn begin(&self, lane: Lane, task: &Task, pass: Option<Pass>) {
        let inner = &self.0;
        let pass = pass.unwrap_or_else(|| inner.cordon.pass(true));
        pass.run();
        if let Some(waited) = task.waited {
            inner.metrics.times(Time::Wait, &lane.task_queue, lane.task_type).observe(waited.as_secs_f64());
        }
        let begun = Instant::now();
        let until = begun + task.timeout.unwrap_or(LONGEST_WORKFLOW_TASK);
        let mut state = inner.state.lock();
        let before = state.tasks.insert(task.token.clone(), Running { lane: lane.clone(), begun, until, _pass: pass });
        let new = before.is_none();
        state.change(&lane, &inner.metrics, |slots| {
            slots.used += u32::from(new);
            slots.meters.started();
        });
    }

    /// A task ended. One that is not known, as it came before this process or by another way, is let pass.
    pub fn end(&self, token: &[u8], outcome: &str) -> Option<Lane> {
        let mut state = self.0.state.lock();
        let task = state.tasks.remove(token)?;
        state.change(&task.lane, &self.0.metrics, |slots| slots.used = slots.used.saturating_sub(1));
        drop(state);
        let Lane { task_queue, task_type } = &task.lane;
        self.0.metrics.times(Time::Run, task_queue, *task_type).observe(task.begun.elapsed().as_secs_f64());
        self.0.metrics.ended(task_queue, *task_type, outcome);
        self.0.changed.notify_waiters();
        Some(task.lane)
    }

    /// The Worker told how many slots it has.
    pub fn told(&self, lane: &Lane, slots: u32) {
        self.0.state.lock().change(lane, &self.0.metrics, |known| known.told = Some(slots));
    }

    /// Waits until nothing is under way.
    pub async fn idle(&self) {
        loop {
            let changed = self.0.changed.notified();
            self.forget_those_over(Instant::now());
            if self.is_idle() {
                return;
            }
            // A timeout passes without a word.
            let _ = tokio::time::timeout(LOOK, changed).await;
        }
    }

    /// For how long the Worker has had no connection; none while it has one.
    pub fn alone_for(&self) -> Option<Duration> {
        let state = self.0.state.lock();
        (state.connections == 0).then(|| state.alone.elapsed())
    }

    /// Waits until the Worker has no connection.
    pub async fn alone(&self) {
        loop {
            let changed = self.0.changed.notified();
            if self.alone_for().is_some() {
                return;
            }
            changed.await;
        }
    }

    fn is_idle(&self) -> bool {
        let state = self.0.state.lock();
        state.open_polls == 0 && state.tasks.is_empty()
    }

    /// Forgets tasks that the server has given up, and all of a Worker that is gone.
    fn forget_those_over(&self, now: Instant) {
        let over: Vec<_> = {
            let state = self.0.state.lock();
            let gone = state.connections == 0 && now.duration_since(state.alone) >= RECONNECTS_WITHIN;
            let is_over = |task: &Running| gone || task.until <= now;
            state.tasks.iter().filter(|(_, task)| is_over(task)).map(|(token, _)| token.clone()).collect()
        };
        over.iter().for_each(|token| _ = self.end(token, "lost"));
    }

    /// Goes on with what passes without a word. Never returns.
    pub async fn keep(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            self.forget_those_over(Instant::now());
        }
    }
}

impl OpenPoll {
    /// The poll brought a task.
    pub fn brought(mut self, lane: Lane, task: &Task) {
        let pass = self.pass.take();
        self.traffic.begin(lane, task, pass);
    }
}

impl Drop for OpenPoll {
    fn drop(&mut self) {
        self.traffic.0.state.lock().open_polls -= 1;
        self.traffic.0.changed.notify_waiters();
    }
}

impl Drop for AskedPoll {
    fn drop(&mut self) {
        let inner = &self.traffic.0;
        inner.state.lock().change(&self.lane, &inner.metrics, |slots| slots.polls -= 1);
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut state = self.0.0.state.lock();
        state.connections -= 1;
        state.alone = Instant::now();
        drop(state);
        self.0.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
