//! From a WorkerDeployment and its Connection to the fleet that is to run: defaults applied, names derived, objects built.

mod gate;
mod limits;
mod policy;
mod rollout_policy;
mod runtime;
mod sidecar;
mod target;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use crate::adoption::Origin;
use crate::api::{DeletionPolicy, GoDuration, PodTemplate, RuntimeMode, TaskQueueType, Versioning, WorkerDeployment};
use crate::build;
use crate::build::deployment::{self, Child, ChildInput, Owner};
use crate::build::runtime::RuntimePod;
use crate::build::sidecar::SidecarPod;
use crate::build_id::{self, RuntimeInputs};
use crate::connection::{Attachment, ConnectionFacts};
use crate::names;
use crate::observed::{ChildState, LaneKey, TaskType};
use crate::rollout::{self, sunset::Delays};
use crate::scaling::DEFAULT_GRACE;

pub use policy::Scaling;

/// A fleet that can run.
#[derive(Clone, Debug, PartialEq)]
pub struct Fleet {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Name of the WorkerDeployment.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Temporal namespace.
    pub temporal_namespace: String,
    /// Temporal Worker Deployment name.
    pub deployment_name: String,
    /// Build ID of the target version; none with Worker Versioning off.
    pub build_id: Option<String>,
    /// How that Build ID came about.
    pub origin: Origin,
    /// Name of the target's Deployment.
    pub child_name: String,
    /// The target's Deployment.
    pub child: Child,
    /// Where its pods work.
    pub attachment: Attachment,
    /// Whether its pods are Workers on an SDK, without the runtime.
    pub runs_an_sdk: bool,
    /// ConfigMaps that its pods mount.
    pub config_maps: Vec<Value>,
    /// `spec.replicas`.
    pub replicas: Option<u32>,
    /// `spec.scaling`.
    pub scaling: Option<Scaling>,
    /// `terminationGracePeriodSeconds` of the target's pods.
    pub grace: Duration,
    /// Whether routing and versions are taken away with the object, so that it must not go before.
    pub cleans_up: bool,
    /// `spec.sunset`.
    pub sunset: Delays,
    /// What the manifest says of the Task Queues.
    pub declared: Declared,
    /// How versions get traffic.
    pub rollout: rollout::Policy,
}

/// What the manifest says of the Task Queues.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Declared {
    /// Queues with their kinds of tasks.
    pub lanes: BTreeSet<LaneKey>,
    /// Queues without.
    pub task_queues: BTreeSet<String>,
    /// Slots of a pod.
    pub slots: BTreeMap<LaneKey, u64>,
}

/// Facts from outside the manifest.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// The fleet's Connection.
    pub connection: &'a ConnectionFacts,
    /// Image of the runtime for new versions that name none.
    pub default_runtime_image: &'a str,
    /// Image that each existing child was created with, by the child's name: it keeps that.
    pub runtime_images: &'a BTreeMap<String, String>,
    /// Public keys of the operator's orders to pods.
    pub order_keys: &'a [String],
    /// Names of existing children whose pods don't know their uid: they can't be cordoned, and it stays so.
    pub uncordonable: &'a BTreeSet<String>,
}

/// Why a manifest can't be run: field, value and remedy, one sentence each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join(" "))]
pub struct InvalidSpec(pub Vec<String>);

/// Resolves a manifest that has no Deployment yet.
///
/// # Errors
/// As [`resolve_beside`].
pub fn resolve(object: &WorkerDeployment, around: &Surroundings<'_>) -> Result<Fleet, InvalidSpec> {
    resolve_beside(object, around, &[])
}

/// Resolves a manifest. `children` are the Deployments that it has: their Build IDs stand, and pods keep what they were made with.
///
/// # Errors
/// [`InvalidSpec`] with everything that is wrong, for what the schema can't or could not refuse.
pub fn resolve_beside(
    object: &WorkerDeployment,
    around: &Surroundings<'_>,
    children: &[ChildState],
) -> Result<Fleet, InvalidSpec> {
    let (mut wrong, spec, meta) = (Vec::new(), &object.spec, &object.metadata);
    let (namespace, name) = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
    let uid = meta.uid.clone().unwrap_or_default();
    let template = spec.template.as_ref().map_or(Value::Null, PodTemplate::value);
    check_names(&name, spec.versioning, &mut wrong);
    check_template(&template, spec.runs_shared_runtime(), &mut wrong);
    let scaling = spec.scaling.as_ref().map(|scaling| policy::scaling(scaling, &mut wrong));
    let rollout = rollout_policy::resolve(spec.rollout.as_ref(), &mut wrong);
    let sunset = rollout_policy::delays(spec.sunset.as_ref(), &mut wrong);
    let template_hash = template_hash(&template, &mut wrong);
    let (build_id, origin) = target::choose(object, (&template, &template_hash), children, &mut wrong);
    let child_name = build_id.as_ref().map_or_else(|| name.clone(), |id| names::child_deployment_name(&name, id));
    let context = runtime::Context { around, name: &name, child_name: &child_name, template: &template };
    let runtime = spec.runtime.as_ref().map(|runtime| runtime::pod(runtime, &context, &mut wrong));
    let sidecar = spec.sidecar.as_ref().map(|sidecar| sidecar::pod(sidecar, &context, &mut wrong));
    if !wrong.is_empty() {
        return Err(InvalidSpec(wrong));
    }
    let owner = Owner { namespace: &namespace, name: &name, uid: &uid };
    let deployment_name = names::temporal_deployment_name(&namespace, &name);
    let attachment = Attachment::new(around.connection, &spec.worker_options.temporal_namespace);
    let existing = children.iter().find(|child| child.name == child_name);
    let child = deployment::child(&ChildInput {
        owner,
        name: &child_name,
        build_id: build_id.as_deref(),
        deployment_name: &deployment_name,
        temporal_namespace: &spec.worker_options.temporal_namespace,
        template: &template,
        template_hash: target::kept_hash(object, existing, &template_hash).as_deref(),
        connection: &target::kept_connection(existing, around.connection, &attachment),
        runtime: runtime.as_ref(),
        sidecar: sidecar.as_ref(),
        min_ready_seconds: spec.min_ready_seconds,
        progress_deadline_seconds: spec.progress_deadline_seconds,
        strategy: spec.deployment_strategy.as_ref(),
    });
    let config_maps = config_maps(owner, object, build_id.is_some(), (runtime.as_ref(), sidecar.as_ref()));
    Ok(Fleet {
        grace: grace(&child),
        attachment,
        temporal_namespace: spec.worker_options.temporal_namespace.clone(),
        replicas: spec.replicas.map(count),
        declared: declared(object, runtime.as_ref()),
        rollout,
        sunset,
        cleans_up: build_id.is_some() && spec.deletion_policy == DeletionPolicy::Clean,
        runs_an_sdk: spec.runtime.is_none(),
        namespace,
        name,
        uid,
        deployment_name,
        build_id,
        origin,
        child_name,
        child,
        config_maps,
        scaling,
    })
}

fn grace(child: &Child) -> Duration {
    let seconds = &child.object["spec"]["template"]["spec"]["terminationGracePeriodSeconds"];
    seconds.as_u64().map_or(DEFAULT_GRACE, Duration::from_secs)
}

fn count(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

fn duration(value: &GoDuration, field: &str, wrong: &mut Vec<String>) -> Duration {
    value.get().unwrap_or_else(|error| {
        wrong.push(format!("{field}: {error}; write it as 90s or 1h30m."));
        Duration::ZERO
    })
}

/// The server refuses `.` and `:` in the name of a Worker Deployment.
fn check_names(name: &str, versioning: Versioning, wrong: &mut Vec<String>) {
    if versioning == Versioning::Enabled && name.contains(['.', ':']) {
        wrong.push(format!(
            "metadata.name: {name:?} has a dot, which Temporal does not allow in the name of a Worker Deployment; \
             use dashes, or set spec.versioning to Disabled."
        ));
    }
}

fn check_template(template: &Value, shared_runtime: bool, wrong: &mut Vec<String>) {
    let containers = template["spec"]["containers"].as_array().map_or(0, Vec::len);
    if containers == 0 && !shared_runtime {
        wrong.push(
            "spec.template.spec.containers: is empty; name the Worker's container, or let spec.runtime run it.".into(),
        );
    }
}

/// Build ID that a manifest stands for by itself, whatever Deployments there are.
///
/// # Errors
/// A sentence that names the field of the template which has no canonical form.
pub fn build_id_of(object: &WorkerDeployment, template: &Value) -> Result<String, String> {
    let custom = object.spec.worker_options.unsafe_custom_build_id.as_deref();
    let computed = match &object.spec.runtime {
        Some(runtime) => {
            let runtime = serde_json::to_value(runtime).map_err(|error| format!("spec.runtime: {error}."))?;
            let template = object.spec.template.is_some().then_some(template);
            build_id::compute_runtime(RuntimeInputs { runtime: &runtime, template, unsafe_custom_build_id: custom })
        }
        None if object.spec.sidecar.is_some() => build_id::compute_sidecar(template, custom),
        None => build_id::compute(template, custom),
    };
    computed.map_err(|error| format!("spec.template: {error}."))
}

fn template_hash(template: &Value, wrong: &mut Vec<String>) -> String {
    let empty = json!({});
    let template = if template.is_null() { &empty } else { template };
    match build_id::go_json(template) {
        Ok(json) => build_id::template_hash(&json),
        Err(error) => {
            let problem = format!("spec.template: {error}.");
            if !wrong.contains(&problem) {
                wrong.push(problem);
            }
            String::new()
        }
    }
}

/// The version's configuration never changes under it; with versioning off it does, and so do the limits.
fn config_maps(
    owner: Owner<'_>,
    object: &WorkerDeployment,
    is_version: bool,
    (runtime, sidecar): (Option<&RuntimePod>, Option<&SidecarPod>),
) -> Vec<Value> {
    if let Some(sidecar) = sidecar {
        return vec![sidecar::limits_map(owner, sidecar)];
    }
    let Some(runtime) = runtime else { return Vec::new() };
    // A Build ID of the user's own stands for whatever the manifest says now.
    let immutable = is_version && object.spec.worker_options.unsafe_custom_build_id.is_none();
    let [(config_map, config_file, config), (limits_map, limits_file, limits)] = build::runtime::files(runtime);
    vec![
        deployment::config_map(owner, config_map, config_file, &config, immutable),
        deployment::config_map(owner, limits_map, limits_file, &limits, false),
    ]
}

fn declared(object: &WorkerDeployment, runtime: Option<&RuntimePod>) -> Declared {
    let mut declared = Declared::default();
    let lane = |task_queue: &str, task_type| LaneKey { task_queue: task_queue.to_owned(), task_type };
    for queue in object.spec.scaling.iter().flat_map(|scaling| &scaling.task_queues) {
        declared.lanes.extend(queue.types.iter().map(|&kind| lane(&queue.name, task_type(kind))));
    }
    for queue in object.spec.runtime.iter().flat_map(|runtime| &runtime.task_queues) {
        let activities = lane(&queue.name, TaskType::Activity);
        match object.spec.runtime.as_ref().map(|runtime| runtime.mode) {
            Some(RuntimeMode::Library) if object.spec.versioning == Versioning::Enabled => {
                // The server knows which kinds of tasks a library Worker polls; the manifest does not.
                declared.task_queues.insert(queue.name.clone());
            }
            Some(RuntimeMode::Library) => {
                declared.lanes.extend([activities, lane(&queue.name, TaskType::Workflow)]);
            }
            _ => {
                let slots = runtime.map(|runtime| u64::from(runtime.limits.slots(&queue.name)));
                declared.slots.extend(slots.map(|slots| (activities.clone(), slots)));
                declared.lanes.insert(activities);
            }
        }
    }
    declared
}

fn task_type(kind: TaskQueueType) -> TaskType {
    match kind {
        TaskQueueType::Workflow => TaskType::Workflow,
        TaskQueueType::Activity => TaskType::Activity,
        TaskQueueType::Nexus => TaskType::Nexus,
    }
}
