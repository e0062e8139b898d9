//! Payloads of Temporal to JSON text and back.

use temporalio_common::protos::temporal::api::common::v1::Payload;

const ENCODING: &str = "encoding";
const JSON: &[u8] = b"json/plain";
const NULL: &[u8] = b"binary/null";

/// An argument that can't be given to a handler.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// Its encoding is not JSON.
    #[error(
        "argument {index} has encoding {encoding:?}, which this runtime can't read; send json/plain, which is what every SDK's default data converter makes of plain values"
    )]
    Encoding {
        /// Position, from 0.
        index: usize,
        /// Encoding that the payload names.
        encoding: String,
    },
    /// It says JSON, and is not.
    #[error("argument {index} says json/plain and is not JSON ({problem}); check the data converter of the caller")]
    Json {
        /// Position, from 0.
        index: usize,
        /// What the parser found.
        problem: String,
    },
}

/// The arguments as one JSON array.
///
/// # Errors
/// An argument is not JSON; names its position.
pub fn arguments(payloads: &[Payload]) -> Result<Vec<u8>, ArgumentError> {
    let mut array = Vec::with_capacity(2 + payloads.iter().map(|payload| payload.data.len() + 1).sum::<usize>());
    array.push(b'[');
    for (index, payload) in payloads.iter().enumerate() {
        if index > 0 {
            array.push(b',');
        }
        match payload.metadata.get(ENCODING).map(Vec::as_slice) {
            Some(NULL) => array.extend_from_slice(b"null"),
            Some(JSON) => {
                is_json(&payload.data).map_err(|problem| ArgumentError::Json { index, problem })?;
                array.extend_from_slice(&payload.data);
            }
            other => {
                let encoding = String::from_utf8_lossy(other.unwrap_or_default()).into_owned();
                return Err(ArgumentError::Encoding { index, encoding });
            }
        }
    }
    array.push(b']');
    Ok(array)
}

/// The result of a handler as a payload: nothing printed means null.
///
/// # Errors
/// The output is not one JSON value; says where it stops being so.
pub fn result(output: &[u8]) -> Result<Payload, String> {
    let text = output.trim_ascii();
    let (encoding, data) = if text.is_empty() {
        (NULL, Vec::new())
    } else {
        is_json(text)?;
        (JSON, text.to_vec())
    };
    let metadata = [(ENCODING.to_owned(), encoding.to_vec())].into();
    Ok(Payload { metadata, data, ..Payload::default() })
}

/// The first of some payloads as JSON, if it is that: what a heartbeat of an earlier attempt told.
pub fn first(payloads: &[Payload]) -> Option<Vec<u8>> {
    let first = payloads.first().filter(|payload| payload.metadata.get(ENCODING).is_some_and(|it| it == JSON))?;
    is_json(&first.data).is_ok().then(|| first.data.clone())
}

/// A payload of what is known to be one JSON value.
pub fn of_json(text: &str) -> Payload {
    let metadata = [(ENCODING.to_owned(), JSON.to_vec())].into();
    Payload { metadata, data: text.as_bytes().to_vec(), ..Payload::default() }
}

fn is_json(text: &[u8]) -> Result<(), String> {
    // The parser does not look into strings that it skips.
    let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).map(|_| ()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(encoding: &str, data: &str) -> Payload {
        let metadata = [(ENCODING.to_owned(), encoding.as_bytes().to_vec())].into();
        Payload { metadata, data: data.as_bytes().to_vec(), ..Payload::default() }
    }

    #[test]
    fn arguments_become_one_array() {
        let payloads = [payload("json/plain", r#"{"n": 1}"#), payload("binary/null", ""), payload("json/plain", "2")];
        assert_eq!(arguments(&payloads).unwrap(), br#"[{"n": 1},null,2]"#);
        assert_eq!(arguments(&[]).unwrap(), b"[]");
    }

    #[test]
    fn an_argument_that_is_not_json_is_named() {
        let encrypted = [payload("json/plain", "1"), payload("binary/encrypted", "x")];
        let message = arguments(&encrypted).unwrap_err().to_string();
        assert!(message.contains("argument 1") && message.contains("\"binary/encrypted\""), "{message}");
        let broken = arguments(&[payload("json/plain", "{")]).unwrap_err().to_string();
        assert!(broken.contains("argument 0"), "{broken}");
    }

    #[test]
    fn a_result_is_one_json_value() {
        assert_eq!(result(b" {\"a\":1}\n").unwrap().data, b"{\"a\":1}");
        assert_eq!(result(b" \n").unwrap().metadata[ENCODING], NULL);
        assert!(result(b"1 2").is_err() && result(b"done").is_err());
        assert!(result(b"\"\xff\"").is_err(), "no UTF-8");
    }
}
