//! What one decision leaves to the next.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::fleet::{Fleet, LaneLoad};
use super::{Input, LONGEST_GAP, STABILIZATION};
use crate::observed::{LaneKey, LaneStats, Observation};

/// Readings of a backlog that no pod takes in before it counts as a ghost: tasks that the server still counts though their
/// Workflow has ended.
const STUCK_READINGS: u32 = 3;
/// Time that such a backlog must have stood.
const STUCK_TIME: Duration = Duration::from_secs(10);
/// Time for which the running tasks of a lane are remembered: the oldest backlog that may raise, and the server's cache.
const USED_HISTORY: Duration = Duration::from_secs(30);
/// Distance of two samples of the running tasks.
const USED_STEP: Duration = Duration::from_millis(500);

/// What is remembered from one decision to the next. The default is what an operator knows after its start: it holds,
/// whatever it sees, until windows have passed.
///
/// Only what does not depend on this process's clock is serialised: the slots of a pod. A state that was read back holds
/// like a new one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Slots of a pod by lane, as last measured.
    #[serde(default, with = "crate::observed::as_list")]
    slots: BTreeMap<LaneKey, u64>,
    #[serde(skip)]
    memory: Memory,
}

/// What is bound to the clock of this process.
#[derive(Clone, Debug, Default, PartialEq)]
struct Memory {
    /// Time of the last decision.
    last: Option<Duration>,
    /// When each need was last seen, oldest first, highest first: a need that a later one reaches is left out.
    needs: Vec<(Duration, u32)>,
    /// Since when nothing started, ran or waited, without a doubt.
    idle_since: Option<Duration>,
    pods: BTreeMap<String, PodMemory>,
    lanes: BTreeMap<LaneKey, LaneMemory>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct PodMemory {
    /// Whether the pod appeared between two decisions, so that nothing of its life was missed.
    from_birth: bool,
    /// Whether it was ever Ready, or told its load.
    worked: bool,
    /// Tasks started, over all lanes, if it ever told.
    started: Option<u64>,
    /// Whether it was being deleted, or named to go, when last seen.
    going: bool,
}

impl PodMemory {
    fn never_worked(self) -> bool {
        self.from_birth && !self.worked
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct LaneMemory {
    /// Running tasks, the least of each step, oldest first.
    used: Vec<(Duration, u64)>,
    /// Tasks started, over all pods.
    started: u64,
    stuck: Option<Stuck>,
}

/// A backlog beside free slots, from which nothing starts.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stuck {
    since: Duration,
    readings: u32,
    /// When the last of them was taken.
    taken: Duration,
}

impl State {
    /// The state to decide with at `now`: all of it, or after too long a gap only what stays true.
    pub(super) fn at(&self, now: Duration) -> Self {
        match self.memory.last {
            Some(last) if now.saturating_sub(last) <= LONGEST_GAP => self.clone(),
            Some(_) | None => Self { slots: self.slots.clone(), memory: Memory::default() },
        }
    }

    /// Notes the pods. Says whether they prove that no task started since the last decision.
    pub(super) fn see_pods(&mut self, input: &Input) -> bool {
        let resumed = self.memory.last.is_some();
        let mut before = std::mem::take(&mut self.memory.pods);
        let mut quiet = true;
        for pod in &input.pods {
            let known = before.remove(&pod.name);
            let mut seen = known.unwrap_or(PodMemory { from_birth: resumed, ..PodMemory::default() });
            seen.going = pod.terminating;
            seen.worked |= pod.ready || pod.load.last().is_some();
            if let Some(load) = pod.load.last() {
                let started = load.lanes.values().fold(0_u64, |sum, slots| sum.saturating_add(slots.started));
                // A counter that went down is a new process: what it started counts as well.
                quiet &= !resumed || started == seen.started.unwrap_or(0);
                seen.started = Some(started);
            }
            self.memory.pods.insert(pod.name.clone(), seen);
        }
        // A pod that vanished unexpectedly may have started a task that nobody will tell of.
        quiet && before.values().all(|vanished| vanished.going || vanished.never_worked())
    }

    /// Notes the pods that should go.
    pub(super) fn see_victims(&mut self, victims: &[String]) {
        for victim in victims {
            if let Some(pod) = self.memory.pods.get_mut(victim) {
                pod.going = true;
            }
        }
    }

    /// Whether a pod was never Ready and never told a load, in all its life.
    pub(super) fn never_worked(&self, pod: &str) -> bool {
        self.memory.pods.get(pod).is_some_and(|seen| seen.never_worked())
    }

    /// Notes the load of every lane.
    pub(super) fn see_lanes(&mut self, input: &Input, fleet: &Fleet<'_>) {
        let mut before = std::mem::take(&mut self.memory.lanes);
        for (key, load) in &fleet.lanes {
            let mut lane = before.remove(*key).unwrap_or_default();
            lane.see(input.lanes.get(*key).unwrap_or(&Observation::Unknown), load, input.now);
            self.memory.lanes.insert((*key).clone(), lane);
            if let Some(slots) = load.slots_per_pod() {
                self.slots.insert((*key).clone(), slots);
            }
        }
    }

    /// Slots of a pod, as last measured.
    pub(super) fn slots(&self, lane: &LaneKey) -> Option<u64> {
        self.slots.get(lane).copied()
    }

    /// The least number of tasks of a lane that ran between two times; 0 if that is not known.
    pub(super) fn used_during(&self, lane: &LaneKey, from: Duration, to: Duration) -> u64 {
        let Some(lane) = self.memory.lanes.get(lane) else { return 0 };
        let Some(first) = lane.used.iter().rposition(|(at, _)| *at <= from) else { return 0 };
        lane.used[first..].iter().take_while(|(at, _)| *at <= from.max(to)).map(|(_, used)| *used).min().unwrap_or(0)
    }

    /// Whether a lane's backlog stands though slots are free.
    pub(super) fn is_stuck(&self, lane: &LaneKey, now: Duration) -> bool {
        let stuck = self.memory.lanes.get(lane).and_then(|lane| lane.stuck);
        stuck.is_some_and(|it| it.readings >= STUCK_READINGS && now.saturating_sub(it.since) > STUCK_TIME)
    }

    /// Notes whether the fleet is proven idle now.
    pub(super) fn see_idle(&mut self, idle: bool, now: Duration) {
        self.memory.idle_since = if idle { self.memory.idle_since.or(Some(now)) } else { None };
    }

    /// Time for which the fleet is proven idle.
    pub(super) fn idle_for(&self, now: Duration) -> Option<Duration> {
        self.memory.idle_since.map(|since| now.saturating_sub(since))
    }

    /// Notes the need, or `current` where it is in doubt or history is missing: then the window starts anew.
    pub(super) fn see_need(&mut self, now: Duration, need: u32, current: u32, doubt: bool) {
        let unsure = doubt || self.memory.last.is_none();
        let need = if unsure { need.max(current) } else { need };
        self.memory.needs.retain(|(at, earlier)| *earlier > need && now.saturating_sub(*at) < STABILIZATION);
        self.memory.needs.push((now, need));
        self.memory.last = Some(now);
    }

    /// The highest need of the last `window`.
    pub(super) fn highest_need(&self, now: Duration, window: Duration) -> Option<Higher> {
        let in_window = |(at, _): &&(Duration, u32)| now.saturating_sub(*at) < window;
        self.memory.needs.iter().find(in_window).map(|(at, need)| Higher { at: *at, need: *need })
    }

    /// When the need was last above `need`, if that is remembered.
    pub(super) fn last_above(&self, need: u32) -> Option<Duration> {
        self.memory.needs.iter().rev().find(|(_, earlier)| *earlier > need).map(|(at, _)| *at)
    }
}

/// A need and when it was last seen.
pub(super) struct Higher {
    pub at: Duration,
    pub need: u32,
}

impl LaneMemory {
    fn see(&mut self, backlog: &Observation<LaneStats>, load: &LaneLoad, now: Duration) {
        self.sample(load.used, now);
        let started = load.started > self.started;
        self.started = load.started;
        self.stuck = match backlog.known() {
            Some(stats) if stats.backlog == 0 => None,
            Some(_) | None if started || load.used > 0 => None,
            Some(_) if load.all_free() => Some(stuck_again(self.stuck, backlog, now)),
            Some(_) | None => self.stuck,
        };
    }

    fn sample(&mut self, used: u64, now: Duration) {
        match self.used.last_mut() {
            Some((at, least)) if now.saturating_sub(*at) < USED_STEP => *least = used.min(*least),
            Some(_) | None => self.used.push((now, used)),
        }
        let start = now.saturating_sub(USED_HISTORY);
        if let Some(first) = self.used.iter().rposition(|(at, _)| *at <= start) {
            self.used.drain(..first);
        }
    }
}

fn stuck_again(before: Option<Stuck>, backlog: &Observation<LaneStats>, now: Duration) -> Stuck {
    let age = match backlog {
        Observation::Known { age, .. } | Observation::Stale { age, .. } => *age,
        Observation::Unknown => Duration::ZERO,
    };
    let taken = now.saturating_sub(age);
    match before {
        Some(stuck) if taken > stuck.taken => Stuck { readings: stuck.readings.saturating_add(1), taken, ..stuck },
        Some(stuck) => stuck,
        None => Stuck { since: now, readings: 1, taken },
    }
}
