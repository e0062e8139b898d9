//! How many pods the work needs.

use std::time::Duration;

use super::fleet::Fleet;
use super::state::State;
use super::{CANARY, Input};
use crate::observed::{LaneKey, LaneStats, Observation};

/// Time for which the server hands out the same statistics (`matching.TaskQueueInfoByBuildIdTTL`).
const SERVER_CACHE: Duration = Duration::from_secs(5);

/// The pods that a lane needs, and from what they follow.
#[derive(Clone, Copy, Default)]
pub(super) struct Need<'a> {
    pub pods: u32,
    pub lane: Option<&'a LaneKey>,
    /// Tasks that wait, by a fresh reading.
    pub waiting: u64,
    /// Tasks that ran when it was taken.
    pub running: u64,
    /// Slots of a pod, if known.
    pub slots: Option<u64>,
    /// Whether the tasks wait though slots are free.
    pub stuck: bool,
}

/// The need of the lane that needs most. Only fresh readings count, so that it can be less than the truth, and never
/// raises on old news.
pub(super) fn largest<'a>(input: &'a Input, fleet: &Fleet<'a>, state: &State) -> Need<'a> {
    let mut largest = Need::default();
    for (lane, load) in &fleet.lanes {
        let need = of_lane(lane, load.used, input, state);
        if need.pods > largest.pods {
            largest = need;
        }
    }
    largest
}

fn of_lane<'a>(lane: &'a LaneKey, used: u64, input: &Input, state: &State) -> Need<'a> {
    let slots = state.slots(lane).or_else(|| input.declared_slots.get(lane).copied()).filter(|slots| *slots > 0);
    // At zero, pods that are still listed are about to go: what they run needs no other slot.
    let used = if input.current == 0 { 0 } else { used };
    let (waiting, running) = tasks(lane, used, input, state);
    let total = waiting.saturating_add(running);
    let mut pods = match slots {
        Some(slots) => total.div_ceil(slots),
        None => total.min(CANARY),
    };
    let stuck = waiting > 0 && state.is_stuck(lane, input.now);
    if stuck {
        pods = pods.min(1);
    }
    if waiting == 0 {
        // What runs has its slots already, on pods that may be just about to go.
        pods = pods.min(u64::from(input.current));
    }
    Need { pods: u32::try_from(pods).unwrap_or(u32::MAX), lane: Some(lane), waiting, running, slots, stuck }
}

/// Tasks that wait and run at one moment: that of the backlog's reading. A task that started since then would count
/// twice with the tasks that run now, and every burst would get twice the pods.
fn tasks(lane: &LaneKey, used: u64, input: &Input, state: &State) -> (u64, u64) {
    let Some(Observation::Known { value, age }) = input.lanes.get(lane) else { return (0, used) };
    let taken = input.now.saturating_sub(*age);
    let running = state.used_during(lane, taken.saturating_sub(server_age(value)), taken).min(used);
    if value.backlog.saturating_add(running) > used { (value.backlog, running) } else { (0, used) }
}

/// How old a reading may have been when the server gave it. A live one has no rate.
fn server_age(stats: &LaneStats) -> Duration {
    if stats.add_rate.is_some() { SERVER_CACHE } else { Duration::ZERO }
}
