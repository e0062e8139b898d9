//! What a failed call means.

use std::error::Error as _;
use std::time::Duration;

use operator_core::observed::{FailureClass, TemporalFailure};
use prost::Message as _;
use temporalio_protos::google::rpc;
use temporalio_protos::temporal::api::enums::v1::ResourceExhaustedScope;
use temporalio_protos::temporal::api::errordetails::v1::ResourceExhaustedFailure;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::bucket::Refusal;

/// Longest message that is passed on, in bytes: it ends in conditions.
const MESSAGE_LIMIT: usize = 500;

/// A call that failed.
#[derive(Clone, Debug)]
pub struct CallError {
    /// What it means, for a condition.
    pub failure: TemporalFailure,
    /// The status of the call.
    pub code: Code,
    /// What came with it, if the server asks for fewer calls.
    pub(super) refusal: Refusal,
}

impl CallError {
    /// A call that got no answer within its deadline.
    pub(super) fn timed_out(method: &str, deadline: Duration) -> Self {
        let message = format!("{method} got no answer within {} s", deadline.as_secs_f32());
        Self::new(FailureClass::Unreachable, Code::DeadlineExceeded, message)
    }

    /// A call that could not be made, or whose answer is of no use.
    pub(super) fn local(class: FailureClass, message: impl Into<String>) -> Self {
        Self::new(class, Code::Unknown, message.into())
    }

    fn new(class: FailureClass, code: Code, message: String) -> Self {
        Self { failure: TemporalFailure { class, message }, code, refusal: Refusal::default() }
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
        let retry_after = details.retry_after.or_else(|| retry_after(status.metadata()));
        error.refusal = Refusal { whole_server: details.whole_server, retry_after };
        error
    }
}

#[derive(Default)]
struct Details {
    namespace_not_found: bool,
    whole_server: bool,
    retry_after: Option<Duration>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<RetryDelay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct RetryDelay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

impl RetryDelay {
    fn time(self) -> Option<Duration> {
        let nanos = u32::try_from(self.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
        Some(Duration::new(u64::try_from(self.seconds).ok()?, nanos))
    }
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
                Some("RetryInfo") => {
                    let info = RetryInfo::decode(detail.value.as_slice()).ok();
                    found.retry_after = info.and_then(|info| info.retry_delay).and_then(RetryDelay::time);
                }
                _ => {}
            }
        }
        found
    }
}

/// When to come back, in the headers of gRPC's own retries or of a proxy between.
fn retry_after(metadata: &MetadataMap) -> Option<Duration> {
    let number = |name: &str| metadata.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    let pushback = number("grpc-retry-pushback-ms").map(Duration::from_millis);
    pushback.or_else(|| number("retry-after").map(Duration::from_secs))
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
        assert!(error.refusal.whole_server);
        assert_eq!(error.failure.class, FailureClass::ResourceExhausted);
        assert_eq!(CallError::from(&Status::resource_exhausted("slow down")).refusal, Refusal::default());
    }

    #[test]
    fn the_time_to_come_back_is_read_from_the_details_or_the_headers() {
        let asked = |status: &Status| CallError::from(status).refusal.retry_after;
        let info = |seconds, nanos| RetryInfo { retry_delay: Some(RetryDelay { seconds, nanos }) };
        let detailed = |info: &RetryInfo| {
            let type_url = "type.googleapis.com/google.rpc.RetryInfo".to_owned();
            let wire = WireStatus { details: vec![WireAny { type_url, value: info.encode_to_vec() }] };
            Status::with_details(Code::ResourceExhausted, "slow down", wire.encode_to_vec().into())
        };
        assert_eq!(asked(&detailed(&info(2, 500_000_000))), Some(Duration::from_millis(2500)));
        assert_eq!(asked(&detailed(&info(-1, 0))), None);
        let headed = |name: &'static str, value: &str| {
            let mut status = Status::resource_exhausted("slow down");
            status.metadata_mut().insert(name, value.parse().unwrap());
            asked(&status)
        };
        assert_eq!(headed("retry-after", "7"), Some(Duration::from_secs(7)));
        assert_eq!(headed("grpc-retry-pushback-ms", "1500"), Some(Duration::from_millis(1500)));
        assert_eq!(headed("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT"), None);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let error = CallError::from(&Status::internal("é".repeat(400)));
        assert_eq!(error.failure.message.len(), MESSAGE_LIMIT);
    }
}
