//! The decision itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::doubt::{self, Doubt};
use super::fleet::Fleet;
use super::guards::Warnings;
use super::need::{Demand, LaneNeed, Term};
use super::number::{self, Facts, Number};
use super::reason;
use super::report::{self, Report};
use super::state::State;
use super::{Input, Mode, Policy, STABILIZATION, TICK, TICK_AT_ZERO, victims};
use crate::observed::Observation;

/// Shortest time until the next decision.
const SHORTEST_RECHECK: Duration = Duration::from_millis(100);
/// Times that pods are kept for which the need was there, in start-ups: about as long as it is cheaper to keep a pod than to
/// start it anew (ski rental).
const HOLD_START_UPS: f64 = 2.5;
/// Bounds of that time, and of it after the feedback.
const HOLD_LONGEST: Duration = Duration::from_secs(300);
/// The same of pods that tell nothing.
const HOLD_BLIND: Duration = Duration::from_secs(180);

/// What to do with a fleet, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Replicas that the fleet should have.
    pub desired: u32,
    /// Names of the pods that should go: idle ones, or such whose tasks end well within the grace period; never more than
    /// exist above `desired`. They get a lower deletion cost than all others before the number is lowered, and are named
    /// until they are gone: a ReplicaSet chooses only then.
    pub victims: Vec<String>,
    /// Names of the pods that should take no new task, so that they can go once they are empty. Every other pod that is
    /// cordoned should take tasks again.
    pub cordon: Vec<String>,
    /// Whether a task that still reaches a pod that goes ends within the grace period, whichever of the fleet's it is and as
    /// sure as can be. If so, nothing has to be kept from those pods before they go.
    pub any_ends_in_time: bool,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// The fleet has the replicas that its tasks need.
    Scaled,
    /// A backlog is being worked off.
    Backlog,
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
    /// Tasks wait, but the queue gives out no more, or nothing takes them though slots are free.
    RateLimited,
    /// More pods brought no more throughput.
    Ineffective,
    /// No pod becomes Ready.
    Stalled,
    /// Too many pods restart again and again.
    Degraded,
    /// `spec.scaling.pause` holds the number.
    Paused,
    /// `spec.scaling.ramp` holds the number.
    Ramping,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 14] = [
        Self::Scaled,
        Self::Backlog,
        Self::Idle,
        Self::Holding,
        Self::PodsBusy,
        Self::MetricsStale,
        Self::AtMaximum,
        Self::AtMinimum,
        Self::RateLimited,
        Self::Ineffective,
        Self::Stalled,
        Self::Degraded,
        Self::Paused,
        Self::Ramping,
    ];

    /// The reason of a condition.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scaled => "Scaled",
            Self::Backlog => "Backlog",
            Self::Idle => "Idle",
            Self::Holding => "Holding",
            Self::PodsBusy => "PodsBusy",
            Self::MetricsStale => "MetricsStale",
            Self::AtMaximum => "AtMaximum",
            Self::AtMinimum => "AtMinimum",
            Self::RateLimited => "RateLimited",
            Self::Ineffective => "Ineffective",
            Self::Stalled => "Stalled",
            Self::Degraded => "Degraded",
            Self::Paused => "Paused",
            Self::Ramping => "Ramping",
        }
    }
}

/// Everything that is known when the number is chosen.
pub(super) struct Scene<'a> {
    pub policy: &'a Policy,
    pub input: &'a Input,
    pub fleet: &'a Fleet<'a>,
    pub needs: &'a [LaneNeed<'a>],
    pub doubt: Option<&'a Doubt<'a>>,
    pub warnings: &'a Warnings,
    pub state: &'a State,
    /// Time without work before zero.
    pub idle_window: Duration,
    /// Time for which a need counts.
    pub hold: Duration,
}

impl<'a> Scene<'a> {
    /// The lane that needs most.
    pub fn binding(&self) -> Option<&'a LaneNeed<'a>> {
        let mut most: Option<&LaneNeed<'_>> = None;
        for need in self.needs.iter().filter(|need| need.pods() > 0) {
            if most.is_none_or(|most| need.pods() > most.pods()) {
                most = Some(need);
            }
        }
        most
    }

    /// Pods for the load ahead.
    pub fn rate_pods(&self) -> u32 {
        self.needs.iter().map(|need| need.rate_pods).max().unwrap_or(0)
    }

    /// Pods for that and for what waits.
    pub fn work_pods(&self) -> u32 {
        self.needs.iter().map(LaneNeed::pods).max().unwrap_or(0)
    }

    /// Time for which the fleet is proven idle: until the oldest reading was taken.
    pub fn idle_for(&self) -> Duration {
        self.state.idle_for(self.input.now.saturating_sub(self.fleet.oldest)).unwrap_or(Duration::ZERO)
    }
}

/// Decides how many replicas a fleet should have.
///
/// * Raises at once to what fresh readings call for: the load when a pod ordered now can take a task, with Erlang's C formula
///   for the target, and the backlog beside it.
/// * Lowers only if nothing is in doubt and the need was lower for two and a half start-ups (or the idle window, if that is
///   shorter), and only by pods that run nothing, or whose tasks end well within the grace period.
/// * Goes to zero only if nothing started, ran or waited for the idle window.
/// * Takes the user's bounds as commands, but a pod that may run a long task is not removed for the maximum's sake.
#[must_use]
pub fn decide(policy: &Policy, input: &Input, state: &State) -> (Decision, State) {
    let mut next = state.at(input);
    let passed = next.memory.last.map_or(Duration::ZERO, |last| input.now.saturating_sub(last));
    let quiet = next.see_pods(policy, input);
    next.memory.see_step(input.now, input.current);
    next.learned.feedback.turn(1.0 - policy.percentile, passed.as_secs_f64());
    let fleet = Fleet::of(input, &next);
    next.see_lanes(policy, input, &fleet);
    let needs = Demand { policy, input, fleet: &fleet, state: &next }.needs();
    let doubt = doubt::first(policy, input, &fleet);
    let backlog = total_backlog(input);
    let proven_idle = quiet && doubt.is_none() && backlog == Some(0) && fleet.in_flight == 0;
    next.see_idle(proven_idle && policy.mode == Mode::Full, doubt.is_some(), input.now);
    let warnings = next.see_guards(input, &fleet, &needs);
    next.see_episode(episode(&needs), backlog, input.now);
    if needs.iter().all(|need| need.waiting == 0 || need.is_limited()) && needs.iter().any(LaneNeed::is_limited) {
        next.learned.latch = None;
    }

    let (idle_window, hold) = (idle_window(policy, &next), hold(policy, &next));
    let idle_for = next.idle_for(input.now.saturating_sub(fleet.oldest));
    let facts = Facts::of(policy, input, &needs, &next, idle_for.is_some_and(|time| time >= idle_window));
    next.see_need(input, facts.steady);
    let scene = Scene {
        policy,
        input,
        fleet: &fleet,
        needs: &needs,
        doubt: doubt.as_ref(),
        warnings: &warnings,
        state: &next,
        idle_window,
        hold,
    };
    let choice = victims::choose(&scene);
    let number = number::choose(&scene, &facts, &choice);
    let decision = conclude(&scene, &number, &choice, backlog);
    let blind = number.blind;
    if decision.desired > input.current {
        next.see_increase(input, decision.desired, &needs, blind);
    }
    let waiting = backlog != Some(0);
    next.memory.see_change(input.now, (input.current, decision.desired), waiting, hold.min(STABILIZATION));
    next.see_orders(&decision.victims, &decision.cordon);
    next.learned.desired = Some(decision.desired);
    (decision, next)
}

fn conclude(scene: &Scene<'_>, number: &Number<'_>, choice: &victims::Choice<'_>, backlog: Option<u64>) -> Decision {
    let orders = choice.orders(scene, number.desired, number.goal);
    Decision {
        desired: number.desired,
        victims: orders.victims,
        cordon: orders.cordon,
        any_ends_in_time: orders.any_ends_in_time,
        backlog,
        in_flight: scene.fleet.unproven.is_none().then_some(scene.fleet.in_flight),
        outcome: number.cause.outcome(),
        reason: reason::sentence(scene, number),
        recheck_after: recheck_after(number),
        report: report::of(scene, number),
    }
}

/// The most pods that a backlog calls for beside the load.
fn episode(needs: &[LaneNeed<'_>]) -> Option<u32> {
    let for_backlog = |need: &&LaneNeed<'_>| {
        need.burst_pods > need.rate_pods && matches!(need.term, Term::Backlog | Term::OneEach | Term::Server)
    };
    needs.iter().filter(for_backlog).map(|need| need.burst_pods).max()
}

fn idle_window(policy: &Policy, state: &State) -> Duration {
    match policy.idle_window {
        super::IdleWindow::Fixed(time) => time,
        super::IdleWindow::Auto => {
            state.learned.gaps.best_window(state.start_up()).unwrap_or(super::DEFAULT_IDLE_WINDOW)
        }
    }
}

/// Short idle windows shorten the hold: who asks for zero after 10 s gets fewer pods after 10 s too.
fn hold(policy: &Policy, state: &State) -> Duration {
    let longest = match policy.idle_window {
        super::IdleWindow::Fixed(time) if time < STABILIZATION => time,
        _ => super::state::LONGEST_HOLD,
    };
    if policy.mode == Mode::ServerOnly {
        return HOLD_BLIND.min(longest);
    }
    let start_ups = state.start_up().mul_f64(HOLD_START_UPS).clamp(STABILIZATION, HOLD_LONGEST);
    start_ups.mul_f64(state.learned.feedback.multiplier()).min(longest)
}

fn total_backlog(input: &Input) -> Option<u64> {
    if input.lanes.is_empty() {
        return None;
    }
    let fresh = |reading: &Observation<crate::observed::LaneStats>| Some(reading.known()?.backlog);
    input.lanes.values().try_fold(0_u64, |sum, reading| Some(sum.saturating_add(fresh(reading)?)))
}

fn recheck_after(number: &Number<'_>) -> Duration {
    match number.cause.left() {
        Some(left) => left.clamp(SHORTEST_RECHECK, TICK),
        None if number.desired == 0 => TICK_AT_ZERO,
        None => TICK,
    }
}
