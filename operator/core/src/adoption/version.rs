//! Under which Build ID the target of a fleet with a template of its own runs.
//!
//! | there is | the Build ID |
//! |---|---|
//! | a status with another one, of this very generation | that one: whoever wrote it computed it for this spec |
//! | the computed one's Deployment, of this template or of one that is not told | the computed one |
//! | a Deployment of this template whose Build ID differs in the hash alone | that one's: an older hash, or a collision before |
//! | the computed one's Deployment, of another template | the hash with a count of collisions mixed in, the first that is free |
//! | nothing of that | the computed one |
//!
//! The hash has 10,000 values: of 75 live versions with the same tag two have the same one with a probability of a quarter.

use serde_json::Value;

use crate::api::{Reason, WorkerDeploymentStatus};
use crate::build_id::{self, InvalidTemplate};
use crate::names;
use crate::observed::ChildState;

/// Collisions in a row that are looked past.
const MOST_COLLISIONS: u32 = 1000;
/// Reasons that conditions have only once the target was looked at. Other ones may stand beside a target of an older spec: what
/// keeps a spec from being looked at leaves the target in the status as it is.
const PROOFS: [Reason; 7] = [
    Reason::RolloutComplete,
    Reason::Ramping,
    Reason::WaitingForPromotion,
    Reason::WaitingForPollers,
    Reason::ActivePollers,
    Reason::PollerStatusUnknown,
    Reason::ConnectionHealthy,
];

/// What the choice stands on.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    /// The user's template.
    pub template: &'a Value,
    /// Its [`template_hash`](crate::build_id::template_hash).
    pub hash: &'a str,
    /// `metadata.generation`.
    pub generation: i64,
    /// The stored status.
    pub status: Option<&'a WorkerDeploymentStatus>,
    /// The fleet's Deployments.
    pub children: &'a [ChildState],
}

/// A Build ID, and how it came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The Build ID.
    pub build_id: String,
    /// How it came about.
    pub origin: Origin,
}

/// How a Build ID came about. `computed` is the one that the template stands for by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// It is the computed one.
    #[default]
    Computed,
    /// The status has it for this generation.
    Status {
        /// The computed one.
        computed: String,
    },
    /// A Deployment has this very template under it.
    SameTemplate {
        /// The computed one.
        computed: String,
    },
    /// A version of another template has the computed one.
    Collision {
        /// The computed one.
        computed: String,
        /// The count that was mixed in.
        count: u32,
    },
}

impl Origin {
    /// Why it is not the computed one, as a sentence for the log; none when it is.
    #[must_use]
    pub fn why(&self) -> Option<String> {
        match self {
            Self::Computed => None,
            Self::Status { computed } => Some(format!(
                "the status has it for this generation; by its own hash the operator would take {computed}"
            )),
            Self::SameTemplate { computed } => Some(format!(
                "a Deployment has this template under it; by its own hash the operator would take {computed}"
            )),
            Self::Collision { computed, count } => {
                Some(format!("a version of another template is called {computed}; {count} is mixed into the hash"))
            }
        }
    }
}

/// Chooses.
///
/// # Errors
/// [`InvalidTemplate`] when the template holds a value of the wrong type.
pub fn choose(from: &Candidates<'_>) -> Result<Chosen, InvalidTemplate> {
    let computed = build_id::compute(from.template, None)?;
    let chosen = |build_id: &str, origin| Ok(Chosen { build_id: build_id.to_owned(), origin });
    if let Some(told) = target_of(from.status, from.generation).filter(|told| *told != computed) {
        return chosen(told, Origin::Status { computed });
    }
    let child = child_of(from, &computed);
    let is_other = child.is_some_and(|child| template_of(child).is_some_and(|hash| hash != from.hash));
    if child.is_some() && !is_other {
        return chosen(&computed, Origin::Computed);
    }
    if let Some(same) = of_same_template(from, &computed) {
        return chosen(same, Origin::SameTemplate { computed });
    }
    if !is_other {
        return chosen(&computed, Origin::Computed);
    }
    for count in 1..=MOST_COLLISIONS {
        let build_id = build_id::compute_past(from.template, count)?;
        if child_of(from, &build_id).is_none() {
            return chosen(&build_id, Origin::Collision { computed, count });
        }
    }
    chosen(&computed, Origin::Computed)
}

/// Build ID of the target that a status has for this generation; none where it may be that of a spec before.
#[must_use]
pub fn target_of(status: Option<&WorkerDeploymentStatus>, generation: i64) -> Option<&str> {
    let status = status?;
    let proves = |reason: &str| PROOFS.iter().any(|proof| proof.as_str() == reason);
    let looked_at = status
        .conditions
        .iter()
        .any(|condition| condition.observed_generation == Some(generation) && proves(&condition.reason));
    let build_id = status.target_version.version.build_id.as_str();
    (looked_at && !build_id.is_empty()).then_some(build_id)
}

fn child_of<'a>(from: &Candidates<'a>, build_id: &str) -> Option<&'a ChildState> {
    let label = names::build_id_label(build_id);
    from.children.iter().find(|child| child.build_id.as_deref() == Some(&label))
}

/// Hash of the user's template that a child was made of, if it says so.
fn template_of(child: &ChildState) -> Option<&str> {
    child.template_hash.as_deref().filter(|hash| is_hash(hash))
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
}

fn of_same_template<'a>(from: &Candidates<'a>, computed: &str) -> Option<&'a str> {
    let same = |child: &&ChildState| template_of(child) == Some(from.hash);
    let own = from.children.iter().filter(same).filter_map(|child| child.build_id.as_deref());
    own.filter(|other| build_id::differ_in_hash(computed, other)).min()
}

/// The value of the annotation with the template's hash for the pods of a target: that of the Deployment which is there, as another
/// one would replace them. Where the template changes in place it is the template's own.
pub(crate) fn kept_hash(child: Option<&ChildState>, own: &str, in_place: bool) -> Option<String> {
    match child.map(|child| (template_of(child), child)) {
        Some((Some(hash), _)) if !in_place => Some(hash.to_owned()),
        Some((None, child)) if child.made_elsewhere && child.template_hash.is_none() => None,
        _ => Some(own.to_owned()),
    }
}

#[cfg(test)]
mod tests;
