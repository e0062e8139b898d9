//! The Temporal Worker process of a fleet, once, for everyone.
//!
//! * As a library: [`Worker`] hosts the Workflows and Activities of a team that writes Rust with `temporalio-sdk`.
//! * As a program: `worker-runtime` hosts activities in any language, by a table of handlers.
//!
//! Both read the contract of the operator (environment, one configuration file, one limits file), share one connection
//! among all Task Queues, drain on SIGTERM, and export the slot metrics that the autoscaler reads.
#![deny(clippy::unwrap_used, clippy::expect_used)]

mod activity;
mod codec;
mod codec_server;
mod connect;
mod cordon;
mod core_metrics;
mod cpu;
mod credentials;
mod devices;
mod encryption;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod gather;
mod handler;
mod hosted;
mod library;
mod lifecycle;
mod limits;
mod link;
mod metrics;
mod options;
mod orders;
mod payload;
mod pollers;
mod probes;
mod process;
mod queue;
mod report;
mod resources;
mod roll;
mod room;
mod settings;
mod shared;
mod sidecar;
mod slots;
mod stop;
mod token;
mod trace;
mod transport;
mod versioning;

pub use codec_server::{CodecServerOptions, serve as serve_codec};
pub use library::{Worker, WorkerBuilder};
pub use lifecycle::Ended;
pub use options::Options;
pub use probes::{begin_drain, wait_drained};
pub use process::init_logs;
pub use shared::{check, run};
pub use sidecar::{SidecarOptions, run as run_sidecar};
