//! What is said before a migration, and what is printed for one.

mod autoscaler;
mod check;
mod fixtures;
mod keda;
mod scalers;
