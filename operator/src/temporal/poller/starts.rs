//! New Workflows on Task Queues at zero that are too many to be swept each second: one call tells of those of a hundred.
//!
//! The server's index of Workflows knows who was started and on which Task Queue, but not whether a task waits; so what it tells
//! is a hint, after which the queue's partitions are read. It knows of no other tasks: these are found by the sweep.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use operator_core::observed::{LaneKey, TaskType};
use tokio::time::Instant;

use super::lane::Lane;
use super::state::State;
use super::timer::Timer;

/// Queues that one call asks for.
const QUEUES: usize = 100;
/// A lane that is swept at least so often is not asked for.
const SWEPT_OFTEN: Duration = Duration::from_secs(1);
/// Hints that one Workflow gives: the index may know of it before its task waits.
const HINTS: u8 = 3;
/// A server that does not tell of Workflows is asked again after this.
const RETRY: Duration = Duration::from_secs(600);

/// The reading of new Workflows of a namespace.
#[derive(Default)]
pub(super) struct Starts {
    /// Timer of the call, from the first time on that it is wanted.
    pub timer: Option<Timer>,
    /// The last queue that was asked for: the next call begins after it.
    last: String,
    off_until: Option<Instant>,
    wanted: bool,
}

/// The newest Workflow that was seen to be started on a lane, and the hints that it gave.
#[derive(Clone, Copy)]
pub(super) struct Started {
    at: Timestamp,
    hints: u8,
}

impl State {
    /// Decides whether new Workflows are asked for.
    pub(super) fn plan_starts(&mut self, now: Instant) {
        let is_off = self.starts.off_until.is_some_and(|until| now < until);
        self.starts.wanted = !is_off && self.lanes.iter().any(|(key, lane)| needs_hints(key, lane));
        if self.starts.wanted {
            self.starts.timer.get_or_insert_with(|| Timer::new(now));
        }
    }

    /// The timer of the call, if it is wanted.
    pub(super) fn wanted_starts(&self) -> Option<&Timer> {
        self.starts.timer.as_ref().filter(|_| self.starts.wanted)
    }

    /// The queues that the next call asks for: in their order, and from the first one again after the last.
    pub(super) fn queues_of_starts(&self) -> Vec<String> {
        let needed = self.lanes.iter().filter(|(key, lane)| needs_hints(key, lane)).map(|(key, _)| &key.task_queue);
        let names: BTreeSet<&String> = needed.collect();
        let after =
            names.range::<String, _>((std::ops::Bound::Excluded(&self.starts.last), std::ops::Bound::Unbounded));
        let then = names.iter().copied().take_while(|name| **name <= self.starts.last);
        after.copied().chain(then).take(QUEUES).cloned().collect()
    }

    /// Takes when the newest Workflow of each queue was started, of those that were asked for.
    pub(super) fn take_starts(&mut self, queues: &[String], newest: BTreeMap<String, Timestamp>, now: Instant) {
        self.starts.last = queues.last().cloned().unwrap_or_default();
        let live_on = self.live_on(now);
        for (task_queue, at) in newest {
            let key = LaneKey { task_queue, task_type: TaskType::Workflow };
            let Some(lane) = self.lanes.get_mut(&key).filter(|lane| needs_hints(&key, lane)) else { continue };
            if lane.hints_of(at) {
                lane.hint(live_on, now);
            }
        }
    }

    /// The server does not tell, or not to us.
    pub(super) fn starts_unsupported(&mut self, now: Instant) {
        self.starts.off_until = Some(now + RETRY);
        self.replan();
    }
}

/// Whether a Workflow on a lane would be found late without a hint. A name that a query would have to escape is not asked for.
fn needs_hints(key: &LaneKey, lane: &Lane) -> bool {
    let is_late = lane.at_zero && lane.live_read.is_none_or(|every| every.period > SWEPT_OFTEN);
    is_late && key.task_type == TaskType::Workflow && !key.task_queue.contains(['\'', '"', '\\'])
}

impl Lane {
    /// Whether a Workflow that was started then is news.
    fn hints_of(&mut self, at: Timestamp) -> bool {
        let hints = self.started.filter(|started| started.at >= at).map_or(0, |started| started.hints);
        let is_news = hints < HINTS;
        if is_news {
            self.started = Some(Started { at, hints: hints + 1 });
        }
        is_news
    }
}
