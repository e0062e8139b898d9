//! The generated CRDs, node by node, against the contract's.

use std::collections::{BTreeMap, BTreeSet};

use operator_core::api::{crd_yaml_files, crds};
use serde_json::{Map, Value, json};

type Nodes = BTreeMap<String, Map<String, Value>>;

/// Kinds of ours, each with the kind of the contract that it is held to. The spec and status of a ClusterConnection are a
/// Connection's.
const KINDS: &[(&str, &str)] = &[
    ("ClusterConnection", "Connection"),
    ("Connection", "Connection"),
    ("TemporalConnection", "TemporalConnection"),
    ("TemporalWorkerDeployment", "TemporalWorkerDeployment"),
    ("WorkerDeployment", "WorkerDeployment"),
    ("WorkerResourceTemplate", "WorkerResourceTemplate"),
];

/// Nodes that are ours, with everything below them.
const ADDED: [&str; 26] = [
    ".spec.allowedNamespaces",
    ".spec.roles",
    ".status.versions[].apiVersion",
    ".status.versions[].kind",
    ".spec.deploymentStrategy",
    ".spec.deletionPolicy",
    ".spec.rollout.paused",
    ".spec.rollout.rollback",
    ".spec.rollout.onGateFailure",
    ".spec.rollout.steps[].gate",
    ".status.targetVersion.testWorkflows[].message",
    ".status.handledCommands",
    ".spec.scaling",
    ".spec.runtime",
    ".spec.sidecar",
    ".spec.versioning",
    ".spec.workerOptions.connectionRef.kind",
    ".spec.tls.caCertSecretRef",
    ".status.scaling",
    ".status.observedGeneration",
    ".status.currentVersion.readyReplicas",
    ".status.currentVersion.replicas",
    ".status.deprecatedVersions[].readyReplicas",
    ".status.deprecatedVersions[].replicas",
    ".status.targetVersion.readyReplicas",
    ".status.targetVersion.replicas",
];

/// The schema as a flat map, a path a node (`.` property, `[]` items, `{}` map values), without descriptions.
fn flatten(path: &str, schema: &Value, nodes: &mut Nodes) {
    let mut node = schema.as_object().expect("a schema is an object").clone();
    node.remove("description");
    for (key, suffix) in [("items", "[]"), ("additionalProperties", "{}")] {
        if let Some(child) = node.remove(key) {
            flatten(&format!("{path}{suffix}"), &child, nodes);
        }
    }
    if let Some(Value::Object(properties)) = node.remove("properties") {
        for (name, child) in properties {
            flatten(&format!("{path}.{name}"), &child, nodes);
        }
    }
    if let Some(required) = node.get_mut("required").and_then(Value::as_array_mut) {
        required.sort_by_key(|name| name.to_string());
    }
    nodes.insert(if path.is_empty() { ".".to_owned() } else { path.to_owned() }, node);
}

fn crd(kind: &str) -> Value {
    crds().into_iter().find(|crd| crd["spec"]["names"]["kind"] == kind).expect(kind)
}

fn ours(kind: &str) -> Nodes {
    let mut nodes = Nodes::new();
    flatten("", &crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &mut nodes);
    nodes
}

fn contracts() -> Map<String, Value> {
    let text = include_str!("data/crd-schema.json");
    let mut whole: Map<String, Value> = serde_json::from_str(text).expect("the contract is JSON");
    match whole.remove("kinds") {
        Some(Value::Object(kinds)) => kinds,
        other => panic!("no kinds: {other:?}"),
    }
}

fn contract(kind: &str) -> Value {
    contracts().remove(kind).expect(kind)
}

fn is_deprecated(kind: &str) -> bool {
    kind.starts_with("Temporal")
}

fn is_added(path: &str) -> bool {
    ADDED
        .iter()
        .any(|added| path.strip_prefix(added).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[', '{'])))
}

/// What a contract's node may have beside the contract: rules of our own, and fewer required fields. Nothing of a deprecated kind.
fn relax(path: &str, contract: &mut Map<String, Value>, ours: &Map<String, Value>) {
    if path == ".spec" && contract.get("required") == Some(&json!(["rollout", "sunset", "template", "workerOptions"])) {
        contract.insert("required".into(), json!(["workerOptions"]));
    }
    if [".", ".spec", ".spec.rollout.steps[]"].contains(&path) {
        let own = ours.get("x-kubernetes-validations").and_then(Value::as_array).cloned().unwrap_or_default();
        let kept = contract.get("x-kubernetes-validations").and_then(Value::as_array).cloned().unwrap_or_default();
        assert!(kept.iter().all(|rule| own.contains(rule)), "{path}: a rule of the contract is missing in {own:?}");
        if !own.is_empty() {
            contract.insert("x-kubernetes-validations".into(), own.into());
        }
    }
}

fn differences(kind: &str, ours: &Nodes, contract: Nodes) -> Vec<String> {
    let may_be_added = |path: &str| is_added(path) && (!is_deprecated(kind) || path.starts_with(".status"));
    let mut found: Vec<String> = ours
        .keys()
        .filter(|path| !contract.contains_key(*path) && !may_be_added(path))
        .map(|p| format!("{p}: ours alone"))
        .collect();
    for (path, mut node) in contract {
        let Some(own) = ours.get(&path) else {
            found.push(format!("{path}: missing"));
            continue;
        };
        if !is_deprecated(kind) {
            relax(&path, &mut node, own);
        }
        if node != *own {
            found.push(format!("{path}: contract {}, ours {}", Value::Object(node), Value::Object(own.clone())));
        }
    }
    found
}

fn contract_nodes(kind: &str) -> Nodes {
    serde_json::from_value(contract(kind)["schema"].clone()).expect("flat nodes")
}

#[test]
fn every_node_of_every_kind_is_the_contracts() {
    for (kind, theirs) in KINDS {
        assert_eq!(differences(kind, &ours(kind), contract_nodes(theirs)), Vec::<String>::new(), "{kind}");
    }
}

#[test]
fn no_kind_is_left_out() {
    let there: BTreeSet<_> = crds().iter().map(|crd| crd["spec"]["names"]["kind"].to_string()).collect();
    let held: BTreeSet<_> = KINDS.iter().map(|(kind, _)| format!("{kind:?}")).collect();
    assert_eq!(there, held);
    let held: BTreeSet<_> = KINDS.iter().map(|(_, theirs)| *theirs).collect();
    assert_eq!(contracts().keys().map(String::as_str).collect::<BTreeSet<_>>(), held);
}

/// Every attribute of every node counts: each that is taken away or changed is a difference.
#[test]
fn a_node_that_is_not_the_contracts_is_found() {
    let relaxed = [".", ".spec", ".spec.rollout.steps[]"];
    for (kind, theirs) in KINDS {
        let (ours, contract) = (ours(kind), contract_nodes(theirs));
        let mut attributes = BTreeSet::new();
        for (path, node) in &contract {
            for (key, value) in node {
                // One of each kind of attribute; where ours may say more, only of a kind where it may not.
                let is_relaxed = relaxed.contains(&path.as_str()) && !is_deprecated(kind);
                if is_relaxed || !attributes.insert(key.clone()) {
                    continue;
                }
                let differs = |changed: Option<Value>| {
                    let mut ours = ours.clone();
                    let node = ours.get_mut(path).expect(path);
                    match changed {
                        Some(value) => _ = node.insert(key.clone(), value),
                        None => _ = node.remove(key),
                    }
                    differences(kind, &ours, contract.clone()).len()
                };
                assert_eq!(differs(Some(value.clone())), 0, "{kind} {path} {key}");
                assert_eq!(differs(Some(json!("other"))), 1, "{kind} {path} {key}");
                assert_eq!(differs(None), 1, "{kind} {path} {key}");
            }
        }
        assert!(attributes.contains("type") && attributes.contains("pattern"), "{kind}: {attributes:?}");
        let without = |path: &str| {
            differences(
                kind,
                &ours.iter().filter(|(own, _)| *own != path).map(|(p, n)| (p.clone(), n.clone())).collect(),
                contract.clone(),
            )
        };
        assert_eq!(without(".status"), [".status: missing"], "{kind}");
    }
}

#[test]
fn names_scope_columns_and_subresources_are_the_contracts() {
    let cluster_names = json!({"kind": "ClusterConnection", "listKind": "ClusterConnectionList",
        "plural": "clusterconnections", "singular": "clusterconnection"});
    for (kind, theirs) in KINDS {
        let (ours, contract) = (crd(kind), contract(theirs));
        let spec = &ours["spec"];
        let is_of_cluster = *kind == "ClusterConnection";
        assert_eq!(spec["group"], "temporal.io");
        assert_eq!(spec["scope"], if is_of_cluster { json!("Cluster") } else { contract["scope"].clone() });
        let names = if is_of_cluster { &cluster_names } else { &contract["names"] };
        for (name, value) in names.as_object().expect("names") {
            assert_eq!(spec["names"].get(name), Some(value), "{kind} {name}");
        }
        assert_eq!(spec["versions"].as_array().map(Vec::len), Some(1));
        let version = &spec["versions"][0];
        for key in ["name", "served", "storage", "subresources", "deprecated", "deprecationWarning"] {
            assert_eq!(version.get(key), contract["version"].get(key), "{kind} {key}");
        }
        let added = ["Ready", "Desired", "Backlog"];
        let columns = version["additionalPrinterColumns"].as_array().expect("columns").iter();
        let kept: Vec<_> =
            columns.filter(|c| !added.contains(&c["name"].as_str().unwrap_or_default())).cloned().collect();
        assert_eq!(Value::from(kept), contract["version"]["additionalPrinterColumns"], "{kind} columns");
    }
}

/// Every list of ours has keys, a limit, and limits on the texts in it: else a rule over it is beyond the cost budget.
#[test]
fn our_own_lists_and_texts_have_limits() {
    let nodes = ours("WorkerDeployment").into_iter().chain(ours("ClusterConnection"));
    for (path, node) in nodes.filter(|(path, _)| is_added(path) && path.starts_with(".spec")) {
        let has = |key: &str| node.contains_key(key);
        match node.get("type").and_then(Value::as_str) {
            Some("array") => assert!(has("maxItems") && has("x-kubernetes-list-type"), "{path}: {node:?}"),
            Some("string") => {
                // The gate of a step is that of the contract, and only asked whether fields of it are there.
                let free = path.contains("ecretKeyRef.") || path.contains(".gate.") || path.ends_with(".env{}");
                assert!(has("maxLength") || has("enum") || free, "{path}: {node:?}");
            }
            _ => {}
        }
    }
}

#[test]
fn nothing_is_nullable_and_every_own_field_is_described() {
    for crd in crds() {
        assert!(!crd.to_string().contains("nullable"));
        let mut undescribed = BTreeSet::new();
        descriptions("", &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &mut undescribed);
        undescribed.retain(|path| is_added(path));
        assert_eq!(undescribed, BTreeSet::new());
    }
}

fn descriptions(path: &str, schema: &Value, undescribed: &mut BTreeSet<String>) {
    for (name, child) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        if child["description"].as_str().is_none_or(str::is_empty) {
            undescribed.insert(path.clone());
        }
        descriptions(&path, child, undescribed);
        descriptions(&format!("{path}[]"), &child["items"], undescribed);
    }
}

/// kubectl writes the whole object as JSON into an annotation, and all annotations together have 256 KiB.
#[test]
fn a_crd_fits_into_the_annotation_of_a_client_side_apply() {
    for crd in crds() {
        let bytes = crd.to_string().len();
        assert!(bytes < 200 * 1024, "{} has {bytes} bytes", crd["metadata"]["name"]);
    }
}

#[test]
fn the_yaml_files_say_the_same_as_the_values() {
    let files = crd_yaml_files();
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    let kinds = [
        "clusterconnections",
        "connections",
        "temporalconnections",
        "temporalworkerdeployments",
        "workerdeployments",
        "workerresourcetemplates",
    ];
    assert_eq!(names, kinds.map(|kind| format!("temporal.io_{kind}.yaml")));
    for ((_, yaml), crd) in files.iter().zip(crds()) {
        assert_eq!(serde_yaml::from_str::<Value>(yaml).expect("YAML"), crd);
    }
}
