//! The user's pod template, kept verbatim.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The schema of `spec.template`: the contract's. Its defaults change the stored object and so
/// the build id.
const SCHEMA: &str = include_str!("pod_template_schema.json");

/// A pod template as the user wrote it and the API server stored it.
///
/// It is not read into a typed pod: a field that this program's Kubernetes version does not know must reach the pods,
/// and the build id is computed over the template's own values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PodTemplate(pub Value);

impl PodTemplate {
    /// `metadata.labels`; entries that are not text are left out (the schema refuses them).
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        texts(self.0.pointer("/metadata/labels"))
    }

    /// `metadata.annotations`, as [`Self::labels`].
    pub fn annotations(&self) -> impl Iterator<Item = (&str, &str)> {
        texts(self.0.pointer("/metadata/annotations"))
    }

    /// `spec.containers`, empty when there are none.
    #[must_use]
    pub fn containers(&self) -> &[Value] {
        self.0.pointer("/spec/containers").and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }
}

fn texts(map: Option<&Value>) -> impl Iterator<Item = (&str, &str)> {
    map.and_then(Value::as_object)
        .into_iter()
        .flat_map(Map::iter)
        .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
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
