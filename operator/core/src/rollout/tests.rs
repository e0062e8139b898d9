use std::collections::BTreeMap;

use super::*;
use crate::observed::{Ramp, TaskType, VersionStatus};

const NOW: i64 = 1_000_000;

fn clock() -> Clock {
    Clock::at(before(0))
}

fn before(seconds: i64) -> Timestamp {
    Timestamp::from_second(NOW - seconds).unwrap()
}

fn lane(name: &str) -> LaneKey {
    LaneKey { task_queue: name.into(), task_type: TaskType::Activity }
}

fn version(lanes: &[&str], settled: u64) -> VersionInfo {
    VersionInfo {
        status: VersionStatus::Inactive,
        lanes: lanes.iter().map(|name| lane(name)).collect(),
        lanes_unchanged_for: Duration::from_secs(settled),
        ..VersionInfo::default()
    }
}

fn deployment(versions: &[(&str, VersionInfo)], current: Option<&str>) -> DeploymentInfo {
    let known = |info: &VersionInfo| Observation::Known { value: Some(info.clone()), age: Duration::ZERO };
    DeploymentInfo {
        current_build_id: current.map(Into::into),
        versions: versions.iter().map(|(id, info)| ((*id).into(), known(info))).collect(),
        conflict_token: vec![7],
        ..DeploymentInfo::default()
    }
}

/// b1 is current, and b2 polls the same Task Queue.
fn two() -> DeploymentInfo {
    deployment(&[("b1", version(&["q"], 99)), ("b2", version(&["q"], 99))], Some("b1"))
}

fn ramped(percent: f32, seconds_ago: i64, build_id: &str) -> Ramp {
    let changed_at = Some(before(seconds_ago));
    Ramp { build_id: build_id.into(), percent, since: changed_at, changed_at, unchanged_for: None }
}

fn progressive() -> Strategy {
    let step = |percent| Step { percent, pause: Duration::from_secs(60), gate: None };
    Strategy::Progressive(vec![step(10), step(50)])
}

struct Case {
    declared: BTreeSet<LaneKey>,
    ready: bool,
    strategy: Strategy,
    order: Order,
    paused: bool,
    unversioned: BTreeMap<LaneKey, Observation<bool>>,
    deployment: Observation<Option<DeploymentInfo>>,
}

impl Case {
    fn new(deployment: DeploymentInfo) -> Self {
        Self {
            declared: BTreeSet::new(),
            ready: true,
            strategy: Strategy::AllAtOnce,
            order: Order::AsSpecified,
            paused: false,
            unversioned: BTreeMap::new(),
            deployment: Observation::Known { value: Some(deployment), age: Duration::ZERO },
        }
    }

    fn by(strategy: Strategy, deployment: DeploymentInfo) -> Self {
        Self { strategy, ..Self::new(deployment) }
    }

    fn decide(&self) -> Rollout {
        let target = Target {
            build_id: "b2",
            declared_lanes: &self.declared,
            declared_queues: &BTreeSet::new(),
            has_ready_pod: self.ready,
            policy: &Policy {
                strategy: self.strategy.clone(),
                gate: None,
                rolls_back: false,
                paused: self.paused,
                rollback_window: Some(Duration::from_secs(3_600)),
            },
            order: self.order,
            deployment_name: "ns/app",
            gates: &Record::default(),
            identity: "me",
            former_identities: &["i".to_owned()].into(),
        };
        let temporal = TemporalState {
            deployment: self.deployment.clone(),
            unversioned: self.unversioned.clone(),
            ..TemporalState::default()
        };
        decide(&target, &temporal, &clock())
    }

    fn stage(&self) -> Stage {
        self.decide().stage
    }

    fn change(&self) -> Option<Move> {
        self.decide().change
    }
}

#[test]
fn a_version_that_polls_its_declared_queues_is_promoted_at_once() {
    let mut case = Case::new(deployment(&[("b2", version(&["q"], 0))], None));
    case.declared = BTreeSet::from([lane("q")]);
    assert_eq!(case.change(), Some(Move::Current));
    case.declared.insert(lane("r"));
    assert_eq!(case.stage(), Stage::Registering { missing: r#"no poll of activity queue "r" yet"#.into() });
}

#[test]
fn without_declared_queues_those_of_the_current_version_count() {
    let case = Case::new(deployment(&[("b1", version(&["q", "r"], 99)), ("b2", version(&["q"], 99))], Some("b1")));
    assert!(matches!(case.stage(), Stage::Registering { missing } if missing.contains("current version serves")));
    let case = Case::new(deployment(&[("b1", version(&["q"], 99)), ("b2", version(&["q"], 0))], Some("b1")));
    assert_eq!(case.change(), Some(Move::Current));
}

#[test]
fn the_first_version_waits_until_its_reported_queues_have_settled() {
    let case = |settled| Case::new(deployment(&[("b2", version(&["q"], settled))], None)).decide();
    assert!(matches!(case(29), Rollout { stage: Stage::Registering { .. }, change: None, .. }));
    assert_eq!(case(10).due_in, Some(Duration::from_secs(20)), "no reading tells of it");
    assert_eq!(case(30).change, Some(Move::Current));
}

#[test]
fn a_version_without_a_ready_pod_is_not_promoted() {
    let mut case = Case::new(deployment(&[("b2", version(&["q"], 99))], None));
    case.ready = false;
    assert!(matches!(case.decide(), Rollout { stage: Stage::Registering { .. }, change: None, .. }));
}

#[test]
fn a_foreign_manager_is_respected() {
    let foreign = |manager: &str, info: DeploymentInfo| DeploymentInfo { manager_identity: manager.into(), ..info };
    assert_eq!(Case::new(foreign("somebody", two())).stage(), Stage::Waiting(Hold::Manager("somebody".into())));
    assert_eq!(Case::new(foreign("somebody", two())).change(), None);
    assert_eq!(Case::new(foreign("me", two())).change(), Some(Move::Current));
    assert_eq!(Case::new(foreign("i", two())).change(), Some(Move::Current), "its own of before");
    assert_eq!(Case::new(foreign("", two())).change(), Some(Move::Current));
    let gone_back = DeploymentInfo {
        current_build_id: Some("b2".into()),
        ramp: Some(ramped(10.0, 99, "b3")),
        ..foreign("somebody", two())
    };
    assert_eq!(Case::new(gone_back.clone()).change(), None);
    assert_eq!(Case::new(foreign("me", gone_back)).change(), Some(Move::ClearRamp), "the control");
}

#[test]
fn a_strategy_that_leaves_it_to_the_user_only_waits() {
    let mut info = two();
    assert_eq!(Case::by(Strategy::Manual, info.clone()).stage(), Stage::Waiting(Hold::Manual));
    info.ramp = Some(ramped(10.0, 9_000, "b2"));
    let by_hand = Case::by(Strategy::Manual, info.clone()).decide();
    assert_eq!((by_hand.stage, by_hand.change), (Stage::Ramping { percent: 10.0, hold: Hold::Manual }, None));
    info.current_build_id = Some("b2".into());
    info.ramp = Some(ramped(10.0, 9_000, "b1"));
    assert_eq!(Case::by(Strategy::Manual, info).change(), None, "nor does it take a share away");
}

#[test]
fn an_old_answer_promotes_nothing_and_demotes_nothing() {
    let stale = |info| Observation::Stale { value: Some(info), age: Duration::from_secs(600) };
    let mut case = Case::new(two());
    assert_eq!(case.change(), Some(Move::Current), "the control");
    case.deployment = stale(two());
    assert_eq!((case.stage(), case.change()), (Stage::Unknown, None));
    case.deployment = stale(deployment(&[], Some("b2")));
    assert_eq!(case.stage(), Stage::Current);
}

#[test]
fn a_version_that_was_not_read_lately_is_not_promoted_though_the_deployment_was() {
    let mut info = two();
    let old = info.version("b2").cloned();
    info.versions.insert("b2".into(), Observation::Stale { value: old, age: Duration::from_secs(600) });
    assert_eq!(Case::new(info.clone()).stage(), Stage::Unknown);
    info.versions.remove("b2");
    assert_eq!(Case::new(info.clone()).stage(), Stage::Unknown, "not asked for is not missing");
    info.versions.insert("b2".into(), Observation::Known { value: None, age: Duration::ZERO });
    assert!(matches!(Case::new(info).stage(), Stage::Registering { .. }));
}

#[test]
fn a_progressive_rollout_goes_from_step_to_step() {
    let change = |ramp| Case::by(progressive(), DeploymentInfo { ramp, ..two() }).change();
    assert_eq!(change(None), Some(Move::Ramp(10)));
    assert_eq!(change(Some(ramped(10.0, 59, "b2"))), None);
    assert_eq!(change(Some(ramped(10.0, 60, "b2"))), Some(Move::Ramp(50)));
    assert_eq!(change(Some(ramped(50.0, 60, "b2"))), Some(Move::Current));
    let waiting = Case::by(progressive(), DeploymentInfo { ramp: Some(ramped(10.0, 40, "b2")), ..two() }).decide();
    let hold = Hold::Pause { then: Move::Ramp(50), at: Some(before(-20)) };
    assert_eq!(waiting.stage, Stage::Ramping { percent: 10.0, hold });
    assert_eq!(waiting.due_in, Some(Duration::from_secs(20)));
}

#[test]
fn a_ramp_of_another_version_gives_way_to_the_first_step() {
    let info = DeploymentInfo { ramp: Some(ramped(50.0, 9_000, "b3")), ..two() };
    assert_eq!(Case::by(progressive(), info).change(), Some(Move::Ramp(10)));
}

#[test]
fn a_target_that_is_current_again_in_mid_ramp_takes_the_share_away() {
    let info = DeploymentInfo { current_build_id: Some("b2".into()), ramp: Some(ramped(50.0, 5, "b1")), ..two() };
    let rollout = Case::by(progressive(), info).decide();
    assert_eq!((rollout.stage, rollout.change), (Stage::Current, Some(Move::ClearRamp)));
}

#[test]
fn the_first_version_needs_no_steps_unless_unversioned_workers_poll_its_queues() {
    let mut case = Case::by(progressive(), deployment(&[("b2", version(&["q"], 99))], None));
    assert!(matches!(case.stage(), Stage::Registering { missing } if missing.contains("not known yet")));
    assert_eq!(case.decide().due_in, Some(Duration::from_secs(21)));
    assert_eq!(
        Case::by(Strategy::AllAtOnce, deployment(&[("b2", version(&["q"], 99))], None)).change(),
        Some(Move::Current)
    );
    let mut polled = |polled| {
        case.unversioned = BTreeMap::from([(lane("q"), Observation::Known { value: polled, age: Duration::ZERO })]);
        case.change()
    };
    assert_eq!((polled(false), polled(true)), (Some(Move::Current), Some(Move::Ramp(10))));
}

#[test]
fn a_version_that_was_current_a_short_time_ago_is_so_again_at_once() {
    let change = |seconds_ago| {
        let mut info = two();
        let was = VersionInfo { last_current_at: Some(before(seconds_ago)), ..version(&["q"], 99) };
        info.versions.insert("b2".into(), Observation::Known { value: Some(was), age: Duration::ZERO });
        Case::by(progressive(), info).decide()
    };
    let back = change(3_600);
    assert_eq!((back.change, back.urgent), (Some(Move::Current), true));
    let anew = change(3_601);
    assert_eq!((anew.change, anew.urgent), (Some(Move::Ramp(10)), false));
}

#[test]
fn a_share_waits_for_four_of_five_of_its_pods_unless_it_goes_back() {
    let due = || Case::by(progressive(), two()).decide();
    let (mut few, mut enough) = (due(), due());
    few.wait_for_pods(3, 5);
    enough.wait_for_pods(4, 5);
    let hold = Hold::Pods { ready: 3, wanted: 5, percent: 10 };
    assert_eq!((few.stage, few.change), (Stage::Waiting(hold), None));
    assert_eq!(enough.change, Some(Move::Ramp(10)));
    let mut back = Rollout { urgent: true, ..due() };
    back.wait_for_pods(0, 5);
    assert_eq!(back.change, Some(Move::Ramp(10)));
}

#[test]
fn a_paused_rollout_stays_where_it_is_and_only_goes_back() {
    let due = DeploymentInfo { ramp: Some(ramped(10.0, 9_000, "b2")), ..two() };
    let mut case = Case::by(progressive(), due.clone());
    assert_eq!(case.change(), Some(Move::Ramp(50)), "the control");
    case.paused = true;
    assert_eq!((case.stage(), case.change()), (Stage::Ramping { percent: 10.0, hold: Hold::Paused }, None));
    let mut case = Case { order: Order::Pause, ..Case::by(progressive(), due) };
    assert_eq!(case.change(), None);
    case.deployment =
        Case::new(DeploymentInfo { current_build_id: Some("b2".into()), ramp: Some(ramped(10.0, 9, "b1")), ..two() })
            .deployment;
    assert_eq!(case.change(), Some(Move::ClearRamp));
}

#[test]
fn a_promotion_by_command_skips_steps_and_pauses_but_no_poll() {
    let promoted = |strategy, ready| Case { order: Order::Promote, ready, paused: true, ..Case::by(strategy, two()) };
    for strategy in [Strategy::Manual, progressive(), Strategy::AllAtOnce] {
        let rollout = promoted(strategy.clone(), true).decide();
        assert_eq!((rollout.change, rollout.urgent), (Some(Move::Current), true), "{strategy:?}");
        assert_eq!(promoted(strategy, false).change(), None);
    }
}

#[test]
fn an_aborted_version_loses_its_share_and_gets_no_other() {
    let aborted =
        |ramp| Case { order: Order::Abort, ..Case::by(progressive(), DeploymentInfo { ramp, ..two() }) }.decide();
    let share = aborted(Some(ramped(10.0, 9, "b2")));
    assert_eq!(
        (share.stage, share.change),
        (Stage::Ramping { percent: 10.0, hold: Hold::Aborted }, Some(Move::ClearRamp))
    );
    let none = aborted(None);
    assert_eq!((none.stage, none.change), (Stage::Waiting(Hold::Aborted), None));
    let foreign = DeploymentInfo { manager_identity: "x".into(), ramp: Some(ramped(10.0, 9, "b2")), ..two() };
    assert_eq!(Case { order: Order::Abort, ..Case::by(progressive(), foreign) }.change(), None);
}

#[test]
fn a_rollback_without_a_window_goes_by_steps() {
    let mut info = two();
    let was = VersionInfo { last_current_at: Some(before(5)), ..version(&["q"], 99) };
    info.versions.insert("b2".into(), Observation::Known { value: Some(was.clone()), age: Duration::ZERO });
    assert_eq!(Case::by(progressive(), info.clone()).change(), Some(Move::Current), "the control");
    let policy =
        Policy { strategy: progressive(), gate: None, rolls_back: false, paused: false, rollback_window: None };
    let target = Target {
        build_id: "b2",
        declared_lanes: &BTreeSet::new(),
        declared_queues: &BTreeSet::new(),
        has_ready_pod: true,
        policy: &policy,
        order: Order::AsSpecified,
        deployment_name: "ns/app",
        gates: &Record::default(),
        identity: "me",
        former_identities: &BTreeSet::new(),
    };
    let temporal = TemporalState { deployment: Case::new(info).deployment, ..TemporalState::default() };
    assert_eq!(decide(&target, &temporal, &clock()).change, Some(Move::Ramp(10)));
}
