//! What a Workflow's history says about its tasks. Reads the server's JSON; knows nothing of the demo.

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

/// One run of a Workflow.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// When the server accepted it.
    pub accepted: Timestamp,
    /// Task Queue of its Workflow Tasks.
    pub task_queue: String,
    /// When its first Workflow Task was completed.
    pub first_task_completed: Option<Timestamp>,
    /// When and how it closed, such as `WORKFLOW_EXECUTION_COMPLETED`.
    pub closed: Option<(Timestamp, String)>,
    /// What it returned.
    pub result: Option<Value>,
    /// Its Activity Tasks, in the order in which they were scheduled.
    pub tasks: Vec<Task>,
    /// Workflow Tasks that failed or were lost, one sentence each.
    pub failures: Vec<String>,
}

/// One Activity Task.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Event that scheduled it.
    pub event: i64,
    /// Activity type.
    pub activity_type: String,
    /// Task Queue.
    pub task_queue: String,
    /// Its first argument.
    pub input: Value,
    /// When the server accepted it.
    pub accepted: Timestamp,
    /// The attempt that the history tells of, and the Worker that ran it.
    pub started: Option<(i64, String)>,
    /// How often it ended, and when last: `ACTIVITY_TASK_COMPLETED` and others.
    pub ends: Vec<(Timestamp, String)>,
    /// What it returned.
    pub result: Option<Value>,
}

impl Task {
    /// When it was completed.
    pub fn completed(&self) -> Option<Timestamp> {
        self.ends.iter().find(|(_, how)| how == "ACTIVITY_TASK_COMPLETED").map(|(when, _)| *when)
    }
}

impl Run {
    /// Reads a history as `temporal workflow show --output json --no-json-shorthand-payloads` prints it.
    ///
    /// # Errors
    /// It is not one; the message names the event.
    pub fn parse(history: &Value) -> Result<Self> {
        let events = history["events"].as_array().context("the history has no events")?;
        let first = Event::of(events.first().context("the history is empty")?)?;
        let mut run = Self {
            accepted: first.time,
            task_queue: text(&first.attributes["taskQueue"]["name"]),
            first_task_completed: None,
            closed: None,
            result: None,
            tasks: Vec::new(),
            failures: Vec::new(),
        };
        for event in events {
            let event = Event::of(event)?;
            run.read(&event).with_context(|| format!("event {}, {}", event.id, event.kind))?;
        }
        Ok(run)
    }

    fn read(&mut self, event: &Event<'_>) -> Result<()> {
        let attributes = event.attributes;
        match event.kind.as_str() {
            "WORKFLOW_TASK_COMPLETED" => self.first_task_completed = self.first_task_completed.or(Some(event.time)),
            "WORKFLOW_TASK_FAILED" => {
                let cause = attributes["failure"]["message"].as_str().unwrap_or_default();
                self.failures.push(format!("Workflow Task of event {} failed: {cause}", event.id));
            }
            // A Workflow Task for the cache of a pod that is gone is offered to another pod: nothing was lost.
            "WORKFLOW_TASK_TIMED_OUT" if attributes["timeoutType"] != "TIMEOUT_TYPE_SCHEDULE_TO_START" => {
                self.failures.push(format!("Workflow Task of event {} was lost by its Worker", event.id));
            }
            "ACTIVITY_TASK_SCHEDULED" => self.tasks.push(Task {
                event: event.id,
                activity_type: text(&attributes["activityType"]["name"]),
                task_queue: text(&attributes["taskQueue"]["name"]),
                input: payload(&attributes["input"])?.unwrap_or_default(),
                accepted: event.time,
                started: None,
                ends: Vec::new(),
                result: None,
            }),
            "ACTIVITY_TASK_STARTED" => {
                let attempt = attributes["attempt"].as_i64().unwrap_or(1);
                self.task(event)?.started = Some((attempt, text(&attributes["identity"])));
            }
            kind @ ("ACTIVITY_TASK_COMPLETED"
            | "ACTIVITY_TASK_FAILED"
            | "ACTIVITY_TASK_TIMED_OUT"
            | "ACTIVITY_TASK_CANCELED") => {
                let result = payload(&attributes["result"])?;
                let task = self.task(event)?;
                task.ends.push((event.time, kind.to_owned()));
                task.result = result;
            }
            kind @ ("WORKFLOW_EXECUTION_COMPLETED"
            | "WORKFLOW_EXECUTION_FAILED"
            | "WORKFLOW_EXECUTION_TIMED_OUT"
            | "WORKFLOW_EXECUTION_CANCELED"
            | "WORKFLOW_EXECUTION_TERMINATED") => {
                self.closed = Some((event.time, kind.to_owned()));
                self.result = payload(&attributes["result"])?;
            }
            _ => {}
        }
        Ok(())
    }

    fn task(&mut self, event: &Event<'_>) -> Result<&mut Task> {
        let scheduled = number(&event.attributes["scheduledEventId"]);
        let task = self.tasks.iter_mut().find(|task| Some(task.event) == scheduled);
        task.context("it belongs to no scheduled activity")
    }

    /// The Activity Tasks of a Task Queue.
    pub fn tasks_of<'a>(&'a self, task_queue: &'a str) -> impl Iterator<Item = &'a Task> {
        self.tasks.iter().filter(move |task| task.task_queue == task_queue)
    }
}

struct Event<'a> {
    id: i64,
    time: Timestamp,
    /// Without `EVENT_TYPE_`.
    kind: String,
    attributes: &'a Value,
}

impl<'a> Event<'a> {
    fn of(event: &'a Value) -> Result<Self> {
        static NONE: Value = Value::Null;
        let id = number(&event["eventId"]).context("an event without eventId")?;
        let time = event["eventTime"].as_str().with_context(|| format!("event {id} has no eventTime"))?;
        let kind = text(&event["eventType"]);
        // An event has one field with its attributes, named after its type.
        let fields = event.as_object().into_iter().flatten();
        let attributes = fields.into_iter().find(|(name, _)| name.ends_with("EventAttributes"));
        Ok(Self {
            id,
            time: time.parse().with_context(|| format!("event {id}: eventTime {time}"))?,
            kind: kind.strip_prefix("EVENT_TYPE_").unwrap_or(&kind).to_owned(),
            attributes: attributes.map_or(&NONE, |(_, value)| value),
        })
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// 64-bit numbers are texts in the JSON form of protocol buffers.
fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// The first of a list of payloads, as JSON.
fn payload(payloads: &Value) -> Result<Option<Value>> {
    let Some(data) = payloads.pointer("/payloads/0/data").and_then(Value::as_str) else { return Ok(None) };
    let bytes = STANDARD.decode(data).context("a payload is not base64")?;
    Ok(Some(serde_json::from_slice(&bytes).context("a payload is not JSON")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded() -> Value {
        serde_json::from_str(include_str!("../../data/history.json")).unwrap()
    }

    #[test]
    fn a_recorded_history_gives_tasks_with_times_attempts_and_results() {
        let run = Run::parse(&recorded()).unwrap();
        assert_eq!(run.task_queue, "pictures-workflows");
        let thumbnails: Vec<_> = run.tasks_of("thumbnails").collect();
        assert_eq!(thumbnails.len(), 3);
        for task in thumbnails {
            assert_eq!((task.activity_type.as_str(), task.started.as_ref().unwrap().0), ("Thumbnail", 1));
            assert_eq!(task.result.as_ref().unwrap()["picture"], task.input["picture"]);
            assert!(task.accepted > run.accepted && task.completed() > Some(task.accepted));
        }
        assert_eq!(run.tasks_of("pictures-local").count(), 1);
        assert_eq!(run.closed.as_ref().unwrap().1, "WORKFLOW_EXECUTION_COMPLETED");
        assert_eq!(run.result.as_ref().unwrap()["checked"], 3);
        assert!(run.first_task_completed.is_some() && run.failures.is_empty(), "{run:?}");
    }

    #[test]
    fn a_workflow_task_that_was_not_taken_from_a_cache_is_no_failure_and_a_lost_one_is() {
        for (timeout, failures) in [("TIMEOUT_TYPE_SCHEDULE_TO_START", 0), ("TIMEOUT_TYPE_START_TO_CLOSE", 1)] {
            let mut history = recorded();
            history["events"].as_array_mut().unwrap().push(serde_json::json!({
                "eventId": "99", "eventTime": "2026-01-01T00:00:00Z", "eventType": "EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT",
                "workflowTaskTimedOutEventAttributes": {"timeoutType": timeout},
            }));
            assert_eq!(Run::parse(&history).unwrap().failures.len(), failures, "{timeout}");
        }
    }

    #[test]
    fn what_is_no_history_is_named() {
        assert!(Run::parse(&serde_json::json!({})).is_err());
        let event = serde_json::json!({"events": [{"eventId": "7", "eventTime": "noon"}]});
        assert!(format!("{:#}", Run::parse(&event).unwrap_err()).contains("event 7"));
    }
}
