//! What came of the demo: numbers from the histories and the API server's audit log, and everything that is wrong.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::history::{Run, Task};
use crate::audit::AuditEvent;

/// The summary, as it is written to `summary.json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Tasks of the burst that the server accepted.
    pub tasks_started: usize,
    /// Those that were completed.
    pub tasks_completed: usize,
    /// Those that were not.
    pub tasks_lost: usize,
    /// Every fleet.
    pub fleets: Vec<FleetSummary>,
}

/// A fleet's way up and down again. What did not happen is absent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FleetSummary {
    /// Name of the WorkerDeployment.
    pub name: String,
    /// From the first task that the server accepted to the change of replicas, in milliseconds.
    pub cold_start_replicas_ms: Option<i64>,
    /// From the first task that the server accepted to the first that was completed, in milliseconds.
    pub cold_start_first_task_ms: Option<i64>,
    /// Most replicas that were asked for.
    pub max_replicas: i64,
    /// From the last task that was completed to zero replicas, in seconds.
    pub back_to_zero_s: Option<f64>,
}

/// When a fleet had work: the times of its first and last task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WorkTimes {
    /// The server accepted the first task.
    pub accepted: Timestamp,
    /// The first task was completed.
    pub first_completed: Option<Timestamp>,
    /// The last task was completed.
    pub last_completed: Option<Timestamp>,
}

impl WorkTimes {
    /// Of a fleet that runs the Workflow itself: its last task ends with the Workflow.
    pub fn of_workflow(run: &Run) -> Self {
        let closed = run.closed.as_ref().map(|(when, _)| *when);
        Self { accepted: run.accepted, first_completed: run.first_task_completed, last_completed: closed }
    }

    /// Of a fleet that takes the Activity Tasks of a Task Queue; none without a task.
    pub fn of_activities(run: &Run, task_queue: &str) -> Option<Self> {
        let completed = || run.tasks_of(task_queue).filter_map(Task::completed);
        let accepted = run.tasks_of(task_queue).map(|task| task.accepted).min()?;
        Some(Self { accepted, first_completed: completed().min(), last_completed: completed().max() })
    }
}

/// Changes of replicas of a fleet, oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replicas(Vec<(Timestamp, i64)>);

impl Replicas {
    /// Reads them off the audit log, summed over the fleet's Deployments.
    pub fn of(events: &[AuditEvent], namespace: &str, deployments: &[String]) -> Self {
        let mut each: BTreeMap<&str, i64> = BTreeMap::new();
        let mut changes: Vec<(Timestamp, i64)> = Vec::new();
        for event in events {
            let is_write = event.resource == "deployments" || event.resource == "deployments/scale";
            if event.code >= 300 || !is_write || event.namespace != namespace || !deployments.contains(&event.name) {
                continue;
            }
            let Some(replicas) = event.replicas else { continue };
            each.insert(&event.name, replicas);
            let total = each.values().sum();
            if changes.last().is_none_or(|(_, last)| *last != total) {
                changes.push((event.time, total));
            }
        }
        Self(changes)
    }

    /// Replicas at a moment.
    pub fn at(&self, time: Timestamp) -> Option<i64> {
        self.0.iter().take_while(|(when, _)| *when <= time).last().map(|(_, replicas)| *replicas)
    }

    fn since(&self, time: Timestamp) -> impl DoubleEndedIterator<Item = &(Timestamp, i64)> {
        self.0.iter().filter(move |(when, _)| *when > time)
    }

    /// Sums up a fleet's way from zero and back.
    pub fn summary(&self, name: &str, work: &WorkTimes) -> FleetSummary {
        let after = |time: Timestamp| time.duration_since(work.accepted).as_millis();
        let milliseconds = |time: Timestamp| i64::try_from(after(time)).unwrap_or(i64::MAX);
        let up = self.since(work.accepted).find(|(_, replicas)| *replicas > 0);
        let last = self.since(work.accepted).next_back().filter(|(_, replicas)| *replicas == 0);
        FleetSummary {
            name: name.to_owned(),
            cold_start_replicas_ms: up.map(|(when, _)| milliseconds(*when)),
            cold_start_first_task_ms: work.first_completed.map(milliseconds),
            max_replicas: self.since(work.accepted).map(|(_, replicas)| *replicas).max().unwrap_or(0),
            back_to_zero_s: last.zip(work.last_completed).map(|((when, _), end)| tenths(*when, end)),
        }
    }

    /// What is wrong with a fleet's way, which should go from zero to at least `least` replicas and back to zero.
    pub fn problems(&self, name: &str, work: &WorkTimes, least: i64) -> Vec<String> {
        let mut problems = Vec::new();
        let before = self.at(work.accepted);
        if before != Some(0) {
            let had = before.map_or("an unknown number of".to_owned(), |count| count.to_string());
            problems.push(format!("{name} had {had} replicas before its first task, not 0"));
        }
        let most = self.summary(name, work).max_replicas;
        if most < least {
            problems.push(format!("{name} had at most {most} replicas, fewer than {least}"));
        }
        let end = self.0.last().map(|(_, replicas)| *replicas);
        if end != Some(0) {
            problems.push(format!("{name} did not go back to zero: it has {} replicas", end.unwrap_or_default()));
        }
        problems
    }
}

fn tenths(when: Timestamp, since: Timestamp) -> f64 {
    (when.duration_since(since).as_secs_f64() * 10.0).round() / 10.0
}

/// What is wrong with the tasks of a run, one sentence each: a task that was not completed once, on its first attempt,
/// with the result that `expected` gives for its input.
pub fn task_problems(tasks: &[&Task], expected: impl Fn(&Value) -> Option<Value>) -> Vec<String> {
    let mut problems = Vec::new();
    for task in tasks {
        let name = format!("{} of event {}", task.activity_type, task.event);
        match &task.started {
            None => problems.push(format!("{name} was never started")),
            Some((1, _)) => {}
            Some((attempt, worker)) => problems.push(format!("{name} was run {attempt} times, last by {worker}")),
        }
        match task.ends.as_slice() {
            [(_, how)] if how == "ACTIVITY_TASK_COMPLETED" => {
                let expected = expected(&task.input);
                if task.result != expected {
                    problems.push(format!("{name} gave {:?}, not {expected:?}", task.result));
                }
            }
            [] => problems.push(format!("{name} was lost: it never ended")),
            ends => {
                let ends: Vec<_> = ends.iter().map(|(_, how)| how.as_str()).collect();
                problems.push(format!("{name} ended by {}", ends.join(", ")));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn write(second: i64, name: &str, replicas: i64) -> AuditEvent {
        AuditEvent {
            time: time(second),
            user: "operator".into(),
            verb: "patch".into(),
            resource: "deployments/scale".into(),
            namespace: "demo".into(),
            name: name.into(),
            code: 200,
            replicas: Some(replicas),
            ..AuditEvent::default()
        }
    }

    fn replicas(changes: &[(i64, i64)]) -> Replicas {
        let events: Vec<_> = changes.iter().map(|(second, count)| write(*second, "fleet-1", *count)).collect();
        Replicas::of(&events, "demo", &["fleet-1".into()])
    }

    const fn work() -> (i64, i64, i64) {
        (10, 12, 30)
    }

    fn times() -> WorkTimes {
        let (accepted, first, last) = work();
        WorkTimes { accepted: time(accepted), first_completed: Some(time(first)), last_completed: Some(time(last)) }
    }

    #[test]
    fn a_way_from_zero_and_back_gives_the_numbers_of_the_summary() {
        let replicas = replicas(&[(1, 1), (5, 0), (11, 2), (12, 2), (13, 4), (40, 3), (55, 0)]);
        let summary = replicas.summary("fleet", &times());
        let expected = json!({"name": "fleet", "cold_start_replicas_ms": 1000, "cold_start_first_task_ms": 2000,
            "max_replicas": 4, "back_to_zero_s": 25.0});
        assert_eq!(serde_json::to_value(summary).unwrap(), expected);
        assert_eq!(replicas.problems("fleet", &times(), 2), Vec::<String>::new());
    }

    #[test]
    fn a_fleet_that_did_not_start_at_zero_or_stayed_small_or_did_not_end_at_zero_is_named() {
        let problems = replicas(&[(1, 1)]).problems("fleet", &times(), 2);
        assert_eq!(problems.len(), 3, "{problems:?}");
        let problems = replicas(&[(1, 0), (11, 3), (20, 1)]).problems("fleet", &times(), 2);
        assert_eq!(problems, ["fleet did not go back to zero: it has 1 replicas"]);
        assert_eq!(replicas(&[(1, 0), (11, 3), (20, 1)]).summary("fleet", &times()).back_to_zero_s, None);
    }

    #[test]
    fn writes_of_others_and_refused_ones_do_not_count() {
        let mut refused = write(12, "fleet-1", 9);
        refused.code = 403;
        let events = [write(1, "fleet-1", 0), write(11, "fleet-1", 1), write(11, "other", 7), refused];
        let replicas = Replicas::of(&events, "demo", &["fleet-1".into()]);
        assert_eq!(replicas.summary("fleet", &times()).max_replicas, 1);
    }

    fn task(attempt: i64, ends: &[&str], result: Value) -> Task {
        Task {
            event: 5,
            activity_type: "Thumbnail".into(),
            task_queue: "thumbnails".into(),
            input: json!(1),
            accepted: time(10),
            started: Some((attempt, "pod-1".into())),
            ends: ends.iter().map(|how| (time(12), (*how).to_owned())).collect(),
            result: Some(result),
        }
    }

    #[test]
    fn every_task_must_be_completed_once_on_its_first_attempt_with_the_right_result() {
        let problems = |task: Task| task_problems(&[&task], |_| Some(json!("right")));
        let completed = ["ACTIVITY_TASK_COMPLETED"];
        assert!(problems(task(1, &completed, json!("right"))).is_empty());
        for (bad, said) in [
            (task(2, &completed, json!("right")), "run 2 times"),
            (task(1, &completed, json!("wrong")), "wrong"),
            (task(1, &["ACTIVITY_TASK_FAILED"], json!("right")), "ACTIVITY_TASK_FAILED"),
            (task(1, &[], json!("right")), "lost"),
            (Task { started: None, ..task(1, &completed, json!("right")) }, "never started"),
        ] {
            let problems = problems(bad);
            assert!(problems.len() == 1 && problems[0].contains(said), "{problems:?}");
        }
    }
}
