//! From a manifest to a fleet, its objects, its plan and its status, as one would read them in a cluster.

mod adopted;
mod attach;
mod conditions;
mod connection;
mod fixtures;
mod gates;
mod objects;
mod plan;
mod properties;
mod remembered;
mod runtime;
mod sidecar;
mod status;
mod templates;
mod versions;
