//! `ClusterConnection`: a Connection that fleets of several namespaces share.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::connection::{ConnectionSpec, ConnectionStatus};

/// How Workers of several namespaces, and the operator, reach a Temporal server.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "temporal.io",
    version = "v1alpha1",
    kind = "ClusterConnection",
    plural = "clusterconnections",
    status = "ConnectionStatus",
    derive = "PartialEq",
    doc = "A Connection that fleets of several namespaces share. The Secrets that it names are those of each fleet's own namespace.",
    printcolumn(
        name = "Host",
        type_ = "string",
        json_path = ".spec.hostPort",
        description = "Temporal server endpoint"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Age"),
    validation = Rule::new("has(self.spec)").message("spec is required")
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterConnectionSpec {
    /// All that a Connection says.
    #[serde(flatten)]
    pub connection: ConnectionSpec,
    /// Namespaces whose fleets may use it: those that are named or selected; absent: all, empty: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<AllowedNamespaces>,
}

/// Namespaces, by name or label; those of both.
// Atomic: a server-side apply that takes the last one away would else remove all of it, and so allow every namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct AllowedNamespaces {
    /// Namespaces by their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 512),
        inner(length(max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub names: Vec<String>,
    /// Namespaces by their labels; an empty one selects all. A change of labels counts within a minute or two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<NamespaceSelector>,
}

/// Labels that a namespace must have, all of them.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.matchLabels) || self.matchLabels.all(key, size(key) <= 317)")
        .message("keys of matchLabels can have at most 317 characters")
)]
pub struct NamespaceSelector {
    /// Labels with their values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels")]
    pub match_labels: BTreeMap<String, String>,
    /// What else must hold of labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub match_expressions: Vec<LabelRequirement>,
}

/// What must hold of a label.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new(
        "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)"
    )
    .message("values are required for In and NotIn, and must not be set for Exists and DoesNotExist")
)]
pub struct LabelRequirement {
    /// Key of the label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// How its value relates to `values`.
    pub operator: LabelOperator,
    /// Values to compare with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)), extend("x-kubernetes-list-type" = "atomic"))]
    pub values: Vec<String>,
}

/// How the value of a label relates to those of a [`LabelRequirement`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LabelOperator {
    /// It is one of them.
    #[default]
    In,
    /// It is none of them, or the label is absent.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

/// Whether the fleets of a namespace may use a ClusterConnection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance<'a> {
    /// They may.
    Yes,
    /// They may not.
    No,
    /// If the labels of their namespace match.
    ByLabels(&'a NamespaceSelector),
}

/// Values that a label can have. What its key can be only a rule may say.
fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": { "type": "string", "maxLength": 63 },
    })
}

impl ClusterConnectionSpec {
    /// Whether the fleets of a namespace may use it.
    #[must_use]
    pub fn allowance(&self, namespace: &str) -> Allowance<'_> {
        let Some(allowed) = &self.allowed_namespaces else { return Allowance::Yes };
        match &allowed.selector {
            _ if allowed.names.iter().any(|name| name == namespace) => Allowance::Yes,
            Some(selector) => Allowance::ByLabels(selector),
            None => Allowance::No,
        }
    }
}

impl NamespaceSelector {
    /// Whether it selects a namespace with these labels.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.holds(labels.get(&requirement.key)))
    }
}

impl LabelRequirement {
    fn holds(&self, value: Option<&String>) -> bool {
        let is_one = value.is_some_and(|value| self.values.contains(value));
        match self.operator {
            LabelOperator::In => is_one,
            LabelOperator::NotIn => !is_one,
            LabelOperator::Exists => value.is_some(),
            LabelOperator::DoesNotExist => value.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn allows(allowed: Value, namespace: &str, labels: Value) -> bool {
        let spec = json!({"hostPort": "temporal:7233", "allowedNamespaces": allowed});
        let spec: ClusterConnectionSpec = serde_json::from_value(spec).unwrap();
        match spec.allowance(namespace) {
            Allowance::Yes => true,
            Allowance::No => false,
            Allowance::ByLabels(selector) => selector.matches(&serde_json::from_value(labels).unwrap()),
        }
    }

    #[test]
    fn a_namespace_is_allowed_by_name_or_label_or_where_nothing_is_said() {
        let team = json!({"selector": {"matchLabels": {"team": "a"}}});
        let both = json!({"names": ["b"], "selector": {"matchLabels": {"team": "a"}}});
        for (allowed, namespace, labels, expected) in [
            (json!(null), "a", json!({}), true),
            (json!({}), "a", json!({}), false),
            (json!({"names": []}), "a", json!({}), false),
            (json!({"names": ["a", "b"]}), "b", json!({}), true),
            (json!({"names": ["a", "b"]}), "c", json!({}), false),
            (json!({"names": ["a"]}), "ab", json!({}), false),
            (team.clone(), "x", json!({"team": "a", "more": "1"}), true),
            (team.clone(), "x", json!({"team": "b"}), false),
            (team, "team", json!({}), false),
            (both.clone(), "b", json!({}), true),
            (both.clone(), "x", json!({"team": "a"}), true),
            (both, "x", json!({"team": "b"}), false),
            (json!({"selector": {}}), "x", json!({}), true),
        ] {
            assert_eq!(allows(allowed.clone(), namespace, labels.clone()), expected, "{allowed} {namespace} {labels}");
        }
    }

    #[test]
    fn every_expression_must_hold() {
        let of = |operator: &str, values: Value| json!({"key": "tier", "operator": operator, "values": values});
        for (expressions, labels, expected) in [
            (vec![of("In", json!(["gold", "silver"]))], json!({"tier": "gold"}), true),
            (vec![of("In", json!(["gold"]))], json!({"tier": "tin"}), false),
            (vec![of("In", json!(["gold"]))], json!({}), false),
            (vec![of("NotIn", json!(["gold"]))], json!({"tier": "tin"}), true),
            (vec![of("NotIn", json!(["gold"]))], json!({}), true),
            (vec![of("NotIn", json!(["gold"]))], json!({"tier": "gold"}), false),
            (vec![of("Exists", json!([]))], json!({"tier": ""}), true),
            (vec![of("Exists", json!([]))], json!({}), false),
            (vec![of("DoesNotExist", json!([]))], json!({}), true),
            (vec![of("DoesNotExist", json!([]))], json!({"tier": "gold"}), false),
            (vec![of("Exists", json!([])), of("NotIn", json!(["gold"]))], json!({"tier": "gold"}), false),
            (vec![of("Exists", json!([])), of("NotIn", json!(["gold"]))], json!({"tier": "tin"}), true),
        ] {
            let allowed = json!({"selector": {"matchExpressions": expressions}});
            assert_eq!(allows(allowed.clone(), "x", labels.clone()), expected, "{allowed} {labels}");
        }
    }
}
