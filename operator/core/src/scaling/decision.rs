//! The decision itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::fleet::{Fleet, Unproven};
use super::need::{self, Need};
use super::report::Report;
use super::state::State;
use super::{Floor, Input, Policy, STABILIZATION, TICK, TICK_AT_ZERO, reason};
use crate::observed::{LaneKey, Observation};

/// Shortest time until the next decision.
const SHORTEST_RECHECK: Duration = Duration::from_millis(100);

/// What to do with a fleet, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Replicas that the fleet should have.
    pub desired: u32,
    /// Names of the pods that should go: idle ones, never more than exist above `desired`. They get a lower deletion cost
    /// than all others before the number is lowered, and are named until they are gone: a ReplicaSet chooses only then.
    pub victims: Vec<String>,
    /// Names of the pods that should take no new task, so that they can go once they are empty. Every other pod that is
    /// cordoned should take tasks again.
    pub cordon: Vec<String>,
    /// Tasks that wait, over all lanes; none unless every lane's reading is fresh.
    pub backlog: Option<u64>,
    /// Tasks that run, over all pods; none unless every pod's reading is fresh.
    pub in_flight: Option<u64>,
    /// What decided.
    pub outcome: Outcome,
    /// Why this many, in one sentence.
    pub reason: String,
    /// When to decide again at the latest.
    pub recheck_after: Duration,
    /// How it came about.
    pub report: Report,
}

/// What decided on the number. It says what holds, not what changes, so that a condition made of it keeps still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// The fleet has the replicas that its tasks need.
    Scaled,
    /// The fleet is at zero, and nothing waits.
    Idle,
    /// Fewer are enough, but not for long enough yet.
    Holding,
    /// Fewer are enough, but the pods run tasks.
    PodsBusy,
    /// Fewer may be enough, but that is not proven: a reading is missing, old or incomplete.
    MetricsStale,
    /// More are needed than the maximum allows.
    AtMaximum,
    /// Fewer are needed than the minimum, the user's or the rollout's.
    AtMinimum,
}

impl Outcome {
    /// The reason of a condition.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scaled => "Scaled",
            Self::Idle => "Idle",
            Self::Holding => "Holding",
            Self::PodsBusy => "PodsBusy",
            Self::MetricsStale => "MetricsStale",
            Self::AtMaximum => "AtMaximum",
            Self::AtMinimum => "AtMinimum",
        }
    }
}

/// The first thing that is not proven.
pub(super) enum Doubt<'a> {
    /// There may be Task Queues that nobody named.
    Lanes,
    /// The backlog of a lane is old, or was never read.
    Backlog { lane: &'a LaneKey, age: Option<Duration> },
    /// A pod's load.
    Pod(&'a Unproven<'a>),
}

/// What decided, with the numbers for the sentence that says so.
pub(super) enum Cause<'a> {
    /// The idle window is over.
    ToZero,
    /// Nothing waits.
    AtZero,
    /// The tasks need so many.
    Need,
    /// They need more than the maximum, or that is zero.
    Maximum,
    /// The pods above the maximum may run tasks.
    OverMaximum,
    /// The user's minimum.
    Minimum,
    /// The rollout's floor, with its reason.
    Floor(&'a str),
    /// Fewer may be enough, but that is not proven.
    Doubt(&'a Doubt<'a>),
    /// Fewer are enough `since` so long, and may be taken in `left`.
    Settling { need: u32, since: Duration, window: Duration, left: Duration },
    /// The last pod waits for the idle window, of which so much is left.
    Waiting { left: Duration },
    /// Fewer are enough, but so many pods may run tasks.
    Busy { need: u32, kept: usize },
}

/// Everything that is known when the number is chosen.
struct Scene<'a> {
    policy: &'a Policy,
    input: &'a Input,
    fleet: &'a Fleet<'a>,
    need: &'a Need<'a>,
    doubt: Option<&'a Doubt<'a>>,
    state: &'a State,
}

/// Numbers on the way to the decision.
struct Numbers {
    /// Least that policy and rollout allow.
    lowest: u32,
    /// What work and bounds call for.
    wanted: u32,
    /// The same after the windows.
    goal: u32,
    desired: u32,
}

/// Decides how many replicas a fleet should have.
///
/// * Raises at once to what fresh readings call for.
/// * Lowers only if nothing is in doubt and the need was lower for [`STABILIZATION`] (or the idle window, if that is
///   shorter), and only by pods that run nothing.
/// * Goes to zero only if nothing started, ran or waited for the idle window.
/// * Takes the user's bounds as commands, but a pod that may run a task is not removed for the maximum's sake.
#[must_use]
pub fn decide(policy: &Policy, input: &Input, state: &State) -> (Decision, State) {
    let mut next = state.at(input.now);
    let quiet = next.see_pods(input);
    let fleet = Fleet::of(input, &next);
    next.see_lanes(input, &fleet);
    let need = need::largest(input, &fleet, &next);
    let doubt = first_doubt(input, &fleet);
    let backlog = total_backlog(input);
    next.see_idle(quiet && doubt.is_none() && backlog == Some(0) && fleet.in_flight == 0, input.now);

    let (lowest, wanted) = wanted(policy, input, &need, &next);
    next.see_need(input.now, wanted, input.current, doubt.is_some());
    let scene = Scene { policy, input, fleet: &fleet, need: &need, doubt: doubt.as_ref(), state: &next };
    let numbers = scene.numbers(lowest, wanted);
    let cause = scene.cause(&numbers);
    let victims = scene.victims(numbers.desired);
    let decision = Decision {
        desired: numbers.desired,
        victims: victims.clone(),
        cordon: Vec::new(),
        backlog,
        in_flight: fleet.unproven.is_none().then_some(fleet.in_flight),
        outcome: outcome(&cause),
        reason: reason::sentence(&cause, numbers.desired, policy, &need),
        recheck_after: recheck_after(&cause),
        report: Report::default(),
    };
    next.see_victims(&victims);
    (decision, next)
}

fn wanted(policy: &Policy, input: &Input, need: &Need<'_>, state: &State) -> (u32, u32) {
    let floor = highest_floor(input).map_or(0, |floor| floor.replicas);
    let lowest = policy.min_replicas.max(floor).min(policy.max_replicas);
    let idle = state.idle_for(input.now).is_some_and(|time| time >= policy.idle_window.fixed());
    let last_one = u32::from(input.current > 0 && !idle);
    (lowest, need.pods.max(last_one).max(lowest).min(policy.max_replicas))
}

impl Scene<'_> {
    fn numbers(&self, lowest: u32, wanted: u32) -> Numbers {
        let current = self.input.current;
        let goal = self.held(wanted).min(self.policy.max_replicas).max(wanted);
        let kept = u32::try_from(self.fleet.kept()).unwrap_or(u32::MAX);
        let desired = if goal < current { goal.max(kept.min(current)) } else { goal };
        Numbers { lowest, wanted, goal, desired }
    }

    /// The number that doubt and windows allow when `wanted` is lower.
    fn held(&self, wanted: u32) -> u32 {
        let current = self.input.current;
        let proven_idle = wanted == 0 && self.policy.max_replicas > 0;
        if wanted >= current || proven_idle {
            wanted
        } else if self.doubt.is_some() {
            current
        } else {
            self.state.highest_need(self.input.now, self.window()).map_or(wanted, |higher| higher.need.min(current))
        }
    }

    fn window(&self) -> Duration {
        STABILIZATION.min(self.policy.idle_window.fixed())
    }

    fn cause(&self, numbers: &Numbers) -> Cause<'_> {
        let (current, max) = (self.input.current, self.policy.max_replicas);
        let Numbers { lowest, wanted, goal, desired } = *numbers;
        let busy = Cause::Busy { need: wanted, kept: self.fleet.kept() };
        match (self.doubt, highest_floor(self.input)) {
            _ if desired > max => Cause::OverMaximum,
            _ if self.need.pods > max || max == 0 => Cause::Maximum,
            _ if desired == 0 && current > 0 => Cause::ToZero,
            (Some(doubt), _) if desired == 0 => Cause::Doubt(doubt),
            _ if desired == 0 => Cause::AtZero,
            _ if desired > goal => busy,
            (Some(doubt), _) if desired > wanted => Cause::Doubt(doubt),
            _ if desired > wanted => self.settling(wanted),
            _ if self.need.pods == wanted => Cause::Need,
            (_, Some(floor)) if lowest == wanted && floor.replicas > self.policy.min_replicas => {
                Cause::Floor(&floor.reason)
            }
            _ if lowest == wanted => Cause::Minimum,
            (Some(doubt), _) => Cause::Doubt(doubt),
            (None, _) => self.waiting(),
        }
    }

    fn settling(&self, need: u32) -> Cause<'_> {
        let (now, window) = (self.input.now, self.window());
        let since = self.state.last_above(need).map_or(Duration::ZERO, |at| now.saturating_sub(at));
        let left = self.state.highest_need(now, window).map_or(window, |higher| {
            let age = now.saturating_sub(higher.at);
            window.saturating_sub(age)
        });
        Cause::Settling { need, since, window, left }
    }

    fn waiting(&self) -> Cause<'_> {
        let idle_for = self.state.idle_for(self.input.now).unwrap_or(Duration::ZERO);
        Cause::Waiting { left: self.policy.idle_window.fixed().saturating_sub(idle_for) }
    }

    fn victims(&self, desired: u32) -> Vec<String> {
        let too_many = self.fleet.existing.saturating_sub(usize::try_from(desired).unwrap_or(usize::MAX));
        self.fleet.idle.iter().take(too_many).map(|pod| pod.name.clone()).collect()
    }
}

fn first_doubt<'a>(input: &'a Input, fleet: &'a Fleet<'a>) -> Option<Doubt<'a>> {
    if !input.lanes_complete || input.lanes.is_empty() {
        return Some(Doubt::Lanes);
    }
    let old = input.lanes.iter().find_map(|(lane, reading)| match reading {
        Observation::Known { .. } => None,
        Observation::Stale { age, .. } => Some(Doubt::Backlog { lane, age: Some(*age) }),
        Observation::Unknown => Some(Doubt::Backlog { lane, age: None }),
    });
    old.or(fleet.unproven.as_ref().map(Doubt::Pod))
}

fn total_backlog(input: &Input) -> Option<u64> {
    if input.lanes.is_empty() {
        return None;
    }
    input.lanes.values().try_fold(0_u64, |sum, reading| Some(sum.saturating_add(reading.known()?.backlog)))
}

fn highest_floor(input: &Input) -> Option<&Floor> {
    input.floors.iter().max_by_key(|floor| floor.replicas)
}

fn outcome(cause: &Cause<'_>) -> Outcome {
    match cause {
        Cause::ToZero | Cause::AtZero => Outcome::Idle,
        Cause::Need => Outcome::Scaled,
        Cause::Maximum => Outcome::AtMaximum,
        Cause::Minimum | Cause::Floor(_) => Outcome::AtMinimum,
        Cause::Doubt(_) => Outcome::MetricsStale,
        Cause::Settling { .. } | Cause::Waiting { .. } => Outcome::Holding,
        Cause::Busy { .. } | Cause::OverMaximum => Outcome::PodsBusy,
    }
}

fn recheck_after(cause: &Cause<'_>) -> Duration {
    match cause {
        Cause::ToZero | Cause::AtZero => TICK_AT_ZERO,
        Cause::Settling { left, .. } | Cause::Waiting { left } => (*left).clamp(SHORTEST_RECHECK, TICK),
        Cause::Need
        | Cause::Maximum
        | Cause::OverMaximum
        | Cause::Minimum
        | Cause::Floor(_)
        | Cause::Doubt(_)
        | Cause::Busy { .. } => TICK,
    }
}
