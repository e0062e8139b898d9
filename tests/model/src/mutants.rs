//! Operators with a fault: each has been one of an operator in use, or is the least that breaks an invariant.

use crate::act::Act;
use crate::land::Conditions;
use crate::look::View;
use crate::world::{Id, Manager, OLD, Pod, STEPS, Status, ids};

/// A fault in the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// A version of which one answer says that there is no record is taken to be over at once.
    NotFoundIsOver,
    /// So is one that is missing from the list of versions.
    UnlistedIsOver,
    /// A version that drains is taken to be inactive, and to be over at once.
    DrainingIsInactive,
    /// After a refusal to delete a record, its Deployment is deleted all the same.
    RefusalIsIgnored,
    /// Records are never deleted.
    RecordsAreKept,
    /// The object goes before the server is cleaned up.
    ReleaseAtOnce,
    /// Replicas are never set to zero.
    NeverToZero,
    /// Replicas are written at each look.
    ReplicasAtEachLook,
    /// A task that runs holds nothing up.
    BusyIsIdle,
    /// The traffic that a version still has is overlooked.
    TrafficIsOverlooked,
    /// Old readings count as new ones.
    OldIsFresh,
    /// A process that was stopped goes on with its plan without asking whether it may.
    NoLeaseCheck,
    /// Changes of the routing carry no token.
    NoToken,
    /// A foreign manager is overlooked.
    ForeignManagerIsOverlooked,
    /// Records of versions without a Deployment are deleted though somebody else manages the routing.
    OthersRecordsAreDeleted,
    /// Each step is begun as soon as the one before.
    NoPause,
    /// Steps are left out.
    StepsAreSkipped,
    /// A version gets traffic before it has a pod.
    PodsAreNotAwaited,
    /// The way back goes by steps too.
    RollbackBySteps,
    /// Old readings count as new ones for the status alone.
    StatusOfOldReadings,
    /// More replicas than the user asked for.
    OneTooMany,
    /// Deletions are planned without UID and resource version.
    NoPreconditions,
    /// Writes to the cluster carry no resource version.
    NoResourceVersion,
    /// Deployments are deleted before the records of their versions.
    DeploymentBeforeRecord,
    /// The finalizer is forgotten.
    NoFinalizer,
    /// A plan is made before the caches are filled.
    PartOfTheCluster,
    /// The wall clock alone is believed.
    OneClock,
}

impl Mutant {
    /// Every one.
    pub const ALL: [Self; 27] = [
        Self::NotFoundIsOver,
        Self::UnlistedIsOver,
        Self::DrainingIsInactive,
        Self::RefusalIsIgnored,
        Self::RecordsAreKept,
        Self::ReleaseAtOnce,
        Self::NeverToZero,
        Self::ReplicasAtEachLook,
        Self::BusyIsIdle,
        Self::TrafficIsOverlooked,
        Self::OldIsFresh,
        Self::NoLeaseCheck,
        Self::NoToken,
        Self::ForeignManagerIsOverlooked,
        Self::OthersRecordsAreDeleted,
        Self::NoPause,
        Self::StepsAreSkipped,
        Self::PodsAreNotAwaited,
        Self::RollbackBySteps,
        Self::StatusOfOldReadings,
        Self::OneTooMany,
        Self::NoPreconditions,
        Self::NoResourceVersion,
        Self::DeploymentBeforeRecord,
        Self::NoFinalizer,
        Self::PartOfTheCluster,
        Self::OneClock,
    ];

    /// What the planner is given in place of what was seen.
    pub(crate) fn distort(self, view: &View) -> View {
        let mut seen = view.clone();
        match self {
            Self::NotFoundIsOver => view.absent.into_iter().for_each(|version| is_over(&mut seen, version)),
            Self::UnlistedIsOver => {
                view.unlisted.into_iter().for_each(|version| is_over(&mut seen, version));
                seen.absent = seen.unlisted.take();
            }
            Self::DrainingIsInactive => replace(&mut seen, Status::Draining, Status::Inactive),
            Self::TrafficIsOverlooked => replace(&mut seen, Status::Draining, Status::Drained),
            Self::BusyIsIdle => seen.cluster.busy = Default::default(),
            Self::OldIsFresh => seen.fresh = true,
            Self::ForeignManagerIsOverlooked => seen.server.manager = Manager::Operator,
            Self::NoPause => seen.server.share.iter_mut().for_each(|share| share.since = OLD),
            Self::PodsAreNotAwaited => {
                let target = usize::from(view.cluster.spec.target);
                seen.cluster.pods[target] = Pod::Polls;
                seen.cluster.children[target].iter_mut().for_each(|child| child.replicas = 1);
            }
            Self::RollbackBySteps => {
                seen.server.records.iter_mut().flatten().for_each(|record| record.last_current = None)
            }
            Self::NoFinalizer => seen.cluster.spec.protected = true,
            Self::PartOfTheCluster => {
                let target = view.cluster.spec.target;
                let is_hidden = |id: &Id| *id != target && view.cluster.children[usize::from(*id)].is_some();
                seen.hidden = ids().find(is_hidden);
            }
            _ => {}
        }
        seen
    }

    /// What is made of its plan.
    pub(crate) fn alter(self, acts: &mut Vec<Act>, view: &View) {
        let spec = &view.cluster.spec;
        match self {
            Self::RecordsAreKept => acts.retain(|act| !matches!(act, Act::DeleteRecord(_))),
            Self::NeverToZero => acts.retain(|act| !matches!(act, Act::Scale(_, 0))),
            Self::ReleaseAtOnce if spec.deleting.is_some() => *acts = vec![Act::Release(false)],
            Self::ReplicasAtEachLook if spec.deleting.is_none() => acts.push(Act::Scale(spec.target, 1)),
            Self::OthersRecordsAreDeleted if view.server.manager == Manager::Somebody => {
                acts.extend(ids().filter(|id| is_forgotten(view, *id)).map(Act::DeleteRecord));
            }
            Self::StepsAreSkipped => acts.iter_mut().for_each(skip),
            Self::OneTooMany => acts.iter_mut().for_each(|act| {
                if let Act::Scale(_, replicas @ 1..) = act {
                    *replicas += 1;
                }
            }),
            Self::DeploymentBeforeRecord => acts.sort_by_key(|act| !matches!(act, Act::DeleteRecord(_))),
            _ => {}
        }
    }

    /// What its writes carry.
    pub(crate) fn conditions(self) -> Conditions {
        Conditions { resource_version: self != Self::NoResourceVersion, token: self != Self::NoToken }
    }
}

/// Makes a version look as if nobody had wanted it for long.
fn is_over(seen: &mut View, version: Id) {
    if let Some(child) = &mut seen.cluster.children[usize::from(version)] {
        child.superseded = Some(OLD);
    }
}

/// Whether a version that has long been drained has a record alone.
fn is_forgotten(view: &View, version: Id) -> bool {
    let at = usize::from(version);
    let is_over = |record: &crate::world::Record| record.status == Status::Drained && record.since >= OLD;
    view.cluster.children[at].is_none() && view.server.records[at].as_ref().is_some_and(is_over)
}

/// Reads one status as another, which has lasted long.
fn replace(seen: &mut View, from: Status, to: Status) {
    for version in ids() {
        let Some(record) = &mut seen.server.records[usize::from(version)] else { continue };
        if record.status == from {
            (record.status, record.since) = (to, OLD);
            if to == Status::Inactive {
                is_over(seen, version);
            }
        }
    }
}

fn skip(act: &mut Act) {
    if let Act::Ramp(_, percent) = act {
        *percent = STEPS[STEPS.len() - 1];
    }
}
