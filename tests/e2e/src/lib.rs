//! What the end-to-end tests share.
//!
//! - [`suite`]: runs scenarios that share one environment, side by side, and ends the environment afterwards.
//! - [`wait`]: waits for a condition with a deadline.
//! - [`bed`]: a cluster with the operator installed, and a Temporal server.
//! - [`host`]: the operator as a process, against the API server alone.
//! - [`ground`]: a scenario's own Kubernetes namespace: fleets, their children, pods and events.
//! - [`push`]: two replicas with the push endpoint, and a Temporal server that calls it; [`service`] and [`worker`] are
//!   parts of it.
//! - [`tasks`]: work for fleets; [`history`]: what the server's histories say of it; [`stream`]: work that comes while
//!   something else happens.
//! - [`codec`]: encrypted payloads, by cryptography of other make; [`endpoint`]: TLS before a server, with client
//!   certificates.
//! - [`holds`]: Workflows that tell by which version they run.
//! - [`traffic`]: work that comes one by one; [`queue`]: a Task Queue as the server has it.
//! - [`double`]: a server that hands out activities, and knows nothing else; [`between`]: a proxy before a server, which
//!   does to calls what a test says; [`witness`]: one that notes who shows which credential where.
//! - [`shortening`]: a proxy before an API server that takes `..` out of paths.
//! - [`peer`]: what temporal-worker-controller leaves, and what it goes by when it comes back.
//! - [`echo`]: a local service that gives back what it gets.
//! - [`process`]: memory, descriptors and CPU time of a process.
//! - [`rights`]: what the operator may do by the chart, by the reviewed list, and by what it was seen to do.
//! - [`load`]: what pods do by their own word, and pods that can't be read.

pub mod bed;
pub mod between;
pub mod codec;
pub mod crossing;
pub mod double;
pub mod echo;
pub mod endpoint;
pub mod ground;
pub mod history;
pub mod holds;
pub mod host;
pub mod kubelet;
pub mod load;
pub mod peer;
pub mod process;
pub mod push;
pub mod queue;
pub mod rights;
pub mod service;
pub mod shortening;
pub mod stream;
pub mod suite;
pub mod tasks;
pub mod traffic;
pub mod wait;
pub mod witness;
pub mod worker;

pub use bed::ClusterBed;
pub use ground::Ground;
pub use host::HostBed;
pub use tasks::{Burst, Tasks};
pub use wait::eventually;
