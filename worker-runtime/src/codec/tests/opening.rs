use super::*;

fn require(payload: Payload) -> Result<Payload, CodecError> {
    opener(&a(), Mode::Require).open(payload)
}

fn migrate(payload: Payload) -> Result<Payload, CodecError> {
    opener(&a(), Mode::Migrate).open(payload)
}

#[test]
fn require_refuses_what_is_not_encrypted_and_migrate_reads_it() {
    let plain = [payload("json/plain", b"1"), payload("binary/null", b""), Payload::default()];
    for (plain, encoding) in plain.into_iter().zip(["json/plain", "binary/null", ""]) {
        let error = require(plain.clone()).unwrap_err();
        assert_eq!(error, CodecError::NotEncrypted { encoding: encoding.into() });
        assert!(error.is_retryable());
        assert_says(&error, &[&format!("{encoding:?}"), "not encrypted", "Require", "Migrate"]);
        assert_eq!(migrate(plain.clone()).unwrap(), plain);
    }
}

#[test]
fn both_modes_read_format_1() {
    let plain = payload("json/plain", b"{}");
    assert_eq!(require(sealed()).unwrap(), plain);
    assert_eq!(migrate(sealed()).unwrap(), plain);
}

#[test]
fn require_refuses_the_format_of_the_samples() {
    let error = require(unversioned(sealed())).unwrap_err();
    assert_eq!(error, CodecError::Unversioned { key_id: "a".into() });
    assert!(error.is_retryable());
    assert_says(&error, &["\"a\"", "\"encryption-format\"", "Require", "Migrate"]);
}

#[test]
fn taking_the_format_away_does_not_take_the_binding_away() {
    for stripped in [unversioned(sealed()), without(sealed(), FORMAT)] {
        assert_eq!(migrate(stripped).unwrap_err(), CodecError::NotAuthentic { key_id: "a".into() });
    }
}

#[test]
fn another_encoding_does_not_make_ciphertext_a_value() {
    let relabelled = with(sealed(), ENCODING, b"binary/plain");
    let error = migrate(relabelled.clone()).unwrap_err();
    assert_eq!(error, CodecError::Mislabelled { encoding: "binary/plain".into() });
    assert!(!error.is_retryable());
    assert_says(&error, &["\"binary/plain\"", "binary/encrypted"]);
    assert!(matches!(migrate(without(sealed(), ENCODING)), Err(CodecError::Mislabelled { .. })));
    assert!(matches!(require(relabelled), Err(CodecError::NotEncrypted { .. })));
}

#[test]
fn an_unknown_format_may_be_read_by_a_later_version() {
    for format in ["2", "", "01", "1\n"] {
        let error = migrate(with(sealed(), FORMAT, format.as_bytes())).unwrap_err();
        assert_eq!(error, CodecError::UnknownFormat { format: format.into() });
        assert!(error.is_retryable());
        assert_says(&error, &[&format!("encryption-format {format:?}"), "reads 1"]);
    }
}

#[test]
fn an_unknown_key_is_named_with_those_that_are_known() {
    let keys = ring(("new", OTHER), &[("old", KEY), ("older", KEY)]);
    for encrypted in [sealed(), unversioned(sealed())] {
        let error = opener(&keys, Mode::Migrate).open(encrypted).unwrap_err();
        assert!(error.is_retryable());
        assert_says(&error, &["key \"a\"", r#"["new", "old", "older"]"#, "spec.runtime.encryption.readKeys"]);
    }
}

#[test]
fn a_read_key_decrypts_what_it_encrypted_when_it_was_the_write_key() {
    let keys = ring(("b", OTHER), &[("a", KEY)]);
    assert_eq!(opener(&keys, Mode::Require).open(sealed()).unwrap(), payload("json/plain", b"{}"));
}

#[test]
fn another_key_under_the_same_id_is_not_authentic() {
    let error = opener(&ring(("a", OTHER), &[]), Mode::Require).open(sealed()).unwrap_err();
    assert_eq!(error, CodecError::NotAuthentic { key_id: "a".into() });
    assert!(!error.is_retryable());
    assert_says(&error, &["\"a\"", "not authentic"]);
}

#[test]
fn only_allowed_namespaces_are_read() {
    let sealed = Sealer::new(a(), "payments").seal(Payload::default()).unwrap();
    let error = require(sealed.clone()).unwrap_err();
    assert!(error.is_retryable());
    assert_says(&error, &["namespace \"payments\"", "[\"default\"]", "spec.runtime.encryption.namespaces"]);
    let allowing = Opener::new(a(), Mode::Require, "default", ["payments".to_owned()]);
    assert_eq!(allowing.open(sealed).unwrap(), Payload::default());
    assert!(allowing.open(super::sealed()).is_ok());
}

#[test]
fn a_changed_binding_fails_even_when_its_new_value_is_allowed() {
    let allowing = Opener::new(ring(("a", KEY), &[("b", KEY)]), Mode::Migrate, "default", ["payments".to_owned()]);
    for (name, value) in [(KEY_ID, "b"), (NAMESPACE, "payments")] {
        let error = allowing.open(with(sealed(), name, value.as_bytes())).unwrap_err();
        assert!(matches!(error, CodecError::NotAuthentic { .. }), "{name}: {error}");
    }
}

#[test]
fn metadata_that_is_missing_or_no_text_is_named() {
    for (name, says) in [(KEY_ID, "\"encryption-key-id\""), (NAMESPACE, "\"encryption-namespace\"")] {
        for broken in [without(sealed(), name), with(sealed(), name, b"\xff")] {
            let error = require(broken).unwrap_err();
            assert!(matches!(error, CodecError::Metadata { .. }) && !error.is_retryable());
            assert_says(&error, &[says]);
        }
    }
    let error = migrate(without(unversioned(sealed()), KEY_ID)).unwrap_err();
    assert_says(&error, &["\"encryption-key-id\" is missing"]);
}

#[test]
fn data_that_was_cut_fails() {
    let whole = sealed();
    for length in 0..whole.data.len() {
        let cut = Payload { data: whole.data[..length].to_vec(), ..whole.clone() };
        let error = require(cut).unwrap_err();
        let key_id = "a".to_owned();
        let expected =
            if length < 28 { CodecError::Truncated { key_id, length } } else { CodecError::NotAuthentic { key_id } };
        assert_eq!(error, expected);
        assert!(!error.is_retryable());
    }
    let message = CodecError::Truncated { key_id: "a".into(), length: 5 };
    assert_says(&message, &["\"a\"", "has 5 bytes", "28 at least"]);
}

#[test]
fn what_was_encrypted_has_to_be_a_payload() {
    use ring::aead::{Aad, Nonce};
    let keys = a();
    let mut data = b"\x0a\xffno payload".to_vec();
    let nonce = Nonce::assume_unique_for_key([7; NONCE_LENGTH]);
    keys.write().aead.seal_in_place_append_tag(nonce, Aad::empty(), &mut data).unwrap();
    let data = [vec![7; NONCE_LENGTH], data].concat();
    let error = migrate(Payload { data, ..unversioned(sealed()) }).unwrap_err();
    assert_eq!(error, CodecError::NoPayload { key_id: "a".into() });
    assert!(!error.is_retryable());
}

#[test]
fn a_message_holds_no_more_of_a_value_than_a_line() {
    let error = require(with(sealed(), KEY_ID, &[b'k'; 100_000])).unwrap_err();
    assert!(matches!(error, CodecError::UnknownKey { .. }) && error.to_string().len() < 500);
}
