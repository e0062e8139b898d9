//! Metrics of the Temporal side. No label holds the name of an object.

use std::time::Duration;

use operator_core::observed::{FailureClass, Observation, TemporalState};
use prometheus::{CounterVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use super::api::Method;

/// Counters and histograms of calls, budgets and ages.
#[derive(Clone)]
pub struct Metrics {
    calls: IntCounterVec,
    call_seconds: HistogramVec,
    budget_wait_seconds: CounterVec,
    snapshot_age_seconds: HistogramVec,
    sweep_seconds: Histogram,
}

impl Metrics {
    /// Makes the metrics and adds them to a registry.
    ///
    /// # Errors
    /// When a metric of the same name is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            calls: IntCounterVec::new(
                Opts::new(name("calls_total"), "Calls to Temporal servers, by method and outcome."),
                &["method", "outcome"],
            )?,
            call_seconds: HistogramVec::new(
                HistogramOpts::new(name("call_seconds"), "Duration of calls to Temporal servers.")
                    .buckets(vec![0.002, 0.01, 0.05, 0.2, 1.0, 5.0]),
                &["method"],
            )?,
            budget_wait_seconds: CounterVec::new(
                Opts::new(name("budget_wait_seconds_total"), "Time that calls waited for the budget, by kind of call."),
                &["kind"],
            )?,
            snapshot_age_seconds: HistogramVec::new(
                HistogramOpts::new(name("snapshot_age_seconds"), "Age of what a decision was given, by what it is.")
                    .buckets(vec![0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0]),
                &["kind"],
            )?,
            sweep_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    name("live_sweep_seconds"),
                    "Time between two live readings of the same partition of a Task Queue whose fleet is at zero.",
                )
                .buckets(vec![0.25, 0.5, 0.75, 1.0, 2.0, 4.0, 15.0]),
            )?,
        };
        registry.register(Box::new(metrics.calls.clone()))?;
        registry.register(Box::new(metrics.call_seconds.clone()))?;
        registry.register(Box::new(metrics.budget_wait_seconds.clone()))?;
        registry.register(Box::new(metrics.snapshot_age_seconds.clone()))?;
        registry.register(Box::new(metrics.sweep_seconds.clone()))?;
        Ok(metrics)
    }

    pub(super) fn called(&self, method: Method, outcome: Result<(), FailureClass>, took: Duration) {
        let outcome = outcome.map_or_else(failure_label, |()| "ok");
        self.calls.with_label_values(&[method.as_str(), outcome]).inc();
        self.call_seconds.with_label_values(&[method.as_str()]).observe(took.as_secs_f64());
    }

    pub(super) fn waited(&self, kind: &str, wait: Duration) {
        self.budget_wait_seconds.with_label_values(&[kind]).inc_by(wait.as_secs_f64());
    }

    pub(super) fn snapshot(&self, state: &TemporalState) {
        let lanes = state.lanes.values().filter_map(age).map(|age| ("lane", age));
        for (kind, age) in lanes.chain(age(&state.deployment).map(|age| ("deployment", age))) {
            self.snapshot_age_seconds.with_label_values(&[kind]).observe(age.as_secs_f64());
        }
    }

    pub(super) fn swept(&self, gap: Duration) {
        self.sweep_seconds.observe(gap.as_secs_f64());
    }
}

fn age<T>(observation: &Observation<T>) -> Option<Duration> {
    match observation {
        Observation::Known { age, .. } | Observation::Stale { age, .. } => Some(*age),
        Observation::Unknown => None,
    }
}

fn name(suffix: &str) -> String {
    format!("temporal_worker_operator_temporal_{suffix}")
}

fn failure_label(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Unreachable => "unreachable",
        FailureClass::Unauthenticated => "unauthenticated",
        FailureClass::PermissionDenied => "permission_denied",
        FailureClass::NamespaceNotFound => "namespace_not_found",
        FailureClass::ResourceExhausted => "resource_exhausted",
        FailureClass::FailedPrecondition => "failed_precondition",
        FailureClass::Other => "other",
    }
}
