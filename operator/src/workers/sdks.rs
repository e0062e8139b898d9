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
    /// Tasks ended since the process began: those started, without those that run.
    Ended,
}

/// Where the kind of task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// In a label, in the words of its source.
    Label(&'static str),
    /// In the name of the metric.
    Named(TaskType),
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
    /// Whether a unit and `_count` follow the name: the number of entries of a histogram.
    histogram: bool,
    /// Whose it is.
    pub source: Source,
    /// What it says.
    pub meaning: Meaning,
    /// Of which kind of task.
    pub kind: Kind,
}

/// Label of the SDKs: `ActivityWorker`, `WorkflowWorker`, `NexusWorker`, and kinds that have no queue on the server.
const WORKER_TYPE: &str = "worker_type";

const METRICS: &[Metric] = &[
    runtime(contract::METRIC_SLOTS_USED, Meaning::Used),
    runtime(contract::METRIC_SLOTS_AVAILABLE, Meaning::Available),
    runtime(contract::METRIC_TASKS_STARTED, Meaning::Started),
    // Go, Java, and the SDKs on the shared Rust core: Python, TypeScript, .NET, Ruby, Rust.
    sdk_slots("temporal_worker_task_slots_used", Meaning::Used),
    sdk_slots("temporal_worker_task_slots_available", Meaning::Available),
    // Observed when a task starts.
    sdk("temporal_activity_schedule_to_start_latency", Meaning::Started, TaskType::Activity),
    sdk("temporal_workflow_task_schedule_to_start_latency", Meaning::Started, TaskType::Workflow),
    sdk("temporal_nexus_task_schedule_to_start_latency", Meaning::Started, TaskType::Nexus),
    // Observed when it ends.
    sdk("temporal_activity_execution_latency", Meaning::Ended, TaskType::Activity),
    sdk("temporal_workflow_task_execution_latency", Meaning::Ended, TaskType::Workflow),
    sdk("temporal_nexus_task_execution_latency", Meaning::Ended, TaskType::Nexus),
];

const fn runtime(name: &'static str, meaning: Meaning) -> Metric {
    Metric { name, histogram: false, source: Source::Runtime, meaning, kind: Kind::Label(contract::LABEL_TASK_TYPE) }
}

const fn sdk_slots(name: &'static str, meaning: Meaning) -> Metric {
    Metric { name, histogram: false, source: Source::Sdk, meaning, kind: Kind::Label(WORKER_TYPE) }
}

const fn sdk(name: &'static str, meaning: Meaning, task_type: TaskType) -> Metric {
    Metric { name, histogram: true, source: Source::Sdk, meaning, kind: Kind::Named(task_type) }
}

/// The metric that a series belongs to.
pub(super) fn find(series: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| match series.strip_prefix(metric.name) {
        Some(rest) if metric.histogram => matches!(rest, "_count" | "_seconds_count" | "_milliseconds_count"),
        Some(rest) => rest.is_empty(),
        None => false,
    })
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
