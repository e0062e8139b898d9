//! KEDA's Temporal scaler with the HPA that KEDA makes.
//!
//! kedacore/keda, `pkg/scalers/temporal_scaler.go` (the metric is the backlog), `pkg/scaling/executor/scale_scaledobjects.go`
//! (KEDA itself decides between 0 and 1 alone, when it polls), `apis/keda/v1alpha1/withtriggers_types.go` (defaults). The HPA
//! calls the scaler again at each of its own syncs. While the server can't be read, both keep what there is.

use super::Every;
use super::hpa::{Behavior, Hpa, Rule, Rules, SYNC};
use crate::observation::{Bounds, Observation};
use crate::policy::{Policy, Verdict};
use crate::random::Stream;
use crate::time::{Micros, SECOND, seconds};
use crate::workload::Workload;

/// `pollingInterval`, by default.
const POLL: Micros = 30 * SECOND;
/// `cooldownPeriod`, by default.
const COOLDOWN: Micros = 300 * SECOND;
/// `targetQueueSize`, by default: waiting tasks for each pod.
const TARGET: f64 = 5.0;
/// `pollingInterval` of an expert.
const EXPERT_POLL: Micros = 10 * SECOND;
/// Stabilisation window of an expert.
const EXPERT_WINDOW: Micros = 120 * SECOND;

/// KEDA.
#[derive(Debug)]
pub struct Keda {
    bounds: Bounds,
    target: f64,
    poll: Every,
    sync: Every,
    hpa: Hpa,
    last_active: Option<Micros>,
}

impl Keda {
    /// With the defaults of KEDA and of the HPA.
    #[must_use]
    pub fn with_defaults(bounds: Bounds, phase: &mut Stream) -> Self {
        Self::new(bounds, TARGET, POLL, Rules::Default, phase)
    }

    /// By somebody who knows the mean service time, and sets as target the backlog that a pod works off within the target
    /// latency (AWS: acceptable backlog per instance), polls more often and scales down sooner.
    #[must_use]
    pub fn of_an_expert(workload: &Workload, bounds: Bounds, phase: &mut Stream) -> Self {
        let acceptable = seconds(workload.target) * f64::from(workload.all_slots()) / workload.mean_service().max(1e-6);
        // The API keeps such a target in thousandths.
        let target = acceptable.max(0.001);
        let all = Rule { window: 0, percent: 100, pods: 4, period: SYNC };
        let down = Rule { window: EXPERT_WINDOW, pods: 0, ..all };
        Self::new(bounds, target, EXPERT_POLL, Rules::Behavior(Behavior { up: all, down }), phase)
    }

    fn new(bounds: Bounds, target: f64, poll: Micros, rules: Rules, phase: &mut Stream) -> Self {
        Self {
            bounds,
            target,
            poll: Every::starting(phase.phase(poll), poll),
            sync: Every::starting(phase.phase(SYNC), SYNC),
            hpa: Hpa::new(bounds, rules),
            last_active: None,
        }
    }

    /// KEDA's own part: between 0 and 1.
    fn activate(&mut self, now: Micros, replicas: u32, backlog: u64) -> Option<(u32, &'static str)> {
        if backlog > 0 {
            self.last_active = Some(now);
            return (replicas == 0).then(|| (self.bounds.clamp(1), "active: a poll saw backlog"));
        }
        let cooled_down = self.last_active.is_none_or(|at| at + COOLDOWN < now);
        (self.bounds.min == 0 && replicas > 0 && cooled_down).then_some((0, "inactive: no poll saw backlog for 300 s"))
    }
}

impl Policy for Keda {
    fn decide(&mut self, now: Micros, seen: &Observation<'_>) -> Verdict {
        let mut change = None;
        let backlog = seen.server.map(|stats| stats.backlog);
        if self.poll.due(now) {
            change = backlog.and_then(|backlog| self.activate(now, seen.replicas, backlog));
        }
        let mut replicas = change.map_or(seen.replicas.max(self.bounds.min), |(to, _)| to);
        if self.sync.due(now)
            && replicas > 0
            && let Some(backlog) = backlog
        {
            let sum = crate::time::count(backlog);
            let recommended = Hpa::average_value(replicas, sum, self.target);
            replicas = self.hpa.step(now, replicas, recommended);
        }
        let why = change.map_or("the HPA: backlog over its target", |(_, why)| why);
        Verdict::new(replicas, why, self.poll.next.min(self.sync.next))
    }
}
