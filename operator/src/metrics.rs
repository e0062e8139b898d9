//! The operator's own metrics.

mod fleets;
mod readiness;

use std::time::{Duration, Instant};

use operator_core::fleet::Fleet;
use operator_core::observed::KubeState;
use operator_core::plan::Plan;
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::changes::FleetId;
use fleets::Fleets;
use readiness::Readiness;

/// Prefix of every metric.
const PREFIX: &str = "temporal_worker_operator_";

/// Live values of each fleet, and counters of what the operator does.
#[derive(Clone)]
pub struct Metrics {
    reconciles: IntCounterVec,
    reconcile_seconds: Histogram,
    leader: IntGauge,
    fleets: Fleets,
    readiness: Readiness,
}

impl Metrics {
    /// Makes the metrics and adds them to a registry.
    ///
    /// # Errors
    /// When a metric of the same name is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let name = |name: &str| format!("{PREFIX}{name}");
        let metrics = Self {
            reconciles: IntCounterVec::new(
                Opts::new(name("reconciles_total"), "Reconciles, by outcome."),
                &["outcome"],
            )?,
            reconcile_seconds: Histogram::with_opts(
                HistogramOpts::new(name("reconcile_seconds"), "Duration of reconciles.")
                    .buckets(vec![0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0]),
            )?,
            leader: IntGauge::new(name("leader"), "1 while this replica holds the Lease.")?,
            fleets: Fleets::register(registry)?,
            readiness: Readiness::register(registry)?,
        };
        for outcome in ["ok", "error"] {
            metrics.reconciles.with_label_values(&[outcome]);
        }
        registry.register(Box::new(metrics.reconciles.clone()))?;
        registry.register(Box::new(metrics.reconcile_seconds.clone()))?;
        registry.register(Box::new(metrics.leader.clone()))?;
        let build = IntGaugeVec::new(Opts::new(name("build_info"), "Version of the operator."), &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        registry.register(Box::new(build))?;
        Ok(metrics)
    }

    /// Counts a reconcile.
    pub fn reconciled(&self, took: Duration, ok: bool) {
        self.reconciles.with_label_values(&[if ok { "ok" } else { "error" }]).inc();
        self.reconcile_seconds.observe(took.as_secs_f64());
    }

    /// Says whether this replica holds the Lease.
    pub fn lead(&self, leader: bool) {
        self.leader.set(leader.into());
    }

    /// Shows what a fleet's last decision stood on.
    pub fn observed(&self, fleet: &Fleet, plan: &Plan, kube: &KubeState) {
        self.fleets.observed(fleet, plan, kube, Instant::now());
    }

    /// Counts a fleet among those with this value of its condition `Ready`.
    pub fn judged(&self, fleet: &FleetId, ready: &str) {
        self.readiness.judged(fleet, ready);
    }

    /// Takes a fleet's series away.
    pub fn forget(&self, fleet: &FleetId) {
        self.fleets.forget(fleet);
        self.readiness.forget(fleet);
    }
}
