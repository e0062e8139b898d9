//! From a Connection and its Secrets to a channel.

use std::sync::Arc;

use jiff::Timestamp;
use operator_core::api::{ConnectionRef, Reason};
use operator_core::border::{self, Border};
use operator_core::connection::Auth;
use operator_core::status::Blocked;

use crate::kube::connection::ConnectionState;
use crate::kube::secrets::SecretData;
use crate::temporal::{Connection, ConnectionError, ConnectionSpec, Credentials, ObjectVersion, Pool, PoolKey};

/// The channel of a Connection or ClusterConnection. Tenants never share one: its key holds the Kubernetes namespace of the
/// fleet, which is that of the Secrets, and the versions of everything that it was made from.
///
/// # Errors
/// [`Blocked`] when what the Secrets hold is malformed, or out of date.
pub fn connect(
    pool: &Pool,
    namespace: &str,
    reference: &ConnectionRef,
    connection: &ConnectionState,
    now: Timestamp,
) -> Result<Arc<Connection>, Blocked> {
    let key = key(namespace, connection);
    let blocked = |error: ConnectionError| Blocked {
        reason: Reason::AuthSecretInvalid,
        message: format!("{reference}: {error}."),
    };
    let open = match pool.get(&key) {
        Some(open) => open,
        None => pool.connect(key, &spec(connection)).map_err(blocked)?,
    };
    open.check_validity(now).map_err(blocked)?;
    Ok(open)
}

fn spec(connection: &ConnectionState) -> ConnectionSpec {
    ConnectionSpec {
        host_port: connection.facts.host_port.clone(),
        server_name: connection.facts.server_name.clone(),
        credentials: credentials(connection),
        ca_cert: connection.facts.ca_cert.as_ref().map(|ca| bytes(connection.ca_secret.as_ref(), &ca.key)),
    }
}

/// Key of the channel.
#[must_use]
pub fn key(namespace: &str, connection: &ConnectionState) -> PoolKey {
    let version = |secret: &SecretData| ObjectVersion {
        uid: secret.uid.clone(),
        resource_version: secret.resource_version.clone(),
    };
    let of = |secret: &Option<SecretData>| secret.as_ref().filter(|_| border::stands(Border::Channel)).map(version);
    PoolKey {
        kubernetes_namespace: border::within(Border::Channel, namespace).to_owned(),
        connection_uid: connection.uid.clone(),
        connection_generation: connection.generation,
        secret: of(&connection.secret),
        ca_secret: of(&connection.ca_secret),
    }
}

fn credentials(connection: &ConnectionState) -> Credentials {
    let secret = connection.secret.as_ref();
    match &connection.facts.auth {
        Auth::None => Credentials::None,
        Auth::MutualTls { has_ca, .. } => Credentials::MutualTls {
            cert: bytes(secret, "tls.crt").into(),
            key: bytes(secret, "tls.key").into(),
            ca: has_ca.then(|| bytes(secret, "ca.crt")),
        },
        Auth::ApiKey(key) => Credentials::ApiKey(bytes(secret, &key.key).into()),
    }
}

fn bytes(secret: Option<&SecretData>, key: &str) -> Vec<u8> {
    secret.and_then(|secret| secret.data.get(key)).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use operator_core::api::ConnectionKind;
    use operator_core::connection::{ConnectionFacts, SecretKey};
    use prometheus::Registry;

    use super::*;
    use crate::temporal::{Limits, Metrics};

    /// One ClusterConnection as a fleet sees it, with the Secret of the fleet's own namespace.
    fn state(secret_uid: &str, key: &str) -> ConnectionState {
        let auth = Auth::ApiKey(SecretKey { name: "credentials".into(), key: "key".into() });
        let secret = SecretData {
            uid: secret_uid.into(),
            resource_version: "1".into(),
            kind: "Opaque".into(),
            data: [("key".to_owned(), key.as_bytes().to_vec())].into(),
        };
        ConnectionState {
            facts: ConnectionFacts { host_port: "temporal:7233".into(), server_name: None, auth, ca_cert: None },
            uid: "shared".into(),
            generation: 1,
            secret: Some(secret),
            ca_secret: None,
        }
    }

    #[tokio::test]
    async fn fleets_of_two_namespaces_never_share_the_channel_of_their_cluster_connection() {
        let pool = Pool::new(Limits::default(), Metrics::register(&Registry::new()).unwrap());
        let reference = ConnectionRef { kind: ConnectionKind::ClusterConnection, name: "shared".into() };
        let open = |namespace: &str, state: &ConnectionState| {
            connect(&pool, namespace, &reference, state, Timestamp::now()).unwrap()
        };
        let own = open("a", &state("u", "key of a"));
        assert!(Arc::ptr_eq(&own, &open("a", &state("u", "key of a"))), "a second fleet of the namespace has the same");
        // By the namespace alone, whatever the Secrets are called or were made from.
        assert!(!Arc::ptr_eq(&own, &open("b", &state("u", "key of a"))));
        assert!(!Arc::ptr_eq(&own, &open("a", &state("v", "another key of a"))), "it was made from another Secret");
    }
}
