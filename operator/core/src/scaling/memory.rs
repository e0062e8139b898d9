//! What is remembered within a process: it is bound to its clock.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::flow::{Flow, real};
use super::guards::Guards;
use super::state::{Learned, Needs, State};
use super::{Input, Pod, Policy, histogram};
use crate::observed::{LaneKey, Observation, SlotUse};

/// Time for which the numbers of replicas are remembered, for limits on steps.
const STEPS_HISTORY: Duration = Duration::from_secs(60);
/// A number that is raised again within this time was at the edge.
const EDGE: Duration = Duration::from_secs(600);
/// Gaps between tasks that are shorter say nothing of an idle window.
const SHORTEST_GAP: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Memory {
    /// Time of the first decision and of the last.
    pub first: Option<Duration>,
    pub last: Option<Duration>,
    pub needs: Needs,
    /// Numbers of replicas, oldest first, each with the time when it was first seen.
    pub steps: VecDeque<(Duration, u32)>,
    /// When the number was last lowered, and from what.
    lowered: Option<(Duration, u32)>,
    /// Until when it is not lowered again, for it was raised soon after.
    pub swung_until: Option<Duration>,
    /// The number to which it was raised again though nothing waited: the load is at the edge between two numbers.
    pub edge: Option<u32>,
    /// Since when nothing started, ran or waited, without a doubt.
    pub idle_since: Option<Duration>,
    /// Since when the backlog for which the latch stands is gone.
    pub empty_since: Option<Duration>,
    /// When the fleet was last at zero.
    pub at_zero: Option<Duration>,
    pub pods: BTreeMap<String, PodMemory>,
    #[serde(with = "crate::observed::as_list")]
    pub lanes: BTreeMap<LaneKey, LaneMemory>,
    pub guards: Guards,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct PodMemory {
    /// When it was ordered, if it appeared between two decisions, so that nothing of its life was missed.
    pub born: Option<Duration>,
    /// When it was first seen.
    pub seen: Duration,
    /// When it was first seen Ready; none too if it was so when first seen.
    pub ready_at: Option<Duration>,
    /// Whether it was ever Ready, or told its load.
    worked: bool,
    /// Tasks started, over all lanes, if it ever told.
    started: Option<u64>,
    /// Whether it was being deleted, or named to go, when last seen.
    pub going: bool,
    /// What the last decision said of it.
    pub named: bool,
    pub cordoned: bool,
    /// When its restarts were counted, and how many there were.
    pub restarts: (Duration, u32),
    readings: Vec<(LaneKey, Reading)>,
}

/// A lane's load in a pod, as last read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Reading {
    taken: Duration,
    used: u64,
    started: u64,
    /// Starts that were in time, and those of which it is known.
    waits: (f64, f64),
    /// Ends that took how long is known, those that may have outlasted the grace period, those that did.
    runs: [f64; 3],
    /// Ends, and the most seconds that they took together.
    longest: [f64; 2],
}

impl PodMemory {
    fn new(pod: &Pod, resumed: Option<Duration>, now: Duration) -> Self {
        let restarts = if resumed.is_some() { 0 } else { pod.restarts };
        Self { born: resumed, seen: now, restarts: (now, restarts), ..Self::default() }
    }

    /// Whether it was never Ready and never told a load, in all its life.
    pub fn never_worked(&self) -> bool {
        self.born.is_some() && !self.worked
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct LaneMemory {
    pub flow: Flow,
    /// Starts that were noted by the last decision.
    pub started: u64,
    /// A backlog beside free slots, from which nothing starts.
    pub stuck: Option<Standing>,
    /// The same, from which some start.
    pub starved: Option<Standing>,
    /// Whether the queue gives out no more than it does, by the server's word or by the look of it.
    pub limited: bool,
    /// When CPU was last measured.
    pub cpu_at: Option<Duration>,
}

/// Something that several readings in a row say.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Standing {
    pub since: Duration,
    readings: u32,
    /// When the last of them was taken.
    taken: Duration,
}

/// Readings that make it true, and the time between the first and the last.
const STANDING_READINGS: u32 = 3;
const STANDING_TIME: Duration = Duration::from_secs(10);

impl Standing {
    /// Notes that a reading of `taken` says so again.
    pub fn again(before: Option<Self>, taken: Duration, now: Duration) -> Self {
        match before {
            Some(it) if taken > it.taken => Self { readings: it.readings.saturating_add(1), taken, ..it },
            Some(it) => it,
            None => Self { since: now, readings: 1, taken },
        }
    }

    /// Whether enough readings say so.
    pub fn holds(self, now: Duration) -> bool {
        self.readings >= STANDING_READINGS && now.saturating_sub(self.since) > STANDING_TIME
    }
}

/// What a lane's pods did since the last decision.
#[derive(Clone, Copy, Debug, Default)]
struct Change {
    started: u64,
    ended: u64,
    busy: f64,
    timed: f64,
    seconds: f64,
    on_time: f64,
    waited: f64,
    runs: [f64; 3],
    longest: [f64; 2],
}

impl State {
    /// Notes the pods and what their counters say. Says whether they prove that no task started since the last decision.
    pub(super) fn see_pods(&mut self, policy: &Policy, input: &Input) -> bool {
        let resumed = self.memory.last;
        let mut before = std::mem::take(&mut self.memory.pods);
        let mut changes: BTreeMap<&LaneKey, Change> =
            input.lanes.keys().map(|lane| (lane, Change::default())).collect();
        let mut quiet = true;
        for pod in &input.pods {
            let (name, mut seen) = before
                .remove_entry(&pod.name)
                .unwrap_or_else(|| (pod.name.clone(), PodMemory::new(pod, resumed, input.now)));
            self.learned.see_life(&mut seen, pod, input.now, resumed);
            quiet &= seen.is_quiet(pod, resumed.is_some());
            seen.see_load(policy, input, pod, &mut changes);
            self.memory.pods.insert(name, seen);
        }
        self.see_changes(input, &changes);
        // A pod that vanished unexpectedly may have started a task that nobody will tell of.
        quiet && before.values().all(|vanished| vanished.going || vanished.never_worked())
    }

    fn see_changes(&mut self, input: &Input, changes: &BTreeMap<&LaneKey, Change>) {
        let passed = self.memory.last.map_or(Duration::ZERO, |last| input.now.saturating_sub(last)).as_secs_f64();
        let settling = self.memory.at_zero.is_some_and(|at| input.now.saturating_sub(at) <= self.start_up() * 2);
        let (mut waited, mut late) = (0.0, 0.0);
        for (lane, change) in changes {
            let memory = entry(&mut self.memory.lanes, lane);
            memory.flow.count(change.started, change.ended);
            let lesson = entry(&mut self.learned.lanes, lane);
            if change.seconds > 0.0 {
                lesson.service.see(change.busy, change.timed, change.seconds);
            }
            let [ended, maybe, longer] = change.runs;
            if ended > 0.0 {
                lesson.tail.see(ended, maybe, longer);
            }
            let [ended, seconds] = change.longest;
            if ended > 0.0 {
                lesson.longest.see(seconds, ended, change.seconds);
            }
            // What a limit of the queue holds back is not the fleet's to answer for.
            if !memory.limited {
                waited += change.waited;
                late += (change.waited - change.on_time).max(0.0);
            }
        }
        if settling {
            (waited, late) = (0.0, 0.0);
        }
        self.learned.feedback.see(waited, late, passed);
    }

    /// Notes the pods that should go, and those that should take no task.
    pub(super) fn see_orders(&mut self, victims: &[String], cordon: &[String]) {
        for pod in self.memory.pods.values_mut() {
            (pod.named, pod.cordoned) = (false, false);
        }
        for victim in victims {
            if let Some(pod) = self.memory.pods.get_mut(victim) {
                (pod.going, pod.named) = (true, true);
            }
        }
        for name in cordon {
            if let Some(pod) = self.memory.pods.get_mut(name) {
                pod.cordoned = true;
            }
        }
    }

    /// Notes whether the fleet is proven idle now, and if not so for want of proof only.
    pub(super) fn see_idle(&mut self, idle: bool, doubt: bool, now: Duration) {
        let before = self.memory.idle_since;
        self.memory.idle_since = if idle { before.or(Some(now)) } else { None };
        let gap = before.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        if !idle && !doubt && gap >= SHORTEST_GAP {
            self.learned.gaps.see(gap);
        }
    }

    /// Time for which the fleet is proven idle.
    pub(super) fn idle_for(&self, now: Duration) -> Option<Duration> {
        self.memory.idle_since.map(|since| now.saturating_sub(since))
    }
}

impl Learned {
    /// Notes where a pod is in its life.
    fn see_life(&mut self, seen: &mut PodMemory, pod: &Pod, now: Duration, before: Option<Duration>) {
        seen.going = pod.terminating;
        let became_ready = pod.ready && !seen.worked && !pod.terminating;
        if let (true, Some(born), Some(last)) = (became_ready, seen.born, before) {
            // It became so between two decisions.
            let ready = (last + now) / 2;
            seen.ready_at = Some(now);
            self.start_ups.see(ready.saturating_sub(born));
        }
        self.proven |= pod.ready;
        seen.worked |= pod.ready || pod.load.last().is_some();
    }
}

impl PodMemory {
    fn is_quiet(&mut self, pod: &Pod, resumed: bool) -> bool {
        let Some(load) = pod.load.last() else { return true };
        let started = load.lanes.values().fold(0_u64, |sum, slots| sum.saturating_add(slots.started));
        // A counter that went down is a new process: what it started counts as well.
        let quiet = !resumed || started == self.started.unwrap_or(0);
        self.started = Some(started);
        quiet
    }

    /// Adds to `changes` what the pod's counters say since they were last read.
    fn see_load<'a>(
        &mut self,
        policy: &Policy,
        input: &Input,
        pod: &'a Pod,
        changes: &mut BTreeMap<&'a LaneKey, Change>,
    ) {
        let (Observation::Known { value, age } | Observation::Stale { value, age }) = &pod.load else { return };
        let taken = input.now.saturating_sub(*age);
        for (lane, slots) in &value.lanes {
            let reading = Reading::of(policy, input, slots, taken);
            let change = changes.entry(lane).or_default();
            match self.readings.iter_mut().find(|(key, _)| key == lane) {
                Some((_, before)) if reading.taken > before.taken => {
                    change.between(before, &reading);
                    *before = reading;
                }
                Some(_) => {}
                None => {
                    if self.born.is_some() {
                        change.counters(&Reading::default(), &reading);
                    }
                    self.readings.push((lane.clone(), reading));
                }
            }
        }
    }
}

impl Reading {
    fn of(policy: &Policy, input: &Input, slots: &SlotUse, taken: Duration) -> Self {
        let waits = histogram::within(&slots.waits, policy.target_latency).unwrap_or((0.0, 0.0));
        let runs = histogram::beyond(&slots.runs, input.grace).unwrap_or_default();
        let longest = histogram::at_most(&slots.runs);
        Self { taken, used: slots.used, started: slots.started, waits, runs, longest }
    }

    fn ended(&self) -> u64 {
        self.started.saturating_sub(self.used)
    }
}

impl Change {
    fn between(&mut self, before: &Reading, now: &Reading) {
        let seconds = now.taken.saturating_sub(before.taken).as_secs_f64();
        if now.started >= before.started {
            self.busy += f64::midpoint(real(before.used), real(now.used)) * seconds;
            self.timed += real(now.ended().saturating_sub(before.ended()));
            self.seconds = self.seconds.max(seconds);
            self.counters(before, now);
        } else {
            // A new process.
            self.counters(&Reading::default(), now);
        }
    }

    fn counters(&mut self, before: &Reading, now: &Reading) {
        self.started = self.started.saturating_add(now.started.saturating_sub(before.started));
        self.ended = self.ended.saturating_add(now.ended().saturating_sub(before.ended()));
        self.on_time += (now.waits.0 - before.waits.0).max(0.0);
        self.waited += (now.waits.1 - before.waits.1).max(0.0);
        add_growth(&mut self.runs, now.runs, before.runs);
        add_growth(&mut self.longest, now.longest, before.longest);
    }
}

/// Adds what counters grew by.
fn add_growth<const N: usize>(sums: &mut [f64; N], now: [f64; N], before: [f64; N]) {
    for (sum, (new, old)) in sums.iter_mut().zip(now.into_iter().zip(before)) {
        *sum += (new - old).max(0.0);
    }
}

impl Memory {
    /// Notes the number of replicas.
    pub fn see_step(&mut self, now: Duration, replicas: u32) {
        if self.steps.back().is_none_or(|(_, last)| *last != replicas) {
            self.steps.push_back((now, replicas));
        }
        // The oldest that is kept was there when the history begins.
        while self.steps.get(1).is_some_and(|(at, _)| now.saturating_sub(*at) >= STEPS_HISTORY) {
            self.steps.pop_front();
        }
        if replicas == 0 {
            self.at_zero = Some(now);
        }
        self.first.get_or_insert(now);
    }

    /// Notes a change of the number. One that is raised soon after it was lowered is not lowered again for `hold`, so that a
    /// load that swings with the hold swings the fleet no faster. If nothing waited, the load is at the edge between two
    /// numbers, and chance alone moves it.
    pub fn see_change(&mut self, now: Duration, (from, to): (u32, u32), waiting: bool, hold: Duration) {
        if to < from {
            (self.lowered, self.edge) = (Some((now, from)), None);
        }
        if let Some((at, before)) = self.lowered.filter(|_| to > from) {
            let since = now.saturating_sub(at);
            self.edge = (!waiting && to <= before && since < EDGE).then_some(to);
            self.swung_until = if since < hold { Some(now + hold) } else { self.swung_until };
        }
        self.see_step(now, to);
    }

    /// The least and the most replicas within `time`.
    pub fn steps_within(&self, now: Duration, time: Duration, replicas: u32) -> (u32, u32) {
        let (mut least, mut most) = (replicas, replicas);
        for (at, step) in self.steps.iter().rev() {
            (least, most) = (least.min(*step), most.max(*step));
            if now.saturating_sub(*at) >= time {
                break;
            }
        }
        (least, most)
    }
}

/// The value of a key, made if it is missing.
pub(super) fn entry<'a, V: Default>(map: &'a mut BTreeMap<LaneKey, V>, key: &LaneKey) -> &'a mut V {
    map.entry(key.clone()).or_default()
}
