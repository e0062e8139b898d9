//! An HPA on slot utilisation and backlog, as the Temporal Worker Controller recommends it.
//!
//! temporalio/temporal-worker-controller, `docs/scaling-recommendations.md` (how old the metrics are) and
//! `examples/wrt-hpa-backlog.yaml` (targets and rules). It can't scale to zero.

use std::collections::VecDeque;

use super::Every;
use super::hpa::{Behavior, Hpa, Rule, Rules, SYNC};
use crate::observation::{Bounds, Observation};
use crate::policy::{Policy, Verdict};
use crate::random::Stream;
use crate::time::{Micros, SECOND, count};

/// Share of the slots that should be busy.
const UTILIZATION: f64 = 0.75;
/// Waiting tasks for each pod.
const BACKLOG: f64 = 1.0;
/// Syncs by which the utilisation lags: 15 s, from the pods by way of Prometheus.
const UTILIZATION_LAG: usize = 1;
/// Syncs by which the backlog lags: 60 s, from the metrics that the server exports each minute.
const BACKLOG_LAG: usize = 4;
/// Steps of at most 10 % each 10 s, either way.
const STEP: Rule = Rule { window: 0, percent: 10, pods: 0, period: 10 * SECOND };
const UP_WINDOW: Micros = 30 * SECOND;
const DOWN_WINDOW: Micros = 120 * SECOND;

/// The metrics of one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    utilization: Option<f64>,
    backlog: Option<u64>,
}

/// An HPA on slots and backlog.
#[derive(Debug)]
pub struct HpaSlots {
    hpa: Hpa,
    sync: Every,
    /// The latest metrics, newest first.
    samples: VecDeque<Sample>,
}

impl HpaSlots {
    /// With the targets and rules of the example.
    #[must_use]
    pub fn new(bounds: Bounds, phase: &mut Stream) -> Self {
        let up = Rule { window: UP_WINDOW, ..STEP };
        let down = Rule { window: DOWN_WINDOW, ..STEP };
        Self {
            hpa: Hpa::new(bounds, Rules::Behavior(Behavior { up, down })),
            sync: Every::starting(phase.phase(SYNC), SYNC),
            samples: VecDeque::new(),
        }
    }

    fn sample(&mut self, seen: &Observation<'_>) {
        self.samples.push_front(Sample {
            utilization: seen.slots().map(|(used, all)| count(used) / count(all)),
            backlog: seen.server.map(|stats| stats.backlog),
        });
        self.samples.truncate(BACKLOG_LAG + 1);
    }

    /// What the metrics call for. One that is missing may not lower the number.
    fn recommended(&self, current: u32, ready: u32) -> u32 {
        let lagging = |lag: usize| self.samples.get(lag).copied().unwrap_or_default();
        let by_slots = lagging(UTILIZATION_LAG).utilization.map(|value| Hpa::value(current, ready, value, UTILIZATION));
        let by_backlog =
            lagging(BACKLOG_LAG).backlog.map(|backlog| Hpa::average_value(current, count(backlog), BACKLOG));
        match (by_slots, by_backlog) {
            (Some(slots), Some(backlog)) => slots.max(backlog),
            (Some(one), None) | (None, Some(one)) => one.max(current),
            (None, None) => current,
        }
    }
}

impl Policy for HpaSlots {
    fn decide(&mut self, now: Micros, seen: &Observation<'_>) -> Verdict {
        let mut replicas = seen.replicas;
        if self.sync.due(now) {
            self.sample(seen);
            replicas = self.hpa.step(now, replicas, self.recommended(replicas, seen.ready()));
        }
        Verdict::new(replicas, "the HPA: the larger of utilisation and backlog", self.sync.next)
    }
}
