//! The whole calculation of a fleet's last decision, from its status, for people and for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::api::{ConditionType, LaneStatus, ScalingSpec, ScalingStatus, TaskQueueType, WorkerDeployment};

/// Conditions of the autoscaler, in the order in which they are printed.
const CONDITIONS: [ConditionType; 5] = [
    ConditionType::ScalingActive,
    ConditionType::ScalingLimited,
    ConditionType::MetricsStale,
    ConditionType::SLOMet,
    ConditionType::Stalled,
];

/// Why there is nothing to explain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// The fleet has no autoscaler.
    #[error(
        "spec.scaling of WorkerDeployment {0} is not set, so that the operator does not scale it; set it, {{}} will do"
    )]
    NoScaling(String),
    /// Nothing was decided yet.
    #[error("nothing was decided yet for WorkerDeployment {name}: {why}")]
    NoDecision {
        /// Namespace and name.
        name: String,
        /// What the fleet waits for.
        why: String,
    },
}

/// The calculation as text.
///
/// # Errors
/// [`ExplainError`].
pub fn text(object: &WorkerDeployment) -> Result<String, ExplainError> {
    let (spec, status) = parts(object)?;
    let mut text = String::new();
    let _ = writeln!(text, "{}: {}", name(object), status.reason.as_deref().unwrap_or("no reason is given"));
    let _ = writeln!(text);
    for (label, value) in facts(spec, status) {
        let _ = writeln!(text, "{label:<16}{value}");
    }
    table(&status.lanes, &mut text);
    formulas(&status.lanes, &mut text);
    conditions(object, &mut text);
    Ok(text)
}

/// The calculation as JSON: `namespace`, `name`, `spec` (that of scaling, with defaults), `status` (that of scaling) and
/// `conditions`.
///
/// # Errors
/// [`ExplainError`].
pub fn json(object: &WorkerDeployment) -> Result<Value, ExplainError> {
    let (spec, status) = parts(object)?;
    let conditions: Vec<_> = CONDITIONS.iter().filter_map(|&type_| object.status.as_ref()?.condition(type_)).collect();
    Ok(json!({
        "namespace": object.metadata.namespace,
        "name": object.metadata.name,
        "spec": spec,
        "status": status,
        "conditions": conditions,
    }))
}

fn name(object: &WorkerDeployment) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", part(&object.metadata.namespace), part(&object.metadata.name))
}

fn parts(object: &WorkerDeployment) -> Result<(&ScalingSpec, &ScalingStatus), ExplainError> {
    let spec = object.spec.scaling.as_ref().ok_or_else(|| ExplainError::NoScaling(name(object)))?;
    let status = object.status.as_ref().and_then(|status| status.scaling.as_ref());
    let status = status.filter(|status| status.desired.is_some()).ok_or_else(|| {
        let ready = object.status.as_ref().and_then(|status| status.condition(ConditionType::Ready));
        let why = ready.map_or("the operator has not seen it; is it running?", |ready| ready.message.as_str());
        ExplainError::NoDecision { name: name(object), why: why.to_owned() }
    })?;
    Ok((spec, status))
}

fn facts(spec: &ScalingSpec, status: &ScalingStatus) -> Vec<(&'static str, String)> {
    let count = |count: Option<i32>| count.map_or_else(|| "?".into(), |count| count.to_string());
    let number = |count: Option<i64>| count.map_or_else(|| "unknown".into(), |count| count.to_string());
    let dry_run = if status.dry_run { " (dry run: not carried out)" } else { "" };
    let mut facts = vec![
        (
            "Replicas",
            format!(
                "{} desired{dry_run}, {} there, {} ready; {} to {} allowed",
                count(status.desired),
                count(status.current),
                count(status.ready),
                spec.min_replicas,
                spec.max_replicas
            ),
        ),
        ("Tasks", format!("{} waiting, {} running", number(status.backlog), number(status.in_flight))),
        ("Follows from", binding(status)),
        ("Target", target(spec, status)),
    ];
    facts.extend(status.limits.iter().map(|limit| ("Limit", format!("{}: {}", limit.reason, limit.message))));
    if let Some(at) = &status.next_down_at {
        facts.push(("Next decrease", format!("not before {}", at.0)));
    }
    if let Some(at) = &status.last_scale_time {
        facts.push(("Last change", at.0.to_string()));
    }
    facts
}

fn binding(status: &ScalingStatus) -> String {
    let Some(binding) = &status.binding else { return "unknown".into() };
    match (&binding.task_queue, binding.task_type) {
        (Some(queue), Some(kind)) => format!("{} of {} queue {queue:?}", binding.term, word(kind)),
        _ => binding.term.clone(),
    }
}

fn target(spec: &ScalingSpec, status: &ScalingStatus) -> String {
    let goal = format!("{} % of the tasks start within {}", spec.percentile, spec.target_latency);
    match &status.slo {
        None => format!("{goal}; too few tasks were seen to tell"),
        Some(slo) => {
            let late = slo.late_share.parse::<f64>().unwrap_or_default() * 100.0;
            format!(
                "{goal}; {late:.1} % of the last 15 minutes' did not (need is held {} times as long for it)",
                slo.hold_multiplier
            )
        }
    }
}

const COLUMNS: [&str; 11] = [
    "TASK QUEUE",
    "TYPE",
    "WAITING",
    "OLDEST",
    "ARRIVING/S",
    "RUNNING",
    "TASK TIME",
    "LOAD",
    "SLOTS/POD",
    "PODS FOR LOAD",
    "WITH BACKLOG",
];

fn table(lanes: &[LaneStatus], text: &mut String) {
    if lanes.is_empty() {
        return;
    }
    let header: Vec<String> = COLUMNS.iter().map(|&column| column.to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(header).chain(lanes.iter().map(row)).collect();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..COLUMNS.len()).map(|column| width(column).unwrap_or(0)).collect();
    text.push('\n');
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

fn row(lane: &LaneStatus) -> Vec<String> {
    let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "?".into());
    vec![
        lane.task_queue.clone(),
        word(lane.task_type).to_owned(),
        or_unknown(lane.backlog.map(|backlog| backlog.to_string())),
        lane.age.as_ref().map_or_else(|| "-".into(), ToString::to_string),
        or_unknown(lane.arrival_rate.clone()),
        lane.in_flight.to_string(),
        or_unknown(lane.service_time.as_ref().map(ToString::to_string)),
        lane.offered_load.clone(),
        or_unknown(lane.slots.clone()),
        lane.rate_replicas.to_string(),
        lane.burst_replicas.to_string(),
    ]
}

/// The numbers put together, a sentence for each lane that has all of them.
fn formulas(lanes: &[LaneStatus], text: &mut String) {
    let sentences: Vec<String> = lanes.iter().filter_map(formula).collect();
    if !sentences.is_empty() {
        let _ = writeln!(text, "\n{}", sentences.join("\n"));
    }
}

fn formula(lane: &LaneStatus) -> Option<String> {
    let (rate, time, slots) = (lane.arrival_rate.as_ref()?, lane.service_time.as_ref()?, lane.slots.as_ref()?);
    Some(format!(
        "{} queue {:?}: {rate} tasks/s of {time} each and {} that run keep {} slots busy once a new pod is ready; with \
         room for the target that is {} pods of {slots} slots, {} to work off what waits too.",
        word(lane.task_type),
        lane.task_queue,
        lane.in_flight,
        lane.offered_load,
        lane.rate_replicas,
        lane.burst_replicas
    ))
}

fn conditions(object: &WorkerDeployment, text: &mut String) {
    let found = CONDITIONS.iter().filter_map(|&type_| object.status.as_ref()?.condition(type_));
    let lines: Vec<String> =
        found.map(|one| format!("{} {} {}: {}", one.type_, one.status, one.reason, one.message)).collect();
    if !lines.is_empty() {
        let _ = writeln!(text, "\n{}", lines.join("\n"));
    }
}

fn word(kind: TaskQueueType) -> &'static str {
    match kind {
        TaskQueueType::Workflow => "workflow",
        TaskQueueType::Activity => "activity",
        TaskQueueType::Nexus => "nexus",
    }
}
