//! A fleet, its cluster, its server and two operators, as small as they can be.
//!
//! There are three versions, told apart by an [`Id`]. Time is told in hours since something happened, and nothing differs after
//! two of them: each delay and pause of the fleet is one hour.

/// Number of versions.
pub const VERSIONS: usize = 3;
/// Shares of a Progressive rollout, in percent; each is held for an hour.
pub const STEPS: [u8; 3] = [10, 40, 70];
/// So many hours ago, or longer.
pub const OLD: u8 = 2;
/// The bit of the routing in a [`Changes`].
pub const ROUTING: Changes = 1 << VERSIONS;
/// The bit of the `WorkerDeployment`.
pub const OBJECT: Changes = 1 << (VERSIONS + 1);

/// A version.
pub type Id = u8;
/// Hours, at most [`OLD`].
pub type Age = u8;
/// What was changed: a bit for the Deployment of each version, [`ROUTING`] and [`OBJECT`].
pub type Changes = u8;

/// The bit of a version's Deployment.
#[must_use]
pub fn child_bit(version: Id) -> Changes {
    1 << version
}

/// Every version.
pub fn ids() -> impl Iterator<Item = Id> {
    (0..).take(VERSIONS)
}

/// The `WorkerDeployment`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Spec {
    /// The version that it describes.
    pub target: Id,
    /// Whether it has the finalizer.
    pub protected: bool,
    /// Hours since it was deleted, if it was.
    pub deleting: Option<Age>,
    /// Whether it is gone.
    pub gone: bool,
    /// What a command ordered of the target's rollout.
    pub order: Order,
}

/// What a command ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// Nothing.
    #[default]
    None,
    /// No change.
    Pause,
    /// The whole traffic.
    Promote,
    /// No share.
    Abort,
}

/// The Deployment of a version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Child {
    /// `spec.replicas`: 0 or 1.
    pub replicas: u8,
    /// Hours since the note on it says that nobody wants it.
    pub superseded: Option<Age>,
}

/// The pod of a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Pod {
    /// There is none.
    #[default]
    None,
    /// Ready, and it has not polled.
    Ready,
    /// It polls.
    Polls,
}

/// Work that only this version can do, or that runs on it. The operator sees a task that runs, and no Workflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Work {
    /// None.
    #[default]
    None,
    /// An open Workflow that is pinned to it.
    Pinned,
    /// A task that runs on its pod.
    Task,
}

/// What is in the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cluster {
    /// The object.
    pub spec: Spec,
    /// Deployments.
    pub children: [Option<Child>; VERSIONS],
    /// Whether the ConfigMaps of the versions are there; always false for a fleet without any.
    pub config_maps: [bool; VERSIONS],
    /// Pods.
    pub pods: [Pod; VERSIONS],
    /// Whether a pod tells that it runs a task.
    pub busy: [bool; VERSIONS],
}

/// The server's word on a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Status {
    /// Never had traffic.
    #[default]
    Inactive,
    /// Has a share.
    Ramping,
    /// Has the traffic.
    Current,
    /// Lost it.
    Draining,
    /// And no pinned Workflow is open.
    Drained,
}

/// The server's record of a version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Record {
    /// Its status.
    pub status: Status,
    /// Hours since it began to drain, or drained.
    pub since: Age,
    /// Hours since it was current.
    pub last_current: Option<Age>,
    /// Whether it was polled within five minutes.
    pub polled: bool,
}

/// A share of the traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Share {
    /// The version that has it.
    pub version: Id,
    /// In percent.
    pub percent: u8,
    /// Hours since it changed.
    pub since: Age,
}

/// Who alone may change the routing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Manager {
    /// Everybody.
    #[default]
    Nobody,
    /// The operator.
    Operator,
    /// Somebody else.
    Somebody,
}

/// What the Temporal server knows of the Worker Deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Server {
    /// Whether it knows it.
    pub exists: bool,
    /// The version that has the traffic.
    pub current: Option<Id>,
    /// The version that has a share.
    pub share: Option<Share>,
    /// Who may change that.
    pub manager: Manager,
    /// Whether the operator changed it last.
    pub by_operator: bool,
    /// Records of versions.
    pub records: [Option<Record>; VERSIONS],
}

/// What an operator last saw.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Seen {
    /// The cluster.
    pub cluster: Cluster,
    /// The server.
    pub server: Server,
}

/// The operator that holds the Lease.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Leader {
    /// What is left of its plan, the next write last.
    pub plan: Vec<crate::act::Act>,
    /// What it was made from, while reads may still be stale.
    pub seen: Option<Box<Seen>>,
    /// What has changed since it looked.
    pub changed: Changes,
    /// What somebody else has changed since.
    pub surprise: Changes,
    /// Versions whose record it was refused to delete within the hour: a bit each.
    pub resting: u8,
    /// The version whose Deployment it has applied, if that is the target.
    pub applied: Option<Id>,
    /// Whether it changed the routing since it last read it.
    pub routed: bool,
    /// Whether its wall clock was set far ahead.
    pub ahead: bool,
    /// Whether its reading of the server was that of the look before.
    pub old_reading: bool,
    /// The version about which it was told something wrong when it looked last.
    pub misled: Option<Id>,
}

/// A write that was under way when the operator that held the Lease was stopped. Another one has the Lease since.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frozen {
    /// The write, and what comes after it, the next one last.
    pub plan: Vec<crate::act::Act>,
    /// What has changed since it looked.
    pub changed: Changes,
    /// What somebody else has changed since.
    pub surprise: Changes,
    /// Whether its reading of the server was that of the look before.
    pub old_reading: bool,
    /// The version about which it was told something wrong when it looked last.
    pub misled: Option<Id>,
}

/// What may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Left {
    /// Crashes, lost replies, stale reads, pauses, wrong answers, clocks that are set.
    pub faults: u8,
    /// How many of these may be wrong answers about a version.
    pub answers: u8,
    /// Changes of the object by the user.
    pub edits: u8,
    /// Changes of the routing by somebody else.
    pub outside: u8,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct World {
    /// The cluster.
    pub cluster: Cluster,
    /// The server.
    pub server: Server,
    /// What runs, or is open.
    pub work: [Work; VERSIONS],
    /// The operator that holds the Lease.
    pub leader: Leader,
    /// The other one, if it was stopped in a write.
    pub frozen: Option<Frozen>,
    /// Versions whose record was deleted when they had been drained for as long as both delays: a bit each.
    pub buried: u8,
    /// What may still happen.
    pub left: Left,
    /// Invariants that were broken: a bit each.
    pub broken: u32,
}

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The operator that holds the Lease.
    Leader,
    /// The one that was stopped.
    Frozen,
    /// Somebody else.
    Outside,
}

impl World {
    /// Notes a change for all that have looked at it.
    pub fn touch(&mut self, what: Changes, by: By) {
        self.leader.changed |= what;
        if by != By::Leader {
            self.leader.surprise |= what;
        }
        if let Some(frozen) = &mut self.frozen {
            frozen.changed |= what;
            if by != By::Frozen {
                frozen.surprise |= what;
            }
        }
    }

    /// What has changed since the writer looked, and what of it by somebody else.
    #[must_use]
    pub fn changes(&self, by: By) -> (Changes, Changes) {
        match (by, &self.frozen) {
            (By::Leader, _) => (self.leader.changed, self.leader.surprise),
            (By::Frozen, Some(frozen)) => (frozen.changed, frozen.surprise),
            _ => (0, 0),
        }
    }

    /// The server's record of a version.
    #[must_use]
    pub fn record(&self, version: Id) -> Option<&Record> {
        self.server.records[usize::from(version)].as_ref()
    }

    /// A version's Deployment.
    #[must_use]
    pub fn child(&self, version: Id) -> Option<&Child> {
        self.cluster.children[usize::from(version)].as_ref()
    }

    /// Whether a version has been drained for as long as both delays.
    #[must_use]
    pub fn is_over(&self, version: Id) -> bool {
        self.record(version).is_some_and(|record| record.status == Status::Drained && record.since >= OLD)
    }

    /// Whether a version has traffic, or pinned Workflows may be open on it.
    #[must_use]
    pub fn has_traffic(&self, version: Id) -> bool {
        let wanted = [Status::Current, Status::Ramping, Status::Draining];
        self.record(version).is_some_and(|record| wanted.contains(&record.status))
    }
}

/// A number of hours, an hour later.
pub(crate) fn older(age: &mut Age) {
    *age = (*age + 1).min(OLD);
}

impl Cluster {
    /// An hour later.
    pub(crate) fn pass(&mut self) {
        self.spec.deleting.iter_mut().for_each(older);
        self.children.iter_mut().flatten().filter_map(|child| child.superseded.as_mut()).for_each(older);
    }
}

impl Server {
    /// An hour later.
    pub(crate) fn pass(&mut self, pods: &[Pod; VERSIONS]) {
        self.share.iter_mut().for_each(|share| older(&mut share.since));
        for (record, pod) in self.records.iter_mut().zip(pods) {
            let Some(record) = record else { continue };
            record.polled = *pod == Pod::Polls;
            if matches!(record.status, Status::Draining | Status::Drained) {
                older(&mut record.since);
            }
            if record.status != Status::Current {
                record.last_current.iter_mut().for_each(older);
            }
        }
    }
}
