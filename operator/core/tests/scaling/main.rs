//! The scaling decision: tables, properties of random fleets, and one fleet's life from zero to zero.

mod bounds;
mod cordon;
mod doubt;
mod down;
mod fixtures;
mod guards;
mod memory;
mod properties;
mod random_world;
mod rng;
mod saturated;
mod sentences;
mod story;
mod up;
mod zero;
