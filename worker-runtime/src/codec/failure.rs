//! Failures: their messages and stack traces may hold what a user wrote, so they are encrypted too.
//!
//! The form is that of the failure converters of Temporal's SDKs with encoded attributes
//! (`temporal.api.failure.v1.Failure.encoded_attributes`).

use std::mem::{replace, take};

#[cfg(test)]
use serde_json::{Map, Value};

#[cfg(test)]
use super::Opener;
use super::{CodecError, ENCODING, Failure, Payload, Sealer};

/// Message of a failure whose own is in its encoded attributes.
pub const PLACEHOLDER: &str = "Encoded failure";
/// Encoding of the attributes before they are encrypted.
const JSON: &[u8] = b"json/plain";

/// `failure` with message and stack trace of it and of all its causes encrypted, as its encoded attributes. Encoded
/// attributes that it has already are encrypted unless they are, and its message is left to whoever made them.
///
/// The other payloads of a failure, such as the details of an application failure, are not touched.
///
/// # Errors
/// As [`Sealer::seal`]. Then nothing is returned, so that nothing half encrypted can be sent.
pub fn encode_failure(mut failure: Failure, sealer: &Sealer) -> Result<Failure, CodecError> {
    each(&mut failure, |level| {
        let attributes = level.encoded_attributes.take().unwrap_or_else(|| take_attributes(level));
        level.encoded_attributes = Some(sealer.seal(attributes)?);
        Ok(())
    })?;
    Ok(failure)
}

/// What a client makes of it: `failure` with the messages and stack traces that [`encode_failure`] encrypted. Encoded attributes of another form,
/// which somebody else's converter may make, are decrypted and stay where they are.
///
/// A failure without encoded attributes stays as it is in every mode: the server writes such ones itself.
///
/// # Errors
/// As [`Opener::open`].
#[cfg(test)]
pub fn decode_failure(mut failure: Failure, opener: &Opener) -> Result<Failure, CodecError> {
    each(&mut failure, |level| {
        let Some(sealed) = level.encoded_attributes.take() else { return Ok(()) };
        let opened = opener.open(sealed)?;
        match attributes(&opened) {
            Some((message, stack_trace)) => (level.message, level.stack_trace) = (message, stack_trace),
            None => level.encoded_attributes = Some(opened),
        }
        Ok(())
    })?;
    Ok(failure)
}

/// Takes message and stack trace out of `failure`.
fn take_attributes(failure: &mut Failure) -> Payload {
    let message = replace(&mut failure.message, PLACEHOLDER.to_owned());
    let stack_trace = take(&mut failure.stack_trace);
    let text = serde_json::json!({ "message": message, "stack_trace": stack_trace }).to_string();
    let metadata = [(ENCODING.to_owned(), JSON.to_vec())].into();
    Payload { metadata, data: text.into_bytes(), ..Payload::default() }
}

/// Message and stack trace in encoded attributes. The message has to be there, the stack trace need not.
#[cfg(test)]
fn attributes(payload: &Payload) -> Option<(String, String)> {
    payload.metadata.get(ENCODING).filter(|encoding| *encoding == JSON)?;
    let fields: Map<String, Value> = serde_json::from_slice(&payload.data).ok()?;
    let text = |name| fields.get(name).and_then(Value::as_str).map(str::to_owned);
    Some((text("message")?, text("stack_trace").unwrap_or_default()))
}

/// Calls `change` with `failure` and every cause of it, outermost first, until one fails.
fn each(
    failure: &mut Failure,
    mut change: impl FnMut(&mut Failure) -> Result<(), CodecError>,
) -> Result<(), CodecError> {
    let mut next = Some(failure);
    while let Some(level) = next {
        change(level)?;
        next = level.cause.as_deref_mut();
    }
    Ok(())
}
