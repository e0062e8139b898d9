//! What was taken over, and where two templates would have had the same Build ID.

use super::{EventData, Severity};
use crate::adoption::Origin;
use crate::old_kinds::{Named, OldKind};

/// A Deployment that another operator made is the operator's now.
#[must_use]
pub fn adopted(child: &str) -> EventData {
    let note = format!(
        "Deployment {child} was made by another operator and is taken over: its fields are this operator's now, its pods stay."
    );
    EventData { severity: Severity::Normal, reason: "DeploymentAdopted", action: "Adopt", note }
}

/// A TemporalWorkerDeployment's `objects` are those of the WorkerDeployment of its name now.
#[must_use]
pub fn handed_over(old: Named<'_>, objects: usize) -> EventData {
    let (kind, successor) = (OldKind::WorkerDeployment.name(), OldKind::WorkerDeployment.successor());
    let note = format!("{objects} object(s) of {kind} {} are this {successor}'s now; their pods stay.", old.name);
    EventData { severity: Severity::Normal, reason: "HandedOver", action: "HandOver", note }
}

/// A version was begun whose Build ID is not the one that its template has by itself, as that is taken; none for any other.
#[must_use]
pub fn collided(build_id: &str, origin: &Origin) -> Option<EventData> {
    let Origin::Collision { computed, count } = origin else { return None };
    let note = format!(
        "The template has the hash of another one, whose version {computed} is there: its own version is {build_id}, with a count of \
         {count} in the hash."
    );
    Some(EventData { severity: Severity::Warning, reason: "BuildIDCollision", action: "Apply", note })
}
