//! The connection to Temporal: options from [`Settings`], retried until it works.

use std::time::Duration;

use backon::BackoffBuilder;
use temporalio_client::callback_based::CallbackBasedGrpcService;
use temporalio_client::errors::ClientConnectError;
use temporalio_client::{Connection, ConnectionOptions};
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::credentials::Credentials;
use crate::gather::Connector;
use crate::settings::{Settings, Tls};
use crate::transport::{self, Wire};

/// Time of one attempt, from DNS to the server's first answer.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a connection is proven, and how long the proof may take: a dead one is noticed within 45 s.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(15);

/// Waits between attempts: 0.2 s doubling to 15 s, with jitter, without end.
pub fn backoff() -> impl Iterator<Item = Duration> {
    backon::ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(15))
        .with_jitter()
        .without_max_times()
        .build()
}

/// An attempt to connect that failed: address, namespace, cause and remedy.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to Temporal at {address:?} (namespace {namespace:?}): {cause}; {remedy}")]
pub struct ConnectError {
    address: String,
    namespace: String,
    cause: String,
    remedy: &'static str,
}

/// A connection that works.
#[derive(Clone)]
pub struct Opened {
    /// For core's Workers.
    pub connection: Connection,
    /// What is under it.
    pub channel: Channel,
}

/// Connects, and tries again with backoff until it works. Each failure is logged, and shown by the readiness probe.
pub async fn connect(settings: &Settings, wire: &Wire) -> (Opened, Credentials) {
    let mut waits = backoff();
    loop {
        match first(settings, wire).await {
            Ok(connected) => {
                tracing::info!(address = settings.address, namespace = settings.namespace, "connected to Temporal");
                wire.lifecycle.note(None);
                return connected;
            }
            Err(error) => {
                tracing::warn!("{error}");
                wire.lifecycle.note(Some(error.to_string()));
            }
        }
        tokio::time::sleep(waits.next().unwrap_or(ATTEMPT_TIMEOUT)).await;
    }
}

async fn first(settings: &Settings, wire: &Wire) -> Result<(Opened, Credentials), ConnectError> {
    let credentials = Credentials::read(settings).await.map_err(|cause| failed(settings, cause, FILES))?;
    Ok((attempt(settings, &credentials, wire).await?, credentials))
}

fn failed(settings: &Settings, cause: String, remedy: &'static str) -> ConnectError {
    ConnectError { address: settings.address.clone(), namespace: settings.namespace.clone(), cause, remedy }
}

/// Connects once.
///
/// # Errors
/// It did not work; says where to, why, and what to check.
pub async fn attempt(settings: &Settings, credentials: &Credentials, wire: &Wire) -> Result<Opened, ConnectError> {
    let failed = |cause, remedy| failed(settings, cause, remedy);
    let endpoint = endpoint(settings, credentials).map_err(|cause| failed(cause, FILES))?;
    let endpoint = match wire.window {
        // That of the connection must not be what its answers wait for.
        Some(window) => {
            endpoint.initial_stream_window_size(window).initial_connection_window_size(transport::LARGEST_WINDOW)
        }
        None => endpoint,
    };
    let connected = async {
        let channel = endpoint.connect_with_connector(Connector::new(ATTEMPT_TIMEOUT)).await.map_err(|error| {
            let (cause, remedy) = unconnected(&error);
            failed(cause, remedy)
        })?;
        let service = transport::over(channel.clone(), wire.clone());
        let connection = Connection::connect(options(settings, credentials, service)).await.map_err(|error| {
            let (cause, remedy) = explain(&error);
            failed(cause, remedy)
        })?;
        Ok(Opened { connection, channel })
    };
    tokio::time::timeout(ATTEMPT_TIMEOUT, connected)
        .await
        .unwrap_or_else(|_| Err(failed(format!("no answer within {} s", ATTEMPT_TIMEOUT.as_secs()), UNREACHABLE)))
}

const FILES: &str = "check that the file is mounted and holds PEM text";
const UNREACHABLE: &str =
    "check the address, that the server runs, that network policies allow it, and that both sides agree on TLS";

/// Why there is no connection, and what to do about it.
fn unconnected(error: &tonic::transport::Error) -> (String, &'static str) {
    let cause = chain(error);
    // As rustls words it.
    let known = [
        (
            "not valid for name",
            "give the server a certificate for this name, or set spec.tls.serverName of the Connection to a name in it",
        ),
        ("certificate expired", "renew the server's certificate"),
        ("UnknownIssuer", "set spec.tls.caCertSecretRef of the Connection to who signed the server's certificate"),
    ];
    let remedy = known.iter().find(|(text, _)| cause.contains(text)).map_or(UNREACHABLE, |(_, remedy)| remedy);
    (cause, remedy)
}

fn explain(error: &ClientConnectError) -> (String, &'static str) {
    match error {
        ClientConnectError::SystemInfoCallError(status) => {
            let cause = format!("{:?}: {}", status.code(), status.message());
            match status.code() {
                Code::Unauthenticated | Code::PermissionDenied => {
                    (cause, "check the API key or the client certificate, and what it may do in this namespace")
                }
                _ => (cause, UNREACHABLE),
            }
        }
        // The display of the others may quote headers; their kind is enough.
        ClientConnectError::InvalidHeaders(_) => {
            ("the API key is not a valid header value".to_owned(), "check that it has no line break")
        }
        other => (other.to_string(), UNREACHABLE),
    }
}

/// An error and its causes, outermost first, each text once.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if texts.last() != Some(&text) {
            texts.push(text);
        }
        next = cause.source();
    }
    texts.join(": ")
}

fn options(settings: &Settings, credentials: &Credentials, service: CallbackBasedGrpcService) -> ConnectionOptions {
    ConnectionOptions::new(settings.url.clone())
        .identity(settings.identity.clone())
        .maybe_api_key(credentials.api_key.clone())
        .service_override(service)
        // The channel resolves its name at each connect.
        .dns_load_balancing(None)
        .build()
}

/// Where to, and how secured. The cause of a failure names the file.
fn endpoint(settings: &Settings, credentials: &Credentials) -> Result<Endpoint, String> {
    let mut endpoint = Endpoint::from_shared(settings.url.to_string())
        .map_err(|error| chain(&error))?
        .connect_timeout(ATTEMPT_TIMEOUT)
        .keep_alive_while_idle(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    let Some(tls) = &settings.tls else { return Ok(endpoint) };
    if let Some(name) = &tls.server_name {
        let origin = format!("https://{name}").parse().map_err(|error| format!("server name {name:?}: {error}"))?;
        endpoint = endpoint.origin(origin);
    }
    endpoint.tls_config(tls_config(tls, credentials)).map_err(|error| chain(&error))
}

fn tls_config(tls: &Tls, credentials: &Credentials) -> ClientTlsConfig {
    let mut config = ClientTlsConfig::new();
    config = match &credentials.ca {
        Some(pem) => config.ca_certificate(Certificate::from_pem(pem)),
        None => config.with_native_roots(),
    };
    if let Some((certificate, key)) = &credentials.client {
        config = config.identity(Identity::from_pem(certificate, key));
    }
    match &tls.server_name {
        Some(name) => config.domain_name(name),
        None => config,
    }
}

#[cfg(test)]
mod tls_tests;

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        Settings::read(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()), "h")
            .unwrap()
    }

    #[tokio::test]
    async fn a_refused_connection_names_address_namespace_and_remedy() {
        let settings = settings(&[("TEMPORAL_ADDRESS", "127.0.0.1:1"), ("TEMPORAL_NAMESPACE", "orders")]);
        let message = first(&settings, &Wire::default()).await.err().unwrap().to_string();
        for part in ["127.0.0.1:1", "\"orders\"", "refused", "check the address"] {
            assert!(message.contains(part), "{part} in {message}");
        }
    }

    #[tokio::test]
    async fn a_missing_certificate_names_the_file() {
        let settings = settings(&[
            ("TEMPORAL_ADDRESS", "127.0.0.1:1"),
            ("TEMPORAL_NAMESPACE", "n"),
            ("TEMPORAL_TLS_CLIENT_CERT_PATH", "/nowhere/tls.crt"),
            ("TEMPORAL_TLS_CLIENT_KEY_PATH", "/nowhere/tls.key"),
        ]);
        let message = first(&settings, &Wire::default()).await.err().unwrap().to_string();
        assert!(message.contains("/nowhere/tls.crt") && message.contains("mounted"), "{message}");
    }

    #[test]
    fn waits_grow_to_a_bound() {
        let waits: Vec<_> = backoff().take(20).collect();
        assert!(waits[0] < Duration::from_secs(1) && waits[19] >= Duration::from_secs(15), "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(30)), "{waits:?}");
    }
}
