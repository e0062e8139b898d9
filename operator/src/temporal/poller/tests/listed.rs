//! Fleets of which one list of the namespace tells that nothing changed.

use tonic::Code;

use super::*;

const FLEETS: usize = 5;
const MINUTE: Duration = Duration::from_secs(60);

fn name(fleet: usize) -> String {
    format!("d{fleet}")
}

impl Bed {
    /// Watches a fleet that is not scaled and has one version.
    fn one_of_many(&mut self, fleet: usize, build_id: &str, phase: Phase, remembered: Option<DeploymentInfo>) {
        let watch = self.watch(Some(&name(fleet)), &[build_id], phase);
        let watch = Watch { fleet: name(fleet).into(), lanes: BTreeSet::new(), remembered, ..watch };
        self.state.set(watch, None, self.now);
    }

    /// As an operator that starts anew: nothing was read yet.
    fn started_anew(&mut self) {
        (0..FLEETS).for_each(|fleet| self.one_of_many(fleet, "b1", Phase::Registering, Some(remembered("b1"))));
    }

    fn known(&self, fleet: usize) -> Option<DeploymentInfo> {
        self.state.snapshot(&name(fleet).into(), self.now).deployment.known().cloned().flatten()
    }

    fn lasting(&mut self, time: Duration, answer: impl Fn(&Job) -> Option<Answer>) -> (Vec<Job>, usize) {
        let (mut made, mut stale, end) = (Vec::new(), 0, self.now + time);
        while self.now < end {
            made.extend(self.run(Duration::from_millis(500), &answer).into_iter().map(|(_, job)| job));
            stale += (0..FLEETS).filter(|fleet| self.known(*fleet).is_none()).count();
        }
        (made, stale)
    }
}

/// What the status of a fleet says.
fn remembered(build_id: &str) -> DeploymentInfo {
    let current_build_id = Some(build_id.to_owned());
    DeploymentInfo { current_build_id, conflict_token: b"7".into(), remembered: true, ..DeploymentInfo::default() }
}

/// A server where this version of every fleet is current; the list has it as another one for some.
fn serving(build_id: &'static str, listed: impl Fn(usize) -> &'static str) -> impl Fn(&Job) -> Option<Answer> {
    move |job| match job {
        Job::List => Some(Answer::List((0..FLEETS).map(|fleet| (name(fleet), listed(fleet).to_owned())).collect())),
        Job::Deployment { .. } => {
            let current_build_id = Some(build_id.to_owned());
            Some(Answer::Deployment(Some(DeploymentReading { current_build_id, ..DeploymentReading::default() })))
        }
        _ => None,
    }
}

fn count(made: &[Job], wanted: impl Fn(&Job) -> bool) -> usize {
    made.iter().filter(|job| wanted(job)).count()
}

fn of_fleet(fleet: usize) -> impl Fn(&Job) -> bool {
    move |job| matches!(job, Job::Deployment { name: deployment, .. } if *deployment == name(fleet))
}

#[tokio::test]
async fn one_list_a_minute_tells_of_all_fleets_at_rest_and_each_is_described_now_and_then_all_the_same() {
    let mut bed = Bed::new();
    (0..FLEETS).for_each(|fleet| bed.one_of_many(fleet, "b1", Phase::Running, None));
    bed.run(Duration::from_secs(2), serving("b1", |_| "b1"));
    let (made, stale) = bed.lasting(20 * MINUTE, serving("b1", |_| "b1"));
    let (lists, others) = (count(&made, |job| *job == Job::List), count(&made, |job| *job != Job::List));
    assert!((18..=23).contains(&lists), "{lists} lists in twenty minutes");
    assert!((FLEETS..=3 * FLEETS).contains(&others), "{others} other reads");
    assert!((0..FLEETS).all(|fleet| count(&made, of_fleet(fleet)) > 0), "{made:?}");
    assert_eq!(stale, 0);
}

#[tokio::test]
async fn a_fleet_that_the_list_does_not_confirm_is_described_each_minute() {
    let mut bed = Bed::new();
    (0..FLEETS).for_each(|fleet| bed.one_of_many(fleet, "b1", Phase::Running, None));
    let listed = |fleet| if fleet == 0 { "b0" } else { "b1" };
    bed.run(Duration::from_secs(2), serving("b1", listed));
    let (made, stale) = bed.lasting(10 * MINUTE, serving("b1", listed));
    let described = count(&made, of_fleet(0));
    assert!((8..=12).contains(&described), "{described} in ten minutes");
    assert!(count(&made, of_fleet(1)) < 4, "the control: the others are seldom");
    assert_eq!(stale, 0);
}

#[tokio::test]
async fn a_server_that_gives_out_no_list_is_asked_for_each_fleet() {
    let mut bed = Bed::new();
    (0..FLEETS).for_each(|fleet| bed.one_of_many(fleet, "b1", Phase::Running, None));
    bed.run(Duration::from_secs(2), serving("b1", |_| "b1"));
    let mut refusals = 0;
    let end = bed.now + 5 * MINUTE;
    while bed.now < end {
        for job in bed.due() {
            let mut refused = CallError::local(FailureClass::PermissionDenied, "no");
            refused.code = Code::PermissionDenied;
            let said = serving("b1", |_| "b1")(&job).unwrap_or_else(|| usual(&job));
            let is_list = job == Job::List;
            refusals += usize::from(is_list);
            bed.finish(&job, if is_list { Err(refused) } else { Ok(said) });
        }
        assert!((0..FLEETS).all(|fleet| bed.known(fleet).is_some()));
        assert_eq!(bed.state.snapshot(&name(0).into(), bed.now).failure, None, "nothing that is needed fails");
        bed.now += Duration::from_millis(500);
    }
    assert_eq!(refusals, 1, "it is asked again after ten minutes");
}

#[tokio::test]
async fn an_operator_that_starts_anew_asks_for_a_list_before_anything_else_and_needs_no_more() {
    let mut bed = Bed::new();
    bed.started_anew();
    let jobs = bed.due();
    assert_eq!(jobs, [Job::List]);
    let answer = serving("b1", |_| "b1")(&jobs[0]).expect("one");
    let mut told = bed.finish(&jobs[0], Ok(answer));
    told.sort();
    assert_eq!(told, (0..FLEETS).map(|fleet| name(fleet).into()).collect::<Vec<FleetId>>());
    assert_eq!(bed.known(3), Some(remembered("b1")));
    // One that comes a moment later needs no list of its own.
    bed.now += Duration::from_secs(2);
    bed.state.remove(&name(4).into(), &bed.budget);
    bed.one_of_many(4, "b1", Phase::Registering, Some(remembered("b1")));
    assert_eq!((bed.known(4), bed.due()), (Some(remembered("b1")), Vec::new()));
    (0..FLEETS).for_each(|fleet| bed.one_of_many(fleet, "b1", Phase::Running, None));
    let (made, stale) = bed.lasting(MINUTE, serving("b1", |_| "b1"));
    assert_eq!((count(&made, |job| matches!(job, Job::Version { .. })), stale), (0, 0));
    let (made, _) = bed.lasting(11 * MINUTE, serving("b1", |_| "b1"));
    assert!((0..FLEETS).all(|fleet| count(&made, of_fleet(fleet)) > 0), "each is described in time: {made:?}");
    assert!(bed.known(3).is_some_and(|info| !info.remembered));
}

#[tokio::test]
async fn what_the_status_has_does_not_count_where_the_list_says_otherwise_or_nothing() {
    for listed in ["b2", "absent", "failed"] {
        let mut bed = Bed::new();
        bed.started_anew();
        assert_eq!(bed.due(), [Job::List]);
        let list = (0..FLEETS).filter(|_| listed == "b2").map(|fleet| (name(fleet), listed.to_owned())).collect();
        let outcome = if listed == "failed" { Err(unreachable()) } else { Ok(Answer::List(list)) };
        bed.finish(&Job::List, outcome);
        assert!((0..FLEETS).all(|fleet| bed.known(fleet).is_none()), "{listed}");
        let jobs = bed.due();
        assert!((0..FLEETS).all(|fleet| count(&jobs, of_fleet(fleet)) == 1), "{listed}: {jobs:?}");
    }
}

#[tokio::test]
async fn a_fleet_that_gets_another_version_is_described_at_once() {
    let mut bed = Bed::new();
    bed.started_anew();
    bed.run(Duration::from_secs(1), serving("b1", |_| "b1"));
    assert!(bed.known(0).is_some_and(|info| info.remembered));
    bed.one_of_many(0, "b2", Phase::Registering, None);
    let jobs = bed.due();
    assert_eq!((count(&jobs, of_fleet(0)), count(&jobs, of_fleet(1))), (1, 0), "{jobs:?}");
}
