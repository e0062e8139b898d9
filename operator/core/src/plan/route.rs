//! The change of the routing that is due, as writes.

use super::{Action, PlanInput};
use crate::identity::{Claim, claim};
use crate::rollout::{Move, Rollout};
use crate::versions::last_info;

/// At most one change, after a claim of the manager's identity if nobody has it, or the operator had it by another name.
pub(super) fn route(input: &PlanInput<'_>, rollout: Option<&Rollout>) -> Vec<Action> {
    let due = rollout.and_then(|rollout| rollout.change);
    let (Some(due), Some(build_id), Some(info)) = (due, &input.fleet.build_id, last_info(input.temporal)) else {
        return Vec::new();
    };
    let (build_id, conflict_token) = (build_id.clone(), info.conflict_token.clone());
    let share = info.ramp.as_ref().map(|ramp| (ramp.build_id.clone(), ramp.percent));
    let manager = &info.manager_identity;
    let due_claim = claim(manager, input.identity, input.former_identities) == Claim::Due;
    let claim =
        due_claim.then(|| Action::ClaimManager { from: manager.clone(), conflict_token: conflict_token.clone() });
    let change = match due {
        Move::Current => Some(Action::SetCurrent { build_id, from: info.current_build_id.clone(), conflict_token }),
        Move::Ramp(percent) => Some(Action::SetRamping { build_id, percent, from: share, conflict_token }),
        Move::ClearRamp => share.map(|from| Action::ClearRamp { from, conflict_token }),
    };
    claim.into_iter().chain(change).collect()
}
