//! What is read from Temporal servers, when, and what was seen last.
//!
//! The reconciler says for each fleet what to watch; reads happen here, in one task for each connection and Temporal
//! namespace, so that a dead server slows nobody else. Without fleets nothing runs.
//!
//! | what | fleet at zero | fleet that runs | version that registers |
//! | --- | --- | --- | --- |
//! | live backlog of each partition | each 0.5 s, or as the budget allows | - | - |
//! | new Workflows of its Task Queues, in the server's index | each 0.5 s for a hundred queues, where they are read live less than once a second: what it tells is a hint to read one now | - | - |
//! | version with statistics | each 10 s (pinned backlog is in no live reading) | each 5 s; 25 s while free slots prove that nothing waits | each second |
//! | statistics of a Task Queue | beyond the budget, instead of the live reading | as the version, where none tells of it lately; for the rate limit each 10 minutes, 25 s while it holds tasks back | same |
//! | deployment | each 30 s | each 30 s; each minute, and no version, where only somebody else changes anything | each second |
//! | list of the namespace's deployments | - | each minute, in place of those where only somebody else changes anything: these are read each 10 minutes then | once, where the status says that the version is current |
//! | test Workflow of a gate, until it ended | each 2 s, or as the budget allows | same | same |
//!
//! Versions and deployments are 25 reads a second for all fleets of a Temporal namespace, Task Queues have the rest of the
//! budget. What does not fit is read less often, see `pace`; in between, the statistics of their Task Queues tell of
//! running fleets whose versions can't be read often enough.

mod fleet;
mod health;
mod lane;
mod list;
mod merge;
mod namespace;
mod outcome;
mod pace;
mod places;
mod plan;
mod schedule;
mod starts;
mod state;
#[cfg(test)]
mod tests;
mod timer;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use operator_core::observed::{DeploymentInfo, LaneKey, TemporalState};
use parking_lot::Mutex;
use tokio::time::Instant;

use self::fleet::Fleet;
use self::namespace::NamespacePoller;
use super::connection::Connection;
use super::metrics::Metrics;
use super::pool::PoolKey;
use crate::changes::{Changes, FleetId};

/// Age up to which a live reading tells what is: at the slowest pace of 4 s, three sweeps have failed by then.
pub const LIVE_FRESH: Duration = Duration::from_secs(15);
/// The same for statistics: five readings of a running fleet have failed by then.
pub const STATS_FRESH: Duration = Duration::from_secs(30);
/// The same for statistics of a fleet of which a fresh look at the pods' free slots proves that nothing waits: the longest
/// interval of such a fleet, with its jitter and the call.
pub const GATED_FRESH: Duration = Duration::from_secs(140);
/// The same for deployment and versions: read each 30 s when nothing goes on.
pub const DEPLOYMENT_FRESH: Duration = Duration::from_secs(60);

/// What the fleet is going through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The target version's Task Queues are not all known to the server yet.
    Registering,
    /// No pod runs: a task must be seen at once.
    AtZero,
    /// Pods run.
    Running,
}

/// What to read for a fleet.
#[derive(Clone, Debug)]
pub struct Watch {
    /// The fleet.
    pub fleet: FleetId,
    /// Temporal namespace.
    pub namespace: String,
    /// Through which connection.
    pub connection: Arc<Connection>,
    /// Name of the Worker Deployment; none with versioning disabled.
    pub deployment_name: Option<String>,
    /// Build IDs of the versions to read: the target first.
    pub build_ids: Vec<String>,
    /// Build ID of the version whose statistics count for [`Watch::lanes`]; none with versioning disabled.
    pub main: Option<String>,
    /// What the fleet's status says of the Worker Deployment, until something is read of it: a list of the server may say that it
    /// is still so.
    pub remembered: Option<DeploymentInfo>,
    /// Lanes of that version that are declared or known.
    pub lanes: BTreeSet<LaneKey>,
    /// What the fleet is going through.
    pub phase: Phase,
    /// Whether a fresh look at the pods' free slots proves that nothing waits: statistics are read less often then, and
    /// count for longer. To be taken back before anything is decided on a look that does not prove it.
    pub gated: bool,
}

/// Reads Temporal servers for all fleets.
pub struct Poller {
    changes: Arc<Changes>,
    metrics: Metrics,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    fleets: HashMap<FleetId, Arc<NamespacePoller>>,
    pollers: HashMap<(PoolKey, String), Arc<NamespacePoller>>,
}

impl Poller {
    /// A poller that watches nothing yet. Fleets whose situation changes are sent to `changes`: a backlog appeared,
    /// lanes, registration or routing changed, statistics of a running fleet are new, a failure came or went.
    #[must_use]
    pub fn new(changes: Arc<Changes>, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self { changes, metrics, inner: Mutex::default() })
    }

    /// Watches a fleet, or changes how. Cheap when nothing changed. Must be called within a tokio runtime.
    pub fn set(&self, watch: Watch) {
        let key = (watch.connection.key().clone(), watch.namespace.clone());
        let mut inner = self.inner.lock();
        let poller = match inner.pollers.get(&key) {
            Some(poller) => poller.clone(),
            None => {
                let poller = NamespacePoller::start(&watch, self.changes.clone(), self.metrics.clone());
                inner.pollers.insert(key, poller.clone());
                poller
            }
        };
        let before = inner.fleets.insert(watch.fleet.clone(), poller.clone());
        let moved = before.filter(|before| !Arc::ptr_eq(before, &poller));
        let carried = moved.and_then(|before| inner.take_out(&before, &watch.fleet));
        poller.set(watch, carried);
    }

    /// Stops to watch a fleet.
    pub fn remove(&self, fleet: &FleetId) {
        let mut inner = self.inner.lock();
        if let Some(poller) = inner.fleets.remove(fleet) {
            inner.take_out(&poller, fleet);
        }
    }

    /// Reads deployment, versions and statistics of a fleet again at once: after a change, or before a decision that
    /// needs to be sure.
    pub fn poke(&self, fleet: &FleetId) {
        if let Some(poller) = self.inner.lock().fleets.get(fleet) {
            poller.poke(fleet);
        }
    }

    /// A task of a fleet may be waiting: reads the live backlog of its lanes at once, whatever goes on.
    pub fn hint(&self, fleet: &FleetId) {
        if let Some(poller) = self.inner.lock().fleets.get(fleet) {
            poller.hint(fleet);
        }
    }

    /// Reads these test Workflows of a fleet until each has ended, and no others.
    pub fn follow_tests(&self, fleet: &FleetId, workflow_ids: &BTreeSet<String>) {
        if let Some(poller) = self.inner.lock().fleets.get(fleet) {
            poller.follow_tests(fleet, workflow_ids);
        }
    }

    /// A test Workflow of a fleet was started just now, as this run; none: there was one before, which is read.
    pub fn test_started(&self, fleet: &FleetId, workflow_id: &str, run_id: Option<String>) {
        if let Some(poller) = self.inner.lock().fleets.get(fleet) {
            poller.test_started(fleet, workflow_id, run_id);
        }
    }

    /// What was seen of a fleet, with its age. Nothing for one that is not watched.
    #[must_use]
    pub fn snapshot(&self, fleet: &FleetId, now: Instant) -> TemporalState {
        let poller = self.inner.lock().fleets.get(fleet).cloned();
        let state = poller.map(|poller| poller.snapshot(fleet, now)).unwrap_or_default();
        self.metrics.snapshot(&state);
        state
    }
}

impl Inner {
    /// Takes a fleet out of a poller, and ends the poller when it was the last one.
    fn take_out(&mut self, poller: &Arc<NamespacePoller>, fleet: &FleetId) -> Option<Fleet> {
        let (taken, empty) = poller.remove(fleet);
        if empty {
            poller.close();
            self.pollers.retain(|_, other| !Arc::ptr_eq(other, poller));
        }
        taken
    }
}
