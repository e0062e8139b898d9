//! Reads a page in the Prometheus text format piece by piece, so that its size costs no memory.

use std::collections::BTreeMap;

use operator_core::contract::LABEL_TASK_QUEUE;
use operator_core::observed::{LaneKey, PodLoad, SlotUse};

use super::sdks::{self, Kind, Meaning, Metric, Source};

/// Longest line that is read; longer ones are none of ours.
const LONGEST_LINE: usize = 64 * 1024;

/// A page that is being read.
#[derive(Default)]
pub(super) struct Page {
    line: Vec<u8>,
    skipping: bool,
    runtime: BTreeMap<LaneKey, Numbers>,
    sdk: BTreeMap<LaneKey, Numbers>,
}

#[derive(Clone, Copy, Default)]
struct Numbers {
    used: Option<f64>,
    available: Option<f64>,
    started: Option<f64>,
    ended: Option<f64>,
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

    /// The load that the page tells of; none when it holds no slots at all, which is not the same as no load.
    pub(super) fn finish(mut self) -> Option<PodLoad> {
        self.end_line();
        // The runtime exports its SDK's metrics as well; its own are the contract.
        let told = if self.runtime.is_empty() { self.sdk } else { self.runtime };
        let load = PodLoad::of(told.into_iter().filter_map(|(lane, numbers)| Some((lane, numbers.slot_use()?))));
        (!load.lanes.is_empty()).then_some(load)
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
        let Some(metric) = sdks::find(name) else { return };
        let Some((lane, value)) = sample(metric, rest) else { return };
        let lanes = match metric.source {
            Source::Runtime => &mut self.runtime,
            Source::Sdk => &mut self.sdk,
        };
        let numbers = lanes.entry(lane).or_default();
        let number = match metric.meaning {
            Meaning::Used => &mut numbers.used,
            Meaning::Available => &mut numbers.available,
            Meaning::Started => &mut numbers.started,
            Meaning::Ended => &mut numbers.ended,
        };
        // A lane has a series for each activity type, and so on.
        *number = Some(number.unwrap_or(0.0) + value);
    }
}

impl Numbers {
    /// Slots of a lane; none for one that tells of counters alone.
    fn slot_use(self) -> Option<SlotUse> {
        if self.used.is_none() && self.available.is_none() {
            return None;
        }
        let used = whole(self.used);
        let started = match self.started {
            Some(started) => whole(Some(started)),
            None => whole(self.ended).saturating_add(self.ended.map_or(0, |_| used)),
        };
        Some(SlotUse { used, available: whole(self.available), started, ..SlotUse::default() })
    }
}

/// A count; less than nothing (a supplier without a limit says -1) is nothing.
fn whole(number: Option<f64>) -> u64 {
    // The conversion saturates, and makes zero of what is no number.
    number.map_or(0, |number| number as u64)
}

/// Lane and value of a sample, from what follows its name.
fn sample(metric: &Metric, rest: &str) -> Option<(LaneKey, f64)> {
    let mut labels = Labels { rest: rest.strip_prefix('{')? };
    let (mut task_queue, mut task_type) = (None, None);
    if let Kind::Named(named) = metric.kind {
        task_type = Some(named);
    }
    for (name, value) in &mut labels {
        match (name, metric.kind) {
            (LABEL_TASK_QUEUE, _) => task_queue = Some(unescape(value)),
            (name, Kind::Label(label)) if name == label => task_type = sdks::task_type(value),
            _ => {}
        }
    }
    let value: f64 = labels.rest.strip_prefix('}')?.split_whitespace().next()?.parse().ok()?;
    let lane = LaneKey { task_queue: task_queue?, task_type: task_type? };
    value.is_finite().then_some((lane, value))
}

/// The labels of a sample; what is left of the text begins with `}` when they were well formed.
struct Labels<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Labels<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        self.rest = self.rest.trim_start_matches([',', ' ']);
        if self.rest.starts_with('}') {
            return None;
        }
        let (name, rest) = self.rest.split_once('=')?;
        let rest = rest.trim_start().strip_prefix('"')?;
        let end = closing_quote(rest)?;
        self.rest = &rest[end + 1..];
        Some((name.trim(), &rest[..end]))
    }
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at),
            _ => {}
        }
    }
    None
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('n') => plain.push('\n'),
                Some(other) => plain.push(other),
                None => {}
            },
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use operator_core::observed::TaskType;

    fn read(text: &str) -> Option<PodLoad> {
        let mut page = Page::default();
        page.push(text.as_bytes());
        page.finish()
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
temporal_worker_task_slots_used{task_queue="thumbs",worker_type="ActivityWorker"} 99
"#;

    const SDK: &str = r#"
temporal_worker_task_slots_used{namespace="default",task_queue="q \"1\"",worker_type="ActivityWorker"} 2 1395066363000
temporal_worker_task_slots_available{task_queue="q \"1\"",worker_type="ActivityWorker"} 8
temporal_worker_task_slots_used{task_queue="q \"1\"",worker_type="WorkflowWorker"} 0
temporal_worker_task_slots_available{task_queue="q \"1\"",worker_type="WorkflowWorker"} -1
temporal_worker_task_slots_used{task_queue="q \"1\"",worker_type="LocalActivityWorker"} 5
temporal_activity_schedule_to_start_latency_seconds_bucket{activity_type="A",task_queue="q \"1\"",le="1"} 4
temporal_activity_schedule_to_start_latency_seconds_count{activity_type="A",task_queue="q \"1\""} 4
temporal_activity_schedule_to_start_latency_seconds_count{activity_type="B",task_queue="q \"1\""} 6
temporal_activity_execution_latency_seconds_count{activity_type="A",task_queue="q \"1\""} 8
temporal_workflow_task_execution_latency_milliseconds_count{task_queue="q \"1\"",workflow_type="W"} 5
temporal_activity_schedule_to_start_latency_count{task_queue="other"} 1
"#;

    #[test]
    fn the_runtimes_own_metrics_are_what_counts() {
        let load = read(RUNTIME).unwrap();
        let expected = SlotUse { used: 3, available: 7, started: 41, ..SlotUse::default() };
        assert_eq!(load, PodLoad::of([(lane("thumbs", TaskType::Activity), expected)]));
    }

    #[test]
    fn the_metrics_of_an_sdk_are_summed_by_lane() {
        let load = read(SDK).unwrap();
        let activities = SlotUse { used: 2, available: 8, started: 10, ..SlotUse::default() };
        let workflows = SlotUse { used: 0, available: 0, started: 5, ..SlotUse::default() };
        let expected =
            [(lane("q \"1\"", TaskType::Activity), activities), (lane("q \"1\"", TaskType::Workflow), workflows)];
        assert_eq!(load, PodLoad::of(expected));
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
