//! The copy of a template for a version.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::template::{METRIC_LABELS, SCALE_TARGET, TRIGGER_KEYS};
use super::{COPY_HASH, TemplateInput, VersionPicture, copy_name, hash};
use crate::api::{API_VERSION, sorted};
use crate::border::{self, Border};
use crate::names;

/// A copy as it is applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Copy {
    /// The object.
    pub object: Value,
    /// Its hash: 16 hexadecimal digits.
    pub hash: String,
}

/// Makes the copy of a template for a version.
#[must_use]
pub fn render(input: &TemplateInput<'_>, version: &VersionPicture) -> Copy {
    let picture = input.picture;
    let mut object = input.template.clone();
    aim(&mut object, &json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": version.child}));
    let labels = labels(&picture.fleet, version);
    if let Some(slot @ Value::Object(_)) = object.pointer_mut("/spec/selector/matchLabels")
        && *slot == json!({})
    {
        *slot = json!(labels);
    }
    let deployment = names::temporal_deployment_name(input.namespace, &picture.fleet);
    let metric_name = format!("{}_{}", input.namespace, picture.fleet);
    select_metrics(&mut object, [&metric_name, &version.build_id, &picture.temporal_namespace]);
    fill_triggers(&mut object, [&deployment, &version.build_id, &picture.temporal_namespace]);
    if let Some(metadata) = map_of(&mut object, "metadata") {
        metadata.insert("name".into(), copy_name(&picture.fleet, input.name, &version.build_id).into());
        if border::stands(Border::TemplateNamespace) || !metadata.contains_key("namespace") {
            metadata.insert("namespace".into(), input.namespace.into());
        }
        metadata.insert("ownerReferences".into(), json!([owner(input)]));
    }
    if let Some(own) = object.get_mut("metadata").and_then(|metadata| map_of(metadata, "labels")) {
        own.extend(labels.into_iter().map(|(key, value)| (key, value.into())));
    }
    let hash = hash(sorted(&object).to_string().as_bytes(), COPY_HASH);
    Copy { object, hash }
}

fn owner(input: &TemplateInput<'_>) -> Value {
    json!({"apiVersion": API_VERSION, "kind": "WorkerResourceTemplate", "name": input.name, "uid": input.uid,
        "controller": true, "blockOwnerDeletion": true})
}

/// Labels by which a version's pods are selected.
fn labels(fleet: &str, version: &VersionPicture) -> BTreeMap<String, String> {
    let mut labels = names::selector_labels(fleet, &version.build_id);
    // With Worker Versioning off there is one Deployment, and it has no such label.
    labels.retain(|_, value| !value.is_empty());
    labels
}

/// Fills in every `scaleTargetRef` that is left empty.
fn aim(value: &mut Value, target: &Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if key == SCALE_TARGET && *value == json!({}) {
                    *value = target.clone();
                } else {
                    aim(value, target);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| aim(value, target)),
        _ => {}
    }
}

/// Adds the labels of the version to every selector of an external metric that has labels, be they none yet.
fn select_metrics(object: &mut Value, values: [&String; 3]) {
    let metrics = object.pointer_mut("/spec/metrics").and_then(Value::as_array_mut);
    for metric in metrics.into_iter().flatten() {
        let selected = metric.pointer_mut("/external/metric/selector/matchLabels").and_then(Value::as_object_mut);
        let Some(selected) = selected else { continue };
        let own = METRIC_LABELS.into_iter().zip(values).filter(|(_, value)| !value.is_empty());
        selected.extend(own.map(|(key, value)| (key.to_owned(), Value::from(value.as_str()))));
    }
}

/// Fills in what triggers of type `temporal` leave empty.
fn fill_triggers(object: &mut Value, values: [&String; 3]) {
    let triggers = object.pointer_mut("/spec/triggers").and_then(Value::as_array_mut);
    for trigger in triggers.into_iter().flatten().filter(|trigger| trigger["type"] == "temporal") {
        let Some(metadata) = trigger.get_mut("metadata").and_then(Value::as_object_mut) else { continue };
        for (key, value) in TRIGGER_KEYS.into_iter().zip(values) {
            if let Some(slot) = metadata.get_mut(key).filter(|slot| *slot == "") {
                *slot = value.as_str().into();
            }
        }
    }
}

/// The object in a field, made where there is none.
fn map_of<'a>(value: &'a mut Value, key: &str) -> Option<&'a mut Map<String, Value>> {
    let slot = value.as_object_mut()?.entry(key).or_insert(Value::Null);
    if !slot.is_object() {
        *slot = json!({});
    }
    slot.as_object_mut()
}
