//! The Temporal Worker process of a fleet, once, for everyone.
//!
//! The program `worker-runtime` hosts activities in any language, by a table of handlers.

mod activity;
mod connect;
mod handler;
mod lifecycle;
mod metrics;
mod options;
mod payload;
mod pollers;
mod probes;
mod process;
mod queue;
mod report;
mod settings;
mod shared;
mod slots;
mod versioning;

pub use options::Options;
pub use probes::wait_drained;
pub use process::init_logs;
pub use shared::run;
