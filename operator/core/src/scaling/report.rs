//! The calculation behind a decision, as data for status, metrics and `explain`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::decision::Scene;
use super::need::{LaneNeed, Term};
use super::number::{Cause, Number};
use crate::observed::{LaneKey, RateLimitSource};

/// How a decision came about.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Every lane of the fleet.
    pub lanes: Vec<LaneReport>,
    /// The lane that needs most, if one needs anything.
    pub binding: Option<LaneKey>,
    /// What keeps the number from what the work calls for.
    pub limits: Vec<Limit>,
    /// How far schedule-to-start is from its target; none before enough tasks were seen.
    pub slo: Option<Slo>,
    /// Time until the next decrease, if one is held back by time alone.
    pub next_down_in: Option<Duration>,
}

/// How a lane's need came about. Rates are a second; slots and tasks are counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaneReport {
    /// The lane.
    pub lane: LaneKey,
    /// Tasks that wait, fresh or not.
    pub backlog: Option<u64>,
    /// Time that the oldest of them has waited.
    pub backlog_age: Option<Duration>,
    /// Tasks that arrive a second.
    pub arrival_rate: Option<f64>,
    /// Tasks that run.
    pub in_flight: u64,
    /// Slots of a pod that count.
    pub slots_per_pod: Option<f64>,
    /// Mean time that a task holds a slot.
    pub service_time: Option<Duration>,
    /// Slots that will be busy when a pod ordered now can take a task.
    pub offered_load: f64,
    /// Pods for that load.
    pub rate_replicas: u32,
    /// Pods for that load and the backlog.
    pub burst_replicas: u32,
    /// Age of the oldest reading of this lane: of the server or of a pod.
    pub metrics_age: Option<Duration>,
}

/// What keeps the number from what the work calls for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Limit {
    /// `spec.scaling.maxReplicas`; so many are needed.
    Maximum {
        /// Pods that the work calls for.
        needed: u32,
    },
    /// The queue gives out only so many tasks a second.
    RateLimited {
        /// The lane.
        lane: LaneKey,
        /// Tasks a second, told or measured.
        per_second: f64,
        /// Who set it, if the server tells.
        source: Option<RateLimitSource>,
    },
    /// More pods brought no more throughput.
    Ineffective {
        /// Time until it is tried again.
        retry_in: Duration,
    },
    /// `spec.scaling.ramp`.
    Ramp,
    /// `spec.scaling.pause`.
    Paused,
    /// Pods start and end, or never become Ready.
    Stalled {
        /// Pods that do not become Ready.
        pods: u32,
        /// For how long.
        since: Duration,
        /// Kubernetes' word, if it has one.
        why: Option<String>,
    },
}

/// How far schedule-to-start is from its target.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slo {
    /// The target.
    pub target: Duration,
    /// Share of the tasks of the last 15 minutes that started later than that.
    pub late_share: f64,
    /// What the feedback multiplies the hold with.
    pub hold_multiplier: f64,
}

/// The calculation behind a number.
pub(super) fn of(scene: &Scene<'_>, number: &Number<'_>) -> Report {
    Report {
        lanes: scene.needs.iter().filter_map(lane).collect(),
        binding: scene.binding().and_then(|need| need.lane.cloned()),
        limits: limits(scene, number),
        slo: scene.state.learned.feedback.late_share().map(|late_share| Slo {
            target: scene.policy.target_latency,
            late_share,
            hold_multiplier: scene.state.learned.feedback.multiplier(),
        }),
        next_down_in: match number.cause {
            Cause::Settling { left, .. } | Cause::Waiting { left } => Some(left),
            _ => None,
        },
    }
}

fn lane(need: &LaneNeed<'_>) -> Option<LaneReport> {
    Some(LaneReport {
        lane: need.lane?.clone(),
        backlog: need.backlog,
        backlog_age: need.backlog_age,
        arrival_rate: Some(need.arrivals).filter(|rate| rate.is_finite()),
        in_flight: need.running,
        slots_per_pod: need.usable,
        service_time: need.service.map(Duration::from_secs_f64),
        offered_load: need.load,
        rate_replicas: need.rate_pods,
        burst_replicas: need.burst_pods,
        metrics_age: need.age,
    })
}

fn limits(scene: &Scene<'_>, number: &Number<'_>) -> Vec<Limit> {
    let mut limits = Vec::new();
    if number.work > scene.policy.max_replicas {
        limits.push(Limit::Maximum { needed: number.work });
    }
    for need in scene.needs.iter().filter(|need| need.term == Term::Limited) {
        if let (Some(lane), Some((per_second, source))) = (need.lane, need.limit) {
            limits.push(Limit::RateLimited { lane: lane.clone(), per_second, source });
        }
    }
    if let Some((_, retry_in)) = scene.warnings.blocked {
        limits.push(Limit::Ineffective { retry_in });
    }
    match number.cause {
        Cause::Step { ramp: true, .. } => limits.push(Limit::Ramp),
        Cause::Paused { .. } => limits.push(Limit::Paused),
        _ => {}
    }
    if let Some(stall) = &scene.warnings.stalled {
        limits.push(Limit::Stalled { pods: stall.pods, since: stall.time, why: stall.why.clone() });
    }
    limits
}
