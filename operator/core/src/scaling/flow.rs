//! Arrivals, by counting what must have arrived: every task that started, and every one that waits.
//!
//! The server's own rates miss eager and sticky tasks, and take 30 s to see a change. The pods' counters miss nothing.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::TICK;

/// Time that the counts go back.
const HISTORY: Duration = Duration::from_secs(310);
/// Times over which a rate is taken, in seconds.
const WINDOWS: [f64; 6] = [10.0, 20.0, 40.0, 60.0, 120.0, 300.0];
/// Standard deviations of a Poisson count that tell a change from chance.
const CHANGE: f64 = 3.0;
/// More arrivals within a tick than this and [`BATCH_RATIO`] times the second most are a batch, not a rate.
const BATCH: f64 = 8.0;
const BATCH_RATIO: f64 = 4.0;
/// Shorter lengths are counted with the one before.
const SHORTEST: f64 = 2.5;
/// Distance of two of the finer counts, and how far they go back: the oldest backlog that may raise, and the server's cache.
const FINE_STEP: Duration = Duration::from_millis(500);
const FINE_HISTORY: Duration = Duration::from_secs(36);
/// Decisions may come a little early.
const SLACK: Duration = Duration::from_millis(400);

/// Counts at one moment, since any fixed start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Sample {
    at: Duration,
    arrived: u64,
    ended: u64,
}

/// Arrivals, starts and ends of a lane's tasks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Flow {
    /// Tasks that arrived.
    arrived: u64,
    /// Tasks that started.
    pub started: u64,
    /// Tasks that ended.
    pub ended: u64,
    samples: VecDeque<Sample>,
    /// Starts at shorter distances, oldest first.
    fine: VecDeque<(Duration, u64)>,
}

/// A length of the history, newest first.
#[derive(Clone, Copy, Debug)]
struct Bin {
    length: f64,
    arrived: f64,
}

impl Bin {
    /// Arrivals within a tick at its rate.
    fn level(&self) -> f64 {
        self.arrived * TICK.as_secs_f64() / self.length
    }
}

impl Flow {
    /// Notes what started and ended since the last time.
    pub fn count(&mut self, started: u64, ended: u64) {
        self.started = self.started.saturating_add(started);
        self.ended = self.ended.saturating_add(ended);
    }

    /// Notes that `waiting` tasks waited at `taken`, or that none waits.
    pub fn see(&mut self, now: Duration, waiting: Option<(u64, Duration)>) {
        let with_those = waiting.map_or(0, |(tasks, taken)| self.started_until(taken).saturating_add(tasks));
        self.arrived = self.arrived.max(self.started).max(with_those);
        if self.fine.back().is_none_or(|(at, _)| now.saturating_sub(*at) >= FINE_STEP) {
            self.fine.push_back((now, self.started));
            drop_before(&mut self.fine, now.saturating_sub(FINE_HISTORY), |(at, _)| *at);
        }
        if self.samples.back().is_none_or(|last| now.saturating_sub(last.at) + SLACK >= TICK) {
            self.samples.push_back(Sample { at: now, arrived: self.arrived, ended: self.ended });
            drop_before(&mut self.samples, now.saturating_sub(HISTORY), |sample| sample.at);
        }
    }

    /// Starts until a moment; those that are known of the time before it.
    fn started_until(&self, moment: Duration) -> u64 {
        let known = self.fine.iter().rev().find(|(at, _)| *at <= moment).or(self.fine.front());
        known.map_or(self.started, |(_, started)| *started)
    }

    /// Starts since a moment, at most.
    pub fn started_since(&self, moment: Duration) -> u64 {
        self.started.saturating_sub(self.started_until(moment))
    }

    /// Ends a second over the last `time`; none while the history is shorter.
    pub fn ended_per_second(&self, now: Duration, time: Duration) -> Option<f64> {
        let first = self.samples.iter().rev().find(|sample| now.saturating_sub(sample.at) >= time)?;
        let length = now.saturating_sub(first.at).as_secs_f64();
        Some(real(self.ended.saturating_sub(first.ended)) / length)
    }

    /// The arrival rate: that of the longest time which no shorter one contradicts. So it is quiet in a steady state, and
    /// follows a step within 10 to 20 s.
    pub fn rate(&self, now: Duration) -> f64 {
        let mut bins = self.bins(now);
        level_batches(&mut bins);
        longest_consistent(&bins)
    }

    fn bins(&self, now: Duration) -> Vec<Bin> {
        let mut bins: Vec<Bin> = Vec::with_capacity(self.samples.len());
        let (mut end, mut arrived) = (now, self.arrived);
        for sample in self.samples.iter().rev() {
            let length = end.saturating_sub(sample.at).as_secs_f64();
            if length < SHORTEST {
                continue;
            }
            bins.push(Bin { length, arrived: real(arrived.saturating_sub(sample.arrived)) });
            (end, arrived) = (sample.at, sample.arrived);
        }
        bins
    }
}

/// Tasks that come all at once say nothing of those to come: they wait or run already. The newest length is only cut, so
/// that a batch and one task more never look like less than the batch.
fn level_batches(bins: &mut [Bin]) {
    let (mut most, mut second, mut at, mut sum, mut time) = (0.0_f64, 0.0_f64, 0, 0.0, 0.0);
    for (index, bin) in bins.iter().enumerate() {
        let level = bin.level();
        if level > most {
            (second, most, at) = (most, level, index);
        } else {
            second = second.max(level);
        }
        sum += bin.arrived;
        time += bin.length;
    }
    let usual = BATCH.max(BATCH_RATIO * second);
    if most <= usual {
        return;
    }
    let Some(batch) = bins.get_mut(at) else { return };
    let others = if at == 0 || time <= batch.length {
        usual / TICK.as_secs_f64()
    } else {
        (sum - batch.arrived) / (time - batch.length)
    };
    batch.arrived = others * batch.length;
}

fn longest_consistent(bins: &[Bin]) -> f64 {
    let mut shorter = [(0.0, 0.0); WINDOWS.len()];
    let (mut known, mut next, mut rate) = (0, 0, 0.0);
    let (mut length, mut arrived) = (0.0, 0.0);
    for window in WINDOWS {
        while length + SHORTEST < window && next < bins.len() {
            length += bins[next].length;
            arrived += bins[next].arrived;
            next += 1;
        }
        if length <= 0.0 {
            break;
        }
        let candidate = arrived / length;
        let contradicted = |(time, count): &(f64, f64)| {
            let expected = candidate * time;
            (count - expected).abs() > CHANGE * expected.sqrt() + 1.0
        };
        if shorter[..known].iter().any(contradicted) {
            break;
        }
        rate = candidate;
        shorter[known] = (length, arrived);
        known += 1;
        if length + SHORTEST < window {
            break;
        }
    }
    rate
}

/// Drops what is older than `start`, but for the newest of it.
fn drop_before<T>(history: &mut VecDeque<T>, start: Duration, at: impl Fn(&T) -> Duration) {
    while history.get(1).is_some_and(|second| at(second) <= start) {
        history.pop_front();
    }
}

/// A count as a float; exact to 2^53.
#[allow(clippy::cast_precision_loss)]
pub(super) fn real(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Flow;

    /// Ticks of 5 s with so many starts each.
    fn after(starts: &[u64]) -> f64 {
        let mut flow = Flow::default();
        let mut now = Duration::from_secs(100);
        flow.see(now, None);
        for count in starts {
            now += Duration::from_secs(5);
            flow.count(*count, 0);
            flow.see(now, None);
        }
        flow.rate(now)
    }

    fn near(rate: f64, per_second: f64) {
        assert!((rate - per_second).abs() < 0.05 * per_second + 0.01, "{rate}");
    }

    #[test]
    fn a_steady_flow_is_measured_over_five_minutes() {
        let noisy: Vec<u64> = (0..70).map(|tick| 100 + [0, 9, 18, 5][tick % 4] - 8).collect();
        near(after(&noisy), 20.0);
    }

    #[test]
    fn a_step_is_believed_after_ten_seconds() {
        let mut starts = vec![10; 60];
        starts.extend([200, 200]);
        near(after(&starts), 40.0);
        starts.extend([200, 200]);
        near(after(&starts), 40.0);
        starts.extend([10, 10, 10, 10]);
        near(after(&starts), 2.0);
    }

    #[test]
    fn a_batch_is_no_rate() {
        let mut starts = vec![15; 60];
        starts.push(2_000);
        assert!(after(&starts) < 10.0);
        starts.extend([15; 4]);
        near(after(&starts), 3.0);
        assert!(after(&[0, 0, 2_000]) < 1.0);
    }

    #[test]
    fn what_waits_has_arrived_and_starts_later_without_arriving_again() {
        let mut flow = Flow::default();
        let second = Duration::from_secs;
        flow.see(second(0), None);
        flow.see(second(5), Some((50, second(5))));
        let waiting = flow.rate(second(5));
        flow.count(50, 0);
        flow.see(second(10), Some((50, second(5))));
        flow.see(second(15), None);
        assert!(flow.rate(second(15)) < waiting);
        assert_eq!(flow.arrived, 50);
    }

    #[test]
    fn nothing_known_is_no_rate() {
        near(Flow::default().rate(Duration::from_secs(9)), 0.0);
        near(after(&[]), 0.0);
    }
}
