//! How often the Task Queues of fleets at zero are read, within the budget.

use std::time::Duration;

/// Most often that a sweep over the partitions of one lane is worth its calls.
pub(super) const FASTEST: Duration = Duration::from_millis(500);
/// A live sweep slower than this finds a task no sooner than the ordinary statistics, which need one call a lane.
pub(super) const SLOWEST_LIVE: Duration = Duration::from_secs(4);
/// The ordinary statistics are cached for 5 s by the server; asking more often than this finds hardly more.
pub(super) const FASTEST_ORDINARY: Duration = Duration::from_secs(1);

/// What a set of lanes costs to read once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Demand {
    /// Lanes.
    pub lanes: usize,
    /// Calls of one live sweep: a call for each partition of each lane.
    pub calls: usize,
}

/// How a set of lanes is read, and how often each of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pace {
    /// By the live status of each partition.
    Live(Duration),
    /// By the ordinary statistics.
    Ordinary(Duration),
}

impl Pace {
    fn calls_per_second(self, demand: Demand) -> f64 {
        match self {
            Self::Live(period) => demand.calls as f64 / period.as_secs_f64(),
            Self::Ordinary(period) => demand.lanes as f64 / period.as_secs_f64(),
        }
    }
}

/// Shares calls a second out among lanes that were busy lately and lanes that were not. Quiet ones wait when there is not
/// enough for all, though never for all of it.
pub(super) fn paces(busy: Demand, quiet: Demand, calls_per_second: f64) -> (Pace, Pace) {
    let least_for_quiet = (quiet.calls as f64 / SLOWEST_LIVE.as_secs_f64()).min(calls_per_second / 4.0);
    let busy_pace = fit(busy, calls_per_second - least_for_quiet);
    let quiet_pace = fit(quiet, calls_per_second - busy_pace.calls_per_second(busy));
    (busy_pace, quiet_pace)
}

fn fit(demand: Demand, calls_per_second: f64) -> Pace {
    let period = |calls: usize| Duration::from_secs_f64(calls as f64 / calls_per_second.max(0.1));
    let live = period(demand.calls);
    if live <= SLOWEST_LIVE {
        Pace::Live(live.max(FASTEST))
    } else {
        Pace::Ordinary(period(demand.lanes).max(FASTEST_ORDINARY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Demand = Demand { lanes: 0, calls: 0 };

    fn lanes(lanes: usize) -> Demand {
        Demand { lanes, calls: lanes * 4 }
    }

    #[test]
    fn ten_queues_are_swept_twice_a_second() {
        assert_eq!(paces(lanes(10), NOTHING, 110.0).0, Pace::Live(FASTEST));
    }

    #[test]
    fn fifty_queues_are_swept_as_often_as_the_budget_allows() {
        let Pace::Live(period) = paces(lanes(50), NOTHING, 110.0).0 else { panic!("not live") };
        assert!((1.8..1.85).contains(&period.as_secs_f64()), "{period:?}");
    }

    #[test]
    fn quiet_queues_make_room_for_busy_ones() {
        let (busy, quiet) = paces(lanes(10), lanes(40), 110.0);
        assert_eq!(busy, Pace::Live(FASTEST));
        let (busy_alone, quiet_alone) = paces(lanes(10), lanes(1000), 110.0);
        assert!(matches!(busy_alone, Pace::Live(period) if period < Duration::from_millis(600)), "{busy_alone:?}");
        assert!(matches!(quiet_alone, Pace::Ordinary(_)), "{quiet_alone:?}");
        assert!(matches!(quiet, Pace::Ordinary(_) | Pace::Live(_)));
    }

    #[test]
    fn no_mix_exceeds_the_budget() {
        for (busy, quiet) in [(0, 0), (1, 0), (10, 0), (10, 40), (50, 0), (0, 1000), (110, 5), (1000, 1000)] {
            let (of_busy, of_quiet) = paces(lanes(busy), lanes(quiet), 110.0);
            let used = of_busy.calls_per_second(lanes(busy)) + of_quiet.calls_per_second(lanes(quiet));
            assert!(used <= 110.5, "{busy} busy, {quiet} quiet: {used} calls/s");
        }
    }
}
