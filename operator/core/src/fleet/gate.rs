//! From a gate of the spec to the test Workflow that is run.

use crate::api::{GateInputSource, GateSpec, KeySelector};
use crate::rollout::gate::{Gate, Input, Key};

/// Resolves the gate at `field`. What is wrong is added to `wrong`: field, value and remedy, a sentence each.
pub(super) fn resolve(spec: &GateSpec, field: &str, wrong: &mut Vec<String>) -> Gate {
    if spec.workflow_type.is_empty() {
        wrong.push(format!("{field}.workflowType: is empty; name the Workflow Type that tests a version."));
    }
    let input = match (&spec.input, &spec.input_from) {
        (Some(_), Some(_)) => {
            wrong.push(format!("{field}: has both input and inputFrom; keep the one that is meant."));
            Input::Nothing
        }
        (Some(json), None) => Input::Json(json.clone()),
        (None, Some(source)) => from(source, &format!("{field}.inputFrom"), wrong),
        (None, None) => Input::Nothing,
    };
    Gate { workflow_type: spec.workflow_type.clone(), input }
}

fn from(source: &GateInputSource, field: &str, wrong: &mut Vec<String>) -> Input {
    match (&source.config_map_key_ref, &source.secret_key_ref) {
        (Some(selector), None) => Input::ConfigMap(key(selector, &format!("{field}.configMapKeyRef"), wrong)),
        (None, Some(selector)) => Input::Secret(key(selector, &format!("{field}.secretKeyRef"), wrong)),
        _ => {
            wrong.push(format!("{field}: set exactly one of configMapKeyRef and secretKeyRef."));
            Input::Nothing
        }
    }
}

fn key(selector: &KeySelector, field: &str, wrong: &mut Vec<String>) -> Key {
    for (part, value) in [("name", &selector.name), ("key", &selector.key)] {
        if value.is_empty() {
            wrong.push(format!("{field}.{part}: is empty; name the object and the key that hold the argument."));
        }
    }
    Key { name: selector.name.clone(), key: selector.key.clone(), optional: selector.optional.unwrap_or(false) }
}
