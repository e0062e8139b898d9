//! Payloads in messages of Temporal's API, found and changed on the wire.
//!
//! Which fields lead to payloads is generated from the API's own descriptors. Messages are never decoded as a whole: what a
//! change does not concern, fields that this release does not know among it, stays byte for byte as it is.
#![deny(clippy::unwrap_used, clippy::expect_used)]

mod failure;
mod fields;
mod rewrite;
mod without;

pub use failure::{FailureChange, FailureText};
pub use fields::{Field, Fields, Malformed, Value};
pub use rewrite::{Place, RewriteError, Visitor, rewrite};
pub use without::without;

// What the build script writes needs a crate whose descriptors it reads, and nothing else of it.
use temporalio_protos as _;

include!(concat!(env!("OUT_DIR"), "/table.rs"));

/// A message that holds payloads.
#[derive(Debug)]
pub struct Message {
    /// Its full name, without a leading dot.
    pub name: &'static str,
    /// Numbers of the fields that lead to payloads, in order.
    pub fields: &'static [(u32, Leads)],
}

/// What a field that leads to payloads holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leads {
    /// A payload.
    Payload,
    /// A `google.protobuf.Any`: what it holds is told by its type.
    Any,
    /// A message of [`MESSAGES`].
    Message(usize),
}

/// A method of the WorkflowService.
#[derive(Debug)]
pub struct Method {
    /// Path of its calls, as in `/temporal.api.workflowservice.v1.WorkflowService/GetSystemInfo`.
    pub path: &'static str,
    /// Its request in [`MESSAGES`]; none when that holds no payload.
    pub request: Option<usize>,
    /// The same of its response.
    pub response: Option<usize>,
}

/// The method whose calls have this path.
#[must_use]
pub fn method(path: &str) -> Option<&'static Method> {
    METHODS.binary_search_by_key(&path, |method| method.path).ok().map(|index| &METHODS[index])
}

/// The message of this full name, if it holds payloads.
#[must_use]
pub fn message(name: &str) -> Option<&'static Message> {
    MESSAGES.binary_search_by_key(&name, |message| message.name).ok().map(|index| &MESSAGES[index])
}

impl Message {
    /// Where a field leads; nowhere for one that leads to no payload.
    fn leads(&self, number: u32) -> Option<Leads> {
        self.fields.iter().find(|(known, _)| *known == number).map(|(_, leads)| *leads)
    }
}
