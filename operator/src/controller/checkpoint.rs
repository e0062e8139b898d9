//! What of a fleet's scaling survives a restart: read before the first decision, written rarely, and at the end.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use jiff::Timestamp;
use kube::Client;
use operator_core::build::deployment::Owner;
use operator_core::checkpoint;
use operator_core::scaling::State;

use super::Shared;
use super::memory::Memory;
use crate::changes::FleetId;
use crate::kube::apply::{self, ApplyError, Basis};
use crate::kube::client::CallError;
use crate::kube::lease::Leadership;
use crate::kube::observe::FleetKey;

/// Time that the last checkpoints of all fleets get together.
const LAST_DEADLINE: Duration = Duration::from_secs(5);
/// Writes under way at a time.
const CONCURRENCY: usize = 16;

/// The state to begin with. What can't be used is logged, and the fleet begins as a new one.
///
/// # Errors
/// [`CallError`] when the API server could not be asked; not being allowed to is no error.
pub async fn restore(client: &Client, fleet: &FleetKey<'_>) -> Result<State, CallError> {
    let config_map = checkpoint::name(fleet.name);
    let text = match crate::kube::checkpoint::read(client, fleet).await {
        Err(error) if error.is_forbidden() => {
            tracing::warn!(namespace = fleet.namespace, config_map, %error, "checkpoint can't be read");
            None
        }
        result => result?,
    };
    let state = text.map(|text| checkpoint::restore(&text, Timestamp::now())).transpose();
    Ok(state
        .inspect_err(|error| tracing::warn!(namespace = fleet.namespace, config_map, %error, "checkpoint not used"))
        .unwrap_or_default()
        .unwrap_or_default())
}

/// Writes the fleet's state, if it differs from what was written and the last write is long enough ago. A failure is
/// logged: the state is written again when its time comes.
pub async fn save(client: &Client, leadership: &Leadership, fleet: &FleetId, memory: &mut Memory) {
    let due = memory.saved.as_ref().is_none_or(|saved| saved.1.elapsed() >= checkpoint::WRITE_INTERVAL);
    if due && is_material(memory) && write(client, leadership, fleet, memory).await {
        memory.saved = Some(Box::new((memory.scaling.clone(), Instant::now())));
    }
}

/// Writes the states of all fleets that differ from what was written, at the end of the process.
pub async fn save_all(client: &Client, leadership: &Leadership, shared: &Shared) {
    let differ = shared.memories.all().into_iter().filter(|(_, memory)| is_material(memory));
    let writes = futures::stream::iter(differ).for_each_concurrent(CONCURRENCY, |(fleet, memory)| async move {
        write(client, leadership, &fleet, &memory).await;
    });
    if tokio::time::timeout(LAST_DEADLINE, writes).await.is_err() {
        tracing::warn!("not every fleet's scaling was written down before the end");
    }
}

fn is_material(memory: &Memory) -> bool {
    memory.saved.as_ref().is_some_and(|saved| checkpoint::is_material(&saved.0, &memory.scaling))
}

/// Says whether another write has to wait: one that failed does too.
async fn write(client: &Client, leadership: &Leadership, fleet: &FleetId, memory: &Memory) -> bool {
    let (namespace, name) = &memory.key;
    let owner = Owner { namespace, name, uid: fleet.as_str() };
    let Some(object) = checkpoint::build(owner, &memory.scaling, Timestamp::now()) else { return false };
    let Some(_permit) = leadership.permit().await else { return false };
    // Never taken as known: somebody else's ConfigMap of that name is left alone.
    if let Err(error) = apply::apply(client, &object, Basis::Unread).await {
        match error {
            ApplyError::Call(error) if error.is_not_found() => {}
            error => tracing::warn!(namespace, name, %error, "checkpoint not written"),
        }
    }
    true
}
