//! The operator's own metrics.

use std::collections::HashMap;
use std::time::Duration;

use operator_core::observed::KubeState;
use operator_core::plan::Plan;
use parking_lot::Mutex;
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use std::sync::Arc;

use crate::changes::FleetId;

/// Prefix of every metric.
const PREFIX: &str = "temporal_worker_operator_";

/// Live values of each fleet, and counters of what the operator does.
#[derive(Clone)]
pub struct Metrics {
    reconciles: IntCounterVec,
    reconcile_seconds: Histogram,
    leader: IntGauge,
    fleet: IntGaugeVec,
    labels: Arc<Mutex<HashMap<FleetId, (String, String)>>>,
}

/// Live values of a fleet, by the label `value`.
const VALUES: [&str; 5] = ["desired", "current", "ready", "backlog", "in_flight"];

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
            fleet: IntGaugeVec::new(
                Opts::new(
                    name("fleet"),
                    "Live values of a fleet at its last decision: desired, current and ready replicas, waiting and running tasks.",
                ),
                &["namespace", "name", "value"],
            )?,
            labels: Arc::default(),
        };
        for outcome in ["ok", "error"] {
            metrics.reconciles.with_label_values(&[outcome]);
        }
        registry.register(Box::new(metrics.reconciles.clone()))?;
        registry.register(Box::new(metrics.reconcile_seconds.clone()))?;
        registry.register(Box::new(metrics.leader.clone()))?;
        registry.register(Box::new(metrics.fleet.clone()))?;
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
    pub fn observed(&self, fleet: &FleetId, namespace: &str, name: &str, plan: &Plan, kube: &KubeState) {
        let Some(decision) = &plan.decision else { return };
        self.labels.lock().entry(fleet.clone()).or_insert_with(|| (namespace.to_owned(), name.to_owned()));
        let int = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let replicas: u64 = kube.children.iter().map(|child| u64::from(child.spec_replicas)).sum();
        let ready = kube.pods.iter().filter(|pod| pod.ready && !pod.terminating).count();
        let values = [
            Some(u64::from(decision.desired)),
            Some(replicas),
            u64::try_from(ready).ok(),
            decision.backlog,
            decision.in_flight,
        ];
        for (label, value) in VALUES.into_iter().zip(values) {
            match value {
                Some(value) => self.fleet.with_label_values(&[namespace, name, label]).set(int(value)),
                // Unknown is not zero: the series goes away until it is known again.
                None => _ = self.fleet.remove_label_values(&[namespace, name, label]),
            }
        }
    }

    /// Takes a fleet's series away.
    pub fn forget(&self, fleet: &FleetId) {
        if let Some((namespace, name)) = self.labels.lock().remove(fleet) {
            for label in VALUES {
                let _ = self.fleet.remove_label_values(&[&namespace, &name, label]);
            }
        }
    }
}
