//! What of a fleet's scaling survives a restart of the operator: one ConfigMap a fleet, written rarely.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::build::deployment::{self, Owner};
use crate::scaling::{STATE_VALID_FOR, State};

/// Least time between two writes of a fleet's checkpoint.
pub const WRITE_INTERVAL: Duration = Duration::from_secs(60);
/// Key of the ConfigMap.
pub const KEY: &str = "state.json";
/// Time by which the clock that wrote may be ahead of the one that reads.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);
/// Share by which a number may move without being worth a write.
const IMMATERIAL: f64 = 0.1;

/// A state as it is written down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Checkpoint {
    saved_at: Timestamp,
    state: State,
}

/// Why a checkpoint is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Somebody wrote something else.
    #[error("its key {KEY} holds no state ({0}); it is ignored, and written anew")]
    Malformed(String),
    /// Too old, or from the future.
    #[error("it is of {0}, which is not within the last 24 hours; it is ignored, and written anew")]
    Outdated(Timestamp),
}

/// Name of a fleet's ConfigMap.
#[must_use]
pub fn name(fleet: &str) -> String {
    format!("{fleet}-scaling")
}

/// The ConfigMap with a fleet's state; none when the state can't be written as JSON.
#[must_use]
pub fn build(owner: Owner<'_>, state: &State, now: Timestamp) -> Option<Value> {
    let text = serde_json::to_string(&Checkpoint { saved_at: now, state: state.clone() }).ok()?;
    Some(deployment::config_map(owner, &name(owner.name), KEY, &text, false))
}

/// The state of what was read of a ConfigMap.
///
/// # Errors
/// [`CheckpointError`], for a warning; the fleet then starts as a new one does.
pub fn restore(text: &str, now: Timestamp) -> Result<State, CheckpointError> {
    let checkpoint: Checkpoint =
        serde_json::from_str(text).map_err(|error| CheckpointError::Malformed(error.to_string()))?;
    let age = now.duration_since(checkpoint.saved_at);
    if age < -CLOCK_SKEW || age.unsigned_abs() > STATE_VALID_FOR {
        return Err(CheckpointError::Outdated(checkpoint.saved_at));
    }
    Ok(checkpoint.state.restored(Duration::try_from(age).unwrap_or_default()))
}

/// Whether a state differs from the one that was written by so much that it is worth a write: in more than its numbers, or
/// in a number by more than a tenth.
#[must_use]
pub fn is_material(written: &State, state: &State) -> bool {
    match (serde_json::to_value(written.without_fading()), serde_json::to_value(state.without_fading())) {
        (Ok(written), Ok(state)) => differs(&written, &state),
        _ => false,
    }
}

fn differs(a: &Value, b: &Value) -> bool {
    if let (Some(a), Some(b)) = (number(a), number(b)) {
        return (a - b).abs() > IMMATERIAL * a.abs().max(b.abs());
    }
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.len() != b.len() || a.iter().any(|(key, value)| b.get(key).is_none_or(|other| differs(value, other)))
        }
        (Value::Array(a), Value::Array(b)) => a.len() != b.len() || a.iter().zip(b).any(|(a, b)| differs(a, b)),
        _ => a != b,
    }
}

/// A number, or a duration in seconds: its nanoseconds alone would differ all the time.
fn number(value: &Value) -> Option<f64> {
    let part = |map: &Map<String, Value>, key: &str| map.get(key).and_then(Value::as_f64);
    match value {
        Value::Number(number) => number.as_f64(),
        Value::Object(map) if map.len() == 2 => Some(part(map, "secs")? + part(map, "nanos")? / 1e9),
        _ => None,
    }
}
