//! Reads a fleet's Connection or ClusterConnection, and the Secrets that it names: those of the fleet's own namespace.

use kube::core::DeserializeGuard;
use kube::runtime::reflector::ObjectRef;
use operator_core::api::{
    Allowance, ClusterConnection, ConnectionKind, ConnectionRef, ConnectionSpec, Reason, WorkerDeployment,
};
use operator_core::border::{self, Border};
use operator_core::connection::{Auth, ConnectionFacts, SecretKey};
use operator_core::status::Blocked;

use super::client::CallError;
use super::namespaces::Namespaces;
use super::secrets::{SecretData, Secrets};
use super::watches::{Caches, Guarded, named};

/// Key of a private CA in its Secret.
const CA_KEY: &str = "ca.crt";

/// A Connection with its Secrets. No `Debug`: it holds credentials.
#[derive(Clone)]
pub struct ConnectionState {
    /// What the core needs.
    pub facts: ConnectionFacts,
    /// UID of the Connection.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
    /// The Secret with the credentials.
    pub secret: Option<SecretData>,
    /// The Secret with the server's CA.
    pub ca_secret: Option<SecretData>,
}

/// Why a Connection can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionProblem {
    /// The user must change something.
    #[error("{}", .0.message)]
    Blocked(Blocked),
    /// The API server could not be asked.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// What is read beside the caches.
#[derive(Clone, Copy)]
pub struct Reads<'a> {
    /// Secrets.
    pub secrets: &'a Secrets,
    /// Labels of namespaces.
    pub namespaces: &'a Namespaces,
}

/// Reads what a fleet's `connectionRef` names, and its Secrets in the fleet's own namespace: so no credential crosses the border
/// of a namespace. `again` reads the Secrets even if they were read lately.
///
/// # Errors
/// [`ConnectionProblem`].
pub async fn connection(
    caches: &Caches,
    reads: Reads<'_>,
    fleet: &WorkerDeployment,
    again: bool,
) -> Result<ConnectionState, ConnectionProblem> {
    let namespace = fleet.metadata.namespace.clone().unwrap_or_default();
    let reference = &fleet.spec.worker_options.connection_ref;
    let found = match reference.kind {
        ConnectionKind::Connection => of_namespace(caches, reference, &namespace)?,
        ConnectionKind::ClusterConnection => of_cluster(caches, reads.namespaces, reference, &namespace).await?,
    };
    Reader { secrets: reads.secrets, namespace: &namespace, connection: reference, again }.read(found).await
}

/// A Connection or ClusterConnection as it is stored.
struct Found {
    spec: ConnectionSpec,
    uid: String,
    generation: i64,
}

impl Found {
    fn new(object: &impl kube::Resource, spec: &ConnectionSpec) -> Self {
        let meta = object.meta();
        Self { spec: spec.clone(), uid: meta.uid.clone().unwrap_or_default(), generation: meta.generation.unwrap_or(0) }
    }
}

fn of_namespace(caches: &Caches, reference: &ConnectionRef, namespace: &str) -> Result<Found, ConnectionProblem> {
    let Some(stored) = named(&caches.connections, Border::Connection, namespace, &reference.name) else {
        return Err(missing(reference, &format!(" in namespace {namespace}")));
    };
    let connection = readable(&stored, reference)?;
    Ok(Found::new(connection, &connection.spec))
}

async fn of_cluster(
    caches: &Caches,
    namespaces: &Namespaces,
    reference: &ConnectionRef,
    namespace: &str,
) -> Result<Found, ConnectionProblem> {
    let key = ObjectRef::<Guarded<ClusterConnection>>::new(&reference.name);
    let Some(stored) = caches.cluster_connections.get(&key) else {
        return Err(match caches.cluster_connections_refused() {
            Some(refusal) => unreadable(reference, namespace, &refusal),
            None => missing(reference, ""),
        });
    };
    let connection = readable(&stored, reference)?;
    let is_allowed = allows(connection, namespaces, namespace).await;
    match is_allowed {
        Ok(true) => Ok(Found::new(connection, &connection.spec.connection)),
        Ok(false) => Err(refused(reference, namespace)),
        Err(error) if error.is_forbidden() => Err(unlabelled(reference, namespace, &error)),
        Err(error) => Err(error.into()),
    }
}

/// Whether the fleets of a namespace may use a ClusterConnection. Its labels are read where it selects by them.
///
/// # Errors
/// [`CallError`]: the labels can't be read.
pub async fn allows(
    connection: &ClusterConnection,
    namespaces: &Namespaces,
    namespace: &str,
) -> Result<bool, CallError> {
    match connection.spec.allowance(namespace) {
        _ if !border::stands(Border::ClusterConnection) => Ok(true),
        Allowance::Yes => Ok(true),
        Allowance::No => Ok(false),
        Allowance::ByLabels(selector) => Ok(selector.matches(&*namespaces.labels(namespace).await?)),
    }
}

fn readable<'a, K>(stored: &'a DeserializeGuard<K>, reference: &ConnectionRef) -> Result<&'a K, ConnectionProblem> {
    stored.0.as_ref().map_err(|invalid| {
        let message = format!("{reference} can't be read: {}; correct its spec.", invalid.error);
        blocked(Reason::ConnectionNotFound, message)
    })
}

fn missing(reference: &ConnectionRef, place: &str) -> ConnectionProblem {
    blocked(
        Reason::ConnectionNotFound,
        format!(
            "spec.workerOptions.connectionRef.name: {reference} does not exist{place}; create it or correct the name."
        ),
    )
}

fn unreadable(reference: &ConnectionRef, namespace: &str, refusal: &str) -> ConnectionProblem {
    blocked(
        Reason::ConnectionNotFound,
        format!(
            "spec.workerOptions.connectionRef.kind: {reference} can't be read: {refusal}. Let the operator read \
             ClusterConnections (rbac.clusterConnections of its chart), or use a Connection of namespace {namespace}."
        ),
    )
}

fn refused(reference: &ConnectionRef, namespace: &str) -> ConnectionProblem {
    blocked(
        Reason::ConnectionNotAllowed,
        format!(
            "spec.workerOptions.connectionRef: {reference} may not be used in namespace {namespace}, which its \
             spec.allowedNamespaces neither names nor selects; add the namespace there, or use a Connection of \
             namespace {namespace}. Pods and routing stay as they are meanwhile."
        ),
    )
}

fn unlabelled(reference: &ConnectionRef, namespace: &str, error: &CallError) -> ConnectionProblem {
    blocked(
        Reason::ConnectionNotAllowed,
        format!(
            "spec.workerOptions.connectionRef: whether {reference} may be used in namespace {namespace} is not known, as the \
             labels of the namespace can't be read: {error}; let the operator get namespaces, or add this one to \
             spec.allowedNamespaces.names."
        ),
    )
}

fn blocked(reason: Reason, message: String) -> ConnectionProblem {
    ConnectionProblem::Blocked(Blocked { reason, message })
}

struct Reader<'a> {
    secrets: &'a Secrets,
    namespace: &'a str,
    connection: &'a ConnectionRef,
    again: bool,
}

impl Reader<'_> {
    async fn read(&self, found: Found) -> Result<ConnectionState, ConnectionProblem> {
        let Found { spec, uid, generation } = found;
        let (auth, secret) = match (&spec.mutual_tls_secret_ref, &spec.api_key_secret_ref) {
            (Some(reference), _) => {
                let field = "spec.mutualTLSSecretRef";
                let secret = self.secret(field, &reference.name, &["kubernetes.io/tls", "Opaque"]).await?;
                self.keys(field, &reference.name, &secret, &["tls.crt", "tls.key"])?;
                let has_ca = secret.data.get(CA_KEY).is_some_and(|ca| !ca.is_empty());
                (Auth::MutualTls { secret: reference.name.clone(), has_ca }, Some(secret))
            }
            (None, Some(reference)) => {
                let field = "spec.apiKeySecretRef";
                let secret = self.secret(field, &reference.name, &["Opaque"]).await?;
                self.keys(field, &reference.name, &secret, &[&reference.key])?;
                let key = SecretKey { name: reference.name.clone(), key: reference.key.clone() };
                (Auth::ApiKey(key), Some(secret))
            }
            (None, None) => (Auth::None, None),
        };
        let tls = spec.tls.as_ref();
        let (ca_cert, ca_secret) = match tls.and_then(|tls| tls.ca_cert_secret_ref.as_ref()) {
            Some(reference) => {
                let field = "spec.tls.caCertSecretRef";
                let secret = self.secret(field, &reference.name, &["kubernetes.io/tls", "Opaque"]).await?;
                self.keys(field, &reference.name, &secret, &[CA_KEY])?;
                (Some(SecretKey { name: reference.name.clone(), key: CA_KEY.into() }), Some(secret))
            }
            None => (None, None),
        };
        let server_name = tls.and_then(|tls| tls.server_name.clone()).filter(|name| !name.is_empty());
        Ok(ConnectionState {
            facts: ConnectionFacts { host_port: spec.host_port.clone(), server_name, auth, ca_cert },
            uid,
            generation,
            secret,
            ca_secret,
        })
    }

    async fn secret(&self, field: &str, name: &str, kinds: &[&str]) -> Result<SecretData, ConnectionProblem> {
        let secret = self.secrets.get(self.namespace, name, self.again).await?;
        let Some(secret) = secret else {
            return Err(self.invalid(
                field,
                name,
                format!("does not exist in namespace {}; create it", self.namespace),
            ));
        };
        if !kinds.contains(&secret.kind.as_str()) {
            let remedy = format!("has type {:?}; use {}", secret.kind, kinds.join(" or "));
            return Err(self.invalid(field, name, remedy));
        }
        Ok(secret)
    }

    fn keys(&self, field: &str, name: &str, secret: &SecretData, keys: &[&str]) -> Result<(), ConnectionProblem> {
        match keys.iter().find(|&&key| secret.data.get(key).is_none_or(Vec::is_empty)) {
            Some(key) => Err(self.invalid(field, name, format!("has no data under key {key:?}; add it"))),
            None => Ok(()),
        }
    }

    fn invalid(&self, field: &str, name: &str, problem: String) -> ConnectionProblem {
        let connection = self.connection;
        blocked(Reason::AuthSecretInvalid, format!("{connection}, {field}: Secret {name:?} {problem}."))
    }
}
