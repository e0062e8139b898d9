//! What fuzz targets call of the sidecar.

use bytes::Bytes;
use futures::FutureExt as _;
use http_body_util::StreamBody;
use hyper::body::Frame;
use temporal_wire::{MESSAGES, Message};
use tonic::Status;

use super::budget::Budget;
use super::calls::{Call, Poll};
use super::frame;
use super::payloads::{open, seal};
use crate::codec::{Opener, Sealer};
use crate::metrics::TaskType;

const TYPES: [TaskType; 3] = [TaskType::Activity, TaskType::Workflow, TaskType::Nexus];

/// A body that comes in pieces of so many bytes. What is read of it is read again.
pub fn frames(body: &[u8], piece: usize) {
    let budget = Budget::new(1 << 20);
    let pieces = body.chunks(piece.max(1)).map(|piece| Ok::<_, Status>(Frame::data(Bytes::copy_from_slice(piece))));
    let read = frame::Message::read(StreamBody::new(futures::stream::iter(pieces)), Some(b"gzip"), &budget);
    // All of it is there already, and nobody else has of the budget.
    let Some(bytes) = read.now_or_never().and_then(Result::ok).and_then(|message| message.bytes) else { return };
    let again = frame::Message::read(frame::body(bytes.clone(), None, None), None, &budget).now_or_never();
    assert_eq!(again.and_then(Result::ok).and_then(|message| message.bytes), Some(bytes));
}

/// A message of the kind at `index` of the table. What was sealed can be opened, and is the same from then on.
pub fn message(bytes: &[u8], index: usize, sealer: &Sealer, opener: &Opener) {
    let kind = &MESSAGES[index % MESSAGES.len()];
    let Some(opened) = there_and_back(bytes, kind, sealer, opener) else { return };
    assert_eq!(there_and_back(&opened, kind, sealer, opener), Some(opened), "{}", kind.name);
}

fn there_and_back(bytes: &[u8], kind: &Message, sealer: &Sealer, opener: &Opener) -> Option<Bytes> {
    let (sealed, _) = seal(sealer, bytes, kind).ok()?;
    let sealed = sealed.unwrap_or_else(|| Bytes::copy_from_slice(bytes));
    match open(opener, &sealed, kind) {
        Ok((opened, ..)) => Some(opened.unwrap_or(sealed)),
        Err(status) => panic!("what was sealed can't be read: {status}"),
    }
}

/// What is read of any call.
pub fn call(bytes: &[u8]) {
    let answer = Bytes::copy_from_slice(bytes);
    for task_type in TYPES {
        _ = Poll::read(task_type, bytes);
        _ = Call::Poll(task_type).tasks(&answer);
    }
    for call in [Call::RespondWorkflow, Call::Start] {
        _ = call.tasks(&answer);
        if let Ok(Some(without)) = call.without_eager(bytes) {
            assert_eq!(call.without_eager(&without), Ok(None));
        }
    }
}
