//! The channels, one for each Connection and version of what it is made from: tenants never share one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::budget::Budgets;
use super::connection::{Connection, ConnectionError, ConnectionSpec};
use super::metrics::Metrics;

/// Time that a channel which nobody holds is kept for the next one who asks.
const UNUSED_FOR: Duration = Duration::from_secs(600);

/// A version of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectVersion {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
}

/// Everything that a channel depends on. A change of any of it makes another channel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// Kubernetes namespace of the fleet, and so of the Secrets.
    pub kubernetes_namespace: String,
    /// `metadata.uid` of the Connection or ClusterConnection.
    pub connection_uid: String,
    /// Its `metadata.generation`.
    pub connection_generation: i64,
    /// The Secret with the credentials.
    pub secret: Option<ObjectVersion>,
    /// The Secret with the certificates that sign the server's.
    pub ca_secret: Option<ObjectVersion>,
}

/// How many calls the operator allows itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls a second to one Temporal namespace. A server's own default limit is 2400 for all of its clients.
    pub calls_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { calls_per_second: 120 }
    }
}

/// The channels in use, and those that were until lately.
pub struct Pool {
    entries: Mutex<HashMap<PoolKey, Entry>>,
    budgets: Arc<Budgets>,
    metrics: Metrics,
}

struct Entry {
    connection: Arc<Connection>,
    last_used: Instant,
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(limits: Limits, metrics: Metrics) -> Arc<Self> {
        let budgets = Budgets::new(limits, metrics.clone());
        Arc::new(Self { entries: Mutex::default(), budgets: Arc::new(budgets), metrics })
    }

    /// The channel of a key, if there is one: then its Secret need not be read.
    #[must_use]
    pub fn get(&self, key: &PoolKey) -> Option<Arc<Connection>> {
        let now = Instant::now();
        let mut entries = self.entries.lock();
        entries.retain(|_, entry| entry.in_use() || now.duration_since(entry.last_used) < UNUSED_FOR);
        let entry = entries.get_mut(key)?;
        entry.last_used = now;
        Some(entry.connection.clone())
    }

    /// The channel of a key, made if need be. Does not wait for the server: a channel connects on first use. Must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// When the specification can't be one of a connection.
    pub fn connect(&self, key: PoolKey, spec: &ConnectionSpec) -> Result<Arc<Connection>, ConnectionError> {
        if let Some(connection) = self.get(&key) {
            return Ok(connection);
        }
        let made = Connection::new(key.clone(), spec, self.budgets.clone(), self.metrics.clone())?;
        let mut entries = self.entries.lock();
        let fresh = || Entry { connection: Arc::new(made), last_used: Instant::now() };
        Ok(entries.entry(key).or_insert_with(fresh).connection.clone())
    }
}

impl Entry {
    fn in_use(&self) -> bool {
        Arc::strong_count(&self.connection) > 1
    }
}
