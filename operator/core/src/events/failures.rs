//! What could not be done. Its condition says it too, in the words that a plan as a whole has.

use super::{EventData, Severity};
use crate::plan::Action;

/// The event of a write that failed, whose reason names the kind of write; none for writes that have no word of their own.
/// `is_new` says that the object of an apply was not there before; `why` is a sentence.
#[must_use]
pub fn failed(action: &Action, is_new: bool, why: &str) -> Option<EventData> {
    let (reason, doing) = match action {
        Action::Apply { .. } if is_new => ("DeploymentCreateFailed", "Apply"),
        Action::Apply { .. } => ("DeploymentUpdateFailed", "Apply"),
        Action::Attach { .. } => ("DeploymentUpdateFailed", "Attach"),
        Action::NoteSuperseded { .. } => ("DeploymentUpdateFailed", "Note"),
        Action::Scale { .. } => ("DeploymentScaleFailed", "Scale"),
        Action::DeleteChild { .. } => ("DeploymentDeleteFailed", "Delete"),
        Action::DeleteVersion { .. } => ("VersionDeleteFailed", "DeleteVersion"),
        Action::ClaimManager { .. } => ("ManagerIdentityClaimFailed", "SetManager"),
        Action::SetCurrent { .. } => ("VersionPromotionFailed", "SetCurrentVersion"),
        Action::SetRamping { .. } | Action::ClearRamp { .. } => ("VersionPromotionFailed", "SetRampingVersion"),
        _ => return None,
    };
    Some(EventData { severity: Severity::Warning, reason, action: doing, note: why.to_owned() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_write_that_fails_has_the_contracts_word() {
        let apply = Action::Apply { object: json!({}), digest: String::new() };
        let scale = Action::Scale {
            child: "orders-v1".into(),
            from: 1,
            to: 2,
            resource_version: String::new(),
            reason: String::new(),
        };
        let delete = Action::DeleteChild {
            build_id: "v1".into(),
            child: "orders-v1".into(),
            config_map: String::new(),
            uid: String::new(),
            resource_version: String::new(),
        };
        let promote = Action::SetCurrent { build_id: "v1".into(), from: None, conflict_token: Vec::new() };
        let claim = Action::ClaimManager { from: String::new(), conflict_token: Vec::new() };
        let cases = [
            (&apply, true, "DeploymentCreateFailed"),
            (&apply, false, "DeploymentUpdateFailed"),
            (&scale, false, "DeploymentScaleFailed"),
            (&delete, false, "DeploymentDeleteFailed"),
            (&promote, false, "VersionPromotionFailed"),
            (&claim, false, "ManagerIdentityClaimFailed"),
        ];
        for (action, is_new, reason) in cases {
            let event = failed(action, is_new, "why.").unwrap();
            assert_eq!((event.severity, event.reason, event.note.as_str()), (Severity::Warning, reason, "why."));
        }
        assert_eq!(failed(&Action::Protect, false, "why."), None, "its condition says it");
    }
}
