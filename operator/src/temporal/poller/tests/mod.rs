//! What is read when, and what is made of it, with a clock that the test turns.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use operator_core::observed::{
    DeploymentInfo, FailureClass, LaneKey, LaneStats, Observation, Ramp, TaskType, TemporalState, VersionStatus,
};
use tokio::time::Instant;

use super::outcome::Answer;
use super::schedule::{Job, Next};
use super::state::State;
use super::{LIVE_FRESH, Phase, STATS_FRESH, Watch};
use crate::changes::FleetId;
use crate::temporal::api::{DeploymentReading, LiveStatus, Partitions, VersionReading};
use crate::temporal::budget::Budget;
use crate::temporal::errors::CallError;
use crate::temporal::lists::Settled;
use crate::temporal::{Connection, ConnectionSpec, Credentials, Limits, Metrics, Pool, PoolKey};

mod gates;
mod hints;
mod listed;
mod pacing;
mod settled;
mod starts;

const PARTITIONS: Partitions = Partitions { workflow: 2, activity: 2 };

struct Bed {
    state: State,
    budget: Arc<Budget>,
    connection: Arc<Connection>,
    now: Instant,
    in_flight: usize,
}

impl Bed {
    fn new() -> Self {
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let key = PoolKey {
            kubernetes_namespace: "tests".into(),
            connection_uid: "c".into(),
            connection_generation: 1,
            secret: None,
            ca_secret: None,
        };
        let spec = ConnectionSpec {
            host_port: "localhost:1".into(),
            server_name: None,
            credentials: Credentials::None,
            ca_cert: None,
        };
        let connection = Pool::new(Limits::default(), metrics).connect(key, &spec).unwrap();
        let budget = connection.budget("default");
        Self { state: State::default(), budget, connection, now: Instant::now(), in_flight: 0 }
    }

    fn watch(&self, deployment: Option<&str>, build_ids: &[&str], phase: Phase) -> Watch {
        Watch {
            fleet: fleet(),
            namespace: "default".into(),
            connection: self.connection.clone(),
            deployment_name: deployment.map(str::to_owned),
            build_ids: build_ids.iter().map(|id| (*id).to_owned()).collect(),
            main: build_ids.first().map(|id| (*id).to_owned()),
            lanes: BTreeSet::from([lane()]),
            phase,
            gated: false,
            remembered: None,
        }
    }

    fn set(&mut self, deployment: Option<&str>, build_ids: &[&str], phase: Phase) {
        let watch = self.watch(deployment, build_ids, phase);
        self.state.set(watch, None, self.now);
    }

    fn next(&mut self) -> Next {
        self.state.next(self.now, self.in_flight, &self.budget, |_| true)
    }

    /// Every read that is due now; all are under way afterwards.
    fn due(&mut self) -> Vec<Job> {
        let mut jobs = Vec::new();
        while let Next::Read(job) = self.next() {
            jobs.push(job);
            self.in_flight += 1;
        }
        jobs
    }

    fn finish(&mut self, job: &Job, outcome: Result<Answer, CallError>) -> Vec<FleetId> {
        self.in_flight -= 1;
        self.state.finish(job, outcome, (self.now, self.now), &self.budget)
    }

    /// Lets time pass, and answers every read with what a server would say: no backlog, unless `answer` says otherwise.
    fn run(&mut self, time: Duration, answer: impl Fn(&Job) -> Option<Answer>) -> Vec<(Instant, Job)> {
        let end = self.now + time;
        let mut made = Vec::new();
        while self.now < end {
            match self.next() {
                Next::Read(job) => {
                    self.in_flight += 1;
                    made.push((self.now, job.clone()));
                    let said = answer(&job).unwrap_or_else(|| usual(&job));
                    self.finish(&job, Ok(said));
                }
                Next::WaitUntil(at) => self.now = at.max(self.now + Duration::from_millis(1)).min(end),
            }
        }
        made
    }

    /// The Worker Deployment, read lately.
    fn info(&self) -> DeploymentInfo {
        self.snapshot().deployment.known().cloned().flatten().expect("known")
    }

    fn snapshot(&self) -> TemporalState {
        self.state.snapshot(&fleet(), self.now)
    }

    fn lane(&self) -> Option<Observation<LaneStats>> {
        self.snapshot().lanes.get(&lane()).cloned()
    }
}

fn fleet() -> FleetId {
    "f".into()
}

fn lane() -> LaneKey {
    LaneKey { task_queue: "q".into(), task_type: TaskType::Activity }
}

fn stats(backlog: u64) -> LaneStats {
    LaneStats { backlog, add_rate: Some(1.0), ..LaneStats::default() }
}

fn waiting(backlog: u64) -> Option<LiveStatus> {
    Some(LiveStatus { backlog, rate_limit: None })
}

fn version(backlog: u64) -> VersionReading {
    let lanes = BTreeSet::from([lane()]);
    let stats = BTreeMap::from([(lane(), stats(backlog))]);
    VersionReading { status: VersionStatus::Current, lanes, stats, ..VersionReading::default() }
}

fn usual(job: &Job) -> Answer {
    match job {
        Job::Partitions { .. } => Answer::Partitions(PARTITIONS),
        Job::Live { .. } => Answer::Live(waiting(0)),
        Job::Stats { .. } => Answer::Stats(stats(0)),
        Job::List => Answer::List(Settled::new()),
        Job::Starts { .. } => Answer::Starts(BTreeMap::new()),
        Job::Deployment { .. } => Answer::Deployment(Some(DeploymentReading::default())),
        Job::Test { .. } => Answer::Test(None),
        Job::Version { .. } => Answer::Version(Some(version(0))),
    }
}

fn unreachable() -> CallError {
    CallError::local(FailureClass::Unreachable, "connection refused")
}

fn backlog(observation: Option<Observation<LaneStats>>) -> Option<u64> {
    observation.as_ref().and_then(Observation::known).map(|stats| stats.backlog)
}

#[tokio::test]
async fn a_lane_at_zero_is_read_partition_by_partition() {
    let mut bed = Bed::new();
    bed.set(None, &[], Phase::AtZero);
    assert_eq!(bed.due(), [Job::Partitions { queue: "q".into() }]);
    bed.finish(&Job::Partitions { queue: "q".into() }, Ok(Answer::Partitions(PARTITIONS)));
    let made = bed.run(Duration::from_secs(10), |_| None);
    let partitions: Vec<usize> = made
        .iter()
        .filter_map(|(_, job)| match job {
            Job::Live { partition, .. } => Some(*partition),
            _ => None,
        })
        .collect();
    assert!((36..=44).contains(&partitions.len()), "{} reads in 10 s", partitions.len());
    assert!(partitions.iter().enumerate().all(|(n, partition)| n % 2 == *partition), "{partitions:?}");
}

#[tokio::test]
async fn zero_is_known_only_once_every_partition_was_read_and_more_than_zero_at_once() {
    let mut bed = Bed::new();
    bed.set(None, &[], Phase::AtZero);
    let read = |partition| Job::Live { lane: lane(), partition };
    let take = |bed: &mut Bed, partition, backlog| {
        bed.in_flight += 1;
        bed.finish(&read(partition), Ok(Answer::Live(waiting(backlog))))
    };
    bed.due();
    bed.in_flight = 1;
    bed.finish(&Job::Partitions { queue: "q".into() }, Ok(Answer::Partitions(PARTITIONS)));
    take(&mut bed, 0, 0);
    assert_eq!(bed.lane(), None);
    assert_eq!(take(&mut bed, 1, 3), [fleet()]);
    assert_eq!(backlog(bed.lane()), Some(3));
    assert_eq!(take(&mut bed, 1, 3), [], "nothing new");
    assert_eq!(take(&mut bed, 1, 0), [fleet()], "it is empty now");
    assert_eq!(take(&mut bed, 0, 2), [fleet()]);
    assert_eq!(take(&mut bed, 0, 1), [], "less is nothing to hurry for");
    bed.now += LIVE_FRESH * 2;
    assert!(matches!(bed.lane(), Some(Observation::Stale { value, .. }) if value.backlog == 1));
}

#[tokio::test]
async fn a_server_without_live_status_is_read_by_statistics_and_asked_again_later() {
    let mut bed = Bed::new();
    bed.set(None, &[], Phase::AtZero);
    let silent = |job: &Job| matches!(job, Job::Live { .. }).then_some(Answer::Live(None));
    let made = bed.run(Duration::from_secs(60), silent);
    let live = made.iter().filter(|(_, job)| matches!(job, Job::Live { .. })).count();
    let ordinary = made.iter().filter(|(_, job)| matches!(job, Job::Stats { .. })).count();
    assert_eq!(live, 1);
    assert!((50..=60).contains(&ordinary), "{ordinary} statistics in 60 s");
    assert_eq!(backlog(bed.lane()), Some(0));
    let made = bed.run(Duration::from_secs(600), silent);
    assert_eq!(made.iter().filter(|(_, job)| matches!(job, Job::Live { .. })).count(), 1);
}

#[tokio::test]
async fn a_version_that_was_not_asked_for_is_not_one_that_is_missing() {
    let mut bed = Bed::new();
    bed.set(Some("d"), &["b1"], Phase::Running);
    bed.run(Duration::from_secs(1), |_| None);
    assert!(bed.snapshot().deployment.known().is_some());
    bed.set(Some("d"), &["b2", "b1"], Phase::Registering);
    assert_eq!(bed.info().known_version("b2"), None);
    bed.run(Duration::from_secs(1), |job| match job {
        Job::Version { build_id, .. } if build_id == "b2" => Some(Answer::Version(None)),
        _ => None,
    });
    assert_eq!(bed.info().known_version("b2"), Some(None));
    assert!(matches!(bed.info().known_version("b1"), Some(Some(_))));
}

#[tokio::test]
async fn versions_of_a_missing_deployment_are_not_asked_for_until_it_is_there() {
    let mut bed = Bed::new();
    bed.set(Some("d"), &["b1"], Phase::Registering);
    let missing = |job: &Job| match job {
        Job::Deployment { .. } => Some(Answer::Deployment(None)),
        Job::Version { .. } => Some(Answer::Version(None)),
        _ => None,
    };
    bed.run(Duration::from_secs(2), missing);
    assert_eq!(bed.snapshot().deployment.known(), Some(&None));
    let made = bed.run(Duration::from_secs(5), missing);
    assert!(!made.iter().any(|(_, job)| matches!(job, Job::Version { .. })));
    let made = bed.run(Duration::from_secs(2), |_| None);
    assert!(made.iter().any(|(_, job)| matches!(job, Job::Version { .. })));
}

#[tokio::test]
async fn the_backlog_of_a_fleet_is_that_of_the_version_that_does_the_work_and_each_has_its_own() {
    let mut bed = Bed::new();
    let watch = bed.watch(Some("d"), &["b2", "b1"], Phase::Running);
    bed.state.set(Watch { main: Some("b1".into()), ..watch }, None, bed.now);
    let answer = |job: &Job| match job {
        Job::Version { build_id, .. } => Some(Answer::Version(Some(version(if build_id == "b1" { 30 } else { 4 })))),
        _ => None,
    };
    bed.run(Duration::from_secs(1), answer);
    assert_eq!(backlog(bed.lane()), Some(30));
    let info = bed.info();
    let own = |id: &str| info.version(id).map(|version| version.stats[&lane()].backlog);
    assert_eq!((own("b1"), own("b2")), (Some(30), Some(4)));
    let failing = Job::Version { fleet: fleet(), name: "d".into(), build_id: "b1".into() };
    let mut doubted = false;
    let end = bed.now + STATS_FRESH + Duration::from_secs(10);
    while bed.now < end {
        for job in bed.due() {
            let fails = job == failing || matches!(job, Job::Stats { .. });
            let internal = || Err(CallError::local(FailureClass::Other, "internal"));
            bed.finish(&job, if fails { internal() } else { Ok(usual(&job)) });
        }
        doubted |= matches!(bed.lane(), Some(Observation::Stale { .. }));
        bed.now += Duration::from_secs(1);
    }
    assert!(doubted && matches!(bed.lane(), Some(Observation::Stale { .. })), "{:?}", bed.lane());
    assert!(bed.snapshot().failure.is_some());
}

#[tokio::test]
async fn the_queue_tells_of_a_lane_whose_version_can_not_be_read_often_enough() {
    let mut bed = Bed::new();
    bed.set(Some("d"), &["b1"], Phase::Running);
    bed.run(Duration::from_secs(1), |_| None);
    let end = bed.now + Duration::from_secs(60);
    while bed.now < end {
        for job in bed.due() {
            let outcome = match &job {
                Job::Version { .. } => Err(CallError::local(FailureClass::ResourceExhausted, "slow down")),
                Job::Stats { .. } => Ok(Answer::Stats(stats(8))),
                job => Ok(usual(job)),
            };
            bed.finish(&job, outcome);
        }
        bed.now += Duration::from_millis(100);
    }
    assert_eq!(backlog(bed.lane()), Some(8));
    assert_eq!(bed.snapshot().failure.map(|failure| failure.class), Some(FailureClass::ResourceExhausted));
}

#[tokio::test]
async fn a_version_that_does_not_register_is_asked_for_less_and_less() {
    let mut bed = Bed::new();
    bed.set(Some("d"), &["b1"], Phase::Registering);
    let absent = |job: &Job| matches!(job, Job::Deployment { .. }).then_some(Answer::Deployment(None));
    let reads =
        |made: Vec<(Instant, Job)>| made.iter().filter(|(_, job)| matches!(job, Job::Deployment { .. })).count();
    let first = reads(bed.run(Duration::from_secs(60), absent));
    assert!((54..=66).contains(&first), "{first} in the first minute");
    bed.run(Duration::from_secs(120), absent);
    let later = reads(bed.run(Duration::from_secs(60), absent));
    assert!((9..=15).contains(&later), "{later} in a later minute");
}

#[tokio::test]
async fn an_old_version_that_could_not_be_read_lately_leaves_no_doubt_of_the_one_that_does_the_work() {
    let mut bed = Bed::new();
    bed.set(Some("d"), &["b2", "b1"], Phase::Running);
    bed.run(Duration::from_secs(1), |_| None);
    bed.now += STATS_FRESH * 2;
    let read = |bed: &mut Bed, build_id: &str| {
        let job = Job::Version { fleet: fleet(), name: "d".into(), build_id: build_id.into() };
        bed.in_flight += 1;
        bed.finish(&job, Ok(usual(&job)));
    };
    read(&mut bed, "b1");
    assert!(matches!(bed.lane(), Some(Observation::Stale { .. })), "the other's reading does not stand in for its own");
    read(&mut bed, "b2");
    bed.now += STATS_FRESH / 2;
    assert!(matches!(bed.lane(), Some(Observation::Known { .. })), "{:?}", bed.lane());
}

#[tokio::test]
async fn statistics_replace_a_live_reading_only_once_they_must_be_newer() {
    let mut bed = Bed::new();
    bed.set(Some("d"), &["b1"], Phase::AtZero);
    bed.run(Duration::from_secs(2), |job| match job {
        Job::Live { partition: 0, .. } => Some(Answer::Live(waiting(7))),
        _ => None,
    });
    bed.set(Some("d"), &["b1"], Phase::Running);
    bed.run(Duration::from_secs(1), |job| matches!(job, Job::Live { .. }).then_some(Answer::Live(waiting(7))));
    assert_eq!(backlog(bed.lane()), Some(14), "statistics of zero may be as old as their cache");
    let answer = |job: &Job| match job {
        Job::Live { .. } => Some(Answer::Live(waiting(7))),
        Job::Version { .. } => Some(Answer::Version(Some(version(2)))),
        _ => None,
    };
    let made = bed.run(Duration::from_secs(12), answer);
    let last_live = made.iter().rev().find(|(_, job)| matches!(job, Job::Live { .. })).expect("live reads").0;
    assert!(bed.now - last_live > Duration::from_secs(1), "the live reads have ended");
    assert_eq!(backlog(bed.lane()), Some(14), "the statistics after them may be from the cache");
    bed.run(Duration::from_secs(10), answer);
    assert_eq!(backlog(bed.lane()), Some(2));
}

#[tokio::test]
async fn pinned_tasks_count_at_zero_though_no_live_reading_has_them() {
    let mut bed = Bed::new();
    bed.set(Some("d"), &["b1"], Phase::AtZero);
    bed.run(Duration::from_secs(12), |job| {
        matches!(job, Job::Version { .. }).then(|| Answer::Version(Some(version(5))))
    });
    assert_eq!(backlog(bed.lane()), Some(5));
}

#[tokio::test]
async fn a_lane_that_no_version_knows_is_read_by_its_queue() {
    let mut bed = Bed::new();
    bed.set(Some("d"), &["b1"], Phase::Running);
    let unregistered = |job: &Job| match job {
        Job::Version { .. } => Some(Answer::Version(Some(VersionReading::default()))),
        Job::Stats { .. } => Some(Answer::Stats(stats(9))),
        _ => None,
    };
    bed.run(Duration::from_secs(1), unregistered);
    assert_eq!(backlog(bed.lane()), Some(9));
    bed.run(Duration::from_secs(6), |_| None);
    let made = bed.run(Duration::from_secs(20), |_| None);
    assert!(!made.iter().any(|(_, job)| matches!(job, Job::Stats { .. })), "its version tells of it now");
}

#[tokio::test]
async fn rates_of_a_queue_that_was_just_loaded_are_left_out() {
    let mut bed = Bed::new();
    bed.set(Some("d"), &["b1"], Phase::Running);
    bed.run(Duration::from_secs(1), |_| None);
    let rate = |bed: &Bed| bed.lane().and_then(|lane| lane.known().and_then(|stats| stats.add_rate));
    assert_eq!(rate(&bed), None);
    bed.run(Duration::from_secs(15), |_| None);
    assert_eq!(rate(&bed), Some(1.0));
}

#[tokio::test]
async fn a_server_that_is_down_is_probed_by_one_call_at_a_time_and_read_in_full_when_it_is_back() {
    for class in [FailureClass::Unreachable, FailureClass::Unauthenticated, FailureClass::NamespaceNotFound] {
        goes_down_and_comes_back(class);
    }
}

fn goes_down_and_comes_back(class: FailureClass) {
    let mut bed = Bed::new();
    let mut watch = bed.watch(Some("d"), &["b1"], Phase::AtZero);
    watch.lanes.extend((0..9).map(|n| LaneKey { task_queue: format!("q{n}"), task_type: TaskType::Activity }));
    bed.state.set(watch, None, bed.now);
    bed.run(Duration::from_secs(2), |_| None);
    let (mut probes, mut told) = (Vec::new(), 0);
    let end = bed.now + Duration::from_secs(600);
    while bed.now < end {
        let due = bed.due();
        if !due.is_empty() {
            probes.push((bed.now, due.len()));
        }
        for job in due {
            told += bed.finish(&job, Err(CallError::local(class, "down"))).len();
        }
        bed.now += Duration::from_millis(50);
    }
    // What was under way together when it went down failed together.
    let down = &probes[2..];
    assert!(down.iter().all(|(_, calls)| *calls == 1), "{down:?}");
    assert!((120..=200).contains(&down.len()), "{} probes in ten minutes", down.len());
    let longest = down.windows(2).map(|pair| pair[1].0 - pair[0].0).max().expect("probes");
    assert!(longest <= Duration::from_millis(5100), "{longest:?}");
    assert!(told <= 5, "the fleet was told {told} times of one failure");
    assert_eq!(bed.snapshot().failure.map(|failure| failure.class), Some(class));
    assert!(matches!(bed.lane(), Some(Observation::Stale { .. })));

    let before = bed.now;
    while bed.state.health.failure.is_some() {
        bed.run(Duration::from_millis(10), |_| None);
    }
    assert!(bed.now - before <= Duration::from_secs(5), "{:?}", bed.now - before);
    bed.run(Duration::from_millis(600), |_| None);
    assert_eq!(bed.snapshot().failure, None);
    assert_eq!(backlog(bed.lane()), Some(0));
}

#[tokio::test]
async fn a_read_that_stands_in_while_the_server_is_down_leaves_no_failure_behind() {
    let mut bed = Bed::new();
    bed.set(Some("d"), &["b1"], Phase::Running);
    bed.run(Duration::from_secs(20), |_| None);
    let (back, end) = (bed.now + Duration::from_secs(60), bed.now + Duration::from_secs(75));
    let mut stand_ins = 0;
    while bed.now < end {
        for job in bed.due() {
            // The last one to stand in is still under way when the server answers again, and runs into its deadline.
            let stands_in = matches!(job, Job::Stats { .. });
            stand_ins += usize::from(stands_in);
            // Later ones are those that every queue has now and then.
            let fails = bed.now < back || stands_in && bed.now < back + Duration::from_secs(5);
            bed.finish(&job, if fails { Err(unreachable()) } else { Ok(usual(&job)) });
        }
        bed.now += Duration::from_millis(50);
    }
    assert!(stand_ins > 0, "the queue's statistics are read while those of the version are old");
    assert_eq!(bed.snapshot().failure, None);
}

#[tokio::test]
async fn one_read_that_fails_stops_no_other() {
    let mut bed = Bed::new();
    bed.set(Some("d"), &["b1"], Phase::AtZero);
    let (mut live, end) = (0, bed.now + Duration::from_secs(20));
    while bed.now < end {
        for job in bed.due() {
            let fails = matches!(job, Job::Deployment { .. });
            live += usize::from(matches!(job, Job::Live { .. }));
            bed.finish(&job, if fails { Err(unreachable()) } else { Ok(usual(&job)) });
        }
        bed.now += Duration::from_millis(10);
    }
    assert!(live > 60, "{live} live reads in 20 s");
    assert_eq!(backlog(bed.lane()), Some(0));
    assert!(bed.snapshot().failure.is_some());
    assert!(matches!(bed.snapshot().deployment, Observation::Unknown), "nothing is made up");
}

#[tokio::test]
async fn a_poke_reads_again_even_what_is_under_way() {
    let mut bed = Bed::new();
    bed.set(Some("d"), &["b1"], Phase::Running);
    bed.run(Duration::from_secs(1), |_| None);
    bed.state.poke(&fleet(), bed.now);
    let first = bed.due();
    assert!(first.iter().any(|job| matches!(job, Job::Deployment { .. })), "{first:?}");
    bed.state.poke(&fleet(), bed.now);
    assert!(bed.due().is_empty(), "not twice at a time");
    for job in &first {
        bed.finish(job, Ok(usual(job)));
    }
    let again = bed.due();
    assert_eq!(again.len(), first.len(), "{again:?}");
}

#[tokio::test]
async fn an_answer_about_another_deployment_is_dropped() {
    let mut bed = Bed::new();
    bed.set(Some("old"), &["b1"], Phase::Running);
    let under_way = bed.due();
    bed.set(Some("new"), &["b1"], Phase::Running);
    for job in &under_way {
        bed.finish(job, Ok(usual(job)));
    }
    assert_eq!(bed.snapshot().deployment, Observation::Unknown);
}

#[tokio::test]
async fn a_fleet_that_moves_to_another_connection_keeps_what_was_read() {
    let mut bed = Bed::new();
    bed.set(Some("d"), &["b1"], Phase::Running);
    bed.run(Duration::from_secs(1), |_| None);
    let carried = bed.state.remove(&fleet(), &bed.budget);
    assert!(bed.state.lanes.is_empty() && bed.state.queues.is_empty());
    let watch = bed.watch(Some("d"), &["b1"], Phase::Running);
    let mut other = State::default();
    other.set(watch, carried, bed.now);
    assert!(other.snapshot(&fleet(), bed.now).deployment.known().is_some());
    assert!(matches!(other.next(bed.now, 0, &bed.budget, |_| true), Next::Read(_)), "and is read anew");
}

#[tokio::test]
async fn a_fleet_that_nobody_scales_costs_next_to_nothing() {
    let mut bed = Bed::new();
    let mut watch = bed.watch(Some("d"), &["b1"], Phase::Running);
    watch.lanes.clear();
    bed.state.set(watch, None, bed.now);
    let made = bed.run(Duration::from_secs(300), |_| None);
    assert!(made.len() <= 22, "{} reads in 5 minutes", made.len());
}

#[tokio::test]
async fn a_share_that_was_there_before_was_not_seen_to_change_and_one_that_came_was() {
    let mut bed = Bed::new();
    bed.set(Some("d"), &["b1"], Phase::Running);
    let ramping = |percent: f32| {
        move |job: &Job| {
            let ramp = Some(Ramp { build_id: "b1".into(), percent, ..Ramp::default() });
            let reading = DeploymentReading { ramp, ..DeploymentReading::default() };
            matches!(job, Job::Deployment { .. }).then_some(Answer::Deployment(Some(reading)))
        }
    };
    let unchanged_for = |bed: &Bed| bed.info().ramp.and_then(|ramp| ramp.unchanged_for);
    bed.run(Duration::from_secs(200), ramping(10.0));
    assert_eq!(unchanged_for(&bed), None);
    bed.run(Duration::from_secs(200), ramping(50.0));
    let seen = unchanged_for(&bed).unwrap();
    assert!((Duration::from_secs(120)..Duration::from_secs(200)).contains(&seen), "{seen:?}");
}
