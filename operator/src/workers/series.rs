//! What a pod tells over its life, in one piece.
//!
//! A process that starts anew in its pod counts from zero. Here its counts go on from where those of the process before
//! it ended, so that nobody after this sees a counter go back, or takes the tasks of a new process for arrivals twice:
//! what a pod is said to have started never falls while this operator runs. An operator that has just started knows no
//! earlier process; whoever keeps counts across that compares nothing with them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use operator_core::observed::{LaneKey, PodLoad, SlotUse, Waits};
use tokio::time::Instant;

use super::reading::{LaneReading, Reading};

/// Time over which CPU is averaged: shorter than the decision's own windows, longer than the throttling of a limit.
const CPU_WINDOW: Duration = Duration::from_secs(10);
/// Shortest time that tells anything of CPU.
const CPU_LEAST: Duration = Duration::from_millis(500);
/// Difference of two process starts, in seconds, that is no rounding.
const ANOTHER_START: f64 = 0.5;

/// The readings of one pod.
#[derive(Debug, Default)]
pub(super) struct Series {
    last: Option<Reading>,
    lanes: BTreeMap<LaneKey, LaneSeries>,
    /// CPU time of the process that runs, oldest first.
    cpu: VecDeque<(Instant, f64)>,
}

#[derive(Debug, Default)]
struct LaneSeries {
    /// What earlier processes started.
    before: u64,
    waits_before: Waits,
    runs_before: Waits,
    /// What all processes started.
    started: u64,
    waits: Waits,
    runs: Waits,
}

impl Series {
    /// Takes the next reading, asked for at `asked`. `cpu_limit` is what the pod may use, where the page does not say.
    pub(super) fn take(&mut self, reading: Reading, asked: Instant, cpu_limit: Option<f64>) -> PodLoad {
        if self.last.as_ref().is_some_and(|last| is_another_process(last, &reading)) {
            self.cpu.clear();
            self.lanes.values_mut().for_each(LaneSeries::new_process);
        }
        let lanes = reading.lanes.iter();
        let mut load = PodLoad::of(lanes.map(|(key, lane)| (key.clone(), self.lane(key).take(lane))));
        load.cached_workflows = reading.cached;
        load.cordon = reading.cordon;
        load.cpu = self.cpu_share(&reading, asked, cpu_limit);
        self.last = Some(reading);
        load
    }

    fn lane(&mut self, key: &LaneKey) -> &mut LaneSeries {
        self.lanes.entry(key.clone()).or_default()
    }

    fn cpu_share(&mut self, reading: &Reading, asked: Instant, cpu_limit: Option<f64>) -> Option<f64> {
        let (seconds, limit) = (reading.cpu_seconds?, reading.cpu_limit.or(cpu_limit)?);
        while self.cpu.get(1).is_some_and(|(at, _)| asked.saturating_duration_since(*at) >= CPU_WINDOW) {
            self.cpu.pop_front();
        }
        let (since, before) = *self.cpu.front().unwrap_or(&(asked, seconds));
        self.cpu.push_back((asked, seconds));
        let time = asked.saturating_duration_since(since);
        (time >= CPU_LEAST).then(|| ((seconds - before) / time.as_secs_f64() / limit).max(0.0))
    }
}

impl LaneSeries {
    fn new_process(&mut self) {
        self.before = self.started;
        self.waits_before = self.waits.clone();
        self.runs_before = self.runs.clone();
    }

    fn take(&mut self, lane: &LaneReading) -> SlotUse {
        self.started = self.started.max(self.before.saturating_add(lane.started()));
        self.waits = sum(&self.waits_before, &lane.waits);
        self.runs = sum(&self.runs_before, &lane.runs);
        SlotUse {
            used: lane.used,
            available: lane.available,
            unlimited: lane.unlimited,
            started: self.started,
            waits: self.waits.clone(),
            runs: self.runs.clone(),
        }
    }
}

/// Whether a reading is of another process than the last one.
fn is_another_process(last: &Reading, now: &Reading) -> bool {
    let moved = |before: Option<f64>, now: Option<f64>| {
        before.zip(now).is_some_and(|(before, now)| (now - before).abs() > ANOTHER_START)
    };
    let fell = |before: Option<f64>, now: Option<f64>| before.zip(now).is_some_and(|(before, now)| now < before);
    let lane_fell =
        |(key, now): (&LaneKey, &LaneReading)| last.lanes.get(key).is_some_and(|before| before.fell_to(now));
    moved(last.process_start, now.process_start)
        || fell(last.cpu_seconds, now.cpu_seconds)
        || now.lanes.iter().any(lane_fell)
}

impl LaneReading {
    fn fell_to(&self, now: &Self) -> bool {
        let fell = |before: Option<u64>, now: Option<u64>| before.zip(now).is_some_and(|(before, now)| now < before);
        let total = |waits: &Waits| waits.0.last().map(|(_, count)| *count);
        let (before, after) = (&self.counters, &now.counters);
        fell(before.started, after.started)
            || fell(before.waited, after.waited)
            || fell(before.ended, after.ended)
            || fell(total(&self.waits), total(&now.waits))
    }
}

/// The sum of two histograms; the second alone if their edges differ.
fn sum(before: &Waits, now: &Waits) -> Waits {
    if now.0.is_empty() {
        // Some SDKs export a histogram with its first observation.
        return before.clone();
    }
    let same = before.0.len() == now.0.len() && before.0.iter().zip(&now.0).all(|((a, _), (b, _))| a == b);
    let earlier = before.0.iter().map(|(_, count)| if same { *count } else { 0 }).chain(std::iter::repeat(0));
    Waits(now.0.iter().zip(earlier).map(|((edge, count), earlier)| (*edge, count.saturating_add(earlier))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workers::reading::Counters;
    use operator_core::observed::TaskType;

    fn key() -> LaneKey {
        LaneKey { task_queue: "q".into(), task_type: TaskType::Activity }
    }

    /// A page of a process that started so many tasks, of which one in two waited at most a second.
    fn reading(started: u64) -> Reading {
        let lane = LaneReading {
            used: 1,
            available: 9,
            counters: Counters { started: Some(started), ..Counters::default() },
            waits: Waits(vec![(Duration::from_secs(1), started / 2), (Duration::MAX, started)]),
            ..LaneReading::default()
        };
        let lanes = BTreeMap::from([(key(), lane)]);
        Reading { lanes, cordon: None, cached: None, cpu_seconds: None, cpu_limit: None, process_start: None }
    }

    fn told(series: &mut Series, reading: Reading) -> (u64, u64) {
        let load = series.take(reading, Instant::now(), None);
        let slots = load.lanes.get(&key()).expect("the lane");
        assert_eq!(slots.waits.0.last().map(|(_, count)| *count), Some(slots.started));
        (slots.started, slots.waits.0[0].1)
    }

    #[test]
    fn the_count_of_a_new_process_goes_on_from_the_one_before() {
        let mut series = Series::default();
        assert_eq!(told(&mut series, reading(40)), (40, 20));
        assert_eq!(told(&mut series, reading(0)), (40, 20), "nothing arrived by a restart");
        assert_eq!(told(&mut series, reading(6)), (46, 23));
        assert_eq!(told(&mut series, reading(2)), (48, 24));
        assert_eq!(told(&mut series, reading(50)), (96, 48), "a count that goes up is the same process");
    }

    #[test]
    fn a_new_process_that_already_counts_more_is_known_by_its_start_or_its_cpu_time() {
        let began = |at, started| Reading { process_start: Some(at), ..reading(started) };
        let mut series = Series::default();
        assert_eq!(told(&mut series, began(1000.0, 10)).0, 10);
        assert_eq!(told(&mut series, began(1000.1, 12)).0, 12);
        assert_eq!(told(&mut series, began(1060.0, 30)).0, 42);
        let worked = |cpu, started| Reading { cpu_seconds: Some(cpu), ..reading(started) };
        let mut series = Series::default();
        assert_eq!(told(&mut series, worked(9.0, 10)).0, 10);
        assert_eq!(told(&mut series, worked(0.5, 30)).0, 40);
    }

    #[test]
    fn a_lane_that_is_missing_after_a_restart_goes_on_when_it_is_back() {
        let mut series = Series::default();
        let began = |at, started| Reading { process_start: Some(at), ..reading(started) };
        assert_eq!(told(&mut series, began(1000.0, 10)).0, 10);
        let empty = Reading { lanes: BTreeMap::new(), ..began(1060.0, 0) };
        assert!(series.take(empty, Instant::now(), None).lanes.is_empty());
        assert_eq!(told(&mut series, began(1060.0, 3)).0, 13);
    }

    #[test]
    fn cpu_is_a_share_of_what_the_pod_may_use() {
        let (mut series, start) = (Series::default(), Instant::now());
        let mut at = |second: f64, cpu: f64, limit: Option<f64>| {
            let page = Reading { cpu_seconds: Some(cpu), cpu_limit: limit, ..reading(1) };
            series.take(page, start + Duration::from_secs_f64(second), Some(4.0)).cpu
        };
        assert_eq!(at(0.0, 10.0, None), None, "one reading tells nothing");
        assert_eq!(at(2.0, 12.0, None), Some(0.25));
        assert_eq!(at(4.0, 14.0, Some(2.0)), Some(0.5), "the page knows better");
        assert_eq!(at(5.0, 0.1, None), None, "a new process");
        assert_eq!(at(6.0, 0.1, None), Some(0.0));
        let share = at(30.0, 12.1, None).expect("a share");
        assert!((share - 12.0 / 24.0 / 4.0).abs() < 1e-9, "{share}");
    }
}
