//! Metrics of the Temporal side. No label holds the name of an object.

use std::time::Duration;

use operator_core::observed::{FailureClass, Observation, TemporalState};
use prometheus::core::Collector;
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
    budget_used: Histogram,
    rejected: IntCounterVec,
    poll_gap_seconds: HistogramVec,
}

impl Metrics {
    /// Makes the metrics and adds them to a registry.
    ///
    /// # Errors
    /// When a metric of the same name is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let register = Register(registry);
        Ok(Self {
            calls: register.counters(
                "calls_total",
                "Calls to Temporal servers, by method and outcome.",
                &["method", "outcome"],
            )?,
            call_seconds: register.histograms(
                HistogramOpts::new("call_seconds", "Duration of calls to Temporal servers.")
                    .buckets(vec![0.002, 0.01, 0.05, 0.2, 1.0, 5.0]),
                &["method"],
            )?,
            budget_wait_seconds: register.add(CounterVec::new(
                Opts::new(name("budget_wait_seconds_total"), "Time that calls waited for the budget, by kind of call."),
                &["kind"],
            )?)?,
            snapshot_age_seconds: register.histograms(
                HistogramOpts::new("snapshot_age_seconds", "Age of what a decision was given, by what it is.")
                    .buckets(vec![0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0]),
                &["kind"],
            )?,
            sweep_seconds: register.histogram(
                "live_sweep_seconds",
                "Time between two live readings of the same partition of a Task Queue whose fleet is at zero.",
                vec![0.25, 0.5, 0.75, 1.0, 2.0, 4.0, 15.0],
            )?,
            budget_used: register.histogram(
                "budget_used_ratio",
                "Used share of the budget of a Temporal namespace, each over 10 s or more.",
                vec![0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0],
            )?,
            rejected: register.counters(
                "calls_rejected_total",
                "Calls refused for the server's limits or the operator's own, by kind of call.",
                &["kind", "by"],
            )?,
            poll_gap_seconds: register.histograms(
                HistogramOpts::new("poll_gap_seconds", "Age of a reading when it is taken anew, by how urgent it is.")
                    .buckets(vec![0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 600.0]),
                &["class"],
            )?,
        })
    }

    pub(super) fn called(&self, method: Method, outcome: Result<(), FailureClass>, took: Duration) {
        let outcome = outcome.map_or_else(failure_label, |()| "ok");
        self.calls.with_label_values(&[method.as_str(), outcome]).inc();
        self.call_seconds.with_label_values(&[method.as_str()]).observe(took.as_secs_f64());
    }

    pub(super) fn waited(&self, kind: &str, wait: Duration) {
        self.budget_wait_seconds.with_label_values(&[kind]).inc_by(wait.as_secs_f64());
    }

    pub(super) fn budget_used(&self, share: f64) {
        self.budget_used.observe(share);
    }

    pub(super) fn rejected(&self, kind: &str, by: &str) {
        self.rejected.with_label_values(&[kind, by]).inc();
    }

    pub(super) fn polled(&self, class: &str, gap: Duration) {
        self.poll_gap_seconds.with_label_values(&[class]).observe(gap.as_secs_f64());
    }

    pub(super) fn snapshot(&self, state: &TemporalState) {
        let lanes = state.lanes.values().filter_map(Observation::age).map(|age| ("lane", age));
        for (kind, age) in lanes.chain(state.deployment.age().map(|age| ("deployment", age))) {
            self.snapshot_age_seconds.with_label_values(&[kind]).observe(age.as_secs_f64());
        }
    }

    pub(super) fn swept(&self, gap: Duration) {
        self.sweep_seconds.observe(gap.as_secs_f64());
    }
}

struct Register<'a>(&'a Registry);

impl Register<'_> {
    fn add<C: Collector + Clone + 'static>(&self, collector: C) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn counters(&self, suffix: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.add(IntCounterVec::new(Opts::new(name(suffix), help), labels)?)
    }

    fn histogram(&self, suffix: &str, help: &str, buckets: Vec<f64>) -> Result<Histogram, prometheus::Error> {
        self.add(Histogram::with_opts(HistogramOpts::new(name(suffix), help).buckets(buckets))?)
    }

    fn histograms(&self, mut opts: HistogramOpts, labels: &[&str]) -> Result<HistogramVec, prometheus::Error> {
        opts.common_opts.name = name(&opts.common_opts.name);
        self.add(HistogramVec::new(opts, labels)?)
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
