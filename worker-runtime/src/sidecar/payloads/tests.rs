use operator_core::contract::{EncryptionConfig, EncryptionMode, KeyFile, RuntimeLimits};
use temporal_wire::message;
use temporalio_common::protos::temporal::api::common::v1::{Header, Payloads as Many};
use temporalio_common::protos::temporal::api::failure::v1::Failure;
use temporalio_common::protos::temporal::api::workflowservice::v1::CountWorkflowExecutionsResponse;
use temporalio_common::protos::temporal::api::workflowservice::v1::count_workflow_executions_response::AggregationGroup;

use super::*;

fn payloads(mode: EncryptionMode) -> Payloads {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("k1");
    std::fs::write(&file, [7; 32]).unwrap();
    let write_key = KeyFile { id: "k1".into(), file: file.display().to_string() };
    let encryption = Some(EncryptionConfig { mode, write_key, read_keys: vec![], namespaces: vec![] });
    let limits = RuntimeLimits { encryption, ..RuntimeLimits::default() };
    let metrics = Metrics::without_cpu(None).unwrap();
    Payloads::new(Encryption::start("ns", (&limits, None), &metrics).unwrap(), &metrics).unwrap()
}

fn plain() -> Payload {
    payload(JSON, b"\"value\"".to_vec())
}

fn there<M: prost::Message + Default>(payloads: &Payloads, kind: &str, message_: &M) -> M {
    M::decode(payloads.seal(message_.encode_to_vec().into(), message(kind).unwrap()).unwrap()).unwrap()
}

fn back<M: prost::Message + Default>(payloads: &Payloads, kind: &str, message_: &M) -> M {
    M::decode(payloads.open(message_.encode_to_vec().into(), message(kind).unwrap()).unwrap()).unwrap()
}

const PAYLOADS: &str = "temporal.api.common.v1.Payloads";
const FAILURE: &str = "temporal.api.failure.v1.Failure";

#[test]
fn a_payload_comes_back_as_it_went_with_fields_that_nobody_knows() {
    let payloads = payloads(EncryptionMode::Require);
    // Payloads { payloads: [Payload { data: "d", 99: "new" }] }
    let before = Bytes::from_static(b"\x0a\x09\x12\x01d\x9a\x06\x03new");
    let kind = message(PAYLOADS).unwrap();
    let sealed = payloads.seal(before.clone(), kind).unwrap();
    assert!(!sealed.windows(3).any(|bytes| bytes == b"new"));
    assert_eq!(payloads.open(sealed.clone(), kind).unwrap(), before);
    assert_eq!(payloads.seal(sealed.clone(), kind).unwrap(), sealed, "it is encrypted once");
}

#[test]
fn the_texts_of_a_failure_are_hidden_and_found_again() {
    let payloads = payloads(EncryptionMode::Require);
    let cause = Failure { message: "inner".into(), ..Failure::default() };
    let failure = Failure {
        message: "outer".into(),
        stack_trace: "at line 1".into(),
        source: "GoSDK".into(),
        cause: Some(Box::new(cause)),
        ..Failure::default()
    };
    let sealed = there(&payloads, FAILURE, &failure);
    assert_eq!((sealed.message.as_str(), sealed.stack_trace.as_str()), ("Encoded failure", ""));
    assert_eq!(sealed.cause.as_ref().unwrap().message, "Encoded failure");
    assert_eq!(back(&payloads, FAILURE, &sealed), failure);
    let of_the_server = Failure { message: "activity timeout".into(), ..Failure::default() };
    assert_eq!(back(&payloads, FAILURE, &of_the_server), of_the_server);
}

#[test]
fn attributes_of_another_form_are_left_to_whoever_made_them() {
    let payloads = payloads(EncryptionMode::Require);
    let attributes = payload(b"binary/own", b"own".to_vec());
    let failure = Failure { message: "own".into(), encoded_attributes: Some(attributes), ..Failure::default() };
    let sealed = there(&payloads, FAILURE, &failure);
    assert_ne!(sealed.encoded_attributes, failure.encoded_attributes);
    assert_eq!(back(&payloads, FAILURE, &sealed), failure);
}

#[test]
fn what_is_not_encrypted_is_refused_in_mode_require_and_read_in_mode_migrate() {
    let many = Many { payloads: vec![plain()] };
    let refused = back(&payloads(EncryptionMode::Require), PAYLOADS, &many);
    assert_eq!(refused.payloads[0].metadata["encoding"], REFUSED);
    let why = String::from_utf8_lossy(&refused.payloads[0].data).into_owned();
    assert!(why.contains("is not encrypted") && why.contains("set spec.sidecar.encryption.mode to Migrate"), "{why}");
    assert_eq!(back(&payloads(EncryptionMode::Migrate), PAYLOADS, &many), many);
}

#[test]
fn headers_and_what_the_server_computes_may_be_plain() {
    let payloads = payloads(EncryptionMode::Require);
    let header = Header { fields: [("trace".to_owned(), plain())].into() };
    assert_eq!(back(&payloads, "temporal.api.common.v1.Header", &header), header);
    let groups = vec![AggregationGroup { group_values: vec![plain()], count: 1 }];
    let counted = CountWorkflowExecutionsResponse { count: 1, groups };
    let kind = "temporal.api.workflowservice.v1.CountWorkflowExecutionsResponse";
    assert_eq!(back(&payloads, kind, &counted), counted);
}

#[test]
fn a_request_that_can_not_be_read_is_not_sent() {
    let payloads = payloads(EncryptionMode::Require);
    let kind = message(PAYLOADS).unwrap();
    let broken = payloads.seal(Bytes::from_static(&[0x0a, 9]), kind).unwrap_err();
    assert_eq!(broken.code(), tonic::Code::InvalidArgument);
    let no_payload = payloads.seal(Bytes::from_static(&[0x0a, 2, 0x0a, 9]), kind).unwrap_err();
    assert!(no_payload.message().contains("a payload can't be read"), "{no_payload}");
}
