//! Where the target version is on its way to Current, and which change of the routing is due.
//!
//! A version is never routed to before it has polled every Task Queue that it must serve: a version that was made
//! current earlier owns no backlog until it polls, and the tasks would belong to nobody.

pub mod gate;
mod ramp;
mod readiness;
pub mod sunset;
mod unversioned;

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Clock;
use crate::identity::{Claim, claim};
use crate::observed::{DeploymentInfo, LaneKey, Observation, TemporalState, VersionInfo};
use crate::scaling::versions;
use gate::{Gate, GateHold, GateId, Gates, Keeper, Record};
use ramp::Next;
use readiness::{NEVER_POLLED, missing};

pub use readiness::LANES_SETTLE;

/// How versions get traffic.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Who changes the routing, and how.
    pub strategy: Strategy,
    /// The gate before any traffic.
    pub gate: Option<Gate>,
    /// Whether a version loses its share when one of its gates fails.
    pub rolls_back: bool,
    /// Whether the traffic stays as it is.
    pub paused: bool,
    /// Time since a version was last current within which it is made current again at once; none for never.
    pub rollback_window: Option<Duration>,
}

/// Who changes the routing, and how.
#[derive(Clone, Debug, PartialEq)]
pub enum Strategy {
    /// Somebody else.
    Manual,
    /// At once.
    AllAtOnce,
    /// By these steps, of rising shares.
    Progressive(Vec<Step>),
}

/// A step of a Progressive rollout.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Share of new Workflows, in percent: 1 to 99.
    pub percent: u8,
    /// Least time until the next step.
    pub pause: Duration,
    /// The gate before this share.
    pub gate: Option<Gate>,
}

/// What commands leave of a rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// As the spec says.
    #[default]
    AsSpecified,
    /// Its traffic stays as it is.
    Pause,
    /// Make it current.
    Promote,
    /// Take its share away.
    Abort,
}

/// What the user and the fleet say of the version that should get the traffic.
#[derive(Clone, Debug, PartialEq)]
pub struct Target<'a> {
    /// Its Build ID.
    pub build_id: &'a str,
    /// Lanes that the manifest names.
    pub declared_lanes: &'a BTreeSet<LaneKey>,
    /// Task Queues that the manifest names without saying the kind of task.
    pub declared_queues: &'a BTreeSet<String>,
    /// Whether one of its pods is Ready.
    pub has_ready_pod: bool,
    /// How it gets traffic.
    pub policy: &'a Policy,
    /// What the user ordered of its rollout beside the spec.
    pub order: Order,
    /// Name of the Worker Deployment.
    pub deployment_name: &'a str,
    /// What is known of its gates beside the server's word.
    pub gates: &'a Record,
    /// The operator's own identity.
    pub identity: &'a str,
    /// Identities that it had before.
    pub former_identities: &'a BTreeSet<String>,
}

/// A change of the routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// Make the target current.
    Current,
    /// Give the target this share of new Workflows, in percent.
    Ramp(u8),
    /// Take the share away that a version has beside the current one.
    ClearRamp,
}

/// What keeps a version from more traffic.
#[derive(Clone, Debug, PartialEq)]
pub enum Hold {
    /// Nothing: this is being done.
    Changing(Move),
    /// The strategy leaves it to the user.
    Manual,
    /// The rollout is paused, by the spec or by a command.
    Paused,
    /// A command ended the rollout.
    Aborted,
    /// A gate is not passed.
    Gate(GateHold),
    /// Another identity manages the routing.
    Manager(String),
    /// It does not poll all that it must, or not yet.
    Missing(String),
    /// Too few pods are Ready for the share that comes next.
    Pods {
        /// Pods that are Ready.
        ready: u32,
        /// Pods that the share calls for.
        wanted: u32,
        /// The share, in percent.
        percent: u8,
    },
    /// The pause of its step.
    Pause {
        /// What comes then.
        then: Move,
        /// When, by the server's clock, if the server told.
        at: Option<Timestamp>,
    },
    /// Somebody else gave it a share below the first step.
    Outside {
        /// Who, as the server has it.
        by: String,
    },
}

/// Where a version is.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// The server could not be asked lately.
    Unknown,
    /// The server has no record of the version, or not of all its Task Queues.
    Registering {
        /// What is still missing.
        missing: String,
    },
    /// Ready for traffic, and has none yet.
    Waiting(Hold),
    /// It has a share of the traffic.
    Ramping {
        /// The share, in percent.
        percent: f32,
        /// What keeps it there.
        hold: Hold,
    },
    /// It has the traffic.
    Current,
}

/// The target's stage, and what is to be done about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollout {
    /// Where the target is.
    pub stage: Stage,
    /// The change that is due.
    pub change: Option<Move>,
    /// Time until one is, if only time is missing.
    pub due_in: Option<Duration>,
    /// Whether it is urgent, because it goes back to what worked or somebody ordered it: that waits for no more than one pod.
    pub urgent: bool,
    /// What a look at the gates came to.
    pub gates: Gates,
}

impl Rollout {
    fn at(stage: Stage) -> Self {
        Self { stage, change: None, due_in: None, urgent: false, gates: Gates::default() }
    }

    /// Puts the change that is due off until enough pods are Ready for it: four of five of `wanted`.
    pub fn wait_for_pods(&mut self, ready: u32, wanted: u32) {
        let enough = versions::ramp_is_ready(ready, wanted);
        let Some(to) = self.change.take_if(|_| !enough && !self.urgent) else { return };
        let percent = to.percent();
        if let Stage::Waiting(hold) | Stage::Ramping { hold, .. } = &mut self.stage {
            *hold = Hold::Pods { ready, wanted, percent };
        }
    }
}

impl Move {
    /// Share of new Workflows that the target has afterwards, in percent.
    #[must_use]
    pub fn percent(self) -> u8 {
        match self {
            Self::Current => 100,
            Self::ClearRamp => 0,
            Self::Ramp(percent) => percent,
        }
    }
}

/// Finds where the target is, and the change that is due.
#[must_use]
pub fn decide(target: &Target<'_>, temporal: &TemporalState, clock: &Clock) -> Rollout {
    let Observation::Known { value: deployment, .. } = &temporal.deployment else {
        return Rollout::at(last_known_stage(target, temporal));
    };
    let unseen = || Rollout::at(Stage::Registering { missing: NEVER_POLLED.into() });
    let Some(info) = deployment else { return unseen() };
    if info.current_build_id.as_deref() == Some(target.build_id) {
        return current(target, info);
    }
    match info.known_version(target.build_id) {
        None => Rollout::at(Stage::Unknown),
        Some(None) => unseen(),
        Some(Some(version)) => {
            let mut keeper = Keeper::new(target, version, &temporal.test_workflows);
            let rollout = on_the_way(&mut keeper, (info, temporal), (target, version), clock);
            Rollout { gates: keeper.gates, ..rollout }
        }
    }
}

/// A version that was seen to be current stays so while the server is away: the operator alone changes that.
fn last_known_stage(target: &Target<'_>, temporal: &TemporalState) -> Stage {
    let last = temporal.deployment.last().and_then(Option::as_ref);
    match last.and_then(|deployment| deployment.current_build_id.as_deref()) {
        Some(current) if current == target.build_id => Stage::Current,
        _ => Stage::Unknown,
    }
}

/// The target has the traffic. What another version still gets of it is taken away: the user went back in mid-ramp.
fn current(target: &Target<'_>, info: &DeploymentInfo) -> Rollout {
    let ours = target.policy.strategy != Strategy::Manual && foreign_manager(target, info).is_none();
    let change = info.ramp.as_ref().filter(|_| ours).map(|_| Move::ClearRamp);
    Rollout { change, ..Rollout::at(Stage::Current) }
}

fn on_the_way(
    keeper: &mut Keeper<'_>,
    (info, temporal): (&DeploymentInfo, &TemporalState),
    (target, version): (&Target<'_>, &VersionInfo),
    clock: &Clock,
) -> Rollout {
    let ramp = info.ramp_of(target.build_id);
    let at = |hold| match (ramp, hold) {
        (Some(ramp), hold) => Rollout::at(Stage::Ramping { percent: ramp.percent, hold }),
        (None, Hold::Missing(missing)) => Rollout::at(Stage::Registering { missing }),
        (None, hold) => Rollout::at(Stage::Waiting(hold)),
    };
    let failed = keeper.failed();
    let ended = target.order == Order::Abort;
    if ended && (ramp.is_none() || foreign_manager(target, info).is_some()) {
        return at(Hold::Aborted);
    }
    if ended {
        return Rollout { change: Some(Move::ClearRamp), urgent: true, ..at(Hold::Aborted) };
    }
    if let Some((test, written)) = failed.filter(|_| gates_count(target, version, clock)) {
        let ours = target.policy.strategy != Strategy::Manual && foreign_manager(target, info).is_none();
        // What counts is written down first: so the share is not given again by whoever did not see it fail.
        let back = target.policy.rolls_back && written && ours && ramp.is_some();
        let change = back.then_some(Move::ClearRamp);
        return Rollout { change, urgent: back, ..at(Hold::Gate(GateHold::Failed(test))) };
    }
    if let Some(missing) = missing(target, version, info) {
        return Rollout { due_in: settles_in(version), ..at(Hold::Missing(missing)) };
    }
    match next(keeper, (info, temporal), (target, version), clock) {
        Err(hold) => {
            let due_in = match &hold {
                Hold::Gate(GateHold::Settling(left)) => Some(*left),
                Hold::Missing(_) => settles_in(version),
                _ => None,
            };
            Rollout { due_in, ..at(hold) }
        }
        Ok(Next::Halted) => at(Hold::Outside { by: info.last_modifier_identity.clone() }),
        Ok(Next::Later { then, at: due, left }) => Rollout { due_in: Some(left), ..at(Hold::Pause { then, at: due }) },
        Ok(Next::Due(change)) => match foreign_manager(target, info) {
            Some(manager) => at(Hold::Manager(manager)),
            None => {
                let urgent = goes_back(target, version, clock) || target.order == Order::Promote;
                Rollout { change: Some(change), urgent, ..at(Hold::Changing(change)) }
            }
        },
    }
}

/// What the strategy does next with a version that is ready for traffic.
fn next(
    keeper: &mut Keeper<'_>,
    (info, temporal): (&DeploymentInfo, &TemporalState),
    (target, version): (&Target<'_>, &VersionInfo),
    clock: &Clock,
) -> Result<Next, Hold> {
    if target.order == Order::Promote {
        return Ok(Next::Due(Move::Current));
    }
    if is_paused(target) {
        return Err(Hold::Paused);
    }
    if goes_back(target, version, clock) {
        return Ok(Next::Due(Move::Current));
    }
    keeper.pass(GateId::Rollout, target.policy.gate.as_ref())?;
    let steps = match &target.policy.strategy {
        Strategy::Manual => return Err(Hold::Manual),
        Strategy::AllAtOnce => return Ok(Next::Due(Move::Current)),
        Strategy::Progressive(steps) => steps,
    };
    let ramp = info.ramp_of(target.build_id);
    if info.current_build_id.is_none() && ramp.is_none() {
        match unversioned::poll_all(version, &temporal.unversioned) {
            Some(true) => {}
            Some(false) => return Ok(Next::Due(Move::Current)),
            None => return Err(Hold::Missing(unversioned::NOT_KNOWN.into())),
        }
    }
    let modifier = &info.last_modifier_identity;
    let own = modifier == target.identity || target.former_identities.contains(modifier);
    let next = ramp::next(steps, ramp, own, clock);
    if let Next::Due(Move::Ramp(percent)) = next
        && ramp.is_none_or(|ramp| f32::from(percent) > ramp.percent)
    {
        let step = steps.iter().find(|step| step.percent == percent);
        keeper.pass(GateId::Step(percent), step.and_then(|step| step.gate.as_ref()))?;
    }
    Ok(next)
}

/// Time until something follows from Task Queues that have not changed: no reading tells of it.
fn settles_in(version: &VersionInfo) -> Option<Duration> {
    let waits = [LANES_SETTLE, unversioned::LONGEST].into_iter();
    waits.filter_map(|wait| wait.checked_sub(version.lanes_unchanged_for)).find(|left| !left.is_zero())
}

fn is_paused(target: &Target<'_>) -> bool {
    target.order == Order::Pause || target.policy.paused
}

/// Whether a gate that failed holds the version: not what somebody ordered, nor what goes back to what worked.
fn gates_count(target: &Target<'_>, version: &VersionInfo, clock: &Clock) -> bool {
    target.order != Order::Promote && !is_paused(target) && !goes_back(target, version, clock)
}

/// Whether the version was current a short time ago: the user goes back to what worked.
fn goes_back(target: &Target<'_>, version: &VersionInfo, clock: &Clock) -> bool {
    let window = target.policy.rollback_window.filter(|_| target.policy.strategy != Strategy::Manual);
    version.last_current_at.zip(window).is_some_and(|(at, window)| clock.since_at_most(at) <= window)
}

fn foreign_manager(target: &Target<'_>, info: &DeploymentInfo) -> Option<String> {
    let manager = &info.manager_identity;
    let foreign = claim(manager, target.identity, target.former_identities) == Claim::Refused;
    foreign.then(|| manager.clone())
}

#[cfg(test)]
mod tests;
