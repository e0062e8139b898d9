//! The decisions of the Temporal Worker Operator, as functions of data.
//!
//! Nothing here has a client, a clock, an environment, a file or a log: `now` is an argument, and what could not be read
//! is a value. `make check-layers` holds this crate to it.
#![deny(missing_docs)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::disallowed_macros)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

#[cfg(feature = "k8s")]
pub mod adoption;
#[cfg(feature = "k8s")]
pub mod api;
pub mod backoff;
pub mod border;
#[cfg(feature = "k8s")]
pub mod build;
pub mod build_id;
#[cfg(feature = "k8s")]
pub mod checkpoint;
pub mod clock;
#[cfg(feature = "k8s")]
pub mod commands;
pub mod connection;
pub mod connection_use;
pub mod contract;
pub mod cordon;
pub mod defaults;
#[cfg(feature = "k8s")]
pub mod deletion;
#[cfg(feature = "k8s")]
pub mod events;
#[cfg(feature = "k8s")]
pub mod explain;
#[cfg(feature = "k8s")]
pub mod fleet;
pub mod identity;
pub mod last_words;
pub mod lease;
#[cfg(feature = "k8s")]
pub mod migrate;
pub mod names;
pub mod observed;
#[cfg(feature = "k8s")]
pub mod old_kinds;
#[cfg(feature = "k8s")]
pub mod plan;
pub mod polling;
#[cfg(feature = "k8s")]
pub mod preview;
pub mod push_token;
#[cfg(feature = "k8s")]
pub mod resource_template;
pub mod rollout;
pub mod scaling;
#[cfg(feature = "k8s")]
pub mod schedule;
#[cfg(feature = "k8s")]
pub mod served;
pub mod standing;
#[cfg(feature = "k8s")]
pub mod status;
#[cfg(feature = "k8s")]
pub mod versions;
