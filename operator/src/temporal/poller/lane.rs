//! A lane and its Task Queue, for all fleets that watch it.

use std::time::Duration;

use operator_core::observed::{LaneStats, RateLimit, TaskType};
use tokio::time::Instant;

use super::fleet::Read;
use super::pace::Class;
use super::starts::Started;
use super::timer::Timer;
use crate::changes::FleetId;
use crate::temporal::api::Partitions;

/// A lane without a task for so long is quiet.
const QUIET_AFTER: Duration = Duration::from_secs(1800);
/// Time for which a rate limit stands that is not told any more.
const LIMIT_STANDS: Duration = Duration::from_secs(15);
/// Partitions of a Task Queue until the server told: its default.
const USUAL_PARTITIONS: usize = 4;

/// A Task Queue.
pub(super) struct Queue {
    pub timer: Timer,
    pub partitions: Option<Partitions>,
}

impl Queue {
    pub(super) fn new(now: Instant) -> Self {
        Self { timer: Timer::new(now), partitions: None }
    }

    /// Partitions of one kind of task; the usual number until the server told.
    pub(super) fn partitions_of(&self, task_type: TaskType) -> usize {
        self.partitions.map_or(USUAL_PARTITIONS, |partitions| partitions.of(task_type))
    }
}

/// A lane, for all fleets that watch it.
pub(super) struct Lane {
    pub watchers: Vec<FleetId>,
    pub live_timer: Timer,
    pub next_partition: usize,
    /// Live backlog by partition.
    pub live: Vec<Read<u64>>,
    /// Partitions that are to be read live at once.
    pub hinted: usize,
    pub stats_timer: Timer,
    pub stats: Read<LaneStats>,
    pub first_stats: Option<Instant>,
    pub last_busy: Instant,
    /// Whether it is watched for its first task.
    pub at_zero: bool,
    /// The newest Workflow that was seen to be started on it.
    pub started: Option<Started>,
    /// How its live status is read, if it is.
    pub live_read: Option<Every>,
    /// How its statistics are read, if they are.
    pub stats_read: Option<Every>,
    /// Its rate limit.
    rate_limit: Option<RateLimit>,
    /// First of the readings in a row that did not tell it.
    limit_untold: Option<Instant>,
    /// The last reading did not tell it.
    pub limit_in_doubt: bool,
}

/// How often something is read, and why so often.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Every {
    pub class: Class,
    pub period: Duration,
}

impl Lane {
    pub(super) fn new(partitions: usize, now: Instant) -> Self {
        Self {
            watchers: Vec::new(),
            live_timer: Timer::new(now),
            next_partition: 0,
            live: vec![None; partitions],
            hinted: 0,
            stats_timer: Timer::new(now),
            stats: None,
            first_stats: None,
            last_busy: now,
            at_zero: false,
            started: None,
            live_read: None,
            stats_read: None,
            rate_limit: None,
            limit_untold: None,
            limit_in_doubt: false,
        }
    }

    /// Its rate limit, if it has one.
    pub(super) fn rate_limit(&self) -> Option<RateLimit> {
        self.rate_limit
    }

    /// Takes the limit that a reading told. One without it does not end a limit, however long ago that was told: a limit was
    /// seen to vanish for 0.2 s, just after the first Workers of a queue came, and the fleet got pods that did not help. It
    /// ends when no reading has told it for a while.
    pub(super) fn take_rate_limit(&mut self, told: Option<RateLimit>, asked: Instant) {
        self.limit_untold = told.is_none().then(|| self.limit_untold.unwrap_or(asked));
        let stands = |untold: Instant| asked.saturating_duration_since(untold) < LIMIT_STANDS;
        self.rate_limit = told.or(self.rate_limit.filter(|_| self.limit_untold.is_none_or(stands)));
        self.limit_in_doubt = told.is_none() && self.rate_limit.is_some();
    }

    /// A task may be waiting: it is read at once. The ordinary statistics would show what the server cached; they do where the
    /// server does not tell the live status.
    pub(super) fn hint(&mut self, live_on: bool, now: Instant) {
        match live_on {
            true => self.follow_hint(),
            false => self.stats_timer.hurry(now),
        }
    }

    /// Has each partition read live once more.
    pub(super) fn follow_hint(&mut self) {
        // A read under way may have missed the task.
        self.hinted = self.live.len() + usize::from(self.live_timer.busy);
    }

    /// How often a partition of it is read live: at once, one after the other, while a hint is followed.
    pub(super) fn live_period(&self, partitions: usize) -> Option<Every> {
        if self.hinted > 0 {
            return Some(Every { class: Class::Hot, period: Duration::ZERO });
        }
        let of_each = |every: Every| Every { period: every.period / u32::try_from(partitions).unwrap_or(1), ..every };
        self.live_read.map(of_each)
    }

    /// How urgently it is watched while its fleets are at zero.
    pub(super) fn class_at_zero(&self, now: Instant) -> Class {
        let quiet = now.saturating_duration_since(self.last_busy) >= QUIET_AFTER;
        if quiet { Class::Cold } else { Class::Warm }
    }

    /// Timers of the reads that a decision needs. Without the rate limit it is made all the same.
    pub(super) fn timers(&self) -> impl Iterator<Item = &Timer> {
        let needed = self.stats_read.is_none_or(|every| every.class != Class::Configured);
        needed.then_some(&self.stats_timer).into_iter().chain([&self.live_timer])
    }
}
