//! What is wrong with limits that the operator did not write.

use operator_core::contract::RuntimeLimits;

/// Everything that is wrong with limits, one line each.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the limits can't be used:\n{}", .0.join("\n"))]
pub struct LimitsError(pub Vec<String>);

/// Checks what the format of the file can't state.
///
/// # Errors
/// All that is wrong: field, value and remedy.
pub fn check(limits: &RuntimeLimits) -> Result<(), LimitsError> {
    let mut problems = Vec::new();
    for (queue, _) in limits.max_concurrent_activities.iter().filter(|(_, slots)| **slots == 0) {
        problems
            .push(format!("maxConcurrentActivities[{queue}]: is 0; give the Task Queue at least 1 slot, or remove it"));
    }
    for (queue, bounds) in &limits.task_queues {
        let mut say = |field: &str, problem: String| problems.push(format!("taskQueues[{queue}].{field}: {problem}"));
        for (field, rate) in [
            ("maxActivitiesPerSecond", bounds.max_activities_per_second),
            ("maxTaskQueueActivitiesPerSecond", bounds.max_task_queue_activities_per_second),
        ] {
            if let Some(rate) = rate.filter(|rate| !rate.is_finite() || *rate <= 0.0) {
                say(field, format!("is {rate}; use a number above 0, or remove it"));
            }
        }
        if let Some(pollers) = bounds.pollers.filter(|of| of.minimum == 0 || of.minimum > of.maximum) {
            let (minimum, maximum) = (pollers.minimum, pollers.maximum);
            say("pollers", format!("is {minimum} to {maximum}; use at least 1, and a maximum that is not below it"));
        }
    }
    if let Some(targets) = limits.resource_targets {
        for (field, target) in [("memory", targets.memory), ("cpu", targets.cpu)] {
            if !(target > 0.0 && target <= 1.0) {
                problems.push(format!("resourceTargets.{field}: is {target}; use a part of 1, such as 0.8"));
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(LimitsError(problems)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(limits: &str) -> String {
        check(&serde_json::from_str(limits).unwrap()).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn every_value_that_can_not_be_is_named() {
        assert_eq!(
            problems(
                r#"{"taskQueues":{"q":{"pollers":{"minimum":1,"maximum":1}}},"resourceTargets":{"memory":0.8,"cpu":1}}"#
            ),
            ""
        );
        let all = problems(
            r#"{"maxConcurrentActivities":{"q":0},"resourceTargets":{"memory":0,"cpu":1.5},
                "taskQueues":{"r":{"pollers":{"minimum":3,"maximum":2},"maxActivitiesPerSecond":0,
                                   "maxTaskQueueActivitiesPerSecond":-1}}}"#,
        );
        for part in [
            "maxConcurrentActivities[q]: is 0",
            "taskQueues[r].pollers: is 3 to 2",
            "taskQueues[r].maxActivitiesPerSecond: is 0",
            "taskQueues[r].maxTaskQueueActivitiesPerSecond: is -1",
            "resourceTargets.memory: is 0",
            "resourceTargets.cpu: is 1.5",
        ] {
            assert!(all.contains(part), "{part} in {all}");
        }
    }
}
