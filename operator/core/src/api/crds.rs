//! The CustomResourceDefinitions, printed from the types.

use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use super::{Connection, WorkerDeployment, template};

/// The CustomResourceDefinition of every kind, as the API server takes it.
#[must_use]
pub fn crds() -> Vec<Value> {
    [Connection::crd(), WorkerDeployment::crd()]
        .into_iter()
        .map(|crd| finish(serde_json::to_value(crd).unwrap_or_default()))
        .collect()
}

/// File name and YAML of every CustomResourceDefinition.
///
/// # Panics
/// Never: a JSON value always has a YAML form.
#[must_use]
pub fn crd_yaml_files() -> Vec<(String, String)> {
    crds().iter().map(|crd| (file_name(crd), serde_yaml::to_string(crd).unwrap_or_default())).collect()
}

fn file_name(crd: &Value) -> String {
    let plural = crd.pointer("/spec/names/plural").and_then(Value::as_str).unwrap_or_default();
    format!("{}_{plural}.yaml", super::GROUP)
}

/// Makes of kube's schema the contract's: nothing nullable, nothing required at the root, the whole pod template.
fn finish(mut crd: Value) -> Value {
    let Some(schema) = crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema") else { return crd };
    strip(schema);
    if let Some(root) = schema.as_object_mut() {
        root.remove("required");
    }
    if let Some(properties) = schema.pointer_mut("/properties").and_then(Value::as_object_mut) {
        properties.insert("apiVersion".into(), json!({ "type": "string" }));
        properties.insert("kind".into(), json!({ "type": "string" }));
        properties.insert("metadata".into(), json!({ "type": "object" }));
    }
    if let Some(slot) = schema.pointer_mut("/properties/spec/properties/template") {
        let description = slot.get("description").cloned().unwrap_or_default();
        *slot = template::schema();
        slot["description"] = description;
    }
    crd
}

/// Takes away what Rust's types say and Kubernetes does not: `nullable`, and formats that are null.
fn strip(schema: &mut Value) {
    let Some(node) = schema.as_object_mut() else { return };
    node.remove("nullable");
    if node.get("format").is_some_and(Value::is_null) {
        node.remove("format");
    }
    for key in ["items", "additionalProperties"] {
        if let Some(child) = node.get_mut(key) {
            strip(child);
        }
    }
    let children = node.get_mut("properties").and_then(Value::as_object_mut).map(Map::values_mut);
    children.into_iter().flatten().for_each(strip);
}
