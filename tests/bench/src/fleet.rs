//! One fleet as the cluster has it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

/// Kubernetes namespace of the fleets.
pub const NAMESPACE: &str = "bench";
/// Field manager of what is written by hand.
const MANAGER: &str = "bench";
/// Label of a fleet's Deployments and pods.
pub const LABEL: &str = "temporal.io/deployment-name";
const POLL: Duration = Duration::from_millis(100);
const READY_LIMIT: Duration = Duration::from_secs(120);
/// Longer than the default idle window and the longest hold.
const ZERO_LIMIT: Duration = Duration::from_secs(900);

/// A fleet. Its Task Queue has its name.
#[derive(Clone)]
pub struct Fleet {
    client: Client,
    name: &'static str,
}

/// Name of the `Connection` of all fleets.
const CONNECTION: &str = "temporal";

/// Applies the `Connection` of all fleets.
///
/// # Errors
/// The API server refuses it.
pub async fn apply_connection(client: &Client, host_port: &str) -> Result<()> {
    apply(client, "Connection", CONNECTION, json!({"hostPort": host_port})).await
}

async fn apply(client: &Client, kind: &str, name: &str, spec: Value) -> Result<()> {
    let object = json!({
        "apiVersion": "temporal.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    });
    let patch = Patch::Apply(&object);
    objects(client, kind)
        .patch(name, &PatchParams::apply(MANAGER), &patch)
        .await
        .with_context(|| format!("apply {kind} {name}"))?;
    Ok(())
}

fn objects(client: &Client, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("temporal.io", "v1alpha1", kind));
    Api::namespaced_with(client.clone(), NAMESPACE, &resource)
}

impl Fleet {
    /// Applies a fleet of the shared runtime with one Task Queue of its name. Without `scaling` its replicas are nobody's
    /// but ours.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn apply(client: Client, name: &'static str, runtime: Value, scaling: Option<Value>) -> Result<Self> {
        let mut spec = json!({
            "workerOptions": {
                "connectionRef": {"name": CONNECTION},
                "temporalNamespace": crate::tasks::NAMESPACE,
            },
            "runtime": runtime,
            "rollout": {"strategy": "AllAtOnce"},
            "sunset": {},
        });
        if let Some(scaling) = scaling {
            spec["scaling"] = scaling;
        }
        apply(&client, "WorkerDeployment", name, spec).await?;
        Ok(Self { client, name })
    }

    /// Its name, and that of its Task Queue.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Waits until its version is current.
    ///
    /// # Errors
    /// It is not within two minutes: the message holds its conditions.
    pub async fn wait_ready(&self) -> Result<()> {
        let api = objects(&self.client, "WorkerDeployment");
        let end = Instant::now() + READY_LIMIT;
        loop {
            let object = api.get(self.name).await?;
            let conditions = object.data.pointer("/status/conditions").and_then(Value::as_array);
            let is_ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
            if conditions.into_iter().flatten().any(is_ready) {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("fleet {} is not ready after {} s: {}", self.name, READY_LIMIT.as_secs(), object.data["status"]);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until nothing is asked for, the Deployment has no replica, and no pod exists, also none that ends.
    ///
    /// # Errors
    /// It is not within a quarter of an hour.
    pub async fn wait_at_zero(&self) -> Result<()> {
        let end = Instant::now() + ZERO_LIMIT;
        loop {
            let (asked, exist, pods) = self.replicas().await?;
            if (asked, exist, pods) == (0, 0, 0) {
                return Ok(());
            }
            if Instant::now() > end {
                let seconds = ZERO_LIMIT.as_secs();
                bail!("fleet {} has {asked} replicas and {pods} pods after {seconds} s", self.name);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Replicas that are asked for, replicas that exist, and pods.
    async fn replicas(&self) -> Result<(i32, i32, usize)> {
        let child = self.child().await?;
        let asked = child.spec.and_then(|spec| spec.replicas).unwrap_or(1);
        let exist = child.status.and_then(|status| status.replicas).unwrap_or(0);
        let pods = Api::<Pod>::namespaced(self.client.clone(), NAMESPACE).list(&self.selector()).await?;
        Ok((asked, exist, pods.items.len()))
    }

    /// Name of its Deployment.
    ///
    /// # Errors
    /// There is none, or several.
    pub async fn child_name(&self) -> Result<String> {
        Ok(self.child().await?.name_any())
    }

    async fn child(&self) -> Result<Deployment> {
        let mut children = self.deployments().list(&self.selector()).await?.items;
        ensure!(children.len() == 1, "fleet {} has {} Deployments", self.name, children.len());
        children.pop().context("no Deployment")
    }

    fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    fn selector(&self) -> ListParams {
        ListParams::default().labels(&format!("{LABEL}={}", self.name))
    }

    /// Writes its replicas by hand.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn scale(&self, replicas: i32) -> Result<()> {
        let patch = json!({"spec": {"replicas": replicas}});
        let parameters = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let child = self.child_name().await?;
        self.deployments().patch_scale(&child, &parameters, &Patch::Merge(&patch)).await?;
        Ok(())
    }

    /// Deletes it, and waits until its Deployment and pods are gone.
    ///
    /// # Errors
    /// They are not within a quarter of an hour.
    pub async fn delete(self) -> Result<()> {
        objects(&self.client, "WorkerDeployment").delete(self.name, &Default::default()).await?;
        let end = Instant::now() + ZERO_LIMIT;
        while !self.deployments().list(&self.selector()).await?.items.is_empty() {
            ensure!(Instant::now() < end, "the Deployment of fleet {} is not deleted", self.name);
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}
