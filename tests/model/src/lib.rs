//! Every world that a rollout can get into at a small scope.
//!
//! The operator's own planner runs against a model of the API server, the Temporal server, the pods, the user and the clock. A
//! checker tries everything that can happen in every order, with faults, and finds no order in which an invariant breaks. The
//! same model with a fault in the operator finds one.

pub mod act;
pub mod dangers;
pub mod fleets;
pub mod invariants;
pub mod land;
pub mod look;
pub mod model;
pub mod mutants;
pub mod operator;
pub mod server;
mod settle;
pub mod world;

#[cfg(test)]
mod tests;
