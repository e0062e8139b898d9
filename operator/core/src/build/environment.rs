//! What a container needs to reach the Temporal server: environment variables, volumes and mounts.
//!
//! Names, values and order are those of temporal-worker-controller 1.8, so that a Worker written for it runs unchanged.

use serde_json::{Value, json};

use super::{list, put_named};
use crate::build_id;
use crate::connection::{Auth, ConnectionFacts, SecretKey};
use crate::contract;

/// Volume with the client certificate.
pub(super) const TLS_VOLUME: &str = "temporal-tls";
/// Volume with the server's CA.
pub(super) const CA_VOLUME: &str = "temporal-tls-ca";

/// Volume with the API key, and its file.
pub(super) const API_KEY_VOLUME: &str = "temporal-api-key";
const API_KEY_FILE: &str = "api-key";

/// Who a Worker is, besides its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerIdentity<'a> {
    /// Temporal namespace.
    pub namespace: &'a str,
    /// Temporal Worker Deployment name.
    pub deployment_name: &'a str,
    /// Build ID; none with Worker Versioning off.
    pub build_id: Option<&'a str>,
}

/// The containers of a pod that are Workers, and so get what reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// All of them.
    All,
    /// All of them; the first one is built on the runtime's library.
    Library,
    /// The runtime's container alone: those beside it are the handlers', which no credential reaches.
    Shared,
    /// The sidecar's alone, which carries the calls of the Workers over.
    Sidecar,
}

impl Workers {
    /// The field of a pod's spec that lists them.
    #[must_use]
    pub fn list(self) -> &'static str {
        if self == Self::Sidecar { "initContainers" } else { "containers" }
    }

    /// Whether a container of that list is one of them.
    #[must_use]
    pub fn has(self, container: &Value) -> bool {
        match self {
            Self::All | Self::Library => true,
            Self::Shared => container["name"] == contract::RUNTIME_CONTAINER,
            Self::Sidecar => container["name"] == contract::SIDECAR_CONTAINER,
        }
    }

    /// Whether one of them is the runtime or built on it, so that it reads an API key from a file.
    #[must_use]
    pub fn any_reads_file(self) -> bool {
        self != Self::All
    }

    /// Whether the container at a position is the runtime's or built on it, so that it reads an API key from a file.
    fn reads_file(self, position: usize) -> bool {
        matches!(self, Self::Shared | Self::Sidecar) || self == Self::Library && position == 0
    }
}

/// Gives the Workers of a pod what reaches the server, but for volumes. Gives back the user's own variables that it
/// replaced, as `container/NAME`.
pub fn connect(
    containers: &mut [Value],
    workers: Workers,
    connection: &ConnectionFacts,
    worker: &WorkerIdentity<'_>,
) -> Vec<String> {
    let mut replaced = Vec::new();
    let own = containers.iter_mut().enumerate().filter(|(_, container)| workers.has(container));
    for (position, container) in own {
        let name = container["name"].as_str().unwrap_or_default().to_owned();
        let names = inject(container, connection, worker);
        if workers.reads_file(position) && matches!(connection.auth, Auth::ApiKey(_)) {
            read_api_key_from_file(container);
        }
        replaced.extend(names.into_iter().map(|variable| format!("{name}/{variable}")));
    }
    replaced
}

/// The value of annotation `temporal.io/connection-spec-hash` on the pods of a Connection.
#[must_use]
pub fn connection_hash(connection: &ConnectionFacts) -> String {
    let server_name = connection.server_name.as_deref();
    build_id::connection_spec_hash(&connection.host_port, server_name, connection.credential_secret())
}

/// The environment variables, in the contract's order.
#[must_use]
pub fn variables(connection: &ConnectionFacts, worker: &WorkerIdentity<'_>) -> Vec<Value> {
    let plain = |name: &str, value: &str| json!({"name": name, "value": value});
    let mut vars = vec![
        plain(contract::ENV_ADDRESS, &connection.host_port),
        plain(contract::ENV_NAMESPACE, worker.namespace),
        plain(contract::ENV_DEPLOYMENT_NAME, worker.deployment_name),
    ];
    vars.extend(worker.build_id.map(|id| plain(contract::ENV_BUILD_ID, id)));
    vars.extend(connection.server_name.as_ref().map(|name| plain(contract::ENV_TLS_SERVER_NAME, name)));
    let in_tls = |file: &str| format!("{}/{file}", contract::TLS_MOUNT_PATH);
    match &connection.auth {
        Auth::None => {}
        Auth::MutualTls { .. } => vars.extend([
            plain(contract::ENV_TLS, "true"),
            plain(contract::ENV_TLS_CLIENT_KEY_PATH, &in_tls("tls.key")),
            plain(contract::ENV_TLS_CLIENT_CERT_PATH, &in_tls("tls.crt")),
        ]),
        Auth::ApiKey(key) => vars.push(json!({
            "name": contract::ENV_API_KEY,
            "valueFrom": {"secretKeyRef": {"name": key.name, "key": key.key}},
        })),
    }
    match (&connection.ca_cert, &connection.auth) {
        (Some(ca), auth) => {
            if !matches!(auth, Auth::MutualTls { .. }) {
                vars.push(plain(contract::ENV_TLS, "true"));
            }
            let path = format!("{}/{}", contract::TLS_CA_MOUNT_PATH, ca.key);
            vars.push(plain(contract::ENV_TLS_SERVER_CA_CERT_PATH, &path));
        }
        (None, Auth::MutualTls { has_ca: true, .. }) => {
            vars.push(plain(contract::ENV_TLS_SERVER_CA_CERT_PATH, &in_tls("ca.crt")));
        }
        (None, _) => {}
    }
    vars
}

/// Adds the variables and mounts to one container, and gives back the names of the user's own variables that it
/// replaced.
pub fn inject(container: &mut Value, connection: &ConnectionFacts, worker: &WorkerIdentity<'_>) -> Vec<String> {
    let Value::Object(container) = container else { return Vec::new() };
    let env = list(container, "env");
    let mut replaced = Vec::new();
    for variable in variables(connection, worker) {
        let name = variable["name"].as_str().unwrap_or_default().to_owned();
        if put_named(env, variable) {
            replaced.push(name);
        }
    }
    let mut mount = |name: &str, path: &str| {
        let mounts = list(container, "volumeMounts");
        mounts.retain(|entry| entry["mountPath"] != path);
        mounts.push(json!({"name": name, "mountPath": path}));
    };
    if matches!(connection.auth, Auth::MutualTls { .. }) {
        mount(TLS_VOLUME, contract::TLS_MOUNT_PATH);
    }
    if connection.ca_cert.is_some() {
        mount(CA_VOLUME, contract::TLS_CA_MOUNT_PATH);
    }
    replaced
}

/// Gives a container of the runtime the API key as a file, which changes with its Secret, in place of the variable, which
/// lasts as long as the pod and can be read from the process's environment.
fn read_api_key_from_file(container: &mut Value) {
    let Value::Object(container) = container else { return };
    let env = list(container, "env");
    env.retain(|variable| variable["name"] != contract::ENV_API_KEY);
    put_named(env, json!({"name": contract::ENV_API_KEY_FILE, "value": api_key_path()}));
    let mount = json!({"name": API_KEY_VOLUME, "mountPath": contract::API_KEY_MOUNT_PATH, "readOnly": true});
    put_named(list(container, "volumeMounts"), mount);
}

/// The file that [`read_api_key_from_file`] names.
pub(super) fn api_key_path() -> String {
    format!("{}/{API_KEY_FILE}", contract::API_KEY_MOUNT_PATH)
}

/// The volume with that file.
#[must_use]
pub fn api_key_volume(key: &SecretKey) -> Value {
    let items = [json!({"key": key.key, "path": API_KEY_FILE})];
    json!({"name": API_KEY_VOLUME, "secret": {"secretName": key.name, "items": items}})
}

/// The volumes that [`inject`]'s mounts need.
#[must_use]
pub fn volumes(connection: &ConnectionFacts) -> Vec<Value> {
    let mut volumes = Vec::new();
    if let Auth::MutualTls { secret, .. } = &connection.auth {
        volumes.push(json!({"name": TLS_VOLUME, "secret": {"secretName": secret}}));
    }
    if let Some(ca) = &connection.ca_cert {
        let items = [json!({"key": ca.key, "path": ca.key})];
        volumes.push(json!({"name": CA_VOLUME, "secret": {"secretName": ca.name, "items": items}}));
    }
    volumes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(auth: Auth) -> ConnectionFacts {
        ConnectionFacts { host_port: "t:7233".into(), server_name: None, auth, ca_cert: None }
    }

    const WORKER: WorkerIdentity<'_> =
        WorkerIdentity { namespace: "default", deployment_name: "prod/orders", build_id: Some("v1-45d8") };

    fn names(vars: &[Value]) -> Vec<&str> {
        vars.iter().filter_map(|var| var["name"].as_str()).collect()
    }

    #[test]
    fn a_plain_connection_gives_the_four_variables_in_order() {
        let vars = variables(&connection(Auth::None), &WORKER);
        let expected =
            ["TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE", "TEMPORAL_DEPLOYMENT_NAME", "TEMPORAL_WORKER_BUILD_ID"];
        assert_eq!(names(&vars), expected);
    }

    #[test]
    fn mutual_tls_mounts_the_secret_and_names_its_files() {
        let connection = connection(Auth::MutualTls { secret: "certs".into(), has_ca: false });
        let mut container = json!({"name": "w"});
        inject(&mut container, &connection, &WORKER);
        assert_eq!(
            names(container["env"].as_array().unwrap())[4..],
            ["TEMPORAL_TLS", "TEMPORAL_TLS_CLIENT_KEY_PATH", "TEMPORAL_TLS_CLIENT_CERT_PATH"]
        );
        assert_eq!(container["volumeMounts"], json!([{"name": "temporal-tls", "mountPath": "/etc/temporal/tls"}]));
        assert_eq!(volumes(&connection), [json!({"name": "temporal-tls", "secret": {"secretName": "certs"}})]);
    }

    #[test]
    fn an_api_key_stays_a_reference() {
        let auth = Auth::ApiKey(SecretKey { name: "cloud".into(), key: "api-key".into() });
        let vars = variables(&connection(auth), &WORKER);
        let reference = json!({"secretKeyRef": {"name": "cloud", "key": "api-key"}});
        assert_eq!(vars[4], json!({"name": "TEMPORAL_API_KEY", "valueFrom": reference}));
    }

    #[test]
    fn a_private_ca_reaches_the_pods() {
        let mut connection = connection(Auth::None);
        connection.ca_cert = Some(SecretKey { name: "ca".into(), key: "ca.crt".into() });
        let mut container = json!({"name": "w"});
        inject(&mut container, &connection, &WORKER);
        let env = container["env"].as_array().unwrap();
        assert_eq!(env[4], json!({"name": "TEMPORAL_TLS", "value": "true"}));
        assert_eq!(env[5], json!({"name": "TEMPORAL_TLS_SERVER_CA_CERT_PATH", "value": "/etc/temporal/ca/ca.crt"}));
    }

    #[test]
    fn a_variable_that_the_user_set_too_is_replaced_and_named() {
        let mut container = json!({"name": "w", "env": [
            {"name": "TEMPORAL_ADDRESS", "value": "elsewhere:7233"}, {"name": "MINE", "value": "1"}]});
        let replaced = inject(&mut container, &connection(Auth::None), &WORKER);
        assert_eq!(replaced, ["TEMPORAL_ADDRESS"]);
        assert_eq!(container["env"][0]["name"], "MINE");
        assert_eq!(container["env"][1], json!({"name": "TEMPORAL_ADDRESS", "value": "t:7233"}));
    }
}
