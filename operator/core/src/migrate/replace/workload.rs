//! What of the Deployment becomes the fleet's.

use serde_json::{Map, Value, json};

use super::super::json::{annotation, label, list, name, number, text};
use super::Findings;
use super::connect::Server;
use crate::api::DEFAULT_PROGRESS_DEADLINE_SECONDS;

/// Annotation that `kubectl rollout restart` leaves.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";
/// Revisions that a Deployment keeps unless it says otherwise.
const REVISIONS: i64 = 10;

/// The containers of its pods.
pub(super) fn containers(deployment: &Value) -> &[Value] {
    list(deployment, "/spec/template/spec/containers")
}

/// The container that says where it works, else the first one.
pub(super) fn worker(deployment: &Value) -> Option<&Value> {
    let all = containers(deployment);
    let says = |container: &&Value| !matches!(variable(container, "TEMPORAL_ADDRESS"), Variable::Absent);
    all.iter().find(says).or(all.first())
}

/// What a variable of a container is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Variable<'a> {
    /// Not among `env`; `envFrom` may have it.
    Absent,
    /// Written out.
    Is(&'a str),
    /// A key of a Secret.
    Secret {
        /// Its name.
        name: &'a str,
        /// Its key.
        key: &'a str,
    },
    /// From elsewhere.
    Elsewhere,
}

/// A variable of a container.
pub(super) fn variable<'a>(container: &'a Value, named: &str) -> Variable<'a> {
    let Some(found) = list(container, "/env").iter().find(|variable| variable["name"] == named) else {
        return Variable::Absent;
    };
    if let Some(value) = text(found, "/value") {
        return if value.contains("$(") { Variable::Elsewhere } else { Variable::Is(value) };
    }
    match (text(found, "/valueFrom/secretKeyRef/name"), text(found, "/valueFrom/secretKeyRef/key")) {
        (Some(name), Some(key)) => Variable::Secret { name, key },
        _ => Variable::Elsewhere,
    }
}

/// The Secret and the file of it that a container finds at a path.
pub(super) fn mounted_secret<'a>(
    deployment: &'a Value,
    container: &'a Value,
    path: &'a str,
) -> Option<(&'a str, &'a str)> {
    let mount = list(container, "/volumeMounts").iter().find_map(|mount| {
        let file = path.strip_prefix(text(mount, "/mountPath")?)?.strip_prefix('/')?;
        Some((text(mount, "/name")?, file))
    });
    let (volume, file) = mount?;
    let volumes = list(deployment, "/spec/template/spec/volumes").iter();
    let secret = volumes.filter(|it| it["name"] == volume).find_map(|it| text(it, "/secret/secretName"));
    secret.map(|secret| (secret, file))
}

/// The pod template, but for what the Connection gives.
pub(super) fn template(deployment: &Value, server: &Server, found: &mut Findings) -> Value {
    let mut template = deployment["spec"]["template"].clone();
    if let Some(metadata) = template.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        metadata.retain(|_, value| !value.is_null());
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(RESTARTED_AT);
        }
        metadata.retain(|_, value| value.as_object().is_none_or(|map| !map.is_empty()));
    }
    let given = server.variables();
    for list in ["containers", "initContainers"] {
        let pointer = format!("/spec/{list}");
        let Some(all) = template.pointer_mut(&pointer).and_then(Value::as_array_mut) else { continue };
        for container in all {
            note_expansions(container, &given, found);
            // Variables are given to Workers, not to what runs before them.
            if list == "containers" {
                drop_variables(container, &given, found);
            }
        }
    }
    note_environment(deployment, found);
    template
}

fn drop_variables(container: &mut Value, given: &[&str], found: &mut Findings) {
    let own = container["name"].as_str().unwrap_or_default().to_owned();
    let Some(env) = container.get_mut("env").and_then(Value::as_array_mut) else { return };
    let is_given = |variable: &Value| variable["name"].as_str().is_some_and(|name| given.contains(&name));
    let dropped: Vec<String> =
        env.iter().filter(|it| is_given(it)).filter_map(|it| it["name"].as_str()).map(ToOwned::to_owned).collect();
    if dropped.is_empty() {
        return;
    }
    env.retain(|variable| !is_given(variable));
    if env.is_empty()
        && let Some(container) = container.as_object_mut()
    {
        container.remove("env");
    }
    found
        .notes
        .push(format!("Container {own} gets {} from the Connection: left out of the template.", dropped.join(", ")));
}

/// A variable that is made of one that the operator sets: that stands at the end of the list, and is not known before.
fn note_expansions(container: &Value, given: &[&str], found: &mut Findings) {
    for variable in list(container, "/env") {
        let Some(value) = text(variable, "/value") else { continue };
        if given.iter().any(|given| value.contains(&format!("$({given})"))) {
            found.notes.push(format!(
                "Variable {} of container {} is made of one that the operator sets, which comes after it: write its value out.",
                variable["name"].as_str().unwrap_or_default(),
                container["name"].as_str().unwrap_or_default()
            ));
        }
    }
}

fn note_environment(deployment: &Value, found: &mut Findings) {
    let with_more: Vec<&str> = containers(deployment)
        .iter()
        .filter(|container| !list(container, "/envFrom").is_empty())
        .filter_map(|container| container["name"].as_str())
        .collect();
    if !with_more.is_empty() {
        found.notes.push(format!(
            "Container {} takes variables from ConfigMaps or Secrets (envFrom), which were not read: where these have \
             TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE and the like, the Connection's count.",
            with_more.join(", ")
        ));
    }
    if containers(deployment)
        .iter()
        .any(|container| variable(container, "TEMPORAL_WORKER_BUILD_ID") != Variable::Absent)
    {
        found.notes.push(
            "The pods have TEMPORAL_WORKER_BUILD_ID: if these Workers use Worker Versioning, leave spec.versioning out and add \
             spec.rollout and spec.sunset."
                .into(),
        );
    }
}

/// What the Deployment says of its own rollouts.
pub(super) fn rollout(deployment: &Value, spec: &mut Value, found: &mut Findings) {
    if let Some(seconds) = number(deployment, "/spec/minReadySeconds").filter(|seconds| *seconds != 0) {
        spec["minReadySeconds"] = seconds.into();
    }
    let deadline = number(deployment, "/spec/progressDeadlineSeconds");
    if let Some(seconds) = deadline.filter(|seconds| *seconds != i64::from(DEFAULT_PROGRESS_DEADLINE_SECONDS)) {
        spec["progressDeadlineSeconds"] = seconds.into();
    }
    let strategy = &deployment["spec"]["strategy"];
    match strategy["type"].as_str() {
        Some("Recreate") => spec["deploymentStrategy"] = json!({"type": "Recreate"}),
        _ => {
            let usual = |value: &Value| value.is_null() || value == "25%";
            let rolling: Map<String, Value> = strategy["rollingUpdate"]
                .as_object()
                .cloned()
                .unwrap_or_default()
                .into_iter()
                .filter(|(_, value)| !usual(value))
                .collect();
            if !rolling.is_empty() {
                spec["deploymentStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": rolling});
            }
        }
    }
    if number(deployment, "/spec/revisionHistoryLimit").is_some_and(|limit| limit != REVISIONS) {
        found.notes.push("revisionHistoryLimit is not taken over: Kubernetes' own default holds.".into());
    }
    if deployment["spec"]["paused"] == true {
        found.notes.push(
            "The Deployment is paused: its pods may not be those of the template, which is what is copied.".into(),
        );
    }
    if let Some(keeper) = keeper(deployment) {
        found.notes.push(format!(
            "Deployment {} is kept by {keeper}: take it and its scaler out there too, or they come back.",
            name(deployment)
        ));
    }
}

/// Who would make the Deployment again.
fn keeper(deployment: &Value) -> Option<String> {
    let argo =
        label(deployment, "argocd.argoproj.io/instance").or(annotation(deployment, "argocd.argoproj.io/tracking-id"));
    let helm = annotation(deployment, "meta.helm.sh/release-name");
    let flux = label(deployment, "kustomize.toolkit.fluxcd.io/name");
    argo.map(|app| format!("Argo CD ({app})"))
        .or_else(|| flux.map(|name| format!("Flux (Kustomization {name})")))
        .or_else(|| helm.map(|release| format!("Helm (release {release})")))
}
