//! Reads of the Kubernetes side: a fleet's children and pods from the caches, its Connection and Secrets.

use kube::runtime::reflector::ObjectRef;
use operator_core::api::{Connection, ConnectionKind, Reason, WorkerDeployment};
use operator_core::connection::{Auth, ConnectionFacts, SecretKey};
use operator_core::names;
use operator_core::observed::{Cordon, KubeState, Observation, PodLoad, PodState, Unreadable};
use operator_core::status::Blocked;

use super::client::CallError;
use super::secrets::{SecretData, Secrets};
use super::views::PodView;
use super::watches::{Caches, Guarded};

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

/// What is known of a pod's load, and why it can't be read, while it can't.
pub type Load = (Observation<PodLoad>, Option<Unreadable>);

/// What others than the cluster know of pods.
pub trait Knowledge {
    /// The load of a pod.
    fn load(&self, pod: &PodView) -> Load;
    /// Whether orders reach a pod that takes some.
    fn may_order(&self, pod_uid: &str) -> bool;
}

/// The fleet's children and pods, with what is known of each pod.
pub fn kube_state(caches: &Caches, fleet: &FleetKey<'_>, known: &impl Knowledge) -> KubeState {
    let label = names::deployment_name_label(fleet.name);
    let mut state = KubeState::default();
    for deployment in caches.deployments.group(fleet.namespace, &label) {
        if deployment.owner_uid.as_deref() == Some(fleet.uid) {
            state.children.push(deployment.child.clone());
        } else {
            state.foreign_deployments.insert(deployment.child.name.clone());
        }
    }
    let pods = pods(caches, fleet);
    state.pods = pods.iter().map(|pod| pod_state(pod, known)).collect();
    state
}

/// A WorkerDeployment by all its names.
#[derive(Clone, Copy, Debug)]
pub struct FleetKey<'a> {
    /// Kubernetes namespace.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
    /// UID.
    pub uid: &'a str,
}

/// The fleet's pods that have not ended.
pub fn pods(caches: &Caches, fleet: &FleetKey<'_>) -> Vec<std::sync::Arc<PodView>> {
    let label = names::deployment_name_label(fleet.name);
    caches.pods.group(fleet.namespace, &label).into_iter().filter(|pod| !pod.ended).collect()
}

fn pod_state(pod: &PodView, known: &impl Knowledge) -> PodState {
    let (load, unreadable) = known.load(pod);
    let takes_orders = load.last().is_some_and(|load| load.cordon.is_some());
    PodState {
        name: super::index::View::name(pod).to_owned(),
        build_id: pod.build_id.clone(),
        ready: pod.ready,
        terminating: pod.terminating,
        may_run: pod.may_run,
        waiting: pod.waiting.clone(),
        deletion_cost: pod.deletion_cost,
        restarts: pod.restarts,
        may_be_cordoned: takes_orders && known.may_order(&pod.uid),
        cordoned: load.known().is_some_and(|load| load.cordon == Some(Cordon::Closed)),
        shown_cordoned: pod.shown_cordoned,
        load,
        unreadable,
    }
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

/// Reads a fleet's Connection and Secrets, all in the fleet's own namespace.
///
/// # Errors
/// [`ConnectionProblem`].
pub async fn connection(
    caches: &Caches,
    secrets: &Secrets,
    fleet: &WorkerDeployment,
    again: bool,
) -> Result<ConnectionState, ConnectionProblem> {
    let namespace = fleet.metadata.namespace.clone().unwrap_or_default();
    let reference = &fleet.spec.worker_options.connection_ref;
    if reference.kind == ConnectionKind::ClusterConnection {
        return Err(blocked(
            Reason::ConnectionNotFound,
            format!(
                "spec.workerOptions.connectionRef.kind: ClusterConnection {:?} can't be used in this release; \
             use a Connection of namespace {namespace}.",
                reference.name
            ),
        ));
    }
    let key = ObjectRef::<Guarded<Connection>>::new(&reference.name).within(&namespace);
    let Some(found) = caches.connections.get(&key) else {
        return Err(blocked(
            Reason::ConnectionNotFound,
            format!(
                "spec.workerOptions.connectionRef.name: Connection {:?} does not exist in namespace {namespace}; create it \
             or correct the name.",
                reference.name
            ),
        ));
    };
    let connection = found.0.as_ref().map_err(|error| {
        let name = &reference.name;
        blocked(Reason::ConnectionNotFound, format!("Connection {name:?} can't be read: {error}; correct its spec."))
    })?;
    let reader = Reader { secrets, namespace: &namespace, connection: &reference.name, again };
    reader.read(connection).await
}

fn blocked(reason: Reason, message: String) -> ConnectionProblem {
    ConnectionProblem::Blocked(Blocked { reason, message })
}

struct Reader<'a> {
    secrets: &'a Secrets,
    namespace: &'a str,
    connection: &'a str,
    again: bool,
}

impl Reader<'_> {
    async fn read(&self, connection: &Connection) -> Result<ConnectionState, ConnectionProblem> {
        let spec = &connection.spec;
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
            uid: connection.metadata.uid.clone().unwrap_or_default(),
            generation: connection.metadata.generation.unwrap_or(0),
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
        blocked(Reason::AuthSecretInvalid, format!("Connection {connection:?}, {field}: Secret {name:?} {problem}."))
    }
}
