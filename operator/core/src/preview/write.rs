//! Writes of a plan, each in a line.

use serde::Serialize;
use serde_json::Value;

use crate::deletion::Step;
use crate::names;
use crate::plan::{Action, object_key};
use crate::standing::Difference;

/// Fields whose values are shown: no template holds a secret there.
const SHOWN: [&str; 6] = [
    ".image",
    ".minReadySeconds",
    ".progressDeadlineSeconds",
    ".terminationGracePeriodSeconds",
    ".maxSurge",
    ".maxUnavailable",
];
/// Differences that are named; more are counted.
const NAMED: usize = 20;

/// The fleet that a plan is for, by its names.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Name of the WorkerDeployment.
    pub name: &'a str,
    /// Name of its Worker Deployment on the server.
    pub deployment_name: &'a str,
    /// The operator's identity towards the server.
    pub identity: &'a str,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Write {
    /// The kind of write, a word of the plan's.
    pub action: &'static str,
    /// What is written: `Kind/name` of Kubernetes, or `Worker Deployment name` of the server.
    pub object: String,
    /// What happens to it, and why where there is a choice.
    pub summary: String,
    /// Fields that change, for an apply of an object that is there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
}

impl Write {
    fn new(action: &'static str, object: String, summary: impl Into<String>) -> Self {
        Self { action, object, summary: summary.into(), changes: Vec::new() }
    }
}

/// A write of a plan. `differences` are what an apply changes; none where the object does not exist.
#[must_use]
pub fn of_action(action: &Action, subject: Subject<'_>, differences: Option<&[Difference]>) -> Write {
    let deployment = |child: &str| format!("Deployment/{child}");
    let server = || format!("Worker Deployment {}", subject.deployment_name);
    let share = |(build_id, percent): &(String, f32)| format!("version {build_id} has {percent} %");
    match action {
        Action::Protect => {
            let summary = format!("add the finalizer {}", names::DELETE_PROTECTION_FINALIZER);
            Write::new("Protect", format!("WorkerDeployment/{}", subject.name), summary)
        }
        Action::Apply { object, .. } => of_apply(object, differences),
        Action::SetDeletionCost { pod, cost } => {
            let summary = if cost.is_some() { "mark it to be removed first" } else { "no longer mark it" };
            Write::new("SetDeletionCost", format!("Pod/{pod}"), summary)
        }
        Action::ShowCordon { pod, cordoned } => {
            let summary = if *cordoned { "order it to take no new task" } else { "let it take tasks again" };
            Write::new("ShowCordon", format!("Pod/{pod}"), summary)
        }
        Action::Scale { child, from, to, reason, .. } => {
            Write::new("Scale", deployment(child), format!("from {from} to {to} replicas: {reason}"))
        }
        Action::Attach { child, .. } => {
            Write::new("Attach", deployment(child), "have its pods work at the Connection of the fleet as it is now")
        }
        Action::StartGate { build_id, workflow_id, task_queue, gate } => {
            let summary = format!("start {:?} on version {build_id}, Task Queue {task_queue:?}", gate.workflow_type);
            Write::new("StartGate", format!("Workflow {workflow_id}"), summary)
        }
        Action::ClaimManager { from, .. } => claim(server(), from, subject),
        Action::SetRamping { build_id, percent, from, .. } => {
            let before = from.as_ref().map_or_else(|| "no version has a share".to_owned(), share);
            Write::new(
                "SetRamping",
                server(),
                format!("give version {build_id} {percent} % of new Workflows; now {before}"),
            )
        }
        Action::SetCurrent { build_id, from, .. } => {
            let before = from.as_ref().map_or_else(|| "no version is".to_owned(), |from| format!("{from} is"));
            Write::new("SetCurrent", server(), format!("make version {build_id} current; now {before}"))
        }
        Action::ClearRamp { from, .. } => {
            Write::new("ClearRamp", server(), format!("take the share of a version away; now {}", share(from)))
        }
        Action::NoteSuperseded { child, at, .. } => {
            let summary =
                if at.is_some() { "note that nobody wants its version any more" } else { "take that note away" };
            Write::new("NoteSuperseded", deployment(child), summary)
        }
        Action::DeleteVersion { build_id } => {
            Write::new("DeleteVersion", server(), format!("delete the record of version {build_id}"))
        }
        Action::DeleteChild { child, .. } => {
            Write::new("DeleteChild", deployment(child), "delete it, and the ConfigMap of its version if it has one")
        }
    }
}

fn claim(server: String, from: &str, subject: Subject<'_>) -> Write {
    let before = if from.is_empty() { "it has none".to_owned() } else { format!("that is {from:?}") };
    Write::new("ClaimManager", server, format!("make {:?} its manager; now {before}", subject.identity))
}

fn of_apply(object: &Value, differences: Option<&[Difference]>) -> Write {
    let key = object_key(object);
    let Some(differences) = differences else {
        let images = images(object);
        let with = if images.is_empty() { String::new() } else { format!(" with {}", images.join(", ")) };
        return Write::new("Apply", key, format!("create it{with}"));
    };
    let mut changes: Vec<String> = differences.iter().take(NAMED).map(change).collect();
    changes.extend((differences.len() > NAMED).then(|| format!("and {} more fields", differences.len() - NAMED)));
    let summary = match differences.len() {
        0 => "apply it again: it was last applied by somebody else".to_owned(),
        1 => "change a field".to_owned(),
        count => format!("change {count} fields"),
    };
    Write { changes, ..Write::new("Apply", key, summary) }
}

fn images(object: &Value) -> Vec<String> {
    let containers = object.pointer("/spec/template/spec/containers").and_then(Value::as_array);
    let image = |container: &Value| Some(format!("image {}", container["image"].as_str()?));
    containers.into_iter().flatten().filter_map(image).collect()
}

fn change(difference: &Difference) -> String {
    let Difference { path, from, to } = difference;
    let shown = SHOWN.iter().any(|field| path.ends_with(field)) || path.contains(".resources.");
    let word = match (from, to) {
        (Value::Null, _) => "set",
        (_, Value::Null) => "taken away",
        _ => "changed",
    };
    if shown { format!("{path}: {from} → {to}") } else { format!("{path}: {word}") }
}

/// A write of a deletion.
#[must_use]
pub fn of_step(step: &Step, subject: Subject<'_>) -> Write {
    let server = || format!("Worker Deployment {}", subject.deployment_name);
    match step {
        Step::ScaleToZero { child, from, .. } => {
            Write::new("ScaleToZero", format!("Deployment/{child}"), format!("from {from} to 0 replicas"))
        }
        Step::ClaimManager { from, .. } => claim(server(), from, subject),
        Step::ClearRamp { .. } => Write::new("ClearRamp", server(), "take the share of a version away"),
        Step::ClearCurrent { from, .. } => {
            Write::new("ClearCurrent", server(), format!("give the traffic of version {from} to unversioned Workers"))
        }
        Step::DeleteVersion { build_id } => {
            Write::new("DeleteVersion", server(), format!("delete the record of version {build_id}"))
        }
        Step::DeleteDeployment => Write::new("DeleteDeployment", server(), "delete its record"),
        Step::Release { left } => {
            let left = left.as_ref().map(|left| format!("; left on the server: {left}")).unwrap_or_default();
            Write::new("Release", format!("WorkerDeployment/{}", subject.name), format!("let it go{left}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SUBJECT: Subject<'_> = Subject { name: "orders", deployment_name: "prod/orders", identity: "me" };

    fn applied(differences: Option<&[Difference]>) -> Write {
        let container = json!({"name": "w", "image": "w:2", "env": [{"name": "PASSWORD", "value": "hunter2"}]});
        let object = json!({"kind": "Deployment", "metadata": {"name": "orders-v2"},
            "spec": {"template": {"spec": {"containers": [container]}}}});
        of_action(&Action::Apply { object, digest: "d".into() }, SUBJECT, differences)
    }

    #[test]
    fn a_new_object_is_shown_by_its_images_alone() {
        let write = applied(None);
        assert_eq!(
            (write.object.as_str(), write.summary.as_str()),
            ("Deployment/orders-v2", "create it with image w:2")
        );
        assert!(write.changes.is_empty());
    }

    #[test]
    fn a_change_is_shown_by_its_path_and_by_its_values_only_where_none_is_secret() {
        let difference = |path: &str, from: Value, to: Value| Difference { path: path.into(), from, to };
        let in_container = |field: &str| format!("spec.template.spec.containers[w].{field}");
        let write = applied(Some(&[
            difference(&in_container("image"), json!("w:1"), json!("w:2")),
            difference(&in_container("env[PASSWORD].value"), json!("hunter2"), json!("hunter3")),
            difference(&in_container("env[OLD]"), json!({"name": "OLD", "value": "hunter1"}), Value::Null),
            difference("data.runtime.json", Value::Null, json!("hunter4")),
        ]));
        let prefix = "spec.template.spec.containers[w]";
        assert_eq!(
            write.changes,
            [
                format!("{prefix}.image: \"w:1\" → \"w:2\""),
                format!("{prefix}.env[PASSWORD].value: changed"),
                format!("{prefix}.env[OLD]: taken away"),
                "data.runtime.json: set".to_owned(),
            ]
        );
        assert_eq!(write.summary, "change 4 fields");
    }

    #[test]
    fn many_changes_are_counted() {
        let one = |n: usize| Difference { path: format!("f{n}"), from: Value::Null, to: json!(1) };
        let write = applied(Some(&(0..NAMED + 3).map(one).collect::<Vec<_>>()));
        assert_eq!((write.changes.len(), write.changes[NAMED].as_str()), (NAMED + 1, "and 3 more fields"));
    }
}
