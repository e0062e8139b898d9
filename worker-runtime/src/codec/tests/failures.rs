use super::*;

fn failure(message: &str, cause: Option<Failure>) -> Failure {
    let stack_trace = format!("{message} at line 7");
    Failure { message: message.into(), stack_trace, cause: cause.map(Box::new), ..Failure::default() }
}

fn sealer() -> Sealer {
    Sealer::new(a(), "default")
}

fn levels(mut failure: &Failure) -> Vec<&Failure> {
    let mut levels = vec![failure];
    while let Some(cause) = &failure.cause {
        levels.push(cause);
        failure = cause;
    }
    levels
}

#[test]
fn message_and_stack_trace_of_all_causes_are_encrypted_and_come_back() {
    let plain = failure("outer \"é\"\n", Some(failure("middle", Some(failure("inner", None)))));
    let encoded = encode_failure(plain.clone(), &sealer()).unwrap();
    assert_eq!(levels(&encoded).len(), 3);
    for level in levels(&encoded) {
        assert_eq!((level.message.as_str(), level.stack_trace.as_str()), ("Encoded failure", ""));
        assert!(level.encoded_attributes.as_ref().is_some_and(is_encrypted));
    }
    assert_eq!(decode_failure(encoded, &opener(&a(), Mode::Require)).unwrap(), plain);
}

#[test]
fn the_attributes_are_those_of_the_sdks() {
    let encoded = encode_failure(failure("m", None), &sealer()).unwrap();
    let attributes = opener(&a(), Mode::Require).open(encoded.encoded_attributes.unwrap()).unwrap();
    assert_eq!(attributes, payload("json/plain", br#"{"message":"m","stack_trace":"m at line 7"}"#));
}

#[test]
fn encoding_twice_changes_nothing_more() {
    let once = encode_failure(failure("m", Some(failure("n", None))), &sealer()).unwrap();
    assert_eq!(encode_failure(once.clone(), &sealer()).unwrap(), once);
}

#[test]
fn attributes_that_are_there_already_are_encrypted() {
    let attributes = payload("json/plain", br#"{"message":"m","stack_trace":"s"}"#);
    let folded = Failure { encoded_attributes: Some(attributes), ..failure("Encoded failure", None) };
    let encoded = encode_failure(folded, &sealer()).unwrap();
    let decoded = decode_failure(encoded, &opener(&a(), Mode::Require)).unwrap();
    assert_eq!((decoded.message.as_str(), decoded.stack_trace.as_str()), ("m", "s"));
}

#[test]
fn a_failure_of_the_server_is_read_as_it_is() {
    let timeout = failure("activity StartToClose timeout", None);
    assert_eq!(decode_failure(timeout.clone(), &opener(&a(), Mode::Require)).unwrap(), timeout);
}

#[test]
fn attributes_of_another_form_are_decrypted_and_stay() {
    let forms = [
        payload("json/plain", br#"["m"]"#),
        payload("json/plain", br#"{"message":7}"#),
        payload("json/plain", b"{"),
        payload("binary/protobuf", br#"{"message":"m"}"#),
        Payload::default(),
    ];
    for form in forms {
        let encoded = Failure {
            encoded_attributes: Some(sealer().seal(form.clone()).unwrap()),
            ..failure("Encoded failure", None)
        };
        let decoded = decode_failure(encoded, &opener(&a(), Mode::Require)).unwrap();
        assert_eq!((decoded.message.as_str(), decoded.encoded_attributes), ("Encoded failure", Some(form)));
    }
}

#[test]
fn require_refuses_attributes_that_are_not_encrypted_at_any_depth() {
    let attributes = payload("json/plain", br#"{"message":"m","stack_trace":"s"}"#);
    let inner = Failure { encoded_attributes: Some(attributes), ..failure("Encoded failure", None) };
    let outer = failure("outer", Some(inner));
    let error = decode_failure(outer.clone(), &opener(&a(), Mode::Require)).unwrap_err();
    assert!(matches!(error, CodecError::NotEncrypted { .. }));
    let decoded = decode_failure(outer, &opener(&a(), Mode::Migrate)).unwrap();
    assert_eq!(decoded.cause.unwrap().message, "m");
}

#[test]
fn a_failure_that_cannot_be_encrypted_is_not_returned() {
    let keys = a();
    keys.write().encryptions.store(MAX_ENCRYPTIONS - 1, std::sync::atomic::Ordering::Relaxed);
    let error = encode_failure(failure("m", Some(failure("n", None))), &Sealer::new(keys, "default")).unwrap_err();
    assert!(matches!(error, CodecError::Exhausted { .. }));
}
