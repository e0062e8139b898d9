//! The pods of a fleet, summed up once for a decision.

use std::collections::BTreeMap;
use std::time::Duration;

use super::state::State;
use super::{Input, Pod};
use crate::observed::{LaneKey, Observation, PodLoad};

/// What the pods say together.
pub(super) struct Fleet<'a> {
    /// Load by lane.
    pub lanes: BTreeMap<&'a LaneKey, LaneLoad>,
    /// Pods that are not being deleted.
    pub existing: usize,
    /// Those of them that prove to run nothing, in the order in which they should go.
    pub idle: Vec<&'a Pod>,
    /// Whether a pod that is not Ready may run a task. A ReplicaSet removes such pods first, whatever their deletion cost,
    /// so nothing is removed while there is one.
    pub unready_may_work: bool,
    /// The first pod, of all, whose load is not proven.
    pub unproven: Option<Unproven<'a>>,
    /// Tasks that run on all pods whose load is known, those that are being deleted too.
    pub in_flight: u64,
}

/// Load of one lane.
#[derive(Default)]
pub(super) struct LaneLoad {
    /// Slots that run a task, on pods that are not being deleted and whose load is known.
    pub used: u64,
    /// Tasks started, by every pod that ever told; the last reading, however old.
    pub started: u64,
    /// Slots of each Ready pod.
    slots: Vec<u64>,
    /// Ready pods with free slots and no task of this lane.
    free_pods: usize,
    /// Ready pods.
    ready_pods: usize,
}

impl LaneLoad {
    /// The lower median of the pods' slots: a pod that differs for a while, after a change of limits, does not decide.
    pub fn slots_per_pod(&self) -> Option<u64> {
        let mut slots = self.slots.clone();
        slots.sort_unstable();
        slots.get(slots.len().saturating_sub(1) / 2).copied()
    }

    /// Whether every Ready pod, and there is one, has free slots and runs nothing of this lane.
    pub fn all_free(&self) -> bool {
        self.ready_pods > 0 && self.free_pods == self.ready_pods
    }
}

/// Why a pod's load proves nothing.
pub(super) enum Unproven<'a> {
    /// It was read too long ago, or never.
    Load { pod: &'a str, age: Option<Duration> },
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
            idle: Vec::new(),
            unready_may_work: false,
            unproven: None,
            in_flight: 0,
        };
        for pod in &input.pods {
            fleet.add_load(pod);
            fleet.add_work(pod, work(pod, input, state));
        }
        fleet.count_ready(input);
        fleet.idle.sort_by(|a, b| (a.ready, &a.name).cmp(&(b.ready, &b.name)));
        fleet
    }

    /// Pods that a decrease must leave, so that none but idle ones can be hit.
    pub fn kept(&self) -> usize {
        if self.unready_may_work { self.existing } else { self.existing - self.idle.len() }
    }

    fn add_load(&mut self, pod: &'a Pod) {
        for (key, slots) in pod.load.last().into_iter().flat_map(|load| &load.lanes) {
            let lane = self.lanes.entry(key).or_default();
            lane.started = lane.started.saturating_add(slots.started);
            if pod.load.known().is_none() {
                continue;
            }
            self.in_flight = self.in_flight.saturating_add(slots.used);
            if pod.terminating {
                continue;
            }
            lane.used = lane.used.saturating_add(slots.used);
            let all = slots.used.saturating_add(slots.available);
            if pod.ready && all > 0 {
                lane.slots.push(all);
            }
            if pod.ready && slots.used == 0 && slots.available > 0 {
                lane.free_pods += 1;
            }
        }
    }

    fn add_work(&mut self, pod: &'a Pod, work: Work<'a>) {
        if !pod.terminating {
            self.existing += 1;
            match work {
                Work::Idle => self.idle.push(pod),
                Work::Busy | Work::Unproven(_) => self.unready_may_work |= !pod.ready,
            }
        }
        if let (Work::Unproven(why), None) = (work, &self.unproven) {
            self.unproven = Some(why);
        }
    }

    fn count_ready(&mut self, input: &Input) {
        let ready = input.pods.iter().filter(|pod| pod.ready && !pod.terminating).count();
        for lane in self.lanes.values_mut() {
            lane.ready_pods = ready;
        }
    }
}

fn work<'a>(pod: &'a Pod, input: &'a Input, state: &State) -> Work<'a> {
    match &pod.load {
        Observation::Known { value, .. } => work_by_load(pod, value, input),
        Observation::Stale { age, .. } => Work::Unproven(Unproven::Load { pod: &pod.name, age: Some(*age) }),
        Observation::Unknown if state.never_worked(&pod.name) => Work::Idle,
        Observation::Unknown => Work::Unproven(Unproven::Load { pod: &pod.name, age: None }),
    }
}

fn work_by_load<'a>(pod: &'a Pod, load: &PodLoad, input: &'a Input) -> Work<'a> {
    match input.lanes.keys().find(|lane| !load.lanes.contains_key(*lane)) {
        Some(lane) => Work::Unproven(Unproven::Lane { pod: &pod.name, lane }),
        None if load.lanes.values().any(|slots| slots.used > 0) => Work::Busy,
        None => Work::Idle,
    }
}
