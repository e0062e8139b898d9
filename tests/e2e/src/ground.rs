//! A scenario's own Kubernetes namespace: its fleets, their children, pods and events.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use kube::{Api, Client, ResourceExt as _};
use operator_core::api::{ScalingStatus, WorkerDeployment, WorkerDeploymentStatus};
use operator_core::names;
use serde_json::{Value, json};

use crate::wait::{eventually, within};

/// Name of the Connection that every ground has.
pub const CONNECTION: &str = "temporal";
/// Temporal namespace of all fleets.
pub const TEMPORAL_NAMESPACE: &str = "default";
/// Time within which a changed Secret or ConfigMap is in a pod and taken over.
const MOUNTED: Duration = Duration::from_secs(150);
/// Time between two changes of pods that are to be looked at.
const TOUCH: Duration = Duration::from_secs(3);

/// A namespace, deleted with the value.
pub struct Ground {
    /// A client with all rights.
    pub client: Client,
    /// Name of the namespace.
    pub namespace: String,
}

impl Drop for Ground {
    fn drop(&mut self) {
        let (client, name) = (self.client.clone(), self.namespace.clone());
        // In the background: the next scenario has another namespace.
        tokio::spawn(async move {
            abandon(&client, &name).await;
            Api::<Namespace>::all(client).delete(&name, &DeleteParams::default()).await
        });
    }
}

/// Lets the fleets of a namespace go at once: else the operator has them to clean up for five minutes, beside other scenarios.
async fn abandon(client: &Client, namespace: &str) {
    let fleets =
        Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &ApiResource::erase::<WorkerDeployment>(&()));
    let orphan = Patch::Merge(json!({"spec": {"deletionPolicy": "Orphan"}}));
    for fleet in fleets.list(&ListParams::default()).await.into_iter().flatten() {
        // One that can't be read, or is gone, is none of the operator's.
        _ = fleets.patch(&fleet.name_any(), &PatchParams::default(), &orphan).await;
    }
}

impl Ground {
    /// A namespace without anything in it.
    ///
    /// # Errors
    /// It exists.
    pub async fn bare(client: Client, name: &str) -> Result<Self> {
        let namespace = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        let created = Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await;
        created.with_context(|| format!("create the namespace {name}"))?;
        Ok(Self { client, namespace: name.to_owned() })
    }

    /// A namespace with a Connection to the server at `host:port`.
    ///
    /// # Errors
    /// It exists.
    pub async fn with_connection(client: Client, name: &str, host_port: &str) -> Result<Self> {
        let ground = Self::bare(client, name).await?;
        ground.connect(host_port).await?;
        Ok(ground)
    }

    /// Applies the Connection to a server without credentials.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn connect(&self, host_port: &str) -> Result<()> {
        let manifest = json!({"apiVersion": "temporal.io/v1alpha1", "kind": "Connection",
            "metadata": {"name": CONNECTION}, "spec": {"hostPort": host_port}});
        self.apply(&manifest).await.map(|_| ())
    }

    /// Applies a manifest as a user would.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn apply(&self, manifest: &Value) -> Result<DynamicObject> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (kind, name) = (text(&manifest["kind"]), text(&manifest["metadata"]["name"]));
        let params = PatchParams::apply("user").force();
        let applied = self.objects(manifest).patch(&name, &params, &Patch::Apply(manifest)).await;
        applied.with_context(|| format!("apply {kind} {name}"))
    }

    /// Objects of a manifest's kind.
    #[must_use]
    pub fn objects(&self, manifest: &Value) -> Api<DynamicObject> {
        let version = manifest["apiVersion"].as_str().unwrap_or_default();
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let kind = GroupVersionKind::gvk(group, version, manifest["kind"].as_str().unwrap_or_default());
        Api::namespaced_with(self.client.clone(), &self.namespace, &ApiResource::from_gvk(&kind))
    }

    /// Objects of a kind in this namespace.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// A fleet as it is stored.
    ///
    /// # Errors
    /// There is none.
    pub async fn fleet(&self, name: &str) -> Result<WorkerDeployment> {
        Ok(self.api::<WorkerDeployment>().get(name).await?)
    }

    /// A fleet's status.
    ///
    /// # Errors
    /// There is none yet.
    pub async fn status(&self, fleet: &str) -> Result<WorkerDeploymentStatus> {
        self.fleet(fleet).await?.status.with_context(|| format!("fleet {fleet} has no status yet"))
    }

    /// The autoscaler's part of a fleet's status.
    ///
    /// # Errors
    /// There is none yet.
    pub async fn scaling(&self, fleet: &str) -> Result<ScalingStatus> {
        let scaling = self.status(fleet).await?.scaling.map(|scaling| *scaling);
        scaling.with_context(|| format!("fleet {fleet} has no status.scaling yet"))
    }

    /// A condition of a fleet, of the generation that is stored now.
    ///
    /// # Errors
    /// There is none yet.
    pub async fn condition(&self, fleet: &str, type_: &str) -> Result<Condition> {
        let object = self.fleet(fleet).await?;
        let status = object.status.clone().unwrap_or_default();
        ensure!(status.observed_generation == object.metadata.generation, "status is of an older generation");
        let found = status.conditions.iter().find(|condition| condition.type_ == type_).cloned();
        found.with_context(|| format!("fleet {fleet} has no condition {type_}: {:?}", status.conditions))
    }

    /// Fails unless a condition has this status and reason; gives back its message.
    ///
    /// # Errors
    /// It is missing or another one.
    pub async fn has_condition(&self, fleet: &str, wanted: (&str, &str, &str)) -> Result<String> {
        let (type_, status, reason) = wanted;
        let condition = self.condition(fleet, type_).await?;
        let is = (condition.status.as_str(), condition.reason.as_str());
        ensure!(is == (status, reason), "{type_} is {is:?}: {}", condition.message);
        Ok(condition.message)
    }

    /// Waits until a fleet's version is current: from here on its pods follow its tasks.
    ///
    /// # Errors
    /// It does not become so.
    pub async fn is_current(&self, fleet: &str) -> Result<()> {
        eventually("the version is current", async || {
            self.has_condition(fleet, ("Ready", "True", "RolloutComplete")).await.map(|_| ())
        })
        .await
    }

    /// Every Deployment of a fleet, by name.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn children(&self, fleet: &str) -> Result<BTreeMap<String, Deployment>> {
        let found = self.api::<Deployment>().list(&labelled(fleet)).await?;
        Ok(found.into_iter().map(|child| (child.name_any(), child)).collect())
    }

    /// The only Deployment of a fleet.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub async fn child(&self, fleet: &str) -> Result<Deployment> {
        let mut children = self.children(fleet).await?;
        ensure!(children.len() == 1, "children of {fleet}: {:?}", children.keys());
        children.pop_first().map(|(_, child)| child).context("no child")
    }

    /// `spec.replicas` of the only Deployment of a fleet.
    ///
    /// # Errors
    /// There is no such Deployment.
    pub async fn replicas(&self, fleet: &str) -> Result<i32> {
        Ok(replicas_of(&self.child(fleet).await?))
    }

    /// Fails unless the only Deployment of a fleet has so many replicas, and as many pods.
    ///
    /// # Errors
    /// It has not.
    pub async fn settled_at(&self, fleet: &str, replicas: i32) -> Result<()> {
        let child = self.child(fleet).await?;
        let pods = self.pods(fleet).await?;
        let status = child.status.clone().unwrap_or_default();
        let ready = status.ready_replicas.unwrap_or(0);
        let is = (replicas_of(&child), ready, i32::try_from(pods.len())?);
        ensure!(is == (replicas, replicas, replicas), "replicas, ready, pods: {is:?}");
        Ok(())
    }

    /// Pods of a fleet, those that are being deleted too.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn pods(&self, fleet: &str) -> Result<Vec<Pod>> {
        Ok(self.api::<Pod>().list(&labelled(fleet)).await?.items)
    }

    /// The pods of a fleet by name, and how often a container of each was started again.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn restarts(&self, fleet: &str) -> Result<BTreeMap<String, i32>> {
        let restarts = |pod: &Pod| {
            let statuses = pod.status.iter();
            let containers = statuses.flat_map(|status| [&status.container_statuses, &status.init_container_statuses]);
            containers.flatten().flatten().map(|container| container.restart_count).sum()
        };
        Ok(self.pods(fleet).await?.iter().map(|pod| (pod.name_any(), restarts(pod))).collect())
    }

    /// Waits until `look` succeeds, which takes a changed Secret or ConfigMap in the pods of a fleet. The kubelet looks at
    /// what is mounted once in a minute and a half, and at each change of the pod: so they are changed meanwhile.
    ///
    /// # Errors
    /// It does not in time.
    pub async fn once_mounted<T>(
        &self,
        fleet: &str,
        what: &str,
        mut look: impl AsyncFnMut() -> Result<T>,
    ) -> Result<T> {
        let mut touched = None::<Instant>;
        within(MOUNTED, what, async || {
            if touched.is_none_or(|at| at.elapsed() > TOUCH) {
                self.touch_pods(fleet).await?;
                touched = Some(Instant::now());
            }
            look().await
        })
        .await
    }

    async fn touch_pods(&self, fleet: &str) -> Result<()> {
        let touch = json!({"metadata": {"annotations": {"touched": format!("{:016x}", rand::random::<u64>())}}});
        for pod in self.pods(fleet).await? {
            self.api::<Pod>().patch(&pod.name_any(), &PatchParams::default(), &Patch::Merge(&touch)).await?;
        }
        Ok(())
    }

    /// Events about a fleet: reason and note, oldest first.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn events(&self, fleet: &str) -> Result<Vec<(String, String)>> {
        let mut events = self.api::<Event>().list(&ListParams::default()).await?.items;
        events.sort_by_key(|event| event.event_time.as_ref().map(|time| time.0));
        let about = |event: &Event| {
            let object = event.regarding.clone().unwrap_or_default();
            object.kind.as_deref() == Some("WorkerDeployment") && object.name.as_deref() == Some(fleet)
        };
        let events = events.into_iter().filter(about);
        Ok(events.map(|event| (event.reason.unwrap_or_default(), event.note.unwrap_or_default())).collect())
    }

    /// Scales the only Deployment of a fleet as a user with `kubectl scale` would.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn scale_by_hand(&self, fleet: &str, replicas: i32) -> Result<()> {
        let child = self.child(fleet).await?.name_any();
        let patch = json!({"spec": {"replicas": replicas}});
        self.api::<Deployment>().patch_scale(&child, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }
}

/// `spec.replicas`; 1 when it is not set, as Kubernetes has it.
#[must_use]
pub fn replicas_of(child: &Deployment) -> i32 {
    child.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// Whether a pod is Ready and is not being deleted.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

fn labelled(fleet: &str) -> ListParams {
    let label = names::deployment_name_label(fleet);
    ListParams::default().labels(&format!("{}={label}", names::DEPLOYMENT_NAME_LABEL))
}

/// Program of the handler of `Work` on the [runtime](crate::bed::HANDLERS_IMAGE): sleeps for the seconds of its argument.
pub const SLEEP: [&str; 3] =
    ["bash", "-c", r#"read -r task || [ -n "$task" ]; n=${task//[^0-9.]/}; sleep "$n"; echo "$n""#];

/// A fleet on the shared runtime whose handler sleeps for as many seconds as the task's argument says, and prints that
/// number. The Task Queue is given; a pod runs `slots` tasks at a time.
#[must_use]
pub fn runtime_fleet(name: &str, task_queue: &str, slots: u32) -> Value {
    json!({
        "apiVersion": "temporal.io/v1alpha1",
        "kind": "WorkerDeployment",
        "metadata": {"name": name},
        "spec": {
            "workerOptions": {
                "connectionRef": {"name": CONNECTION},
                "temporalNamespace": TEMPORAL_NAMESPACE,
            },
            "runtime": {
                "image": crate::bed::HANDLERS_IMAGE,
                "taskQueues": [{"name": task_queue, "maxConcurrentActivities": slots}],
                "handlers": [{"name": "sleep", "exec": {"command": SLEEP}}],
                "activities": [{"type": "Work", "handler": "sleep"}],
            },
            "scaling": {"maxReplicas": 5, "idleWindow": "10s"},
            "rollout": {"strategy": "AllAtOnce"},
            "sunset": {},
        },
    })
}
