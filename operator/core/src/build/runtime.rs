//! The runtime's container, its configuration files, and what the other containers of its pod get.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::list;
use crate::contract::{self, HandlerConfig, HandlerKind, RuntimeConfig, RuntimeLimits};

/// Volume with the configuration files.
const CONFIG_VOLUME: &str = "temporal-worker-config";
/// Volume with the token of the pod.
const TOKEN_VOLUME: &str = "temporal-worker-token";
/// Begins the drain of the runtime in the same container, and returns when no task is left.
const DRAIN: [&str; 2] = ["/worker-runtime", "drain"];
/// Time between the end of the drain and the end of the pod's grace period.
const GRACE_MARGIN: Duration = Duration::from_secs(15);

/// How a pod runs the worker runtime.
#[derive(Clone, Debug, PartialEq)]
pub struct RuntimePod {
    /// Image of the runtime; none when the template's own container is built on the library.
    pub image: Option<String>,
    /// What the version runs.
    pub config: RuntimeConfig,
    /// How much, and for how long.
    pub limits: RuntimeLimits,
    /// Name of the ConfigMap with [`RuntimePod::config`].
    pub config_map: String,
    /// Name of the ConfigMap with [`RuntimePod::limits`].
    pub limits_map: String,
    /// Whether the pods know their uid, so that they can be cordoned.
    pub cordonable: bool,
    /// Names of the Secrets that hold keys of payloads.
    pub key_secrets: BTreeSet<String>,
    /// Images of handlers that come with one, by the handler's name.
    pub handler_images: BTreeMap<String, String>,
}

/// Name of the ConfigMap with what a version runs.
#[must_use]
pub fn config_map_name(child: &str) -> String {
    format!("{child}-runtime")
}

/// Name of the ConfigMap with a fleet's limits.
#[must_use]
pub fn limits_map_name(fleet: &str) -> String {
    format!("{fleet}-runtime-limits")
}

/// The runtime's container, without the variables that reach the server. `own` is the container of that name in the user's
/// template, or null. Of ours it gets the image, arguments, probes, ports and `POD_NAME`; what else the user set stays, and
/// what is left out has our defaults.
#[must_use]
pub fn container(own: Value, image: &str) -> Value {
    let file = |name: &str| format!("{}/{name}", contract::CONFIG_MOUNT_PATH);
    let probe = |path: &str, period: u32, failures: u32| json!({"httpGet": {"path": path, "port": contract::PROBES_PORT}, "periodSeconds": period, "failureThreshold": failures});
    let mut container = own;
    let fields = super::as_map(&mut container);
    fields.insert("name".into(), contract::RUNTIME_CONTAINER.into());
    fields.insert("image".into(), image.into());
    fields.insert(
        "args".into(),
        json!(["run", "--config", file(contract::CONFIG_FILE), "--limits", file(contract::LIMITS_FILE)]),
    );
    fields.insert("readinessProbe".into(), probe("/readyz", 2, 3));
    fields.insert("livenessProbe".into(), probe("/healthz", 10, 6));
    // What the runtime says last, as when its configuration can't be used, is then in the pod's status.
    fields.entry("terminationMessagePolicy").or_insert("FallbackToLogsOnError".into());
    let pod_name = json!({"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}});
    super::put_named(list(fields, "env"), pod_name);
    let ports = list(fields, "ports");
    let own_ports =
        [(contract::METRICS_PORT_NAME, contract::METRICS_PORT), (contract::PROBES_PORT_NAME, contract::PROBES_PORT)];
    for (name, port) in own_ports {
        ports.retain(|other| other["name"] != name && other["containerPort"] != port);
        ports.push(json!({"name": name, "containerPort": port, "protocol": "TCP"}));
    }
    secure(&mut container);
    // The drain begins with the hook, so that it has all of the pod's grace period.
    super::object(&mut container, "lifecycle").entry("preStop").or_insert_with(|| json!({"exec": {"command": DRAIN}}));
    container
}

/// Gives a container of ours as few rights as it needs. What the user set stays.
pub(super) fn secure(container: &mut Value) {
    let security = super::object(container, "securityContext");
    security.entry("allowPrivilegeEscalation").or_insert(false.into());
    security.entry("capabilities").or_insert_with(|| json!({"drop": ["ALL"]}));
    security.entry("runAsNonRoot").or_insert(true.into());
    security.entry("seccompProfile").or_insert_with(|| json!({"type": "RuntimeDefault"}));
}

/// Tells a container the uid of its pod: orders have to name it. What the user set stays.
pub fn tell_uid(container: &mut Value) {
    let Value::Object(container) = container else { return };
    let env = list(container, "env");
    if !env.iter().any(|variable| variable["name"] == contract::ENV_POD_UID) {
        env.push(json!({"name": contract::ENV_POD_UID, "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}));
    }
}

/// Mounts the configuration files into a container.
pub fn mount_config(container: &mut Value) {
    mount(container, CONFIG_VOLUME, contract::CONFIG_MOUNT_PATH);
}

/// Mounts a volume read-only, in place of what is mounted there.
pub(super) fn mount(container: &mut Value, volume: &str, path: &str) {
    let Value::Object(container) = container else { return };
    let mounts = list(container, "volumeMounts");
    mounts.retain(|other| other["mountPath"] != path);
    mounts.push(json!({"name": volume, "mountPath": path, "readOnly": true}));
}

/// Whether services in the pod are asked to run activities.
#[must_use]
pub fn has_services(runtime: &RuntimePod) -> bool {
    let is_service = |handler: &HandlerConfig| matches!(handler.kind, HandlerKind::Http(_));
    runtime.image.is_some() && runtime.config.handlers.iter().any(is_service)
}

/// Tells the runtime's container where to put the token by which services know it, and mounts the folder.
pub fn write_token(container: &mut Value) {
    mount_token(container, false);
    let Value::Object(container) = container else { return };
    let path = format!("{}/{}", contract::TOKEN_MOUNT_PATH, contract::TOKEN_FILE);
    super::put_named(list(container, "env"), json!({"name": contract::ENV_TOKEN_FILE, "value": path}));
}

/// Mounts the folder with the token into another container. What the user mounted there stays.
pub fn read_token(container: &mut Value) {
    mount_token(container, true);
}

fn mount_token(container: &mut Value, read_only: bool) {
    let Value::Object(container) = container else { return };
    let mounts = list(container, "volumeMounts");
    if !mounts.iter().any(|mount| mount["mountPath"] == contract::TOKEN_MOUNT_PATH) {
        let path = contract::TOKEN_MOUNT_PATH;
        mounts.push(json!({"name": TOKEN_VOLUME, "mountPath": path, "readOnly": read_only}));
    }
}

/// The volume that [`write_token`] and [`read_token`] need.
#[must_use]
pub fn token_volume() -> Value {
    json!({"name": TOKEN_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})
}

/// Where a key of a Secret is in a pod. Whole Secrets are mounted, so that a further key replaces no pod.
#[must_use]
pub fn key_file(secret: &str, key: &str) -> String {
    format!("{}/{secret}/{key}", contract::KEYS_MOUNT_PATH)
}

/// Mounts the Secrets with keys of payloads into the container that polls.
pub fn mount_keys(container: &mut Value, secrets: &BTreeSet<String>) {
    for (name, secret) in key_volumes(secrets) {
        mount(container, &name, &format!("{}/{secret}", contract::KEYS_MOUNT_PATH));
    }
}

/// Names of the volumes that [`mount_keys`] needs, and of their Secrets.
pub fn key_volumes(secrets: &BTreeSet<String>) -> impl Iterator<Item = (String, &String)> {
    (0..).map(|number: u32| format!("temporal-worker-keys-{number}")).zip(secrets)
}

/// Mounts each handler's image into the runtime's container, at the folder of the handler's name.
pub fn mount_images(container: &mut Value, runtime: &RuntimePod) {
    for (volume, (handler, _)) in image_volumes(runtime) {
        mount(container, &volume, &format!("{}/{handler}", contract::HANDLERS_MOUNT_PATH));
    }
}

/// Names of the volumes that [`mount_images`] needs, with their handlers' names and images.
pub fn image_volumes(runtime: &RuntimePod) -> impl Iterator<Item = (String, (&String, &String))> {
    // A handler's name may be as long as a volume's.
    (0..).map(|number: u32| format!("temporal-worker-handler-{number}")).zip(&runtime.handler_images)
}

/// Gives a Worker that is built on the library what the runtime's own container has: the files, where they are, and a
/// named port for its metrics. What the user set stays.
pub fn adopt_library(container: &mut Value) {
    mount_config(container);
    let Value::Object(container) = container else { return };
    let path = |file: &str| format!("{}/{file}", contract::CONFIG_MOUNT_PATH);
    for (name, file) in [(contract::ENV_CONFIG, contract::CONFIG_FILE), (contract::ENV_LIMITS, contract::LIMITS_FILE)] {
        let env = list(container, "env");
        if !env.iter().any(|variable| variable["name"] == name) {
            env.push(json!({"name": name, "value": path(file)}));
        }
    }
    let ports = list(container, "ports");
    let taken =
        |port: &Value| port["name"] == contract::METRICS_PORT_NAME || port["containerPort"] == contract::METRICS_PORT;
    if !ports.iter().any(taken) {
        let name = contract::METRICS_PORT_NAME;
        ports.push(json!({"name": name, "containerPort": contract::METRICS_PORT, "protocol": "TCP"}));
    }
}

/// The volume that [`mount_config`] needs: both files in one folder.
#[must_use]
pub fn config_volume(runtime: &RuntimePod) -> Value {
    let source = |name: &str, file: &str| json!({"configMap": {"name": name, "items": [{"key": file, "path": file}]}});
    json!({"name": CONFIG_VOLUME, "projected": {"sources": [
        source(&runtime.config_map, contract::CONFIG_FILE),
        source(&runtime.limits_map, contract::LIMITS_FILE),
    ]}})
}

/// Makes a handler's container outlive the runtime's tasks: its preStop hook returns once the runtime has drained. A
/// hook of the user's own is left alone.
pub fn wait_for_drain(container: &mut Value) {
    if container["lifecycle"]["preStop"].is_object() {
        return;
    }
    let hook = json!({"httpGet": {"path": contract::DRAINED_PATH, "port": contract::PROBES_PORT}});
    super::object(container, "lifecycle").insert("preStop".into(), hook);
}

/// Whether the pods of a child run the runtime, or a Worker that is built on it: they mount its configuration.
#[must_use]
pub fn is_mounted(volumes: &Value, child: &str) -> bool {
    let volumes = volumes.as_array().into_iter().flatten();
    let mut sources = volumes
        .filter(|volume| volume["name"] == CONFIG_VOLUME)
        .flat_map(|volume| volume["projected"]["sources"].as_array().into_iter().flatten());
    let config_map = config_map_name(child);
    sources.any(|source| source["configMap"]["name"] == config_map.as_str())
}

/// Seconds that a pod gets to end by itself.
#[must_use]
pub fn grace_period_seconds(limits: &RuntimeLimits) -> u64 {
    (limits.drain_timeout() + GRACE_MARGIN).as_secs()
}

/// The ConfigMaps' data as `(name, file, text)`.
#[must_use]
pub fn files(runtime: &RuntimePod) -> [(&str, &'static str, String); 2] {
    // Both are plain data with string keys: writing them as JSON can't fail.
    let text = |json: serde_json::Result<String>| json.unwrap_or_default();
    [
        (&runtime.config_map, contract::CONFIG_FILE, text(serde_json::to_string(&runtime.config))),
        (&runtime.limits_map, contract::LIMITS_FILE, text(serde_json::to_string(&runtime.limits))),
    ]
}
