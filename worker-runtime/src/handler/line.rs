//! The protocol of persistent processes: one JSON object a line, in both directions.
//!
//! To the process: `{"id", "type", "args", "info", "heartbeat"}` starts a task (`heartbeat` are the details that an earlier
//! attempt told last; absent without), `{"id", "cancel": REASON}` asks it to stop. From the process: any number of
//! `{"id", "heartbeat": DETAILS}`, then one of `{"id", "result": VALUE}`, `{"id", "failure": {…}}`, `{"id", "cancel": true}`.
//!
//! A service whose answer is a stream of lines uses the words of a process, without `id`.

use serde::{Deserialize, Deserializer};
use serde_json::json;
use serde_json::value::RawValue;
use temporalio_common::protos::temporal::api::common::v1::Payload;

use super::failure::{self, Chosen};
use super::{Call, Reason};
use crate::payload;

/// What a process says of its task.
#[derive(Debug, PartialEq)]
pub(super) enum Word {
    /// It goes on, and these are the details.
    Heartbeat(Payload),
    /// It ended with a result.
    Result(Payload),
    /// It ended without one.
    Failure(Chosen),
    /// It stopped, as asked.
    Cancelled,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(default)]
    id: Option<u64>,
    #[serde(default, borrow, deserialize_with = "there")]
    heartbeat: Option<&'a RawValue>,
    #[serde(default, borrow, deserialize_with = "there")]
    result: Option<&'a RawValue>,
    #[serde(default, borrow, deserialize_with = "there")]
    failure: Option<&'a RawValue>,
    #[serde(default)]
    cancel: bool,
}

/// A field that is there, though it may be `null`.
fn there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// The line that starts a task.
pub(super) fn start(id: u64, call: &Call) -> Vec<u8> {
    let mut info = json!({
        "activityId": call.activity_id,
        "workflowId": call.workflow_id,
        "attempt": call.attempt,
        "taskQueue": call.task_queue,
    });
    if let Some(device) = call.device {
        info["deviceIndex"] = device.into();
    }
    for (name, value) in &call.trace {
        info[*name] = value.as_str().into();
    }
    let activity_type = json!(call.activity_type);
    let mut line = format!(r#"{{"id":{id},"type":{activity_type},"info":{info},"args":"#).into_bytes();
    push_on_one_line(&mut line, &call.arguments);
    if let Some(details) = &call.heartbeat {
        line.extend_from_slice(br#","heartbeat":"#);
        push_on_one_line(&mut line, details);
    }
    line.extend_from_slice(b"}\n");
    line
}

/// The line that asks a task to stop.
pub(super) fn cancel(id: u64, reason: Reason) -> Vec<u8> {
    format!("{}\n", json!({"id": id, "cancel": reason.as_str()})).into_bytes()
}

/// JSON as it is, but for line breaks: between its tokens they mean nothing, and within a string there are none.
fn push_on_one_line(line: &mut Vec<u8>, json: &[u8]) {
    line.extend(json.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
}

/// What a line says of task `id`, or of the only one; nothing if it speaks of another one, which has ended.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(line: &[u8], id: Option<u64>) -> Result<Option<Word>, String> {
    let line: Line<'_> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    if line.id != id {
        return Ok(None);
    }
    let word = match (line.heartbeat, line.result, line.failure, line.cancel) {
        (Some(details), None, None, false) => Word::Heartbeat(payload::of_json(details.get())),
        (None, Some(result), None, false) => Word::Result(payload::of_json(result.get())),
        (None, None, Some(told), false) => Word::Failure(failure::read(told.get())?),
        (None, None, None, true) => Word::Cancelled,
        _ => return Err("it has none, or several, of heartbeat, result, failure and cancel; write one".to_owned()),
    };
    Ok(Some(word))
}

#[cfg(test)]
mod tests {

    use temporalio_common::protos::temporal::api::common::v1::Payload;
    use tokio::sync::watch;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::stop::Stop;

    fn call(arguments: &str, heartbeat: Option<&str>) -> Call {
        let (_, server) = watch::channel(None);
        Call {
            activity_type: "Re\"size".into(),
            activity_id: "a".into(),
            workflow_id: "w\n".into(),
            attempt: 2,
            task_queue: "q".into(),
            arguments: arguments.as_bytes().to_vec(),
            heartbeat: heartbeat.map(|details| details.as_bytes().to_vec()),
            device: None,
            trace: Vec::new(),
            stop: Stop::new(server, CancellationToken::new()),
            progress: watch::channel(None).0,
        }
    }

    fn said(line: &str) -> Result<Option<Word>, String> {
        read(line.as_bytes(), Some(7))
    }

    #[test]
    fn a_task_is_one_line_whatever_its_arguments_look_like() {
        let line = start(7, &call("[{\n\"a\": \"x\\ny\"\r\n}]", Some("{\"n\":\n3}")));
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["args"], json!([{"a": "x\ny"}]));
        assert_eq!((&value["type"], &value["heartbeat"]), (&json!("Re\"size"), &json!({"n": 3})));
        assert_eq!(value["info"], json!({"activityId": "a", "workflowId": "w\n", "attempt": 2, "taskQueue": "q"}));
        let first: serde_json::Value = serde_json::from_slice(&start(1, &call("[]", None))).unwrap();
        assert!(first.get("heartbeat").is_none());
        let with_device = start(1, &Call { device: Some(3), ..call("[]", None) });
        let with_device: serde_json::Value = serde_json::from_slice(&with_device).unwrap();
        assert_eq!(with_device["info"]["deviceIndex"], json!(3));
    }

    #[test]
    fn every_word_of_a_process_is_understood() {
        let data = |word: Result<Option<Word>, String>| match word.unwrap().unwrap() {
            Word::Heartbeat(Payload { data, .. }) | Word::Result(Payload { data, .. }) => data,
            word => panic!("{word:?}"),
        };
        assert_eq!(data(said(r#"{"id":7,"heartbeat":{"n":1}}"#)), br#"{"n":1}"#);
        assert_eq!(data(said(r#"{"id":7,"result":null}"#)), b"null", "null is a result");
        let Word::Failure(chosen) = said(r#"{"id":7,"failure":{"message":"no"}}"#).unwrap().unwrap() else { panic!() };
        assert_eq!(chosen.message, "no");
        assert_eq!(said(r#"{"id":7,"cancel":true}"#), Ok(Some(Word::Cancelled)));
        assert_eq!(said(r#"{"id":6,"result":1}"#), Ok(None), "of a task that has ended");
        assert_eq!(said(r#"{"result":1}"#), Ok(None), "of which task?");
        assert_eq!(read(br#"{"result":1}"#, None), Ok(Some(Word::Result(payload::of_json("1")))), "of the only one");
    }

    #[test]
    fn a_line_that_says_nothing_or_too_much_is_refused() {
        for line in [r#"{"id":7}"#, r#"{"id":7,"result":1,"cancel":true}"#, "noise", "", "\u{fffd}"] {
            assert!(said(line).is_err(), "{line}");
        }
        assert!(read(b"{\"id\":7,\"result\":\"\xff\"}", Some(7)).is_err(), "no UTF-8");
    }

    #[test]
    fn a_wish_to_stop_names_its_reason() {
        assert_eq!(cancel(7, Reason::WorkerShutdown), b"{\"cancel\":\"WORKER_SHUTDOWN\",\"id\":7}\n");
    }
}
