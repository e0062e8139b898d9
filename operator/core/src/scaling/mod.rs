//! From backlog and load to the number of replicas.
//!
//! [`decide`] is the one place where a number of replicas is chosen. It is a function: the state that it needs from one
//! decision to the next goes in and comes out as a value.
//!
//! Each lane, one Task Queue and one kind of task, needs slots for the load at the time when a pod ordered now takes tasks,
//! and for what waits then; the largest need counts. Up at once; down when the need was lower for two and a half start-ups, by pods
//! that run nothing long; to zero when nothing started, ran or waited for the idle window.

mod decision;
mod doubt;
mod fleet;
mod flow;
mod guards;
mod histogram;
mod lessons;
mod memory;
mod need;
mod number;
mod observe;
mod reason;
mod record;
mod report;
mod staffing;
mod state;
pub mod versions;
mod victims;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::observed::{LaneKey, LaneStats, Observation, PodLoad, Unreadable};

pub use decision::{Decision, Outcome, decide};
pub use record::DecisionRecord;
pub use report::{LaneReport, Limit, Report, Slo};
pub use state::{Recording, STATE_VALID_FOR, State};

/// Least time that the need must have been lower before pods are removed: fleets that start slowly wait for two and a half start-ups,
/// and those that miss their target for longer. Shorter idle windows shorten it: who asks for zero after 10 s gets fewer pods
/// after 10 s too.
pub const STABILIZATION: Duration = Duration::from_secs(60);
/// Most pods that are started before one of them has told how many slots it has, or while none of them becomes Ready.
pub const CANARY: u64 = 2;
/// Time between two decisions while pods run; the server renews its statistics as often.
pub const TICK: Duration = Duration::from_secs(5);
/// Time between two decisions at zero when no reading calls for one.
pub const TICK_AT_ZERO: Duration = Duration::from_secs(30);
/// Longest time between two decisions for which the first one's observations still say something about the time between.
/// After a longer one nothing is remembered but what [`State`] serialises.
pub const LONGEST_GAP: Duration = Duration::from_secs(30);
/// Idle window of a fleet that sets none, or of whose arrivals too little is known.
pub const DEFAULT_IDLE_WINDOW: Duration = Duration::from_secs(180);
/// Kubernetes' own grace period.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// What the user asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Least replicas.
    pub min_replicas: u32,
    /// Most replicas.
    pub max_replicas: u32,
    /// Schedule-to-start that the fleet is sized for.
    pub target_latency: Duration,
    /// Share of the tasks that should start within [`Policy::target_latency`]: 0.95 for p95.
    pub percentile: f64,
    /// Time without backlog, running tasks and arrivals before the fleet goes to zero.
    pub idle_window: IdleWindow,
    /// Which changes are held back.
    pub pause: Pause,
    /// What the decision may stand on.
    pub mode: Mode,
    /// Most pods that one step of a decision may add or take; none without a limit of the user's.
    pub ramp: Ramp,
}

/// How long a fleet without work is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IdleWindow {
    /// So long.
    Fixed(Duration),
    /// As long as the gaps between the fleet's own arrivals make worth while.
    Auto,
}

impl IdleWindow {
    /// The time, as far as it does not depend on what was seen.
    #[must_use]
    pub fn fixed(self) -> Duration {
        match self {
            Self::Fixed(time) => time,
            Self::Auto => DEFAULT_IDLE_WINDOW,
        }
    }
}

/// Which changes are held back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pause {
    /// None.
    #[default]
    None,
    /// Decreases.
    Down,
    /// All.
    All,
}

/// What the decision may stand on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// The server and the pods.
    #[default]
    Full,
    /// The server alone: the pods can't be read, by the user's word.
    ServerOnly,
}

/// The user's limits on one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ramp {
    /// Most pods added within a minute.
    pub up_per_minute: Option<u32>,
    /// Most pods taken within a minute.
    pub down_per_minute: Option<u32>,
}

/// Why the fleet must not go below a number of pods just now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floor {
    /// Least replicas, above the user's own minimum.
    pub replicas: u32,
    /// Half a sentence: "version b1 runs one pod until the server knows its Task Queues".
    pub reason: String,
}

/// A pod of the fleet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Whether it is Ready.
    pub ready: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Its load, from its own metrics or its Worker's heartbeats.
    pub load: Observation<PodLoad>,
    /// Why its metrics can't be read, while they can't.
    #[serde(default)]
    pub unreadable: Option<Unreadable>,
    /// Why it does not start and will not by itself, in Kubernetes' word: `ImagePullBackOff`.
    pub failing: Option<String>,
    /// Restarts of its containers.
    pub restarts: u32,
    /// Whether its Worker can be told to take no new task.
    pub may_be_cordoned: bool,
    /// Whether its Worker takes no new task, and none can reach it any more: its polls have ended, some 10 s after it was
    /// told. What it runs goes on. With no task in a slot it is empty, and stays so.
    #[serde(default)]
    pub cordoned: bool,
}

/// Everything that a decision stands on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// Time on the operator's monotonic clock, from any fixed start.
    pub now: Duration,
    /// `spec.replicas` of the child.
    pub current: u32,
    /// Every lane that the fleet is known to serve; a lane whose backlog could not be read is `Unknown` here, not absent.
    #[serde(with = "crate::observed::as_list")]
    pub lanes: BTreeMap<LaneKey, Observation<LaneStats>>,
    /// Whether [`Input::lanes`] is known to be complete: the server, or the user, named every Task Queue of the fleet.
    pub lanes_complete: bool,
    /// Slots of a pod by lane where they are declared and not yet measured.
    #[serde(with = "crate::observed::as_list")]
    pub declared_slots: BTreeMap<LaneKey, u64>,
    /// Every pod, those that are being deleted too.
    pub pods: Vec<Pod>,
    /// Floors from rollout and schedules; the highest counts.
    pub floors: Vec<Floor>,
    /// `terminationGracePeriodSeconds` of the pods.
    pub grace: Duration,
    /// Name of the pod template: what was learned of service time and slots counts for this one.
    pub template: String,
}
