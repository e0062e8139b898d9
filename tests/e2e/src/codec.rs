//! A codec of other make: payloads that Node's own cryptography encrypts, and decrypts.

use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use temporalio_protos::temporal::api::common::v1::Payload;

use crate::ground::TEMPORAL_NAMESPACE;

/// The keys that it knows, by id.
pub const KEYS: [(&str, [u8; 32]); 2] = [("k1", [1; 32]), ("k2", [2; 32])];

/// Encrypts payloads with a key, for the Temporal namespace of all tests.
///
/// # Errors
/// There is no `node`, or it does not know the key.
pub fn seal(key: &str, payloads: &[Payload]) -> Result<Vec<Payload>> {
    node("seal", key, payloads)
}

/// Decrypts payloads, each with the key that it names.
///
/// # Errors
/// There is no `node`, or one of them can't be decrypted.
pub fn open(payloads: &[Payload]) -> Result<Vec<Payload>> {
    node("open", "", payloads)
}

/// Id of the key that encrypted a payload; none where none did.
#[must_use]
pub fn key_of(payload: &Payload) -> Option<String> {
    payload.metadata.get("encryption-key-id").map(|id| String::from_utf8_lossy(id).into_owned())
}

/// A payload as JSON, in the words of a codec server.
#[must_use]
pub fn to_json(payload: &Payload) -> Value {
    let named = |(name, value): (&String, &Vec<u8>)| (name.clone(), STANDARD.encode(value).into());
    let metadata: Map<_, _> = payload.metadata.iter().map(named).collect();
    json!({"metadata": metadata, "data": STANDARD.encode(&payload.data)})
}

/// A payload from JSON.
///
/// # Errors
/// It is none.
pub fn from_json(value: &Value) -> Result<Payload> {
    let bytes = |value: &Value| anyhow::Ok(STANDARD.decode(value.as_str().context("no text")?)?);
    let metadata = value["metadata"].as_object().context("a payload without metadata")?;
    let metadata = metadata.iter().map(|(name, value)| Ok((name.clone(), bytes(value)?)));
    Ok(Payload { metadata: metadata.collect::<Result<_>>()?, data: bytes(&value["data"])?, ..Payload::default() })
}

fn node(what: &str, key: &str, payloads: &[Payload]) -> Result<Vec<Payload>> {
    let keys: Map<_, _> = KEYS.iter().map(|(id, key)| ((*id).to_owned(), STANDARD.encode(key).into())).collect();
    // From a file: through a pipe, both would wait for each other once the answers fill theirs.
    let mut lines = tempfile::tempfile()?;
    for payload in payloads {
        let mut line = to_json(payload);
        line["do"] = json!(what);
        line["keys"] = json!(keys);
        line["key"] = json!(key);
        line["namespace"] = json!(TEMPORAL_NAMESPACE);
        writeln!(lines, "{line}")?;
    }
    lines.rewind()?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/codec.mjs");
    let output = Command::new("node").arg(script).stdin(lines).stderr(Stdio::inherit()).output().context("node")?;
    ensure!(output.status.success(), "node: {}", output.status);
    let answers = String::from_utf8(output.stdout)?.lines().map(answer).collect::<Result<Vec<_>>>()?;
    ensure!(answers.len() == payloads.len(), "{} answers for {} payloads", answers.len(), payloads.len());
    Ok(answers)
}

fn answer(line: &str) -> Result<Payload> {
    let answer: Value = serde_json::from_str(line)?;
    ensure!(answer.get("error").is_none(), "{answer}");
    from_json(&answer)
}
