//! A preview as text.

use std::fmt::Write as _;

use super::Preview;
use crate::api::{ConditionType, Version, find_condition};

/// Conditions that say why, in the order in which they are printed.
const CONDITIONS: [ConditionType; 7] = [
    ConditionType::Ready,
    ConditionType::ConnectionHealthy,
    ConditionType::Stalled,
    ConditionType::Paused,
    ConditionType::ScalingActive,
    ConditionType::ScalingLimited,
    ConditionType::MetricsStale,
];
const COLUMNS: [&str; 7] = ["VERSION", "ROLE", "STATUS", "TRAFFIC", "DEPLOYMENT", "REPLICAS", "READY"];

/// The preview for people.
#[must_use]
pub fn text(preview: &Preview) -> String {
    let mut text = format!("WorkerDeployment {}/{}\n", preview.namespace, preview.name);
    table(&rows(preview), &mut text);
    writes(preview, &mut text);
    reasons(preview, &mut text);
    text
}

fn writes(preview: &Preview, text: &mut String) {
    if preview.writes.is_empty() {
        let _ = writeln!(text, "\nNothing is to be written.");
        return;
    }
    let _ = writeln!(text, "\nTo be written, in this order:");
    for (number, write) in preview.writes.iter().enumerate() {
        let _ = writeln!(text, "{:>3}. {}: {}", number + 1, write.object, write.summary);
        for change in &write.changes {
            let _ = writeln!(text, "       {change}");
        }
    }
}

fn reasons(preview: &Preview, text: &mut String) {
    let _ = writeln!(text, "\nWhy:");
    for condition in CONDITIONS.iter().filter_map(|&type_| find_condition(&preview.conditions, type_)) {
        let (type_, status, reason) = (&condition.type_, &condition.status, &condition.reason);
        let _ = writeln!(text, "  {type_} {status} {reason}: {}", condition.message);
    }
    if let Some(reason) = preview.scaling.as_ref().and_then(|scaling| scaling.reason.as_ref()) {
        let _ = writeln!(text, "  Replicas: {reason}");
    }
    for waiting in &preview.waiting {
        let _ = writeln!(text, "  Deployment {}: {}", waiting.deployment, waiting.reason);
    }
    for note in &preview.notes {
        let _ = writeln!(text, "  Note: {note}");
    }
}

fn rows(preview: &Preview) -> Vec<[String; 7]> {
    let target = preview.target_version.as_ref();
    let share = target.and_then(|target| target.ramp_percentage);
    let current = preview.current_version.as_ref();
    let is_current = |version: &Version| current.is_some_and(|current| current.build_id == version.build_id);
    let mut rows = Vec::new();
    if let Some(target) = target {
        let traffic = if is_current(&target.version) { Some(100.0) } else { share.or(Some(0.0)) };
        rows.push(row(&target.version, "target", traffic));
    }
    let others = current.filter(|current| target.is_none_or(|target| target.version.build_id != current.build_id));
    rows.extend(others.map(|version| row(version, "current", Some(100.0 - share.unwrap_or(0.0)))));
    rows.extend(preview.deprecated_versions.iter().map(|old| row(&old.version, "old", None)));
    rows
}

fn row(version: &Version, role: &str, traffic: Option<f32>) -> [String; 7] {
    let count = |count: Option<i32>| count.map_or_else(|| "-".into(), |count| count.to_string());
    let deployment = version.deployment.as_ref().and_then(|deployment| deployment.name.clone());
    [
        version.build_id.clone(),
        role.to_owned(),
        version.status.as_str().to_owned(),
        traffic.map_or_else(|| "-".into(), |percent| format!("{percent} %")),
        deployment.unwrap_or_else(|| "-".into()),
        count(version.replicas),
        count(version.ready_replicas),
    ]
}

fn table(rows: &[[String; 7]], text: &mut String) {
    if rows.is_empty() {
        return;
    }
    let header = COLUMNS.map(str::to_owned);
    let lines: Vec<&[String; 7]> = std::iter::once(&header).chain(rows).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    text.push('\n');
    for line in lines {
        let cells: Vec<_> = line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
}
