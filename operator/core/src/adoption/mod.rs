//! What temporal-worker-controller left, and how it is taken over without a new pod: which Deployments are a fleet's own, under
//! which Build ID its target runs, and whose the fields of its objects are.

mod fields;
mod owner;
mod version;

pub use fields::{PEER_MANAGERS, of_child, of_fleet};
pub use owner::Ownership;
pub(crate) use version::kept_hash;
pub use version::{Candidates, Chosen, Origin, choose, target_of};
