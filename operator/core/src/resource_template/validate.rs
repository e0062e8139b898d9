//! What a template must be. The chart's policy refuses most of it before it is stored; this is for what was stored without it, and
//! for what a policy can't say.

use serde_json::Value;

use super::template::{AllowedKinds, METRIC_LABELS, SCALE_TARGET, TRIGGER_KEYS, text};
use crate::border::{self, Border};

/// Everything that is wrong with a template: field, value and remedy, a sentence each.
#[must_use]
pub fn validate(template: &Value, allowed: &AllowedKinds) -> Vec<String> {
    let mut wrong = Vec::new();
    identity(template, allowed, &mut wrong);
    if template.pointer("/spec/minReplicas").and_then(Value::as_f64) == Some(0.0) {
        wrong.push(
            "spec.template.spec.minReplicas is 0: an autoscaler that sees no backlog would keep a version at zero for ever; \
             set 1 or more, or use spec.scaling of the WorkerDeployment, which scales to zero."
                .to_owned(),
        );
    }
    scale_targets("spec.template", template, &mut wrong);
    selector(template, &mut wrong);
    metrics(template, &mut wrong);
    triggers(template, &mut wrong);
    wrong
}

fn identity(template: &Value, allowed: &AllowedKinds, wrong: &mut Vec<String>) {
    for field in ["apiVersion", "kind"] {
        if text(template, &format!("/{field}")).is_empty() {
            wrong.push(format!("spec.template.{field} is missing: set it."));
        }
    }
    let fields = ["name", "namespace", "generateName"];
    for field in fields.iter().filter(|field| **field != "namespace" || border::stands(Border::TemplateNamespace)) {
        if template.pointer(&format!("/metadata/{field}")).is_some_and(|value| value != "") {
            wrong.push(format!(
                "spec.template.metadata.{field} is set: remove it, each copy gets a name of its own in the template's namespace."
            ));
        }
    }
    let kind = text(template, "/kind");
    if !kind.is_empty() && !allowed.allow(kind) {
        wrong.push(format!(
            "spec.template.kind {kind:?} is not allowed: add it to workerResourceTemplate.allowedResources of the operator's chart."
        ));
    }
}

/// What is scaled is the version that the copy is for.
fn scale_targets(path: &str, value: &Value, wrong: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = format!("{path}.{key}");
                if key == SCALE_TARGET && !is_empty(value) {
                    wrong.push(format!(
                        "{path} names something: set {{}}, the operator fills in the version's Deployment."
                    ));
                } else {
                    scale_targets(&path, value, wrong);
                }
            }
        }
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(index, value)| scale_targets(&format!("{path}[{index}]"), value, wrong));
        }
        _ => {}
    }
}

fn selector(template: &Value, wrong: &mut Vec<String>) {
    if template.pointer("/spec/selector/matchLabels").is_some_and(|labels| !is_empty(labels)) {
        wrong.push(
            "spec.template.spec.selector.matchLabels has labels: set {}, the operator fills in those of the version's pods."
                .to_owned(),
        );
    }
}

fn metrics(template: &Value, wrong: &mut Vec<String>) {
    for (index, metric) in list(template, "/spec/metrics").iter().enumerate() {
        let labels = metric.pointer("/external/metric/selector/matchLabels");
        for key in METRIC_LABELS.iter().filter(|key| labels.is_some_and(|labels| labels.get(**key).is_some())) {
            wrong.push(format!(
                "spec.template.spec.metrics[{index}].external.metric.selector.matchLabels has {key}: remove it, the operator adds it."
            ));
        }
    }
}

fn triggers(template: &Value, wrong: &mut Vec<String>) {
    for (index, trigger) in list(template, "/spec/triggers").iter().enumerate() {
        let has = |key: &&&str| trigger["metadata"].get(**key).is_some_and(|value| value != "");
        for key in TRIGGER_KEYS.iter().filter(|_| trigger["type"] == "temporal").filter(has) {
            wrong.push(format!(
                "spec.template.spec.triggers[{index}].metadata.{key} is set: set \"\", the operator fills it in."
            ));
        }
    }
}

pub(super) fn list<'a>(template: &'a Value, pointer: &str) -> &'a [Value] {
    template.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Absent, or an object without fields: what is left to the operator.
fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty)
}
