//! The Temporal side of the operator: connections, the budget of calls, what is polled, and changes of the routing.
//!
//! Nothing here knows Kubernetes. Reads happen outside of any reconcile: the reconciler says what to watch
//! ([`Poller::set`]) and takes what was seen last, with its age ([`Poller::snapshot`]). Writes ([`routing`], [`gates`])
//! are the only calls that a reconcile waits for.
//!
//! * [`connection`]: one gRPC channel with its credentials.
//! * [`pool`]: the channels, one for each Connection and version of its Secret.
//! * [`budget`]: one token bucket for each server and Temporal namespace.
//! * [`api`]: the few calls that are used, each with a deadline, their errors sorted into classes.
//! * [`lists`]: what the server's index of Workflows tells.
//! * [`heartbeats`]: what Workers told the server of themselves, for pods that can't be read.
//! * [`poller`]: what is read when, and what came of it.
//! * [`routing`]: which version gets the traffic.
//! * [`gates`]: test Workflows that are run before it does.

pub mod api;
mod bucket;
pub mod budget;
pub mod connection;
mod errors;
pub mod gates;
pub mod heartbeats;
pub mod lists;
pub mod metrics;
pub mod poller;
pub mod pool;
mod readings;
mod room;
pub mod routing;

pub use connection::{Connection, ConnectionError, ConnectionSpec, Credentials, Secret};
pub use heartbeats::{Heartbeats, Need};
pub use metrics::Metrics;
pub use poller::{Phase, Poller, Watch};
pub use pool::{Limits, ObjectVersion, Pool, PoolKey};
pub use routing::Routing;
