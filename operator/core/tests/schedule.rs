//! Floors by the clock.

use std::time::Duration;

use jiff::Timestamp;
use operator_core::schedule::{AHEAD, Schedule, floors, lasts};

const HOUR: Duration = Duration::from_secs(3600);

fn at(time: &str) -> Timestamp {
    time.parse().unwrap()
}

fn entry(cron: &str, zone: &str, duration: Duration) -> Schedule {
    Schedule::parse("office", cron, zone, duration, 5).unwrap()
}

/// Whether a floor holds at each time, for pods that start at once.
fn holds(schedule: &Schedule, times: &[&str]) -> Vec<bool> {
    times.iter().map(|time| schedule.floor(at(time), Duration::ZERO).is_some()).collect()
}

#[test]
fn a_floor_holds_from_its_time_on_for_its_duration() {
    let mornings = entry("30 7 * * 1-5", "UTC", HOUR * 2);
    let friday = ["2026-08-07T07:29:59Z", "2026-08-07T07:30:00Z", "2026-08-07T09:29:59Z", "2026-08-07T09:30:00Z"];
    assert_eq!(holds(&mornings, &friday), [false, true, true, false]);
    assert_eq!(holds(&mornings, &["2026-08-08T08:00:00Z"]), [false], "a Saturday");
    let floor = mornings.floor(at("2026-08-07T08:00:00Z"), Duration::ZERO).unwrap();
    assert_eq!(
        (floor.replicas, floor.reason.as_str()),
        (5, r#"entry "office" of the schedule (30 7 * * 1-5 UTC) asks for 5"#)
    );
}

#[test]
fn a_floor_that_goes_over_midnight_holds_on_the_next_day() {
    let nights = entry("0 22 * * *", "UTC", HOUR * 8);
    assert_eq!(holds(&nights, &["2026-08-07T05:59:00Z", "2026-08-07T06:00:00Z"]), [true, false]);
}

#[test]
fn pods_are_ordered_before_the_time_by_as_long_as_they_need_to_start() {
    let schedules = [entry("0 8 * * *", "UTC", HOUR)];
    let start_up = Duration::from_secs(90);
    let ahead = |seconds: i64| at("2026-08-07T08:00:00Z") - jiff::SignedDuration::from_secs(seconds);
    let early = i64::try_from((start_up + AHEAD).as_secs()).unwrap();
    assert!(floors(&schedules, ahead(early + 1), start_up).is_empty());
    assert_eq!(floors(&schedules, ahead(early), start_up).len(), 1);
    assert!(floors(&schedules, at("2026-08-07T09:00:00Z"), start_up).is_empty(), "the end is not later for it");
}

#[test]
fn the_time_from_a_start_to_its_end_is_known_where_it_is_always_the_same() {
    let length = |start, end| lasts(start, end).unwrap();
    assert_eq!(length("0 8 * * *", "0 18 * * *"), Some(HOUR * 10));
    assert_eq!(length("0 22 * * *", "0 6 * * *"), Some(HOUR * 8), "over midnight");
    assert_eq!(length("0 0 * * 1", "0 0 * * 1"), Some(HOUR * 168));
    assert_eq!(length("0 * * * *", "0 18 * * *"), None, "it begins again before it ends");
    assert_eq!(length("0 8 * * 1-5", "0 18 * * 5"), None, "of another length each day");
    assert!(lasts("0 8 * * *", "at noon").is_err());
}

#[test]
fn entries_that_overlap_are_all_given() {
    let schedules =
        [entry("0 8 * * *", "UTC", HOUR * 4), entry("0 9 * * *", "UTC", HOUR), entry("0 20 * * *", "UTC", HOUR)];
    assert_eq!(floors(&schedules, at("2026-08-07T09:30:00Z"), Duration::ZERO).len(), 2);
}

#[test]
fn the_time_is_that_of_the_zone_in_summer_and_in_winter() {
    let mornings = entry("0 8 * * *", "Europe/Berlin", HOUR);
    assert_eq!(holds(&mornings, &["2026-08-07T05:59:00Z", "2026-08-07T06:00:00Z"]), [false, true]);
    assert_eq!(holds(&mornings, &["2026-12-07T06:59:00Z", "2026-12-07T07:00:00Z"]), [false, true]);
}

/// On 2026-03-29 the clock of Berlin went from 02:00 to 03:00, which is 01:00 UTC.
#[test]
fn a_time_that_the_clock_skips_counts_when_it_goes_on() {
    let nights = entry("30 2 * * *", "Europe/Berlin", Duration::from_secs(600));
    let times = ["2026-03-29T00:59:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:09:00Z", "2026-03-29T01:45:00Z"];
    assert_eq!(holds(&nights, &times), [false, true, true, false]);
}

/// On 2026-10-25 it went from 03:00 back to 02:00, which is 01:00 UTC.
#[test]
fn a_time_that_the_clock_shows_twice_counts_once() {
    let nights = entry("30 2 * * *", "Europe/Berlin", Duration::from_secs(600));
    let times = ["2026-10-25T00:31:00Z", "2026-10-25T00:45:00Z", "2026-10-25T01:31:00Z"];
    assert_eq!(holds(&nights, &times), [true, false, false]);
}

#[test]
fn what_can_not_be_read_names_the_value_and_what_to_write() {
    let error = |cron: &str, zone: &str| Schedule::parse("x", cron, zone, HOUR, 1).unwrap_err().to_string();
    for cron in ["", "nonsense", "61 * * * *", "* * * *", "0 0 7 * * *", "0 7 * * 1-5 2026"] {
        let message = error(cron, "UTC");
        assert!(message.starts_with(&format!("{cron:?} is not a cron expression (")), "{message}");
        assert!(message.ends_with(r#"such as "30 7 * * 1-5""#), "{message}");
    }
    let message = error("0 0 30 2 *", "UTC");
    assert!(message.starts_with(r#""0 0 30 2 *" never comes"#), "{message}");
    let message = error("0 0 * * *", "Mars/Olympus");
    assert!(message.contains(r#""Mars/Olympus" is not a time zone"#) && message.contains("Europe/Berlin"), "{message}");
}

#[test]
fn a_day_that_never_comes_is_found_out_quickly() {
    let began = std::time::Instant::now();
    Schedule::parse("x", "0 0 30 2 *", "UTC", HOUR, 1).unwrap_err();
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
}
