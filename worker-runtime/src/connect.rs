//! The connection to Temporal: options from [`Settings`], retried until it works.

use std::path::Path;
use std::time::Duration;

use backon::BackoffBuilder;
use temporalio_client::errors::ClientConnectError;
use temporalio_client::tonic::Code;
use temporalio_client::{ClientTlsOptions, Connection, ConnectionOptions, GrpcCompression, TlsOptions};

use crate::settings::{Settings, Tls};

/// Time of one attempt, from DNS to the server's first answer.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

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

/// Connects, and tries again with backoff until it works. Each failure is logged.
pub async fn connect(settings: &Settings) -> Connection {
    let mut waits = backoff();
    loop {
        match attempt(settings).await {
            Ok(connection) => {
                tracing::info!(address = settings.address, namespace = settings.namespace, "connected to Temporal");
                return connection;
            }
            Err(error) => tracing::warn!("{error}"),
        }
        tokio::time::sleep(waits.next().unwrap_or(ATTEMPT_TIMEOUT)).await;
    }
}

async fn attempt(settings: &Settings) -> Result<Connection, ConnectError> {
    let failed = |cause, remedy| ConnectError {
        address: settings.address.clone(),
        namespace: settings.namespace.clone(),
        cause,
        remedy,
    };
    let options =
        options(settings).await.map_err(|cause| failed(cause, "check that the file is mounted and holds PEM text"))?;
    match tokio::time::timeout(ATTEMPT_TIMEOUT, Connection::connect(options)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => {
            let (cause, remedy) = explain(&error);
            Err(failed(cause, remedy))
        }
        Err(_) => Err(failed(format!("no answer within {} s", ATTEMPT_TIMEOUT.as_secs()), UNREACHABLE)),
    }
}

const UNREACHABLE: &str =
    "check the address, that the server runs, that network policies allow it, and that both sides agree on TLS";

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
        ClientConnectError::TonicTransportError(error) => (chain(error), UNREACHABLE),
        // The display of the others may quote headers; their kind is enough.
        ClientConnectError::InvalidHeaders(_) => {
            ("the API key is not a valid header value".to_owned(), "check that it has no line break")
        }
        other => (other.to_string(), UNREACHABLE),
    }
}

/// An error and its causes, outermost first, each text once.
fn chain(error: &dyn std::error::Error) -> String {
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

async fn options(settings: &Settings) -> Result<ConnectionOptions, String> {
    let tls = match &settings.tls {
        Some(tls) => Some(tls_options(tls).await?),
        None => None,
    };
    Ok(ConnectionOptions::new(settings.url.clone())
        .identity(settings.identity.clone())
        .maybe_tls_options(tls)
        .maybe_api_key(settings.api_key.clone())
        .connect_timeout(ATTEMPT_TIMEOUT)
        // One connection that resolves its name at each connect: with client-side balancing a refused connection is
        // retried inside and never reported.
        .dns_load_balancing(None)
        // Compression costs a third of core's CPU, and the traffic stays in the cluster or region.
        .grpc_compression(GrpcCompression::None)
        .build())
}

async fn tls_options(tls: &Tls) -> Result<TlsOptions, String> {
    let ca = match &tls.ca {
        Some(path) => Some(read(path).await?),
        None => None,
    };
    let client = match &tls.client {
        Some((cert, key)) => Some(
            ClientTlsOptions::builder().client_cert(read(cert).await?).client_private_key(read(key).await?).build(),
        ),
        None => None,
    };
    Ok(TlsOptions::builder()
        .maybe_server_root_ca_cert(ca)
        .maybe_client_tls_options(client)
        .maybe_domain(tls.server_name.clone())
        .build())
}

async fn read(path: &Path) -> Result<Vec<u8>, String> {
    tokio::fs::read(path).await.map_err(|error| format!("file {} can't be read: {error}", path.display()))
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
        let message = attempt(&settings).await.err().unwrap().to_string();
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
        let message = attempt(&settings).await.err().unwrap().to_string();
        assert!(message.contains("/nowhere/tls.crt") && message.contains("mounted"), "{message}");
    }

    #[test]
    fn waits_grow_to_a_bound() {
        let waits: Vec<_> = backoff().take(20).collect();
        assert!(waits[0] < Duration::from_secs(1) && waits[19] >= Duration::from_secs(15), "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(30)), "{waits:?}");
    }
}
