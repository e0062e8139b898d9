//! temporal-worker-controller, the operator of the same kinds in Go: fleets as its releases leave them, with what it wrote under
//! the names that it writes by; and what it goes by when it comes back.

mod left;
mod view;
mod writes;

use anyhow::{Context as _, Result};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use operator_core::api::{Connection, WorkerDeployment};
use operator_core::build_id;
use operator_core::names::{DELETE_PROTECTION_FINALIZER, temporal_deployment_name};
use serde_json::{Value, json};

use crate::ground::{CONNECTION, Ground, TEMPORAL_NAMESPACE};

pub use left::Left;
pub use view::Sight;
pub use writes::Told;

/// Identity of the manager, as the chart of both operators has it for release `twc`.
pub const IDENTITY: &str = "twc/temporal-system";
/// Name of every fleet.
pub const FLEET: &str = "orders";
/// Replicas of [`deployment`].
const REPLICAS: i32 = 4;
/// Build ID of the version before, which the server has no record of.
const OLD: &str = "v1.2.2-9d7c";

/// What differs between the releases.
#[derive(Clone, Copy, Debug)]
pub struct Release {
    /// Namespace of the fleet.
    pub namespace: &'static str,
    /// The name of its program as a field manager.
    pub manager: &'static str,
    /// The hash in the target's Build ID, where it is another one than that of now, as it was up to 1.5.2.
    pub hash: Option<&'static str>,
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
        hash: Some("7f96"),
        has_template_hash: false,
        has_uid: false,
        sets_replicas: false,
    },
    Release {
        namespace: "as-of-1-6",
        manager: "temporal-worker-controller",
        hash: None,
        has_template_hash: true,
        has_uid: false,
        sets_replicas: true,
    },
    Release {
        namespace: "as-of-1-8-1",
        manager: "temporal-worker-controller",
        hash: None,
        has_template_hash: true,
        has_uid: true,
        sets_replicas: false,
    },
];

/// A Deployment as it makes one of a template, for a version of the fleet.
///
/// # Errors
/// The template is none, or its first container has no variables.
pub fn deployment(
    owner_uid: &str,
    (namespace, address): (&str, &str),
    template: &Value,
    build_id: &str,
) -> Result<Value> {
    let selector = json!({"temporal.io/deployment-name": FLEET, "temporal.io/build-id": build_id});
    let mut pods = template.clone();
    pods["metadata"]["labels"] = json!({"app": "worker", "temporal.io/deployment-name": FLEET,
        "temporal.io/build-id": build_id});
    pods["metadata"]["annotations"] = json!({
        "temporal.io/connection-spec-hash": build_id::connection_spec_hash(address, None, None),
        "temporal.io/pod-template-spec-hash": build_id::template_hash(&build_id::go_json(template)?),
    });
    let variable = |name: &str, value: &str| json!({"name": name, "value": value});
    let env = pods["spec"]["containers"][0]["env"].as_array_mut().context("variables")?;
    env.extend([
        variable("TEMPORAL_ADDRESS", address),
        variable("TEMPORAL_NAMESPACE", TEMPORAL_NAMESPACE),
        variable("TEMPORAL_DEPLOYMENT_NAME", &format!("{namespace}/{FLEET}")),
        variable("TEMPORAL_WORKER_BUILD_ID", build_id),
    ]);
    let owner = json!({"apiVersion": "temporal.io/v1alpha1", "kind": "WorkerDeployment", "name": FLEET,
        "uid": owner_uid, "controller": true, "blockOwnerDeletion": true});
    let name = format!("{FLEET}-{}", build_id.replace('.', "-"));
    Ok(json!({"metadata": {"name": name, "labels": selector, "ownerReferences": [owner]},
        "spec": {"replicas": REPLICAS, "selector": {"matchLabels": selector}, "template": pods}}))
}

/// A fleet in the cluster, before the server has a word of it.
pub struct Laid {
    /// Its namespace.
    pub ground: Ground,
    /// Build ID of the target.
    pub build_id: String,
    release: Release,
    replicas: i32,
    current: Deployment,
    old: Deployment,
}

impl Laid {
    /// Name of its Worker Deployment.
    #[must_use]
    pub fn worker_deployment(&self) -> String {
        temporal_deployment_name(self.release.namespace, FLEET)
    }
}

/// Whose a Deployment becomes.
struct Owner<'a> {
    ground: &'a Ground,
    uid: &'a str,
    address: &'a str,
}

impl Release {
    /// The target's Build ID, as this release computes it.
    ///
    /// # Errors
    /// The template is none.
    pub fn build_id(&self, template: &Value) -> Result<String> {
        let computed = build_id::compute(template, None)?;
        let Some(hash) = self.hash else { return Ok(computed) };
        let (tag, _) = computed.rsplit_once('-').context("no tag")?;
        Ok(format!("{tag}-{hash}"))
    }

    /// The identity of its manager in Temporal.
    #[must_use]
    pub fn identity(&self, uid: &str) -> String {
        if self.has_uid { format!("{IDENTITY}/{uid}") } else { IDENTITY.to_owned() }
    }

    /// Lays a fleet into a namespace of its own: its target with so many replicas, and an old version at zero.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn lay(self, client: Client, address: &str, (mut fleet, replicas): (Value, i32)) -> Result<Laid> {
        let ground = Ground::with_connection(client, self.namespace, address).await?;
        self.protect(&ground.api::<Connection>(), CONNECTION).await?;
        if self.sets_replicas {
            fleet["spec"]["replicas"] = json!(replicas);
        }
        let uid = ground.apply(&fleet).await?.uid().context("no uid")?;
        self.protect(&ground.api::<WorkerDeployment>(), FLEET).await?;
        let owner = Owner { ground: &ground, uid: &uid, address };
        let template = &fleet["spec"]["template"];
        let build_id = self.build_id(template)?;
        let current = self.make(&owner, (template, &build_id), replicas).await?;
        let mut before = template.clone();
        before["spec"]["containers"][0]["image"] = json!("ghcr.io/acme/worker:v1.2.2");
        let old = self.make(&owner, (&before, OLD), replicas).await?;
        scale(&ground, &old.name_any(), 0, "temporal-worker-controller").await?;
        Ok(Laid { ground, build_id, release: self, replicas, current, old })
    }

    fn writes(&self) -> PatchParams {
        PatchParams { field_manager: Some(self.manager.into()), ..PatchParams::default() }
    }

    async fn protect<K>(&self, api: &Api<K>, name: &str) -> Result<()>
    where
        K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
    {
        let patch = json!({"metadata": {"finalizers": [DELETE_PROTECTION_FINALIZER]}});
        api.patch(name, &self.writes(), &Patch::Merge(patch)).await.map(|_| ()).context("finalizer")
    }

    async fn make(&self, owner: &Owner<'_>, (template, build_id): (&Value, &str), replicas: i32) -> Result<Deployment> {
        let mut object = deployment(owner.uid, (self.namespace, owner.address), template, build_id)?;
        if !self.has_template_hash {
            let annotations = object["spec"]["template"]["metadata"]["annotations"].as_object_mut();
            annotations.context("annotations")?.remove("temporal.io/pod-template-spec-hash");
        }
        if self.sets_replicas {
            object["spec"]["replicas"] = json!(replicas);
        } else {
            object["spec"].as_object_mut().context("spec")?.remove("replicas");
        }
        let params = PostParams { field_manager: Some(self.manager.into()), ..PostParams::default() };
        let made = owner.ground.api::<Deployment>().create(&params, &serde_json::from_value(object)?).await?;
        if !self.sets_replicas {
            scale(owner.ground, &made.name_any(), replicas, "kube-controller-manager").await?;
        }
        Ok(made)
    }
}

async fn scale(ground: &Ground, child: &str, replicas: i32, by: &str) -> Result<()> {
    let params = PatchParams { field_manager: Some(by.into()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    ground.api::<Deployment>().patch_scale(child, &params, &patch).await?;
    Ok(())
}
