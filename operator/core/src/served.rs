//! Whether an API server knows this operator's fields. One that does not drops them from everything that is written.

use std::collections::BTreeMap;

use kube::CustomResourceExt as _;
use serde::Deserialize;

use crate::api::{Connection, WorkerDeployment};

/// The group and version, as the names of schemas begin.
const PREFIX: &str = "io.temporal.v1alpha1";
/// Field that is another schema's, and the same in every version of the kind.
const TEMPLATE: &str = "spec.template";

/// What is read of an OpenAPI document.
#[derive(Debug, Default, Deserialize)]
struct Document {
    #[serde(default)]
    components: Components,
}

#[derive(Debug, Default, Deserialize)]
struct Components {
    #[serde(default)]
    schemas: BTreeMap<String, Node>,
}

/// The names of a schema, without all else that it says.
#[derive(Debug, Default, Deserialize)]
struct Node {
    #[serde(default)]
    properties: BTreeMap<String, Node>,
    #[serde(default)]
    items: Option<Box<Node>>,
}

/// Fields of this operator's kinds that the schemas of an OpenAPI v3 document of the group lack, as `Kind.spec.field`; a kind that
/// is missing is named alone, and of a field that is missing nothing below it.
///
/// # Errors
/// The document is none.
pub fn missing_fields(document: &str) -> Result<Vec<String>, serde_json::Error> {
    let document: Document = serde_json::from_str(document)?;
    let mut missing = Vec::new();
    for (kind, schema) in ours() {
        match document.components.schemas.get(&format!("{PREFIX}.{kind}")) {
            Some(served) => compare(&schema, served, (kind, ""), &mut missing),
            None => missing.push(kind.to_owned()),
        }
    }
    Ok(missing)
}

/// The kinds that the operator can't do without.
fn ours() -> [(&'static str, Node); 2] {
    [("Connection", Connection::crd()), ("WorkerDeployment", WorkerDeployment::crd())].map(|(kind, crd)| {
        let version = crd.spec.versions.into_iter().next();
        let schema = version.and_then(|version| version.schema?.open_api_v3_schema);
        // Of one's own types nothing can fail there, and a test compares them with what is installed.
        let node = schema.and_then(|schema| serde_json::from_value(serde_json::to_value(schema).ok()?).ok());
        (kind, node.unwrap_or_default())
    })
}

fn compare(ours: &Node, served: &Node, (kind, at): (&str, &str), missing: &mut Vec<String>) {
    if at == TEMPLATE {
        return;
    }
    for (name, field) in &ours.properties {
        let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        match served.properties.get(name) {
            Some(served) => compare(field, served, (kind, &path), missing),
            None => missing.push(format!("{kind}.{path}")),
        }
    }
    if let (Some(items), Some(served)) = (&ours.items, &served.items) {
        compare(items, served, (kind, at), missing);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::crds;

    fn document(change: impl Fn(&mut Value)) -> String {
        let schema = |crd: Value| {
            let kind = crd["spec"]["names"]["kind"].as_str()?.to_owned();
            Some((format!("{PREFIX}.{kind}"), crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()))
        };
        let mut schemas: serde_json::Map<String, Value> = crds().into_iter().filter_map(schema).collect();
        // Others are there too, and say what is not looked at.
        schemas.insert(
            "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta".into(),
            json!({"properties": {"a": {"$ref": "b"}}}),
        );
        let mut document = json!({"openapi": "3.0.0", "components": {"schemas": schemas}});
        change(&mut document);
        document.to_string()
    }

    fn fleet(document: &mut Value) -> &mut Value {
        &mut document["components"]["schemas"]["io.temporal.v1alpha1.WorkerDeployment"]["properties"]
    }

    fn remove(from: &mut Value, pointer: &str, field: &str) {
        from.pointer_mut(pointer).and_then(Value::as_object_mut).expect(pointer).remove(field).expect(field);
    }

    #[test]
    fn our_own_kinds_lack_nothing() {
        assert_eq!(missing_fields(&document(|_| {})).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_another_schema_lacks_is_named_down_to_the_entries_of_lists() {
        let lacking = document(|document| {
            let fleet = fleet(document);
            remove(fleet, "/spec/properties", "scaling");
            remove(fleet, "/spec/properties/rollout/properties/steps/items/properties", "gate");
            remove(fleet, "/status/properties", "scaling");
        });
        assert_eq!(
            missing_fields(&lacking).unwrap(),
            [
                "WorkerDeployment.spec.rollout.steps.gate",
                "WorkerDeployment.spec.scaling",
                "WorkerDeployment.status.scaling"
            ]
        );
    }

    #[test]
    fn a_kind_that_is_missing_is_named_and_a_pod_s_fields_are_not_compared() {
        let other = document(|document| {
            remove(fleet(document), "/spec/properties/template/properties/spec/properties", "containers");
            remove(document, "/components/schemas", "io.temporal.v1alpha1.Connection");
        });
        assert_eq!(missing_fields(&other).unwrap(), ["Connection"]);
        assert!(missing_fields("<html>").is_err());
    }
}
