use std::collections::HashSet;
use std::sync::atomic::Ordering;

use prost::Message as _;

use super::*;
use temporalio_common::protos::temporal::api::common::v1::payload::ExternalPayloadDetails;

#[test]
fn an_encrypted_payload_names_its_key_format_and_namespace() {
    let plain = payload("json/plain", b"\"secret\"");
    let sealed = Sealer::new(a(), "payments").seal(plain.clone()).unwrap();
    let expected = [(ENCODING, "binary/encrypted"), (KEY_ID, "a"), (FORMAT, "1"), (NAMESPACE, "payments")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).into();
    assert_eq!(sealed.metadata, expected);
    assert_eq!(sealed.data.len(), 12 + plain.encoded_len() + 16);
    assert!(!sealed.data.windows(6).any(|window| window == b"secret"));
}

#[test]
fn what_is_encrypted_comes_back_whole() {
    let external_payloads = vec![ExternalPayloadDetails { size_bytes: 7 }];
    let whole = Payload { external_payloads, ..with(payload("json/plain", b"{}"), FORMAT, b"mine") };
    for plain in [payload("binary/null", b""), Payload::default(), whole] {
        let sealed = Sealer::new(a(), "default").seal(plain.clone()).unwrap();
        assert!(sealed.external_payloads.is_empty());
        assert_eq!(opener(&a(), Mode::Require).open(sealed).unwrap(), plain);
    }
}

#[test]
fn an_encrypted_payload_is_not_encrypted_again() {
    let keys = a();
    let sealer = Sealer::new(keys.clone(), "default");
    for once in [sealed(), unversioned(sealed()), payload("binary/encrypted", b"of another codec")] {
        assert_eq!(sealer.seal(once.clone()).unwrap(), once);
    }
    assert_eq!(keys.write().encryptions.load(Ordering::Relaxed), 0);
}

#[test]
fn no_two_payloads_have_one_nonce() {
    let sealer = Sealer::new(a(), "default");
    let nonces: HashSet<_> =
        (0..1000).map(|_| sealer.seal(Payload::default()).unwrap().data[..NONCE_LENGTH].to_vec()).collect();
    assert_eq!(nonces.len(), 1000);
}

#[test]
fn a_key_stops_at_its_limit_and_still_decrypts() {
    let keys = ring(("a", KEY), &[("b", OTHER)]);
    let sealer = Sealer::new(keys.clone(), "default");
    keys.write().encryptions.store(MAX_ENCRYPTIONS - 1, Ordering::Relaxed);
    let last = sealer.seal(Payload::default()).unwrap();
    for _ in 0..2 {
        let error = sealer.seal(Payload::default()).unwrap_err();
        assert_eq!(error, CodecError::Exhausted { key_id: "a".into() });
        assert!(error.is_retryable());
        assert_says(&error, &["\"a\"", "4294967296", "rotate it", "writeKey", "readKeys"]);
    }
    assert_eq!(opener(&keys, Mode::Require).open(last), Ok(Payload::default()));
}

#[test]
fn the_limit_is_that_of_nist_sp_800_38d_for_random_nonces() {
    assert_eq!(MAX_ENCRYPTIONS, 2_u64.pow(32));
}
