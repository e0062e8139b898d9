//! The way to the server: credentials and a deadline for each call, and a gRPC status for whatever goes wrong on it.

use std::error::Error;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, request, response};
use tonic::{Code, Status, TimeoutExpired};

use super::budget::Budget;
use super::frame::Framed;
use super::outage::Outage;
use crate::connect::chain;
use crate::link::Link;

/// Header with the time that a call has.
pub const TIMEOUT: &str = "grpc-timeout";
const STATUS: &str = "grpc-status";

/// Deadline of a call that comes without one: 70 s, the longest that SDKs give a call (a poll), and some to spare.
const DEADLINE: Duration = Duration::from_secs(120);

/// Carries calls over. Cheap to clone.
#[derive(Clone)]
pub struct Upstream(Arc<Inner>);

struct Inner {
    link: Link,
    budget: Budget,
    outage: Outage,
}

/// An answer as it came.
pub struct Answer {
    /// Its head.
    pub head: response::Parts,
    /// The message, and what follows it.
    pub framed: Framed,
}

impl Upstream {
    /// Carries calls over `link`; answers are read within `budget`.
    pub fn new(link: Link, budget: Budget) -> Self {
        Self(Arc::new(Inner { link, budget, outage: Outage::default() }))
    }

    /// Asks the server, and reads all of its answer within this time. What goes wrong on the way is an answer too.
    pub async fn ask(&self, method: &str, head: request::Parts, body: Body, time: Duration) -> Answer {
        let answered = tokio::time::timeout(time, self.exchange(head, body)).await;
        let answer = answered.unwrap_or_else(|_| Err(late()));
        match answer.as_ref().map(Answer::unavailable) {
            Ok(None) => self.0.outage.answered(),
            Ok(Some(status)) => self.0.outage.failed(method, &status),
            Err(status) => self.0.outage.failed(method, status),
        }
        answer.unwrap_or_else(Answer::from)
    }

    /// Carries a call over of which nothing is known: what it sends and gets passes as it comes. Once its answer has
    /// begun, the deadline is the server's to keep.
    pub async fn pass(&self, mut head: request::Parts, body: Body) -> Response<Body> {
        bound(&mut head.headers);
        let path = head.uri.path().to_owned();
        self.send(head, body).await.unwrap_or_else(|status| {
            self.0.outage.failed(&path, &status);
            status.into_http()
        })
    }

    async fn exchange(&self, head: request::Parts, body: Body) -> Result<Answer, Status> {
        let (head, body) = self.send(head, body).await?.into_parts();
        if head.status != StatusCode::OK && !head.headers.contains_key(STATUS) {
            return Err(of_http(head.status));
        }
        let answer = Answer { head, framed: Framed::read(body, &self.0.budget).await? };
        if answer.headers().is_none() {
            return Err(Status::unavailable("the answer broke off before its status"));
        }
        Ok(answer)
    }

    async fn send(&self, head: request::Parts, body: Body) -> Result<Response<Body>, Status> {
        let (mut channel, authorization) = self.0.link.channel();
        let mut request = Request::from_parts(head, body);
        if let Some(authorization) = authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization);
        }
        poll_fn(|cx| channel.poll_ready(cx)).await.map_err(|error| unavailable(&error))?;
        channel.call(request).await.map_err(|error| unavailable(&error))
    }
}

impl Answer {
    /// The headers that hold the status: behind the message, or in place of one.
    fn headers(&self) -> Option<&HeaderMap> {
        let places = self.framed.trailers.iter().chain([&self.head.headers]);
        places.into_iter().find(|headers| headers.contains_key(STATUS))
    }

    /// Its status.
    pub fn code(&self) -> Code {
        let status = self.headers().and_then(|headers| headers.get(STATUS));
        status.map_or(Code::Unknown, |status| Code::from_bytes(status.as_bytes()))
    }

    /// Its status if that says that there is no server, as by a proxy before one.
    fn unavailable(&self) -> Option<Status> {
        let headers = self.headers().filter(|_| self.code() == Code::Unavailable)?;
        Status::from_header_map(headers)
    }
}

impl From<Status> for Answer {
    fn from(status: Status) -> Self {
        Self { head: status.into_http::<Body>().into_parts().0, framed: Framed::default() }
    }
}

/// Gives a call a deadline if it has none; the time that it has.
pub fn bound(headers: &mut HeaderMap) -> Duration {
    let given = headers.get(TIMEOUT).and_then(time);
    given.unwrap_or_else(|| {
        headers.insert(TIMEOUT, timeout(DEADLINE));
        DEADLINE
    })
}

/// The value of [`TIMEOUT`] for a time of whole seconds.
pub fn timeout(time: Duration) -> HeaderValue {
    // Digits and a letter always are a value.
    HeaderValue::try_from(format!("{}S", time.as_secs())).unwrap_or(HeaderValue::from_static("120S"))
}

/// What a value of [`TIMEOUT`] says (gRPC over HTTP/2: up to eight digits and a unit).
fn time(value: &HeaderValue) -> Option<Duration> {
    let value = value.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let count = u32::try_from(digits.parse::<u64>().ok()?).ok()?;
    let unit = match unit {
        "H" => Duration::from_secs(3600),
        "M" => Duration::from_secs(60),
        "S" => Duration::from_secs(1),
        "m" => Duration::from_millis(1),
        "u" => Duration::from_micros(1),
        "n" => Duration::from_nanos(1),
        _ => return None,
    };
    Some(unit * count)
}

fn late() -> Status {
    Status::deadline_exceeded("the Temporal server did not answer within the time that the call has")
}

fn unavailable(error: &tonic::transport::Error) -> Status {
    let mut causes = std::iter::successors(error.source(), |error| (*error).source());
    // The channel keeps the deadline too, and may be first.
    if causes.any(|cause| cause.is::<TimeoutExpired>()) {
        return late();
    }
    Status::unavailable(format!("the Temporal server can't be reached: {}", chain(error)))
}

/// The status for an answer that is none of gRPC ("HTTP to gRPC Status Code Mapping" of gRPC's documentation).
fn of_http(status: StatusCode) -> Status {
    let code = match status.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502..=504 => Code::Unavailable,
        _ => Code::Unknown,
    };
    Status::new(
        code,
        format!("HTTP status {status} in place of an answer; what is between here and the Temporal server sent it"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_call_is_its_own_or_two_minutes() {
        let cases = [
            ("2H", Some(7_200_000_000)),
            ("3M", Some(180_000_000)),
            ("99999999S", Some(99_999_999_000_000)),
            ("250m", Some(250_000)),
            ("7u", Some(7)),
            ("9000n", Some(9)),
        ];
        for (value, micros) in cases {
            assert_eq!(time(&HeaderValue::from_static(value)).map(|time| time.as_micros()), micros, "{value}");
        }
        for value in ["", "S", "7", "7x", "-7S", "7 S"] {
            let mut headers = HeaderMap::from_iter([(TIMEOUT.parse().unwrap(), HeaderValue::from_static(value))]);
            assert_eq!(bound(&mut headers), DEADLINE, "{value}");
            assert_eq!(headers[TIMEOUT], "120S", "{value}");
        }
    }

    #[test]
    fn an_answer_of_a_proxy_is_a_status_that_says_so() {
        let cases =
            [(401, Code::Unauthenticated), (429, Code::Unavailable), (503, Code::Unavailable), (500, Code::Unknown)];
        for (http, code) in cases {
            let status = of_http(StatusCode::from_u16(http).unwrap());
            assert!(status.code() == code && status.message().contains(&http.to_string()), "{status}");
        }
    }
}
