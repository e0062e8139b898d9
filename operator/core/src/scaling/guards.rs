//! Work that more pods would not help: pods that don't start, or start and do nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::fleet::Fleet;
use super::memory::PodMemory;
use super::need::{LaneNeed, Term};
use super::state::State;
use super::{Input, Pod};
use crate::observed::Observation;

/// A pod that is not Ready after this, and after four start-ups, is not going to be.
const STALLED_AFTER: Duration = Duration::from_secs(120);
/// Of a template of which no pod was ever Ready, twice the first order or so many more is the most.
const TRUST: u32 = 4;
/// Restarts within [`RESTARTS_WINDOW`] of a pod that fails, and the share of such pods, in percent, that makes a fleet fail.
const RESTARTS: u32 = 3;
const RESTARTS_WINDOW: Duration = Duration::from_secs(600);
const FAILING_PERCENT: usize = 30;
/// Shortest time over which the effect of new pods is measured, and the longest: the counts go no further back.
const EFFECT_TIME: Duration = Duration::from_secs(30);
const EFFECT_LONGEST: Duration = Duration::from_secs(150);
/// Share of the promised throughput below which new pods did nothing (Flink's rule).
const EFFECT_LEAST: f64 = 0.1;
/// Time for which no more are ordered then; doubled each time.
const BLOCKED: Duration = Duration::from_secs(300);
const BLOCKED_LONGEST: Duration = Duration::from_secs(3_600);
/// Beyond a start-up, time between two increases that stand on full slots alone.
const BLIND_STEP: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Guards {
    /// Since when no pod became Ready, once that is too long.
    stalled: Option<Duration>,
    /// The first order of pods of a template of which none was ever Ready.
    ordered: Option<u32>,
    trial: Option<Trial>,
    block: Option<Block>,
    /// For how long the last block was.
    penalty: Duration,
    /// When more were ordered because slots were full, and nothing else was known.
    blind: Option<Duration>,
}

/// An increase for a backlog, of which the effect is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Trial {
    from: u32,
    to: u32,
    /// Ends a second before it.
    before: f64,
    /// When all its pods were Ready.
    ready: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Block {
    pods: u32,
    until: Duration,
}

/// What the guards say of this moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Warnings {
    /// No pod becomes Ready.
    pub stalled: Option<Stall>,
    /// Most pods until the first of the template has shown that it starts.
    pub on_trial: Option<u32>,
    /// So many pods restart again and again.
    pub failing: Option<usize>,
    /// More pods than these did nothing, and are tried again after the time.
    pub blocked: Option<(u32, Duration)>,
    /// Every slot is full, the server says nothing, and no pod is starting.
    pub blind: bool,
}

/// Pods that do not become Ready.
#[derive(Clone, Debug)]
pub(super) struct Stall {
    pub pods: u32,
    pub time: Duration,
    pub why: Option<String>,
}

impl State {
    /// Notes what goes wrong.
    pub(super) fn see_guards(&mut self, input: &Input, fleet: &Fleet<'_>, needs: &[LaneNeed<'_>]) -> Warnings {
        self.see_trial(input, fleet, needs);
        Warnings {
            stalled: self.see_stall(input, fleet),
            on_trial: self.see_first_order(input, fleet),
            failing: self.see_restarts(input, fleet),
            blocked: self.see_block(input.now),
            blind: self.is_blind(input, fleet),
        }
    }

    fn see_stall(&mut self, input: &Input, fleet: &Fleet<'_>) -> Option<Stall> {
        let existing = || input.pods.iter().filter(|pod| !pod.terminating);
        if fleet.existing == 0 || existing().any(|pod| pod.ready) {
            self.memory.guards.stalled = None;
            return None;
        }
        // A pod that was there at the first look may be as young as that.
        let since = |memory: &PodMemory| memory.born.unwrap_or(memory.seen);
        let first = existing().filter_map(|pod| self.memory.pods.get(&pod.name)).map(since).min();
        let oldest = first.map_or(Duration::ZERO, |first| input.now.saturating_sub(first));
        let why = existing().find_map(|pod| pod.failing.clone());
        let all_failing = existing().all(|pod| pod.failing.is_some());
        if all_failing || oldest > STALLED_AFTER.max(self.start_up() * 4) {
            self.memory.guards.stalled.get_or_insert(input.now.saturating_sub(oldest));
        }
        let since = self.memory.guards.stalled?;
        let pods = u32::try_from(fleet.existing).unwrap_or(u32::MAX);
        Some(Stall { pods, time: input.now.saturating_sub(since), why })
    }

    fn see_first_order(&mut self, input: &Input, fleet: &Fleet<'_>) -> Option<u32> {
        if self.learned.proven || fleet.existing == 0 {
            self.memory.guards.ordered = None;
            return None;
        }
        let first = *self.memory.guards.ordered.get_or_insert(input.current);
        Some(first.saturating_mul(2).max(first.saturating_add(TRUST)))
    }

    fn see_restarts(&mut self, input: &Input, fleet: &Fleet<'_>) -> Option<usize> {
        let mut failing = 0;
        for pod in input.pods.iter().filter(|pod| !pod.terminating) {
            failing += usize::from(self.restarts_too_often(pod, input.now));
        }
        (failing * 100 > fleet.existing * FAILING_PERCENT).then_some(failing)
    }

    fn restarts_too_often(&mut self, pod: &Pod, now: Duration) -> bool {
        let Some(memory) = self.memory.pods.get_mut(&pod.name) else { return false };
        let (since, counted) = memory.restarts;
        let restarts = pod.restarts.saturating_sub(counted);
        if now.saturating_sub(since) >= RESTARTS_WINDOW {
            // A pod that goes on failing does so in the next window too.
            memory.restarts = (now, if restarts > RESTARTS { pod.restarts - RESTARTS } else { pod.restarts });
        }
        restarts > RESTARTS
    }

    fn see_block(&mut self, now: Duration) -> Option<(u32, Duration)> {
        let guards = &mut self.memory.guards;
        let block = guards.block.filter(|block| block.until > now);
        guards.block = block;
        block.map(|block| (block.pods, block.until.saturating_sub(now)))
    }

    fn is_blind(&self, input: &Input, fleet: &Fleet<'_>) -> bool {
        let recent =
            self.memory.guards.blind.is_some_and(|at| input.now.saturating_sub(at) < self.start_up() + BLIND_STEP);
        let full = |(lane, load): (&&crate::observed::LaneKey, &super::fleet::LaneLoad)| {
            input.lanes.get(*lane).and_then(Observation::known).is_none() && load.is_full() && fleet.silent == 0
        };
        !recent && fleet.starting.is_empty() && fleet.ready > 0 && fleet.lanes.iter().any(full)
    }

    /// Notes an increase and what it stands on.
    pub(super) fn see_increase(&mut self, input: &Input, to: u32, needs: &[LaneNeed<'_>], blind: bool) {
        let guards = &mut self.memory.guards;
        if blind {
            guards.blind = Some(input.now);
        }
        let for_backlog = needs.iter().any(|need| need.term == Term::Backlog && need.burst_pods > need.rate_pods);
        if guards.trial.is_some() || !for_backlog || input.current == 0 {
            return;
        }
        if let Some(before) = self.throughput(input, needs).filter(|before| *before > 0.0) {
            self.memory.guards.trial = Some(Trial { from: input.current, to, before, ready: None });
        }
    }

    /// Whether an increase did anything, once its pods had time to.
    fn see_trial(&mut self, input: &Input, fleet: &Fleet<'_>, needs: &[LaneNeed<'_>]) {
        let Some(trial) = self.memory.guards.trial else { return };
        let waits = needs.iter().any(|need| need.term == Term::Backlog || need.waiting > 0);
        if !waits || input.current < trial.to {
            self.memory.guards.trial = None;
            if !waits {
                self.memory.guards.penalty = Duration::ZERO;
            }
            return;
        }
        if fleet.ready < usize::try_from(trial.to).unwrap_or(usize::MAX) {
            return;
        }
        let ready = trial.ready.unwrap_or(input.now);
        self.memory.guards.trial = Some(Trial { ready: Some(ready), ..trial });
        let Some(time) = effect_time(needs) else { return };
        if input.now.saturating_sub(ready) < time {
            return;
        }
        let Some(now) = self.throughput(input, needs) else { return };
        let promised = trial.before * f64::from(trial.to - trial.from) / f64::from(trial.from);
        let guards = &mut self.memory.guards;
        guards.trial = None;
        if now - trial.before < EFFECT_LEAST * promised {
            guards.penalty = (guards.penalty * 2).clamp(BLOCKED, BLOCKED_LONGEST);
            guards.block = Some(Block { pods: trial.from, until: input.now + guards.penalty });
            self.learned.latch = None;
        } else {
            guards.penalty = Duration::ZERO;
        }
    }

    /// Ends a second, over all lanes with a backlog.
    fn throughput(&self, input: &Input, needs: &[LaneNeed<'_>]) -> Option<f64> {
        let time = effect_time(needs)?;
        let lanes = needs.iter().filter(|need| need.waiting > 0).filter_map(|need| need.lane);
        lanes.map(|lane| self.memory.lanes.get(lane)?.flow.ended_per_second(input.now, time)).sum()
    }
}

/// Time in which pods show their effect; none for tasks that are too long to tell.
fn effect_time(needs: &[LaneNeed<'_>]) -> Option<Duration> {
    let longest = needs.iter().filter(|need| need.waiting > 0).filter_map(|need| need.service).fold(0.0, f64::max);
    let time = EFFECT_TIME.max(Duration::from_secs_f64(2.0 * longest));
    (time <= EFFECT_LONGEST).then_some(time)
}
