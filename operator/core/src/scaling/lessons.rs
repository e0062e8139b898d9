//! What is learned from one decision to the next and survives a restart: service times, slots, start-up times, waits.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Ends after which an old one counts 1/e, but none sooner than [`MEMORY_SECONDS`]: enough for a mean of seconds-long tasks,
/// and hours for hour-long ones.
const MEMORY_TASKS: f64 = 200.0;
const MEMORY_SECONDS: f64 = 120.0;
/// Ends that make a mean.
const ENOUGH: f64 = 5.0;
/// Bounds of a service time, in seconds: 5 ms and 7 days.
const SHORTEST: f64 = 0.005;
const LONGEST: f64 = 604_800.0;

/// Mean time that a task holds a slot, by Little's law: busy slots times time, divided by ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Service {
    /// Seconds that slots were busy.
    busy: f64,
    /// Tasks that ended.
    ended: f64,
}

impl Service {
    /// Notes the busy time of all slots, and the ends, within `seconds`.
    pub fn see(&mut self, busy: f64, ended: f64, seconds: f64) {
        let keep = libm::exp(-(ended / MEMORY_TASKS).min(seconds / MEMORY_SECONDS));
        self.busy = self.busy * keep + busy;
        self.ended = self.ended * keep + ended;
    }

    /// Seconds, once enough tasks ended.
    pub fn known(&self) -> Option<f64> {
        (self.ended >= ENOUGH).then(|| (self.busy / self.ended).clamp(SHORTEST, LONGEST))
    }

    /// Seconds of the tasks that ended, however few.
    pub fn of_ended(&self) -> Option<f64> {
        (self.ended > 0.0).then(|| (self.busy / self.ended).clamp(SHORTEST, LONGEST))
    }

    /// Seconds as far as they can be told: before enough tasks ended, those that run count as half ended.
    pub fn guess(&self, running: f64) -> Option<f64> {
        let halves = running * (ENOUGH - self.ended).max(0.0) / ENOUGH;
        let ended = self.ended + halves;
        (ended > 0.0 && self.busy > 0.0).then(|| (self.busy / ended).clamp(SHORTEST, LONGEST))
    }
}

/// How long single tasks ran, by the Worker's own histogram, as far as a pod's end is concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Tail {
    ended: f64,
    /// Those that may have run longer than the grace period: longer than the highest edge below it.
    maybe_longer: f64,
    /// Those that did: longer than the lowest edge above it.
    longer: f64,
}

/// Ends that tell whether tasks may be long.
const TAIL_ENOUGH: f64 = 100.0;
/// Ends after which an old one counts 1/e.
const TAIL_MEMORY: f64 = 5_000.0;
/// Most of the tasks that may have run longer than the grace period.
const TAIL_MAYBE: f64 = 0.02;
/// Fewest of the tasks that did, to be said to somebody.
const TAIL_SURELY: f64 = 0.01;

impl Tail {
    /// Notes ends.
    pub fn see(&mut self, ended: f64, maybe_longer: f64, longer: f64) {
        let keep = libm::exp(-ended / TAIL_MEMORY);
        self.ended = self.ended * keep + ended;
        self.maybe_longer = self.maybe_longer * keep + maybe_longer;
        self.longer = self.longer * keep + longer;
    }

    /// Whether no task is seen to outlast the grace period; none if too few were seen.
    pub fn ends_in_time(&self) -> Option<bool> {
        (self.ended >= TAIL_ENOUGH).then_some(self.longer < 0.01 && self.maybe_longer <= TAIL_MAYBE * self.ended)
    }

    /// Whether tasks are seen to outlast the grace period again and again.
    pub fn outlast(&self) -> bool {
        self.ended >= TAIL_ENOUGH && self.longer >= TAIL_SURELY * self.ended
    }
}

/// Start-up times that are remembered.
const STARTS: usize = 50;
/// Start-up time while none is known.
const USUAL_START: Duration = Duration::from_secs(20);

/// Times from a pod's creation until it is Ready.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct StartUps {
    times: VecDeque<Duration>,
    /// What all but a quarter of them are at most: kept, since it is asked for more often than it changes.
    most: Option<Duration>,
}

impl StartUps {
    /// Notes one.
    pub fn see(&mut self, time: Duration) {
        if self.times.len() >= STARTS {
            self.times.pop_front();
        }
        self.times.push_back(time);
        let mut sorted: Vec<Duration> = self.times.iter().copied().collect();
        sorted.sort_unstable();
        self.most = sorted.get((sorted.len() * 3).div_ceil(4).saturating_sub(1)).copied();
    }

    /// All but a quarter of the pods start as fast; never the mean, which says nothing of the slow ones.
    pub fn most(&self) -> Duration {
        self.most.unwrap_or(USUAL_START)
    }
}

/// Time after which a start counts 1/e: 15 min.
const WAITS_MEMORY: f64 = 900.0;
/// Starts that make a share.
const WAITS_ENOUGH: f64 = 20.0;
/// What the multiplier grows and shrinks by within a tick of 5 s, and its most.
const GROW: f64 = 1.1;
const SHRINK: f64 = 0.99;
const MOST: f64 = 6.0;
/// Share of the allowed late tasks below which the multiplier shrinks.
const GOOD: f64 = 0.6;

/// Schedule-to-start as measured, and what follows: fleets that miss their target hold their pods for longer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Feedback {
    started: f64,
    late: f64,
    multiplier: f64,
}

impl Default for Feedback {
    fn default() -> Self {
        Self { started: 0.0, late: 0.0, multiplier: 1.0 }
    }
}

impl Feedback {
    /// Notes starts, those of them that were late, and the time that passed.
    pub fn see(&mut self, started: f64, late: f64, seconds: f64) {
        let keep = libm::exp(-seconds / WAITS_MEMORY);
        self.started = self.started * keep + started;
        self.late = self.late * keep + late;
    }

    /// The multiplier alone.
    pub fn without_counts(self) -> Self {
        Self { started: 0.0, late: 0.0, ..self }
    }

    /// Turns the multiplier, for a share of `allowed` late tasks.
    pub fn turn(&mut self, allowed: f64, seconds: f64) {
        let ticks = seconds / 5.0;
        match self.late_share() {
            Some(share) if share > allowed => self.multiplier *= libm::pow(GROW, ticks),
            Some(share) if share < allowed * GOOD => self.multiplier *= libm::pow(SHRINK, ticks),
            _ => {}
        }
        self.multiplier = self.multiplier.clamp(1.0, MOST);
    }

    /// Share of the starts that were late; none of too few.
    pub fn late_share(&self) -> Option<f64> {
        (self.started >= WAITS_ENOUGH).then(|| (self.late / self.started).clamp(0.0, 1.0))
    }

    /// What the hold is multiplied with.
    pub fn multiplier(&self) -> f64 {
        self.multiplier
    }
}

/// Gaps that are remembered, and the least of them that say something.
const GAPS: usize = 50;
const GAPS_ENOUGH: usize = 8;
/// Candidates for an idle window, in seconds.
const CANDIDATES: [f64; 9] = [60.0, 90.0, 120.0, 180.0, 240.0, 300.0, 450.0, 600.0, 900.0];
/// What a start from zero costs, in start-ups: the pod's own, and the wait of what it starts for.
const COLD_PRICE: f64 = 7.0;

/// Times without work between times with work.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Gaps(VecDeque<Duration>);

impl Gaps {
    /// Notes one.
    pub fn see(&mut self, gap: Duration) {
        if self.0.len() >= GAPS {
            self.0.pop_front();
        }
        self.0.push_back(gap);
    }

    /// The idle window that costs least, pods that are kept and starts from zero taken together; none of too few gaps.
    pub fn best_window(&self, start_up: Duration) -> Option<Duration> {
        if self.0.len() < GAPS_ENOUGH {
            return None;
        }
        let price = COLD_PRICE * start_up.as_secs_f64();
        let cost = |window: f64| -> f64 {
            let one = |gap: &Duration| {
                let gap = gap.as_secs_f64();
                if gap > window { window + price } else { gap }
            };
            self.0.iter().map(one).sum()
        };
        let cheapest = CANDIDATES.into_iter().min_by(|one, other| cost(*one).total_cmp(&cost(*other)));
        cheapest.map(Duration::from_secs_f64)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Feedback, Gaps, Service, StartUps, Tail};

    #[test]
    fn the_service_time_is_busy_time_by_ends_whatever_the_tasks_are() {
        for (busy, ended, time) in [(2.0, 100.0, 0.02), (100.0, 100.0, 1.0), (200.0, 0.1, 2_000.0)] {
            let mut service = Service::default();
            (0..200).for_each(|_| service.see(busy, ended, 5.0));
            assert!((service.known().unwrap() - time).abs() < time * 1e-6);
        }
    }

    #[test]
    fn before_enough_ends_running_tasks_are_half_ended() {
        let mut service = Service::default();
        assert_eq!((service.known(), service.guess(10.0)), (None, None));
        service.see(100.0, 0.0, 10.0);
        assert_eq!(service.known(), None);
        assert!((service.guess(10.0).unwrap() - 10.0).abs() < 1e-9);
    }

    #[test]
    fn a_changed_service_time_is_known_after_minutes() {
        let mut service = Service::default();
        (0..200).for_each(|_| service.see(100.0, 100.0, 5.0));
        (0..72).for_each(|_| service.see(300.0, 100.0, 5.0));
        assert!(service.known().unwrap() > 2.8);
    }

    #[test]
    fn one_task_that_outlasts_the_grace_period_makes_the_tail_long_for_thousands() {
        let mut tail = Tail::default();
        assert_eq!(tail.ends_in_time(), None);
        tail.see(1_000.0, 5.0, 0.0);
        assert_eq!(tail.ends_in_time(), Some(true));
        tail.see(100.0, 1.0, 1.0);
        assert_eq!(tail.ends_in_time(), Some(false));
        (0..100).for_each(|_| tail.see(100.0, 0.0, 0.0));
        assert_eq!(tail.ends_in_time(), Some(false));
        (0..200).for_each(|_| tail.see(100.0, 0.0, 0.0));
        assert_eq!(tail.ends_in_time(), Some(true));
        tail.see(10_000.0, 2_000.0, 0.0);
        assert_eq!(tail.ends_in_time(), Some(false), "many may have run longer, though none is known to");
    }

    #[test]
    fn three_of_four_pods_start_within_the_start_up_time() {
        let mut starts = StartUps::default();
        assert_eq!(starts.most(), Duration::from_secs(20));
        (1..=100).for_each(|second| starts.see(Duration::from_secs(second)));
        assert_eq!(starts.most(), Duration::from_secs(88), "of 51 to 100");
    }

    #[test]
    fn late_tasks_lengthen_the_hold_up_to_a_bound_and_good_ones_shorten_it_slowly() {
        let mut feedback = Feedback::default();
        feedback.see(19.0, 19.0, 5.0);
        feedback.turn(0.05, 5.0);
        assert_eq!((feedback.late_share(), feedback.multiplier()), (None, 1.0));
        for _ in 0..100 {
            feedback.see(10.0, 3.0, 5.0);
            feedback.turn(0.05, 5.0);
        }
        assert!((feedback.multiplier() - 6.0).abs() < 1e-9);
        (0..2_000).for_each(|_| {
            feedback.see(10.0, 0.0, 5.0);
            feedback.turn(0.05, 5.0);
        });
        assert!((feedback.multiplier() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn the_idle_window_follows_the_gaps() {
        let seconds = Duration::from_secs;
        let window = |gap| {
            let mut gaps = Gaps::default();
            (0..8).for_each(|_| gaps.see(seconds(gap)));
            gaps.best_window(seconds(20))
        };
        assert_eq!(window(250), Some(seconds(60)), "60 s and a start from zero are cheaper than 250 s");
        assert_eq!(window(100), Some(seconds(120)), "a start from zero is dearer than 100 s");
        assert_eq!(window(3_600), Some(seconds(60)));
        let mut few = Gaps::default();
        (0..7).for_each(|_| few.see(seconds(60)));
        assert_eq!(few.best_window(seconds(20)), None);
    }
}
