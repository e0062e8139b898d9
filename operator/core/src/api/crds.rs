//! The CustomResourceDefinitions, printed from the types.

use std::collections::BTreeMap;

use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use super::{
    ClusterConnection, Connection, TemporalConnection, TemporalWorkerDeployment, WorkerDeployment,
    WorkerResourceTemplate, template,
};

/// The CustomResourceDefinition of every kind, as the API server takes it.
#[must_use]
pub fn crds() -> Vec<Value> {
    [
        ClusterConnection::crd(),
        Connection::crd(),
        TemporalConnection::crd(),
        TemporalWorkerDeployment::crd(),
        WorkerDeployment::crd(),
        WorkerResourceTemplate::crd(),
    ]
    .into_iter()
    .map(|crd| finish(serde_json::to_value(crd).unwrap_or_default()))
    .collect()
}

/// File name and YAML of every CustomResourceDefinition.
#[must_use]
pub fn crd_yaml_files() -> Vec<(String, String)> {
    crds().iter().map(|crd| (file_name(crd), serde_yaml::to_string(&sorted(crd)).unwrap_or_default())).collect()
}

fn file_name(crd: &Value) -> String {
    let plural = crd.pointer("/spec/names/plural").and_then(Value::as_str).unwrap_or_default();
    format!("{}_{plural}.yaml", super::GROUP)
}

/// Makes of kube's schema the contract's: nothing nullable, nothing required at the root, the whole pod template.
fn finish(mut crd: Value) -> Value {
    if let Some(names) = crd.pointer_mut("/spec/names").and_then(Value::as_object_mut) {
        let kind = names.get("kind").and_then(Value::as_str).unwrap_or_default();
        names.insert("listKind".into(), format!("{kind}List").into());
    }
    let is_resource_template = crd["spec"]["names"]["kind"] == "WorkerResourceTemplate";
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
    // What a WorkerResourceTemplate has there is an object of any kind.
    if !is_resource_template && let Some(slot) = schema.pointer_mut("/properties/spec/properties/template") {
        let description = slot.get("description").cloned().unwrap_or_default();
        *slot = template::schema();
        slot["description"] = description;
    }
    crd
}

/// Takes away what Rust's types say and Kubernetes does not: `nullable`, titles, formats that are null, and limits of
/// whole numbers written with a fraction.
fn strip(schema: &mut Value) {
    let Some(node) = schema.as_object_mut() else { return };
    node.remove("nullable");
    node.remove("title");
    if node.get("format").is_some_and(Value::is_null) {
        node.remove("format");
    }
    for key in ["minimum", "maximum"] {
        if let Some(limit) = node.get(key).and_then(Value::as_f64) {
            node.insert(key.into(), whole(limit));
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(child) = node.get_mut(key) {
            strip(child);
        }
    }
    let children = node.get_mut("properties").and_then(Value::as_object_mut).map(Map::values_mut);
    children.into_iter().flatten().for_each(strip);
}

/// `limit` as an integer where it is one.
#[expect(clippy::cast_possible_truncation, reason = "only whole numbers that a float holds exactly")]
fn whole(limit: f64) -> Value {
    if limit.fract() == 0.0 && limit.abs() < 9_007_199_254_740_992.0 { json!(limit as i64) } else { json!(limit) }
}

/// Sorts the keys of every object. Their order would else depend on a feature of serde_json that any crate of a build
/// may turn on, and printing twice would not give the same file.
pub(crate) fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let ordered: BTreeMap<&String, &Value> = map.iter().collect();
            Value::Object(ordered.into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect())
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}
