//! From backlog and load to the number of replicas.
//!
//! [`decide`] is the one place where a number of replicas is chosen. It is a function: the state that it needs from one
//! decision to the next goes in and comes out as a value.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::observed::{LaneKey, LaneStats, Observation, PodLoad};

/// What the user asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Least replicas.
    pub min_replicas: u32,
    /// Most replicas.
    pub max_replicas: u32,
    /// p95 of schedule-to-start that the fleet is sized for.
    pub target_latency: Duration,
    /// Time without backlog, running tasks and arrivals before the fleet goes to zero.
    pub idle_window: Duration,
}

/// Why the fleet must not go below a number of pods just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Floor {
    /// Least replicas, above the user's own minimum.
    pub replicas: u32,
    /// Half a sentence: "version b1 runs one pod until the server knows its Task Queues".
    pub reason: String,
}

/// A pod of the fleet.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Whether it is Ready.
    pub ready: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Its load, from its own metrics.
    pub load: Observation<PodLoad>,
}

/// Everything that a decision stands on.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Time on the operator's monotonic clock, from any fixed start.
    pub now: Duration,
    /// `spec.replicas` of the child.
    pub current: u32,
    /// Every lane that the fleet is known to serve; a lane whose backlog could not be read is `Unknown` here, not absent.
    pub lanes: BTreeMap<LaneKey, Observation<LaneStats>>,
    /// Whether [`Input::lanes`] is known to be complete: the server, or the user, named every Task Queue of the fleet.
    pub lanes_complete: bool,
    /// Slots of a pod by lane where they are declared and not yet measured.
    pub declared_slots: BTreeMap<LaneKey, u64>,
    /// Every pod, those that are being deleted too.
    pub pods: Vec<Pod>,
    /// A floor from the rollout, if any.
    pub floor: Option<Floor>,
}
