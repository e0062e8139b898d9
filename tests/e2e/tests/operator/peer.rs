//! Fleets as releases of temporal-worker-controller leave them: what it wrote, under the names that it writes by.

use anyhow::{Context as _, Result};
use e2e::Ground;
use e2e::worker::{Worker, set_manager};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use operator_core::api::{Connection, WorkerDeployment};
use operator_core::build_id;
use serde_json::{Value, json};

use super::orders;

/// Identity of the manager, as the chart of both operators has it for release `twc`.
pub const IDENTITY: &str = "twc/temporal-system";
/// Replicas that a fleet's Deployment has.
pub const REPLICAS: i32 = 4;

/// What differs between the releases.
#[derive(Clone, Copy, Debug)]
pub struct Release {
    /// Namespace of the fleet.
    pub namespace: &'static str,
    /// The name of its program as a field manager.
    pub manager: &'static str,
    /// Build ID of the orders: up to 1.5.2 the hash was another one.
    pub build_id: &'static str,
    /// Whether pods carry the hash of their template.
    pub has_template_hash: bool,
    /// Whether its identity in Temporal has the UID of its namespace.
    pub has_uid: bool,
    /// Whether it sets the replicas, and not an autoscaler.
    pub sets_replicas: bool,
}

/// As of 1.5.2, 1.6 and 1.8.1.
pub const RELEASES: [Release; 3] = [
    Release {
        namespace: "as-of-1-5-2",
        manager: "manager",
        build_id: "v1.2.3-7f96",
        has_template_hash: false,
        has_uid: false,
        sets_replicas: false,
    },
    Release {
        namespace: "as-of-1-6",
        manager: "temporal-worker-controller",
        build_id: "v1.2.3-45d8",
        has_template_hash: true,
        has_uid: false,
        sets_replicas: true,
    },
    Release {
        namespace: "as-of-1-8-1",
        manager: "temporal-worker-controller",
        build_id: "v1.2.3-45d8",
        has_template_hash: true,
        has_uid: true,
        sets_replicas: false,
    },
];

/// A Deployment as it makes one of a template, for a version of the orders.
pub fn deployment(
    owner_uid: &str,
    (namespace, address): (&str, &str),
    template: &Value,
    build_id: &str,
) -> Result<Value> {
    let selector = json!({"temporal.io/deployment-name": "orders", "temporal.io/build-id": build_id});
    let mut pods = template.clone();
    pods["metadata"]["labels"] = json!({"app": "worker", "temporal.io/deployment-name": "orders",
        "temporal.io/build-id": build_id});
    pods["metadata"]["annotations"] = json!({
        "temporal.io/connection-spec-hash": build_id::connection_spec_hash(address, None, None),
        "temporal.io/pod-template-spec-hash": build_id::template_hash(&build_id::go_json(template)?),
    });
    let variable = |name: &str, value: &str| json!({"name": name, "value": value});
    let env = pods["spec"]["containers"][0]["env"].as_array_mut().context("variables")?;
    env.extend([
        variable("TEMPORAL_ADDRESS", address),
        variable("TEMPORAL_NAMESPACE", "default"),
        variable("TEMPORAL_DEPLOYMENT_NAME", &format!("{namespace}/orders")),
        variable("TEMPORAL_WORKER_BUILD_ID", build_id),
    ]);
    let owner = json!({"apiVersion": "temporal.io/v1alpha1", "kind": "WorkerDeployment", "name": "orders",
        "uid": owner_uid, "controller": true, "blockOwnerDeletion": true});
    let name = format!("orders-{}", build_id.replace('.', "-"));
    Ok(json!({"metadata": {"name": name, "labels": selector, "ownerReferences": [owner]},
        "spec": {"replicas": REPLICAS, "selector": {"matchLabels": selector}, "template": pods}}))
}

impl Release {
    fn writes(&self) -> PatchParams {
        PatchParams { field_manager: Some(self.manager.into()), ..PatchParams::default() }
    }

    /// The identity of its manager in Temporal.
    pub fn identity(&self, uid: &str) -> String {
        if self.has_uid { format!("{IDENTITY}/{uid}") } else { IDENTITY.to_owned() }
    }

    /// Leaves a fleet whose version is current, with an old one at zero, and gives its namespace and its Worker.
    pub async fn leave(&self, client: Client, address: &str, uid: &str) -> Result<(Ground, Worker)> {
        let ground = Ground::with_connection(client, self.namespace, address).await?;
        self.protect(&ground.api::<Connection>(), "temporal").await?;
        let mut fleet = orders();
        if self.sets_replicas {
            fleet["spec"]["replicas"] = json!(REPLICAS);
        }
        let owner = ground.apply(&fleet).await?.uid().context("no uid")?;
        self.protect(&ground.api::<WorkerDeployment>(), "orders").await?;
        let template = &orders()["spec"]["template"];
        let current = self.make(&ground, &owner, (address, template, self.build_id)).await?;
        let mut before = template.clone();
        before["spec"]["containers"][0]["image"] = json!("ghcr.io/acme/worker:v1.2.2");
        let old = self.make(&ground, &owner, (address, &before, "v1.2.2-9d7c")).await?;
        scale(&ground, &old.name_any(), 0, "temporal-worker-controller").await?;
        let worker = Worker::of(address, "default", self.namespace)?;
        let deployment = format!("{}/orders", self.namespace);
        worker.register(&deployment, self.build_id).await?;
        worker.make_current().await?;
        set_manager(address, "default", &deployment, &self.identity(uid)).await?;
        self.tell(&ground, (&current, &old), &self.identity(uid)).await?;
        Ok((ground, worker))
    }

    async fn protect<K>(&self, api: &Api<K>, name: &str) -> Result<()>
    where
        K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
    {
        let patch = json!({"metadata": {"finalizers": ["temporal.io/delete-protection"]}});
        api.patch(name, &self.writes(), &Patch::Merge(patch)).await.map(|_| ()).context("finalizer")
    }

    async fn make(
        &self,
        ground: &Ground,
        owner: &str,
        (address, template, build_id): (&str, &Value, &str),
    ) -> Result<Deployment> {
        let mut object = deployment(owner, (self.namespace, address), template, build_id)?;
        if !self.has_template_hash {
            let annotations = object["spec"]["template"]["metadata"]["annotations"].as_object_mut();
            annotations.context("annotations")?.remove("temporal.io/pod-template-spec-hash");
        }
        if !self.sets_replicas {
            object["spec"].as_object_mut().context("spec")?.remove("replicas");
        }
        let params = PostParams { field_manager: Some(self.manager.into()), ..PostParams::default() };
        let made = ground.api::<Deployment>().create(&params, &serde_json::from_value(object)?).await?;
        if !self.sets_replicas {
            scale(ground, &made.name_any(), REPLICAS, "kube-controller-manager").await?;
        }
        Ok(made)
    }

    /// The status that it writes of them.
    async fn tell(&self, ground: &Ground, (current, old): (&Deployment, &Deployment), identity: &str) -> Result<()> {
        let version = |build_id: &str, status: &str, child: &Deployment| {
            json!({"buildID": build_id, "status": status, "deployment": {"apiVersion": "apps/v1", "kind": "Deployment",
                "name": child.name_any(), "namespace": self.namespace, "uid": child.uid()}})
        };
        let generation = ground.fleet("orders").await?.metadata.generation;
        let condition = |type_: &str, status: &str, reason: &str| {
            json!({"type": type_, "status": status, "reason": reason, "message": "", "observedGeneration": generation,
                "lastTransitionTime": "2026-11-01T00:00:00Z"})
        };
        let mut target = version(self.build_id, "Current", current);
        target["healthySince"] = json!("2026-11-01T00:00:00Z");
        let status = json!({
            "targetVersion": target,
            "currentVersion": target,
            "deprecatedVersions": [version("v1.2.2-9d7c", "NotRegistered", old)],
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
        let api = ground.api::<WorkerDeployment>();
        api.patch_status("orders", &self.writes(), &Patch::Merge(json!({"status": status}))).await?;
        Ok(())
    }
}

async fn scale(ground: &Ground, child: &str, replicas: i32, by: &str) -> Result<()> {
    let params = PatchParams { field_manager: Some(by.into()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    ground.api::<Deployment>().patch_scale(child, &params, &patch).await?;
    Ok(())
}
