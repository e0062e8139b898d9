//! Which pods go, and which take no task any more.

use std::cmp::Reverse;
use std::time::Duration;

use super::decision::Scene;
use super::flow::real;
use super::memory::PodMemory;
use super::{Mode, Pod};
use crate::observed::LaneKey;

/// A pod whose tasks end within the grace period goes though it is busy: so many service times must fit, or more where the
/// Worker does not tell how long single tasks run. Of exponential ones e^-4 and e^-10 take longer.
const TIMES_TOLD: f64 = 4.0;
const TIMES_UNTOLD: f64 = 10.0;
/// A longer grace period is no reason to let a pod work that long.
const LONGEST_GRACE: Duration = Duration::from_secs(600);

/// The pods in the order in which they should go.
pub(super) struct Choice<'a> {
    /// Those that may.
    removable: Vec<&'a Pod>,
    /// Those that run what may be long, and can be told to take no more.
    cordonable: Vec<&'a Pod>,
}

/// What to do with them.
pub(super) struct Orders {
    pub victims: Vec<String>,
    pub cordon: Vec<String>,
    pub any_ends_in_time: bool,
}

/// Ready last, busy last, not named before last, work, cached Workflows, age, name: least goes first.
type Rank<'a> = (bool, bool, bool, u64, u64, Reverse<Duration>, &'a str);

/// Sorts the pods.
pub(super) fn choose<'a>(scene: &Scene<'a>) -> Choice<'a> {
    let rank = |pod: &&'a Pod| rank(scene, pod);
    let (mut removable, mut cordonable) = (scene.fleet.idle.clone(), Vec::new());
    for pod in scene.fleet.busy.iter().copied() {
        if ends_in_time(scene, pod) {
            removable.push(pod);
        } else if pod.may_be_cordoned && pod.ready {
            cordonable.push(pod);
        }
    }
    removable.sort_by_cached_key(rank);
    cordonable.sort_by_cached_key(rank);
    Choice { removable, cordonable }
}

fn rank<'a>(scene: &Scene<'_>, pod: &'a Pod) -> Rank<'a> {
    let memory = scene.state.memory.pods.get(&pod.name);
    let named = memory.is_some_and(|memory| memory.named || memory.cordoned) || pod.cordoned;
    let load = pod.load.known();
    let work =
        load.map_or(0.0, |load| load.lanes.iter().map(|(lane, slots)| real(slots.used) * time(scene, lane)).sum());
    let busy = load.is_some_and(|load| load.lanes.values().any(|slots| slots.used > 0));
    let cached = load.and_then(|load| load.cached_workflows).unwrap_or(0);
    let born = memory.and_then(|memory: &PodMemory| memory.born).unwrap_or(Duration::ZERO);
    (pod.ready, busy, !named, milliseconds(work), cached, Reverse(born), &pod.name)
}

fn time(scene: &Scene<'_>, lane: &LaneKey) -> f64 {
    scene.state.learned.lanes.get(lane).and_then(|lesson| lesson.service.known()).unwrap_or(1.0)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1e3) as u64
}

/// Whether what a pod runs ends within the grace period, as sure as can be.
fn ends_in_time(scene: &Scene<'_>, pod: &Pod) -> bool {
    pod.load.known().is_some_and(|load| {
        let mut busy = load.lanes.iter().filter(|(_, slots)| slots.used > 0);
        busy.all(|(lane, _)| fits(scene, lane))
    })
}

/// Whether a task of whichever lane ends within the grace period, as sure as can be.
fn any_ends_in_time(scene: &Scene<'_>) -> bool {
    let mut lanes = scene.fleet.lanes.keys().peekable();
    lanes.peek().is_some() && lanes.all(|lane| fits(scene, lane))
}

fn fits(scene: &Scene<'_>, lane: &LaneKey) -> bool {
    let Some(lesson) = scene.state.learned.lanes.get(lane) else { return false };
    let Some(service) = lesson.service.known() else { return false };
    let grace = scene.input.grace.min(LONGEST_GRACE).as_secs_f64();
    match lesson.tail.ends_in_time() {
        Some(in_time) => in_time && TIMES_TOLD * service <= grace,
        None => TIMES_UNTOLD * service <= grace,
    }
}

impl Choice<'_> {
    /// Pods that a decrease must leave, so that none but the removable can be hit.
    pub fn kept(&self, scene: &Scene<'_>) -> usize {
        if scene.policy.mode == Mode::ServerOnly {
            return 0;
        }
        if scene.fleet.unready_may_work { scene.fleet.existing } else { scene.fleet.existing - self.removable.len() }
    }

    /// Names the pods above `desired`, and of those above `goal` which run something.
    pub fn orders(&self, scene: &Scene<'_>, desired: u32, goal: u32) -> Orders {
        let above = |number: u32| scene.fleet.existing.saturating_sub(usize::try_from(number).unwrap_or(usize::MAX));
        let name = |pod: &&Pod| pod.name.clone();
        let victims: Vec<String> = self.removable.iter().take(above(desired)).map(name).collect();
        let surplus = above(goal.min(desired)).saturating_sub(victims.len());
        let cordon = self.cordonable.iter().take(surplus).map(name).collect();
        Orders { victims, cordon, any_ends_in_time: any_ends_in_time(scene) }
    }
}
