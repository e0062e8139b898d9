//! The policies, one file each, written as their sources say.

mod clairvoyant;
mod hpa;
mod hpa_slots;
mod keda;
mod kpa;
mod ours;
mod wci;

pub use clairvoyant::Clairvoyant;
pub use hpa::{Behavior, Hpa, Rule, Rules};
pub use hpa_slots::HpaSlots;
pub use keda::Keda;
pub use kpa::Kpa;
pub use ours::{Ours, Witness};
pub use wci::Wci;

use crate::time::Micros;

/// Something that is done at an interval.
#[derive(Clone, Copy, Debug)]
struct Every {
    interval: Micros,
    next: Micros,
}

impl Every {
    /// First at `first`, then at each interval.
    fn starting(first: Micros, interval: Micros) -> Self {
        Self { interval, next: first }
    }

    /// Whether it is due; then it is done.
    fn due(&mut self, now: Micros) -> bool {
        if now < self.next {
            return false;
        }
        self.next = now + self.interval;
        true
    }
}

#[cfg(test)]
mod tests;
