//! The HorizontalPodAutoscaler, from its metrics on.
//!
//! kubernetes/kubernetes, `pkg/controller/podautoscaler/{horizontal,replica_calculator}.go`: the calculations of external
//! metrics, the windows and the limits of steps.

use std::collections::VecDeque;

use crate::observation::Bounds;
use crate::time::{Micros, SECOND, ceiling};

/// Time between two decisions of the HPA.
pub const SYNC: Micros = 15 * SECOND;
/// A ratio this near to 1 changes nothing.
const TOLERANCE: f64 = 0.1;
/// Window of an HPA without rules: it goes down to the highest recommendation of so long.
const DEFAULT_WINDOW: Micros = 300 * SECOND;

/// The rules of an HPA for its steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rules {
    /// No `behavior`: up to twice as many or 4 at a time, and never below the highest recommendation of 5 minutes.
    Default,
    /// A `behavior`.
    Behavior(Behavior),
}

/// `spec.behavior`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Behavior {
    /// For steps up.
    pub up: Rule,
    /// For steps down.
    pub down: Rule,
}

/// Rules for one direction, of which the one that allows most counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Stabilisation window.
    pub window: Micros,
    /// Per cent of the pods at the start of the period.
    pub percent: u32,
    /// Pods; 0 for no such rule.
    pub pods: u32,
    /// The period.
    pub period: Micros,
}

/// An HPA.
#[derive(Clone, Debug)]
pub struct Hpa {
    bounds: Bounds,
    rules: Rules,
    recommendations: VecDeque<(Micros, u32)>,
    /// Steps with their time, up and down.
    steps: VecDeque<(Micros, i64)>,
}

impl Hpa {
    /// An HPA; it never goes below one pod.
    #[must_use]
    pub fn new(bounds: Bounds, rules: Rules) -> Self {
        Self { bounds: bounds.at_least(1), rules, recommendations: VecDeque::new(), steps: VecDeque::new() }
    }

    /// What a metric of type `AverageValue` calls for: `sum` over the target of a pod.
    #[must_use]
    pub fn average_value(current: u32, sum: f64, target: f64) -> u32 {
        let ratio = sum / (target * f64::from(current));
        if near_enough(ratio) { current } else { ceiling(sum / target, u32::MAX) }
    }

    /// What a metric of type `Value` calls for: as many times the pods that are Ready as it is above its target.
    #[must_use]
    pub fn value(current: u32, ready: u32, value: f64, target: f64) -> u32 {
        let ratio = value / target;
        if near_enough(ratio) { current } else { ceiling(ratio * f64::from(ready), u32::MAX) }
    }

    /// Makes a step from `current` towards `recommended`, as far as windows and limits allow.
    pub fn step(&mut self, now: Micros, current: u32, recommended: u32) -> u32 {
        let desired = match self.rules {
            Rules::Default => self.default_step(now, current, recommended),
            Rules::Behavior(behavior) => self.ruled_step(now, current, recommended, behavior),
        };
        if desired != current {
            self.steps.push_back((now, i64::from(desired) - i64::from(current)));
        }
        desired
    }

    fn default_step(&mut self, now: Micros, current: u32, recommended: u32) -> u32 {
        self.remember(now, recommended, DEFAULT_WINDOW);
        let stable = self.window(now, DEFAULT_WINDOW).max().unwrap_or(recommended);
        let limit = current.saturating_mul(2).max(4);
        self.bounds.clamp(stable.min(limit))
    }

    fn ruled_step(&mut self, now: Micros, current: u32, recommended: u32, behavior: Behavior) -> u32 {
        let Behavior { up, down } = behavior;
        self.remember(now, recommended, up.window.max(down.window));
        let least = self.window(now, up.window).fold(recommended, u32::min);
        let most = self.window(now, down.window).fold(recommended, u32::max);
        let stable = current.max(least).min(most);
        let desired = if stable > current {
            stable.min(self.highest(now, current, up).max(current))
        } else {
            stable.max(self.lowest(now, current, down).min(current))
        };
        self.bounds.clamp(desired)
    }

    fn highest(&self, now: Micros, current: u32, rule: Rule) -> u32 {
        let grown = self.moved(now, rule.period, 1);
        let start = current.saturating_sub(grown);
        let by_percent = ceiling(f64::from(start) * (1.0 + f64::from(rule.percent) / 100.0), u32::MAX);
        by_percent.max(start.saturating_add(rule.pods))
    }

    fn lowest(&self, now: Micros, current: u32, rule: Rule) -> u32 {
        let start = current.saturating_add(self.moved(now, rule.period, -1));
        // Whole pods, rounded down: at least one goes.
        let by_percent = start * (100_u32.saturating_sub(rule.percent)) / 100;
        by_percent.min(start.saturating_sub(rule.pods))
    }

    /// Pods added (sign 1) or removed (sign -1) in the last `period`.
    fn moved(&self, now: Micros, period: Micros, sign: i64) -> u32 {
        let steps = self.steps.iter().filter(|(at, step)| now - at < period && step.signum() == sign);
        u32::try_from(steps.map(|(_, step)| step.abs()).sum::<i64>()).unwrap_or(u32::MAX)
    }

    fn remember(&mut self, now: Micros, recommended: u32, window: Micros) {
        while self.recommendations.front().is_some_and(|(at, _)| now - at > window) {
            self.recommendations.pop_front();
        }
        self.recommendations.push_back((now, recommended));
        while self.steps.front().is_some_and(|(at, _)| now - at > DEFAULT_WINDOW) {
            self.steps.pop_front();
        }
    }

    fn window(&self, now: Micros, window: Micros) -> impl Iterator<Item = u32> {
        self.recommendations.iter().filter(move |(at, _)| now - at <= window).map(|(_, recommended)| *recommended)
    }
}

fn near_enough(ratio: f64) -> bool {
    (1.0 - TOLERANCE..=1.0 + TOLERANCE).contains(&ratio)
}

#[cfg(test)]
mod tests {
    use super::{Behavior, Hpa, Rule, Rules, SYNC};
    use crate::observation::Bounds;
    use crate::time::SECOND;

    const BOUNDS: Bounds = Bounds { min: 0, max: 100 };

    #[test]
    fn a_metric_within_a_tenth_of_its_target_changes_nothing() {
        assert_eq!(Hpa::average_value(10, 55.0, 5.0), 10);
        assert_eq!(Hpa::average_value(10, 56.0, 5.0), 12);
        assert_eq!(Hpa::average_value(10, 44.0, 5.0), 9);
        assert_eq!(Hpa::value(4, 4, 0.8, 0.75), 4);
        assert_eq!(Hpa::value(4, 4, 1.0, 0.75), 6);
    }

    #[test]
    fn without_rules_it_doubles_and_keeps_the_most_of_five_minutes() {
        let mut hpa = Hpa::new(BOUNDS, Rules::Default);
        let (mut now, mut current, mut course) = (0, 1, Vec::new());
        // A backlog calls for 50 once, and then for none.
        for recommended in [50, 0, 0, 0, 0] {
            current = hpa.step(now, current, recommended);
            course.push(current);
            now += SYNC;
        }
        assert_eq!(course, [4, 8, 16, 32, 50]);
        while now <= 300 * SECOND {
            current = hpa.step(now, current, 0);
            now += SYNC;
        }
        assert_eq!(current, 50);
        assert_eq!(hpa.step(now, current, 0), 1);
    }

    #[test]
    fn rules_limit_the_steps_of_a_period() {
        let rule = Rule { window: 0, percent: 10, pods: 0, period: 10 * SECOND };
        let mut hpa = Hpa::new(BOUNDS, Rules::Behavior(Behavior { up: rule, down: rule }));
        assert_eq!(hpa.step(0, 40, 100), 44);
        // The period has not passed: four of the 44 are its own.
        assert_eq!(hpa.step(5 * SECOND, 44, 100), 44);
        assert_eq!(hpa.step(15 * SECOND, 44, 100), 49);
        assert_eq!(hpa.step(40 * SECOND, 49, 1), 44);
        assert_eq!(hpa.step(60 * SECOND, 3, 1), 2);
    }

    #[test]
    fn a_window_up_waits_until_the_need_lasts() {
        let at_once = Rule { window: 0, percent: 900, pods: 0, period: SYNC };
        let up = Rule { window: 30 * SECOND, ..at_once };
        let mut hpa = Hpa::new(BOUNDS, Rules::Behavior(Behavior { up, down: at_once }));
        assert_eq!(hpa.step(0, 2, 2), 2);
        assert_eq!(hpa.step(SYNC, 2, 8), 2);
        assert_eq!(hpa.step(2 * SYNC, 2, 8), 2);
        assert_eq!(hpa.step(3 * SYNC, 2, 8), 8);
    }
}
