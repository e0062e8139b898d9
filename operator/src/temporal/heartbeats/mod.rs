//! What Workers tell the server of themselves, for pods that nobody can read.
//!
//! SDKs send a heartbeat for each Worker, every 60 s unless they are told otherwise, with the slots in use and free and
//! the tasks processed. One call lists those of a Temporal namespace. Pod and Worker are matched by host name, which is
//! the pod's name, and by version.
//!
//! A pod's load is known from heartbeats when each of its Workers is running and its last heartbeat is younger than two
//! and a half of its own intervals; the interval is what the SDK says, or the time between two heartbeats that were seen.
//! Ages start from the Worker's clock where it agrees with ours, else from the last read that did not show the heartbeat.
//!
//! Nothing is read while no fleet needs it.

mod beats;
mod reader;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use operator_core::observed::{Observation, PodLoad};
use parking_lot::Mutex;
use tokio::time::Instant;

use self::reader::Reader;
use super::connection::Connection;
use super::pool::PoolKey;
use crate::changes::{Changes, FleetId};

/// Pods of a fleet whose Workers' heartbeats are needed.
#[derive(Clone, Debug)]
pub struct Need {
    /// The fleet.
    pub fleet: FleetId,
    /// Temporal namespace.
    pub namespace: String,
    /// Through which connection.
    pub connection: Arc<Connection>,
    /// Name of the Worker Deployment; none with versioning disabled.
    pub deployment_name: Option<String>,
    /// Build ID of each pod, by the pod's name.
    pub pods: BTreeMap<String, Option<String>>,
}

/// Reads heartbeats for all fleets that need them.
pub struct Heartbeats {
    changes: Arc<Changes>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    fleets: HashMap<FleetId, Arc<Reader>>,
    readers: HashMap<(PoolKey, String), Arc<Reader>>,
}

impl Heartbeats {
    /// A reader that reads nothing yet. Fleets whose pods' loads changed are sent to `changes`.
    #[must_use]
    pub fn new(changes: Arc<Changes>) -> Arc<Self> {
        Arc::new(Self { changes, inner: Mutex::default() })
    }

    /// Says which pods are to be known by heartbeats; none ends it. Cheap when nothing changed. Must be called within a
    /// tokio runtime.
    pub fn set(&self, need: Need) {
        if need.pods.is_empty() {
            return self.remove(&need.fleet);
        }
        let key = (need.connection.key().clone(), need.namespace.clone());
        let mut inner = self.inner.lock();
        let reader = match inner.readers.get(&key) {
            Some(reader) => reader.clone(),
            None => {
                let reader = Reader::start(&need, self.changes.clone());
                inner.readers.insert(key, reader.clone());
                reader
            }
        };
        let before = inner.fleets.insert(need.fleet.clone(), reader.clone());
        if let Some(before) = before.filter(|before| !Arc::ptr_eq(before, &reader)) {
            inner.take_out(&before, &need.fleet);
        }
        reader.set(need);
    }

    /// Ends it for a fleet.
    pub fn remove(&self, fleet: &FleetId) {
        let mut inner = self.inner.lock();
        if let Some(reader) = inner.fleets.remove(fleet) {
            inner.take_out(&reader, fleet);
        }
    }

    /// What the Workers of a pod said last, with its age; nothing for a pod that was not asked for.
    #[must_use]
    pub fn load(&self, fleet: &FleetId, pod: &str, now: Instant) -> Observation<PodLoad> {
        let reader = self.inner.lock().fleets.get(fleet).cloned();
        reader.map(|reader| reader.load(fleet, pod, now)).unwrap_or_default()
    }
}

impl Inner {
    /// Takes a fleet out of a reader, and ends the reader when it was the last one.
    fn take_out(&mut self, reader: &Arc<Reader>, fleet: &FleetId) {
        if reader.remove(fleet) {
            self.readers.retain(|_, other| !Arc::ptr_eq(other, reader));
        }
    }
}
