//! The checks.

mod exhaustive;
mod kills;
mod mutants;
mod table;
