//! From the needs to one number: floors and bounds, holds, limits on steps.

use std::time::Duration;

use super::decision::{Outcome, Scene};
use super::doubt::Doubt;
use super::need::{LaneNeed, Term};
use super::state::State;
use super::victims::Choice;
use super::{CANARY, Floor, Input, Mode, Pause, Policy, TICK};

/// Most pods of a step up without a backlog: twice as many, or so many more.
const STEP_UP: u32 = 4;
/// Most pods of a step down: half of them, or so many.
const STEP_DOWN: u32 = 4;
/// The same of pods that tell nothing: a quarter.
const STEP_DOWN_BLIND: u32 = 4;
/// Time over which a user's limit on steps counts.
const RAMP_WINDOW: Duration = Duration::from_secs(60);
/// Longest service time for which the server's rates alone may lower: those of longer tasks say too little of what runs.
const BLIND_LONGEST_TASK: f64 = 60.0;

/// What decided, with the numbers for the sentence that says so.
#[derive(Clone, Copy)]
pub(super) enum Cause<'a> {
    /// The idle window is over.
    ToZero,
    /// Nothing waits.
    AtZero,
    /// The tasks need so many.
    Need,
    /// A backlog needed more than the load does, and is not worked off yet.
    Episode,
    /// They need more than the maximum, or that is zero.
    Maximum,
    /// The pods above the maximum may run tasks.
    OverMaximum,
    /// The user's minimum.
    Minimum,
    /// The rollout's floor or a schedule's, with its reason.
    Floor(&'a str),
    /// Fewer may be enough, but that is not proven.
    Doubt(&'a Doubt<'a>),
    /// Every slot is full, and the server can't be read.
    Blind,
    /// Fewer are enough since so long, and may be taken in `left`.
    Settling { need: u32, since: Duration, left: Duration },
    /// The last pod waits for the idle window, of which so much is left.
    Waiting { left: Duration },
    /// Fewer are enough, but so many pods may run tasks.
    Busy { need: u32, kept: usize },
    /// Tasks wait, and more pods would not help.
    Limited,
    /// Nothing is taken at once: the step is limited, by the user or because more is noise.
    Step { need: u32, ramp: bool },
    /// Pods don't become Ready.
    Stalled,
    /// The first pod of a template has to start first.
    OnTrial { need: u32 },
    /// Pods restart again and again.
    Failing { pods: usize },
    /// More did nothing.
    Ineffective { need: u32, left: Duration },
    /// The user holds the number.
    Paused { need: u32 },
}

impl Cause<'_> {
    /// The outcome that it is.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::ToZero | Self::AtZero => Outcome::Idle,
            Self::Need => Outcome::Scaled,
            Self::Episode | Self::OnTrial { .. } => Outcome::Backlog,
            Self::Maximum => Outcome::AtMaximum,
            Self::Minimum | Self::Floor(_) => Outcome::AtMinimum,
            Self::Doubt(_) | Self::Blind => Outcome::MetricsStale,
            Self::Settling { .. } | Self::Waiting { .. } | Self::Step { ramp: false, .. } => Outcome::Holding,
            Self::Busy { .. } | Self::OverMaximum => Outcome::PodsBusy,
            Self::Limited => Outcome::RateLimited,
            Self::Step { ramp: true, .. } => Outcome::Ramping,
            Self::Stalled => Outcome::Stalled,
            Self::Failing { .. } => Outcome::Degraded,
            Self::Ineffective { .. } => Outcome::Ineffective,
            Self::Paused { .. } => Outcome::Paused,
        }
    }

    /// Time after which it may be otherwise though nothing happens.
    pub fn left(&self) -> Option<Duration> {
        match self {
            Self::Settling { left, .. } | Self::Waiting { left } | Self::Ineffective { left, .. } => Some(*left),
            _ => None,
        }
    }
}

/// What work and bounds call for at this moment.
pub(super) struct Facts {
    /// Least that policy and floors allow.
    pub lowest: u32,
    /// Pods for the load alone, within the bounds: what is held.
    pub steady: u32,
    /// One, unless the fleet is proven idle for the window.
    last_one: u32,
}

impl Facts {
    pub fn of(policy: &Policy, input: &Input, needs: &[LaneNeed<'_>], state: &State, idle: bool) -> Self {
        let floor = highest_floor(input).map_or(0, |floor| floor.replicas);
        let lowest = policy.min_replicas.max(floor).min(policy.max_replicas);
        let last_one = u32::from(input.current > 0 && !idle);
        let most = |pods: fn(&LaneNeed<'_>) -> u32| needs.iter().map(pods).max().unwrap_or(0);
        let edge = state.memory.edge.filter(|edge| *edge == input.current).unwrap_or(0);
        let rate = if idle { 0 } else { most(|need| need.rate_pods).max(edge.min(most(|need| need.firm_pods))) };
        let steady = rate.max(last_one).max(lowest).min(policy.max_replicas);
        Self { lowest, steady, last_one }
    }
}

/// The number on its way.
pub(super) struct Number<'a> {
    /// What the work calls for, without bounds.
    pub work: u32,
    /// What it is to be once the pods that run tasks are done.
    pub goal: u32,
    pub desired: u32,
    pub cause: Cause<'a>,
    /// Whether it was raised because slots were full and nothing else was known.
    pub blind: bool,
}

/// Chooses the number.
pub(super) fn choose<'a>(scene: &Scene<'a>, facts: &Facts, choice: &Choice<'_>) -> Number<'a> {
    let (work, wanted, why) = wanted(scene, facts);
    let current = scene.input.current;
    let (goal, why) = match &scene.warnings.stalled {
        Some(_) if current > facts.lowest => down(scene, facts, wanted, why),
        Some(_) => (facts.lowest, Some(Cause::Stalled)),
        None if wanted >= current => up(scene, facts, wanted, why),
        None => down(scene, facts, wanted, why),
    };
    let kept = u32::try_from(choice.kept(scene)).unwrap_or(u32::MAX).min(current);
    let paused = scene.policy.pause == Pause::All;
    let desired = if paused {
        current
    } else if goal < current {
        goal.max(kept)
    } else {
        goal
    };
    let number = Number { work, goal, desired, cause: Cause::Need, blind: matches!(why, Some(Cause::Blind)) };
    let cause = cause(scene, facts, &number, wanted, why);
    Number { cause, ..number }
}

/// What the work calls for, what of it is wanted, and what keeps the two apart.
fn wanted<'a>(scene: &Scene<'a>, facts: &Facts) -> (u32, u32, Option<Cause<'a>>) {
    let current = scene.input.current;
    // A backlog that is gone keeps its pods, and orders none.
    let most = if scene.needs.iter().any(|need| need.waiting > 0) { u32::MAX } else { current };
    let latch = scene.state.learned.latch.filter(|_| current > 0).unwrap_or(0).min(most);
    let idle = facts.last_one == 0 && current > 0;
    let work = if idle { 0 } else { scene.work_pods().max(latch) };
    let mut why = None;
    let mut limited = work;
    if let Some((most, _)) = scene.warnings.blocked {
        limited = work.min(most);
    }
    if let Some(most) = scene.warnings.on_trial
        && work > most
    {
        (limited, why) = (most.max(current), Some(Cause::OnTrial { need: work }));
    }
    if scene.warnings.failing.is_some() && limited > quarter_more(current) {
        limited = quarter_more(current);
    }
    if scene.warnings.blind && limited < half_more(current) {
        (limited, why) = (half_more(current), Some(Cause::Blind));
    }
    let wanted = limited.max(facts.last_one).max(facts.lowest).min(scene.policy.max_replicas);
    (work, wanted, why)
}

fn up<'a>(scene: &Scene<'a>, facts: &Facts, wanted: u32, why: Option<Cause<'a>>) -> (u32, Option<Cause<'a>>) {
    let (memory, now, current) = (&scene.state.memory, scene.input.now, scene.input.current);
    let (mut goal, mut why) = (wanted, why);
    let (least, _) = memory.steps_within(now, TICK, current);
    let most = least.saturating_mul(2).max(least.saturating_add(STEP_UP));
    let at_once = least == 0 || scene.needs.iter().any(|need| need.waiting > 0 && need.term == Term::Backlog);
    if !at_once && goal > most {
        goal = most.max(facts.lowest).max(current);
        why = Some(Cause::Step { need: wanted, ramp: false });
    }
    if let Some(ramp) = scene.policy.ramp.up_per_minute {
        let (least, _) = memory.steps_within(now, RAMP_WINDOW, current);
        let most = least.saturating_add(ramp).max(current).max(scene.policy.min_replicas);
        if goal > most {
            (goal, why) = (most, Some(Cause::Step { need: wanted, ramp: true }));
        }
    }
    (goal, why)
}

/// A few pods go on trying.
fn stalled<'a>(scene: &Scene<'a>, facts: &Facts) -> (u32, Option<Cause<'a>>) {
    let few = if scene.doubt.is_some() { scene.input.current } else { u32::try_from(CANARY).unwrap_or(u32::MAX) };
    (scene.input.current.min(few).max(facts.lowest), Some(Cause::Stalled))
}

fn down<'a>(scene: &Scene<'a>, facts: &Facts, wanted: u32, why: Option<Cause<'a>>) -> (u32, Option<Cause<'a>>) {
    let (current, max) = (scene.input.current, scene.policy.max_replicas);
    let (goal, why) = match &scene.warnings.stalled {
        Some(_) => stalled(scene, facts),
        None => lowered(scene, wanted, why),
    };
    let (goal, why) = ramped_down(scene, goal, wanted, why);
    if scene.policy.pause == Pause::Down {
        return (current, Some(Cause::Paused { need: wanted }));
    }
    // The maximum is a command, whatever the windows say.
    if goal > max { (max, why) } else { (goal, why) }
}

fn lowered<'a>(scene: &Scene<'a>, wanted: u32, why: Option<Cause<'a>>) -> (u32, Option<Cause<'a>>) {
    let current = scene.input.current;
    if let Some(doubt) = scene.doubt {
        return (current, Some(Cause::Doubt(doubt)));
    }
    if let Some(pods) = scene.warnings.failing {
        return (current, Some(Cause::Failing { pods }));
    }
    if wanted == 0 {
        return (0, why);
    }
    if scene.policy.mode == Mode::ServerOnly && scene.needs.iter().any(is_long) {
        return (current, Some(Cause::Busy { need: wanted, kept: scene.fleet.existing }));
    }
    let swung = scene.state.memory.swung_until.filter(|until| *until > scene.input.now);
    if let Some(until) = swung {
        let left = until.saturating_sub(scene.input.now);
        return (current, Some(Cause::Settling { need: wanted, since: Duration::ZERO, left }));
    }
    let (goal, why) = held(scene, wanted, why);
    stepped(scene, goal, wanted, why)
}

fn is_long(need: &LaneNeed<'_>) -> bool {
    need.service.is_some_and(|time| time > BLIND_LONGEST_TASK)
}

/// The highest need of the window.
fn held<'a>(scene: &Scene<'a>, wanted: u32, why: Option<Cause<'a>>) -> (u32, Option<Cause<'a>>) {
    let (now, current) = (scene.input.now, scene.input.current);
    let needs = &scene.state.memory.needs;
    let stable = needs.highest(now, scene.hold).map_or(wanted, |(_, need)| need.min(current)).max(wanted);
    if stable <= wanted {
        return (wanted, why);
    }
    let since = needs.last_above(wanted).map_or(Duration::ZERO, |at| now.saturating_sub(at));
    let highest =
        needs.highest(now, scene.hold).map_or(scene.hold, |(at, _)| scene.hold.saturating_sub(now.saturating_sub(at)));
    (stable, Some(Cause::Settling { need: wanted, since, left: highest }))
}

/// No more than a step at a time.
fn stepped<'a>(scene: &Scene<'a>, goal: u32, need: u32, why: Option<Cause<'a>>) -> (u32, Option<Cause<'a>>) {
    let (memory, now, current) = (&scene.state.memory, scene.input.now, scene.input.current);
    let (_, most) = memory.steps_within(now, TICK, current);
    let step = match scene.policy.mode {
        Mode::Full => (most / 2).max(STEP_DOWN),
        Mode::ServerOnly => (most / STEP_DOWN_BLIND).max(1),
    };
    let (mut goal, mut why) = (goal, why);
    // Cordoned pods have left already, though they are counted until they are empty.
    let cordoned = u32::try_from(scene.fleet.cordoned).unwrap_or(u32::MAX);
    let least = most.saturating_sub(step).saturating_sub(cordoned).min(current);
    if goal < least {
        (goal, why) = (least, Some(Cause::Step { need, ramp: false }));
    }
    (goal, why)
}

/// No more within a minute than the user says.
fn ramped_down<'a>(scene: &Scene<'a>, goal: u32, need: u32, why: Option<Cause<'a>>) -> (u32, Option<Cause<'a>>) {
    let current = scene.input.current;
    let Some(ramp) = scene.policy.ramp.down_per_minute else { return (goal, why) };
    let (_, most) = scene.state.memory.steps_within(scene.input.now, RAMP_WINDOW, current);
    let least = most.saturating_sub(ramp).min(current);
    if goal < least { (least, Some(Cause::Step { need, ramp: true })) } else { (goal, why) }
}

fn cause<'a>(scene: &Scene<'a>, facts: &Facts, number: &Number<'a>, wanted: u32, why: Option<Cause<'a>>) -> Cause<'a> {
    let (current, max, min) = (scene.input.current, scene.policy.max_replicas, scene.policy.min_replicas);
    let Number { work, goal, desired, .. } = *number;
    let binding = scene.binding();
    if scene.policy.pause == Pause::All && (wanted != current || goal != current) {
        return Cause::Paused { need: wanted };
    }
    if scene.warnings.stalled.is_some() {
        return Cause::Stalled;
    }
    if let Some((_, left)) = scene.warnings.blocked.filter(|(most, _)| work > *most) {
        return Cause::Ineffective { need: work, left };
    }
    if desired > max {
        return if scene.policy.pause == Pause::None { Cause::OverMaximum } else { Cause::Paused { need: wanted } };
    }
    if (work > max && why.is_none()) || max == 0 {
        return Cause::Maximum;
    }
    match (scene.doubt, why) {
        _ if desired == 0 && current > 0 => Cause::ToZero,
        (Some(doubt), _) if desired == 0 => Cause::Doubt(doubt),
        _ if desired == 0 => Cause::AtZero,
        _ if desired > goal => Cause::Busy { need: wanted, kept: usize::try_from(desired).unwrap_or(usize::MAX) },
        (_, Some(why)) => why,
        _ if scene.warnings.failing.is_some() && work > desired => {
            Cause::Failing { pods: scene.warnings.failing.unwrap_or(0) }
        }
        _ if work == wanted && binding.is_some_and(|need| matches!(need.term, Term::Limited | Term::Stuck)) => {
            Cause::Limited
        }
        _ if work == wanted && work > scene.work_pods() => Cause::Episode,
        _ if work == wanted => Cause::Need,
        (doubt, None) => below(scene, facts, wanted, min, doubt),
    }
}

/// Why there are more than the work calls for.
fn below<'a>(scene: &Scene<'a>, facts: &Facts, wanted: u32, min: u32, doubt: Option<&'a Doubt<'a>>) -> Cause<'a> {
    match (highest_floor(scene.input), doubt) {
        (Some(floor), _) if facts.lowest == wanted && floor.replicas > min => Cause::Floor(&floor.reason),
        _ if facts.lowest == wanted => Cause::Minimum,
        (_, Some(doubt)) => Cause::Doubt(doubt),
        _ => Cause::Waiting { left: scene.idle_window.saturating_sub(scene.idle_for()) },
    }
}

fn highest_floor(input: &Input) -> Option<&Floor> {
    input.floors.iter().max_by_key(|floor| floor.replicas)
}

fn quarter_more(pods: u32) -> u32 {
    pods.saturating_add(pods.div_ceil(4))
}

fn half_more(pods: u32) -> u32 {
    pods.saturating_add(pods.div_ceil(2))
}

impl State {
    /// Notes the need: that of the load, for a backlog ends at once when it is worked off. Where history is missing the
    /// replicas count as needed.
    pub(super) fn see_need(&mut self, input: &Input, need: u32) {
        let need = if self.memory.last.is_none() { need.max(input.current) } else { need };
        self.memory.needs.see(input.now, need);
        self.memory.last = Some(input.now);
    }
}
