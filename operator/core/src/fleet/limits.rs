//! How much the pods of a runtime fleet run, and for how long.

use std::time::Duration;

use serde_json::Value;

use super::runtime::containers;
use super::{count, duration};
use crate::api::{
    EncryptionKey, EncryptionSpec, ExecLimits, GoDuration, Handler, ResourceTargets, RuntimeMode, RuntimeSpec,
    RuntimeTaskQueue,
};
use crate::build::runtime;
use crate::build_id::quantity_value;
use crate::contract::{self, EncryptionConfig, KeyFile, Pollers, QueueLimits, RuntimeLimits};

/// Resolves the limits of `spec.runtime`. What is wrong is added to `wrong`: field, value and remedy, a sentence each.
pub(super) fn limits(runtime: &RuntimeSpec, template: &Value, wrong: &mut Vec<String>) -> RuntimeLimits {
    let mut limits = RuntimeLimits {
        resource_targets: runtime.resource_targets.map(targets),
        grpc_compression: runtime.grpc_compression.unwrap_or_default(),
        encryption: runtime.encryption.as_ref().map(encryption),
        drain_timeout_ms: millis(runtime.drain_timeout.as_ref(), "spec.runtime.drainTimeout", wrong),
        ..RuntimeLimits::default()
    };
    for queue in &runtime.task_queues {
        let devices = devices(queue, runtime.mode, template, wrong);
        let slots = |number: i32| count(number).saturating_mul(devices.unwrap_or(1));
        limits.max_concurrent_activities.insert(queue.name.clone(), slots(queue.max_concurrent_activities));
        let more = QueueLimits {
            min_concurrent_activities: queue.min_concurrent_activities.map(slots),
            max_activities_per_second: queue.max_activities_per_second,
            max_task_queue_activities_per_second: queue.max_task_queue_activities_per_second,
            pollers: queue
                .pollers
                .map(|range| Pollers { minimum: count(range.minimum), maximum: count(range.maximum) }),
            devices,
        };
        if more != QueueLimits::default() {
            limits.task_queues.insert(queue.name.clone(), more);
        }
    }
    for handler in &runtime.handlers {
        bound(handler, &mut limits, wrong);
    }
    limits
}

/// Adds what bounds a handler.
fn bound(handler: &Handler, limits: &mut RuntimeLimits, wrong: &mut Vec<String>) {
    let name = || handler.name.clone();
    let field = |field: &str| format!("spec.runtime.handlers[{}].{field}", handler.name);
    let exec = handler.exec.as_ref();
    let timeout = match (exec, &handler.http) {
        (Some(exec), _) => millis(exec.timeout.as_ref(), &field("exec.timeout"), wrong),
        (None, http) => millis(http.as_ref().and_then(|http| http.timeout.as_ref()), &field("http.timeout"), wrong),
    };
    limits.handler_timeout_ms.extend(timeout.map(|timeout| (name(), timeout)));
    let Some(exec) = exec else { return };
    limits.handler_processes.extend(exec.processes.map(|processes| (name(), count(processes))));
    let Some(ExecLimits { memory, pids }) = &exec.limits else { return };
    limits.handler_pids.extend(pids.map(|pids| (name(), count(pids))));
    if let Some(memory) = memory {
        match quantity_value(memory) {
            Some(bytes) => _ = limits.handler_memory_bytes.insert(name(), bytes),
            None => wrong
                .push(format!("{}: {memory:?} is no number of bytes; write it as 512Mi.", field("exec.limits.memory"))),
        }
    }
}

fn millis(time: Option<&GoDuration>, field: &str, wrong: &mut Vec<String>) -> Option<u64> {
    let whole = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    time.map(|time| whole(duration(time, field, wrong)))
}

fn targets(targets: ResourceTargets) -> contract::ResourceTargets {
    let part = |percent: i32| f64::from(percent) / 100.0;
    contract::ResourceTargets { memory: part(targets.memory), cpu: part(targets.cpu) }
}

/// Units of the resource that the slots of a Task Queue are for, if they are for one.
fn devices(queue: &RuntimeTaskQueue, mode: RuntimeMode, template: &Value, wrong: &mut Vec<String>) -> Option<u32> {
    let resource = queue.slots_per.as_deref()?;
    units(resource, mode, template)
        .map_err(|problem| wrong.push(format!("spec.runtime.taskQueues[{}].slotsPer: {problem}.", queue.name)))
        .ok()
}

/// The limit of a resource of the container that polls; of the shared runtime's if it has one, else of the only other
/// container that has.
fn units(resource: &str, mode: RuntimeMode, template: &Value) -> Result<u32, String> {
    let name = |container: &Value| container["name"].as_str().unwrap_or_default().to_owned();
    let limit = |container: &Value| container["resources"]["limits"].get(resource).cloned();
    let is_own = |(position, container): &(usize, &Value)| match mode {
        RuntimeMode::Library => *position == 0,
        RuntimeMode::Shared => container["name"] == contract::RUNTIME_CONTAINER,
    };
    let own = containers(template).enumerate().find(is_own).map(|(_, container)| container);
    let own_name = own.map_or_else(|| contract::RUNTIME_CONTAINER.to_owned(), name);
    let others = containers(template).filter(|_| mode == RuntimeMode::Shared);
    let holders: Vec<_> = match own.filter(|own| limit(own).is_some()) {
        Some(own) => vec![own],
        None => others.filter(|other| limit(other).is_some()).collect(),
    };
    let field = format!("spec.template.spec.containers[{own_name}].resources.limits");
    let [holder] = holders[..] else {
        let found = match holders.len() {
            0 => "no container of spec.template has a limit of it".to_owned(),
            _ => format!(
                "more than one container has a limit of it ({})",
                holders.iter().map(|one| name(one)).collect::<Vec<_>>().join(", ")
            ),
        };
        return Err(format!("{resource:?}, but {found}; set it in {field}, or leave slotsPer out"));
    };
    let given = limit(holder).unwrap_or_default();
    let text = given.as_str().map_or_else(|| given.to_string(), str::to_owned);
    let units = quantity_value(&text).and_then(|units| u32::try_from(units).ok()).filter(|units| *units > 0);
    units.ok_or_else(|| {
        let holder = name(holder);
        format!("{resource:?}, but the limit of container {holder} is {text:?}; make it a whole number from 1 on")
    })
}

pub(super) fn encryption(spec: &EncryptionSpec) -> EncryptionConfig {
    let key = |EncryptionKey { id, secret_key_ref }: &EncryptionKey| KeyFile {
        id: id.clone(),
        file: runtime::key_file(&secret_key_ref.name, &secret_key_ref.key),
    };
    EncryptionConfig {
        mode: spec.mode,
        write_key: key(&spec.write_key),
        read_keys: spec.read_keys.iter().map(key).collect(),
        namespaces: spec.namespaces.clone(),
    }
}
