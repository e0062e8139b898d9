//! The CEL rules of the CRDs, evaluated without an API server on the objects that `tests/e2e` applies to a real one.

use std::collections::BTreeSet;

use kube::core::cel::Validator;
use operator_core::api::{
    ClusterConnection, Connection, TemporalConnection, TemporalWorkerDeployment, WorkerDeployment,
    WorkerResourceTemplate, crds,
};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Table {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    rule: String,
    accepted: bool,
    object: Value,
}

const TABLES: [(&str, &str); 6] = [
    ("ClusterConnection", include_str!("../../../tests/e2e/data/cel/cluster_connections.yaml")),
    ("Connection", include_str!("../../../tests/e2e/data/cel/connections.yaml")),
    ("TemporalConnection", include_str!("../../../tests/e2e/data/cel/temporal_connections.yaml")),
    ("TemporalWorkerDeployment", include_str!("../../../tests/e2e/data/cel/temporal_worker_deployments.yaml")),
    ("WorkerDeployment", include_str!("../../../tests/e2e/data/cel/worker_deployments.yaml")),
    ("WorkerResourceTemplate", include_str!("../../../tests/e2e/data/cel/worker_resource_templates.yaml")),
];

fn cases(text: &str) -> Vec<Case> {
    let mut yaml: serde_yaml::Value = serde_yaml::from_str(text).expect("YAML");
    yaml.apply_merge().expect("merge keys");
    let table: Table = serde_yaml::from_value(yaml).expect("a table of cases");
    let named = |(index, mut case): (usize, Case)| {
        if case.object["metadata"].is_null() {
            case.object["metadata"] = serde_json::json!({ "name": format!("case-{index}") });
        }
        case
    };
    table.cases.into_iter().enumerate().map(named).collect()
}

/// Without the rule against creations, which is for a server: here there is no optional value.
fn schema(kind: &str) -> Value {
    let crd = crds().into_iter().find(|crd| crd["spec"]["names"]["kind"] == kind).expect(kind);
    let mut schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    if let Some(rules) = schema["x-kubernetes-validations"].as_array_mut() {
        rules.retain(|rule| rule["optionalOldSelf"] != true);
    }
    schema
}

fn rules(node: &Value, found: &mut BTreeSet<String>) {
    let own = node["x-kubernetes-validations"].as_array().into_iter().flatten();
    found.extend(own.map(|rule| rule["message"].as_str().expect("every rule has a message").to_owned()));
    node["properties"].as_object().into_iter().flatten().for_each(|(_, child)| rules(child, found));
    if node["items"].is_object() {
        rules(&node["items"], found);
    }
}

#[test]
fn every_object_is_taken_or_refused_by_its_rule() {
    for (kind, text) in TABLES {
        let schema = schema(kind);
        for case in cases(text) {
            let errors = match Validator::new().validate(&schema, &case.object, None) {
                Ok(()) => Vec::new(),
                Err(errors) => errors.into_vec().into_iter().map(|error| error.message).collect(),
            };
            match case.accepted {
                true => assert_eq!(errors, Vec::<String>::new(), "{kind}: {}", case.name),
                false => assert!(errors.contains(&case.rule), "{kind}: {}: {errors:?}", case.name),
            }
        }
    }
}

#[test]
fn every_rule_has_a_good_and_a_bad_object() {
    for (kind, text) in TABLES {
        let mut expected = BTreeSet::new();
        rules(&schema(kind), &mut expected);
        for accepted in [true, false] {
            let covered: BTreeSet<String> =
                cases(text).into_iter().filter(|case| case.accepted == accepted).map(|case| case.rule).collect();
            assert_eq!(covered, expected, "{kind}: rules with an object that is accepted: {accepted}");
        }
    }
}

#[test]
fn every_accepted_object_is_read_into_the_types_and_back() {
    for (kind, text) in TABLES {
        for case in cases(text).into_iter().filter(|case| case.accepted) {
            let back = match kind {
                "Connection" => serde_json::from_value::<Connection>(case.object.clone()).map(serde_json::to_value),
                "ClusterConnection" => {
                    serde_json::from_value::<ClusterConnection>(case.object.clone()).map(serde_json::to_value)
                }
                "TemporalConnection" => {
                    serde_json::from_value::<TemporalConnection>(case.object.clone()).map(serde_json::to_value)
                }
                "TemporalWorkerDeployment" => {
                    serde_json::from_value::<TemporalWorkerDeployment>(case.object.clone()).map(serde_json::to_value)
                }
                "WorkerResourceTemplate" => {
                    serde_json::from_value::<WorkerResourceTemplate>(case.object.clone()).map(serde_json::to_value)
                }
                _ => serde_json::from_value::<WorkerDeployment>(case.object.clone()).map(serde_json::to_value),
            };
            let back = back.unwrap_or_else(|error| panic!("{}: {error}", case.name)).expect("JSON");
            assert!(contains(&back, &case.object), "{}: {} became {back}", case.name, case.object);
        }
    }
}

/// Whether `whole` has everything of `part`; defaults may be added.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, value)| whole.get(key).is_some_and(|own| contains(own, value)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(own, value)| contains(own, value))
        }
        _ => whole == part,
    }
}
