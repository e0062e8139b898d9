//! Build IDs of runtime fleets, whose code is a table of handlers rather than a pod template.

use serde_json::{Map, Value};

use super::go_json::{InvalidTemplate, canonical_json, go_json};
use super::{custom, first_image, image, safe_encode, sha256_bytes, with_prefix};

/// Version of the rule by which [`compute_runtime`] hashes. A child Deployment records it in
/// [`BUILD_ID_SCHEME_ANNOTATION`](crate::names::BUILD_ID_SCHEME_ANNOTATION), so that a later rule can tell a version
/// that changed from one that is only hashed differently.
pub const RUNTIME_HASH_SCHEME: u32 = 1;

/// Prefix of a Build ID when no image of the user's names a version.
const NO_IMAGE: &str = "runtime";

/// The same beside a sidecar.
const NO_SIDECAR_IMAGE: &str = "worker";

/// `spec.runtime.mode` when it is not set.
const DEFAULT_MODE: &str = "Shared";

/// `spec.runtime.handlers[].exec.mode` when it is not set.
const DEFAULT_EXEC_MODE: &str = "Once";

/// Fields of a handler's `exec` and `http` that bound it, and change nothing of what it does.
const LIMITS: [&str; 3] = ["timeout", "processes", "limits"];

/// What the Build ID of a runtime fleet is computed from.
#[derive(Clone, Copy, Debug)]
pub struct RuntimeInputs<'a> {
    /// `spec.runtime`.
    pub runtime: &'a Value,
    /// `spec.template`, which a runtime fleet may leave out.
    pub template: Option<&'a Value>,
    /// `spec.workerOptions.unsafeCustomBuildID`.
    pub unsafe_custom_build_id: Option<&'a str>,
}

/// The Build ID of a runtime fleet: `<version of the image>-<ten characters of hash>`.
///
/// Hashed is what a version does: the user's template, the mode, an explicit `image`, the names of the Task Queues,
/// handlers and activities. Not hashed is what changes without a new version: limits, timeouts, keys, and the
/// operator's own default image. The order of queues, handlers and activities makes no difference.
///
/// # Errors
/// [`InvalidTemplate`] when the template holds a value of the wrong type.
pub fn compute_runtime(inputs: RuntimeInputs<'_>) -> Result<String, InvalidTemplate> {
    if let Some(custom) = custom(inputs.unsafe_custom_build_id) {
        return Ok(custom);
    }
    let template = inputs.template.unwrap_or(&Value::Null);
    let image = inputs.runtime.get("image").and_then(Value::as_str).filter(|image| !image.is_empty());
    let text = format!(
        r#"{{"scheme":{RUNTIME_HASH_SCHEME},"template":{},"mode":{},"image":{},"taskQueues":[{}],"handlers":[{}],"activities":[{}]}}"#,
        go_json(template)?,
        canonical_json(inputs.runtime.get("mode").unwrap_or(&Value::from(DEFAULT_MODE))),
        canonical_json(&image.map_or(Value::Null, Value::from)),
        entries(inputs.runtime, "taskQueues", |queue| queue.get("name").cloned().unwrap_or_default()),
        entries(inputs.runtime, "handlers", handler),
        entries(inputs.runtime, "activities", without_empty),
    );
    let prefix = image.or_else(|| first_image(template)).map_or(NO_IMAGE, image::version);
    Ok(with_prefix(prefix, &hash(&text)))
}

/// The Build ID of a fleet with a sidecar: `<version of the image>-<ten characters of hash>`. It is another one than without
/// the sidecar, whose pods reach the server in another way. Keys are not hashed: they change without a new version.
///
/// # Errors
/// [`InvalidTemplate`] when the template holds a value of the wrong type.
pub fn compute_sidecar(template: &Value, unsafe_custom_build_id: Option<&str>) -> Result<String, InvalidTemplate> {
    if let Some(custom) = custom(unsafe_custom_build_id) {
        return Ok(custom);
    }
    let text = format!(r#"{{"scheme":{RUNTIME_HASH_SCHEME},"template":{},"sidecar":true}}"#, go_json(template)?);
    let prefix = first_image(template).map_or(NO_SIDECAR_IMAGE, image::version);
    Ok(with_prefix(prefix, &hash(&text)))
}

/// Ten decimal digits of sha256, safe-encoded: a hundred live versions collide with a probability of one in a million.
fn hash(text: &str) -> String {
    let head = sha256_bytes(text.as_bytes()).into_iter().take(8).fold(0_u64, |sum, byte| sum << 8 | u64::from(byte));
    safe_encode(&format!("{:010}", head % 10_000_000_000))
}

/// The entries of a list as JSON, sorted.
fn entries(runtime: &Value, list: &str, hashed: impl Fn(&Value) -> Value) -> String {
    let entries = runtime.get(list).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut texts: Vec<_> = entries.iter().map(|entry| canonical_json(&hashed(entry))).collect();
    texts.sort_unstable();
    texts.join(",")
}

/// A handler without its limits, and without a mode that is the default.
fn handler(handler: &Value) -> Value {
    let mut handler = without_empty(handler);
    for kind in ["exec", "http"] {
        if let Some(kind) = handler.get_mut(kind).and_then(Value::as_object_mut) {
            kind.retain(|field, value| !LIMITS.contains(&field.as_str()) && !is_default(field, value));
        }
    }
    handler
}

fn is_default(field: &str, value: &Value) -> bool {
    field == "mode" && value == DEFAULT_EXEC_MODE
}

/// A value without the fields that say nothing: `null`, `[]` and `{}`.
fn without_empty(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let fields = object.iter().map(|(key, value)| (key.clone(), without_empty(value)));
            Value::Object(fields.filter(|(_, value)| !is_empty(value)).collect::<Map<_, _>>())
        }
        Value::Array(items) => items.iter().map(without_empty).collect(),
        value => value.clone(),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(object) => object.is_empty(),
        _ => false,
    }
}
