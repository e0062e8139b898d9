//! The shell of the Temporal Worker Operator: it watches, asks, writes and reports. What is to be done is decided in
//! `operator-core`.
#![deny(clippy::unwrap_used, clippy::expect_used)]

pub mod changes;
pub mod cli;
pub mod compat;
pub mod controller;
pub mod http;
pub mod kube;
pub mod metrics;
pub mod push;
pub mod recorder;
pub mod run;
pub mod settings;
pub mod telemetry;
pub mod temporal;
pub mod workers;
