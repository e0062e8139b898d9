//! One run, and its figures.

use std::borrow::Cow;

use serde::Serialize;

use crate::observation::Bounds;
use crate::policy::{Policy, PolicyName};
use crate::time::{Micros, count, seconds};
use crate::workload::Workload;
use crate::world::{Closed, Counts, Want, World};

/// The figures of a run, by which policies are compared.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Replica-seconds: time that pods existed, from creation until gone, over all of them.
    pub cost_replica_s: f64,
    /// Median of the tasks' waits, in seconds.
    pub wait_p50_s: f64,
    /// 95th percentile of the waits.
    pub wait_p95_s: f64,
    /// 99th percentile of the waits.
    pub wait_p99_s: f64,
    /// Fraction of the tasks that waited longer than the target.
    pub late_share: f64,
    /// Starts that the end of a pod cut off.
    pub killed: u64,
    /// Changes of the number of replicas.
    pub scale_events: u64,
}

/// A run that is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Its figures.
    pub figures: Figures,
    /// What became of the tasks.
    pub counts: Counts,
    /// When it ended.
    pub end: Micros,
    /// Most replicas that were ordered at a time.
    pub most_replicas: u32,
    /// Decreases while the server or the pods' metrics could not be read for more than 30 s.
    pub stale_decreases: u64,
    /// How it went, if that was asked for.
    pub course: Course,
}

/// How a run went: a note at each interval.
pub type Course = Vec<Note>;

/// The state of a run at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The moment.
    pub at: Micros,
    /// Tasks that have arrived until then.
    pub arrived: u64,
    /// Tasks that wait.
    pub waiting: u64,
    /// Replicas that are ordered.
    pub replicas: u32,
    /// The policy's last reason.
    pub reason: String,
}

impl Run {
    /// Replicas on average over the run.
    #[must_use]
    pub fn mean_replicas(&self) -> f64 {
        self.figures.cost_replica_s / seconds(self.end.max(1))
    }
}

/// Plays `workload` against a policy. Equal arguments give equal runs.
#[must_use]
pub fn simulate(workload: &Workload, policy: PolicyName, bounds: Bounds, seed: u64) -> Run {
    let mut built = policy.build(workload, bounds, seed);
    simulate_with(workload, built.as_mut(), policy.bounds(bounds), seed, None)
}

/// The same with a policy of one's own, and a note of the run's course at each interval if there is one.
#[must_use]
pub fn simulate_with(
    workload: &Workload,
    policy: &mut dyn Policy,
    bounds: Bounds,
    seed: u64,
    notes: Option<Micros>,
) -> Run {
    let mut world = World::new(workload, seed, bounds.min);
    let mut driver = Driver::new(policy, bounds);
    let mut course = Course::new();
    if notes.is_some() {
        world.plan_note(0);
    }
    while let Some(want) = world.advance() {
        match want {
            Want::Decision => driver.decide(&mut world, 0),
            Want::Note => {
                course.push(note(&world, &driver.reason));
                world.plan_note(notes.unwrap_or(Micros::MAX));
            }
        }
    }
    finish(workload, world.close(), course)
}

/// The autoscaler's process.
pub(crate) struct Driver<'p> {
    policy: &'p mut dyn Policy,
    bounds: Bounds,
    /// Restarts that are over.
    restarts: usize,
    /// The policy's last reason.
    reason: Cow<'static, str>,
}

impl<'p> Driver<'p> {
    pub fn new(policy: &'p mut dyn Policy, bounds: Bounds) -> Self {
        Self { policy, bounds, restarts: 0, reason: "".into() }
    }

    /// Has the policy decide for at least `floor` replicas, unless its process is away, and does what it says.
    pub fn decide(&mut self, world: &mut World<'_>, floor: u32) {
        if let Some(restart) = world.restart() {
            world.plan_decision(restart.away.until);
            return;
        }
        let over = world.restarts_over();
        if let Some(last) = over.last().filter(|_| over.len() > self.restarts) {
            self.restarts = over.len();
            self.policy.restart(world.now(), last.checkpoint);
        }
        let verdict = self.policy.decide(world.now(), &world.observe(floor));
        world.cordon(&verdict.cordon);
        world.scale(verdict.replicas.max(floor).min(self.bounds.max), &verdict.victims);
        world.plan_decision(verdict.next);
        self.reason = verdict.explanation;
    }
}

fn note(world: &World<'_>, reason: &str) -> Note {
    Note {
        at: world.now(),
        arrived: world.arrived(),
        waiting: world.waiting(),
        replicas: world.replicas(),
        reason: reason.into(),
    }
}

/// The figures of a run that is over.
pub(crate) fn finish(workload: &Workload, closed: Closed, course: Course) -> Run {
    let Closed { end, counts, pod_time, scale_events, stale_decreases, most_replicas, mut waits } = closed;
    let late = waits.iter().filter(|wait| **wait > workload.target).count() as u64;
    let late_share = count(late) / count(waits.len().max(1) as u64);
    waits.sort_unstable();
    let figures = Figures {
        cost_replica_s: seconds(pod_time),
        wait_p50_s: seconds(percentile(&waits, 50)),
        wait_p95_s: seconds(percentile(&waits, 95)),
        wait_p99_s: seconds(percentile(&waits, 99)),
        late_share,
        killed: counts.killed,
        scale_events,
    };
    Run { figures, counts, end, most_replicas, stale_decreases, course }
}

/// The percentile by nearest rank of sorted values: one that occurs, none in between. 0 of none.
fn percentile(sorted: &[Micros], percent: usize) -> Micros {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn a_percentile_is_a_value_that_occurs() {
        let hundred: Vec<_> = (1..=100).collect();
        assert_eq!([50, 95, 99].map(|percent| percentile(&hundred, percent)), [50, 95, 99]);
        assert_eq!(percentile(&[3, 8], 50), 3);
        assert_eq!(percentile(&[3, 8], 95), 8);
        assert_eq!(percentile(&[], 95), 0);
    }
}
