//! The calculation behind a decision, as data for status, metrics and `explain`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

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
