//! From a fleet to the Kubernetes objects that run it, as JSON: what the user wrote goes through untouched.

pub mod attach;
pub mod deployment;
pub mod environment;
pub mod runtime;
pub mod sidecar;

use serde_json::{Map, Value};

/// The object at `key`, created empty where it is missing or not an object.
pub(crate) fn object<'a>(parent: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    as_map(as_map(parent).entry(key).or_insert(Value::Null))
}

/// The list at `key`, created empty where it is missing or not a list.
pub(crate) fn list<'a>(parent: &'a mut Map<String, Value>, key: &str) -> &'a mut Vec<Value> {
    let slot = parent.entry(key).or_insert_with(|| Value::Array(Vec::new()));
    if !slot.is_array() {
        *slot = Value::Array(Vec::new());
    }
    match slot {
        Value::Array(items) => items,
        _ => unreachable!("made a list just above"),
    }
}

fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object just above"),
    }
}

/// Puts `entry` at the end of a list of named things, in place of those of the same name. Says whether it replaced one.
pub(crate) fn put_named(items: &mut Vec<Value>, entry: Value) -> bool {
    let before = items.len();
    items.retain(|item| item["name"] != entry["name"]);
    let replaced = items.len() < before;
    items.push(entry);
    replaced
}
