//! What an API server makes of a custom resource before it stores it: fields that the schema doesn't know are dropped,
//! nulls too, and defaults are filled in.
//!
//! A Build ID is computed from the stored object. With this the same Build ID comes out of a manifest on disk.

use serde_json::{Map, Value};

/// Applies the structural schema of a CRD's version (`openAPIV3Schema`) to an object, as an API server does on writes:
/// unknown fields are pruned, then nulls of fields that are neither nullable nor defaulted, then defaults are applied.
pub fn apply(schema: &Value, object: &mut Value) {
    prune(object, Some(schema), true);
    drop_nulls(object, Some(schema));
    fill(object, schema);
}

/// Fields of every resource, which schemas need not name.
const RESOURCE_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Removes what the schema doesn't name; without a schema, everything in an object.
fn prune(value: &mut Value, schema: Option<&Value>, resource: bool) {
    let preserve = schema.is_some_and(|schema| flag(schema, "x-kubernetes-preserve-unknown-fields"));
    let resource = resource || schema.is_some_and(|schema| flag(schema, "x-kubernetes-embedded-resource"));
    match value {
        Value::Object(object) => object.retain(|key, value| {
            if resource && RESOURCE_FIELDS.contains(&key.as_str()) {
                return true;
            }
            match schema.and_then(|schema| field(schema, key)) {
                Some(field) => {
                    prune(value, field, false);
                    true
                }
                None => preserve,
            }
        }),
        Value::Array(items) if !preserve => {
            let schema = schema.and_then(|schema| schema.get("items"));
            items.iter_mut().for_each(|item| prune(item, schema, false));
        }
        _ => {}
    }
}

/// Removes nulls from fields that can't hold one and have no default to replace it.
fn drop_nulls(value: &mut Value, schema: Option<&Value>) {
    match value {
        Value::Object(object) => object.retain(|key, value| {
            let schema = schema.and_then(|schema| field(schema, key)).flatten();
            if schema.is_some_and(|schema| refuses_null(schema) && default(schema).is_none()) && value.is_null() {
                return false;
            }
            drop_nulls(value, schema);
            true
        }),
        Value::Array(items) => {
            let schema = schema.and_then(|schema| schema.get("items"));
            items.iter_mut().for_each(|item| drop_nulls(item, schema));
        }
        _ => {}
    }
}

/// Fills in defaults, outermost first.
fn fill(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(object) => {
            for (key, schema) in properties(schema).into_iter().flatten() {
                let Some(default) = default(schema) else { continue };
                if object.get(key).is_none_or(|value| value.is_null() && refuses_null(schema)) {
                    object.insert(key.clone(), default.clone());
                }
            }
            for (key, value) in object.iter_mut() {
                if let Some(schema) = field(schema, key).flatten() {
                    fill_item(value, schema);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                items.iter_mut().for_each(|item| fill_item(item, schema));
            }
        }
        _ => {}
    }
}

fn fill_item(value: &mut Value, schema: &Value) {
    if value.is_null()
        && refuses_null(schema)
        && let Some(default) = default(schema)
    {
        *value = default.clone();
    }
    fill(value, schema);
}

fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema.get("properties")?.as_object()
}

/// Whether a schema knows a field, and the schema of that field if it has one.
fn field<'a>(schema: &'a Value, key: &str) -> Option<Option<&'a Value>> {
    if let Some(field) = properties(schema).and_then(|properties| properties.get(key)) {
        return Some(Some(field));
    }
    match schema.get("additionalProperties")? {
        Value::Bool(allowed) => allowed.then_some(None),
        schema => Some(Some(schema)),
    }
}

fn default(schema: &Value) -> Option<&Value> {
    schema.get("default").filter(|default| !default.is_null())
}

fn refuses_null(schema: &Value) -> bool {
    !flag(schema, "nullable")
}

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name).and_then(Value::as_bool).unwrap_or_default()
}
