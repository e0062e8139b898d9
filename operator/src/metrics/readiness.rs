//! How many fleets are ready.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::{IntGaugeVec, Opts, Registry};

use super::PREFIX;
use crate::changes::FleetId;

/// Values of a condition.
const VALUES: [&str; 3] = ["True", "False", "Unknown"];

/// Fleets by their condition `Ready`.
#[derive(Clone)]
pub(super) struct Readiness {
    fleets: IntGaugeVec,
    known: Arc<Mutex<HashMap<FleetId, &'static str>>>,
}

impl Readiness {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let name = format!("{PREFIX}fleets");
        let fleets =
            IntGaugeVec::new(Opts::new(name, "Fleets, by their condition Ready at the last look."), &["ready"])?;
        VALUES.iter().for_each(|value| fleets.with_label_values(&[value]).set(0));
        registry.register(Box::new(fleets.clone()))?;
        Ok(Self { fleets, known: Arc::default() })
    }

    pub(super) fn judged(&self, fleet: &FleetId, ready: &str) {
        let Some(value) = VALUES.into_iter().find(|value| *value == ready) else { return };
        let before = self.known.lock().insert(fleet.clone(), value);
        if before != Some(value) {
            self.fleets.with_label_values(&[value]).inc();
            self.leave(before);
        }
    }

    pub(super) fn forget(&self, fleet: &FleetId) {
        let before = self.known.lock().remove(fleet);
        self.leave(before);
    }

    fn leave(&self, before: Option<&str>) {
        if let Some(before) = before {
            self.fleets.with_label_values(&[before]).dec();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fleet_counts_once_as_what_it_was_last() {
        let readiness = Readiness::register(&Registry::new()).unwrap();
        let counts = || VALUES.map(|value| readiness.fleets.with_label_values(&[value]).get());
        let [a, b] = ["a", "b"].map(FleetId::from);
        readiness.judged(&a, "Unknown");
        readiness.judged(&b, "True");
        readiness.judged(&a, "True");
        readiness.judged(&a, "True");
        assert_eq!(counts(), [2, 0, 0]);
        readiness.forget(&b);
        readiness.forget(&b);
        assert_eq!(counts(), [1, 0, 0]);
    }
}
