//! Commands beside the operator itself.

pub mod build_id;
pub mod crds;
pub mod delete_fleets;
pub mod explain;
pub mod migrate;
pub mod plan;
pub mod push_kubeconfig;
