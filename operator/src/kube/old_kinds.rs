//! TemporalWorkerDeployments and TemporalConnections: their caches, and what is read and written to hand them over.
//!
//! Their kinds may be absent, or not the operator's to read. Then nothing is watched; a list each minute tells when that changes.

use std::collections::HashMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Event, watcher};
use kube::{Api, Client};
use operator_core::api::{API_VERSION, GROUP, VERSION, WorkerDeployment};
use operator_core::border::Border;
use operator_core::names::{FIELD_MANAGER, MIGRATED_LABEL, MIGRATION_GUARD_FINALIZER, deployment_name_label};
use operator_core::old_kinds::{Named, OldKind, handed_over};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::client::{CallError, bounded};
use super::gate::Gate;
use super::index::{Group, Index, View};
use super::watches::{Caches, REFUSED_PAUSE, config, refusal};

/// Objects of a list that are read at a time.
const PAGE: u32 = 500;

/// An object of a deprecated kind.
#[derive(Clone, Debug)]
pub struct OldView {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    resource_version: String,
    /// Generation of its spec.
    pub generation: Option<i64>,
    finalizers: Vec<String>,
    /// Whether it is being deleted.
    pub is_leaving: bool,
    /// Whether it has the label of one that is handed over.
    pub is_labelled: bool,
    /// Its conditions.
    pub conditions: Vec<Condition>,
    /// Whether its status has what the schema of a TemporalWorkerDeployment requires.
    has_target: bool,
}

impl View for OldView {
    type Object = DynamicObject;

    const BORDER: Border = Border::OldKinds;

    fn of(object: &DynamicObject) -> Self {
        let meta = &object.metadata;
        let status = &object.data["status"];
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            generation: meta.generation,
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            is_leaving: meta.deletion_timestamp.is_some(),
            is_labelled: meta.labels.iter().flatten().any(|(key, value)| key == MIGRATED_LABEL && value == "true"),
            conditions: serde_json::from_value(status["conditions"].clone()).unwrap_or_default(),
            has_target: status["targetVersion"].is_object(),
        }
    }

    fn group(&self) -> Group {
        (self.namespace.clone(), self.name.clone())
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl OldView {
    /// Whether it has the finalizer that keeps it.
    #[must_use]
    pub fn is_guarded(&self) -> bool {
        self.finalizers.iter().any(|one| one == MIGRATION_GUARD_FINALIZER)
    }

    /// By its names.
    #[must_use]
    pub fn named(&self) -> Named<'_> {
        Named { namespace: &self.namespace, name: &self.name }
    }

    /// How many of its Deployments are in the caches.
    #[must_use]
    pub fn owned_in(&self, caches: &Caches) -> usize {
        let group = caches.deployments.group(&self.namespace, &deployment_name_label(&self.name));
        group.iter().filter(|deployment| deployment.ownership.names(&self.uid)).count()
    }
}

/// The deprecated kinds of one scope.
#[derive(Default)]
pub struct OldKinds {
    fleets: Index<OldView>,
    connections: Index<OldView>,
    /// Open once it is known which TemporalWorkerDeployments there are, or that they can't be read.
    fleets_known: Gate,
    connections_known: Gate,
    /// Told of each change of an object.
    pub changed: Notify,
    /// Why the last try with an object failed, by its UID.
    pub failures: Mutex<HashMap<String, String>>,
}

impl OldKinds {
    fn of(&self, kind: OldKind) -> (&Index<OldView>, &Gate) {
        match kind {
            OldKind::WorkerDeployment => (&self.fleets, &self.fleets_known),
            OldKind::Connection => (&self.connections, &self.connections_known),
        }
    }

    /// Waits until it is known which objects there are, or that they can't be read.
    pub async fn wait_until_known(&self, kind: OldKind) {
        self.of(kind).1.passed().await;
    }

    /// The objects of a kind.
    #[must_use]
    pub fn all(&self, kind: OldKind) -> Vec<Arc<OldView>> {
        self.of(kind).0.all()
    }

    /// The TemporalWorkerDeployment of a name.
    #[must_use]
    pub fn fleet(&self, namespace: &str, name: &str) -> Option<Arc<OldView>> {
        self.fleets.group(namespace, name).pop()
    }

    fn take(&self, kind: OldKind, event: &Event<DynamicObject>) {
        let (index, known) = self.of(kind);
        index.take(event);
        if matches!(event, Event::InitDone) {
            known.open();
        }
        self.changed.notify_one();
    }
}

fn resource(kind: OldKind) -> ApiResource {
    resource_of(kind.name(), kind.plural())
}

fn resource_of(kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: GROUP.into(),
        version: VERSION.into(),
        api_version: API_VERSION.into(),
        kind: kind.into(),
        plural: plural.into(),
    }
}

/// Keeps the objects of a kind for as long as the process lives.
pub async fn watch(client: Client, namespace: Option<&str>, kind: OldKind, kinds: &OldKinds) {
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource(kind)),
        None => Api::all_with(client, &resource(kind)),
    };
    let mut events = pin!(watcher(api, config()).default_backoff());
    let mut is_refused = false;
    while let Some(event) = events.next().await {
        match (&event, refusal(&event)) {
            (Ok(event), _) => {
                is_refused &= !matches!(event, Event::InitDone);
                kinds.take(kind, event);
            }
            (Err(_), Some(reason)) => {
                if !is_refused {
                    tracing::info!(
                        kind = kind.name(),
                        reason,
                        "deprecated kind not watched; asked for again each minute"
                    );
                }
                is_refused = true;
                kinds.of(kind).1.open();
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
            (Err(error), None) => tracing::warn!(%error, kind = kind.name(), "watch interrupted"),
        }
    }
}

/// UID of the WorkerDeployment of a name, read from the API server: a Deployment whose owner does not exist would be deleted.
///
/// # Errors
/// [`CallError`].
pub async fn successor(client: &Client, named: Named<'_>) -> Result<Option<String>, CallError> {
    let Named { namespace, name } = named;
    #[cfg(feature = "breach")]
    let namespace = &super::breach::home::<WorkerDeployment>(client, Border::Successor, (namespace, name)).await;
    let api: Api<WorkerDeployment> = Api::namespaced(client.clone(), namespace);
    let found = bounded(api.get_metadata_opt(name)).await?.map(|found| found.metadata);
    Ok(found.filter(|meta| meta.deletion_timestamp.is_none()).and_then(|meta| meta.uid))
}

/// What a TemporalWorkerDeployment owns.
pub struct Owned {
    deployments: Vec<ObjectMeta>,
    templates: Vec<ObjectMeta>,
}

impl Owned {
    /// How many objects.
    #[must_use]
    pub fn count(&self) -> usize {
        self.deployments.len() + self.templates.len()
    }
}

fn deployments(client: &Client, namespace: &str) -> Api<Deployment> {
    Api::namespaced(client.clone(), namespace)
}

fn templates(client: &Client, namespace: &str) -> Api<DynamicObject> {
    let resource = resource_of("WorkerResourceTemplate", "workerresourcetemplates");
    Api::namespaced_with(client.clone(), namespace, &resource)
}

/// Reads what a TemporalWorkerDeployment owns. WorkerResourceTemplates are none where their kind is absent.
///
/// # Errors
/// [`CallError`].
pub async fn owned(client: &Client, old: &OldView) -> Result<Owned, CallError> {
    let deployments = owned_of(&deployments(client, &old.namespace), &old.uid).await?;
    let templates = match owned_of(&templates(client, &old.namespace), &old.uid).await {
        Err(error) if error.is_not_found() => Vec::new(),
        found => found?,
    };
    Ok(Owned { deployments, templates })
}

/// How many objects the TemporalWorkerDeployment of a name owns; none where that is absent, or its kind.
///
/// # Errors
/// [`CallError`].
pub async fn owned_by(client: &Client, namespace: &str, name: &str) -> Result<usize, CallError> {
    let kind = resource(OldKind::WorkerDeployment);
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind);
    match bounded(api.get(name)).await {
        Ok(found) => Ok(owned(client, &OldView::of(&found)).await?.count()),
        Err(error) if error.is_not_found() => Ok(0),
        Err(error) => Err(error),
    }
}

async fn owned_of<K>(api: &Api<K>, owner: &str) -> Result<Vec<ObjectMeta>, CallError>
where
    K: Clone + DeserializeOwned + Debug,
{
    let mut found = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = bounded(api.list_metadata(&page)).await?;
        let is_owned = |meta: &ObjectMeta| meta.owner_references.iter().flatten().any(|one| one.uid == owner);
        found.extend(list.items.into_iter().map(|item: PartialObjectMeta<K>| item.metadata).filter(is_owned));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(found),
        }
    }
}

/// Makes the WorkerDeployment of UID `to` the owner of all that is owned. Nothing but the owner references is written, and of
/// what changed since it was read nothing: that is left for another look. Gives back how many objects were handed over.
///
/// # Errors
/// [`CallError`].
pub async fn hand_over(client: &Client, old: &OldView, owned: &Owned, to: &str) -> Result<usize, CallError> {
    let (deployments, templates) = (deployments(client, &old.namespace), templates(client, &old.namespace));
    let mut given = 0;
    for meta in &owned.deployments {
        given += usize::from(give(&deployments, old, meta, to).await?);
    }
    for meta in &owned.templates {
        given += usize::from(give(&templates, old, meta, to).await?);
    }
    Ok(given)
}

/// Says whether it was given.
async fn give<K>(api: &Api<K>, old: &OldView, meta: &ObjectMeta, to: &str) -> Result<bool, CallError>
where
    K: Clone + DeserializeOwned + Debug,
{
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    let Some(owners) = handed_over(owners, &old.uid, old.named(), to) else { return Ok(false) };
    let patch =
        json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": owners}});
    match bounded(api.patch_metadata(meta.name.as_deref().unwrap_or_default(), &params(), &Patch::Merge(patch))).await {
        Err(error) if error.is_conflict() || error.is_not_found() => Ok(false),
        result => result.map(|_| true),
    }
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() }
}

fn objects(client: &Client, kind: OldKind, old: &OldView) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), &old.namespace, &resource(kind))
}

/// Gives an object the finalizer that keeps it, or takes it away. One that is gone is no error.
///
/// # Errors
/// [`CallError`]; a conflict when the object changed since it was read.
pub async fn set_guarded(client: &Client, kind: OldKind, old: &mut OldView, guarded: bool) -> Result<(), CallError> {
    let others = old.finalizers.iter().filter(|one| *one != MIGRATION_GUARD_FINALIZER).cloned();
    let finalizers: Vec<_> = others.chain(guarded.then(|| MIGRATION_GUARD_FINALIZER.to_owned())).collect();
    set_meta(client, kind, old, json!({"finalizers": finalizers})).await
}

/// Gives a TemporalWorkerDeployment the label of one that is handed over. One that is gone is no error.
///
/// # Errors
/// [`CallError`]; a conflict when the object changed since it was read.
pub async fn set_labelled(client: &Client, kind: OldKind, old: &mut OldView) -> Result<(), CallError> {
    set_meta(client, kind, old, json!({"labels": {MIGRATED_LABEL: "true"}})).await
}

async fn set_meta(client: &Client, kind: OldKind, old: &mut OldView, mut meta: Value) -> Result<(), CallError> {
    meta["uid"] = json!(old.uid);
    meta["resourceVersion"] = json!(old.resource_version);
    let patch = Patch::Merge(json!({"metadata": meta}));
    match bounded(objects(client, kind, old).patch_metadata(&old.name, &params(), &patch)).await {
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
        Ok(written) => {
            old.resource_version = written.metadata.resource_version.unwrap_or_default();
            Ok(())
        }
    }
}

/// Writes the conditions of an object. All else of its status stays as it is; what the schema requires of a
/// TemporalWorkerDeployment's is added where it never had one. One that is gone is no error.
///
/// # Errors
/// [`CallError`]; a conflict when the object changed since it was read.
pub async fn write_conditions(
    client: &Client,
    kind: OldKind,
    old: &OldView,
    conditions: &[Condition],
) -> Result<(), CallError> {
    let mut status = json!({"conditions": conditions});
    if kind == OldKind::WorkerDeployment && !old.has_target {
        status["targetVersion"] = json!({"buildID": "", "status": ""});
    }
    let patch = json!({"metadata": {"uid": old.uid, "resourceVersion": old.resource_version}, "status": status});
    match bounded(objects(client, kind, old).patch_status(&old.name, &params(), &Patch::Merge(patch))).await {
        Err(error) if error.is_not_found() => Ok(()),
        result => result.map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(object: Value) -> OldView {
        OldView::of(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn an_object_is_read_whatever_its_spec_and_status_are() {
        let ready = json!({"type": "Ready", "status": "False", "reason": "Deprecated", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let whole = view(json!({
            "metadata": {"name": "orders", "namespace": "prod", "uid": "u", "resourceVersion": "7", "generation": 3,
                "labels": {"temporal.io/migrated-to-wd": "true"}, "deletionTimestamp": "2026-01-01T00:00:00Z",
                "finalizers": ["example.com/theirs", "temporal.io/migration-guard"]},
            "spec": {"template": []},
            "status": {"conditions": [ready], "targetVersion": {"buildID": "1", "status": "Current"}},
        }));
        assert!(whole.is_guarded() && whole.is_leaving && whole.is_labelled && whole.has_target);
        assert_eq!((whole.group(), whole.conditions.len()), (("prod".into(), "orders".into()), 1));
        let bare = view(json!({"metadata": {"name": "orders", "labels": {"temporal.io/migrated-to-wd": "false"}}}));
        assert!(!bare.is_guarded() && !bare.is_leaving && !bare.is_labelled && !bare.has_target);
        assert!(view(json!({"metadata": {}, "status": {"conditions": "none"}})).conditions.is_empty());
    }
}
