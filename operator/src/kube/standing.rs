//! Reads an object as it is stored, to compare it with what would be applied.

use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::Value;

use super::client::{CallError, bounded};

/// The object that has the kind, namespace and name of another one; none when there is none.
///
/// # Errors
/// [`CallError`]; not being allowed to read its kind is no error, but none.
pub async fn read(client: &Client, object: &Value) -> Result<Option<Value>, CallError> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let version = text(&object["apiVersion"]);
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &text(&object["kind"])));
    let metadata = &object["metadata"];
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &text(&metadata["namespace"]), &resource);
    match bounded(api.get_opt(&text(&metadata["name"]))).await {
        Err(error) if error.is_forbidden() => Ok(None),
        found => Ok(found?.and_then(|found| serde_json::to_value(found).ok())),
    }
}
