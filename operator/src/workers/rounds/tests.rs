use super::*;
use crate::workers::reading::{Counters, LaneReading};
use operator_core::observed::{Cordon, LaneKey, TaskType};
use std::collections::BTreeMap;

const INTERVAL: Duration = Duration::from_secs(2);

fn rounds() -> Rounds {
    Rounds::new(INTERVAL, 64)
}

fn target(pod: &str) -> Target {
    Target { pod_uid: pod.into(), url: format!("http://{pod}/metrics"), cpu_limit: None }
}

fn page(used: u64) -> Result<Reading, ReadFailure> {
    let lane = LaneKey { task_queue: "q".into(), task_type: TaskType::Activity };
    let counters = Counters { started: Some(used), ..Counters::default() };
    let lanes =
        BTreeMap::from([(lane, LaneReading { used, available: 10 - used, counters, ..LaneReading::default() })]);
    Ok(Reading { lanes, cached: None, cpu_seconds: None, cpu_limit: None, process_start: None, cordon: None })
}

fn used(rounds: &Rounds, pod: &str, now: Instant) -> Option<u64> {
    rounds.load(pod, now).0.known().map(|load| load.lanes.values().map(|slots| slots.used).sum())
}

fn read_all(rounds: &mut Rounds, now: Instant) -> Vec<Scrape> {
    std::iter::from_fn(|| rounds.next(now).ok()).collect()
}

#[test]
fn a_fleet_is_named_once_a_round_and_only_if_its_load_changed() {
    let (mut rounds, fleet, mut now) = (rounds(), FleetId::from("f"), Instant::now());
    assert!(rounds.set(&fleet, vec![target("a"), target("b")], now));
    assert!(!rounds.set(&fleet, vec![target("a"), target("b")], now));
    for (loads, named) in [([1, 2], true), ([1, 2], false), ([1, 3], true)] {
        let scrapes = read_all(&mut rounds, now);
        assert_eq!(scrapes.len(), 2);
        assert_eq!(rounds.finish(&scrapes[0], page(loads[0]), now), None);
        assert_eq!(rounds.finish(&scrapes[1], page(loads[1]), now).is_some(), named, "{loads:?}");
        assert!(read_all(&mut rounds, now).is_empty(), "a round began before its time");
        now += INTERVAL.mul_f64(SCATTER.end);
    }
}

#[test]
fn a_fleet_in_a_hurry_is_read_again_at_once_and_named_after_that() {
    let (mut rounds, fleet, now) = (rounds(), FleetId::from("f"), Instant::now());
    rounds.set(&fleet, vec![target("a")], now);
    let first = read_all(&mut rounds, now);
    rounds.hurry(&fleet, now);
    assert!(read_all(&mut rounds, now).is_empty(), "a round is under way");
    assert!(rounds.finish(&first[0], page(1), now).is_some());
    let second = read_all(&mut rounds, now);
    assert_eq!(second.len(), 1);
    assert!(rounds.finish(&second[0], page(1), now).is_some(), "nothing changed, and it is told");
    assert!(read_all(&mut rounds, now).is_empty(), "only once");
}

#[test]
fn a_fleet_is_named_when_a_pod_says_something_else_of_its_cordon() {
    let (mut rounds, fleet, mut now) = (rounds(), FleetId::from("f"), Instant::now());
    rounds.set(&fleet, vec![target("a")], now);
    for (cordon, named) in
        [(Cordon::Open, true), (Cordon::Closing, true), (Cordon::Closed, true), (Cordon::Closed, false)]
    {
        let scrape = read_all(&mut rounds, now).remove(0);
        let reading = page(0).map(|page| Reading { cordon: Some(cordon), ..page });
        assert_eq!(rounds.finish(&scrape, reading, now).is_some(), named, "{cordon:?}");
        now += INTERVAL.mul_f64(SCATTER.end);
    }
}

#[test]
fn a_round_waits_for_the_slowest_pod_of_the_last_one() {
    let (mut rounds, fleet, now) = (rounds(), FleetId::from("f"), Instant::now());
    rounds.set(&fleet, vec![target("a"), target("b")], now);
    let scrapes = read_all(&mut rounds, now);
    rounds.finish(&scrapes[0], page(1), now);
    let later = now + INTERVAL * 3;
    assert!(read_all(&mut rounds, later).is_empty());
    rounds.finish(&scrapes[1], Err(ReadFailure::Refused), later);
    assert_eq!(read_all(&mut rounds, later).len(), 2);
}

#[test]
fn a_pod_that_does_not_answer_keeps_its_last_load_which_grows_stale() {
    let (mut rounds, fleet, now) = (rounds(), FleetId::from("f"), Instant::now());
    rounds.set(&fleet, vec![target("a")], now);
    let scrape = read_all(&mut rounds, now).remove(0);
    rounds.finish(&scrape, page(4), now);
    let later = now + INTERVAL * 2;
    let scrape = read_all(&mut rounds, later).remove(0);
    assert_eq!(rounds.finish(&scrape, Err(ReadFailure::Refused), later), Some(fleet), "a failure is news");
    assert_eq!((used(&rounds, "a", later), rounds.load("a", later).1), (Some(4), Some(ReadFailure::Refused)));
    assert!(matches!(rounds.load("a", now + LOAD_FRESH * 2).0, Observation::Stale { .. }));
}

#[test]
fn pods_that_are_gone_are_forgotten_even_if_they_answer_late() {
    let (mut rounds, fleet, now) = (rounds(), FleetId::from("f"), Instant::now());
    rounds.set(&fleet, vec![target("a"), target("b")], now);
    let scrapes = read_all(&mut rounds, now);
    rounds.finish(&scrapes[0], page(1), now);
    let (gone, stays) = (&scrapes[0].target.pod_uid, &scrapes[1].target.pod_uid);
    rounds.set(&fleet, vec![target(stays)], now);
    assert_eq!(rounds.load(gone, now).0, Observation::Unknown);
    rounds.finish(&scrapes[0], page(1), now);
    assert_eq!(rounds.load(gone, now).0, Observation::Unknown, "it answered late");
    rounds.set(&fleet, vec![], now);
    assert_eq!(rounds.finish(&scrapes[1], page(1), now), None);
    assert_eq!(rounds.load("b", now).0, Observation::Unknown);
    assert!(matches!(rounds.next(now), Err(None)), "nothing is read without pods");
}

#[test]
fn a_failure_is_news_once_and_its_end_is_news_too() {
    let (mut rounds, fleet, mut now) = (rounds(), FleetId::from("f"), Instant::now());
    rounds.set(&fleet, vec![target("a")], now);
    let outcomes =
        [page(1), Err(ReadFailure::Refused), Err(ReadFailure::Refused), Err(ReadFailure::Status(500)), page(1)];
    let mut named = Vec::new();
    for outcome in outcomes {
        let scrape = rounds.next(now).expect("a read");
        named.push(rounds.finish(&scrape, outcome, now).is_some());
        now += LONGEST_RETRY;
    }
    assert_eq!(named, [true, true, false, true, true]);
    assert_eq!(rounds.load("a", now).1, None);
}

#[test]
fn a_pod_that_keeps_failing_is_read_less_often_and_again_in_every_round_once_it_answers() {
    let (mut rounds, fleet, start) = (rounds(), FleetId::from("f"), Instant::now());
    rounds.set(&fleet, vec![target("good"), target("bad")], start);
    let reads_of = |rounds: &mut Rounds, from: Duration, until: Duration, bad: fn() -> Result<Reading, ReadFailure>| {
        let (mut count, mut at) = (HashMap::from([("good", 0), ("bad", 0)]), from);
        while at < until {
            for scrape in read_all(rounds, start + at) {
                let pod = if scrape.target.pod_uid == "good" { "good" } else { "bad" };
                *count.entry(pod).or_default() += 1;
                rounds.finish(&scrape, if pod == "good" { page(1) } else { bad() }, start + at);
            }
            at += Duration::from_millis(100);
        }
        (count["good"], count["bad"])
    };
    let minute = Duration::from_secs(60);
    let (good, bad) = reads_of(&mut rounds, Duration::ZERO, minute, || Err(ReadFailure::ConnectTimeout));
    assert!((28..=32).contains(&good) && (5..=10).contains(&bad), "{good} {bad}");
    let (good, bad) = reads_of(&mut rounds, minute, minute * 2, || page(1));
    assert!(bad >= good - 8, "{good} {bad}");
}

#[test]
fn a_large_fleet_is_read_in_longer_rounds_that_keep_every_pod_fresh() {
    assert_eq!([1, 100, 150, 10_000].map(|pods| round(INTERVAL, pods)), [2, 2, 3, 6].map(Duration::from_secs));
    assert!(LONGEST_ROUND * 2 < LOAD_FRESH);
}

#[test]
fn pods_that_do_not_answer_leave_room_for_other_fleets() {
    let (mut rounds, now) = (Rounds::new(INTERVAL, 4), Instant::now());
    let (dead, alive) = (FleetId::from("dead"), FleetId::from("alive"));
    rounds.set(&dead, (0..100).map(|pod| target(&format!("dead-{pod}"))).collect(), now);
    let stuck = read_all(&mut rounds, now);
    assert_eq!(stuck.len(), 2, "half of the reads that may be under way");
    rounds.set(&alive, vec![target("alive")], now);
    let next = read_all(&mut rounds, now);
    assert_eq!(next.iter().map(|scrape| &scrape.fleet).collect::<Vec<_>>(), [&alive]);
    rounds.finish(&stuck[0], Err(ReadFailure::ConnectTimeout), now);
    assert_eq!(read_all(&mut rounds, now).len(), 1, "the fleet goes on when a read ends");
}
