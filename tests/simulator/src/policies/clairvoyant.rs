//! One that knows the workload: a reference for what is possible, not a rival.
//!
//! It has at each moment the pods that keep every task from waiting (as many slots as tasks would run if none waited), orders
//! them as long before as all but the slowest hundredth of them needs to start, and keeps them for 45 s. It knows the rate
//! limit too. It does not choose which pods go, so it kills tasks that outlast the grace period.

use crate::observation::{Bounds, Observation};
use crate::policy::{Policy, Verdict};
use crate::server::Limiter;
use crate::time::{Micros, SECOND};
use crate::workload::{Task, Workload};

const TICK: Micros = SECOND;
/// Seconds for which a pod is kept.
const HOLD: usize = 45;
/// All but a hundredth of the pods start within so many medians: exp(2.33 * 0.3).
const SLOWEST: u64 = 2;

/// A policy with the future at hand.
#[derive(Debug)]
pub struct Clairvoyant {
    bounds: Bounds,
    /// Pods needed in each second.
    need: Vec<u32>,
    /// Seconds that it looks ahead.
    lead: usize,
}

impl Clairvoyant {
    /// With the future of `workload`.
    #[must_use]
    pub fn new(workload: &Workload, bounds: Bounds) -> Self {
        let lead = usize::try_from(SLOWEST * workload.startup / SECOND).unwrap_or(usize::MAX);
        Self { bounds, need: need(workload), lead }
    }
}

/// Pods that it takes in each second so that no task waits for a slot.
fn need(workload: &Workload) -> Vec<u32> {
    let mut need: Vec<u32> = Vec::new();
    for queue in 0..workload.queues.len() {
        let tasks: Vec<Task> = workload.tasks.iter().filter(|task| usize::from(task.queue) == queue).copied().collect();
        let slots = slots(&tasks, workload.options.rate_limit);
        need.resize(need.len().max(slots.len()), 0);
        need.iter_mut().zip(slots).for_each(|(most, slots)| *most = slots.div_ceil(workload.slots).max(*most));
    }
    need
}

/// Slots that it takes in each second so that no task of a Task Queue waits for one.
fn slots(tasks: &[Task], rate_limit: Option<f64>) -> Vec<u32> {
    let mut limiter = rate_limit.map(Limiter::new);
    let mut changes: Vec<(Micros, i32)> = Vec::with_capacity(tasks.len() * 2);
    let mut turn = 0;
    for task in tasks {
        turn = task.arrival.max(turn);
        while let Some(Err(later)) = limiter.as_mut().map(|limiter| limiter.take(turn)) {
            turn = later;
        }
        changes.push((turn, 1));
        changes.push((turn + task.service, -1));
    }
    // An end before a start at the same moment: its slot is free again.
    changes.sort_unstable();
    let last = changes.last().map_or(0, |(at, _)| second(*at));
    let mut most = vec![0_u32; last + 1];
    let (mut running, mut at) = (0_i32, 0);
    for (time, change) in changes {
        // What runs goes on through the seconds without a change.
        while at < second(time) {
            at += 1;
            most[at] = running.unsigned_abs();
        }
        running += change;
        most[at] = most[at].max(running.unsigned_abs());
    }
    most
}

fn second(time: Micros) -> usize {
    usize::try_from(time / SECOND).unwrap_or(usize::MAX)
}

impl Policy for Clairvoyant {
    fn decide(&mut self, now: Micros, _: &Observation<'_>) -> Verdict {
        let at = second(now);
        let end = (at + self.lead + 1).min(self.need.len());
        let window = self.need.get(at.saturating_sub(HOLD)..end).unwrap_or_default();
        let need = window.iter().copied().max().unwrap_or(0);
        Verdict::new(self.bounds.clamp(need), "what will be needed", now + TICK)
    }
}
