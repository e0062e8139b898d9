//! Helpers of the codec's tests.

mod failures;
mod fixtures;
mod keys;
mod opening;
mod properties;
mod sealing;

use std::sync::Arc;

use super::*;

const KEY: &[u8; 32] = b"test-key-test-key-test-key-test!";
const OTHER: &[u8; 32] = b"another-key-another-key-another!";

/// Names of the four metadata values that format 1 authenticates.
const BOUND: [&str; 4] = [ENCODING, KEY_ID, FORMAT, NAMESPACE];

fn ring(write: (&str, &[u8]), read: &[(&str, &[u8])]) -> Arc<KeyRing> {
    Arc::new(KeyRing::load(write, read.iter().copied()).unwrap())
}

/// Key "a", which encrypts.
fn a() -> Arc<KeyRing> {
    ring(("a", KEY), &[])
}

fn opener(keys: &Arc<KeyRing>, mode: Mode) -> Opener {
    Opener::new(keys.clone(), mode, "default", [])
}

fn payload(encoding: &str, data: &[u8]) -> Payload {
    let metadata = [(ENCODING.to_owned(), encoding.as_bytes().to_vec())].into();
    Payload { metadata, data: data.to_vec(), ..Payload::default() }
}

/// A payload of key "a" and namespace "default".
fn sealed() -> Payload {
    Sealer::new(a(), "default").seal(payload("json/plain", b"{}")).unwrap()
}

/// `payload` in the format of the samples: the metadata that they do not write is gone.
fn unversioned(mut payload: Payload) -> Payload {
    payload.metadata.remove(FORMAT);
    payload.metadata.remove(NAMESPACE);
    payload
}

fn with(mut payload: Payload, name: &str, value: &[u8]) -> Payload {
    payload.metadata.insert(name.to_owned(), value.to_vec());
    payload
}

fn without(mut payload: Payload, name: &str) -> Payload {
    payload.metadata.remove(name).unwrap();
    payload
}

/// `bytes` with bit number `bit` flipped.
fn flipped(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes
}

fn assert_says(error: &impl ToString, words: &[&str]) {
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
}
