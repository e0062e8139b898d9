//! WorkerResourceTemplates and their copies. Copies are read by name, and never listed or watched: the operator has no such right.

pub mod copies;
pub mod kinds;
pub mod policy;
pub mod watch;
