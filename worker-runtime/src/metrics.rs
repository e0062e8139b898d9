//! Prometheus metrics of a Worker process, in a registry of its own.

use operator_core::contract::{
    LABEL_TASK_QUEUE, LABEL_TASK_TYPE, METRIC_CACHED_WORKFLOWS, METRIC_EXECUTION, METRIC_SCHEDULE_TO_START,
    METRIC_SLOTS_AVAILABLE, METRIC_SLOTS_USED, METRIC_TASKS_ENDED, METRIC_TASKS_STARTED,
};
use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::cpu::Cpu;
use crate::settings::Version;

/// Upper edges of schedule-to-start, in seconds: the targets that users set, and room on both sides.
const WAITS: [f64; 15] = [0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0];

/// The same of the time that tasks take: the grace periods that pods get, and room on both sides.
const RUNS: [f64; 14] = [0.05, 0.2, 1.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14_400.0];

/// Kind of task that a slot runs; the value of the `task_type` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskType {
    /// An activity task.
    Activity,
    /// A workflow task.
    Workflow,
    /// A Nexus task.
    Nexus,
}

impl TaskType {
    fn label(self) -> &'static str {
        match self {
            Self::Activity => "activity",
            Self::Workflow => "workflow",
            Self::Nexus => "nexus",
        }
    }
}

/// A time of a task that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// From the moment when it could start until it did.
    Wait,
    /// From then until it ended.
    Run,
}

/// Every metric that the process exports.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    used: IntGaugeVec,
    available: IntGaugeVec,
    started: IntCounterVec,
    ended: IntCounterVec,
    failures: IntCounterVec,
    waits: HistogramVec,
    runs: HistogramVec,
    cached: IntGaugeVec,
    cpu: Option<Cpu>,
}

/// Meters of the slots of one Task Queue and task type.
#[derive(Clone, Debug)]
pub struct SlotMeters {
    used: IntGauge,
    available: IntGauge,
    started: IntCounter,
}

impl SlotMeters {
    /// Shows how many slots run a task, and how many more could.
    pub fn show(&self, used: u32, available: u32) {
        self.used.set(used.into());
        self.available.set(available.into());
    }

    /// Counts a task that starts.
    pub fn started(&self) {
        self.started.inc();
    }

    #[cfg(test)]
    pub(crate) fn values(&self) -> (i64, i64, u64) {
        (self.used.get(), self.available.get(), self.started.get())
    }
}

impl Metrics {
    /// A fresh registry, with the build information in it.
    ///
    /// # Errors
    /// Two metrics share a name; a bug.
    pub fn new(version: Option<&Version>) -> Result<Self, prometheus::Error> {
        let metrics = Self::without_cpu(version)?;
        Ok(Self { cpu: Cpu::register(&metrics.registry)?, ..metrics })
    }

    /// The same of a process that is not the one whose CPU the tasks use.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn without_cpu(version: Option<&Version>) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let slot = [LABEL_TASK_QUEUE, LABEL_TASK_TYPE];
        let metrics = Self {
            used: IntGaugeVec::new(Opts::new(METRIC_SLOTS_USED, "Slots that run a task now."), &slot)?,
            available: IntGaugeVec::new(Opts::new(METRIC_SLOTS_AVAILABLE, "Slots that are free now."), &slot)?,
            started: IntCounterVec::new(Opts::new(METRIC_TASKS_STARTED, "Tasks taken from the server."), &slot)?,
            ended: IntCounterVec::new(
                Opts::new(METRIC_TASKS_ENDED, "Tasks that ended, by outcome."),
                &[LABEL_TASK_QUEUE, LABEL_TASK_TYPE, "outcome"],
            )?,
            failures: IntCounterVec::new(
                Opts::new("temporal_worker_runtime_activity_failures_total", "Activities that failed, by reason."),
                &[LABEL_TASK_QUEUE, "reason"],
            )?,
            waits: HistogramVec::new(
                HistogramOpts::new(METRIC_SCHEDULE_TO_START, "Time that tasks waited before they started.")
                    .buckets(WAITS.to_vec()),
                &slot,
            )?,
            runs: HistogramVec::new(
                HistogramOpts::new(METRIC_EXECUTION, "Time that tasks took once they had started.")
                    .buckets(RUNS.to_vec()),
                &slot,
            )?,
            cached: IntGaugeVec::new(
                Opts::new(METRIC_CACHED_WORKFLOWS, "Workflows in the cache."),
                &[LABEL_TASK_QUEUE],
            )?,
            cpu: None,
            registry,
        };
        let build = IntGaugeVec::new(
            Opts::new("temporal_worker_runtime_build_info", "Always 1; its labels say what runs."),
            &["version", "deployment", "build_id"],
        )?;
        let (deployment, build_id) = version.map_or(("", ""), |v| (v.deployment.as_str(), v.build_id.as_str()));
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), deployment, build_id]).set(1);
        metrics.registry.register(Box::new(build))?;
        metrics.registry.register(Box::new(metrics.used.clone()))?;
        metrics.registry.register(Box::new(metrics.available.clone()))?;
        metrics.registry.register(Box::new(metrics.started.clone()))?;
        metrics.registry.register(Box::new(metrics.ended.clone()))?;
        metrics.registry.register(Box::new(metrics.failures.clone()))?;
        metrics.registry.register(Box::new(metrics.waits.clone()))?;
        metrics.registry.register(Box::new(metrics.runs.clone()))?;
        metrics.registry.register(Box::new(metrics.cached.clone()))?;
        Ok(metrics)
    }

    /// The meters of a Task Queue.
    pub fn slots(&self, task_queue: &str, task_type: TaskType) -> SlotMeters {
        let labels = [task_queue, task_type.label()];
        SlotMeters {
            used: self.used.with_label_values(&labels),
            available: self.available.with_label_values(&labels),
            started: self.started.with_label_values(&labels),
        }
    }

    /// Shows no slots of a Task Queue that is no longer polled.
    pub fn forget(&self, task_queue: &str, task_type: TaskType) {
        let labels = [task_queue, task_type.label()];
        // Fails when they were never shown.
        let _ = self.used.remove_label_values(&labels);
        let _ = self.available.remove_label_values(&labels);
    }

    /// Times of the tasks of a Task Queue.
    pub fn times(&self, what: Time, task_queue: &str, task_type: TaskType) -> Histogram {
        let times = match what {
            Time::Wait => &self.waits,
            Time::Run => &self.runs,
        };
        times.with_label_values(&[task_queue, task_type.label()])
    }

    /// Workflows in the cache of a Task Queue's Worker.
    pub fn cached_workflows(&self, task_queue: &str) -> IntGauge {
        self.cached.with_label_values(&[task_queue])
    }

    /// Adds metrics of another part of the process.
    ///
    /// # Errors
    /// Two metrics share a name; a bug.
    pub fn register(&self, metrics: Box<dyn Collector>) -> Result<(), prometheus::Error> {
        self.registry.register(metrics)
    }

    /// Counts the end of a task.
    pub fn ended(&self, task_queue: &str, task_type: TaskType, outcome: &str) {
        self.ended.with_label_values(&[task_queue, task_type.label(), outcome]).inc();
    }

    /// Counts a failed activity. `reason` is one of a closed set.
    pub fn failed(&self, task_queue: &str, reason: &str) {
        self.failures.with_label_values(&[task_queue, reason]).inc();
    }

    /// The metrics in the text format of Prometheus.
    pub fn render(&self) -> String {
        if let Some(cpu) = &self.cpu {
            cpu.refresh();
        }
        let mut text = String::new();
        // The text encoder fails only on a metric family without metrics, which `gather` never returns.
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "cannot encode the metrics");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_is_no_longer_polled_has_no_slots() {
        let metrics = Metrics::new(None).unwrap();
        metrics.slots("q", TaskType::Activity).show(1, 2);
        let line = "temporal_worker_runtime_slots_used{task_queue=\"q\",task_type=\"activity\"} 1";
        assert!(metrics.render().contains(line), "{}", metrics.render());
        metrics.forget("q", TaskType::Activity);
        assert!(!metrics.render().contains("slots_used{"), "{}", metrics.render());
    }

    #[test]
    fn build_info_names_the_version() {
        let version = Version { deployment: "ns/w".into(), build_id: "b1".into() };
        let text = Metrics::new(Some(&version)).unwrap().render();
        assert!(text.contains("build_id=\"b1\",deployment=\"ns/w\""), "{text}");
    }
}
