//! How many pods the fleet may have.

use serde_json::{Value, json};

use super::super::json::{annotation, list, name, number, text};
use super::{Findings, Scaler, Source, cron, workload};
use crate::api::ScalingTaskQueue;

/// KEDA's default of `maxReplicaCount`.
const KEDA_MAX: i64 = 100;
/// KEDA's default of `cooldownPeriod`, in seconds.
const KEDA_COOLDOWN: i64 = 300;

/// Who decides on the number of pods.
pub(super) enum Scaling {
    /// The operator, by `spec.scaling`.
    Operator(Value),
    /// The manifest, by `spec.replicas`.
    Fixed(i64),
}

/// The bounds that hold now, with the Task Queues.
pub(super) fn scaling(source: &Source, queues: &[ScalingTaskQueue], found: &mut Findings) -> Scaling {
    let now = number(&source.deployment, "/spec/replicas").unwrap_or(1);
    let (min, max) = match &source.scaler {
        Scaler::ScaledObject(scaled) => keda_bounds(scaled, found),
        Scaler::Autoscaler(autoscaler) => autoscaler_bounds(autoscaler, found),
        Scaler::Nobody if queues.is_empty() => {
            found.notes.push(format!(
                "The number of pods stays {now}. To have the operator scale them, name their Task Queues with --task-queue."
            ));
            return Scaling::Fixed(now);
        }
        Scaler::Nobody => {
            found.notes.push(format!(
                "Nobody scales the Deployment, so that both bounds are its {now} replicas: set minReplicas and maxReplicas as you \
                 want them."
            ));
            (now, now)
        }
    };
    if queues.is_empty() {
        found.wrong.push(
            "No Task Queue is known: name those that these Workers poll with --task-queue NAME, or NAME=Workflow,Activity; it may be \
             said more than once."
                .into(),
        );
    }
    let mut scaling = json!({"minReplicas": min, "maxReplicas": max.max(1), "taskQueues": queues});
    let Scaler::ScaledObject(scaled) = &source.scaler else { return Scaling::Operator(scaling) };
    let schedule = cron::schedule(scaled, max, found);
    if !schedule.is_empty() {
        scaling["schedule"] = schedule.into();
    }
    if min == 0 {
        let cooldown = number(scaled, "/spec/cooldownPeriod").unwrap_or(KEDA_COOLDOWN);
        if cooldown > 0 {
            scaling["idleWindow"] = format!("{cooldown}s").into();
        }
    }
    Scaling::Operator(scaling)
}

fn keda_bounds(scaled: &Value, found: &mut Findings) -> (i64, i64) {
    let min = number(scaled, "/spec/minReplicaCount").unwrap_or(0);
    let max = number(scaled, "/spec/maxReplicaCount").unwrap_or(KEDA_MAX);
    match number(scaled, "/spec/idleReplicaCount") {
        Some(idle) if idle < min => {
            found.notes.push(format!(
                "idleReplicaCount {idle} becomes minReplicas. That at least {min} pods run while there is work is not taken over: \
                 the number follows the work."
            ));
            (idle, max)
        }
        _ => (min, max),
    }
}

fn autoscaler_bounds(autoscaler: &Value, found: &mut Findings) -> (i64, i64) {
    let metrics: Vec<String> = list(autoscaler, "/spec/metrics").iter().map(metric).collect();
    if !metrics.is_empty() {
        found.notes.push(format!(
            "The metrics of HorizontalPodAutoscaler {} ({}) are not taken over: the operator sizes by the Task Queues and by what \
             the pods say of their tasks.",
            name(autoscaler),
            metrics.join(", ")
        ));
    }
    if !autoscaler["spec"]["behavior"].is_null() {
        found.notes.push(
            "Its behavior is not taken over: spec.scaling.ramp limits the pods that are added or taken within a minute.".into(),
        );
    }
    let max = number(autoscaler, "/spec/maxReplicas").unwrap_or(1);
    (number(autoscaler, "/spec/minReplicas").unwrap_or(1), max)
}

fn metric(metric: &Value) -> String {
    let type_ = metric["type"].as_str().unwrap_or("?");
    let inner = ["resource", "containerResource", "pods", "object", "external"]
        .into_iter()
        .find_map(|key| text(metric, &format!("/{key}/name")).or_else(|| text(metric, &format!("/{key}/metric/name"))));
    inner.map_or_else(|| type_.to_owned(), |inner| format!("{type_} {inner}"))
}

/// Writes it into the fleet's spec.
pub(super) fn put(scaling: &Scaling, deployment: &Value, spec: &mut Value, found: &mut Findings) {
    match scaling {
        Scaling::Fixed(count) => spec["replicas"] = (*count).into(),
        Scaling::Operator(scaling) => {
            spec["scaling"] = scaling.clone();
            if let Some(metrics) = pod_metrics(deployment, found) {
                spec["scaling"]["podMetrics"] = metrics;
            }
        }
    }
}

/// Where the pods' metrics are, unless at the port that is looked for anyway.
fn pod_metrics(deployment: &Value, found: &mut Findings) -> Option<Value> {
    let ports = workload::containers(deployment).iter().flat_map(|container| list(container, "/ports"));
    if ports.into_iter().any(|port| port["name"] == crate::contract::METRICS_PORT_NAME) {
        return None;
    }
    let template = &deployment["spec"]["template"];
    let port = annotation(template, "prometheus.io/port").and_then(|port| port.parse::<u16>().ok());
    if port.is_none() {
        found.notes.push(format!(
            "No container has a port named {}: the operator then reads what Workers tell the server in their heartbeats, and where \
             they tell nothing it never takes a pod away. See docs/signals.md; spec.scaling.podMetrics names another port.",
            crate::contract::METRICS_PORT_NAME
        ));
    }
    let mut metrics = json!({"port": port?});
    if let Some(path) = annotation(template, "prometheus.io/path") {
        metrics["path"] = path.into();
    }
    Some(metrics)
}
