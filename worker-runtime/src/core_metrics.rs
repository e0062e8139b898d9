//! What core measures, in the metrics of the process. Core hands every number to a meter; of those, the ones that the
//! operator scales by are kept: schedule-to-start, execution latency, and the size of the Workflow cache.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use operator_core::contract::LABEL_TASK_QUEUE;
use prometheus::{Histogram as Times, IntGauge};
use temporalio_common::telemetry::TelemetryOptions;
use temporalio_common::telemetry::metrics::{
    ACTIVITY_EXEC_LATENCY_HISTOGRAM_NAME, ACTIVITY_SCHED_TO_START_LATENCY_HISTOGRAM_NAME, CoreMeter, Counter, Gauge,
    GaugeBase, GaugeF64, Histogram, HistogramDuration, HistogramDurationBase, HistogramF64, MetricAttributable,
    MetricAttributes, MetricParameters, NewAttributes, NoOpCoreMeter, NoOpInstrument, UpDownCounter,
    WORKFLOW_TASK_EXECUTION_LATENCY_HISTOGRAM_NAME, WORKFLOW_TASK_SCHED_TO_START_LATENCY_HISTOGRAM_NAME,
};
use temporalio_sdk_core::RuntimeOptions;

use crate::metrics::{Metrics, TaskType, Time};

/// Core's name of the size of the Workflow cache.
const STICKY_CACHE_SIZE: &str = "sticky_cache_size";

/// Options of core's runtime with this meter.
///
/// # Errors
/// Core refuses them; a bug.
pub fn runtime_options(metrics: &Metrics) -> anyhow::Result<RuntimeOptions> {
    let meter: Arc<dyn CoreMeter> = Arc::new(Meter { metrics: metrics.clone() });
    let telemetry = TelemetryOptions::builder().metrics(meter).metric_prefix(String::new()).build();
    RuntimeOptions::builder().telemetry_options(telemetry).build().map_err(anyhow::Error::msg)
}

#[derive(Debug)]
struct Meter {
    metrics: Metrics,
}

impl CoreMeter for Meter {
    fn new_attributes(&self, attributes: NewAttributes) -> MetricAttributes {
        NoOpCoreMeter.new_attributes(attributes)
    }

    fn extend_attributes(&self, existing: MetricAttributes, attributes: NewAttributes) -> MetricAttributes {
        NoOpCoreMeter.extend_attributes(existing, attributes)
    }

    fn counter(&self, params: MetricParameters) -> Counter {
        NoOpCoreMeter.counter(params)
    }

    fn histogram(&self, params: MetricParameters) -> Histogram {
        NoOpCoreMeter.histogram(params)
    }

    fn histogram_f64(&self, params: MetricParameters) -> HistogramF64 {
        NoOpCoreMeter.histogram_f64(params)
    }

    fn histogram_duration(&self, params: MetricParameters) -> HistogramDuration {
        let (task_type, what) = match params.name.as_ref() {
            ACTIVITY_SCHED_TO_START_LATENCY_HISTOGRAM_NAME => (TaskType::Activity, Time::Wait),
            WORKFLOW_TASK_SCHED_TO_START_LATENCY_HISTOGRAM_NAME => (TaskType::Workflow, Time::Wait),
            ACTIVITY_EXEC_LATENCY_HISTOGRAM_NAME => (TaskType::Activity, Time::Run),
            WORKFLOW_TASK_EXECUTION_LATENCY_HISTOGRAM_NAME => (TaskType::Workflow, Time::Run),
            _ => return NoOpCoreMeter.histogram_duration(params),
        };
        HistogramDuration::new(Arc::new(TimesByQueue { metrics: self.metrics.clone(), task_type, what }))
    }

    fn gauge(&self, params: MetricParameters) -> Gauge {
        match params.name.as_ref() {
            STICKY_CACHE_SIZE => Gauge::new(Arc::new(CacheByQueue { metrics: self.metrics.clone() })),
            _ => NoOpCoreMeter.gauge(params),
        }
    }

    fn gauge_f64(&self, params: MetricParameters) -> GaugeF64 {
        NoOpCoreMeter.gauge_f64(params)
    }

    fn up_down_counter(&self, params: MetricParameters) -> UpDownCounter {
        NoOpCoreMeter.up_down_counter(params)
    }
}

/// The Task Queue among the labels; core has none for what is not a Worker's.
fn task_queue(attributes: &MetricAttributes) -> Option<&str> {
    match attributes {
        MetricAttributes::NoOp(labels) => labels.get(LABEL_TASK_QUEUE).map(String::as_str),
        _ => None,
    }
}

struct TimesByQueue {
    metrics: Metrics,
    task_type: TaskType,
    what: Time,
}

impl MetricAttributable<Box<dyn HistogramDurationBase>> for TimesByQueue {
    fn with_attributes(&self, attributes: &MetricAttributes) -> Result<Box<dyn HistogramDurationBase>, Box<dyn Error>> {
        Ok(match task_queue(attributes) {
            Some(queue) => Box::new(QueueTimes(self.metrics.times(self.what, queue, self.task_type))),
            None => Box::new(NoOpInstrument),
        })
    }
}

struct QueueTimes(Times);

impl HistogramDurationBase for QueueTimes {
    fn records(&self, value: Duration) {
        self.0.observe(value.as_secs_f64());
    }
}

struct CacheByQueue {
    metrics: Metrics,
}

impl MetricAttributable<Box<dyn GaugeBase>> for CacheByQueue {
    fn with_attributes(&self, attributes: &MetricAttributes) -> Result<Box<dyn GaugeBase>, Box<dyn Error>> {
        Ok(match task_queue(attributes) {
            Some(queue) => Box::new(QueueCache(self.metrics.cached_workflows(queue))),
            None => Box::new(NoOpInstrument),
        })
    }
}

struct QueueCache(IntGauge);

impl GaugeBase for QueueCache {
    fn records(&self, value: u64) {
        self.0.set(i64::try_from(value).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use temporalio_common::telemetry::metrics::MetricKeyValue;

    #[test]
    fn schedule_to_start_and_the_cache_are_kept_by_task_queue() {
        let metrics = Metrics::new(None).unwrap();
        let meter = Meter { metrics: metrics.clone() };
        let queue = meter.new_attributes(vec![MetricKeyValue::new(LABEL_TASK_QUEUE, "q")].into());
        let named = |name: &'static str| MetricParameters::from(name);
        let waits = meter.histogram_duration(named(ACTIVITY_SCHED_TO_START_LATENCY_HISTOGRAM_NAME));
        waits.with_attributes(&queue).unwrap().records(Duration::from_millis(700));
        meter.gauge(named(STICKY_CACHE_SIZE)).with_attributes(&queue).unwrap().records(5);
        meter.gauge(named("other")).with_attributes(&queue).unwrap().records(7);
        let text = metrics.render();
        let bucket = |edge: &str| {
            format!(
                "temporal_worker_runtime_schedule_to_start_seconds_bucket{{task_queue=\"q\",task_type=\"activity\",le=\"{edge}\"}}"
            )
        };
        assert!(text.contains(&format!("{} 0\n", bucket("0.5"))), "{text}");
        assert!(text.contains(&format!("{} 1\n", bucket("1"))), "{text}");
        assert!(text.contains("temporal_worker_runtime_cached_workflows{task_queue=\"q\"} 5\n"), "{text}");
        assert!(!text.contains("other"), "{text}");
    }
}
