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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Value {
        json!({
            "type": "object",
            "properties": {
                "spec": {
                    "type": "object",
                    "default": {"size": 1},
                    "properties": {
                        "size": {"type": "integer", "default": 3},
                        "color": {"type": "string", "default": "red"},
                        "note": {"type": "string"},
                        "maybe": {"type": "string", "nullable": true, "default": "x"},
                        "ports": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "default": {"number": 80},
                                "properties": {
                                    "number": {"type": "integer"},
                                    "protocol": {"type": "string", "default": "TCP"},
                                },
                            },
                        },
                        "labels": {"type": "object", "additionalProperties": {"type": "string", "default": ""}},
                        "input": {"x-kubernetes-preserve-unknown-fields": true},
                    },
                },
            },
        })
    }

    fn stored(spec: Value) -> Value {
        let mut object = json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "n"}, "spec": spec});
        apply(&schema(), &mut object);
        assert_eq!(object["metadata"], json!({"name": "n"}));
        object["spec"].take()
    }

    #[test]
    fn a_default_fills_what_is_absent_and_has_defaults_of_its_own() {
        assert_eq!(stored(Value::Null), json!({"size": 1, "color": "red", "maybe": "x"}));
        assert_eq!(stored(json!({"size": 5}))["size"], 5);
        assert_eq!(stored(json!({"ports": [{}]}))["ports"], json!([{"protocol": "TCP"}]));
    }

    #[test]
    fn a_null_is_replaced_by_a_default_or_dropped_unless_it_may_stand() {
        let spec = stored(json!({"size": null, "note": null, "maybe": null}));
        assert_eq!(spec, json!({"size": 3, "color": "red", "maybe": null}));
        assert_eq!(stored(json!({"ports": [null]}))["ports"], json!([{"number": 80, "protocol": "TCP"}]));
        assert_eq!(stored(json!({"labels": {"a": null}}))["labels"], json!({"a": ""}));
    }

    #[test]
    fn what_the_schema_does_not_know_is_dropped() {
        let spec = stored(json!({"other": 1, "ports": [{"number": 1, "other": 1}], "labels": {"any": "x"}}));
        assert_eq!(spec["ports"], json!([{"number": 1, "protocol": "TCP"}]));
        assert_eq!(spec["labels"], json!({"any": "x"}));
        assert!(spec.get("other").is_none());
    }

    #[test]
    fn what_is_preserved_keeps_its_fields_and_nulls() {
        let input = json!({"a": null, "b": [{"c": 1}]});
        assert_eq!(stored(json!({"input": input}))["input"], input);
        assert_eq!(stored(json!({"input": [{"c": null}]}))["input"], json!([{"c": null}]));
    }
}
