//! Shell.

pub mod changes;
pub mod temporal;
pub mod workers;
