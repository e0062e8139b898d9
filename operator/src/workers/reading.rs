//! What one page tells of a pod.

use std::collections::BTreeMap;
use std::time::Duration;

use operator_core::observed::{Cordon, LaneKey, Waits};

use super::sdks::Unit;

/// Most edges of a histogram that are kept; it is cumulative, so that those left out cost resolution alone.
const MOST_EDGES: usize = 64;

/// The numbers of a page, summed over its series.
#[derive(Default)]
pub(super) struct Numbers {
    pub lanes: BTreeMap<LaneKey, LaneNumbers>,
    pub cached: Option<f64>,
    pub cpu_seconds: Option<f64>,
    pub cpu_limit: Option<f64>,
    pub process_start: Option<f64>,
}

/// The numbers of one lane.
#[derive(Default)]
pub(super) struct LaneNumbers {
    pub used: Option<f64>,
    pub available: Option<f64>,
    pub started: Option<f64>,
    pub waited: Option<f64>,
    pub ended: Option<f64>,
    pub waits: Option<Histogram>,
    pub runs: Option<Histogram>,
}

/// A cumulative histogram, in the unit of its source.
pub(super) struct Histogram {
    unit: Unit,
    /// By the bits of the edge: those of positive numbers have their order.
    counts: BTreeMap<u64, f64>,
}

/// What a page tells.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reading {
    /// By lane; those that tell of counters alone are left out.
    pub lanes: BTreeMap<LaneKey, LaneReading>,
    /// Its own word on whether it takes tasks.
    pub cordon: Option<Cordon>,
    /// Workflows in the cache.
    pub cached: Option<u64>,
    /// CPU time since the process began.
    pub cpu_seconds: Option<f64>,
    /// CPUs that may be used.
    pub cpu_limit: Option<f64>,
    /// When the process began.
    pub process_start: Option<f64>,
}

/// What it tells of one lane. Counters begin with the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LaneReading {
    pub used: u64,
    pub available: u64,
    pub unlimited: bool,
    pub counters: Counters,
    pub waits: Waits,
    pub runs: Waits,
}

/// Counters of one lane, as far as they are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub started: Option<u64>,
    pub waited: Option<u64>,
    pub ended: Option<u64>,
}

impl LaneReading {
    /// Tasks started since the process began. That more ended than were measured when they started shows that
    /// the SDK starts some without measuring their wait: then those that ended or run are the count.
    pub(super) fn started(&self) -> u64 {
        let Counters { started, waited, ended } = self.counters;
        match (started, waited, ended) {
            (Some(started), ..) => started,
            (None, Some(waited), Some(ended)) if ended <= waited => waited,
            (None, Some(waited), None) => waited,
            (None, waited, Some(ended)) => ended.saturating_add(self.used).max(waited.unwrap_or(0)),
            (None, None, None) => 0,
        }
    }
}

impl Numbers {
    pub(super) fn reading(self) -> Reading {
        let lanes = self.lanes.into_iter().filter_map(|(lane, numbers)| Some((lane, numbers.reading()?)));
        Reading {
            lanes: lanes.collect(),
            cordon: None,
            cached: self.cached.map(whole),
            cpu_seconds: self.cpu_seconds,
            cpu_limit: self.cpu_limit.filter(|limit| *limit > 0.0),
            process_start: self.process_start,
        }
    }
}

impl LaneNumbers {
    /// Slots and counters of a lane; none for one that tells of counters alone.
    fn reading(self) -> Option<LaneReading> {
        if self.used.is_none() && self.available.is_none() {
            return None;
        }
        Some(LaneReading {
            used: self.used.map_or(0, whole),
            available: self.available.map_or(0, whole),
            // A supplier that goes by memory and CPU has no number: core exports none, or -1.
            unlimited: self.available.is_none_or(|available| available < 0.0),
            counters: Counters {
                started: self.started.map(whole),
                waited: self.waited.map(whole),
                ended: self.ended.map(whole),
            },
            waits: self.waits.map(Histogram::times).unwrap_or_default(),
            runs: self.runs.map(Histogram::times).unwrap_or_default(),
        })
    }
}

impl Histogram {
    pub(super) fn new(unit: Unit) -> Self {
        Self { unit, counts: BTreeMap::new() }
    }

    /// Adds the count of a bucket to those of other series with this edge.
    pub(super) fn add(&mut self, edge: f64, count: f64) {
        let room = self.counts.len() < MOST_EDGES || edge == f64::INFINITY;
        if edge.is_nan() || edge < 0.0 || !(room || self.counts.contains_key(&edge.to_bits())) {
            return;
        }
        *self.counts.entry(edge.to_bits()).or_default() += count;
    }

    fn times(self) -> Waits {
        let smallest = self.counts.keys().next().map_or(0.0, |bits| f64::from_bits(*bits));
        let unit = match self.unit {
            Unit::Milliseconds => 1e-3,
            // Nobody counts parts of milliseconds here, and everybody parts of seconds.
            Unit::Untold if smallest >= 1.0 => 1e-3,
            Unit::Seconds | Unit::Untold => 1.0,
        };
        let edge = |bits: u64| Duration::try_from_secs_f64(f64::from_bits(bits) * unit).unwrap_or(Duration::MAX);
        let mut times: Vec<(Duration, u64)> = Vec::with_capacity(self.counts.len());
        for (bits, count) in self.counts {
            // Series whose edges differ add up to something that is not cumulative.
            let least = times.last().map_or(0, |(_, count)| *count);
            times.push((edge(bits), whole(count).max(least)));
        }
        Waits(times)
    }
}

/// A count; less than nothing is nothing.
fn whole(number: f64) -> u64 {
    // The conversion saturates, and makes zero of what is no number.
    number as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(unit: Unit, buckets: &[(f64, f64)]) -> Vec<(Duration, u64)> {
        let mut histogram = Histogram::new(unit);
        buckets.iter().for_each(|(edge, count)| histogram.add(*edge, *count));
        histogram.times().0
    }

    #[test]
    fn edges_come_in_seconds_whatever_their_unit() {
        let told = [(Duration::from_millis(100), 1), (Duration::from_secs(5), 3), (Duration::MAX, 4)];
        assert_eq!(waits(Unit::Seconds, &[(5.0, 3.0), (0.1, 1.0), (f64::INFINITY, 4.0)]), told);
        assert_eq!(waits(Unit::Untold, &[(5.0, 3.0), (0.1, 1.0), (f64::INFINITY, 4.0)]), told);
        assert_eq!(waits(Unit::Milliseconds, &[(100.0, 1.0), (5000.0, 3.0), (f64::INFINITY, 4.0)]), told);
        assert_eq!(waits(Unit::Untold, &[(100.0, 1.0), (5000.0, 3.0), (f64::INFINITY, 4.0)]), told);
    }

    #[test]
    fn a_histogram_stays_small_and_cumulative() {
        let many: Vec<_> = (1..1000).map(|edge| (f64::from(edge), f64::from(1000 - edge))).collect();
        let mut histogram = waits(Unit::Seconds, &many);
        assert_eq!(histogram.len(), MOST_EDGES);
        histogram.dedup_by_key(|(_, count)| *count);
        assert_eq!(histogram.len(), 1, "counts went back: {histogram:?}");
        assert_eq!(waits(Unit::Seconds, &[(f64::NAN, 1.0), (-1.0, 1.0)]), []);
    }

    #[test]
    fn tasks_that_were_never_measured_at_their_start_count_once_they_show() {
        let lane = |waited, ended, used| LaneReading {
            used,
            counters: Counters { started: None, waited, ended },
            ..LaneReading::default()
        };
        assert_eq!(lane(Some(10), Some(8), 4).started(), 10, "the slot of a task that ended is freed a moment later");
        assert_eq!(lane(Some(10), Some(12), 3).started(), 15);
        assert_eq!(lane(None, Some(5), 2).started(), 7);
        assert_eq!(lane(Some(3), None, 2).started(), 3);
    }
}
