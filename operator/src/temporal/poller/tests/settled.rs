//! Fleets of which only somebody else changes anything.

use super::*;

impl Bed {
    /// A fleet that is not scaled, with one version.
    fn unscaled(&mut self, build_ids: &[&str]) {
        let watch = Watch { lanes: BTreeSet::new(), ..self.watch(Some("d"), build_ids, Phase::Running) };
        self.state.set(watch, None, self.now);
    }
}

fn current(job: &Job) -> Option<Answer> {
    let reading = DeploymentReading { current_build_id: Some("b1".into()), ..DeploymentReading::default() };
    matches!(job, Job::Deployment { .. }).then_some(Answer::Deployment(Some(reading)))
}

#[tokio::test]
async fn a_fleet_whose_only_version_is_current_is_read_by_one_call_a_minute_that_counts_all_the_while() {
    let mut bed = Bed::new();
    bed.unscaled(&["b1"]);
    let made = bed.run(Duration::from_secs(1), current);
    assert!(matches!(made[..], [(_, Job::Deployment { .. })]), "the version is not needed: {made:?}");
    let (mut reads, mut stale) = (0, 0);
    let end = bed.now + Duration::from_secs(600);
    while bed.now < end {
        reads += bed.run(Duration::from_millis(500), current).len();
        stale += usize::from(bed.snapshot().deployment.known().is_none());
    }
    assert!((9..=12).contains(&reads), "{reads} reads in 600 s");
    assert_eq!(stale, 0);
}

#[tokio::test]
async fn a_fleet_with_a_second_version_is_read_twice_a_minute_with_its_versions() {
    let mut bed = Bed::new();
    bed.unscaled(&["b1"]);
    bed.run(Duration::from_secs(1), current);
    bed.unscaled(&["b2", "b1"]);
    let made = bed.run(Duration::from_secs(2), current);
    let versions = made.iter().filter(|(_, job)| matches!(job, Job::Version { .. })).count();
    assert_eq!(versions, 2, "both are read at once: {made:?}");
    let made = bed.run(Duration::from_secs(120), current);
    let deployments = made.iter().filter(|(_, job)| matches!(job, Job::Deployment { .. })).count();
    assert!((3..=5).contains(&deployments), "{deployments} reads in 120 s");
}

#[tokio::test]
async fn a_version_that_failed_to_be_read_and_is_not_needed_any_more_is_no_failure() {
    let mut bed = Bed::new();
    bed.unscaled(&["b1"]);
    bed.run(Duration::from_secs(1), |_| None);
    let version = Job::Version { fleet: fleet(), name: "d".into(), build_id: "b1".into() };
    bed.in_flight += 1;
    bed.finish(&version, Err(unreachable()));
    assert!(bed.snapshot().failure.is_some(), "it counts while it is read");
    let deployment = Job::Deployment { fleet: fleet(), name: "d".into() };
    bed.in_flight += 1;
    let answer = current(&deployment).expect("it is one of a deployment");
    bed.finish(&deployment, Ok(answer));
    assert_eq!(bed.snapshot().failure, None);
}
