//! Encrypts what goes to the server, and decrypts what comes from it.

use bytes::Bytes;
use operator_core::contract;
use prometheus::{IntCounterVec, Opts};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use temporal_wire::{FailureChange, FailureText, Message, Place, RewriteError, Visitor, rewrite};
use temporalio_common::protos::temporal::api::common::v1::Payload;
use tonic::Status;

use crate::codec::{CodecError, Opener, PLACEHOLDER, Sealer};
use crate::encryption::Encryption;
use crate::metrics::Metrics;

/// Encoding of a payload that stands for one that was refused: no SDK has a converter for it, so that whoever needs the value
/// fails, and says so.
const REFUSED: &[u8] = b"binary/refused-by-sidecar";
const JSON: &[u8] = b"json/plain";
/// Field of a fleet that encryption of a sidecar is set in.
const FIELD: &str = "spec.sidecar.encryption";

/// Payloads of the calls of a Worker. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Payloads {
    encryption: Encryption,
    counts: IntCounterVec,
}

/// Message and stack trace of a failure, as the failure converters of Temporal's SDKs write them.
#[derive(Deserialize, Serialize)]
struct Attributes {
    message: String,
    #[serde(default)]
    stack_trace: String,
}

impl Payloads {
    /// Payloads under these keys.
    ///
    /// # Errors
    /// Two metrics share a name; a bug.
    pub fn new(encryption: Encryption, metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let counts = IntCounterVec::new(
            Opts::new(contract::METRIC_SIDECAR_PAYLOADS, "Payloads that the sidecar changed, by what came of them."),
            &["outcome"],
        )?;
        metrics.register(Box::new(counts.clone()))?;
        Ok(Self { encryption, counts })
    }

    /// Whether messages are to be looked through.
    pub fn are_encrypted(&self) -> bool {
        self.encryption.is_on()
    }

    /// A request with its payloads encrypted.
    ///
    /// # Errors
    /// One can't be: nothing may be sent.
    pub fn seal(&self, message: Bytes, kind: &Message) -> Result<Bytes, Status> {
        let Some(sealer) = self.encryption.sealer() else { return Ok(message) };
        let (sealed, count) = seal(&sealer, &message, kind)?;
        self.count("encrypted", count);
        Ok(sealed.unwrap_or(message))
    }

    /// An answer with its payloads decrypted. In place of one that is refused, or can't be decrypted, stands another that says so.
    ///
    /// # Errors
    /// It is no message.
    pub fn open(&self, message: Bytes, kind: &Message) -> Result<Bytes, Status> {
        let Some(opener) = self.encryption.opener() else { return Ok(message) };
        let (opened, count, refused) = open(&opener, &message, kind)?;
        self.count("decrypted", count);
        self.count("refused", u64::try_from(refused.len()).unwrap_or(u64::MAX));
        if let Some(error) = refused.first() {
            tracing::error!(payloads = refused.len(), message = kind.name, "{}", error.in_field(FIELD));
        }
        Ok(opened.unwrap_or(message))
    }

    fn count(&self, outcome: &str, payloads: u64) {
        if payloads > 0 {
            self.counts.with_label_values(&[outcome]).inc_by(payloads);
        }
    }
}

/// A message with its payloads encrypted, if that changes it, and how many they are.
///
/// # Errors
/// As [`Payloads::seal`].
pub fn seal(sealer: &Sealer, message: &[u8], kind: &Message) -> Result<(Option<Bytes>, u64), Status> {
    let mut seals = Seals { sealer, sealed: 0 };
    let sealed = rewrite(message, kind, &mut seals).map_err(|error| match error {
        RewriteError::Malformed(problem) => Status::invalid_argument(format!("the request can't be read: {problem}")),
        RewriteError::Visitor(error) => Status::failed_precondition(error.in_field(FIELD)),
    })?;
    Ok((sealed, seals.sealed))
}

/// A message with its payloads decrypted, if that changes it, how many they are, and why others were refused.
///
/// # Errors
/// As [`Payloads::open`].
pub fn open(opener: &Opener, message: &[u8], kind: &Message) -> Result<(Option<Bytes>, u64, Vec<CodecError>), Status> {
    let mut opens = Opens { opener, opened: 0, refused: Vec::new() };
    let opened = rewrite(message, kind, &mut opens)
        .map_err(|error| Status::internal(format!("the server's answer can't be read: {error}")))?;
    Ok((opened, opens.opened, opens.refused))
}

struct Seals<'a> {
    sealer: &'a Sealer,
    sealed: u64,
}

impl Seals<'_> {
    fn seal(&mut self, payload: &[u8]) -> Result<Option<Vec<u8>>, CodecError> {
        let sealed = self.sealer.seal_encoded(payload)?;
        self.sealed += u64::from(sealed.is_some());
        Ok(sealed.map(|sealed| sealed.encode_to_vec()))
    }
}

impl Visitor for Seals<'_> {
    type Error = CodecError;

    fn payload(&mut self, payload: &[u8], _: Place) -> Result<Option<Vec<u8>>, CodecError> {
        self.seal(payload)
    }

    /// Attributes that are there were made by the SDK's own converter, which has seen to the message.
    fn failure(&mut self, text: &FailureText<'_>) -> Result<Option<FailureChange>, CodecError> {
        let (message, stack_trace) = (text.message.to_vec(), text.stack_trace.to_vec());
        if let Some(attributes) = text.encoded_attributes {
            let sealed = self.seal(attributes)?;
            return Ok(sealed.map(|sealed| FailureChange { message, stack_trace, encoded_attributes: Some(sealed) }));
        }
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let attributes = Attributes { message: text(message), stack_trace: text(stack_trace) };
        // Text alone: writing it as JSON can't fail.
        let data = serde_json::to_vec(&attributes).unwrap_or_default();
        let plain = payload(JSON, data).encode_to_vec();
        Ok(Some(FailureChange {
            message: PLACEHOLDER.into(),
            stack_trace: Vec::new(),
            encoded_attributes: self.seal(&plain)?,
        }))
    }
}

struct Opens<'a> {
    opener: &'a Opener,
    opened: u64,
    refused: Vec<CodecError>,
}

impl Visitor for Opens<'_> {
    type Error = std::convert::Infallible;

    fn payload(&mut self, encoded: &[u8], place: Place) -> Result<Option<Vec<u8>>, Self::Error> {
        match self.opener.open_encoded(encoded) {
            Ok(opened) => {
                self.opened += u64::from(opened.is_some());
                Ok(opened)
            }
            // The server computes those itself, and the codecs of most SDKs leave headers as they are.
            Err(CodecError::NotEncrypted { .. }) if place != Place::Value => Ok(None),
            Err(error) => {
                let stands_for_it = payload(REFUSED, error.in_field(FIELD).into_bytes()).encode_to_vec();
                self.refused.push(error);
                Ok(Some(stands_for_it))
            }
        }
    }

    /// A failure without encoded attributes is the server's own. Attributes of another form are the SDK's to read.
    fn failure(&mut self, text: &FailureText<'_>) -> Result<Option<FailureChange>, Self::Error> {
        let Some(attributes) = text.encoded_attributes else { return Ok(None) };
        let Some(opened) = self.payload(attributes, Place::Value)? else { return Ok(None) };
        Ok(Some(match read(&opened) {
            Some(Attributes { message, stack_trace }) => FailureChange {
                message: message.into_bytes(),
                stack_trace: stack_trace.into_bytes(),
                encoded_attributes: None,
            },
            None => FailureChange {
                message: text.message.to_vec(),
                stack_trace: text.stack_trace.to_vec(),
                encoded_attributes: Some(opened),
            },
        }))
    }
}

fn payload(encoding: &[u8], data: Vec<u8>) -> Payload {
    Payload { metadata: [("encoding".to_owned(), encoding.to_vec())].into(), data, ..Payload::default() }
}

fn read(encoded: &[u8]) -> Option<Attributes> {
    let payload = Payload::decode(encoded).ok()?;
    let is_json = payload.metadata.get("encoding").is_some_and(|encoding| encoding == JSON);
    is_json.then(|| serde_json::from_slice(&payload.data).ok()).flatten()
}

#[cfg(test)]
mod tests;
