//! Whether an object stands as it would be applied, so that it need not be.
//!
//! A server-side apply changes an object when it sets a field to another value, or leaves out a field that an earlier apply of
//! the same manager set. Both can be seen on the stored object: it has its values, and in `metadata.managedFields` the names of
//! the fields that each manager set. Where the server writes a value in another way than it was applied (an empty list that it
//! leaves out is seen through, a list that others added to is not), the object is taken to differ: an apply too many changes
//! nothing.

use serde_json::{Map, Value};

use crate::build_id::canonical_quantity;

/// A field that an apply would change.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Its path, such as `spec.template.spec.containers[worker].image`.
    pub path: String,
    /// What is stored; null for nothing.
    pub from: Value,
    /// What would be; null for nothing.
    pub to: Value,
}

/// Whether `manager` applied the object that is stored, and an apply of `wanted` would change nothing.
#[must_use]
pub fn stands(wanted: &Value, stored: &Value, manager: &str) -> bool {
    owned_fields(stored, manager).is_some() && differences(wanted, stored, manager).is_empty()
}

/// What an apply of `wanted` by `manager` would change.
#[must_use]
pub fn differences(wanted: &Value, stored: &Value, manager: &str) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(String::new(), wanted, stored, &mut found);
    if let Some(owned) = owned_fields(stored, manager) {
        leftovers(String::new(), owned, (wanted, stored), &mut found);
    }
    found
}

/// The fields that a manager set by its last apply, in the form of `fieldsV1`.
fn owned_fields<'a>(stored: &'a Value, manager: &str) -> Option<&'a Map<String, Value>> {
    let entries = stored.pointer("/metadata/managedFields")?.as_array()?;
    let own = |entry: &&Value| {
        entry["manager"] == manager
            && entry["operation"] == "Apply"
            && entry["subresource"].as_str().unwrap_or_default().is_empty()
    };
    entries.iter().find(own)?.get("fieldsV1")?.as_object()
}

fn compare(path: String, wanted: &Value, stored: &Value, found: &mut Vec<Difference>) {
    match (wanted, stored) {
        (Value::Object(wanted), Value::Object(stored)) => {
            for (key, value) in wanted {
                compare(join(&path, key), value, stored.get(key).unwrap_or(&Value::Null), found);
            }
        }
        (Value::Array(wanted), Value::Array(stored)) if wanted.len() == stored.len() => {
            for (index, (value, stored)) in wanted.iter().zip(stored).enumerate() {
                compare(element(&path, index, value), value, stored, found);
            }
        }
        (wanted, stored) if same(wanted, stored) || is_quantity(&path) && same_quantity(wanted, stored) => {}
        (wanted, stored) => found.push(Difference { path, from: stored.clone(), to: wanted.clone() }),
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Elements of lists are named where they have a name.
fn element(path: &str, index: usize, value: &Value) -> String {
    match value["name"].as_str() {
        Some(name) => format!("{path}[{name}]"),
        None => format!("{path}[{index}]"),
    }
}

/// The API server leaves out what is empty.
fn same(wanted: &Value, stored: &Value) -> bool {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(_) => false,
    };
    wanted == stored || is_empty(wanted) && is_empty(stored)
}

fn is_quantity(path: &str) -> bool {
    path.contains(".resources.") || path.ends_with(".sizeLimit") || path.ends_with(".divisor")
}

/// It writes quantities its own way.
fn same_quantity(wanted: &Value, stored: &Value) -> bool {
    stored.as_str().is_some_and(|stored| canonical_quantity(&plain(wanted)).as_deref() == Some(stored))
}

/// Fields that the manager has set and would no longer.
fn leftovers(
    path: String,
    owned: &Map<String, Value>,
    (wanted, stored): (&Value, &Value),
    found: &mut Vec<Difference>,
) {
    for (key, below) in owned {
        let (path, wanted, stored) = match key.split_once(':') {
            Some(("f", name)) => (join(&path, name), wanted.get(name), stored.get(name)),
            Some(("k", keys)) => match serde_json::from_str(keys) {
                Ok(Value::Object(keys)) => {
                    let name = keys.values().map(plain).collect::<Vec<_>>().join(",");
                    (format!("{path}[{name}]"), with_keys(wanted, &keys), with_keys(stored, &keys))
                }
                _ => continue,
            },
            Some(("v", value)) => {
                let is = |one: &&Value| Some(*one) == serde_json::from_str(value).ok().as_ref();
                let of = |list: &'_ Value| list.as_array().and_then(|list| list.iter().find(is)).cloned();
                if of(wanted).is_none() {
                    found.push(Difference { path: format!("{path}[{value}]"), from: value.into(), to: Value::Null });
                }
                continue;
            }
            _ => continue,
        };
        match (wanted, below.as_object()) {
            (Some(wanted), Some(below)) => {
                leftovers(path, below, (wanted, stored.unwrap_or(&Value::Null)), found);
            }
            (Some(_), None) => {}
            (None, _) => {
                found.push(Difference { path, from: stored.cloned().unwrap_or_default(), to: Value::Null });
            }
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The element of a list that has these keys. Where a protocol is missing it is TCP.
fn with_keys<'a>(list: &'a Value, keys: &Map<String, Value>) -> Option<&'a Value> {
    let has = |one: &&Value| {
        keys.iter().all(|(key, value)| match one.get(key) {
            Some(own) => own == value,
            None => key == "protocol" && value == "TCP",
        })
    };
    list.as_array()?.iter().find(has)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MANAGER: &str = "operator";

    fn wanted() -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "labels": {"app": "a"}},
            "spec": {"paused": false, "template": {"spec": {"volumes": [], "containers": [
                {"name": "worker", "image": "a:1", "ports": [{"containerPort": 80}], "env": [{"name": "A", "value": "1"}],
                    "resources": {"requests": {"cpu": "0.5"}}}]}}}})
    }

    /// As the API server stores it: with defaults, its own way to write quantities, and what others set.
    fn stored() -> Value {
        let fields = json!({"f:metadata": {"f:labels": {"f:app": {}}}, "f:spec": {"f:template": {"f:spec": {"f:containers": {
            "k:{\"name\":\"worker\"}": {".": {}, "f:name": {}, "f:image": {},
                "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
                "f:env": {"k:{\"name\":\"A\"}": {".": {}, "f:name": {}, "f:value": {}}},
                "f:resources": {"f:requests": {"f:cpu": {}}}}}}}}});
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "a", "labels": {"app": "a", "other": "b"}, "managedFields": [
                {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
                {"manager": MANAGER, "operation": "Apply", "fieldsV1": fields}]},
            "spec": {"replicas": 3, "template": {"spec": {"restartPolicy": "Always", "containers": [
                {"name": "worker", "image": "a:1", "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "env": [{"name": "A", "value": "1"}], "resources": {"requests": {"cpu": "500m"}}}]}}}})
    }

    fn paths(wanted: &Value, stored: &Value) -> Vec<String> {
        differences(wanted, stored, MANAGER).into_iter().map(|one| one.path).collect()
    }

    #[test]
    fn what_was_applied_stands_with_the_servers_defaults_and_what_others_added() {
        assert_eq!(paths(&wanted(), &stored()), Vec::<String>::new());
        assert!(stands(&wanted(), &stored(), MANAGER));
        assert!(!stands(&wanted(), &stored(), "somebody else"), "they never applied it");
    }

    #[test]
    fn a_value_that_somebody_changed_or_took_away_does_not_stand() {
        let mut changed = stored();
        changed["spec"]["template"]["spec"]["containers"][0]["image"] = json!("b:2");
        assert_eq!(paths(&wanted(), &changed), ["spec.template.spec.containers[worker].image"]);
        let mut taken = stored();
        taken["spec"]["template"]["spec"]["containers"][0]["env"] = json!([]);
        assert_eq!(paths(&wanted(), &taken), ["spec.template.spec.containers[worker].env"]);
    }

    #[test]
    fn a_field_that_an_earlier_apply_set_and_this_one_would_not_is_a_difference() {
        let mut less = wanted();
        let worker = less["spec"]["template"]["spec"]["containers"][0].as_object_mut().unwrap();
        worker.remove("resources");
        worker.insert("env".into(), json!([{"name": "B", "value": "1"}]));
        let paths = paths(&less, &stored());
        assert!(paths.contains(&"spec.template.spec.containers[worker].resources".to_owned()), "{paths:?}");
        assert!(paths.contains(&"spec.template.spec.containers[worker].env[A]".to_owned()), "{paths:?}");
    }

    #[test]
    fn a_port_that_is_gone_is_a_difference() {
        let mut less = wanted();
        less["spec"]["template"]["spec"]["containers"][0]["ports"] = json!([{"containerPort": 81}]);
        let paths = paths(&less, &stored());
        assert!(paths.iter().any(|path| path.ends_with("ports[80,TCP]")), "{paths:?}");
    }
}
