//! `http` handlers: a POST to a service in the same pod.

use std::net::IpAddr;
use std::time::Duration;

use temporalio_client::Url;
use temporalio_common::protos::temporal::api::common::v1::Payload;

use super::{Call, HandlerError, MAX_DETAIL, MAX_OUTPUT, begin};
use crate::payload;

/// The client of all services: no proxy and no redirect, so that a task never leaves the pod.
pub(super) fn client() -> Result<reqwest::Client, String> {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(5))
        .build()
        .map_err(|error| format!("cannot build the HTTP client: {error}"))
}

/// The address of a service, which has to be in the pod.
///
/// # Errors
/// The value and what it should be.
pub(super) fn local_url(text: &str) -> Result<Url, String> {
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

pub(super) async fn run(name: &str, url: &Url, client: &reqwest::Client, call: &Call) -> Result<Payload, HandlerError> {
    let unreachable = |error: reqwest::Error| HandlerError::Unreachable {
        handler: name.to_owned(),
        url: url.to_string(),
        cause: cause(&error),
    };
    let mut request = client.post(url.clone()).header("content-type", "application/json").body(call.arguments.clone());
    for (key, value) in call.info() {
        request = request.header(format!("temporal-{}", key.to_ascii_lowercase().replace('_', "-")), encode(&value));
    }
    let mut response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    let limit = if status.is_success() { MAX_OUTPUT } else { MAX_DETAIL };
    let mut body = Vec::new();
    while body.len() <= limit
        && let Some(chunk) = response.chunk().await.map_err(unreachable)?
    {
        body.extend_from_slice(&chunk);
    }
    if !status.is_success() {
        body.truncate(MAX_DETAIL);
        return Err(HandlerError::Refused {
            handler: name.to_owned(),
            url: url.to_string(),
            status: status.as_u16(),
            body: String::from_utf8_lossy(&body).into_owned(),
        });
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
    fn header_values_are_visible_ascii() {
        assert_eq!(encode("a b\n%é"), "a b%0A%25%C3%A9");
    }
}
