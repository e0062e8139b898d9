//! How the metrics of each kind of Worker are named. A new SDK is a new line here.

use operator_core::contract;
use operator_core::observed::TaskType;

/// What a number says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Slots that run a task.
    Used,
    /// Slots that are free.
    Available,
    /// Tasks started since the process began.
    Started,
    /// A histogram of schedule-to-start, observed when a task starts.
    Waited,
    /// A histogram of execution latency, observed when a task ends.
    Ended,
    /// Workflows in the cache.
    Cached,
    /// CPU time since the process began, in seconds.
    CpuSeconds,
    /// CPUs that may be used.
    CpuLimit,
    /// When the process began, in seconds of the Unix clock.
    ProcessStart,
}

/// Where the kind of task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// In a label, in the words of its source.
    Label(&'static str),
    /// In the name of the metric.
    Named(TaskType),
    /// Nowhere: the number is the whole pod's.
    Pod,
}

/// Whose metric it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The worker runtime, by the contract.
    Runtime,
    /// A Temporal SDK.
    Sdk,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub(super) struct Metric {
    name: &'static str,
    /// Whose it is.
    pub source: Source,
    /// What it says.
    pub meaning: Meaning,
    /// Of which kind of task.
    pub kind: Kind,
}

/// The part of a metric that a series holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The number itself.
    Value,
    /// Observations of a histogram.
    Count,
    /// Those up to an edge.
    Bucket(Unit),
}

/// Unit of a histogram's edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
    /// The SDKs on the Rust core name none unless they are told to.
    Untold,
}

/// Label of the SDKs: `ActivityWorker`, `WorkflowWorker`, `NexusWorker`, and kinds that have no queue on the server.
const WORKER_TYPE: &str = "worker_type";

const METRICS: &[Metric] = &[
    runtime(contract::METRIC_SLOTS_USED, Meaning::Used),
    runtime(contract::METRIC_SLOTS_AVAILABLE, Meaning::Available),
    runtime(contract::METRIC_TASKS_STARTED, Meaning::Started),
    runtime(contract::METRIC_SCHEDULE_TO_START, Meaning::Waited),
    runtime(contract::METRIC_EXECUTION, Meaning::Ended),
    pod(contract::METRIC_CACHED_WORKFLOWS, Source::Runtime, Meaning::Cached),
    pod(contract::METRIC_CPU_SECONDS, Source::Runtime, Meaning::CpuSeconds),
    pod(contract::METRIC_CPU_LIMIT, Source::Runtime, Meaning::CpuLimit),
    // Go, Java, and the SDKs on the shared Rust core: Python, TypeScript, .NET, Ruby, Rust.
    sdk_slots("temporal_worker_task_slots_used", Meaning::Used),
    sdk_slots("temporal_worker_task_slots_available", Meaning::Available),
    sdk("temporal_activity_schedule_to_start_latency", Meaning::Waited, TaskType::Activity),
    sdk("temporal_workflow_task_schedule_to_start_latency", Meaning::Waited, TaskType::Workflow),
    sdk("temporal_nexus_task_schedule_to_start_latency", Meaning::Waited, TaskType::Nexus),
    sdk("temporal_activity_execution_latency", Meaning::Ended, TaskType::Activity),
    sdk("temporal_workflow_task_execution_latency", Meaning::Ended, TaskType::Workflow),
    sdk("temporal_nexus_task_execution_latency", Meaning::Ended, TaskType::Nexus),
    pod("temporal_sticky_cache_size", Source::Sdk, Meaning::Cached),
    // Of the Prometheus clients of every language.
    pod("process_cpu_seconds_total", Source::Sdk, Meaning::CpuSeconds),
    pod("process_start_time_seconds", Source::Sdk, Meaning::ProcessStart),
];

const fn runtime(name: &'static str, meaning: Meaning) -> Metric {
    Metric { name, source: Source::Runtime, meaning, kind: Kind::Label(contract::LABEL_TASK_TYPE) }
}

const fn sdk_slots(name: &'static str, meaning: Meaning) -> Metric {
    Metric { name, source: Source::Sdk, meaning, kind: Kind::Label(WORKER_TYPE) }
}

const fn sdk(name: &'static str, meaning: Meaning, task_type: TaskType) -> Metric {
    Metric { name, source: Source::Sdk, meaning, kind: Kind::Named(task_type) }
}

const fn pod(name: &'static str, source: Source, meaning: Meaning) -> Metric {
    Metric { name, source, meaning, kind: Kind::Pod }
}

impl Metric {
    /// The part of this metric that a series of this name holds, if it does.
    fn part(&self, series: &str) -> Option<Part> {
        let rest = series.strip_prefix(self.name)?;
        if !matches!(self.meaning, Meaning::Waited | Meaning::Ended) {
            return rest.is_empty().then_some(Part::Value);
        }
        match rest {
            "_count" | "_seconds_count" | "_milliseconds_count" => Some(Part::Count),
            "_bucket" if self.source == Source::Runtime => Some(Part::Bucket(Unit::Seconds)),
            "_seconds_bucket" => Some(Part::Bucket(Unit::Seconds)),
            "_milliseconds_bucket" => Some(Part::Bucket(Unit::Milliseconds)),
            "_bucket" => Some(Part::Bucket(Unit::Untold)),
            _ => None,
        }
    }
}

/// The metric that a series belongs to, and its part.
pub(super) fn find(series: &str) -> Option<(&'static Metric, Part)> {
    METRICS.iter().find_map(|metric| Some((metric, metric.part(series)?)))
}

/// The kind of task by the word that a source uses for it.
pub(super) fn task_type(word: &str) -> Option<TaskType> {
    match word {
        "activity" | "ActivityWorker" => Some(TaskType::Activity),
        "workflow" | "WorkflowWorker" => Some(TaskType::Workflow),
        "nexus" | "NexusWorker" => Some(TaskType::Nexus),
        _ => None,
    }
}
