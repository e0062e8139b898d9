//! What a ScaledObject says, and what of it a fleet can't say.

use serde_json::Value;

use super::super::json::{list, name, text};
use super::workload::{self, Variable};
use super::{Findings, Scaler, Source};

/// Its triggers of type `temporal`.
pub(super) struct Triggers<'a> {
    /// The triggers.
    pub temporal: Vec<&'a Value>,
    /// The container that their variables are read of.
    pub container: Option<&'a Value>,
}

/// The triggers of a source, none of one that KEDA does not scale.
pub(super) fn triggers<'a>(source: &'a Source, found: &mut Findings) -> Triggers<'a> {
    let Scaler::ScaledObject(scaled) = &source.scaler else {
        return Triggers { temporal: Vec::new(), container: workload::worker(&source.deployment) };
    };
    let kind = text(scaled, "/spec/scaleTargetRef/kind").unwrap_or("Deployment");
    if kind != "Deployment" {
        found.wrong.push(format!("ScaledObject {} scales a {kind}: a fleet runs Deployments only.", name(scaled)));
    }
    let all = list(scaled, "/spec/triggers");
    let temporal: Vec<&Value> = all.iter().filter(|trigger| trigger["type"] == "temporal").collect();
    if temporal.is_empty() {
        found.wrong.push(format!("ScaledObject {} has no trigger of type temporal.", name(scaled)));
    }
    for trigger in all {
        other(trigger["type"].as_str().unwrap_or("?"), found);
    }
    for trigger in &temporal {
        note_selection(trigger, found);
    }
    note_object(scaled, found);
    let containers = workload::containers(&source.deployment);
    let named = text(scaled, "/spec/scaleTargetRef/envSourceContainerName");
    let container = named.and_then(|named| containers.iter().find(|container| container["name"] == named));
    Triggers { temporal, container: container.or(containers.first()) }
}

/// Of those of type `cron` the schedule says what becomes of them.
fn other(type_: &str, found: &mut Findings) {
    let note = match type_ {
        "temporal" | "cron" => return,
        "cpu" | "memory" => format!(
            "The {type_} trigger is not taken over: the operator counts the CPU time of tasks among a pod's limits, and no other \
             metric."
        ),
        other => format!(
            "The {other} trigger is not taken over: a fleet is scaled by its Task Queues, schedules and bounds alone."
        ),
    };
    found.notes.push(note);
}

fn note_selection(trigger: &Value, found: &mut Findings) {
    let metadata = &trigger["metadata"];
    let set: Vec<&str> = ["workerDeploymentName", "workerDeploymentBuildId", "buildId", "selectAllActive"]
        .into_iter()
        .filter(|key| metadata[*key].as_str().is_some_and(|value| !value.is_empty() && value != "false"))
        .collect();
    if !set.is_empty() {
        found.notes.push(format!(
            "A trigger selects versions ({}): if these Workers use Worker Versioning, leave spec.versioning out and add \
             spec.rollout and spec.sunset; the operator then runs a Deployment for each version.",
            set.join(", ")
        ));
    }
    if metadata["unsafeSsl"] == "true" {
        found.notes.push(
            "unsafeSsl is not taken over: the server's certificate is verified. Name its authority in the Connection's \
             tls.caCertSecretRef."
                .into(),
        );
    }
    let sizes: Vec<String> = ["targetQueueSize", "activationTargetQueueSize"]
        .into_iter()
        .filter_map(|key| Some(format!("{key} {}", metadata[key].as_str()?)))
        .collect();
    if !sizes.is_empty() {
        found.notes.push(format!(
            "{} of {} has no counterpart: the operator sizes by arrivals, durations and slots, for spec.scaling.targetLatency.",
            sizes.join(" and "),
            metadata["taskQueue"].as_str().unwrap_or("a trigger")
        ));
    }
}

fn note_object(scaled: &Value, found: &mut Findings) {
    let spec = &scaled["spec"];
    if !spec["fallback"].is_null() {
        found.notes.push(
            "fallback is not taken over: while the server can't be read the operator lowers nothing, and raises by what the pods \
             say."
                .into(),
        );
    }
    let advanced = &spec["advanced"];
    if !advanced["horizontalPodAutoscalerConfig"]["behavior"].is_null() {
        found.notes.push(
            "advanced.horizontalPodAutoscalerConfig.behavior is not taken over: spec.scaling.ramp limits the pods that are added or \
             taken within a minute."
                .into(),
        );
    }
    if !advanced["scalingModifiers"].is_null() {
        found.notes.push("advanced.scalingModifiers is not taken over: there are no formulas.".into());
    }
    let paused = |key: &str| scaled["metadata"]["annotations"][key].as_str();
    if let Some(count) = paused("autoscaling.keda.sh/paused-replicas") {
        found.notes.push(format!(
            "It is paused at {count} replicas. A fleet is paused by spec.scaling.pause: All, or held by equal bounds."
        ));
    } else if paused("autoscaling.keda.sh/paused").is_some_and(|value| value != "false") {
        found.notes.push("It is paused. A fleet is paused by spec.scaling.pause: All.".into());
    }
}

/// A parameter of a trigger, which may be that of a variable of the container.
pub(super) enum Parameter {
    /// Neither is said.
    Absent,
    /// This.
    Is(String),
    /// In a variable of this name, whose value is not written out.
    Hidden(String),
}

/// Reads a parameter.
pub(super) fn parameter(trigger: &Value, container: Option<&Value>, key: &str) -> Parameter {
    let metadata = &trigger["metadata"];
    if let Some(value) = metadata[key].as_str().filter(|value| !value.is_empty()) {
        return Parameter::Is(value.to_owned());
    }
    let Some(variable) = metadata[format!("{key}FromEnv")].as_str().filter(|name| !name.is_empty()) else {
        return Parameter::Absent;
    };
    match container.map(|container| workload::variable(container, variable)) {
        Some(Variable::Is(value)) => Parameter::Is(value.to_owned()),
        _ => Parameter::Hidden(variable.to_owned()),
    }
}
