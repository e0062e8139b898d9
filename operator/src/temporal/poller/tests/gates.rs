//! Test Workflows of gates: read while somebody waits for them, and until they have ended.

use operator_core::observed::{TestRun, TestStatus};

use super::*;

const ID: &str = "test-ns/app:b1-q";

fn bed() -> Bed {
    let mut bed = Bed::new();
    bed.set(Some("d"), &["b1"], Phase::Running);
    bed.run(Duration::from_secs(5), |_| None);
    bed
}

fn follow(bed: &mut Bed, ids: &[&str]) -> bool {
    let ids = ids.iter().map(|id| (*id).to_owned()).collect();
    bed.state.follow_tests(&fleet(), &ids, bed.now)
}

fn run(status: TestStatus) -> Option<TestRun> {
    Some(TestRun { run_id: "r".into(), status, failure: None })
}

fn is_test(job: &Job) -> bool {
    matches!(job, Job::Test { .. })
}

/// Reads of tests within so many seconds, each of which finds this.
fn reads(bed: &mut Bed, seconds: u64, found: Option<TestRun>) -> usize {
    let made = bed.run(Duration::from_secs(seconds), |job| is_test(job).then(|| Answer::Test(found.clone())));
    made.iter().filter(|(_, job)| is_test(job)).count()
}

fn seen(bed: &Bed) -> Option<Observation<Option<TestRun>>> {
    bed.snapshot().test_workflows.get(ID).cloned()
}

#[tokio::test]
async fn a_test_is_read_until_it_has_ended_and_never_where_none_is_waited_for() {
    let mut bed = bed();
    assert_eq!((reads(&mut bed, 60, None), seen(&bed)), (0, None), "nobody waits");
    assert!(follow(&mut bed, &[ID]) && !follow(&mut bed, &[ID]));
    let (open, ended) = (reads(&mut bed, 60, run(TestStatus::Running)), reads(&mut bed, 60, run(TestStatus::Failed)));
    assert!((10..=36).contains(&open), "{open} reads in a minute");
    assert_eq!(ended, 1);
    assert_eq!(seen(&bed).and_then(|seen| seen.last().cloned()), Some(run(TestStatus::Failed)));
    follow(&mut bed, &[]);
    assert_eq!((reads(&mut bed, 60, None), seen(&bed)), (0, None));
}

#[tokio::test]
async fn an_answer_that_was_asked_for_before_the_start_does_not_count() {
    let mut bed = bed();
    follow(&mut bed, &[ID]);
    let job = bed.due().into_iter().find(is_test).expect("a read");
    let asked = bed.now;
    bed.now += Duration::from_millis(20);
    bed.state.test_started(&fleet(), ID, Some("r".into()), bed.now);
    let told = bed.state.finish(&job, Ok(Answer::Test(None)), (asked, bed.now), &bed.budget);
    assert_eq!((told, seen(&bed).and_then(|seen| seen.known().cloned())), (vec![], Some(run(TestStatus::Running))));
    // It is asked for again at once, and that counts.
    bed.in_flight = 0;
    let again = bed.due().into_iter().find(is_test).expect("another read");
    let told = bed.finish(&again, Ok(Answer::Test(run(TestStatus::Completed))));
    assert_eq!(told, [fleet()]);
    assert_eq!(seen(&bed).and_then(|seen| seen.known().cloned()), Some(run(TestStatus::Completed)));
}

#[tokio::test]
async fn a_test_that_was_there_before_is_read_and_not_taken_to_run() {
    let mut bed = bed();
    follow(&mut bed, &[ID]);
    reads(&mut bed, 1, None);
    assert_eq!(seen(&bed).and_then(|seen| seen.known().cloned()), Some(None), "the control");
    bed.state.test_started(&fleet(), ID, None, bed.now);
    assert_eq!(seen(&bed), None);
    assert!(bed.due().iter().any(is_test));
}
