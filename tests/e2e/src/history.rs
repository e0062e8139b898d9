//! What a Workflow's history says of its activities.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use temporalio_protos::temporal::api::common::v1::{Payload, Payloads};
use temporalio_protos::temporal::api::failure::v1::Failure;
use temporalio_protos::temporal::api::history::v1::HistoryEvent;
use temporalio_protos::temporal::api::history::v1::history_event::Attributes as Event;

/// What a history says of one activity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Activity {
    /// Attempts that were started.
    pub attempt: i32,
    /// Identity of the Worker that took it last.
    pub worker: String,
    /// Why the attempt before the last one failed.
    pub cause: Option<String>,
    /// Its result, once it completed; null where it is not JSON.
    pub result: Option<Value>,
    /// Why it failed for good.
    pub failure: Option<String>,
    /// Its argument and its result, as they are stored.
    pub payloads: Vec<Payload>,
}

/// What the events say of each activity, by its ID.
///
/// # Errors
/// They are no history.
pub fn activities(events: Vec<HistoryEvent>) -> Result<BTreeMap<String, Activity>> {
    let mut activities = BTreeMap::new();
    let mut ids = BTreeMap::new();
    for event in events {
        let id = event.event_id;
        match event.attributes {
            Some(Event::ActivityTaskScheduledEventAttributes(it)) => {
                ids.insert(id, it.activity_id.clone());
                let payloads = all(it.input);
                activities.insert(it.activity_id, Activity { payloads, ..Activity::default() });
            }
            Some(Event::ActivityTaskStartedEventAttributes(it)) => {
                let activity = of(&mut activities, &ids, it.scheduled_event_id)?;
                activity.attempt = it.attempt;
                activity.worker = it.identity;
                activity.cause = it.last_failure.map(|failure| failure.message);
            }
            Some(Event::ActivityTaskCompletedEventAttributes(it)) => {
                let activity = of(&mut activities, &ids, it.scheduled_event_id)?;
                ensure!(activity.result.is_none(), "an activity has completed twice");
                let payloads = all(it.result);
                let data = payloads.first().map(|payload| &payload.data[..]).unwrap_or_default();
                activity.result = Some(serde_json::from_slice(data).unwrap_or(Value::Null));
                activity.payloads.extend(payloads);
            }
            Some(Event::ActivityTaskFailedEventAttributes(it)) => {
                of(&mut activities, &ids, it.scheduled_event_id)?.failure = it.failure.map(whole_message);
            }
            Some(Event::ActivityTaskTimedOutEventAttributes(it)) => {
                of(&mut activities, &ids, it.scheduled_event_id)?.failure = it.failure.map(whole_message);
            }
            _ => {}
        }
    }
    Ok(activities)
}

fn all(payloads: Option<Payloads>) -> Vec<Payload> {
    payloads.unwrap_or_default().payloads
}

fn of<'a>(
    activities: &'a mut BTreeMap<String, Activity>,
    ids: &BTreeMap<i64, String>,
    scheduled: i64,
) -> Result<&'a mut Activity> {
    ids.get(&scheduled).and_then(|id| activities.get_mut(id)).context("an event of an activity never scheduled")
}

fn whole_message(failure: Failure) -> String {
    let cause = failure.cause.map(|cause| format!(": {}", whole_message(*cause))).unwrap_or_default();
    failure.message + &cause
}
