//! What becomes of a TemporalWorkerDeployment or TemporalConnection: it is never run, and kept until its successor, the
//! WorkerDeployment or Connection of its name, is there and has what it owns.
//!
//! | the object | its successor | it owns | done | `Ready` is False because |
//! |---|---|---|---|---|
//! | | none, or it is being deleted | | | `Deprecated` |
//! | TemporalWorkerDeployment | there | something | that is handed over | `WorkerDeploymentExists` |
//! | TemporalWorkerDeployment | there | nothing | it gets the label | `MigratedToWorkerDeployment` |
//! | TemporalWorkerDeployment with the label | gone | nothing | | `MigratedToWorkerDeployment` |
//! | TemporalConnection | there | | | `MigratedToConnection` |
//! | is being deleted, in one of the last three rows | | | it is let go | |
//! | is being deleted, in any other | | | the same | `DeletingPendingMigration` |
//!
//! The label alone lets nothing go: what an object that goes still owns, Kubernetes deletes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::api::{API_VERSION, ConditionStatus, ConditionType, ConditionUpdate, Reason};
use crate::names::MIGRATION_GUARD_FINALIZER;

/// A deprecated kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OldKind {
    /// TemporalWorkerDeployment.
    WorkerDeployment,
    /// TemporalConnection.
    Connection,
}

impl OldKind {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::WorkerDeployment, Self::Connection];

    /// The kind's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WorkerDeployment => "TemporalWorkerDeployment",
            Self::Connection => "TemporalConnection",
        }
    }

    /// The kind's name in addresses of the API.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Self::WorkerDeployment => "temporalworkerdeployments",
            Self::Connection => "temporalconnections",
        }
    }

    /// Name of the kind that took its place.
    #[must_use]
    pub const fn successor(self) -> &'static str {
        match self {
            Self::WorkerDeployment => "WorkerDeployment",
            Self::Connection => "Connection",
        }
    }
}

/// An object of a deprecated kind, and what is around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Old {
    /// Its kind.
    pub kind: OldKind,
    /// Whether it has the finalizer that keeps it.
    pub is_guarded: bool,
    /// Whether it is being deleted.
    pub is_leaving: bool,
    /// Whether it has the label of one that is handed over.
    pub is_labelled: bool,
    /// Whether its successor is there and is not being deleted.
    pub has_successor: bool,
    /// How many Deployments and WorkerResourceTemplates it owns; none where that was not asked for.
    pub owned: Option<usize>,
}

/// A write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Give it the finalizer that keeps it.
    Guard,
    /// Make its successor the owner of what it owns.
    HandOver,
    /// Give it the label of one that is handed over.
    Label,
    /// Take the finalizer away.
    Release,
}

/// Whether it has to be asked what the object owns. `seen`: how many of its Deployments are known anyway.
#[must_use]
pub fn must_ask(old: &Old, seen: usize) -> bool {
    let is_open = !old.is_labelled || seen > 0;
    old.kind == OldKind::WorkerDeployment
        && (old.has_successor && is_open || old.is_labelled && old.is_leaving && old.is_guarded)
}

/// Whether a WorkerDeployment waits for what the TemporalWorkerDeployment of its name owns. `seen`: how many Deployments of that
/// are known.
#[must_use]
pub fn holds_its_successor(is_labelled: bool, seen: usize) -> bool {
    !is_labelled || seen > 0
}

/// Whether nothing is lost when it goes.
fn is_migrated(old: &Old) -> bool {
    match (old.kind, old.owned) {
        (OldKind::Connection, _) => old.has_successor,
        (OldKind::WorkerDeployment, Some(owned)) => owned == 0 && (old.has_successor || old.is_labelled),
        // Before one is let go, it is asked what it owns.
        (OldKind::WorkerDeployment, None) => old.is_labelled && !(old.is_leaving && old.is_guarded),
    }
}

/// What is to be done now, in this order.
#[must_use]
pub fn steps(old: &Old) -> Vec<Step> {
    let is_migrated = is_migrated(old);
    let is_fleet = old.kind == OldKind::WorkerDeployment;
    // A finalizer can't be added to what is being deleted.
    let guard = !old.is_guarded && !old.is_leaving;
    let hand_over = is_fleet && old.has_successor && old.owned.is_some_and(|owned| owned > 0);
    let release = is_migrated && old.is_guarded && old.is_leaving;
    let label = is_fleet && is_migrated && !old.is_labelled && !release;
    let steps = [(guard, Step::Guard), (hand_over, Step::HandOver), (label, Step::Label), (release, Step::Release)];
    steps.into_iter().filter(|(is_due, _)| *is_due).map(|(_, step)| step).collect()
}

/// An object of a deprecated kind by its names, as messages write them.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// Kubernetes namespace.
    pub namespace: &'a str,
    /// Name, and that of its successor.
    pub name: &'a str,
}

/// What `Ready` says of it; `failure`: why a step could not be done.
#[must_use]
pub fn ready(old: &Old, named: Named<'_>, failure: Option<&str>) -> ConditionUpdate {
    let reason = reason(old);
    let mut message = message(old, named, reason);
    if let Some(failure) = failure {
        message = format!("{message} The last try failed: {failure}");
    }
    ConditionUpdate { type_: ConditionType::Ready, status: ConditionStatus::False, reason, message }
}

fn reason(old: &Old) -> Reason {
    match (old.kind, is_migrated(old)) {
        (OldKind::Connection, true) => Reason::MigratedToConnection,
        (OldKind::WorkerDeployment, true) => Reason::MigratedToWorkerDeployment,
        (_, false) if old.is_leaving => Reason::DeletingPendingMigration,
        (OldKind::WorkerDeployment, false) if old.has_successor => Reason::WorkerDeploymentExists,
        (_, false) => Reason::Deprecated,
    }
}

fn message(old: &Old, Named { namespace, name }: Named<'_>, reason: Reason) -> String {
    let (kind, plural) = (old.kind.name(), old.kind.plural());
    let successor = format!("{} {name:?} in namespace {namespace}", old.kind.successor());
    let is_fleet = old.kind == OldKind::WorkerDeployment;
    match reason {
        Reason::WorkerDeploymentExists => {
            format!("{successor} is there: it becomes the owner of what this object owns. No pod is replaced.")
        }
        Reason::MigratedToWorkerDeployment | Reason::MigratedToConnection => {
            let is = if old.has_successor { "is there" } else { "was there" };
            let has = if is_fleet { " and owns all that this object owned" } else { "" };
            format!("{successor} {is}{has}. Delete this object: kubectl delete {plural} {name} -n {namespace}.")
        }
        Reason::DeletingPendingMigration => {
            let lost = if is_fleet { ", which deletes its Deployments and so their pods" } else { "" };
            format!(
                "Its deletion waits for {successor}; create that with the same spec. To do without, take away the finalizer \
                 {MIGRATION_GUARD_FINALIZER}{lost}."
            )
        }
        _ => {
            let stays = if is_fleet { " Until then its Deployments stay as they are." } else { "" };
            format!("{kind} is deprecated and not run any more; create {successor} with the same spec.{stays}")
        }
    }
}

/// The owner references of an object once `to` has taken the place of the owner `from`; none where that is not one.
#[must_use]
pub fn handed_over(owners: &[OwnerReference], from: &str, to: Named<'_>, uid: &str) -> Option<Vec<OwnerReference>> {
    let old = owners.iter().find(|owner| owner.uid == from)?;
    let new = OwnerReference {
        api_version: API_VERSION.into(),
        kind: OldKind::WorkerDeployment.successor().into(),
        name: to.name.to_owned(),
        uid: uid.to_owned(),
        controller: old.controller,
        block_owner_deletion: old.block_owner_deletion,
    };
    let others = owners.iter().filter(|owner| owner.uid != from && owner.uid != uid).cloned();
    Some(others.chain([new]).collect())
}

#[cfg(test)]
mod tests;
