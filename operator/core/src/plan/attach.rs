//! Children that follow a changed Connection where they are.
//!
//! | version | follows |
//! |---|---|
//! | target | at once: it is applied anew, and what others own of its template is mended here |
//! | current | once the server, asked through the Connection as it is now, says that it is current |
//! | any other | never: what it is pinned to is where it was |

use super::{Action, PlanInput};
use crate::connection::Attached;
use crate::versions::{Version, versions};

pub(super) fn attach(input: &PlanInput<'_>, planned: &[Action]) -> Vec<Action> {
    let fleet = input.fleet;
    let fresh = input.temporal.deployment.known().is_some();
    let applied = planned.iter().any(|action| matches!(action, Action::Apply { .. }));
    let follows = |version: &Version<'_>| if version.is_target { !applied } else { version.is_current && fresh };
    let differs = |version: &Version<'_>| match &version.child.attached {
        Attached::Unknown => false,
        Attached::Torn => true,
        Attached::To(at) => {
            let as_made = version.child.made_elsewhere && at.only_lacks_own_ca(&fleet.attachment);
            *at != fleet.attachment && !as_made
        }
    };
    let all = versions(fleet, input.kube, input.temporal);
    let due = all.iter().filter(|version| follows(version) && differs(version));
    due.map(|version| Action::Attach {
        child: version.child.name.clone(),
        uid: version.child.uid.clone(),
        build_id: version.child.build_id.clone(),
        to: fleet.attachment.clone(),
    })
    .collect()
}
