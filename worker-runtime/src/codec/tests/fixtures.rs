//! Payloads that Go's and Node's own cryptography encrypted: `fixtures/make.go` and `fixtures/make.mjs` write them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::*;

const FILES: [&str; 2] = [include_str!("../../../fixtures/go.json"), include_str!("../../../fixtures/node.json")];

#[derive(Deserialize)]
struct File {
    made_by: String,
    keys: BTreeMap<String, String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    format: String,
    key_id: String,
    namespace: String,
    associated_data: String,
    plain: Text,
    encrypted: Text,
}

/// A payload with its bytes in base64.
#[derive(Deserialize)]
struct Text {
    metadata: BTreeMap<String, String>,
    data: String,
}

impl Text {
    fn payload(&self) -> Payload {
        let decode = |text: &String| STANDARD.decode(text).unwrap();
        let metadata = self.metadata.iter().map(|(name, value)| (name.clone(), decode(value))).collect();
        Payload { metadata, data: decode(&self.data), ..Payload::default() }
    }
}

/// Calls `check` with every case, its name, and its file's keys.
fn each(check: impl Fn(&str, &Case, &BTreeMap<String, String>)) {
    for file in FILES {
        let file: File = serde_json::from_str(file).unwrap();
        assert!(file.cases.len() >= 15, "{}", file.made_by);
        for case in &file.cases {
            check(&format!("{}: {}", file.made_by, case.name), case, &file.keys);
        }
    }
}

fn loaded<'a>(keys: impl IntoIterator<Item = (&'a str, &'a str)>) -> Arc<KeyRing> {
    let keys = keys.into_iter().map(|(id, key)| (id, key.as_bytes()));
    Arc::new(KeyRing::load(("unused", &[0; 32]), keys).unwrap())
}

/// Reads with `keys` in the namespace of the case.
fn reader(case: &Case, mode: Mode, keys: &BTreeMap<String, String>) -> Opener {
    Opener::new(loaded(all(keys)), mode, &case.namespace, [])
}

fn all(keys: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    keys.iter().map(|(id, key)| (id.as_str(), key.as_str()))
}

#[test]
fn every_fixture_opens_to_what_was_encrypted() {
    each(|name, case, keys| {
        let modes: &[Mode] = if case.format == "1" { &[Mode::Require, Mode::Migrate] } else { &[Mode::Migrate] };
        for mode in modes {
            let opened = reader(case, *mode, keys).open(case.encrypted.payload());
            assert_eq!(opened, Ok(case.plain.payload()), "{name}");
        }
    });
}

#[test]
fn require_refuses_the_fixtures_in_the_format_of_the_samples() {
    each(|name, case, keys| {
        if case.format == "samples" {
            let refused = reader(case, Mode::Require, keys).open(case.encrypted.payload());
            assert_eq!(refused, Err(CodecError::Unversioned { key_id: case.key_id.clone() }), "{name}");
        }
    });
}

#[test]
fn the_associated_data_is_that_of_the_fixtures() {
    each(|name, case, _| {
        if case.format == "1" {
            let bound = Bound {
                format: b"1",
                key_id: case.key_id.as_bytes(),
                encoding: b"binary/encrypted",
                namespace: case.namespace.as_bytes(),
            };
            let hex: String = bound.canonical().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, case.associated_data, "{name}");
        }
    });
}

#[test]
fn every_flipped_bit_of_data_is_found() {
    each(|name, case, keys| {
        let (whole, reader) = (case.encrypted.payload(), reader(case, Mode::Migrate, keys));
        for bit in 0..whole.data.len() * 8 {
            let changed = Payload { data: flipped(&whole.data, bit), ..whole.clone() };
            let error = reader.open(changed).unwrap_err();
            assert_eq!(error, CodecError::NotAuthentic { key_id: case.key_id.clone() }, "{name}, bit {bit}");
        }
    });
}

#[test]
fn every_flipped_bit_of_the_metadata_is_found_although_its_new_value_would_do() {
    each(|name, case, keys| {
        let whole = case.encrypted.payload();
        for field in whole.metadata.keys().filter(|_| case.format == "1") {
            for bit in 0..whole.metadata[field].len() * 8 {
                let value = flipped(&whole.metadata[field], bit);
                let text = String::from_utf8_lossy(&value).into_owned();
                let known = all(keys).chain((field == KEY_ID).then_some((text.as_str(), keys[&case.key_id].as_str())));
                let others = (field == NAMESPACE).then(|| text.clone());
                let reader = Opener::new(loaded(known), Mode::Migrate, &case.namespace, others);
                let error = reader.open(with(whole.clone(), field, &value)).unwrap_err();
                let expected = match field.as_str() {
                    ENCODING => matches!(error, CodecError::Mislabelled { .. }),
                    FORMAT => matches!(error, CodecError::UnknownFormat { .. }),
                    _ => matches!(error, CodecError::NotAuthentic { .. } | CodecError::Metadata { .. }),
                };
                assert!(expected, "{name}, {field}, bit {bit}: {error}");
            }
        }
    });
}

#[test]
fn a_flipped_key_id_in_the_format_of_the_samples_is_an_unknown_key() {
    each(|name, case, keys| {
        let whole = case.encrypted.payload();
        for bit in 0..whole.metadata[KEY_ID].len() * 8 {
            let changed = with(whole.clone(), KEY_ID, &flipped(&whole.metadata[KEY_ID], bit));
            let error = reader(case, Mode::Migrate, keys).open(changed).unwrap_err();
            let expected = matches!(error, CodecError::UnknownKey { .. } | CodecError::Metadata { .. });
            assert!(expected, "{name}, bit {bit}: {error}");
        }
    });
}

#[test]
fn the_failure_of_the_fixtures_is_read() {
    each(|name, case, keys| {
        if case.name.starts_with("failure") {
            let encoded_attributes = Some(case.encrypted.payload());
            let failure = Failure { message: "Encoded failure".into(), encoded_attributes, ..Failure::default() };
            let decoded = decode_failure(failure, &reader(case, Mode::Migrate, keys)).unwrap();
            assert_eq!((decoded.message.as_str(), decoded.encoded_attributes), ("card declined", None), "{name}");
            assert!(decoded.stack_trace.contains("pay."), "{name}: {}", decoded.stack_trace);
        }
    });
}
