//! A fleet as it was left: how it is known to be taken over, and what must be as it was.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::ResourceExt as _;
use kube::api::Patch;
use operator_core::adoption::PEER_MANAGERS;
use operator_core::api::WorkerDeployment;
use operator_core::names::{FIELD_MANAGER, SCALER_FIELD_MANAGER, child_deployment_name, temporal_deployment_name};
use serde_json::json;

use super::{FLEET, Laid, OLD, Release};
use crate::ground::{Ground, TEMPORAL_NAMESPACE};
use crate::wait::eventually;
use crate::worker::{Worker, set_manager};

/// A fleet that its operator has left, with its version current.
pub struct Left {
    /// Who left it.
    pub release: Release,
    /// Its namespace.
    pub ground: Ground,
    /// Speaks to the server for its version.
    pub worker: Worker,
    /// Build ID of the target.
    pub build_id: String,
    replicas: i32,
    children: BTreeMap<String, Deployment>,
    routing: (Vec<u8>, String, String),
}

impl Laid {
    /// Gives the worker's version the traffic, under the release's manager, and writes the status that it writes of that. `uid` is
    /// that of the manager's namespace.
    ///
    /// # Errors
    /// The server or the API server refuses.
    pub async fn leave(self, worker: Worker, address: &str, uid: &str) -> Result<Left> {
        let identity = self.release.identity(uid);
        worker.make_current().await?;
        set_manager(address, TEMPORAL_NAMESPACE, &self.worker_deployment(), &identity).await?;
        self.tell(&identity).await?;
        let (children, routing) = (self.ground.children(FLEET).await?, worker.routing().await?);
        let Self { ground, build_id, release, replicas, .. } = self;
        Ok(Left { release, ground, worker, build_id, replicas, children, routing })
    }

    /// The status that it writes.
    async fn tell(&self, identity: &str) -> Result<()> {
        let version = |build_id: &str, status: &str, child: &Deployment| {
            json!({"buildID": build_id, "status": status, "deployment": {"apiVersion": "apps/v1", "kind": "Deployment",
                "name": child.name_any(), "namespace": self.release.namespace, "uid": child.uid()}})
        };
        let generation = self.ground.fleet(FLEET).await?.metadata.generation;
        let condition = |type_: &str, status: &str, reason: &str| {
            json!({"type": type_, "status": status, "reason": reason, "message": "", "observedGeneration": generation,
                "lastTransitionTime": "2026-11-01T00:00:00Z"})
        };
        let mut target = version(&self.build_id, "Current", &self.current);
        target["healthySince"] = json!("2026-11-01T00:00:00Z");
        let status = json!({
            "targetVersion": target,
            "currentVersion": target,
            "deprecatedVersions": [version(OLD, "NotRegistered", &self.old)],
            "managerIdentity": identity,
            "lastModifierIdentity": identity,
            "versionCount": 1,
            "conditions": [
                condition("Ready", "True", "RolloutComplete"),
                condition("Progressing", "False", "RolloutComplete"),
                condition("ConnectionHealthy", "True", "ConnectionHealthy"),
                condition("RolloutComplete", "True", "RolloutComplete"),
            ],
        });
        let api = self.ground.api::<WorkerDeployment>();
        api.patch_status(FLEET, &self.release.writes(), &Patch::Merge(json!({"status": status}))).await?;
        Ok(())
    }
}

fn is_applied(entries: &[ManagedFieldsEntry]) -> bool {
    let applied = |entry: &ManagedFieldsEntry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.operation.as_deref() == Some("Apply")
    };
    entries.iter().any(applied)
}

fn has_peers(entries: &[ManagedFieldsEntry]) -> bool {
    entries.iter().filter_map(|entry| entry.manager.as_deref()).any(|manager| PEER_MANAGERS.contains(&manager))
}

impl Left {
    /// Name of the target's Deployment.
    #[must_use]
    pub fn target(&self) -> String {
        child_deployment_name(FLEET, &self.build_id)
    }

    /// Name of the old version's Deployment.
    #[must_use]
    pub fn old(&self) -> String {
        child_deployment_name(FLEET, OLD)
    }

    /// Name of its Worker Deployment.
    #[must_use]
    pub fn worker_deployment(&self) -> String {
        temporal_deployment_name(self.release.namespace, FLEET)
    }

    /// Waits until the operator has it, and all that it asked of the server.
    ///
    /// # Errors
    /// It has not in time.
    pub async fn is_taken_over(&self) -> Result<()> {
        eventually(&format!("the fleet {} is taken over", self.release.namespace), async || {
            let child = self.ground.api::<Deployment>().get(&self.target()).await?;
            ensure!(is_applied(child.managed_fields()), "{:?}", child.managed_fields());
            let message = self.ground.has_condition(FLEET, ("Ready", "True", "RolloutComplete")).await?;
            ensure!(message.contains(&self.build_id), "{message}");
            let target = self.ground.status(FLEET).await?.target_version.version;
            ensure!(target.replicas == Some(self.replicas) && target.build_id == self.build_id, "{target:?}");
            Ok(())
        })
        .await
    }

    /// Fails unless nothing of it is another one, and nothing of the peer's is left that no later write could change.
    ///
    /// # Errors
    /// What is not as it was.
    pub async fn stands(&self) -> Result<()> {
        let now = self.ground.children(FLEET).await?;
        ensure!(now.keys().eq(self.children.keys()), "its Deployments: {:?}", now.keys());
        for (name, before) in &self.children {
            let after = &now[name];
            ensure!(after.uid() == before.uid(), "{name} is another one");
            // Its generation may be another: an API server counts the annotations of a Deployment too.
            ensure!(after.spec == before.spec, "the spec of {name} was written: {after:?}");
        }
        let target = now[&self.target()].managed_fields();
        ensure!(!has_peers(target), "{target:?}");
        let replicas = target.iter().filter(|entry| {
            let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
            fields.is_some_and(|fields| fields.pointer("/f:spec/f:replicas").is_some())
        });
        let owner = if self.release.sets_replicas { SCALER_FIELD_MANAGER } else { "kube-controller-manager" };
        let owners: Vec<_> = replicas.map(|entry| entry.manager.clone().unwrap_or_default()).collect();
        ensure!(owners == [owner], "replicas are written by {owners:?}");
        let fleet = self.ground.fleet(FLEET).await?;
        ensure!(!has_peers(fleet.managed_fields()), "{:?}", fleet.managed_fields());
        let routing = self.worker.routing().await?;
        ensure!(routing == self.routing, "the routing was changed: {:?}, then {routing:?}", self.routing);
        Ok(())
    }
}
