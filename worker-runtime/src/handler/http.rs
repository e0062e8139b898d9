//! `http` handlers: a POST to a service in the same pod.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use operator_core::contract::HttpConfig;
use reqwest::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use temporalio_client::Url;
use temporalio_common::protos::temporal::api::common::v1::Payload;

use super::line::{self, Word};
use super::lines::LineBuffer;
use super::{Call, HandlerError, MAX_DETAIL, MAX_OUTPUT, begin, failure};
use crate::payload;

/// The media type of an answer that is a stream of lines.
const LINES: &str = "application/x-ndjson";

/// A service in the same pod.
#[derive(Clone, Debug)]
pub(super) struct Service {
    url: Url,
    client: reqwest::Client,
    token: Option<Arc<str>>,
}

impl Service {
    /// The service that a configuration names. It gets `token` with each request.
    ///
    /// # Errors
    /// What is wrong with which field, and what to do.
    pub(super) fn new(config: &HttpConfig, token: Option<Arc<str>>) -> Result<Self, String> {
        let url = local_url(&config.url).map_err(|problem| format!("url: {problem}"))?;
        let client = client(config.socket.as_deref())?;
        Ok(Self { url, client, token })
    }
}

/// A client without proxy and redirects, so that a task never leaves the pod.
fn client(socket: Option<&str>) -> Result<reqwest::Client, String> {
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(5));
    if let Some(socket) = socket {
        if !socket.starts_with('/') {
            return Err(format!(
                "socket: is {socket:?}; give the absolute path of a socket in a volume that both containers mount"
            ));
        }
        builder = builder.unix_socket(socket);
    }
    builder.build().map_err(|error| format!("url: cannot build the HTTP client: {error}"))
}

/// The address of a service, which has to be in the pod.
///
/// # Errors
/// The value and what it should be.
fn local_url(text: &str) -> Result<Url, String> {
    let problem = |what: &str| {
        format!(
            "is {text:?}, {what}; use http:// and localhost, 127.0.0.1 or [::1] with the port of a service in the same pod"
        )
    };
    let url = Url::parse(text).map_err(|error| problem(&format!("which is no URL ({error})")))?;
    if url.scheme() != "http" {
        return Err(problem("which is not http://"));
    }
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    if host != "localhost" && !address.is_ok_and(|address| address.is_loopback()) {
        return Err(problem("which leaves the pod"));
    }
    Ok(url)
}

pub(super) async fn run(name: &str, service: &Service, call: &Call) -> Result<Payload, HandlerError> {
    let url = &service.url;
    let unreachable = |error: reqwest::Error| unreachable(name, url, &error);
    let mut request =
        service.client.post(url.clone()).header("content-type", "application/json").body(call.arguments.clone());
    for (key, value) in call.info() {
        request = request.header(format!("temporal-{}", key.to_ascii_lowercase().replace('_', "-")), encode(&value));
    }
    for (name, value) in &call.trace {
        request = request.header(*name, value);
    }
    if let Some(token) = &service.token {
        request = request.bearer_auth(token);
    }
    let response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    let header = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if status.is_success() && header(CONTENT_TYPE).is_some_and(|kind| kind.starts_with(LINES)) {
        return stream(name, url, response, call).await;
    }
    let retry_after = header(RETRY_AFTER).map(str::to_owned);
    let body = whole(response).await.map_err(unreachable)?;
    if !status.is_success() {
        return Err(refused(name, url, (status, retry_after), &body));
    }
    if body.len() > MAX_OUTPUT {
        return Err(HandlerError::TooLarge { handler: name.to_owned(), limit: MAX_OUTPUT });
    }
    payload::result(&body).map_err(|problem| HandlerError::NotJson {
        handler: name.to_owned(),
        problem,
        begin: begin(&body),
    })
}

fn unreachable(name: &str, url: &Url, error: &reqwest::Error) -> HandlerError {
    HandlerError::Unreachable { handler: name.to_owned(), url: url.to_string(), cause: cause(error) }
}

/// The body, or the beginning of one that is too large.
async fn whole(mut response: Response) -> reqwest::Result<Vec<u8>> {
    let mut body = Vec::new();
    while body.len() <= MAX_OUTPUT
        && let Some(chunk) = response.chunk().await?
    {
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Reads lines of progress until one that ends the task.
async fn stream(name: &str, url: &Url, mut response: Response, call: &Call) -> Result<Payload, HandlerError> {
    let mut lines = LineBuffer::default();
    let too_large = |_| HandlerError::TooLarge { handler: name.to_owned(), limit: MAX_OUTPUT };
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(name, url, &error))? {
        lines.push(&chunk);
        while let Some(line) = lines.next().map_err(too_large)? {
            if let Some(end) = hear(name, &line, call) {
                return end;
            }
        }
    }
    // The last line needs no end.
    let rest = lines.rest();
    let last = (!rest.trim_ascii().is_empty()).then(|| hear(name, &rest, call)).flatten();
    last.unwrap_or_else(|| {
        let cause = "its stream of lines ended without a result or a failure".to_owned();
        Err(HandlerError::Unreachable { handler: name.to_owned(), url: url.to_string(), cause })
    })
}

/// Understands a line: the end of the task, or nothing yet.
fn hear(name: &str, line: &[u8], call: &Call) -> Option<Result<Payload, HandlerError>> {
    let invalid = |problem: String| {
        Some(Err(HandlerError::NotProtocol { handler: name.to_owned(), problem, begin: begin(line) }))
    };
    match line::read(line, None) {
        Ok(None) => None,
        Ok(Some(Word::Heartbeat(details))) => {
            call.progress.send_replace(Some(details));
            None
        }
        Ok(Some(Word::Result(payload))) => Some(Ok(payload)),
        Ok(Some(Word::Failure(chosen))) => Some(Err(HandlerError::Chosen(chosen))),
        Ok(Some(Word::Cancelled)) => {
            invalid("it says that it was cancelled; a cancellation closes the request".to_owned())
        }
        Err(problem) => invalid(problem),
    }
}

/// The failure that a service chose, or that of its status.
fn refused(name: &str, url: &Url, (status, retry_after): (StatusCode, Option<String>), body: &[u8]) -> HandlerError {
    let quoted = String::from_utf8_lossy(&body[..body.len().min(MAX_DETAIL)]).into_owned();
    let body = match failure::in_output(body) {
        Some(Ok(chosen)) => return HandlerError::Chosen(chosen),
        Some(Err(problem)) => format!("a failure that can't be read ({problem}): {quoted}"),
        None => quoted,
    };
    HandlerError::Refused {
        handler: name.to_owned(),
        url: url.to_string(),
        status: status.as_u16(),
        body,
        retryable: is_retryable(status),
        retry_after: retry_after.and_then(|value| delay(&value, SystemTime::now())),
    }
}

/// Statuses of the class 4xx after which the same request may succeed: a route that the next version of the service may
/// have (404), and what RFC 9110 and RFC 6585 call temporary.
const RETRYABLE: [u16; 7] = [404, 408, 409, 423, 424, 425, 429];

/// Whether the same request may succeed later. Another 4xx says that it will not.
fn is_retryable(status: StatusCode) -> bool {
    !status.is_client_error() || RETRYABLE.contains(&status.as_u16())
}

/// The time from `now` that a `Retry-After` names: seconds, or a date (RFC 9110, section 10.2.3). None for what is neither.
fn delay(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

fn cause(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = cause.to_string();
        next = cause.source();
    }
    text
}

/// A header value: visible ASCII as it is, everything else percent-encoded.
fn encode(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' || byte == b' ' {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_services_in_the_pod_are_called() {
        for good in ["http://localhost:9000/a", "http://127.0.0.1:1", "http://[::1]:80/x"] {
            assert!(local_url(good).is_ok(), "{good}");
        }
        for bad in [
            "https://localhost",
            "http://169.254.169.254/",
            "http://localhost.evil.example/",
            "9000",
            "http://0.0.0.0:1",
        ] {
            let problem = local_url(bad).unwrap_err();
            assert!(problem.contains(bad) && problem.contains("same pod"), "{problem}");
        }
    }

    #[test]
    fn a_status_says_whether_to_try_again() {
        let retried = |status: u16| is_retryable(StatusCode::from_u16(status).unwrap());
        assert!([301, 404, 408, 409, 425, 429, 500, 503].into_iter().all(retried));
        assert!(![400, 401, 403, 405, 410, 413, 422].into_iter().any(retried));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let after = |value| delay(value, now);
        assert_eq!(after(" 120 "), Some(Duration::from_secs(120)));
        assert_eq!(after("Sun, 06 Nov 1994 08:50:07 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:07 GMT"), Some(Duration::ZERO), "it is over");
        assert_eq!([after("-1"), after("soon"), after("")], [None; 3]);
    }

    #[test]
    fn a_refusal_has_the_terms_of_its_status_or_those_that_the_service_chose() {
        let url = local_url("http://localhost:1/").unwrap();
        let refused = |status: u16, after: Option<&str>, body: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            refused("web", &url, (status, after.map(str::to_owned)), body.as_bytes())
        };
        let busy = refused(429, Some("7"), "later").terms();
        assert_eq!((busy.non_retryable, busy.next_retry_delay), (false, Some(Duration::from_secs(7))));
        assert!(refused(400, None, "bad").terms().non_retryable);
        let chosen = refused(500, None, r#"{"failure":{"message":"no","type":"Declined","nonRetryable":true}}"#);
        assert_eq!((chosen.to_string().as_str(), chosen.terms().non_retryable), ("no", true));
        let broken = refused(500, None, r#"{"failure":{"message":7}}"#).to_string();
        assert!(broken.contains("can't be read") && broken.contains("answered 500"), "{broken}");
    }

    #[test]
    fn header_values_are_visible_ascii() {
        assert_eq!(encode("a b\n%é"), "a b%0A%25%C3%A9");
    }
}
