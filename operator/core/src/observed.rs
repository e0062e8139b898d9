//! What the operator saw, as plain data. The Kubernetes side and the Temporal side meet here and nowhere else.
//!
//! Ages are durations on the operator's monotonic clock, measured when the observation was put together. A value that is
//! missing or old is still a value: nothing is scaled down, deleted or rerouted because of [`Observation::Stale`] or
//! [`Observation::Unknown`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::connection::Attached;

mod server;
mod tests;
mod unreadable;

pub use server::{DeploymentInfo, Ramp, VersionInfo, VersionStatus, VersionSummary};
pub use tests::{TestRun, TestStatus};
pub use unreadable::{ReadFailure, Unreadable};

/// A reading with its age.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Observation<T> {
    /// Read lately enough to act on.
    Known {
        /// The reading.
        value: T,
        /// Time since it was taken.
        age: Duration,
    },
    /// Read, but too long ago to prove anything.
    Stale {
        /// The last reading.
        value: T,
        /// Time since it was taken.
        age: Duration,
    },
    /// Never read, or the last answer said nothing.
    #[default]
    Unknown,
}

impl<T> Observation<T> {
    /// Sorts a reading by its age: stale when older than `limit`.
    pub fn aged(value: T, age: Duration, limit: Duration) -> Self {
        if age > limit { Self::Stale { value, age } } else { Self::Known { value, age } }
    }

    /// The value, only if it is fresh.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known { value, .. } => Some(value),
            Self::Stale { .. } | Self::Unknown => None,
        }
    }

    /// Time since the value was taken, if there is one.
    pub fn age(&self) -> Option<Duration> {
        match self {
            Self::Known { age, .. } | Self::Stale { age, .. } => Some(*age),
            Self::Unknown => None,
        }
    }

    /// The value, fresh or not.
    pub fn last(&self) -> Option<&T> {
        match self {
            Self::Known { value, .. } | Self::Stale { value, .. } => Some(value),
            Self::Unknown => None,
        }
    }

    /// Another value with this one's age.
    pub fn map<U>(&self, of: impl FnOnce(&T) -> U) -> Observation<U> {
        match self {
            Self::Known { value, age } => Observation::Known { value: of(value), age: *age },
            Self::Stale { value, age } => Observation::Stale { value: of(value), age: *age },
            Self::Unknown => Observation::Unknown,
        }
    }
}

/// Kind of task that a Task Queue holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskType {
    /// Workflow tasks.
    Workflow,
    /// Activity tasks.
    Activity,
    /// Nexus tasks.
    Nexus,
}

impl TaskType {
    /// The word used in metrics' labels and messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Workflow => "workflow",
            Self::Activity => "activity",
            Self::Nexus => "nexus",
        }
    }
}

impl fmt::Display for TaskType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One Task Queue and one kind of task on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LaneKey {
    /// Name of the Task Queue.
    pub task_queue: String,
    /// Kind of task.
    pub task_type: TaskType,
}

impl fmt::Display for LaneKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} queue {:?}", self.task_type, self.task_queue)
    }
}

/// What the server says of a lane. All but the backlog is absent in a live reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LaneStats {
    /// Tasks that wait; the server's estimate, off by ghosts upwards and by sticky tasks downwards.
    pub backlog: u64,
    /// Time that the oldest of them has waited.
    pub backlog_age: Option<Duration>,
    /// Tasks added a second, a mean of 30 s; blind to eager and sticky tasks.
    pub add_rate: Option<f64>,
    /// Tasks given to Workers a second, a mean of 30 s; blind to eager and sticky tasks.
    pub dispatch_rate: Option<f64>,
    /// Whether a rate limit of the queue held a task back within the last 30 s (`rate_limiting_active`).
    pub rate_limiting: bool,
    /// The queue's rate limit, where the server tells it (`effective_rate_limit`).
    pub rate_limit: Option<RateLimit>,
    /// Whether Workers without Worker Versioning polled it within five minutes; only the description of the queue tells.
    #[serde(default)]
    pub unversioned_pollers: bool,
}

/// A limit on the tasks that a queue gives out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RateLimit {
    /// Tasks a second.
    pub per_second: f64,
    /// Who set it.
    pub source: RateLimitSource,
}

/// Who set a rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RateLimitSource {
    /// A call of the API (`UpdateTaskQueueConfig`).
    Api,
    /// The Workers' own option (`maxTaskQueueActivitiesPerSecond`).
    Worker,
    /// The server's configuration.
    System,
}

/// Load of one lane in one pod. Its counters restart with the pod's process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotUse {
    /// Slots that run a task.
    pub used: u64,
    /// Slots that are free; 0 where the supplier has no number ([`SlotUse::unlimited`]).
    pub available: u64,
    /// Whether the Worker's supplier has no fixed number of slots (it goes by memory and CPU): then `used + available`
    /// is no capacity.
    #[serde(default)]
    pub unlimited: bool,
    /// Tasks started since the pod's process started; `started - used` of them have ended.
    pub started: u64,
    /// Schedule-to-start of those tasks; empty where the Worker tells none.
    pub waits: Waits,
    /// Execution latency of those that have ended; empty where the Worker tells none.
    pub runs: Waits,
}

/// A cumulative histogram of times: with each upper edge, ascending, the tasks that took at most so long. An edge of
/// [`Duration::MAX`] stands for infinity: all that were measured, which is fewer than were started where an SDK starts tasks
/// without measuring how they waited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waits(pub Vec<(Duration, u64)>);

/// Load of one pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PodLoad {
    /// By lane.
    #[serde(with = "as_list")]
    pub lanes: BTreeMap<LaneKey, SlotUse>,
    /// CPU in use as a share of what the pod may use, where it is told.
    pub cpu: Option<f64>,
    /// Workflows in the Worker's cache, where it is told: with the pod they are lost.
    pub cached_workflows: Option<u64>,
    /// Whether it takes new tasks; none where it can't be told to stop taking them.
    pub cordon: Option<Cordon>,
}

/// Whether a pod takes new tasks, by its own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cordon {
    /// It does.
    Open,
    /// It begins no further poll, but one that is open may still bring a task.
    Closing,
    /// No task can reach it.
    Closed,
}

impl PodLoad {
    /// With the load of `lanes` and nothing else.
    pub fn of(lanes: impl IntoIterator<Item = (LaneKey, SlotUse)>) -> Self {
        Self { lanes: lanes.into_iter().collect(), ..Self::default() }
    }
}

/// Why the server could not be read or written. The cause is a class, so that a condition can name the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemporalFailure {
    /// Class of the failure.
    pub class: FailureClass,
    /// What the server or the transport said; never a credential.
    pub message: String,
}

/// Classes of failures of the Temporal side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// No connection, or no answer in time.
    Unreachable,
    /// The credentials were refused.
    Unauthenticated,
    /// The identity may not do this.
    PermissionDenied,
    /// The Temporal namespace does not exist.
    NamespaceNotFound,
    /// The server asks for fewer calls.
    ResourceExhausted,
    /// The routing changed meanwhile, or another manager owns it.
    FailedPrecondition,
    /// Anything else.
    Other,
}

/// More is to be read in a Temporal namespace than the operator's budget has calls for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PollingDegraded {
    /// By what factor readings are further apart than the longest time that is borne; more than one.
    pub factor: f64,
}

/// Everything seen of a fleet on the Temporal side.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TemporalState {
    /// The Worker Deployment; `Known` with `None` when the server said that it does not exist. `Unknown` with
    /// versioning disabled.
    pub deployment: Observation<Option<DeploymentInfo>>,
    /// Backlog by lane, of the version that has the traffic, or of the target while none has; a lane that is missing was
    /// never read. Those of other versions are in [`VersionInfo::stats`].
    pub lanes: BTreeMap<LaneKey, Observation<LaneStats>>,
    /// Whether Workers without Worker Versioning poll a lane, by its own description; a lane that is missing was never
    /// described.
    pub unversioned: BTreeMap<LaneKey, Observation<bool>>,
    /// Test Workflows by Workflow ID, those that are asked for; `Known` with `None` when the server has none of that ID.
    pub test_workflows: BTreeMap<String, Observation<Option<TestRun>>>,
    /// Why the last read failed, while it fails.
    pub failure: Option<TemporalFailure>,
    /// That its readings come late, while they do.
    pub degraded: Option<PollingDegraded>,
}

/// A child Deployment as the cluster has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChildState {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Build ID by its label; none for a fleet with Worker Versioning off.
    pub build_id: Option<String>,
    /// `spec.replicas`.
    pub spec_replicas: u32,
    /// `status.replicas`: pods that exist.
    pub replicas: u32,
    /// `status.readyReplicas`.
    pub ready_replicas: u32,
    /// When it became available, if it is.
    pub available_since: Option<jiff::Timestamp>,
    /// What a write must be based on.
    pub resource_version: String,
    /// `metadata.generation`: another one means that somebody changed its spec.
    pub generation: i64,
    /// Image of the runtime that it was created with.
    pub runtime_image: Option<String>,
    /// Whether its pods know their uid, so that they can be cordoned.
    pub cordonable: bool,
    /// When it was noted on it that nobody wants its version any more.
    pub superseded_at: Option<jiff::Timestamp>,
    /// Why the Deployment can't make its pods, in its own words: a quota, a webhook, a deadline.
    pub failure: Option<String>,
    /// Where its pods work, by its template.
    pub attached: Attached,
    /// Hash of the user's template that it was made of, by the annotation of its pods.
    pub template_hash: Option<String>,
    /// Whether another operator made it: then its pods may lack what this one gives to new ones.
    pub made_elsewhere: bool,
}

/// A pod of the fleet as the cluster has it, with its load.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodState {
    /// Its name.
    pub name: String,
    /// Build ID by its label.
    pub build_id: Option<String>,
    /// Whether it is Ready.
    pub ready: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Whether one of its containers runs, or may run. If none does, no task does either.
    pub may_run: bool,
    /// Why it does not start, if it says so.
    pub waiting: Option<Waiting>,
    /// `controller.kubernetes.io/pod-deletion-cost`.
    pub deletion_cost: i32,
    /// Restarts of its containers.
    pub restarts: u32,
    /// Whether its Worker can be told to take no new task.
    pub may_be_cordoned: bool,
    /// Whether its Worker takes no new task, and none can reach it any more.
    pub cordoned: bool,
    /// Whether the cluster shows it as cordoned, by its annotation.
    pub shown_cordoned: bool,
    /// Load by its own metrics, or by its Worker's heartbeats.
    pub load: Observation<PodLoad>,
    /// Why its metrics can't be read, while they can't.
    pub unreadable: Option<Unreadable>,
}

/// Why a container does not start, for causes that do not heal alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Name of the container.
    pub container: String,
    /// Its image.
    pub image: String,
    /// `ImagePullBackOff`, `CrashLoopBackOff`, ...
    pub reason: String,
    /// The kubelet's words.
    pub message: String,
    /// What the container said when it last ended, if it said anything.
    pub last_words: Option<String>,
}

/// Everything seen of a fleet on the Kubernetes side.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KubeState {
    /// Deployments that this WorkerDeployment owns.
    pub children: Vec<ChildState>,
    /// Their pods.
    pub pods: Vec<PodState>,
    /// Names of Deployments in the namespace that somebody else owns.
    pub foreign_deployments: BTreeSet<String>,
}

/// A map by lane as a list: JSON has no keys but strings.
pub(crate) mod as_list {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::LaneKey;

    pub fn serialize<V: Serialize, S: Serializer>(map: &BTreeMap<LaneKey, V>, to: S) -> Result<S::Ok, S::Error> {
        map.iter().collect::<Vec<_>>().serialize(to)
    }

    pub fn deserialize<'de, V: Deserialize<'de>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<BTreeMap<LaneKey, V>, D::Error> {
        Ok(Vec::<(LaneKey, V)>::deserialize(from)?.into_iter().collect())
    }
}
