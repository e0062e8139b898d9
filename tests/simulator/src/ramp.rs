//! A rollout: arrivals that move from one version of a fleet to the next, step by step.
//!
//! Each version has its own pods, its own share of the Task Queue and its own decisions. The rollout asks for pods of the new
//! version before it moves arrivals to it, and keeps those of the old one for a while after.

use crate::observation::Bounds;
use crate::policy::{Policy, PolicyName};
use crate::random::{Purpose, Stream};
use crate::run::{Driver, Run, finish};
use crate::time::{Micros, SECOND, ceiling, count};
use crate::workload::Workload;
use crate::world::{Want, World};

/// Time between two looks of the rollout.
const TICK: Micros = 5 * SECOND;
/// Share of the pods asked for that must be Ready before arrivals move.
const READY: f64 = 0.8;
/// Time for which the old version keeps its pods after a step, in median start-up times; at least a minute.
const KEPT_FOR: Micros = 3;

/// How arrivals move.
#[derive(Clone, Debug, PartialEq)]
pub struct Ramp {
    /// When the new version is created.
    pub start: Micros,
    /// Share of the arrivals that the new version gets, step after step.
    pub steps: Vec<f64>,
    /// Least time between two steps.
    pub pause: Micros,
    /// Whether pods are there before a step and stay after it. Without, a step is made once a pod of the new version is
    /// Ready.
    pub prepares: bool,
}

/// A rollout that is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Ramped {
    /// The version that had all arrivals.
    pub old: Run,
    /// The version that gets them.
    pub new: Run,
    /// How it went, each 5 s.
    pub course: Vec<Moment>,
}

/// A moment of a rollout.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// When.
    pub at: Micros,
    /// Share of the arrivals that the new version gets from now on.
    pub share: f64,
    /// Replicas of the old version.
    pub old: u32,
    /// Replicas of the new version.
    pub new: u32,
}

impl Ramped {
    /// Fraction of all tasks that waited longer than the target.
    #[must_use]
    pub fn late_share(&self) -> f64 {
        let late = |run: &Run| run.figures.late_share * count(run.counts.arrived);
        (late(&self.old) + late(&self.new)) / count((self.old.counts.arrived + self.new.counts.arrived).max(1))
    }
}

/// A version with its autoscaler.
struct Version<'a> {
    world: World<'a>,
    driver: Driver<'a>,
    /// Least replicas that the rollout asks for.
    floor: u32,
}

impl<'a> Version<'a> {
    fn new(workload: &'a Workload, policy: &'a mut dyn Policy, bounds: Bounds, seed: u64) -> Self {
        Self { world: World::fed(workload, seed, bounds.min), driver: Driver::new(policy, bounds), floor: 0 }
    }

    fn go_on(&mut self, until: Micros) {
        while let Some(want) = self.world.advance_to(until) {
            if matches!(want, Want::Decision) {
                self.driver.decide(&mut self.world, self.floor);
            }
        }
    }
}

/// Where the rollout is.
struct Rollout<'r> {
    ramp: &'r Ramp,
    kept_for: Micros,
    share: f64,
    steps: usize,
    /// When the last step was made; before the first, when the new version was created.
    since: Micros,
    /// Pods that the next step needs.
    wanted: Option<u32>,
}

impl Rollout<'_> {
    fn look(&mut self, now: Micros, old: &mut Version<'_>, new: &mut Version<'_>) {
        if now < self.ramp.start {
            return;
        }
        if now >= self.since + self.kept_for {
            old.floor = 0;
        }
        match self.ramp.steps.get(self.steps) {
            Some(share) if self.steps == 0 || now >= self.since + self.ramp.pause => {
                self.prepare(now, *share, old, new)
            }
            Some(_) => {}
            None if now >= self.since + self.kept_for => new.floor = 0,
            None => {}
        }
    }

    /// Asks for the pods of the next step, and makes it when they are there.
    fn prepare(&mut self, now: Micros, share: f64, old: &mut Version<'_>, new: &mut Version<'_>) {
        let total = f64::from(old.world.replicas() + new.world.replicas());
        let all = if self.ramp.prepares { ceiling(total * share, u32::MAX).max(1) } else { 1 };
        let wanted = *self.wanted.get_or_insert(all);
        new.floor = if self.ramp.prepares { wanted } else { u32::from(self.steps == 0) };
        if f64::from(new.world.ready()) < f64::from(wanted) * READY {
            return;
        }
        old.floor = if self.ramp.prepares { old.world.replicas() } else { 0 };
        (self.share, self.since, self.wanted) = (share, now, None);
        self.steps += 1;
    }
}

/// Plays `workload` against one autoscaler for each of two versions while its arrivals move from the old to the new one.
/// Equal arguments give equal runs.
#[must_use]
pub fn simulate_ramp(workload: &Workload, ramp: &Ramp, policy: PolicyName, bounds: Bounds, seed: u64) -> Ramped {
    let build = || policy.build(workload, bounds, seed);
    let (mut old_policy, mut new_policy) = (build(), build());
    let bounds = policy.bounds(bounds);
    let mut old = Version::new(workload, old_policy.as_mut(), bounds, seed);
    let mut new = Version::new(workload, new_policy.as_mut(), Bounds { min: 0, ..bounds }, seed);
    let kept_for = (KEPT_FOR * workload.startup).max(60 * SECOND);
    let mut rollout = Rollout { ramp, kept_for, share: 0.0, steps: 0, since: ramp.start, wanted: None };
    let mut routing = Stream::new(seed, Purpose::Routing);
    let mut tasks = (0_u32..).zip(&workload.tasks).peekable();
    let mut course = Vec::new();
    let mut tick = 0;
    while !(old.world.is_over() && new.world.is_over()) {
        while let Some((number, task)) = tasks.next_if(|(_, task)| task.arrival < tick) {
            old.go_on(task.arrival);
            new.go_on(task.arrival);
            let to = if routing.unit() < rollout.share { &mut new } else { &mut old };
            to.world.feed(number, task.arrival);
        }
        old.go_on(tick);
        new.go_on(tick);
        rollout.look(tick, &mut old, &mut new);
        course.push(Moment { at: tick, share: rollout.share, old: old.world.replicas(), new: new.world.replicas() });
        tick += TICK;
    }
    let run = |version: Version<'_>| finish(workload, version.world.close(), Vec::new());
    Ramped { old: run(old), new: run(new), course }
}
