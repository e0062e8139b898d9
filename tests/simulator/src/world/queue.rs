//! The Task Queue: first in, first out, as fast as its rate limit allows.

use std::collections::VecDeque;

use super::events::{Event, Events};
use crate::server::{Limiter, Server, ServerStats};
use crate::time::Micros;

/// A task that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub task: u32,
    /// When it was added; later than its arrival if it was killed since.
    pub since: Micros,
}

/// The tasks that wait, and what the server knows of them.
#[derive(Debug)]
pub(super) struct Queue {
    number: u16,
    waiting: VecDeque<Waiting>,
    server: Server,
    limiter: Option<Limiter>,
    /// Whether the next turn of the rate limit is planned.
    turn_planned: bool,
    unmatched: u64,
}

impl Queue {
    /// The Task Queue with this number in the workload.
    pub fn new(number: u16, rate_limit: Option<f64>) -> Self {
        Self {
            number,
            waiting: VecDeque::new(),
            server: Server::default(),
            limiter: rate_limit.map(Limiter::new),
            turn_planned: false,
            unmatched: 0,
        }
    }

    /// Tasks that wait.
    pub fn len(&self) -> u64 {
        self.waiting.len() as u64
    }

    /// Tasks that had to wait when they were added.
    pub fn unmatched(&self) -> u64 {
        self.unmatched
    }

    /// The server's statistics, as a caller gets them.
    pub fn stats(&mut self, now: Micros) -> ServerStats {
        let age = self.waiting.front().map_or(0, |first| now - first.since);
        self.server.stats(now, self.waiting.len() as u64, age)
    }

    pub fn add(&mut self, task: u32, now: Micros) {
        self.server.add(now);
        self.waiting.push_back(Waiting { task, since: now });
    }

    /// After a task was added and what could start did: it waits if anything does.
    pub fn note_unmatched(&mut self) {
        self.unmatched += u64::from(!self.waiting.is_empty());
    }

    /// The next task for a free slot. If the rate limit holds it back, its turn is planned.
    pub fn take(&mut self, now: Micros, events: &mut Events) -> Option<Waiting> {
        self.waiting.front()?;
        if let Some(Err(turn)) = self.limiter.as_mut().map(|limiter| limiter.take(now)) {
            self.server.limit(now);
            if !self.turn_planned {
                self.turn_planned = true;
                events.plan(turn, Event::Turn { queue: self.number });
            }
            return None;
        }
        self.server.dispatch(now);
        self.waiting.pop_front()
    }

    /// The planned turn has come.
    pub fn turn_came(&mut self) {
        self.turn_planned = false;
    }
}
