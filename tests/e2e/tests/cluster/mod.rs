//! The scenarios, a file a capability.

pub mod bad_pods;
pub mod changes;
pub mod cutover;
pub mod drain;
pub mod faults;
pub mod futile;
pub mod gates;
pub mod handlers;
pub mod life;
pub mod moves;
pub mod polyglot;
pub mod recording;
pub mod replicas;
pub mod rest;
pub mod rollouts;
pub mod rotation;
pub mod secrets;
pub mod shrink;
pub mod sidecars;
pub mod signals;
pub mod steady;
pub mod versions;
