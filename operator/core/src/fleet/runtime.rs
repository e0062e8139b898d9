//! From `spec.runtime` to how the fleet's pods run it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Surroundings, limits};
use crate::api::{EncryptionSpec, Handler, RuntimeMode, RuntimeSpec};
use crate::build::runtime::{self, RuntimePod};
use crate::contract::{
    self, ActivityConfig, CONFIG_VERSION, ExecConfig, HandlerConfig, HandlerKind, HttpConfig, RuntimeConfig,
    RuntimeLimits,
};

/// What a runtime is resolved from, beside `spec.runtime`.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub around: &'a Surroundings<'a>,
    /// Name of the fleet.
    pub name: &'a str,
    /// Name of the target's Deployment.
    pub child_name: &'a str,
    /// `spec.template`, or null.
    pub template: &'a Value,
}

fn runtime_image(runtime: &RuntimeSpec, child_name: &str, around: &Surroundings<'_>) -> Option<String> {
    (runtime.mode == RuntimeMode::Shared).then(|| {
        let kept = || around.runtime_images.get(child_name).cloned();
        runtime.image.clone().or_else(kept).unwrap_or_else(|| around.default_runtime_image.to_owned())
    })
}

/// Resolves `spec.runtime`. What is wrong is added to `wrong`: field, value and remedy, a sentence each.
pub(super) fn pod(runtime: &RuntimeSpec, context: &Context<'_>, wrong: &mut Vec<String>) -> RuntimePod {
    let Context { around, name, child_name, template } = *context;
    let image = runtime_image(runtime, child_name, around);
    wrong.extend(image.as_deref().and_then(|image| other_image(template, image)));
    let mut config = RuntimeConfig {
        version: CONFIG_VERSION,
        task_queues: runtime.task_queues.iter().map(|queue| queue.name.clone()).collect(),
        handlers: runtime.handlers.iter().filter_map(handler).collect(),
        activities: runtime
            .activities
            .iter()
            .map(|route| ActivityConfig { activity_type: route.activity_type.clone(), handler: route.handler.clone() })
            .collect(),
    };
    // Their order is no part of the version, whose configuration can't change.
    config.task_queues.sort_unstable();
    config.handlers.sort_by(|one, other| one.name.cmp(&other.name));
    config.activities.sort_by(|one, other| one.activity_type.cmp(&other.activity_type));
    if runtime.mode == RuntimeMode::Shared {
        wrong.extend(config.violations().into_iter().map(|violation| format!("spec.runtime.{violation}.")));
    }
    let limits = RuntimeLimits { order_keys: around.order_keys.to_vec(), ..limits::limits(runtime, template, wrong) };
    let (config_map, limits_map) = (runtime::config_map_name(child_name), runtime::limits_map_name(name));
    let cordonable = !around.uncordonable.contains(child_name);
    let (key_secrets, handler_images) = (key_secrets(runtime.encryption.as_ref()), handler_images(runtime));
    RuntimePod { image, config, limits, config_map, limits_map, cordonable, key_secrets, handler_images }
}

fn handler(handler: &Handler) -> Option<HandlerConfig> {
    let exec = handler.exec.as_ref().map(|exec| {
        HandlerKind::Exec(ExecConfig {
            command: exec.command.clone(),
            mode: exec.mode.unwrap_or_default(),
            working_dir: exec.working_dir.clone(),
            env: exec.env.clone(),
        })
    });
    let http = handler
        .http
        .as_ref()
        .map(|http| HandlerKind::Http(HttpConfig { url: http.url.clone(), socket: http.socket.clone() }));
    exec.or(http).map(|kind| HandlerConfig { name: handler.name.clone(), kind })
}

/// Secrets with keys of payloads.
pub(super) fn key_secrets(encryption: Option<&EncryptionSpec>) -> BTreeSet<String> {
    let keys = encryption.into_iter().flat_map(|spec| std::iter::once(&spec.write_key).chain(&spec.read_keys));
    keys.map(|key| key.secret_key_ref.name.clone()).collect()
}

fn handler_images(runtime: &RuntimeSpec) -> BTreeMap<String, String> {
    let images = runtime.handlers.iter().filter_map(|handler| Some((handler.name.clone(), handler.image.clone()?)));
    images.collect()
}

/// An image in the template's container for the runtime is nobody's: what runs is named elsewhere.
fn other_image(template: &Value, image: &str) -> Option<String> {
    let own = containers(template).find(|container| container["name"] == contract::RUNTIME_CONTAINER)?;
    let other = own["image"].as_str().filter(|other| *other != image)?;
    Some(format!(
        "spec.template.spec.containers[{}].image: {other:?} is not what runs there; set spec.runtime.image, and leave this \
         one out.",
        contract::RUNTIME_CONTAINER
    ))
}

pub(super) fn containers(template: &Value) -> impl Iterator<Item = &Value> {
    template["spec"]["containers"].as_array().into_iter().flatten()
}
