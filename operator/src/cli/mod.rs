//! Commands beside the operator itself.

pub mod build_id;
pub mod crds;
pub mod explain;
pub mod plan;
pub mod push_kubeconfig;
