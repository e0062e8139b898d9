//! The Kubernetes side: caches that are pruned before they store, reads, writes. It knows nothing of Temporal.

pub mod adopt;
pub mod apply;
#[cfg(feature = "breach")]
mod breach;
pub mod checkpoint;
pub mod client;
pub mod connection;
pub mod directory;
pub mod dry_run;
pub mod events;
pub mod gate;
pub mod gate_input;
pub mod index;
pub mod lease;
pub mod namespaces;
pub mod observe;
pub mod old_kinds;
pub mod order_key;
pub mod others;
pub mod push_key;
pub mod secrets;
pub mod served;
pub mod standing;
pub mod status;
pub mod templates;
pub mod views;
pub mod watches;
