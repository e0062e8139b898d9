//! Task Queues of the fleet.

use serde_json::Value;

use super::keda::{Parameter, Triggers, parameter};
use super::{Findings, Wish};
use crate::api::{ScalingTaskQueue, TaskQueueType};

/// Reads `NAME` or `NAME=Workflow,Activity`: a Task Queue, and the types of tasks that are taken from it; both of these without.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn task_queue(argument: &str) -> Result<ScalingTaskQueue, String> {
    // A name may have an equals sign; what follows the last one is a list of types or part of the name.
    let split = argument.rsplit_once('=').map(|(name, list)| (name, list.split(',').map(type_of).collect()));
    let (name, types) = match split {
        Some((name, Some(types))) => (name, types),
        _ => (argument, vec![TaskQueueType::Workflow, TaskQueueType::Activity]),
    };
    if name.is_empty() {
        return Err("names no Task Queue; write NAME, or NAME=Workflow,Activity".into());
    }
    Ok(ScalingTaskQueue { name: name.to_owned(), types })
}

fn type_of(word: &str) -> Option<TaskQueueType> {
    match word.trim().to_ascii_lowercase().as_str() {
        "workflow" => Some(TaskQueueType::Workflow),
        "activity" => Some(TaskQueueType::Activity),
        "nexus" => Some(TaskQueueType::Nexus),
        _ => None,
    }
}

/// Those of the triggers and those that are asked for, each once.
pub(super) fn collect(triggers: &Triggers<'_>, wish: &Wish, found: &mut Findings) -> Vec<ScalingTaskQueue> {
    let mut queues: Vec<ScalingTaskQueue> = Vec::new();
    for trigger in &triggers.temporal {
        let Some(queue) = of_trigger(trigger, triggers.container, found) else { continue };
        match queues.iter_mut().find(|known| known.name == queue.name) {
            Some(known) => known.types.extend(queue.types),
            None => queues.push(queue),
        }
    }
    for asked in &wish.task_queues {
        queues.retain(|known| known.name != asked.name);
        queues.push(asked.clone());
    }
    for queue in &mut queues {
        let mut seen = Vec::new();
        queue.types.retain(|type_| {
            !seen.contains(type_) && {
                seen.push(*type_);
                true
            }
        });
    }
    queues
}

fn of_trigger(trigger: &Value, container: Option<&Value>, found: &mut Findings) -> Option<ScalingTaskQueue> {
    let name = match parameter(trigger, container, "taskQueue") {
        Parameter::Is(name) => name,
        Parameter::Hidden(variable) => {
            found.notes.push(format!(
                "A trigger has its Task Queue of variable {variable}, whose value is not written out: add it with --task-queue."
            ));
            return None;
        }
        Parameter::Absent => {
            found.notes.push("A trigger names no Task Queue: KEDA can't use it either.".into());
            return None;
        }
    };
    let said = trigger["metadata"]["queueTypes"].as_str().unwrap_or_default();
    let types: Vec<_> = said.split(',').filter_map(type_of).collect();
    if types.is_empty() {
        found.notes.push(format!(
            "The trigger of {name} says no queueTypes: Workflow and Activity Tasks are assumed. Correct \
             spec.scaling.taskQueues[].types if these Workers take others, or say --task-queue '{name}=Workflow'."
        ));
        return Some(ScalingTaskQueue { name, types: vec![TaskQueueType::Workflow, TaskQueueType::Activity] });
    }
    if types.len() == 1 {
        found.notes.push(format!(
            "KEDA watches {said} tasks of {name} alone, and so will the operator. If these Workers take others too, say so: a Task \
             Queue that nobody watches is not counted before the last pod goes."
        ));
    }
    Some(ScalingTaskQueue { name, types })
}
