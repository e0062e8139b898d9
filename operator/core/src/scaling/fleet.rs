//! The pods of a fleet, summed up once for a decision.

use std::collections::BTreeMap;
use std::time::Duration;

use super::flow::real;
use super::memory::PodMemory;
use super::state::State;
use super::{Input, Pod};
use crate::observed::{LaneKey, Observation, PodLoad, SlotUse, Unreadable};

/// Time after which a Ready pod polls for certain.
const SETTLED: Duration = Duration::from_secs(10);

/// Time after which a Ready pod that never told its load is silent.
const FIRST_WORD: Duration = Duration::from_secs(30);

/// What the pods say together.
pub(super) struct Fleet<'a> {
    /// Load by lane.
    pub lanes: BTreeMap<&'a LaneKey, LaneLoad>,
    /// Pods that are not being deleted.
    pub existing: usize,
    /// Those of them that are cordoned.
    pub cordoned: usize,
    /// Those of them that take tasks.
    pub ready: usize,
    /// Those of them that should have told their load, and did not.
    pub silent: usize,
    /// How long each pod that is not Ready yet has been starting.
    pub starting: Vec<Duration>,
    /// Those that prove to run nothing.
    pub idle: Vec<&'a Pod>,
    /// Those that prove to run something.
    pub busy: Vec<&'a Pod>,
    /// Whether a pod that is not Ready may run a task. A ReplicaSet removes such pods first, whatever their deletion cost,
    /// so nothing is removed while there is one.
    pub unready_may_work: bool,
    /// The first pod, of all, whose load is not proven.
    pub unproven: Option<Unproven<'a>>,
    /// Tasks that run on all pods whose load is known, those that are being deleted too.
    pub in_flight: u64,
    /// Age of the oldest load that is known.
    pub oldest: Duration,
}

/// Load of one lane, on pods that are not being deleted, not cordoned, and whose load is known.
#[derive(Default)]
pub(super) struct LaneLoad {
    /// Slots that run a task.
    pub used: u64,
    /// Slots of each Ready pod, where they are a number.
    slots: Vec<u64>,
    /// The most tasks that one of the other pods runs.
    pub unlimited: Option<u64>,
    /// Ready pods with free slots and no task of this lane.
    free_pods: usize,
    /// Free slots and all slots of Ready pods.
    pub free: u64,
    pub all: u64,
    /// The same of pods that are Ready for [`SETTLED`].
    settled: (u64, u64),
    /// Tasks and CPU of pods with CPU to spare, and tasks and number of those without.
    pub cpu: [(f64, f64); 2],
    /// Age of the oldest reading.
    pub age: Option<Duration>,
}

/// Shares of a pod's CPU between which it says how many tasks it could run.
const CPU_RANGE: std::ops::Range<f64> = 0.15..0.9;

impl LaneLoad {
    /// The lower median of the pods' slots: a pod that differs for a while, after a change of limits, does not decide.
    pub fn slots_per_pod(&self) -> Option<u64> {
        let mut slots = self.slots.clone();
        slots.sort_unstable();
        slots.get(slots.len().saturating_sub(1) / 2).copied()
    }

    /// Whether every Ready pod, and there is one, has free slots and runs nothing of this lane.
    pub fn all_free(&self, ready: usize) -> bool {
        ready > 0 && self.free_pods == ready
    }

    /// Whether more than one in five slots is free: then no task waits.
    pub fn has_room(&self) -> bool {
        self.free.saturating_mul(5) > self.all
    }

    /// Whether one in seven slots is free on pods that poll for certain: then a task that waits is held back by something
    /// else.
    pub fn has_settled_room(&self) -> bool {
        let (free, all) = self.settled;
        all > 0 && free.saturating_mul(20) >= all.saturating_mul(3)
    }

    /// Whether one in twenty slots or less is free.
    pub fn is_full(&self) -> bool {
        self.all > 0 && self.free.saturating_mul(20) <= self.all
    }

    fn add(&mut self, pod: &Pod, slots: &SlotUse, cpu: Option<f64>, settled: bool) {
        self.used = self.used.saturating_add(slots.used);
        let all = slots.used.saturating_add(slots.available);
        if !pod.ready {
            return;
        }
        if slots.unlimited {
            self.unlimited = self.unlimited.max(Some(slots.used));
        } else if all > 0 {
            self.slots.push(all);
        }
        self.free = self.free.saturating_add(slots.available);
        self.all = self.all.saturating_add(all);
        if settled {
            self.settled = (self.settled.0.saturating_add(slots.available), self.settled.1.saturating_add(all));
        }
        if slots.used == 0 && slots.available > 0 {
            self.free_pods += 1;
        }
        if let Some(cpu) = cpu.filter(|cpu| *cpu > CPU_RANGE.start && slots.used > 0) {
            let (at, weight) = if cpu < CPU_RANGE.end { (0, cpu) } else { (1, 1.0) };
            self.cpu[at] = (self.cpu[at].0 + real(slots.used), self.cpu[at].1 + weight);
        }
    }
}

/// Why a pod's load proves nothing.
pub(super) enum Unproven<'a> {
    /// It was read too long ago, or never, and why.
    Load { pod: &'a str, age: Option<Duration>, why: Option<&'a Unreadable> },
    /// It says nothing of a lane that the fleet serves.
    Lane { pod: &'a str, lane: &'a LaneKey },
}

/// What a pod is known to do.
enum Work<'a> {
    Idle,
    Busy,
    Unproven(Unproven<'a>),
}

impl<'a> Fleet<'a> {
    /// Sums up the pods of `input`. `state` has seen them already.
    pub fn of(input: &'a Input, state: &State) -> Self {
        let mut fleet = Self {
            lanes: input.lanes.keys().map(|lane| (lane, LaneLoad::default())).collect(),
            existing: 0,
            cordoned: 0,
            ready: 0,
            silent: 0,
            starting: Vec::new(),
            idle: Vec::new(),
            busy: Vec::new(),
            unready_may_work: false,
            unproven: None,
            in_flight: 0,
            oldest: Duration::ZERO,
        };
        // Pods that a decrease has named already, while it is carried out, count like cordoned ones.
        let existing = input.pods.iter().filter(|pod| !pod.terminating).count();
        let too_many = existing > usize::try_from(input.current).unwrap_or(usize::MAX);
        for pod in &input.pods {
            let memory = state.memory.pods.get(&pod.name);
            let named = memory.is_some_and(|memory| memory.cordoned || memory.named && too_many);
            let cordoned = named || pod.cordoned;
            fleet.count(pod, memory, cordoned, input.now);
            fleet.add_load(pod, memory, cordoned, input.now);
            fleet.add_work(pod, work(pod, input, memory));
        }
        fleet
    }

    /// Pods that take tasks, or will.
    pub fn serving(&self) -> usize {
        self.existing - self.cordoned
    }

    fn count(&mut self, pod: &Pod, memory: Option<&PodMemory>, cordoned: bool, now: Duration) {
        if pod.terminating {
            return;
        }
        self.existing += 1;
        self.cordoned += usize::from(cordoned);
        if pod.ready {
            self.ready += usize::from(!cordoned);
            let since = memory.and_then(|memory| memory.ready_at);
            let told = pod.load.known().is_some() || since.is_some_and(|at| now.saturating_sub(at) < FIRST_WORD);
            self.silent += usize::from(!cordoned && !told);
        } else {
            let born = memory.and_then(|memory| memory.born).unwrap_or(Duration::ZERO);
            self.starting.push(now.saturating_sub(born));
        }
    }

    fn add_load(&mut self, pod: &'a Pod, memory: Option<&PodMemory>, cordoned: bool, now: Duration) {
        let (Observation::Known { value: load, age } | Observation::Stale { value: load, age }) = &pod.load else {
            return;
        };
        let known = pod.load.known().is_some();
        self.oldest = if known { self.oldest.max(*age) } else { self.oldest };
        let settled = memory.and_then(|memory| memory.ready_at).is_none_or(|at| now.saturating_sub(at) >= SETTLED);
        for (key, slots) in &load.lanes {
            let lane = self.lanes.entry(key).or_default();
            lane.age = lane.age.max(Some(*age));
            if !known {
                continue;
            }
            self.in_flight = self.in_flight.saturating_add(slots.used);
            if !pod.terminating && !cordoned {
                lane.add(pod, slots, load.cpu, settled);
            }
        }
    }

    fn add_work(&mut self, pod: &'a Pod, work: Work<'a>) {
        match work {
            Work::Unproven(why) => {
                self.unready_may_work |= !pod.ready && !pod.terminating;
                self.unproven.get_or_insert(why);
            }
            Work::Idle if !pod.terminating => self.idle.push(pod),
            Work::Busy if !pod.terminating => {
                self.unready_may_work |= !pod.ready;
                self.busy.push(pod);
            }
            Work::Idle | Work::Busy => {}
        }
    }
}

fn work<'a>(pod: &'a Pod, input: &'a Input, memory: Option<&PodMemory>) -> Work<'a> {
    match &pod.load {
        Observation::Known { value, .. } => work_by_load(pod, value, input),
        Observation::Stale { age, .. } => Work::Unproven(unread(pod, Some(*age))),
        Observation::Unknown if memory.is_some_and(PodMemory::never_worked) => Work::Idle,
        Observation::Unknown => Work::Unproven(unread(pod, None)),
    }
}

fn unread(pod: &Pod, age: Option<Duration>) -> Unproven<'_> {
    Unproven::Load { pod: &pod.name, age, why: pod.unreadable.as_ref() }
}

fn work_by_load<'a>(pod: &'a Pod, load: &PodLoad, input: &'a Input) -> Work<'a> {
    match input.lanes.keys().find(|lane| !load.lanes.contains_key(*lane)) {
        Some(lane) => Work::Unproven(Unproven::Lane { pod: &pod.name, lane }),
        None if load.lanes.values().any(|slots| slots.used > 0) => Work::Busy,
        None => Work::Idle,
    }
}
