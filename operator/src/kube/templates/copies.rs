//! Reads and writes of templates and their copies.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::core::ObjectMeta;
use kube::{Api, Client};
use operator_core::api::{API_VERSION, WorkerResourceTemplate, WorkerResourceTemplateStatus};
use operator_core::border::{self, Border};
use operator_core::names::{FIELD_MANAGER, TEMPLATE_FIELD_MANAGER};
use operator_core::resource_template::{Copy, is_version, owners};
use operator_core::standing::stands;
use serde_json::{Value, json};

use crate::kube::client::{CallError, bounded};

/// Why a copy could not be brought about.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// An object of that name is another's.
    #[error("{0} is there and not of this template: delete it, or rename the template")]
    Foreign(String),
    /// The one that is there is on its way out.
    #[error("{0} is being deleted; it is made anew when it is gone")]
    Leaving(String),
    /// A call failed.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// What is remembered of a copy that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Hash of the copy.
    hash: String,
    /// Of the fields that were its manager's thereafter: whoever changes the value of one takes it over.
    fields: u64,
}

/// Copies in a namespace, of one template.
#[derive(Clone, Copy)]
pub struct Copies<'a> {
    /// The client.
    pub client: &'a Client,
    /// The namespace.
    pub namespace: &'a str,
    /// UID of the template.
    pub template: &'a str,
}

impl Copies<'_> {
    fn api(&self, resource: &ApiResource) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), self.namespace, resource)
    }

    fn api_for(&self, resource: &ApiResource, copy: &Copy) -> Api<DynamicObject> {
        match copy.object["metadata"]["namespace"].as_str() {
            Some(named) if !border::stands(Border::TemplateNamespace) => {
                Api::namespaced_with(self.client.clone(), named, resource)
            }
            _ => self.api(resource),
        }
    }

    /// Sees to it that a copy is there as it should be: it is read, and applied where it differs. Gives back what to remember.
    ///
    /// # Errors
    /// [`CopyError`].
    pub async fn ensure(
        &self,
        resource: &ApiResource,
        copy: &Copy,
        before: Option<&Applied>,
    ) -> Result<Applied, CopyError> {
        let name = copy.object["metadata"]["name"].as_str().unwrap_or_default();
        let api = self.api_for(resource, copy);
        let mut wanted = copy.object.clone();
        if let Some(found) = bounded(api.get_opt(name)).await? {
            let meta = &found.metadata;
            let shown = format!("{} {name:?}", resource.kind);
            if !self.owns(meta) {
                return Err(CopyError::Foreign(shown));
            }
            if meta.deletion_timestamp.is_some() {
                return Err(CopyError::Leaving(shown));
            }
            // One that was replaced meanwhile is not taken for this one.
            wanted["metadata"]["uid"] = json!(meta.uid);
            let as_is = Applied { hash: copy.hash.clone(), fields: fields(meta) };
            let stored = serde_json::to_value(&found).unwrap_or_default();
            if before == Some(&as_is) || stands(&copy.object, &stored, TEMPLATE_FIELD_MANAGER) {
                return Ok(as_is);
            }
        }
        let params = PatchParams::apply(TEMPLATE_FIELD_MANAGER).force();
        let applied = bounded(api.patch(name, &params, &Patch::Apply(&wanted))).await?;
        Ok(Applied { hash: copy.hash.clone(), fields: fields(&applied.metadata) })
    }

    /// Deletes a copy, if it is this template's own and still what was read. One that is gone is no error.
    ///
    /// # Errors
    /// [`CopyError`].
    pub async fn delete(&self, resource: &ApiResource, name: &str) -> Result<(), CopyError> {
        let api = self.api(resource);
        let Some(found) = bounded(api.get_opt(name)).await?.filter(|found| self.owns(&found.metadata)) else {
            return Ok(());
        };
        let (uid, resource_version) = (found.metadata.uid, found.metadata.resource_version);
        let preconditions = Some(Preconditions { uid, resource_version });
        let deleted = bounded(api.delete(name, &DeleteParams { preconditions, ..DeleteParams::background() })).await;
        match deleted {
            Err(error) if error.is_not_found() => Ok(()),
            deleted => Ok(deleted.map(|_| ())?),
        }
    }

    fn owns(&self, meta: &ObjectMeta) -> bool {
        let owners = meta.owner_references.as_deref().unwrap_or_default();
        owners.iter().any(|owner| owner.controller == Some(true) && owner.uid == self.template)
    }

    /// Whether there is no Deployment of that name that a fleet controls.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn has_no_deployment(&self, name: &str, fleet: &str) -> Result<bool, CallError> {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), self.namespace);
        let found = bounded(api.get_metadata_opt(name)).await?;
        let owners = found.and_then(|found| found.metadata.owner_references).unwrap_or_default();
        Ok(!is_version(&owners, fleet))
    }
}

/// The fields that the last apply of copies' manager set, and nobody took over.
fn fields(meta: &ObjectMeta) -> u64 {
    let entries = meta.managed_fields.as_deref().unwrap_or_default();
    let own = entries.iter().find(|entry| {
        entry.manager.as_deref() == Some(TEMPLATE_FIELD_MANAGER)
            && entry.operation.as_deref() == Some("Apply")
            && entry.subresource.as_deref().unwrap_or_default().is_empty()
    });
    let fields = own.and_then(|entry| entry.fields_v1.as_ref()).map_or(Value::Null, |fields| fields.0.clone());
    let mut hasher = DefaultHasher::new();
    fields.to_string().hash(&mut hasher);
    hasher.finish()
}

/// Has a template go with its fleet, unless it goes with another object.
///
/// # Errors
/// [`CallError`]; a conflict when it changed since it was read.
pub async fn adopt(client: &Client, template: &ObjectMeta, fleet: &str, uid: &str) -> Result<(), CallError> {
    let Some(owners) = owners(template.owner_references.as_deref().unwrap_or_default(), fleet, uid) else {
        return Ok(());
    };
    let (namespace, name) = (template.namespace.as_deref().unwrap_or_default(), template.name.as_deref());
    let api: Api<WorkerResourceTemplate> = Api::namespaced(client.clone(), namespace);
    let patch = json!({"metadata": {"ownerReferences": owners, "resourceVersion": template.resource_version}});
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    bounded(api.patch_metadata(name.unwrap_or_default(), &params, &Patch::Merge(patch))).await.map(|_| ())
}

/// Writes the status of a template. It replaces what this operator wrote before.
///
/// # Errors
/// [`CallError`].
pub async fn write_status(
    client: &Client,
    (namespace, name): (&str, &str),
    status: &WorkerResourceTemplateStatus,
) -> Result<(), CallError> {
    let api: Api<WorkerResourceTemplate> = Api::namespaced(client.clone(), namespace);
    let patch = json!({
        "apiVersion": API_VERSION,
        "kind": "WorkerResourceTemplate",
        "metadata": {"name": name},
        "status": status,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    bounded(api.patch_status(name, &params, &Patch::Apply(&patch))).await.map(|_| ())
}
