//! `temporal.api.failure.v1.Failure`: its message and stack trace are texts of the user's, and belong into its encoded
//! attributes when payloads are encoded.

use crate::fields::{Fields, Malformed, Value, put_bytes};

/// Full name of the message.
pub const NAME: &str = "temporal.api.failure.v1.Failure";

const MESSAGE: u32 = 1;
const STACK_TRACE: u32 = 3;
const ENCODED_ATTRIBUTES: u32 = 20;

/// The texts of a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailureText<'a> {
    /// `message`.
    pub message: &'a [u8],
    /// `stack_trace`.
    pub stack_trace: &'a [u8],
    /// `encoded_attributes`, an encoded payload.
    pub encoded_attributes: Option<&'a [u8]>,
}

/// What a failure has in place of its texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailureChange {
    /// `message`.
    pub message: Vec<u8>,
    /// `stack_trace`.
    pub stack_trace: Vec<u8>,
    /// `encoded_attributes`, an encoded payload.
    pub encoded_attributes: Option<Vec<u8>>,
}

/// Whether a field of a failure is one of its texts.
pub fn is_text(number: u32) -> bool {
    [MESSAGE, STACK_TRACE, ENCODED_ATTRIBUTES].contains(&number)
}

impl<'a> FailureText<'a> {
    pub(crate) fn read(fields: Fields<'a>) -> Result<Self, Malformed> {
        let mut text = Self::default();
        for field in fields {
            let field = field?;
            match (field.number, field.value) {
                (MESSAGE, Value::Bytes(bytes)) => text.message = bytes,
                (STACK_TRACE, Value::Bytes(bytes)) => text.stack_trace = bytes,
                (ENCODED_ATTRIBUTES, Value::Bytes(bytes)) => text.encoded_attributes = Some(bytes),
                _ => {}
            }
        }
        Ok(text)
    }
}

impl FailureChange {
    /// Its fields, as they stand in a failure.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut fields = Vec::new();
        for (number, bytes) in [(MESSAGE, &self.message), (STACK_TRACE, &self.stack_trace)] {
            if !bytes.is_empty() {
                put_bytes(number, bytes, &mut fields);
            }
        }
        if let Some(attributes) = &self.encoded_attributes {
            put_bytes(ENCODED_ATTRIBUTES, attributes, &mut fields);
        }
        fields
    }
}
