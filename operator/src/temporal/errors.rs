//! What a failed call means.

use std::error::Error as _;

use operator_core::observed::{FailureClass, TemporalFailure};
use prost::Message as _;
use temporalio_protos::google::rpc;
use temporalio_protos::temporal::api::enums::v1::ResourceExhaustedScope;
use temporalio_protos::temporal::api::errordetails::v1::ResourceExhaustedFailure;
use tonic::{Code, Status};

/// Longest message that is passed on, in bytes: it ends in conditions.
const MESSAGE_LIMIT: usize = 500;

/// A call that failed.
#[derive(Clone, Debug)]
pub struct CallError {
    /// What it means, for a condition.
    pub failure: TemporalFailure,
    /// The status of the call.
    pub code: Code,
    /// The server as a whole is out of resources, not one namespace.
    pub whole_server: bool,
}

impl CallError {
    /// A call that got no answer within its deadline.
    pub(super) fn timed_out(method: &str, deadline: std::time::Duration) -> Self {
        let message = format!("{method} got no answer within {} s", deadline.as_secs_f32());
        Self::new(FailureClass::Unreachable, Code::DeadlineExceeded, message)
    }

    /// A call that could not be made, or whose answer is of no use.
    pub(super) fn local(class: FailureClass, message: impl Into<String>) -> Self {
        Self::new(class, Code::Unknown, message.into())
    }

    fn new(class: FailureClass, code: Code, message: String) -> Self {
        Self { failure: TemporalFailure { class, message }, code, whole_server: false }
    }

    /// Whether the credentials were refused.
    pub(super) fn refused(&self) -> bool {
        matches!(self.failure.class, FailureClass::Unauthenticated | FailureClass::PermissionDenied)
    }

    /// Whether the server does not offer the call, or not to this identity.
    pub(super) fn unsupported(&self) -> bool {
        matches!(self.code, Code::Unimplemented | Code::PermissionDenied | Code::InvalidArgument)
    }
}

impl From<&Status> for CallError {
    fn from(status: &Status) -> Self {
        let details = Details::of(status);
        let class = match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => FailureClass::Unreachable,
            Code::Unknown if status.source().is_some() => FailureClass::Unreachable,
            Code::Unauthenticated => FailureClass::Unauthenticated,
            Code::PermissionDenied => FailureClass::PermissionDenied,
            Code::NotFound if details.namespace_not_found => FailureClass::NamespaceNotFound,
            Code::ResourceExhausted => FailureClass::ResourceExhausted,
            Code::FailedPrecondition | Code::Aborted => FailureClass::FailedPrecondition,
            _ => FailureClass::Other,
        };
        let mut error = Self::new(class, status.code(), message(status));
        error.whole_server = details.whole_server;
        error
    }
}

#[derive(Default)]
struct Details {
    namespace_not_found: bool,
    whole_server: bool,
}

impl Details {
    /// Reads the typed details that the server adds to a status; none when they can't be decoded.
    fn of(status: &Status) -> Self {
        let mut found = Self::default();
        let Ok(decoded) = rpc::Status::decode(status.details()) else { return found };
        for detail in decoded.details {
            match detail.type_url.rsplit('.').next() {
                Some("NamespaceNotFoundFailure") => found.namespace_not_found = true,
                Some("ResourceExhaustedFailure") => {
                    let scope =
                        ResourceExhaustedFailure::decode(detail.value.as_slice()).map(|failure| failure.scope());
                    found.whole_server = scope == Ok(ResourceExhaustedScope::System);
                }
                _ => {}
            }
        }
        found
    }
}

/// The server's words, or what the transport says down to its cause ("connection refused").
fn message(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&said);
        }
        cause = error.source();
    }
    if text.is_empty() {
        text = status.code().description().to_owned();
    }
    if text.len() > MESSAGE_LIMIT {
        let end = (0..=MESSAGE_LIMIT).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use temporalio_protos::temporal::api::errordetails::v1::NamespaceNotFoundFailure;

    /// The wire format of `google.rpc.Status` and `google.protobuf.Any`.
    #[derive(Clone, PartialEq, prost::Message)]
    struct WireStatus {
        #[prost(message, repeated, tag = "3")]
        details: Vec<WireAny>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct WireAny {
        #[prost(string, tag = "1")]
        type_url: String,
        #[prost(bytes = "vec", tag = "2")]
        value: Vec<u8>,
    }

    fn detailed<M: prost::Message>(code: Code, name: &str, detail: &M) -> Status {
        let type_url = format!("type.googleapis.com/temporal.api.errordetails.v1.{name}");
        let wire = WireStatus { details: vec![WireAny { type_url, value: detail.encode_to_vec() }] };
        Status::with_details(code, "said the server", wire.encode_to_vec().into())
    }

    #[test]
    fn a_missing_namespace_is_not_a_missing_deployment() {
        let detail = NamespaceNotFoundFailure { namespace: "x".into() };
        let namespace = CallError::from(&detailed(Code::NotFound, "NamespaceNotFoundFailure", &detail));
        assert_eq!(namespace.failure.class, FailureClass::NamespaceNotFound);
        let deployment = CallError::from(&Status::not_found("no deployment"));
        assert_eq!((deployment.failure.class, deployment.code), (FailureClass::Other, Code::NotFound));
    }

    #[test]
    fn the_scope_of_an_exhausted_resource_is_read() {
        let scope = ResourceExhaustedScope::System as i32;
        let detail = ResourceExhaustedFailure { cause: 1, scope };
        let error = CallError::from(&detailed(Code::ResourceExhausted, "ResourceExhaustedFailure", &detail));
        assert!(error.whole_server);
        assert_eq!(error.failure.class, FailureClass::ResourceExhausted);
        assert!(!CallError::from(&Status::resource_exhausted("slow down")).whole_server);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let error = CallError::from(&Status::internal("é".repeat(400)));
        assert_eq!(error.failure.message.len(), MESSAGE_LIMIT);
    }
}
