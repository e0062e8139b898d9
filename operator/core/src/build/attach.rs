//! Where the pods of a child work, read from its template, and the change that attaches them to another Connection.
//!
//! The current version beside a new target can't be made anew: the manifest no longer says what its template was. So what
//! belongs to the Connection is taken out of the Deployment's own template, and that of the new one is put in.

use serde_json::{Value, json};

use super::environment::{self, API_KEY_VOLUME, CA_VOLUME, TLS_VOLUME, WorkerIdentity, Workers};
use super::{list, put_named, runtime};
use crate::connection::{Attached, Attachment, Auth, ConnectionFacts, SecretKey};
use crate::contract;
use crate::names;

/// Volumes that belong to a Connection.
const VOLUMES: [&str; 3] = [TLS_VOLUME, CA_VOLUME, API_KEY_VOLUME];

/// Where the pods of a Deployment work. `child` is the Deployment as the API server has it: of its metadata, name and
/// annotations are read.
#[must_use]
pub fn attached(child: &Value) -> Attached {
    let template = &child["spec"]["template"];
    let workers = workers(child);
    let Some(worker) = containers(template, workers).find(|container| workers.has(container)) else {
        return Attached::Torn;
    };
    let variable = |name| text(worker, name).unwrap_or_default();
    let found = Attachment::new(&baked(template, worker), variable(contract::ENV_NAMESPACE));
    let identity = WorkerIdentity {
        namespace: &found.temporal_namespace,
        deployment_name: variable(contract::ENV_DEPLOYMENT_NAME),
        build_id: text(worker, contract::ENV_BUILD_ID),
    };
    let whole = !found.connection.host_port.is_empty() && attach(child, &found.connection, &identity).is_none();
    if whole { Attached::To(found) } else { Attached::Torn }
}

/// The JSON merge patch that attaches a Deployment, given as the API server has it, to a Connection; none when its pods have all
/// of it already. It holds the version of the Deployment, and changes nothing of its template but what belongs to the Connection.
#[must_use]
pub fn attach(child: &Value, to: &ConnectionFacts, worker: &WorkerIdentity<'_>) -> Option<Value> {
    let before = &child["spec"]["template"];
    let workers = workers(child);
    let mut spec = before["spec"].clone();
    let spec_fields = super::as_map(&mut spec);
    let containers = list(spec_fields, workers.list());
    for container in containers.iter_mut().filter(|container| workers.has(container)) {
        detach(container, &baked(before, container));
    }
    environment::connect(containers, workers, to, worker);
    let volumes = list(spec_fields, "volumes");
    volumes.retain(|volume| VOLUMES.iter().all(|own| volume["name"] != *own));
    for volume in environment::volumes(to) {
        put_named(volumes, volume);
    }
    if let Auth::ApiKey(key) = &to.auth
        && workers.any_reads_file()
    {
        put_named(volumes, environment::api_key_volume(key));
    }
    if stands(&before["spec"], &spec) {
        return None;
    }
    let hash = environment::connection_hash(to);
    Some(json!({
        "metadata": {"resourceVersion": child["metadata"]["resourceVersion"]},
        "spec": {"template": {
            "metadata": {"annotations": {names::CONNECTION_SPEC_HASH_ANNOTATION: hash}},
            "spec": {workers.list(): spec[workers.list()], "volumes": spec["volumes"]},
        }},
    }))
}

fn workers(child: &Value) -> Workers {
    let name = child["metadata"]["name"].as_str().unwrap_or_default();
    let annotations = &child["metadata"]["annotations"];
    if annotations[names::RUNTIME_IMAGE_ANNOTATION].is_string() {
        Workers::Shared
    } else if annotations[names::SIDECAR_IMAGE_ANNOTATION].is_string() {
        Workers::Sidecar
    } else if runtime::is_mounted(&child["spec"]["template"]["spec"]["volumes"], name) {
        Workers::Library
    } else {
        Workers::All
    }
}

fn containers(template: &Value, workers: Workers) -> impl Iterator<Item = &Value> {
    template["spec"][workers.list()].as_array().into_iter().flatten()
}

fn variable<'a>(container: &'a Value, name: &str) -> Option<&'a Value> {
    container["env"].as_array()?.iter().find(|variable| variable["name"] == name)
}

fn text<'a>(container: &'a Value, name: &str) -> Option<&'a str> {
    variable(container, name)?["value"].as_str()
}

/// What a container has of a Connection. The user may have set variables of the same names where the Connection gave none:
/// the hash of the Connection tells which.
fn baked(template: &Value, container: &Value) -> ConnectionFacts {
    let volume = |name: &str| {
        let volumes = template["spec"]["volumes"].as_array().into_iter().flatten();
        volumes.into_iter().find(move |volume| volume["name"] == name)
    };
    let secret = |name: &str| volume(name).and_then(|volume| volume["secret"]["secretName"].as_str());
    let in_folder = |name: &str, folder: &str| {
        text(container, name).and_then(|path| path.strip_prefix(folder)?.strip_prefix('/')).map(str::to_owned)
    };
    let ca_file = in_folder(contract::ENV_TLS_SERVER_CA_CERT_PATH, contract::TLS_CA_MOUNT_PATH);
    let has_ca = in_folder(contract::ENV_TLS_SERVER_CA_CERT_PATH, contract::TLS_MOUNT_PATH).is_some();
    let by_certificate = in_folder(contract::ENV_TLS_CLIENT_KEY_PATH, contract::TLS_MOUNT_PATH);
    let auth = match by_certificate {
        Some(_) => Auth::MutualTls { secret: secret(TLS_VOLUME).unwrap_or_default().into(), has_ca },
        None => api_key(container, volume(API_KEY_VOLUME)).map_or(Auth::None, Auth::ApiKey),
    };
    let seen = ConnectionFacts {
        host_port: text(container, contract::ENV_ADDRESS).unwrap_or_default().into(),
        server_name: text(container, contract::ENV_TLS_SERVER_NAME).map(str::to_owned),
        auth,
        ca_cert: ca_file.map(|key| SecretKey { name: secret(CA_VOLUME).unwrap_or_default().into(), key }),
    };
    own(seen, template["metadata"]["annotations"][names::CONNECTION_SPEC_HASH_ANNOTATION].as_str())
}

fn api_key(container: &Value, volume: Option<&Value>) -> Option<SecretKey> {
    let owned =
        |name: &Value, key: &Value| Some(SecretKey { name: name.as_str()?.to_owned(), key: key.as_str()?.to_owned() });
    if text(container, contract::ENV_API_KEY_FILE) == Some(&environment::api_key_path()) {
        let secret = &volume?["secret"];
        return owned(&secret["secretName"], &secret["items"][0]["key"]);
    }
    let reference = &variable(container, contract::ENV_API_KEY)?["valueFrom"]["secretKeyRef"];
    owned(&reference["name"], &reference["key"])
}

/// What of it is the Connection's, by the hash; all of it when no choice has that hash.
fn own(seen: ConnectionFacts, hash: Option<&str>) -> ConnectionFacts {
    let nameless = ConnectionFacts { server_name: None, ..seen.clone() };
    let keyless = |facts: &ConnectionFacts| match facts.auth {
        Auth::ApiKey(_) => ConnectionFacts { auth: Auth::None, ..facts.clone() },
        _ => facts.clone(),
    };
    let choices = [seen.clone(), nameless.clone(), keyless(&seen), keyless(&nameless)];
    let fits = |facts: &ConnectionFacts| Some(environment::connection_hash(facts).as_str()) == hash;
    choices.into_iter().find(fits).unwrap_or(seen)
}

/// Takes out of a container what it has of a Connection.
fn detach(container: &mut Value, connection: &ConnectionFacts) {
    let worker = WorkerIdentity { namespace: "", deployment_name: "", build_id: None };
    let variables = environment::variables(connection, &worker);
    let by_key = matches!(connection.auth, Auth::ApiKey(_));
    let is_own = |variable: &Value| {
        let in_file = by_key && variable["name"] == contract::ENV_API_KEY_FILE;
        in_file || variables.iter().any(|own| own["name"] == variable["name"])
    };
    let fields = super::as_map(container);
    list(fields, "env").retain(|variable| !is_own(variable));
    list(fields, "volumeMounts").retain(|mount| VOLUMES.iter().all(|own| mount["name"] != *own));
}

/// Whether everything wanted is there. What the API server filled in is no difference, nor is the order of named things.
fn stands(is: &Value, wanted: &Value) -> bool {
    match (is, wanted) {
        (Value::Object(is), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| stands(is.get(key).unwrap_or(&Value::Null), wanted))
        }
        (Value::Null, Value::Array(wanted)) => wanted.is_empty(),
        (Value::Array(is), Value::Array(wanted)) => {
            is.len() == wanted.len() && wanted.iter().all(|wanted| is.iter().any(|is| stands(is, wanted)))
        }
        (is, wanted) => is == wanted,
    }
}
