//! What tenant B tries, as data: ways to a server, a Connection or a Secret of A here, ways to A's objects in `objects`.

use anyhow::Result;
use operator_core::border::Border;
use serde_json::{Value, json};

use super::objects;
use super::world::{A, B, COMMON, OF_A, OF_B, World, fleet};

/// One attempt.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The border that it is to cross.
    pub way: Border,
    /// What is tried, in words of its own.
    pub what: String,
    /// Objects of B, and ClusterConnections that an administrator made; applied in turn. A text `$owner` in one becomes the UID of
    /// the one before.
    pub objects: Vec<Value>,
    /// What becomes of it.
    pub expected: Expected,
}

/// What becomes of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The API server refuses the last object.
    Denied,
    /// The fleet can't run, for this reason.
    Blocked(String, &'static str),
    /// The template is refused, for this reason.
    Refused(String, &'static str),
    /// The fleet works: with what is its own.
    Works(String),
    /// The fleet's gate has no argument, so that its Workflow is not started. The fleet has a Worker.
    Ungated(String),
    /// Nothing: nobody takes notice of it.
    Nothing,
    /// The push endpoint answers with this status.
    Answered(Push, u16),
}

/// A call of the push endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// Method of HTTP.
    pub method: &'static str,
    /// Path.
    pub path: String,
    /// The token.
    pub token: String,
}

/// All of them.
pub async fn all(world: &World) -> Result<Vec<Attempt>> {
    let mut all = connections();
    all.extend(cluster_connections(world));
    all.extend(labels_of_namespaces(world));
    all.extend(secrets(world));
    all.extend(paths(world));
    all.extend(objects::gates());
    all.extend(channels());
    all.extend(worker_deployments());
    all.extend(objects::holds());
    all.extend(objects::deployments(world).await?);
    all.extend(objects::pods(world).await?);
    all.extend(objects::old_kinds());
    all.extend(objects::successors(world).await?);
    all.extend(objects::templates_for_fleets());
    all.extend(objects::templates_elsewhere());
    all.extend(objects::pushes(world).await?);
    Ok(all)
}

pub fn blocked(way: Border, what: String, name: &str, objects: Vec<Value>, reason: &'static str) -> Attempt {
    Attempt { way, what, objects, expected: Expected::Blocked(name.to_owned(), reason) }
}

/// A's Connections by name.
fn connections() -> Vec<Attempt> {
    let of = |number: usize, connection: Value| {
        let name = format!("by-name-{number}");
        (name.clone(), format!("connectionRef {connection}"), fleet(&name, B, &connection))
    };
    let absent = [
        json!({"name": "private"}),
        json!({"name": "second"}),
        json!({"kind": "Connection", "name": "private"}),
        json!({"kind": "ClusterConnection", "name": "private"}),
    ];
    let malformed =
        ["tenant-a/private", "../tenant-a/private", "tenant-a.private", "private?x", "private@tenant-a", "PRIVATE"];
    let mut attempts: Vec<_> = absent
        .into_iter()
        .enumerate()
        .map(|(number, connection)| {
            let (name, what, fleet) = of(number, connection);
            blocked(Border::Connection, what, &name, vec![fleet], "ConnectionNotFound")
        })
        .collect();
    attempts.extend(malformed.into_iter().enumerate().map(|(number, name)| {
        let (_, what, fleet) = of(10 + number, json!({"name": name}));
        Attempt { way: Border::Connection, what, objects: vec![fleet], expected: Expected::Denied }
    }));
    attempts
}

/// ClusterConnections that are not for B.
fn cluster_connections(world: &World) -> Vec<Attempt> {
    let requires = |operator: &str, values: &[&str]| {
        let mut requirement = json!({"key": "team", "operator": operator});
        if !values.is_empty() {
            requirement["values"] = json!(values);
        }
        json!({"selector": {"matchExpressions": [requirement]}})
    };
    let metadata = "kubernetes.io/metadata.name";
    let allowed = [
        json!({}),
        json!({"names": []}),
        json!({"names": [A]}),
        json!({"names": ["tenant", "tenant-bb", "b"]}),
        json!({"selector": {"matchLabels": {metadata: A}}}),
        json!({"names": [A], "selector": {"matchLabels": {metadata: "tenant"}}}),
        json!({"selector": {"matchExpressions": [{"key": metadata, "operator": "NotIn", "values": [B]}]}}),
        json!({"selector": {"matchExpressions": [{"key": metadata, "operator": "DoesNotExist"}]}}),
        requires("In", &["b", "c"]),
        requires("Exists", &[]),
        json!({"selector": {"matchLabels": {"team": "", metadata: B}}}),
        json!({"names": [A], "selector": {"matchLabels": {"team": "b"}}}),
    ];
    let attempt = |(number, allowed): (usize, &Value)| {
        let name = format!("closed-{number}");
        let connection = world.cluster_connection(&name, OF_A, "credentials", allowed);
        let reference = json!({"kind": "ClusterConnection", "name": name});
        let objects = vec![connection, fleet(&name, B, &reference)];
        blocked(
            Border::ClusterConnection,
            format!("allowedNamespaces {allowed}"),
            &name,
            objects,
            "ConnectionNotAllowed",
        )
    };
    allowed.iter().enumerate().map(attempt).collect()
}

/// A's labels: those of its namespace were read a moment ago.
fn labels_of_namespaces(world: &World) -> Vec<Attempt> {
    let team = json!({"team": "a"});
    let by_label = json!({"kind": "ClusterConnection", "name": "by-label"});
    let plain = |name: &str| fleet(name, B, &by_label);
    let mut labelled = plain("label-of-fleet");
    labelled["metadata"]["labels"] = team.clone();
    let mut annotated = plain("label-as-annotation");
    annotated["metadata"]["annotations"] = team.clone();
    let mut pods = plain("label-of-pods");
    pods["spec"]["template"]["metadata"]["labels"] = team;
    let mut attempts: Vec<_> = [plain("label-of-nobody"), labelled, annotated, pods]
        .into_iter()
        .map(|fleet| {
            let name = fleet["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            blocked(Border::NamespaceLabels, name.clone(), &name, vec![fleet], "ConnectionNotAllowed")
        })
        .collect();
    for (number, requirement) in
        [json!({"key": "team", "operator": "In", "values": ["a"]}), json!({"key": "team", "operator": "Exists"})]
            .into_iter()
            .enumerate()
    {
        let name = format!("label-required-{number}");
        let allowed = json!({"selector": {"matchExpressions": [requirement]}});
        let connection = world.cluster_connection(&name, OF_A, "credentials", &allowed);
        let fleet = fleet(&name, B, &json!({"kind": "ClusterConnection", "name": name}));
        let what = format!("selected by {requirement}");
        attempts.push(blocked(Border::NamespaceLabels, what, &name, vec![connection, fleet], "ConnectionNotAllowed"));
    }
    attempts
}

/// A's Secrets by name: one that nobody read, one that was read a moment ago, and the operator's own.
fn secrets(world: &World) -> Vec<Attempt> {
    let key = |secret: &str| world.connection_spec(OF_B, secret);
    let with = |field: &str, secret: &str| {
        let mut spec = key("credentials");
        spec.as_object_mut().map(|spec| spec.remove("apiKeySecretRef"));
        spec[field] = json!({"name": secret});
        spec
    };
    let authority = |secret: &str| {
        let mut spec = key("credentials");
        spec["tls"]["caCertSecretRef"]["name"] = json!(secret);
        spec
    };
    let specs = [
        (Border::SecretNamespace, "an API key", key("only-a")),
        (Border::SecretNamespace, "a certificate", with("mutualTLSSecretRef", "only-a")),
        (Border::SecretNamespace, "an authority", authority("only-a")),
        (Border::SecretNamespace, "the key of orders", key("temporal-worker-operator-order-key")),
        (Border::SecretNamespace, "the key of push tokens", key("temporal-worker-operator-push")),
        (Border::SecretCache, "an API key that was just read", key("second")),
        (Border::SecretCache, "a certificate that was just read", with("mutualTLSSecretRef", "second")),
        (Border::SecretCache, "an authority that was just read", authority("second")),
    ];
    let mut attempts = Vec::new();
    for (number, (way, what, spec)) in specs.into_iter().enumerate() {
        for kind in ["Connection", "ClusterConnection"] {
            let name = format!("secret-{}-{number}", kind.to_ascii_lowercase());
            attempts.push(by_secret((way, &format!("{what}, by a {kind}")), &name, (kind, &spec)));
        }
    }
    attempts
}

/// A fleet on a Connection or ClusterConnection that names a Secret which is not B's.
fn by_secret((way, what): (Border, &str), name: &str, (kind, spec): (&str, &Value)) -> Attempt {
    let connection =
        json!({"apiVersion": "temporal.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    let fleet = fleet(name, B, &json!({"kind": kind, "name": name}));
    blocked(way, what.to_owned(), name, vec![connection, fleet], "AuthSecretInvalid")
}

/// Names that are paths to A's Secret.
fn paths(world: &World) -> Vec<Attempt> {
    let paths = [
        "../../tenant-a/secrets/only-a",
        "../../../namespaces/tenant-a/secrets/only-a",
        "./../../tenant-a/secrets/only-a",
        "x/../../../tenant-a/secrets/only-a",
        "..//../tenant-a/secrets/only-a",
        "..%2f..%2ftenant-a%2fsecrets%2fonly-a",
        "%2e%2e/%2e%2e/tenant-a/secrets/only-a",
        "tenant-a/only-a",
        "tenant-a.only-a/../../../tenant-a/secrets/only-a?",
        "../../tenant-a/secrets/only-a#",
        "?fieldSelector=metadata.name=only-a",
        "../../../../../api/v1/namespaces/tenant-a/secrets/only-a",
    ];
    let mut attempts = Vec::new();
    for (number, path) in paths.into_iter().enumerate() {
        for kind in ["Connection", "ClusterConnection"] {
            let name = format!("path-{}-{number}", kind.to_ascii_lowercase());
            let spec = world.connection_spec(OF_B, path);
            attempts.push(by_secret((Border::ObjectName, &format!("{path}, by a {kind}")), &name, (kind, &spec)));
        }
    }
    attempts
}

/// A's channel to a server that both use by one ClusterConnection, with Secrets of one name.
fn channels() -> Vec<Attempt> {
    let both = json!({"kind": "ClusterConnection", "name": "both"});
    let same = fleet("billing", B, &both);
    let other = fleet("shared-other", B, &both);
    let mut scaled = fleet("shared-scaled", B, &both);
    scaled["spec"]["scaling"] = json!({"taskQueues": [{"name": "queue-of-b", "types": ["Activity"]}]});
    let mut plain = scaled.clone();
    plain["metadata"]["name"] = json!("shared-plain");
    plain["spec"]["versioning"] = json!("Disabled");
    let attempt = |fleet: Value| {
        let name = fleet["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        Attempt { way: Border::Channel, what: name.clone(), objects: vec![fleet], expected: Expected::Works(name) }
    };
    [same, other, plain, scaled].into_iter().map(attempt).collect()
}

/// A's Worker Deployments, by fleets of the same names in one Temporal namespace.
fn worker_deployments() -> Vec<Attempt> {
    let annotations = [
        json!({}),
        json!({"temporal.io/take-over": "temporal-worker-operator"}),
        json!({"temporal.io/take-over": "played-worker"}),
        json!({"temporal.io/promote": "v1.2.3-45d8@1"}),
        json!({"temporal.io/push-token-serial": "7"}),
    ];
    let attempt = |(name, annotations): (&str, Value)| {
        let mut fleet = fleet(name, "default", &json!({"name": "temporal"}));
        let what = format!("{name} with {annotations}");
        fleet["metadata"]["annotations"] = annotations;
        let expected = Expected::Works(name.to_owned());
        Attempt { way: Border::WorkerDeployment, what, objects: vec![fleet], expected }
    };
    COMMON.into_iter().zip(annotations).map(attempt).collect()
}
