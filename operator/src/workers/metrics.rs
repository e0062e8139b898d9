//! Metrics of reading pods. No label holds the name of an object.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry};

/// Counters of scrapes.
#[derive(Clone)]
pub struct Metrics {
    scrapes: IntCounterVec,
    seconds: Histogram,
}

impl Metrics {
    /// Makes the metrics and adds them to a registry.
    ///
    /// # Errors
    /// When a metric of the same name is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let scrapes = Opts::new("temporal_worker_operator_pod_scrapes_total", "Reads of pods' metrics, by outcome.");
        let seconds =
            HistogramOpts::new("temporal_worker_operator_pod_scrape_seconds", "Duration of reads of pods' metrics.");
        let metrics = Self {
            scrapes: IntCounterVec::new(scrapes, &["outcome"])?,
            seconds: Histogram::with_opts(seconds.buckets(vec![0.002, 0.01, 0.05, 0.2, 1.0]))?,
        };
        registry.register(Box::new(metrics.scrapes.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        Ok(metrics)
    }

    pub(super) fn scraped(&self, outcome: &str, took: Duration) {
        self.scrapes.with_label_values(&[outcome]).inc();
        self.seconds.observe(took.as_secs_f64());
    }
}
