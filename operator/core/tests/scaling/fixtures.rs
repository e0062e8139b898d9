//! Fleets for the tests: Ready pods of ten slots that serve one Task Queue, read just now.

use std::collections::BTreeMap;
use std::time::Duration;

use operator_core::observed::{LaneKey, LaneStats, Observation, PodLoad, SlotUse, TaskType};
use operator_core::scaling::{
    DEFAULT_GRACE, Decision, IdleWindow, Input, Mode, Pause, Pod, Policy, Ramp, State, decide,
};

pub const SLOTS: u64 = 10;
/// Between two decisions.
pub const STEP: Duration = Duration::from_secs(5);

pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub fn policy() -> Policy {
    Policy {
        min_replicas: 0,
        max_replicas: 10,
        target_latency: seconds(5),
        percentile: 0.95,
        idle_window: IdleWindow::Fixed(seconds(180)),
        pause: Pause::None,
        mode: Mode::Full,
        ramp: Ramp::default(),
    }
}

pub fn lane() -> LaneKey {
    activity("thumbnails")
}

pub fn activity(queue: &str) -> LaneKey {
    LaneKey { task_queue: queue.into(), task_type: TaskType::Activity }
}

pub fn known<T>(value: T) -> Observation<T> {
    Observation::Known { value, age: Duration::ZERO }
}

pub fn stale<T>(value: T) -> Observation<T> {
    Observation::Stale { value, age: seconds(41) }
}

/// A live reading: of this moment.
pub fn live(backlog: u64) -> Observation<LaneStats> {
    known(LaneStats { backlog, ..LaneStats::default() })
}

/// An ordinary reading: of some moment of the last five seconds.
pub fn cached(backlog: u64) -> Observation<LaneStats> {
    known(LaneStats { backlog, add_rate: Some(0.0), ..LaneStats::default() })
}

pub fn load(used: u64, started: u64) -> PodLoad {
    PodLoad::of([(lane(), SlotUse { used, available: SLOTS.saturating_sub(used), started, ..SlotUse::default() })])
}

pub fn pod(name: &str, load: Observation<PodLoad>) -> Pod {
    Pod { name: name.into(), ready: true, load, ..Pod::default() }
}

/// A pod that was just created.
pub fn starting(name: &str) -> Pod {
    Pod { name: name.into(), ..Pod::default() }
}

/// A fleet of Ready pods `p0`, `p1`, ... that run so many tasks each.
pub fn fleet(backlog: u64, used: &[u64]) -> Input {
    let pods = used.iter().enumerate().map(|(at, used)| pod(&format!("p{at}"), known(load(*used, *used))));
    Input {
        now: seconds(1000),
        current: u32::try_from(used.len()).unwrap(),
        lanes: BTreeMap::from([(lane(), live(backlog))]),
        lanes_complete: true,
        declared_slots: BTreeMap::new(),
        pods: pods.collect(),
        floors: Vec::new(),
        grace: DEFAULT_GRACE,
        template: String::new(),
    }
}

pub fn at_zero(backlog: Observation<LaneStats>) -> Input {
    let mut input = fleet(0, &[]);
    input.lanes.insert(lane(), backlog);
    input.declared_slots.insert(lane(), SLOTS);
    input
}

/// The first decision of an operator.
pub fn first(input: &Input) -> Decision {
    decide(&policy(), input, &State::default()).0
}

/// Decides every five seconds for `time` on the same observations, and returns the last decision. The clock of `input`
/// moves on; the replicas do not.
pub fn watch(policy: &Policy, input: &mut Input, state: &mut State, time: Duration) -> Decision {
    let end = input.now + time;
    loop {
        let (decision, next) = decide(policy, input, state);
        *state = next;
        if input.now >= end {
            return decision;
        }
        input.now = (input.now + STEP).min(end);
    }
}

/// What an operator decides that saw nothing else for ten minutes.
pub fn settled(policy: &Policy, input: &Input) -> Decision {
    watch(policy, &mut input.clone(), &mut State::default(), seconds(600))
}
