//! Reading a Worker's histograms of times.

use std::time::Duration;

use super::flow::real;
use crate::observed::Waits;

/// What is beyond the last edge counts as that long.
const BEYOND: Duration = Duration::from_secs(604_800);

/// How many of the times were at most `limit`, of all; interpolated between the edges. None of an empty histogram.
pub(super) fn within(histogram: &Waits, limit: Duration) -> Option<(f64, f64)> {
    let (_, all) = histogram.0.last()?;
    let (mut edge, mut count) = (Duration::ZERO, 0);
    for (next, more) in &histogram.0 {
        if *next >= limit {
            let share = if *next == Duration::MAX { 0.0 } else { ratio(limit.saturating_sub(edge), *next - edge) };
            return Some((real(count) + real(more.saturating_sub(count)) * share, real(*all)));
        }
        (edge, count) = (*next, *more);
    }
    Some((real(count), real(*all)))
}

/// How many of all times were longer than the highest edge that is at most `limit`, and than the lowest that is at least it;
/// all of them where there is no such edge.
pub(super) fn beyond(histogram: &Waits, limit: Duration) -> Option<[f64; 3]> {
    let (_, all) = histogram.0.last()?;
    let below = histogram.0.iter().rev().find(|(edge, _)| *edge <= limit).map_or(0, |(_, count)| *count);
    let above =
        histogram.0.iter().find(|(edge, _)| (limit..Duration::MAX).contains(edge)).map_or(below, |(_, count)| *count);
    Some([real(*all), real(all.saturating_sub(below)), real(all.saturating_sub(above))])
}

/// How many times there are, and how many seconds all of them are together at most: each is at most the edge above it.
pub(super) fn at_most(histogram: &Waits) -> [f64; 2] {
    let (mut count, mut seconds) = (0, 0.0);
    for (edge, more) in &histogram.0 {
        seconds += real(more.saturating_sub(count)) * edge.min(&BEYOND).as_secs_f64();
        count = *more;
    }
    [real(count), seconds]
}

fn ratio(part: Duration, whole: Duration) -> f64 {
    if whole.is_zero() { 1.0 } else { part.as_secs_f64() / whole.as_secs_f64() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{at_most, beyond, within};
    use crate::observed::Waits;

    fn histogram() -> Waits {
        let seconds = Duration::from_secs;
        Waits(vec![(seconds(1), 10), (seconds(5), 30), (seconds(10), 40), (Duration::MAX, 50)])
    }

    #[test]
    fn an_edge_is_exact_and_between_two_it_is_a_straight_line() {
        let at = |seconds| within(&histogram(), Duration::from_secs(seconds)).unwrap();
        assert_eq!([at(1), at(5), at(3)], [(10.0, 50.0), (30.0, 50.0), (20.0, 50.0)]);
        assert_eq!(at(60), (40.0, 50.0), "what is beyond the last edge is later than anything");
        assert_eq!(within(&Waits::default(), Duration::ZERO), None);
    }

    #[test]
    fn the_tail_is_told_by_the_edges_on_both_sides() {
        let at = |seconds| beyond(&histogram(), Duration::from_secs(seconds)).unwrap();
        assert_eq!(at(7), [50.0, 20.0, 10.0]);
        assert_eq!(at(10), [50.0, 10.0, 10.0]);
        assert_eq!(at(30), [50.0, 10.0, 10.0], "no edge above: what may be longer counts as longer");
    }

    #[test]
    fn no_time_is_longer_than_the_edge_above_it() {
        assert_eq!(at_most(&Waits::default()), [0.0, 0.0]);
        let mut known = histogram();
        known.0.pop();
        assert_eq!(at_most(&known), [40.0, 10.0 + 100.0 + 100.0]);
        assert_eq!(at_most(&histogram()), [50.0, 210.0 + 10.0 * 604_800.0], "what is beyond the last may be anything");
    }
}
