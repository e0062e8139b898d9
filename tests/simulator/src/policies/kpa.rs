//! Knative's autoscaler, on tasks that wait and run instead of requests.
//!
//! knative/serving, `pkg/autoscaler/scaling/autoscaler.go`, `pkg/reconciler/autoscaling/kpa/scaler.go`,
//! `config/core/configmaps/autoscaler.yaml`. Its metric, the concurrency of each second, is the truth here: nobody has that
//! signal for Temporal.

use std::collections::VecDeque;

use super::Every;
use crate::observation::{Bounds, Observation};
use crate::policy::{Policy, Verdict};
use crate::time::{Micros, SECOND, ceiling, count};

const SAMPLE: Micros = SECOND;
const TICK: Micros = 2 * SECOND;
/// Share of the slots that should be busy.
const UTILIZATION: f64 = 0.7;
/// Samples of the stable window.
const STABLE: usize = 60;
/// Samples of the panic window.
const PANIC: usize = 6;
/// Need over what is Ready from which on it panics.
const PANIC_THRESHOLD: f64 = 2.0;
const MAX_UP: f64 = 1000.0;
const MAX_DOWN: f64 = 2.0;
/// Time for which a fleet is kept after it was found unused.
const ZERO_GRACE: Micros = 30 * SECOND;

/// The autoscaler.
#[derive(Debug)]
pub struct Kpa {
    bounds: Bounds,
    target: f64,
    sample: Every,
    tick: Every,
    /// Concurrency of each second, newest first.
    samples: VecDeque<u64>,
    /// Since when it panics, renewed while there is reason to, and the most pods since.
    panic: Option<(Micros, u32)>,
    unused_since: Option<Micros>,
}

impl Kpa {
    /// For pods with so many slots.
    #[must_use]
    pub fn new(slots: u32, bounds: Bounds) -> Self {
        Self {
            bounds,
            target: UTILIZATION * f64::from(slots),
            sample: Every::starting(0, SAMPLE),
            tick: Every::starting(0, TICK),
            samples: VecDeque::new(),
            panic: None,
            unused_since: None,
        }
    }

    fn mean(&self, window: usize) -> f64 {
        let taken = self.samples.len().min(window).max(1);
        count(self.samples.iter().take(window).sum()) / count(taken as u64)
    }

    fn desired(&mut self, now: Micros, ready: u32) -> u32 {
        let ready = f64::from(ready.max(1));
        let highest = libm::ceil(MAX_UP * ready);
        let lowest = libm::floor(ready / MAX_DOWN);
        let need = |mean: f64| libm::ceil(mean / self.target);
        let (stable, sudden) = (need(self.mean(STABLE)), need(self.mean(PANIC)));
        let limited = |pods: f64| ceiling(pods.max(lowest).min(highest), u32::MAX);
        let calm = limited(stable);
        if sudden / ready >= PANIC_THRESHOLD {
            self.panic = Some((now, self.panic.map_or(0, |(_, most)| most)));
        } else if self.panic.is_some_and(|(since, _)| since + SAMPLE * STABLE as u64 <= now) {
            self.panic = None;
        }
        match &mut self.panic {
            None => calm,
            Some((_, most)) => {
                *most = calm.max(limited(sudden)).max(*most);
                *most
            }
        }
    }

    /// The last pod stays until nothing was seen for the stable window and the grace.
    fn with_grace(&mut self, now: Micros, desired: u32, replicas: u32) -> u32 {
        if self.mean(STABLE) > 0.0 || replicas == 0 {
            self.unused_since = None;
            return desired;
        }
        let since = *self.unused_since.get_or_insert(now);
        if now - since < ZERO_GRACE { desired.max(1) } else { 0 }
    }
}

impl Policy for Kpa {
    fn decide(&mut self, now: Micros, seen: &Observation<'_>) -> Verdict {
        if self.sample.due(now) {
            self.samples.push_front(seen.ideal.waiting + seen.ideal.running);
            self.samples.truncate(STABLE);
        }
        let mut replicas = seen.replicas;
        if self.tick.due(now) {
            let desired = self.desired(now, seen.ready());
            let desired = self.with_grace(now, desired, replicas);
            replicas = self.bounds.clamp(desired);
        }
        let why = if self.panic.is_some() { "panic window" } else { "stable window" };
        Verdict::new(replicas, why, self.sample.next.min(self.tick.next))
    }
}
