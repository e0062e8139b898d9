//! The target version, beside the Deployments that there are.

use std::borrow::Cow;

use serde_json::Value;

use super::build_id_of;
use crate::adoption::{self, Candidates, Chosen, Origin};
use crate::api::{Versioning, WorkerDeployment};
use crate::connection::{Attached, Attachment, Auth, ConnectionFacts};
use crate::observed::ChildState;

/// Its Build ID, none with Worker Versioning off, and how it came about. `template` comes with its hash.
pub(super) fn choose(
    object: &WorkerDeployment,
    (template, hash): (&Value, &str),
    children: &[ChildState],
    wrong: &mut Vec<String>,
) -> (Option<String>, Origin) {
    let spec = &object.spec;
    if spec.versioning == Versioning::Disabled {
        return (None, Origin::default());
    }
    // Other operators know neither the runtime nor the sidecar, and the hash of these has ten digits.
    let hashed_as_by_others = spec.runtime.is_none() && spec.sidecar.is_none() && !is_custom(object);
    let chosen = if hashed_as_by_others {
        let generation = object.metadata.generation.unwrap_or(0);
        let status = object.status.as_ref();
        adoption::choose(&Candidates { template, hash, generation, status, children })
            .map_err(|error| format!("spec.template: {error}."))
    } else {
        build_id_of(object, template).map(|build_id| Chosen { build_id, origin: Origin::Computed })
    };
    match chosen {
        Ok(Chosen { build_id, origin }) => (Some(build_id), origin),
        Err(problem) => {
            // The hash of the template has failed for the same reason.
            if !wrong.contains(&problem) {
                wrong.push(problem);
            }
            (None, Origin::default())
        }
    }
}

fn is_custom(object: &WorkerDeployment) -> bool {
    object.spec.worker_options.unsafe_custom_build_id.as_deref().is_some_and(crate::build_id::is_custom)
}

/// The hash of the template that its pods carry.
pub(super) fn kept_hash(object: &WorkerDeployment, child: Option<&ChildState>, own: &str) -> Option<String> {
    let in_place = is_custom(object) || object.spec.versioning == Versioning::Disabled;
    adoption::kept_hash(child, own, in_place)
}

/// What its pods have of the Connection: all of it, but for the name of a CA that another operator gave to none.
pub(super) fn kept_connection<'a>(
    child: Option<&ChildState>,
    connection: &'a ConnectionFacts,
    wanted: &Attachment,
) -> Cow<'a, ConnectionFacts> {
    let lacks = |child: &&ChildState| match &child.attached {
        Attached::To(at) => child.made_elsewhere && at.only_lacks_own_ca(wanted),
        Attached::Torn | Attached::Unknown => false,
    };
    let mut kept = Cow::Borrowed(connection);
    if child.filter(lacks).is_some()
        && let Auth::MutualTls { has_ca, .. } = &mut kept.to_mut().auth
    {
        *has_ca = false;
    }
    kept
}
