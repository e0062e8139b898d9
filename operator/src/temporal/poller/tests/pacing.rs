//! How often things are read, what that does to their age, and what a server that refuses changes.

use operator_core::observed::{RateLimit, RateLimitSource};

use super::*;
use crate::temporal::budget::Kind;
use crate::temporal::poller::GATED_FRESH;

fn count(made: &[(Instant, Job)], of: impl Fn(&Job) -> bool) -> usize {
    made.iter().filter(|(_, job)| of(job)).count()
}

fn is_version(job: &Job) -> bool {
    matches!(job, Job::Version { .. })
}

fn is_live(job: &Job) -> bool {
    matches!(job, Job::Live { .. })
}

impl Bed {
    fn gate(&mut self, gated: bool) {
        let watch = Watch { gated, ..self.watch(Some("d"), &["b1"], Phase::Running) };
        self.state.set(watch, None, self.now);
    }

    /// Lets time pass until a read of a kind is under way.
    fn run_until(&mut self, of: impl Fn(&Job) -> bool) -> Job {
        for _ in 0..1000 {
            match self.next() {
                Next::Read(job) => {
                    self.in_flight += 1;
                    if of(&job) {
                        return job;
                    }
                    self.finish(&job, Ok(usual(&job)));
                }
                Next::WaitUntil(at) => self.now = at.max(self.now + Duration::from_millis(1)),
            }
        }
        panic!("no such read")
    }

    /// Watches as many fleets, each with a version and a Task Queue of its own.
    fn many(&mut self, fleets: usize, phase: Phase, gated: bool) {
        for n in 0..fleets {
            let key = LaneKey { task_queue: format!("q{n}"), task_type: TaskType::Activity };
            let name = format!("d{n}");
            let watch = Watch {
                fleet: format!("f{n}").into(),
                lanes: BTreeSet::from([key]),
                gated,
                ..self.watch(Some(&name), &["b1"], phase)
            };
            self.state.set(watch, None, self.now);
        }
    }
}

#[tokio::test]
async fn a_fleet_with_free_slots_is_read_each_25_s_and_its_statistics_count_all_the_while() {
    let mut bed = Bed::new();
    bed.gate(true);
    bed.run(Duration::from_secs(30), |_| None);
    let (mut reads, mut stale) = (0, 0);
    let end = bed.now + Duration::from_secs(300);
    while bed.now < end {
        reads += count(&bed.run(Duration::from_millis(500), |_| None), is_version);
        stale += usize::from(!matches!(bed.lane(), Some(Observation::Known { .. })));
    }
    assert!((9..=13).contains(&reads), "{reads} reads in 300 s");
    assert_eq!(stale, 0);
    bed.gate(false);
    let made = bed.run(Duration::from_secs(60), |_| None);
    assert!((10..=13).contains(&count(&made, is_version)), "{} reads in 60 s", count(&made, is_version));
}

#[tokio::test]
async fn a_reading_that_counted_for_free_slots_is_stale_without_them_and_read_at_once() {
    let mut bed = Bed::new();
    bed.gate(true);
    bed.run(Duration::from_secs(2), |_| None);
    bed.now += GATED_FRESH - Duration::from_secs(5);
    assert!(matches!(bed.lane(), Some(Observation::Known { .. })), "{:?}", bed.lane());
    bed.gate(false);
    assert!(matches!(bed.lane(), Some(Observation::Stale { .. })), "{:?}", bed.lane());
    let due = bed.due();
    let version = due.iter().find(|job| is_version(job)).expect("read at once");
    let told = bed.finish(version, Ok(usual(version)));
    assert_eq!(told, [fleet()], "the same statistics, but fresh ones now");
    assert!(matches!(bed.lane(), Some(Observation::Known { .. })));
    bed.gate(true);
    bed.now += GATED_FRESH + Duration::from_secs(1);
    assert!(matches!(bed.lane(), Some(Observation::Stale { .. })), "not for ever");
}

#[tokio::test]
async fn reads_of_versions_stay_within_25_a_second_and_fleets_that_are_full_come_first() {
    let mut bed = Bed::new();
    bed.many(250, Phase::Running, true);
    let hot: Vec<Watch> = (0..50)
        .map(|n| Watch { fleet: format!("hot{n}").into(), ..bed.watch(Some("hot"), &["b1"], Phase::Running) })
        .collect();
    for watch in hot {
        bed.state.set(watch, None, bed.now);
    }
    bed.run(Duration::from_secs(60), |_| None);
    let made = bed.run(Duration::from_secs(60), |_| None);
    let is_hot = |job: &Job| matches!(job, Job::Version { name, .. } if name == "hot");
    let (hot, all) = (count(&made, is_hot), count(&made, |job| job.kind() == Kind::Deployment));
    assert!(all <= 60 * 25 + 25, "{all} reads in 60 s");
    let (of_hot, of_steady) = (hot as f64 / 50.0, (count(&made, is_version) - hot) as f64 / 250.0);
    assert!(of_hot > 8.0, "{of_hot} reads a full fleet in 60 s");
    assert!((1.4..3.0).contains(&of_steady), "{of_steady} reads a fleet with free slots in 60 s");
    assert_eq!(bed.snapshot().degraded, None);
}

#[tokio::test]
async fn more_than_the_budget_can_read_in_time_is_said() {
    let mut bed = Bed::new();
    bed.many(400, Phase::Running, false);
    bed.run(Duration::from_secs(2), |_| None);
    let few = bed.state.snapshot(&"f0".into(), bed.now);
    assert_eq!(few.degraded, None, "slower than usual, but within what is borne");
    bed.many(2000, Phase::Running, false);
    bed.run(Duration::from_secs(2), |_| None);
    let many = bed.state.snapshot(&"f0".into(), bed.now);
    let factor = many.degraded.expect("degraded").factor;
    assert!((3.0..4.5).contains(&factor), "{factor}: 2000 versions and deployments at 24 s and 120 s, on 25 a second");
    for n in 1..2000 {
        bed.state.remove(&FleetId::from(format!("f{n}")), &bed.budget);
    }
    bed.run(Duration::from_secs(2), |_| None);
    assert_eq!(bed.state.snapshot(&"f0".into(), bed.now).degraded, None);
}

#[tokio::test]
async fn fleets_that_are_seen_first_together_are_not_read_in_step_for_ever() {
    let mut bed = Bed::new();
    bed.many(20, Phase::Running, false);
    bed.run(Duration::from_secs(3), |_| None);
    let made = bed.run(Duration::from_secs(20), |_| None);
    let start = bed.now - Duration::from_secs(20);
    let mut by_half_second = BTreeMap::new();
    for (at, _) in made.iter().filter(|(_, job)| is_version(job)) {
        *by_half_second.entry((*at - start).as_millis() / 500).or_insert(0) += 1;
    }
    let busiest = by_half_second.values().max();
    assert!(busiest.is_some_and(|reads| *reads <= 9), "{busiest:?} of 20 versions within half a second");
}

#[tokio::test]
async fn refused_reads_of_versions_do_not_slow_the_watch_over_queues_at_zero() {
    let mut bed = Bed::new();
    bed.set(Some("d"), &["b1"], Phase::AtZero);
    let (mut live, mut refused) = (0, 0);
    let end = bed.now + Duration::from_secs(20);
    while bed.now < end {
        for job in bed.due() {
            live += usize::from(is_live(&job));
            let refuse = job.kind() == Kind::Deployment;
            refused += usize::from(refuse);
            let exhausted = || Err(CallError::local(FailureClass::ResourceExhausted, "slow down"));
            bed.finish(&job, if refuse { exhausted() } else { Ok(usual(&job)) });
        }
        bed.now += Duration::from_millis(10);
    }
    assert!(refused > 0 && live > 60, "{live} live reads in 20 s, {refused} refusals");
}

#[tokio::test]
async fn a_server_that_names_a_time_is_not_asked_before() {
    let mut bed = Bed::new();
    bed.set(None, &[], Phase::AtZero);
    bed.run(Duration::from_secs(2), |_| None);
    let job = bed.run_until(is_live);
    let mut status = tonic::Status::resource_exhausted("slow down");
    status.metadata_mut().insert("retry-after", "20".parse().unwrap());
    bed.finish(&job, Err(CallError::from(&status)));
    let made = bed.run(Duration::from_millis(19_900), |_| None);
    assert_eq!(made, []);
    assert!(!bed.run(Duration::from_secs(1), |_| None).is_empty());
}

#[tokio::test]
async fn queues_at_zero_wait_longer_for_a_look_when_none_had_a_task_for_half_an_hour() {
    let mut bed = Bed::new();
    bed.many(40, Phase::AtZero, false);
    let busy = |job: &Job| matches!(job, Job::Live { lane, .. } if lane.task_queue == "q0");
    let other = |job: &Job| matches!(job, Job::Live { lane, .. } if lane.task_queue == "q1");
    bed.run(Duration::from_secs(1900), |job| busy(job).then_some(Answer::Live(waiting(1))));
    let made = bed.run(Duration::from_secs(60), |job| busy(job).then_some(Answer::Live(waiting(1))));
    let (often, seldom) = (count(&made, busy), count(&made, other));
    assert!(often as f64 > 1.3 * seldom as f64 && seldom > 20, "{often} and {seldom} in 60 s");
}

#[tokio::test]
async fn the_rate_limit_of_a_queue_goes_with_the_statistics_of_its_version() {
    let limit = Some(RateLimit { per_second: 10.0, source: RateLimitSource::Worker });
    let mut bed = Bed::new();
    bed.set(Some("d"), &["b1"], Phase::Running);
    let answer = |limiting: bool| {
        move |job: &Job| match job {
            Job::Stats { .. } => Some(Answer::Stats(LaneStats { rate_limit: limit, ..stats(0) })),
            Job::Version { .. } => {
                let mut told = version(3);
                told.stats.values_mut().for_each(|stats| stats.rate_limiting = limiting);
                Some(Answer::Version(Some(told)))
            }
            _ => None,
        }
    };
    let is_stats = |job: &Job| matches!(job, Job::Stats { .. });
    bed.run(Duration::from_secs(20), answer(false));
    let seen = |bed: &Bed| bed.lane().and_then(|lane| lane.known().copied()).expect("known");
    assert_eq!((seen(&bed).rate_limit, seen(&bed).rate_limiting), (limit, false));
    let made = bed.run(Duration::from_secs(300), answer(false));
    assert!(count(&made, is_stats) <= 2, "{} looks at a limit that holds nothing back", count(&made, is_stats));
    let made = bed.run(Duration::from_secs(300), answer(true));
    assert!((8..=14).contains(&count(&made, is_stats)), "{} looks at one that does", count(&made, is_stats));
    assert_eq!((seen(&bed).rate_limit, seen(&bed).rate_limiting), (limit, true));
}

#[tokio::test]
async fn a_rate_limit_that_one_reading_leaves_out_stands_and_is_asked_for_again() {
    let limit = RateLimit { per_second: 2.0, source: RateLimitSource::Api };
    let with = |limit: Option<RateLimit>| {
        move |job: &Job| match job {
            Job::Stats { .. } => Some(Answer::Stats(LaneStats { rate_limit: limit, ..stats(9) })),
            Job::Version { .. } => Some(Answer::Version(Some(version(9)))),
            Job::Live { .. } => Some(Answer::Live(Some(LiveStatus { backlog: 9, rate_limit: limit }))),
            _ => None,
        }
    };
    let seen = |bed: &Bed| bed.lane().and_then(|lane| lane.known().and_then(|stats| stats.rate_limit));
    let mut bed = Bed::new();
    bed.set(Some("d"), &["b1"], Phase::AtZero);
    bed.run(Duration::from_secs(5), with(Some(limit)));
    // However long ago it was told.
    bed.now += Duration::from_secs(20);
    bed.set(Some("d"), &["b1"], Phase::Running);
    let made = bed.run(Duration::from_secs(2), with(None));
    assert_eq!((count(&made, |job| matches!(job, Job::Stats { .. })) > 0, seen(&bed)), (true, Some(limit)));
    bed.run(Duration::from_secs(40), with(None));
    assert_eq!(seen(&bed), None, "the control: it is gone for good");
}

#[tokio::test]
async fn a_version_that_lost_the_traffic_is_read_each_half_minute() {
    let mut bed = Bed::new();
    bed.set(Some("d"), &["b2", "b1"], Phase::Running);
    let of = |wanted: &'static str| move |job: &Job| matches!(job, Job::Version { build_id, .. } if build_id == wanted);
    let answer = |job: &Job| {
        let draining = VersionReading { status: VersionStatus::Draining, ..version(2) };
        of("b1")(job).then_some(Answer::Version(Some(draining)))
    };
    bed.run(Duration::from_secs(40), answer);
    let made = bed.run(Duration::from_secs(300), answer);
    let (target, old) = (count(&made, of("b2")), count(&made, of("b1")));
    assert!((50..=62).contains(&target) && (8..=11).contains(&old), "{target} and {old} reads in 300 s");
}

#[tokio::test]
async fn a_queue_at_zero_has_its_rate_limit_from_the_live_status() {
    let limit = RateLimit { per_second: 3.5, source: RateLimitSource::Api };
    let mut bed = Bed::new();
    bed.set(None, &[], Phase::AtZero);
    bed.run(Duration::from_secs(2), |job| {
        is_live(job).then_some(Answer::Live(Some(LiveStatus { backlog: 9, rate_limit: Some(limit) })))
    });
    assert_eq!(bed.lane().and_then(|lane| lane.known().and_then(|stats| stats.rate_limit)), Some(limit));
}
