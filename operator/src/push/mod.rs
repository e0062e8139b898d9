//! The push endpoint: a Temporal server that has compute providers calls it when a task found no Worker.
//!
//! It speaks as much of the Kubernetes API as the server's provider for Kubernetes uses, for one Deployment named after the
//! fleet. A write to its `scale` is a hint to look at the fleet's Task Queues now, and nothing else: the number in it is not
//! read. Any replica takes the call; a standby relays it to the one that leads, which alone asks Temporal.
//!
//! Nothing here knows Kubernetes' caches, Temporal or the Lease: that is behind [`Backend`].
//!
//! * [`api`]: from a request to an answer.
//! * [`answer`]: the objects of the Kubernetes API that are answered.
//! * [`limit`]: how many calls a fleet has.
//! * [`relay`]: from a standby to the leader.
//! * [`mod@serve`]: connections, their number and their deadlines.
//! * [`tls`]: certificates, read again when they change.

pub mod answer;
pub mod api;
pub mod limit;
pub mod metrics;
pub mod relay;
pub mod serve;
pub mod tls;

use std::net::SocketAddr;

use operator_core::push_token::{Invalid, PushKey};

pub use api::Endpoint;
pub use metrics::Metrics;
pub use relay::Relay;
pub use serve::{Transport, serve};

/// What the endpoint needs to know, and may do.
pub trait Backend: Send + Sync + 'static {
    /// A fleet by Kubernetes namespace and name.
    fn fleet(&self, namespace: &str, name: &str) -> Option<Fleet>;

    /// The key of this installation's tokens; why not, when it can't be had.
    fn key(&self) -> impl Future<Output = Result<PushKey, String>> + Send;

    /// Who leads.
    fn leader(&self) -> Leader;

    /// A task of this fleet may be waiting: look now. Called on the leader only.
    fn hint(&self, fleet_uid: &str);
}

/// A fleet, as the endpoint needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// UID of the WorkerDeployment.
    pub uid: String,
    /// Serial number that its tokens must have.
    pub serial: Result<u64, Invalid>,
    /// Pods that it has by its status, for the answer.
    pub replicas: i32,
}

/// The replica that leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leader {
    /// This one.
    Here,
    /// Another one, which takes calls there.
    At(SocketAddr),
    /// None, or none is known.
    Nobody,
}
