//! The sidecar's container, and what the containers of the Worker get beside it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::environment::WorkerIdentity;
use super::{list, object, put_named, runtime};
use crate::contract::{self, RuntimeLimits};

/// Volume with the limits file.
const CONFIG_VOLUME: &str = "temporal-worker-config";
/// Volume with the program of the Worker's preStop hook.
const HOOK_VOLUME: &str = "temporal-worker-hook";

/// How a pod runs the sidecar.
#[derive(Clone, Debug, PartialEq)]
pub struct SidecarPod {
    /// Its image.
    pub image: String,
    /// Keys of payloads and of orders.
    pub limits: RuntimeLimits,
    /// Name of the ConfigMap with them.
    pub limits_map: String,
    /// Whether the pods know their uid, so that they can be cordoned.
    pub cordonable: bool,
    /// Names of the Secrets that hold keys of payloads.
    pub key_secrets: BTreeSet<String>,
}

/// Adds the sidecar to a pod, without the variables that reach the server, and what its Workers get of it. Gives back the user's
/// own variables that were replaced, as `container/NAME`.
pub fn add(spec: &mut Value, sidecar: &SidecarPod, worker: &WorkerIdentity<'_>) -> Vec<String> {
    let spec = super::as_map(spec);
    let mut replaced = Vec::new();
    for container in list(spec, "containers") {
        let name = container["name"].as_str().unwrap_or_default().to_owned();
        replaced.extend(point_to_it(container, worker).into_iter().map(|variable| format!("{name}/{variable}")));
    }
    let init = list(spec, "initContainers");
    let own = init.iter().position(|container| container["name"] == contract::SIDECAR_CONTAINER);
    let own = own.map_or(Value::Null, |position| init.remove(position));
    init.push(container(own, sidecar));
    let volumes = list(spec, "volumes");
    let source =
        json!({"name": sidecar.limits_map, "items": [{"key": contract::LIMITS_FILE, "path": contract::LIMITS_FILE}]});
    put_named(volumes, json!({"name": CONFIG_VOLUME, "configMap": source}));
    put_named(volumes, json!({"name": HOOK_VOLUME, "emptyDir": {"sizeLimit": "16Mi"}}));
    for (name, secret) in runtime::key_volumes(&sidecar.key_secrets) {
        put_named(volumes, json!({"name": name, "secret": {"secretName": secret}}));
    }
    replaced
}

/// Has a container of the Worker connect to the sidecar, and end only after it has drained. A hook of the user's own is left alone.
fn point_to_it(container: &mut Value, worker: &WorkerIdentity<'_>) -> Vec<String> {
    let plain = |name: &str, value: &str| json!({"name": name, "value": value});
    let mut variables = vec![
        plain(contract::ENV_ADDRESS, contract::SIDECAR_ADDRESS),
        plain(contract::ENV_NAMESPACE, worker.namespace),
        plain(contract::ENV_DEPLOYMENT_NAME, worker.deployment_name),
    ];
    variables.extend(worker.build_id.map(|id| plain(contract::ENV_BUILD_ID, id)));
    let fields = super::as_map(container);
    let mut replaced = Vec::new();
    for variable in variables {
        let name = variable["name"].as_str().unwrap_or_default().to_owned();
        if put_named(list(fields, "env"), variable) {
            replaced.push(name);
        }
    }
    runtime::mount(container, HOOK_VOLUME, contract::HOOK_MOUNT_PATH);
    if !container["lifecycle"]["preStop"].is_object() {
        let hook = json!({"exec": {"command": [contract::hook_path()]}});
        object(container, "lifecycle").insert("preStop".into(), hook);
    }
    replaced
}

/// The sidecar. `own` is the container of that name in the user's template, or null: what the user set of it, such as its
/// resources, stays where it is not ours to say.
fn container(own: Value, sidecar: &SidecarPod) -> Value {
    let mut container = own;
    let fields = super::as_map(&mut container);
    let any = |port: u16| format!("0.0.0.0:{port}");
    let probe = |path: &str, period: u32, failures: u32| {
        let get = json!({"path": path, "port": contract::SIDECAR_PROBES_PORT});
        json!({"httpGet": get, "periodSeconds": period, "failureThreshold": failures})
    };
    fields.insert("name".into(), contract::SIDECAR_CONTAINER.into());
    fields.insert("image".into(), sidecar.image.as_str().into());
    fields.insert("restartPolicy".into(), "Always".into());
    let limits = format!("{}/{}", contract::CONFIG_MOUNT_PATH, contract::LIMITS_FILE);
    let arguments = [
        ["--limits", &limits],
        ["--hook", &contract::hook_path()],
        ["--metrics-bind-address", &any(contract::SIDECAR_METRICS_PORT)],
        ["--health-probe-bind-address", &any(contract::SIDECAR_PROBES_PORT)],
    ];
    let arguments: Vec<_> = ["sidecar"].into_iter().chain(arguments.iter().flatten().map(|text| &**text)).collect();
    fields.insert("args".into(), json!(arguments));
    // The Worker starts only once its calls can be carried over: an SDK that can't connect at its start ends.
    fields.insert("startupProbe".into(), probe("/readyz", 1, 600));
    fields.insert("readinessProbe".into(), probe("/readyz", 5, 3));
    fields.insert("livenessProbe".into(), probe("/healthz", 10, 6));
    fields.entry("terminationMessagePolicy").or_insert("FallbackToLogsOnError".into());
    let ports = [
        (contract::SIDECAR_METRICS_PORT_NAME, contract::SIDECAR_METRICS_PORT),
        (contract::SIDECAR_PROBES_PORT_NAME, contract::SIDECAR_PROBES_PORT),
    ];
    let ports = ports.map(|(name, port)| json!({"name": name, "containerPort": port, "protocol": "TCP"}));
    fields.insert("ports".into(), json!(ports));
    let pod_name = json!({"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}});
    put_named(list(fields, "env"), pod_name);
    runtime::secure(&mut container);
    if sidecar.cordonable {
        runtime::tell_uid(&mut container);
    }
    runtime::mount(&mut container, CONFIG_VOLUME, contract::CONFIG_MOUNT_PATH);
    runtime::mount_keys(&mut container, &sidecar.key_secrets);
    let hook = json!({"name": HOOK_VOLUME, "mountPath": contract::HOOK_MOUNT_PATH});
    put_named(list(super::as_map(&mut container), "volumeMounts"), hook);
    container
}
