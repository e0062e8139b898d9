//! One reconcile: see, decide, write, report.
//!
//! The Kubernetes side and the Temporal side meet here. [`fleet`] is the driver; each of its steps is a call into
//! another module or into the core.

pub mod carry_out;
pub mod checkpoint;
pub mod connect;
mod connections;
pub mod cordon;
mod deletion;
pub mod fleet;
mod gates;
pub mod loads;
mod look;
pub mod memory;
mod old_kinds;
pub(crate) mod preview;
pub mod push;
pub mod report;
mod route;
pub mod scopes;
pub mod templates;

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::Client;
use operator_core::clock::Clock;

use crate::kube::directory::Directory;
use crate::kube::events::Events;
use crate::kube::lease::Leadership;
use crate::kube::namespaces::Namespaces;
use crate::kube::old_kinds::OldKinds;
use crate::kube::order_key::OrderKeys;
use crate::kube::secrets::Secrets;
use crate::kube::watches::Caches;
use crate::metrics::Metrics;
use crate::recorder::Recorder;
use crate::temporal::{Heartbeats, Poller, Pool};
use crate::workers::{Cordons, Scraper};

use memory::Memories;

/// What every reconcile shares.
pub struct Context {
    /// Client for work.
    pub client: Client,
    /// Whether this replica may write.
    pub leadership: Arc<Leadership>,
    /// Caches of the scope that the fleet is in.
    pub caches: Arc<Caches>,
    /// Objects of deprecated kinds in that scope.
    pub old_kinds: Arc<OldKinds>,
    /// What is common to all scopes.
    pub shared: Arc<Shared>,
    /// What the templates of this scope know of its fleets.
    pub templates: Arc<templates::Board>,
}

/// What all scopes share.
pub struct Shared {
    /// Fleets by name.
    pub directory: Directory,
    /// Secrets that were read lately.
    pub secrets: Secrets,
    /// Labels of namespaces that were read lately.
    pub namespaces: Namespaces,
    /// Connections to Temporal.
    pub pool: Arc<Pool>,
    /// Reader of backlog and routing.
    pub poller: Arc<Poller>,
    /// Reader of the pods' metrics.
    pub scraper: Arc<Scraper>,
    /// Reader of the Workers' heartbeats.
    pub heartbeats: Arc<Heartbeats>,
    /// Sender of orders to pods.
    pub cordons: Arc<Cordons>,
    /// What WorkerResourceTemplates may be.
    pub templates: templates::Rules,
    /// The key of these orders.
    pub order_keys: OrderKeys,
    /// What is remembered of each fleet.
    pub memories: Memories,
    /// Publisher of events.
    pub events: Events,
    /// The operator's own metrics.
    pub metrics: Metrics,
    /// Image of the runtime for new versions that name none.
    pub runtime_image: String,
    /// Identity towards Temporal.
    pub identity: String,
    /// Identities that it had before.
    pub former_identities: BTreeSet<String>,
    /// Recorder of scaling decisions, if they are to be recorded.
    pub recorder: Option<Recorder>,
    /// Most old versions of a fleet that have work or pods beside which a new one is begun.
    pub max_versions: usize,
    /// Start of the operator's monotonic clock.
    pub started: tokio::time::Instant,
    /// The time of day then.
    pub started_at: jiff::Timestamp,
}

impl Shared {
    /// The time of day, and what it would be had nobody set the clock.
    #[must_use]
    pub fn clock(&self) -> Clock {
        let wall = jiff::Timestamp::now();
        Clock { wall, steady: self.started_at.checked_add(self.started.elapsed()).unwrap_or(wall) }
    }
}
