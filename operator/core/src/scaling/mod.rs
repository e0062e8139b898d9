//! From backlog and load to the number of replicas.
//!
//! [`decide`] is the one place where a number of replicas is chosen. It is a function: the state that it needs from one
//! decision to the next goes in and comes out as a value.
//!
//! Up: as many pods as have slots for the tasks that wait and run, at once. Down: only when everything is known, the
//! need was lower for [`STABILIZATION`], and by idle pods alone. To zero: only when nothing started, ran or waited for the
//! idle window.

mod decision;
mod fleet;
mod need;
mod reason;
mod state;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::observed::{LaneKey, LaneStats, Observation, PodLoad};

pub use decision::{Decision, Outcome, decide};
pub use state::State;

/// Time that the need must have been lower before pods are removed. Shorter idle windows shorten it: who asks for zero
/// after 10 s gets fewer pods after 10 s too.
pub const STABILIZATION: Duration = Duration::from_secs(60);
/// Most pods that are started before one of them has told how many slots it has.
pub const CANARY: u64 = 2;
/// Time between two decisions while pods run; the server renews its statistics as often.
pub const TICK: Duration = Duration::from_secs(5);
/// Time between two decisions at zero when no reading calls for one.
pub const TICK_AT_ZERO: Duration = Duration::from_secs(30);
/// Longest time between two decisions for which the first one's observations still say something about the time between.
/// After a longer one nothing is remembered but the slots of a pod.
pub const LONGEST_GAP: Duration = Duration::from_secs(30);

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
