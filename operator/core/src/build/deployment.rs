//! The child Deployment of one version.

use serde_json::{Map, Value, json};

use super::environment::{self, WorkerIdentity, Workers};
use super::runtime::{self, RuntimePod};
use super::sidecar::{self, SidecarPod};
use super::{list, object};
use crate::api::DeploymentStrategy;
use crate::build_id::RUNTIME_HASH_SCHEME;
use crate::connection::{Auth, ConnectionFacts};
use crate::contract;
use crate::names;

/// Everything that a child Deployment is made of.
#[derive(Clone, Debug)]
pub struct ChildInput<'a> {
    /// The object that owns the child.
    pub owner: Owner<'a>,
    /// Name of the child.
    pub name: &'a str,
    /// Build ID; none with Worker Versioning off.
    pub build_id: Option<&'a str>,
    /// Temporal Worker Deployment name.
    pub deployment_name: &'a str,
    /// Temporal namespace.
    pub temporal_namespace: &'a str,
    /// The pod template as the user wrote it, or null.
    pub template: &'a Value,
    /// Hash of the user's template, as the contract has it; none to leave it out.
    pub template_hash: Option<&'a str>,
    /// The connection.
    pub connection: &'a ConnectionFacts,
    /// The runtime, if the fleet runs it.
    pub runtime: Option<&'a RuntimePod>,
    /// The sidecar, if it has one.
    pub sidecar: Option<&'a SidecarPod>,
    /// `spec.minReadySeconds`.
    pub min_ready_seconds: i32,
    /// `spec.progressDeadlineSeconds`.
    pub progress_deadline_seconds: i32,
    /// `spec.deploymentStrategy`.
    pub strategy: Option<&'a DeploymentStrategy>,
}

/// The owning WorkerDeployment.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// Kubernetes namespace.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
    /// UID.
    pub uid: &'a str,
}

/// A child Deployment, and what was replaced in the user's template to make it.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// The object, without `spec.replicas`: that belongs to the `scale` subresource alone.
    pub object: Value,
    /// The user's own variables that the operator's values replaced, as `container/NAME`.
    pub replaced_variables: Vec<String>,
}

/// Builds the child Deployment.
#[must_use]
pub fn child(input: &ChildInput<'_>) -> Child {
    let mut template = input.template.clone();
    let selector = selector_labels(input);
    object(&mut template, "metadata").remove("name");
    let labels = object_in(object(&mut template, "metadata"), "labels");
    labels.extend(selector.clone());
    let annotations = object_in(object(&mut template, "metadata"), "annotations");
    let own_annotations = annotations.clone();
    let connection_hash = environment::connection_hash(input.connection);
    annotations.insert(names::CONNECTION_SPEC_HASH_ANNOTATION.into(), connection_hash.into());
    if let Some(hash) = input.template_hash {
        annotations.insert(names::POD_TEMPLATE_SPEC_HASH_ANNOTATION.into(), hash.into());
    }
    let replaced_variables = finish_pod(&mut template, input);
    let spec = json!({
        "selector": {"matchLabels": selector},
        "template": template,
        "minReadySeconds": input.min_ready_seconds,
        "progressDeadlineSeconds": input.progress_deadline_seconds,
        "strategy": strategy_of(input.strategy),
    });
    let mut metadata = metadata(input.owner, input.name);
    object_in(&mut metadata, "labels").extend(selector);
    object_in(&mut metadata, "labels").extend(common_labels(input));
    if !own_annotations.is_empty() || input.runtime.is_some() || input.sidecar.is_some() {
        metadata.insert("annotations".into(), own_annotations.into());
    }
    if let Some(image) = input.runtime.and_then(|runtime| runtime.image.as_ref()) {
        let annotations = object_in(&mut metadata, "annotations");
        annotations.insert(names::RUNTIME_IMAGE_ANNOTATION.into(), image.as_str().into());
        annotations.insert(names::BUILD_ID_SCHEME_ANNOTATION.into(), RUNTIME_HASH_SCHEME.to_string().into());
    }
    if let Some(sidecar) = input.sidecar {
        let annotations = object_in(&mut metadata, "annotations");
        annotations.insert(names::SIDECAR_IMAGE_ANNOTATION.into(), sidecar.image.as_str().into());
    }
    let cordonable =
        input.runtime.map(|runtime| runtime.cordonable).or(input.sidecar.map(|sidecar| sidecar.cordonable));
    if cordonable == Some(true) {
        object_in(&mut metadata, "annotations").insert(names::CORDONABLE_ANNOTATION.into(), "true".into());
    }
    let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec});
    Child { object, replaced_variables }
}

/// The Deployment's strategy. Its type is always said, so that one that was said once goes with the field.
fn strategy_of(strategy: Option<&DeploymentStrategy>) -> Value {
    let mut value = json!({"type": strategy.map(|strategy| strategy.type_).unwrap_or_default()});
    if let Some(rolling) = strategy.and_then(|strategy| strategy.rolling_update.as_ref()) {
        value["rollingUpdate"] = json!(rolling);
    }
    value
}

/// A ConfigMap of the fleet.
#[must_use]
pub fn config_map(owner: Owner<'_>, name: &str, file: &str, text: &str, immutable: bool) -> Value {
    let mut map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(owner, name), "data": {file: text}});
    if immutable {
        map["immutable"] = true.into();
    }
    map
}

fn metadata(owner: Owner<'_>, name: &str) -> Map<String, Value> {
    let value = json!({
        "name": name,
        "namespace": owner.namespace,
        "labels": {names::DEPLOYMENT_NAME_LABEL: names::deployment_name_label(owner.name)},
        "ownerReferences": [{
            "apiVersion": "temporal.io/v1alpha1",
            "kind": "WorkerDeployment",
            "name": owner.name,
            "uid": owner.uid,
            "controller": true,
            "blockOwnerDeletion": true,
        }],
    });
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn selector_labels(input: &ChildInput<'_>) -> Map<String, Value> {
    let mut labels = Map::new();
    labels.insert(names::DEPLOYMENT_NAME_LABEL.into(), names::deployment_name_label(input.owner.name).into());
    if let Some(build_id) = input.build_id {
        labels.insert(names::BUILD_ID_LABEL.into(), names::build_id_label(build_id).into());
    }
    labels
}

fn common_labels(input: &ChildInput<'_>) -> Vec<(String, Value)> {
    let value = |text: &str| Value::from(names::build_id_label(text));
    [
        ("name", "temporal-worker"),
        ("instance", input.owner.name),
        ("version", input.build_id.unwrap_or("unversioned")),
        ("component", "worker"),
        ("part-of", input.owner.name),
        ("managed-by", names::FIELD_MANAGER),
    ]
    .map(|(key, text)| (format!("app.kubernetes.io/{key}"), value(text)))
    .into()
}

/// Adds to the pod what reaches the server, and the runtime.
fn finish_pod(template: &mut Value, input: &ChildInput<'_>) -> Vec<String> {
    let worker = WorkerIdentity {
        namespace: input.temporal_namespace,
        deployment_name: input.deployment_name,
        build_id: input.build_id,
    };
    object(template, "spec");
    let mut replaced = Vec::new();
    if let Some(sidecar) = input.sidecar {
        replaced.extend(sidecar::add(&mut template["spec"], sidecar, &worker));
    }
    let spec = object(template, "spec");
    if let Some(runtime) = input.runtime {
        add_runtime(list(spec, "containers"), runtime);
    }
    let workers = workers(input);
    replaced.extend(environment::connect(list(spec, workers.list()), workers, input.connection, &worker));
    for volume in environment::volumes(input.connection) {
        super::put_named(list(spec, "volumes"), volume);
    }
    if let Auth::ApiKey(key) = &input.connection.auth
        && workers.any_reads_file()
    {
        super::put_named(list(spec, "volumes"), environment::api_key_volume(key));
    }
    let limits = input.runtime.map(|runtime| &runtime.limits).or(input.sidecar.map(|sidecar| &sidecar.limits));
    if let Some(limits) = limits {
        spec.entry("terminationGracePeriodSeconds").or_insert_with(|| runtime::grace_period_seconds(limits).into());
    }
    if let Some(runtime) = input.runtime {
        super::put_named(list(spec, "volumes"), runtime::config_volume(runtime));
        for (name, secret) in runtime::key_volumes(&runtime.key_secrets) {
            super::put_named(list(spec, "volumes"), json!({"name": name, "secret": {"secretName": secret}}));
        }
        if runtime::has_services(runtime) {
            super::put_named(list(spec, "volumes"), runtime::token_volume());
        }
        for (name, (_, image)) in runtime::image_volumes(runtime) {
            super::put_named(list(spec, "volumes"), json!({"name": name, "image": {"reference": image}}));
        }
    }
    replaced
}

/// The containers that reach the server.
fn workers(input: &ChildInput<'_>) -> Workers {
    match (input.runtime, input.sidecar) {
        (None, None) => Workers::All,
        (None, Some(_)) => Workers::Sidecar,
        (Some(runtime), _) if runtime.image.is_some() => Workers::Shared,
        (Some(_), _) => Workers::Library,
    }
}

fn add_runtime(containers: &mut Vec<Value>, runtime: &RuntimePod) {
    let Some(image) = &runtime.image else {
        // Library mode: the template's first container is built on the library.
        for worker in containers.iter_mut().take(1) {
            runtime::adopt_library(worker);
            runtime::mount_keys(worker, &runtime.key_secrets);
            if runtime.cordonable {
                runtime::tell_uid(worker);
            }
        }
        return;
    };
    let own = containers.iter().position(|container| container["name"] == contract::RUNTIME_CONTAINER);
    let own = own.map_or(Value::Null, |position| containers.remove(position));
    containers.iter_mut().for_each(runtime::wait_for_drain);
    let mut container = runtime::container(own, image);
    if runtime.cordonable {
        runtime::tell_uid(&mut container);
    }
    runtime::mount_config(&mut container);
    runtime::mount_keys(&mut container, &runtime.key_secrets);
    runtime::mount_images(&mut container, runtime);
    if runtime::has_services(runtime) {
        containers.iter_mut().for_each(runtime::read_token);
        runtime::write_token(&mut container);
    }
    containers.push(container);
}

fn object_in<'a>(parent: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    super::as_map(parent.entry(key).or_insert(Value::Null))
}
