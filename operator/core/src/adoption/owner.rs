//! Whose a Deployment is.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::API_VERSION;
use crate::names;

/// The WorkerDeployment that controls a Deployment.
///
/// temporal-worker-controller goes by the owner's name, kind and version, and the Build ID label; not by its UID. So do we: a
/// WorkerDeployment that was deleted and made anew, or came back from a backup, finds the Deployments that are there. One that is
/// being deleted is left to whom it belonged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    uid: Option<String>,
    /// The owner's name, where that counts.
    fleet: Option<String>,
}

impl Ownership {
    /// By the metadata of a Deployment.
    #[must_use]
    pub fn of(meta: &ObjectMeta) -> Self {
        let owners = meta.owner_references.iter().flatten();
        let Some(owner) = owners.into_iter().find(|owner| owner.controller == Some(true)) else {
            return Self::default();
        };
        let is_version = meta.labels.as_ref().is_some_and(|labels| labels.contains_key(names::BUILD_ID_LABEL));
        let is_fleet = owner.kind == "WorkerDeployment" && owner.api_version == API_VERSION;
        let counts = is_version && is_fleet && meta.deletion_timestamp.is_none();
        Self { uid: Some(owner.uid.clone()), fleet: counts.then(|| owner.name.clone()) }
    }

    /// Whether it is the WorkerDeployment of this name and UID, in the Deployment's own namespace.
    #[must_use]
    pub fn is(&self, name: &str, uid: &str) -> bool {
        self.uid.as_deref() == Some(uid) || self.fleet.as_deref() == Some(name)
    }

    /// Whether the owner reference names this very object. Kubernetes deletes a Deployment whose owner is gone.
    #[must_use]
    pub fn names(&self, uid: &str) -> bool {
        self.uid.as_deref() == Some(uid)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn is_own(change: impl FnOnce(&mut Value)) -> bool {
        let mut meta = json!({
            "labels": {"temporal.io/deployment-name": "orders", "temporal.io/build-id": "v1"},
            "ownerReferences": [{"apiVersion": "temporal.io/v1alpha1", "kind": "WorkerDeployment", "name": "orders",
                "uid": "before", "controller": true}],
        });
        change(&mut meta);
        Ownership::of(&serde_json::from_value(meta).unwrap()).is("orders", "now")
    }

    #[test]
    fn a_version_is_its_own_by_the_owners_name_whatever_its_uid() {
        assert!(is_own(|_| {}));
        assert!(!Ownership::default().is("orders", "now"), "it has no owner");
        let owner = |field: &str, value: Value| is_own(|meta| meta["ownerReferences"][0][field] = value);
        assert!(!owner("name", json!("other")));
        assert!(!owner("kind", json!("TemporalWorkerDeployment")));
        assert!(!owner("apiVersion", json!("temporal.io/v1")));
        assert!(!owner("controller", json!(false)));
    }

    #[test]
    fn what_is_no_version_or_goes_is_its_own_by_the_uid_alone() {
        let unlabelled = |meta: &mut Value| meta["labels"] = json!({"temporal.io/deployment-name": "orders"});
        let goes = |meta: &mut Value| meta["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let by_uid = |meta: &mut Value| meta["ownerReferences"][0]["uid"] = json!("now");
        assert!(!is_own(unlabelled) && !is_own(goes));
        assert!(is_own(|meta| (unlabelled(meta), by_uid(meta)).1) && is_own(|meta| (goes(meta), by_uid(meta)).1));
    }
}
