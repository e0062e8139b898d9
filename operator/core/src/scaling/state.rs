//! What one decision leaves to the next.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::lessons::{Feedback, Gaps, Service, StartUps, Tail};
use super::memory::Memory;
use super::{Input, LONGEST_GAP};
use crate::observed::LaneKey;

/// Age up to which a state that was written down is worth reading.
pub const STATE_VALID_FOR: Duration = Duration::from_secs(24 * 3_600);

/// What is remembered from one decision to the next. The default is what an operator knows at first: it holds, whatever it
/// sees, until windows have passed.
///
/// Serialised it is what survives a restart: nothing in it depends on this process's clock. A state that was read back holds
/// like a new one. For all of it: [`State::recording`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    #[serde(flatten)]
    pub(super) learned: Learned,
    #[serde(skip)]
    pub(super) memory: Memory,
}

/// A state with what is bound to the clock of the process that made it, to repeat its decisions elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    learned: Learned,
    memory: Memory,
}

/// What holds beyond a process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Learned {
    /// The pod template for which the lessons count.
    pub template: String,
    /// Whether a pod of it was ever Ready.
    pub proven: bool,
    #[serde(with = "crate::observed::as_list")]
    pub lanes: BTreeMap<LaneKey, Lesson>,
    pub start_ups: StartUps,
    pub feedback: Feedback,
    pub gaps: Gaps,
    /// Pods that a backlog called for which is not worked off.
    pub latch: Option<u32>,
    /// Pods of the last decision.
    pub desired: Option<u32>,
}

/// What is learned of a lane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Lesson {
    /// Slots of a pod, as last measured.
    pub slots: Option<u64>,
    /// Whether its Worker has no fixed number of them.
    pub unlimited: bool,
    pub service: Service,
    /// The same at most, of the tasks that ended, by the Worker's own histogram.
    pub longest: Service,
    pub tail: Tail,
    /// Tasks at which a pod's CPU would be used up.
    pub per_cpu: Option<f64>,
    /// Tasks a second of a pod, by the server alone.
    pub per_pod: Option<f64>,
    /// The highest throughput seen at a rate limit.
    pub limit: Option<f64>,
}

impl State {
    /// A state that was written down `age` ago: nothing if that is too long.
    #[must_use]
    pub fn restored(self, age: Duration) -> Self {
        if age > STATE_VALID_FOR { Self::default() } else { Self { memory: Memory::default(), ..self } }
    }

    /// All of the state.
    #[must_use]
    pub fn recording(&self) -> Recording {
        Recording { learned: self.learned.clone(), memory: self.memory.clone() }
    }

    /// The state without the counts that fade with time alone, to tell whether another one is worth writing down.
    #[must_use]
    pub fn without_fading(&self) -> Self {
        let mut state = self.clone();
        state.learned.feedback = state.learned.feedback.without_counts();
        state
    }

    /// The state to decide with: all of it, or after too long a gap, or for another template, only what stays true.
    pub(super) fn at(&self, input: &Input) -> Self {
        let recent = self.memory.last.is_some_and(|last| input.now.saturating_sub(last) <= LONGEST_GAP);
        let mut next =
            if recent { self.clone() } else { Self { learned: self.learned.clone(), memory: Memory::default() } };
        if next.learned.template != input.template {
            next.learned.template.clone_from(&input.template);
            next.learned.lanes.clear();
            next.learned.latch = None;
            next.learned.proven = false;
            next.memory.guards = super::guards::Guards::default();
        }
        next
    }

    /// The first lane whose tasks are known to run longer than `grace`: in the mean, or one of a hundred.
    #[must_use]
    pub fn outlasting(&self, grace: Duration) -> Option<&LaneKey> {
        let outlasts = |lesson: &Lesson| {
            lesson.tail.outlast() || lesson.service.known().is_some_and(|seconds| seconds > grace.as_secs_f64())
        };
        self.learned.lanes.iter().find(|(_, lesson)| outlasts(lesson)).map(|(lane, _)| lane)
    }

    /// Time from the order of a pod until it is Ready, for three of four.
    #[must_use]
    pub fn start_up(&self) -> Duration {
        self.learned.start_ups.most()
    }
}

impl From<Recording> for State {
    fn from(Recording { learned, memory }: Recording) -> Self {
        Self { learned, memory }
    }
}

/// Needs and when each was last seen, oldest first, highest first: a need that a later one reaches is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Needs(VecDeque<(Duration, u32)>);

/// Longest time that a need counts.
pub(super) const LONGEST_HOLD: Duration = Duration::from_secs(600);
/// Needs at shorter distances are one, at the later time.
const NEED_STEP: Duration = Duration::from_secs(1);

impl Needs {
    /// Notes a need.
    pub fn see(&mut self, now: Duration, need: u32) {
        while self.0.back().is_some_and(|(_, earlier)| *earlier <= need) {
            self.0.pop_back();
        }
        match self.0.back_mut() {
            Some((at, _)) if now.saturating_sub(*at) < NEED_STEP => *at = now,
            Some(_) | None => self.0.push_back((now, need)),
        }
        while self.0.front().is_some_and(|(at, _)| now.saturating_sub(*at) >= LONGEST_HOLD) {
            self.0.pop_front();
        }
    }

    /// The highest need within `window`, and when it was last seen.
    pub fn highest(&self, now: Duration, window: Duration) -> Option<(Duration, u32)> {
        self.0.iter().find(|(at, _)| now.saturating_sub(*at) < window).copied()
    }

    /// When the need was last above `need`, if that is remembered.
    pub fn last_above(&self, need: u32) -> Option<Duration> {
        self.0.iter().rev().find(|(_, earlier)| *earlier > need).map(|(at, _)| *at)
    }
}
