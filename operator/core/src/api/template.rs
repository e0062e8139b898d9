//! The user's pod template, kept verbatim.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// The schema of `spec.template`: the contract's. Its defaults change the stored object and so
/// the build id.
const SCHEMA: &str = include_str!("pod_template_schema.json");

/// A pod template as the user wrote it and the API server stored it.
///
/// It is not read into a typed pod: a field that this program's Kubernetes version does not know must reach the pods,
/// and the build id is computed over the template's own values. It is kept as text: caches hold one for each fleet, and as a tree
/// of maps it takes many times as much.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodTemplate(Box<str>);

impl PodTemplate {
    /// The template itself.
    #[must_use]
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for PodTemplate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(|value| Self(value.to_string().into()))
    }
}

impl Serialize for PodTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value().serialize(serializer)
    }
}

impl JsonSchema for PodTemplate {
    fn schema_name() -> Cow<'static, str> {
        "PodTemplate".into()
    }

    fn inline_schema() -> bool {
        true
    }

    /// An object of any shape; `schema` is put in its place when the CRD is printed, because it is not to be rewritten
    /// by the transformations that Rust types need.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
    }
}

/// The structural schema of a pod template.
#[expect(clippy::expect_used, reason = "the file is part of the program, and a test reads it")]
pub(super) fn schema() -> Value {
    serde_json::from_str(SCHEMA).expect("the schema compiled into the program is JSON")
}
