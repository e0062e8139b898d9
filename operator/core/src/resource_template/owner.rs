//! Who owns a template, and who a Deployment that it is copied for.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::api::API_VERSION;
use crate::old_kinds::OldKind;

/// Owners of a template that goes with its WorkerDeployment; none when they are right, or it has another controller already.
#[must_use]
pub fn owners(owners: &[OwnerReference], fleet: &str, uid: &str) -> Option<Vec<OwnerReference>> {
    if owners.iter().any(|owner| owner.uid == uid || owner.controller == Some(true)) {
        return None;
    }
    let own = OwnerReference {
        api_version: API_VERSION.to_owned(),
        kind: "WorkerDeployment".to_owned(),
        name: fleet.to_owned(),
        uid: uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    Some(owners.iter().cloned().chain([own]).collect())
}

/// Whether a Deployment with these owners is a version of a fleet, also of one that is still a TemporalWorkerDeployment.
#[must_use]
pub fn is_version(owners: &[OwnerReference], fleet: &str) -> bool {
    let kinds = [OldKind::WorkerDeployment.name(), OldKind::WorkerDeployment.successor()];
    owners.iter().any(|owner| kinds.contains(&owner.kind.as_str()) && owner.name == fleet)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(uid: &str, controller: bool) -> OwnerReference {
        OwnerReference { uid: uid.into(), controller: controller.then_some(true), ..OwnerReference::default() }
    }

    #[test]
    fn the_fleet_becomes_the_controller_beside_other_owners_and_takes_no_controllers_place() {
        let owned = owners(&[owner("a", false)], "orders", "w-1").unwrap();
        assert_eq!((owned.len(), owned[1].uid.as_str(), owned[1].controller), (2, "w-1", Some(true)));
        assert_eq!(owners(&owned, "orders", "w-1"), None, "it is so already");
        assert_eq!(owners(&[owner("old-kind", true)], "orders", "w-1"), None);
    }

    #[test]
    fn a_deployment_is_a_version_under_either_name_of_the_kind() {
        for (kind, name, expected) in [
            ("WorkerDeployment", "orders", true),
            ("TemporalWorkerDeployment", "orders", true),
            ("TemporalWorkerDeployment", "billing", false),
            ("ReplicaSet", "orders", false),
        ] {
            let owner = OwnerReference { kind: kind.into(), name: name.into(), ..OwnerReference::default() };
            assert_eq!(is_version(&[OwnerReference::default(), owner], "orders"), expected, "{kind} {name}");
        }
        assert!(!is_version(&[], "orders"));
    }
}
