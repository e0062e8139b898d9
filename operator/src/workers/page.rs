//! Reads a page in the Prometheus text format piece by piece, so that its size costs no memory.

use std::borrow::Cow;

use operator_core::contract::LABEL_TASK_QUEUE;
use operator_core::observed::{LaneKey, TaskType};

use super::labels::{Labels, unescape};
use super::reading::{Histogram, LaneNumbers, Numbers, Reading};
use super::sdks::{self, Kind, Meaning, Metric, Part, Source};
use super::word::Word;

/// Longest line that is read; longer ones are none of ours.
const LONGEST_LINE: usize = 64 * 1024;

/// Label of the Go and Java SDKs.
const ACTIVITY_TYPE: &str = "activity_type";

/// A page that is being read.
#[derive(Default)]
pub(super) struct Page {
    line: Vec<u8>,
    skipping: bool,
    runtime: Numbers,
    sdk: Numbers,
    word: Word,
}

impl Page {
    /// Takes the next piece of the page.
    pub(super) fn push(&mut self, mut piece: &[u8]) {
        while let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
            self.extend(&piece[..end]);
            self.end_line();
            piece = &piece[end + 1..];
        }
        self.extend(piece);
    }

    /// What the page tells of; none when it holds no slots at all, which is not the same as no load.
    pub(super) fn finish(mut self) -> Option<Reading> {
        self.end_line();
        // The runtime exports its own metrics, which are the contract; a program on it may export its SDK's as well.
        let told = if self.runtime.lanes.is_empty() { self.sdk } else { self.runtime };
        let reading = Reading { cordon: self.word.cordon(), ..told.reading() };
        (!reading.lanes.is_empty()).then_some(reading)
    }

    fn extend(&mut self, bytes: &[u8]) {
        if self.line.len() + bytes.len() > LONGEST_LINE {
            self.skipping = true;
            self.line.clear();
        }
        if !self.skipping {
            self.line.extend_from_slice(bytes);
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if !std::mem::take(&mut self.skipping)
            && let Ok(text) = std::str::from_utf8(&line)
        {
            self.read(text);
        }
        self.line = line;
        self.line.clear();
    }

    fn read(&mut self, line: &str) {
        let name_end = line.find(['{', ' ', '\t']).unwrap_or(line.len());
        let (name, rest) = line.split_at(name_end);
        if self.word.read(name, rest) {
            return;
        }
        let Some((metric, part)) = sdks::find(name) else { return };
        let Some(sample) = Sample::read(metric, rest) else { return };
        let numbers = match metric.source {
            Source::Runtime => &mut self.runtime,
            Source::Sdk => &mut self.sdk,
        };
        numbers.take(metric, part, &sample);
    }
}

/// A line of the page.
struct Sample<'a> {
    task_queue: Option<Cow<'a, str>>,
    task_type: Option<TaskType>,
    /// Whether it is in another series too.
    is_repeated: bool,
    /// Upper edge of a bucket.
    edge: Option<f64>,
    value: f64,
}

impl<'a> Sample<'a> {
    /// Reads what follows the name.
    fn read(metric: &Metric, rest: &'a str) -> Option<Self> {
        let mut sample = Self { task_queue: None, task_type: None, is_repeated: false, edge: None, value: 0.0 };
        if let Kind::Named(named) = metric.kind {
            sample.task_type = Some(named);
        }
        let value = match rest.strip_prefix('{') {
            Some(rest) => sample.read_labels(metric, rest)?,
            None => rest,
        };
        sample.value = value.split_whitespace().next()?.parse().ok()?;
        (sample.value.is_finite() && !sample.is_repeated).then_some(sample)
    }

    fn read_labels(&mut self, metric: &Metric, rest: &'a str) -> Option<&'a str> {
        let mut labels = Labels { rest };
        for (name, value) in &mut labels {
            match (name, metric.kind) {
                (LABEL_TASK_QUEUE, _) => {
                    // The Java SDK's own name for tasks of Workflows in the cache.
                    self.task_queue = Some(unescape(value.strip_suffix(":sticky").unwrap_or(value)));
                }
                // Beside the series of its type, the Java SDK counts each polled activity in one without a type.
                (ACTIVITY_TYPE, Kind::Named(TaskType::Activity)) if metric.meaning == Meaning::Waited => {
                    self.is_repeated = value == "none";
                }
                ("le", _) => self.edge = value.parse().ok(),
                (name, Kind::Label(label)) if name == label => self.task_type = sdks::task_type(value),
                _ => {}
            }
        }
        labels.rest.strip_prefix('}')
    }
}

impl Numbers {
    fn take(&mut self, metric: &Metric, part: Part, sample: &Sample<'_>) {
        let number = match (metric.meaning, metric.kind) {
            (Meaning::Cached, _) if metric.source == Source::Sdk => {
                // The Go SDK has a series for each Workflow type, with the size of the whole cache.
                self.cached = Some(sample.value.max(self.cached.unwrap_or(0.0)));
                return;
            }
            (Meaning::Cached, _) => &mut self.cached,
            (Meaning::CpuSeconds, _) => &mut self.cpu_seconds,
            (Meaning::CpuLimit, _) => &mut self.cpu_limit,
            (Meaning::ProcessStart, _) => &mut self.process_start,
            (meaning, _) => {
                let (Some(queue), Some(task_type)) = (&sample.task_queue, sample.task_type) else { return };
                let key = LaneKey { task_queue: queue.clone().into_owned(), task_type };
                let Some(number) = self.lanes.entry(key).or_default().number(meaning, part, sample) else { return };
                number
            }
        };
        // A lane has a series for each activity type, and so on.
        *number = Some(number.unwrap_or(0.0) + sample.value);
    }
}

impl LaneNumbers {
    /// The number that a sample adds to; none for a bucket, which is added here.
    fn number(&mut self, meaning: Meaning, part: Part, sample: &Sample<'_>) -> Option<&mut Option<f64>> {
        Some(match (meaning, part) {
            (Meaning::Waited, Part::Bucket(unit)) => {
                self.waits.get_or_insert_with(|| Histogram::new(unit)).add(sample.edge?, sample.value);
                return None;
            }
            (Meaning::Ended, Part::Bucket(unit)) => {
                self.runs.get_or_insert_with(|| Histogram::new(unit)).add(sample.edge?, sample.value);
                return None;
            }
            (Meaning::Used, _) => &mut self.used,
            (Meaning::Available, _) => &mut self.available,
            (Meaning::Started, _) => &mut self.started,
            (Meaning::Waited, Part::Count) => &mut self.waited,
            (Meaning::Ended, Part::Count) => &mut self.ended,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workers::reading::{Counters, LaneReading};
    use operator_core::observed::Waits;
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn read(text: &str) -> Option<Reading> {
        let mut page = Page::default();
        page.push(text.as_bytes());
        page.finish()
    }

    fn waits(counts: [u64; 3]) -> Waits {
        let edges = [Duration::from_millis(100), Duration::from_secs(1), Duration::MAX];
        Waits(edges.into_iter().zip(counts).collect())
    }

    fn lane(task_queue: &str, task_type: TaskType) -> LaneKey {
        LaneKey { task_queue: task_queue.into(), task_type }
    }

    const RUNTIME: &str = r#"
# HELP temporal_worker_runtime_slots_used Slots.
# TYPE temporal_worker_runtime_slots_used gauge
temporal_worker_runtime_slots_used{task_queue="thumbs",task_type="activity"} 3
temporal_worker_runtime_slots_available{task_queue="thumbs",task_type="activity"} 7
temporal_worker_runtime_tasks_started_total{task_queue="thumbs",task_type="activity"} 41
temporal_worker_runtime_schedule_to_start_seconds_bucket{task_queue="thumbs",task_type="activity",le="0.1"} 30
temporal_worker_runtime_schedule_to_start_seconds_bucket{task_queue="thumbs",task_type="activity",le="1"} 38
temporal_worker_runtime_schedule_to_start_seconds_bucket{task_queue="thumbs",task_type="activity",le="+Inf"} 40
temporal_worker_runtime_schedule_to_start_seconds_count{task_queue="thumbs",task_type="activity"} 40
temporal_worker_runtime_execution_seconds_bucket{task_queue="thumbs",task_type="activity",le="+Inf"} 38
temporal_worker_runtime_execution_seconds_count{task_queue="thumbs",task_type="activity"} 38
temporal_worker_runtime_cpu_seconds_total 12.5
temporal_worker_runtime_cpu_limit 2
temporal_worker_runtime_cached_workflows{task_queue="w1"} 3
temporal_worker_runtime_cached_workflows{task_queue="w2"} 4
temporal_worker_task_slots_used{task_queue="thumbs",worker_type="ActivityWorker"} 99
process_cpu_seconds_total 99
"#;

    const SDK: &str = r#"
temporal_worker_task_slots_used{namespace="default",task_queue="q \"1\"",worker_type="ActivityWorker"} 2 1395066363000
temporal_worker_task_slots_available{task_queue="q \"1\"",worker_type="ActivityWorker"} 8
temporal_worker_task_slots_used{task_queue="q \"1\"",worker_type="WorkflowWorker"} 0
temporal_worker_task_slots_available{task_queue="q \"1\"",worker_type="WorkflowWorker"} -1
temporal_worker_task_slots_used{task_queue="q \"1\"",worker_type="LocalActivityWorker"} 5
temporal_activity_schedule_to_start_latency_seconds_bucket{activity_type="A",task_queue="q \"1\"",le="0.1"} 1
temporal_activity_schedule_to_start_latency_seconds_bucket{activity_type="A",task_queue="q \"1\"",le="1"} 3
temporal_activity_schedule_to_start_latency_seconds_bucket{activity_type="A",task_queue="q \"1\"",le="+Inf"} 4
temporal_activity_schedule_to_start_latency_seconds_bucket{activity_type="B",task_queue="q \"1\"",le="0.1"} 0
temporal_activity_schedule_to_start_latency_seconds_bucket{activity_type="B",task_queue="q \"1\"",le="1"} 6
temporal_activity_schedule_to_start_latency_seconds_bucket{activity_type="B",task_queue="q \"1\"",le="+Inf"} 6
temporal_activity_schedule_to_start_latency_seconds_count{activity_type="A",task_queue="q \"1\""} 4
temporal_activity_schedule_to_start_latency_seconds_count{activity_type="B",task_queue="q \"1\""} 6
temporal_activity_execution_latency_seconds_bucket{activity_type="A",task_queue="q \"1\"",le="5"} 7
temporal_activity_execution_latency_seconds_bucket{activity_type="A",task_queue="q \"1\"",le="+Inf"} 8
temporal_activity_execution_latency_seconds_count{activity_type="A",task_queue="q \"1\""} 8
temporal_workflow_task_execution_latency_milliseconds_count{task_queue="q \"1\"",workflow_type="W"} 5
temporal_activity_schedule_to_start_latency_count{task_queue="other"} 1
temporal_sticky_cache_size{task_queue="q \"1\""} 6
process_cpu_seconds_total 3.25
process_start_time_seconds 1.7e+09
"#;

    #[test]
    fn the_runtimes_own_metrics_are_what_counts() {
        let reading = read(RUNTIME).unwrap();
        let lane_reading = LaneReading {
            used: 3,
            available: 7,
            counters: Counters { started: Some(41), waited: Some(40), ended: Some(38) },
            waits: waits([30, 38, 40]),
            runs: Waits(vec![(Duration::MAX, 38)]),
            unlimited: false,
        };
        assert_eq!(reading.lanes, BTreeMap::from([(lane("thumbs", TaskType::Activity), lane_reading)]));
        assert_eq!((reading.cached, reading.cpu_seconds, reading.cpu_limit), (Some(7), Some(12.5), Some(2.0)));
    }

    #[test]
    fn the_metrics_of_an_sdk_are_summed_by_lane() {
        let reading = read(SDK).unwrap();
        let activities = LaneReading {
            used: 2,
            available: 8,
            counters: Counters { started: None, waited: Some(10), ended: Some(8) },
            waits: waits([1, 9, 10]),
            runs: Waits(vec![(Duration::from_secs(5), 7), (Duration::MAX, 8)]),
            unlimited: false,
        };
        let workflows = LaneReading {
            unlimited: true,
            counters: Counters { ended: Some(5), ..Counters::default() },
            ..LaneReading::default()
        };
        let expected =
            [(lane("q \"1\"", TaskType::Activity), activities), (lane("q \"1\"", TaskType::Workflow), workflows)];
        assert_eq!(reading.lanes, BTreeMap::from(expected));
        assert_eq!((reading.cached, reading.cpu_seconds, reading.process_start), (Some(6), Some(3.25), Some(1.7e9)));
    }

    #[test]
    fn what_java_counts_twice_counts_once_and_its_sticky_tasks_are_of_the_task_queue() {
        let reading = read(
            "temporal_worker_task_slots_used{task_queue=\"j\",worker_type=\"ActivityWorker\"} 0\n\
             temporal_worker_task_slots_used{task_queue=\"j\",worker_type=\"WorkflowWorker\"} 0\n\
             temporal_activity_schedule_to_start_latency_seconds_count{activity_type=\"Work\",task_queue=\"j\"} 8\n\
             temporal_activity_schedule_to_start_latency_seconds_count{activity_type=\"none\",task_queue=\"j\"} 2\n\
             temporal_workflow_task_schedule_to_start_latency_seconds_count{activity_type=\"none\",task_queue=\"j\"} 1\n\
             temporal_workflow_task_schedule_to_start_latency_seconds_count{task_queue=\"j:sticky\"} 3\n",
        );
        let waited = |task_type| reading.as_ref().unwrap().lanes[&lane("j", task_type)].counters.waited;
        assert_eq!((waited(TaskType::Activity), waited(TaskType::Workflow)), (Some(8), Some(4)));
        assert_eq!(reading.as_ref().unwrap().lanes.len(), 2);
    }

    #[test]
    fn the_cache_of_a_go_worker_is_not_counted_for_each_of_its_workflow_types() {
        let reading = read(
            "temporal_worker_task_slots_used{task_queue=\"g\",worker_type=\"ActivityWorker\"} 0\n\
             temporal_sticky_cache_size{workflow_type=\"A\"} 6\ntemporal_sticky_cache_size{workflow_type=\"B\"} 4\n",
        );
        assert_eq!(reading.unwrap().cached, Some(6));
    }

    #[test]
    fn a_page_without_slots_is_no_reading() {
        assert_eq!(read("go_goroutines 12\ntemporal_request_total{operation=\"x\"} 4\n"), None);
        assert_eq!(read(""), None);
    }

    #[test]
    fn pieces_may_end_anywhere() {
        for size in [1, 7, 100] {
            let mut page = Page::default();
            SDK.as_bytes().chunks(size).for_each(|piece| page.push(piece));
            assert_eq!(page.finish(), read(SDK), "pieces of {size}");
        }
    }

    #[test]
    fn nonsense_is_left_out() {
        let nonsense = format!(
            "temporal_worker_task_slots_used{{task_queue=\"a\nb {}\ntemporal_worker_task_slots_used{{}} 1\n\
             temporal_worker_task_slots_used{{task_queue=\"a\",worker_type=\"ActivityWorker\"}} NaN\n\
             temporal_worker_task_slots_used{{task_queue=\"a\",worker_type=\"ActivityWorker\"\n\
             temporal_worker_task_slots_used 7\n{RUNTIME}",
            "x".repeat(2 * LONGEST_LINE),
        );
        assert_eq!(read(&nonsense), read(RUNTIME));
    }
}
