//! How often each thing is read, within the calls a second that there are.
//!
//! The time by which news is late, summed over everything that is watched and weighted by how often each has news, is
//! least when the interval of each is in proportion to the square root of its cost over that weight. So a class has a
//! base interval, all are stretched or shortened by one factor, and each is kept between a shortest interval that is
//! worth its calls and a longest one that is borne. Only when even the longest ones cost too much are these exceeded,
//! all by the same factor.

use std::time::Duration;

/// The server caches statistics for 5 s: they tell of a task by so much later than the live status.
const CACHE: f64 = 5.0;
/// Statistics are not asked for more often than this instead of a live status: it would find hardly more.
const FASTEST_ORDINARY: f64 = 1.0;
/// Factor at which every class has its longest interval.
const ALL_SLOWEST: f64 = 20.0;
const FACTORS: (f64, f64) = (0.02, 1e6);
const HALVINGS: u32 = 50;

/// How urgently something is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// A version whose Task Queues the server does not know yet.
    Registering,
    /// A fleet that runs, of which the pods alone do not prove that nothing waits.
    Hot,
    /// A fleet that runs and has free slots, so that nothing waits.
    Steady,
    /// A version that lost the traffic: what is pinned to it may come yet.
    Draining,
    /// A version at zero: what is pinned to it is in no live status.
    Pinned,
    /// A Worker Deployment: who has the traffic.
    Routing,
    /// A Worker Deployment whose only version has the traffic, of a fleet that is not scaled: only somebody else changes it.
    Settled,
    /// The same of a fleet of which a list says that nothing changed.
    Confirmed,
    /// A Task Queue at zero that had a task lately.
    Warm,
    /// A Task Queue at zero that had none for long.
    Cold,
    /// New Workflows on Task Queues at zero.
    Starts,
    /// A test Workflow of a gate that has not ended.
    Test,
    /// The rate limit of a Task Queue, and its partitions: they are configured.
    Configured,
}

/// Interval at a factor of one, and its bounds. In seconds.
struct Span {
    base: f64,
    shortest: f64,
    longest: f64,
}

impl Class {
    const ALL: [Self; 13] = [
        Self::Registering,
        Self::Hot,
        Self::Steady,
        Self::Draining,
        Self::Pinned,
        Self::Routing,
        Self::Settled,
        Self::Confirmed,
        Self::Warm,
        Self::Cold,
        Self::Starts,
        Self::Test,
        Self::Configured,
    ];

    /// The word for metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Registering => "registering",
            Self::Hot => "hot",
            Self::Steady => "steady",
            Self::Draining => "draining",
            Self::Pinned => "pinned",
            Self::Routing => "routing",
            Self::Settled => "settled",
            Self::Confirmed => "confirmed",
            Self::Warm => "warm",
            Self::Cold => "cold",
            Self::Starts => "starts",
            Self::Test => "test",
            Self::Configured => "configured",
        }
    }

    /// Whether the live status may tell of it.
    fn is_swept(self) -> bool {
        matches!(self, Self::Warm | Self::Cold)
    }

    fn span(self) -> Span {
        let (base, shortest, longest) = match self {
            // The fleet can't do anything else meanwhile.
            Self::Registering => (1.0, 1.0, 5.0),
            // Just after the server's cache a reading is one of this moment. With jitter the longest stays below the age
            // at which statistics are stale.
            Self::Hot => (5.1, 5.1, 24.0),
            // The same: a fleet whose slots fill up has a reading that still counts.
            Self::Steady => (25.0, 25.0, 120.0),
            Self::Draining => (30.0, 30.0, 120.0),
            Self::Pinned => (10.2, 10.2, 180.0),
            Self::Routing => (30.0, 30.0, 120.0),
            Self::Settled => (60.0, 60.0, 240.0),
            Self::Warm => (5.0, 0.5, 60.0),
            Self::Cold => (20.0, 0.5, 180.0),
            Self::Starts => (0.5, 0.5, 0.5),
            // A rollout waits for it, for minutes as a rule.
            Self::Test => (5.0, 2.0, 60.0),
            Self::Confirmed | Self::Configured => (600.0, 600.0, 1800.0),
        };
        Span { base, shortest, longest }
    }
}

/// What is read, by class.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Demand([Load; Class::ALL.len()]);

/// What one round of a class costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Load {
    /// Calls, each for one thing.
    units: f64,
    /// The same by the live status, a call for each partition; zero where there is none.
    live: f64,
}

impl Demand {
    /// Adds something that one call reads.
    pub(super) fn add(&mut self, class: Class) {
        self.0[class as usize].units += 1.0;
    }

    /// Adds a lane that as many calls as it has partitions read live.
    pub(super) fn add_live(&mut self, class: Class, partitions: usize) {
        self.add(class);
        self.0[class as usize].live += partitions as f64;
    }

    /// Calls a second at the shortest intervals: more would be of no use.
    pub(super) fn most(&self) -> f64 {
        self.cost(FACTORS.0)
    }

    fn cost(&self, factor: f64) -> f64 {
        let cost = |class: Class| {
            let (load, interval) = (self.0[class as usize], interval(class, factor));
            match how(interval, load) {
                How::Live(period) if class.is_swept() => load.live / period,
                How::Ordinary(period) if class.is_swept() => load.units / period,
                _ => load.units / interval,
            }
        };
        Class::ALL.into_iter().map(cost).sum()
    }
}

/// How lanes at zero are read, and how often each of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Reading {
    /// By the live status of each partition.
    Live(Duration),
    /// By the ordinary statistics.
    Ordinary(Duration),
}

enum How {
    Live(f64),
    Ordinary(f64),
}

/// The intervals of all classes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pace {
    factor: f64,
    demand: Demand,
}

impl Default for Pace {
    fn default() -> Self {
        Self { factor: 1.0, demand: Demand::default() }
    }
}

impl Pace {
    /// The shortest intervals at which a demand fits into so many calls a second.
    pub(super) fn fit(demand: Demand, calls_per_second: f64) -> Self {
        let budget = calls_per_second * (1.0 + 1e-9);
        let (mut low, mut high) = (FACTORS.0.ln(), FACTORS.1.ln());
        if demand.cost(FACTORS.0) <= budget {
            return Self { factor: FACTORS.0, demand };
        }
        for _ in 0..HALVINGS {
            let middle = f64::midpoint(low, high);
            if demand.cost(middle.exp()) <= budget {
                high = middle;
            } else {
                low = middle;
            }
        }
        Self { factor: high.exp(), demand }
    }

    /// Time between two readings.
    pub(super) fn interval(&self, class: Class) -> Duration {
        Duration::from_secs_f64(interval(class, self.factor))
    }

    /// How lanes of a class at zero are read.
    pub(super) fn reading(&self, class: Class) -> Reading {
        match how(interval(class, self.factor), self.demand.0[class as usize]) {
            How::Live(period) => Reading::Live(Duration::from_secs_f64(period)),
            How::Ordinary(period) => Reading::Ordinary(Duration::from_secs_f64(period)),
        }
    }

    /// By what factor the longest intervals that are borne are exceeded; one when they are not.
    pub(super) fn degraded(&self) -> f64 {
        (self.factor / ALL_SLOWEST).max(1.0)
    }
}

fn interval(class: Class, factor: f64) -> f64 {
    let span = class.span();
    let within = factor.min(ALL_SLOWEST);
    (span.base * within).clamp(span.shortest, span.longest) * (factor / within)
}

/// Statistics are late by the server's cache and cost one call a lane, the live status is not late and costs one for each
/// partition. Chosen is what sees a task within `interval`; the cheaper of both when both do.
fn how(interval: f64, load: Load) -> How {
    let ordinary = (interval - CACHE).max(FASTEST_ORDINARY);
    let in_time = interval >= CACHE + FASTEST_ORDINARY;
    if load.live > 0.0 && (!in_time || load.live / interval <= load.units / ordinary) {
        How::Live(interval)
    } else {
        How::Ordinary(ordinary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(warm: usize, cold: usize) -> Demand {
        let mut demand = Demand::default();
        (0..warm).for_each(|_| demand.add_live(Class::Warm, 4));
        (0..cold).for_each(|_| demand.add_live(Class::Cold, 4));
        demand
    }

    fn of(class: Class, units: usize) -> Demand {
        let mut demand = Demand::default();
        (0..units).for_each(|_| demand.add(class));
        demand
    }

    fn live(pace: &Pace, class: Class) -> f64 {
        let Reading::Live(period) = pace.reading(class) else { panic!("{class:?} is not live") };
        period.as_secs_f64()
    }

    fn seconds(pace: &Pace, class: Class) -> f64 {
        (pace.interval(class).as_secs_f64() * 10.0).round() / 10.0
    }

    #[test]
    fn ten_queues_are_swept_twice_a_second() {
        assert_eq!(live(&Pace::fit(lanes(10, 0), 110.0), Class::Warm), 0.5);
        assert_eq!(live(&Pace::fit(lanes(0, 10), 110.0), Class::Cold), 0.5);
    }

    #[test]
    fn fifty_queues_are_swept_as_often_as_the_budget_allows() {
        let period = live(&Pace::fit(lanes(50, 0), 110.0), Class::Warm);
        assert!((1.81..1.83).contains(&period), "{period}");
    }

    #[test]
    fn queues_that_were_quiet_for_long_make_room_for_those_that_were_not() {
        let pace = Pace::fit(lanes(10, 40), 110.0);
        let (warm, cold) = (live(&pace, Class::Warm), live(&pace, Class::Cold));
        assert!((cold / warm - 4.0).abs() < 0.01, "{warm} and {cold}: the square root of how often they have tasks");
        assert!(warm < 0.8, "{warm}");
    }

    #[test]
    fn beyond_the_budget_statistics_stand_in_for_the_live_status() {
        let pace = Pace::fit(lanes(10, 1000), 110.0);
        assert!(live(&pace, Class::Warm) < 5.0);
        let Reading::Ordinary(period) = pace.reading(Class::Cold) else { panic!("live") };
        assert!(period < Duration::from_secs(20), "{period:?}");
        let mut demand = Demand::default();
        (0..10).for_each(|_| demand.add(Class::Warm));
        let unsupported = Pace::fit(demand, 110.0).reading(Class::Warm);
        assert_eq!(unsupported, Reading::Ordinary(Duration::from_secs(1)));
    }

    #[test]
    fn fleets_with_free_slots_are_read_less_often_than_those_without() {
        let mut demand = of(Class::Hot, 50);
        (0..100).for_each(|_| demand.add(Class::Steady));
        let pace = Pace::fit(demand.clone(), 25.0);
        assert_eq!((seconds(&pace, Class::Hot), seconds(&pace, Class::Steady)), (5.1, 25.0));
        (0..400).for_each(|_| demand.add(Class::Steady));
        let scarce = Pace::fit(demand, 25.0);
        assert!(seconds(&scarce, Class::Hot) > 5.1 && seconds(&scarce, Class::Steady) < 60.0, "{scarce:?}");
        assert_eq!(scarce.degraded(), 1.0);
    }

    #[test]
    fn intervals_longer_than_the_longest_that_are_borne_are_all_exceeded_alike_and_said() {
        let mut demand = of(Class::Hot, 600);
        (0..3000).for_each(|_| demand.add(Class::Steady));
        let pace = Pace::fit(demand, 25.0);
        assert!((pace.degraded() - 2.0).abs() < 0.01, "{}", pace.degraded());
        assert_eq!((seconds(&pace, Class::Hot), seconds(&pace, Class::Steady)), (48.0, 240.0));
    }

    #[test]
    fn no_mix_exceeds_the_budget_and_more_budget_never_slows_a_class() {
        for (warm, cold, hot, steady) in [
            (0, 0, 0, 0),
            (1, 0, 0, 9),
            (10, 40, 20, 0),
            (50, 0, 0, 0),
            (0, 1000, 5, 5),
            (110, 5, 400, 90),
            (900, 900, 0, 1),
        ] {
            let mut demand = lanes(warm, cold);
            (0..hot).for_each(|_| demand.add(Class::Hot));
            (0..steady).for_each(|_| demand.add(Class::Steady));
            let mut before = None;
            for rate in [4.0, 25.0, 60.0, 110.0, 500.0] {
                let pace = Pace::fit(demand.clone(), rate);
                assert!(demand.cost(pace.factor) <= rate * 1.001, "{demand:?} at {rate}");
                assert!(before.is_none_or(|before| pace.factor <= before), "{demand:?} at {rate}");
                before = Some(pace.factor);
            }
        }
    }

    #[test]
    fn a_longer_interval_never_costs_more() {
        for demand in [lanes(3, 0), of(Class::Warm, 3), of(Class::Hot, 3), {
            let mut one = Demand::default();
            one.add_live(Class::Cold, 1);
            one
        }] {
            let costs: Vec<f64> = (0..400).map(|n| demand.cost(0.02 * 1.05_f64.powi(n))).collect();
            assert!(costs.windows(2).all(|pair| pair[1] <= pair[0] + 1e-12), "{demand:?}");
        }
    }
}
