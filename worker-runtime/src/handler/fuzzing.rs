//! What the [fuzz targets](crate::fuzzing) give to handlers' readers, and what has to hold.

use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::failure;
use super::line::{self, Word};
use super::lines::LineBuffer;
use super::{Call, MAX_OUTPUT};
use crate::report::Terms;
use crate::stop::Stop;

/// Longest line here, so that small inputs are longer.
const LONGEST: usize = 64;

/// Lines that arrive in pieces are those of the whole, up to the first that is too long.
pub fn lines(written: &[u8], size: usize) {
    let mut buffer = LineBuffer::of(LONGEST);
    let mut expected = written.split(|byte| *byte == b'\n');
    for piece in written.chunks(size) {
        buffer.push(piece);
        loop {
            match buffer.next() {
                Ok(None) => break,
                Ok(Some(line)) => {
                    assert!(line.len() <= LONGEST, "a line of {} bytes", line.len());
                    assert_eq!(Some(line.as_slice()), expected.next());
                }
                Err(_) => {
                    assert!(expected.next().is_some_and(|line| line.len() > LONGEST), "it was not too long");
                    return;
                }
            }
        }
    }
    assert_eq!(Some(buffer.rest().as_slice()), expected.next());
    assert_eq!(expected.next(), None);
}

/// What a line says, it says again when it is written by what was understood.
pub fn word(line: &[u8], id: Option<u64>) {
    let Ok(Some(word)) = line::read(line, id) else { return };
    let start = id.map(|id| format!(r#""id":{id},"#)).unwrap_or_default();
    let text = |data: &[u8]| String::from_utf8(data.to_vec()).unwrap_or_else(|_| panic!("no UTF-8 in {line:?}"));
    let again = match &word {
        Word::Heartbeat(details) => format!(r#"{{{start}"heartbeat":{}}}"#, text(&details.data)),
        Word::Result(result) => format!(r#"{{{start}"result":{}}}"#, text(&result.data)),
        Word::Cancelled => format!(r#"{{{start}"cancel":true}}"#),
        Word::Failure(_) => return,
    };
    assert!(line.len() <= MAX_OUTPUT, "inputs are small");
    assert_eq!(line::read(again.as_bytes(), id), Ok(Some(word)), "{again}");
}

/// A task is one line with what the caller gave, whatever that is.
pub fn task(given: &[u8]) {
    let Ok(arguments) = serde_json::from_slice::<Value>(given) else { return };
    let name = String::from_utf8_lossy(given).into_owned();
    let call = Call {
        activity_type: name.clone(),
        activity_id: name.clone(),
        workflow_id: name.clone(),
        attempt: 1,
        task_queue: name.clone(),
        arguments: given.to_vec(),
        heartbeat: Some(given.to_vec()),
        device: Some(1),
        trace: Vec::new(),
        stop: Stop::new(watch::channel(None).1, CancellationToken::new()),
        progress: watch::channel(None).0,
    };
    let line = line::start(7, &call);
    assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1), "not one line");
    // What is nested as deep as the reader goes is one level too deep in a line.
    let Ok(read) = serde_json::from_slice::<Value>(&line) else { return };
    assert_eq!((&read["args"], &read["heartbeat"]), (&arguments, &arguments));
    assert_eq!((&read["type"], &read["info"]["workflowId"]), (&Value::from(name.clone()), &Value::from(name)));
}

/// The message and the terms of a failure in an output, if one can be read.
pub fn failure(output: &[u8]) -> Option<(String, Terms)> {
    let chosen = failure::in_output(output)?.ok()?;
    Some((chosen.message, chosen.terms))
}
