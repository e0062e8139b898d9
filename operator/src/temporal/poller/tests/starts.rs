//! New Workflows on Task Queues at zero that are too many to be swept each second.

use jiff::Timestamp;

use super::*;

const SOON: Duration = Duration::from_secs(10);

impl Bed {
    /// Fleets at zero, each with a Task Queue for Workflows.
    fn at_zero(&mut self, names: impl Iterator<Item = String>) {
        for name in names {
            let lanes = BTreeSet::from([lane_of(&name)]);
            let watch = Watch { fleet: name.as_str().into(), lanes, ..self.watch(None, &[], Phase::AtZero) };
            self.state.set(watch, None, self.now);
        }
    }

    /// Takes what a call for new Workflows tells, and gives the live reads that this brings about.
    fn told_of(&mut self, queue: &str, second: i64) -> usize {
        let started = BTreeMap::from([(queue.to_owned(), at(second))]);
        self.state.take_starts(&[queue.to_owned()], started, self.now);
        let of_queue = |job: &Job| matches!(job, Job::Live { lane, .. } if lane.task_queue == queue);
        // Shorter than a sweep of all of them.
        let made = self.run(Duration::from_millis(200), |_| None);
        made.iter().filter(|(_, job)| of_queue(job)).count()
    }
}

fn lane_of(name: &str) -> LaneKey {
    LaneKey { task_queue: name.to_owned(), task_type: TaskType::Workflow }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn many() -> impl Iterator<Item = String> {
    (0..150).map(|number| format!("q{number:03}"))
}

fn asked(made: &[(Instant, Job)]) -> Vec<(Instant, Vec<String>)> {
    let queues = |(at, job): &(Instant, Job)| match job {
        Job::Starts { queues } => Some((*at, queues.clone())),
        _ => None,
    };
    made.iter().filter_map(queues).collect()
}

#[tokio::test]
async fn many_queues_are_asked_for_twice_a_second_a_hundred_at_a_time_and_each_in_its_turn() {
    let mut bed = Bed::new();
    bed.at_zero(many());
    bed.run(SOON, |_| None);
    let calls = asked(&bed.run(SOON, |_| None));
    assert!((18..=22).contains(&calls.len()), "{} in ten seconds", calls.len());
    assert!(calls.iter().all(|(_, queues)| queues.len() == 100));
    let three: Vec<_> = calls.iter().take(3).flat_map(|(_, queues)| queues).collect();
    assert!(many().all(|name| three.iter().filter(|queue| ***queue == name).count() == 2), "{three:?}");
}

#[tokio::test]
async fn few_queues_and_those_of_fleets_that_run_are_not_asked_for() {
    let mut bed = Bed::new();
    bed.at_zero(many().take(5));
    assert_eq!(asked(&bed.run(SOON, |_| None)), []);
    let mut bed = Bed::new();
    bed.at_zero(many().skip(1).chain(["it's".to_owned()]));
    let running = Watch { fleet: "q000".into(), ..bed.watch(None, &[], Phase::Running) };
    bed.state.set(Watch { lanes: BTreeSet::from([lane_of("q000")]), ..running }, None, bed.now);
    bed.run(SOON, |_| None);
    let queues: BTreeSet<_> = asked(&bed.run(SOON, |_| None)).into_iter().flat_map(|(_, queues)| queues).collect();
    let expected: BTreeSet<_> = many().skip(1).collect();
    assert_eq!(queues, expected, "nor one whose name a query would have to escape");
}

#[tokio::test]
async fn a_new_workflow_is_a_hint_for_a_few_times_and_a_newer_one_is_news() {
    let mut bed = Bed::new();
    bed.at_zero(many());
    bed.run(2 * SOON, |_| None);
    let hints: Vec<_> = (0..5).map(|_| bed.told_of("q077", 1000)).collect();
    assert_eq!(hints, [2, 2, 2, 0, 0], "each partition once");
    assert_eq!(bed.told_of("q077", 999), 0, "an older one");
    assert_eq!(bed.told_of("q077", 1001), 2);
    assert_eq!(bed.told_of("nobody's", 1001), 0);
}

#[tokio::test]
async fn a_server_that_does_not_tell_of_workflows_is_asked_again_after_ten_minutes() {
    let mut bed = Bed::new();
    bed.at_zero(many());
    let (mut calls, end) = (0, bed.now + Duration::from_secs(300));
    while bed.now < end {
        for job in bed.due() {
            let is_starts = matches!(job, Job::Starts { .. });
            calls += usize::from(is_starts);
            let refused = CallError::local(FailureClass::PermissionDenied, "no");
            bed.finish(&job, if is_starts { Err(refused) } else { Ok(usual(&job)) });
        }
        bed.now += Duration::from_millis(100);
    }
    assert_eq!(calls, 1);
    assert_eq!(bed.state.snapshot(&"q000".into(), bed.now).failure, None, "nothing that is needed fails");
}
