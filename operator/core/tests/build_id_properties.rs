//! Properties of Build IDs and names that hold for all inputs.

use operator_core::build_id::{compute, go_json};
use operator_core::names::{MAX_DEPLOYMENT_NAME, child_deployment_name, deployment_name_label};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// A value as JSON text with the keys of each object in reverse order.
fn reversed(value: &Value) -> String {
    match value {
        Value::Object(object) => {
            let mut fields: Vec<_> =
                object.iter().map(|(key, value)| format!("{}:{}", json!(key), reversed(value))).collect();
            fields.sort_by(|a, b| b.cmp(a));
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(reversed).collect::<Vec<_>>().join(",")),
        value => value.to_string(),
    }
}

/// Adds a field that no version of Kubernetes has to every object that is a struct.
fn with_unknown_fields(value: &Value) -> Value {
    let is_map = |key: &str| matches!(key, "labels" | "annotations" | "limits" | "requests" | "nodeSelector");
    match value {
        Value::Object(object) => {
            let fields = object.iter().map(|(key, value)| {
                let value = if is_map(key) { value.clone() } else { with_unknown_fields(value) };
                (key.clone(), value)
            });
            let mut fields: Map<_, _> = fields.collect();
            fields.insert("x-unknown".into(), json!({"a": [1]}));
            Value::Object(fields)
        }
        Value::Array(items) => items.iter().map(with_unknown_fields).collect(),
        value => value.clone(),
    }
}

fn quantity() -> impl Strategy<Value = String> {
    ("[+-]?", "[0-9]{1,22}", "(\\.[0-9]{0,14})?", "|n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]{1,2}")
        .prop_map(|(sign, whole, fraction, suffix)| [sign, whole, fraction, suffix].concat())
}

fn string_map() -> impl Strategy<Value = Value> {
    prop::collection::btree_map(any::<String>(), any::<String>(), 0..4).prop_map(|map| json!(map))
}

fn container() -> impl Strategy<Value = Value> {
    let env = prop::collection::vec((any::<String>(), any::<String>()), 0..3);
    let limits = prop::collection::btree_map("[a-z]{1,5}", quantity(), 0..4);
    (any::<String>(), any::<String>(), env, limits, any::<Option<bool>>()).prop_map(
        |(name, image, env, limits, tty)| {
            let env: Vec<_> = env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
            json!({"name": name, "image": image, "env": env, "resources": {"limits": limits}, "tty": tty})
        },
    )
}

fn template() -> impl Strategy<Value = Value> {
    (string_map(), string_map(), prop::collection::vec(container(), 0..3), any::<Option<i64>>()).prop_map(
        |(labels, selector, containers, grace)| {
            json!({
                "metadata": {"labels": labels},
                "spec": {"containers": containers, "nodeSelector": selector, "terminationGracePeriodSeconds": grace},
            })
        },
    )
}

fn printed(quantity: &str) -> String {
    let template = json!({"spec": {"overhead": {"cpu": quantity}}});
    let text = go_json(&template).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    value["spec"]["overhead"]["cpu"].as_str().unwrap().to_owned()
}

fn is_dns_label(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let edge = |c: Option<&u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    text.len() <= 63 && text.bytes().all(inner) && edge(text.as_bytes().first()) && edge(text.as_bytes().last())
}

proptest! {
    #[test]
    fn the_order_of_keys_makes_no_difference(template in template()) {
        let other: Value = serde_json::from_str(&reversed(&template)).unwrap();
        prop_assert_eq!(go_json(&template).unwrap(), go_json(&other).unwrap());
    }

    #[test]
    fn unknown_fields_make_no_difference(template in template()) {
        prop_assert_eq!(compute(&template, None).unwrap(), compute(&with_unknown_fields(&template), None).unwrap());
    }

    #[test]
    fn what_is_printed_prints_the_same_again(template in template()) {
        let once = go_json(&template).unwrap();
        prop_assert_eq!(go_json(&serde_json::from_str(&once).unwrap()).unwrap(), once);
    }

    #[test]
    fn a_printed_quantity_is_its_own_canonical_form(quantity in quantity()) {
        let once = printed(&quantity);
        prop_assert_eq!(printed(&once), once);
    }

    #[test]
    fn a_build_id_is_a_label_value(template in template(), custom in any::<Option<String>>()) {
        let build_id = compute(&template, custom.as_deref()).unwrap();
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        prop_assert!(build_id.len() <= 63);
        prop_assert!(build_id.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)), "{}", build_id);
        prop_assert!(edge(build_id.chars().next()) && edge(build_id.chars().last()), "{}", build_id);
    }

    #[test]
    fn a_child_has_a_name_that_leaves_room_for_its_pods(
        name in "[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?",
        build_id in "[a-zA-Z0-9]([a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?",
    ) {
        let child = child_deployment_name(&name, &build_id);
        prop_assert!(is_dns_label(&child) && child.len() <= MAX_DEPLOYMENT_NAME, "{}", child);
        prop_assert!(is_dns_label(&deployment_name_label(&name)), "{}", name);
    }
}
