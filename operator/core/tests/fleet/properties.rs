//! What holds of the plan of any fleet with several versions, whatever the world is like.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use jiff::Timestamp;
use operator_core::clock::Clock;
use operator_core::fleet::Fleet;
use operator_core::observed::{
    ChildState, DeploymentInfo, KubeState, Observation, PodLoad, PodState, Ramp, SlotUse, TemporalState, VersionInfo,
    VersionStatus,
};
use operator_core::plan::{Action, Plan, PlanInput, plan};
use operator_core::rollout::Order;
use operator_core::scaling::State;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::fixtures::{fleet, known, lane, runtime};

const CASES: u32 = 20_000;
const HOUR: u64 = 3_600;
const OLD: [&str; 2] = ["old", "older"];

static FLEETS: LazyLock<Vec<Fleet>> = LazyLock::new(|| {
    let step = |percent| json!({"rampPercentage": percent, "pauseDuration": "30s"});
    let progressive = json!({"strategy": "Progressive", "steps": [step(10), step(50)]});
    let paused = json!({"strategy": "AllAtOnce", "paused": true});
    // Steps are taken in fewer worlds than the rest, so that there are more of them.
    let strategies =
        [json!({"strategy": "Manual"}), json!({"strategy": "AllAtOnce"}), progressive.clone(), progressive, paused];
    let replicas = [json!({}), json!({"replicas": 2}), json!({"scaling": {"maxReplicas": 5}})];
    let merge = |strategy: &Value, own: &Value| {
        let mut patch = own.clone();
        patch["runtime"] = runtime();
        patch["rollout"] = strategy.clone();
        fleet(patch)
    };
    strategies.iter().flat_map(|strategy| replicas.iter().map(move |own| merge(strategy, own))).collect()
});

/// What the server answers for a version.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    NotAsked,
    Old(VersionStatus),
    Absent,
    Is(VersionStatus),
}

#[derive(Clone, Debug)]
struct Version {
    answer: Answer,
    hours_ago: u64,
    last_current_hours_ago: Option<u64>,
    replicas: u32,
    pods: u32,
    busy: bool,
    superseded_hours_ago: Option<u64>,
}

#[derive(Clone, Debug)]
struct World {
    fleet: usize,
    has_target_child: bool,
    target: Version,
    old: [Version; 2],
    current: Option<usize>,
    ramp: Option<(usize, u8, u64)>,
    manager: usize,
    fresh: bool,
    order: Order,
    protected: bool,
}

fn answers() -> impl Strategy<Value = Answer> {
    let status = prop::sample::select(vec![
        VersionStatus::Inactive,
        VersionStatus::Ramping,
        VersionStatus::Current,
        VersionStatus::Draining,
        VersionStatus::Drained,
    ]);
    prop_oneof![
        1 => Just(Answer::NotAsked),
        1 => status.clone().prop_map(Answer::Old),
        1 => Just(Answer::Absent),
        6 => status.prop_map(Answer::Is),
    ]
}

fn version() -> impl Strategy<Value = Version> {
    let hours = || prop::option::of(0..60_u64);
    (answers(), 0..60_u64, hours(), 0..3_u32, 0..3_u32, any::<bool>(), hours()).prop_map(
        |(answer, hours_ago, last_current_hours_ago, replicas, pods, busy, superseded_hours_ago)| Version {
            answer,
            hours_ago,
            last_current_hours_ago,
            replicas,
            // Nothing is left more often than not of what is to have no pods.
            pods: if replicas == 0 && !busy { 0 } else { pods },
            busy,
            superseded_hours_ago,
        },
    )
}

/// A target that may get traffic in most worlds.
fn target() -> impl Strategy<Value = Version> {
    let ready = prop::sample::select(vec![VersionStatus::Inactive, VersionStatus::Ramping]);
    let able = (version(), ready).prop_map(|(version, status)| Version {
        answer: Answer::Is(status),
        last_current_hours_ago: None,
        replicas: 2,
        pods: 2,
        ..version
    });
    prop_oneof![version(), able]
}

fn worlds() -> impl Strategy<Value = World> {
    let ramp = prop::option::of((0..3_usize, 1..=99_u8, 0..120_u64));
    let order =
        prop::sample::select(vec![Order::AsSpecified, Order::AsSpecified, Order::Pause, Order::Promote, Order::Abort]);
    let versions = (target(), version(), version());
    let routing = (prop::option::weighted(0.8, 0..3_usize), ramp, 0..3_usize);
    let rest = (prop::bool::weighted(0.9), prop::bool::weighted(0.9), prop::bool::weighted(0.9));
    (0..FLEETS.len(), versions, routing, order, rest).prop_map(
        |(fleet, (target, one, two), (current, ramp, manager), order, (has_target_child, fresh, protected))| World {
            fleet,
            has_target_child,
            target,
            old: [one, two],
            current,
            ramp: ramp.filter(|(at, ..)| Some(*at) != current),
            manager,
            fresh,
            order,
            protected,
        },
    )
}

fn ago(hours: u64) -> Timestamp {
    now() - Duration::from_secs(hours * HOUR)
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

impl World {
    fn fleet(&self) -> &'static Fleet {
        &FLEETS[self.fleet]
    }

    fn build_id(&self, at: usize) -> String {
        match at {
            0 => self.fleet().build_id.clone().unwrap(),
            at => OLD[at - 1].to_owned(),
        }
    }

    fn versions(&self) -> impl Iterator<Item = (usize, &Version)> {
        [&self.target].into_iter().chain(&self.old).enumerate()
    }

    fn kube(&self) -> KubeState {
        let mut kube = KubeState::default();
        for (at, version) in self.versions().filter(|(at, _)| *at > 0 || self.has_target_child) {
            let build_id = self.build_id(at);
            let name = if at == 0 { self.fleet().child_name.clone() } else { format!("orders-{build_id}") };
            let used = u64::from(version.busy);
            let load = PodLoad::of([(lane(), SlotUse { used, available: 4, started: used, ..SlotUse::default() })]);
            kube.pods.extend((0..version.pods).map(|index| PodState {
                name: format!("{build_id}-{index}"),
                build_id: Some(build_id.clone()),
                ready: true,
                may_run: true,
                load: known(load.clone()),
                ..PodState::default()
            }));
            kube.children.push(ChildState {
                name,
                build_id: Some(build_id),
                spec_replicas: version.replicas,
                ready_replicas: version.pods,
                replicas: version.pods,
                superseded_at: version.superseded_hours_ago.map(ago),
                ..ChildState::default()
            });
        }
        kube
    }

    fn temporal(&self) -> TemporalState {
        let info = |version: &Version, status| VersionInfo {
            status,
            lanes: [lane()].into(),
            lanes_unchanged_for: Duration::from_secs(99),
            last_current_at: version.last_current_hours_ago.map(ago),
            drainage_changed_at: Some(ago(version.hours_ago)),
            ..VersionInfo::default()
        };
        let answer = |version: &Version| match version.answer {
            Answer::NotAsked => None,
            Answer::Old(status) => {
                Some(Observation::Stale { value: Some(info(version, status)), age: Duration::from_secs(HOUR) })
            }
            Answer::Absent => Some(known(None)),
            Answer::Is(status) => Some(known(Some(info(version, status)))),
        };
        let read = self.versions().filter_map(|(at, version)| Some((self.build_id(at), answer(version)?)));
        let value = Some(DeploymentInfo {
            current_build_id: self.current.map(|at| self.build_id(at)),
            ramp: self.ramp.map(|(at, percent, seconds)| Ramp {
                build_id: self.build_id(at),
                percent: f32::from(percent),
                changed_at: Some(now() - Duration::from_secs(seconds)),
                ..Ramp::default()
            }),
            versions: read.collect(),
            manager_identity: ["", "me", "somebody"][self.manager].into(),
            last_modifier_identity: "me".into(),
            ..DeploymentInfo::default()
        });
        let deployment =
            if self.fresh { known(value) } else { Observation::Stale { value, age: Duration::from_secs(HOUR) } };
        TemporalState { deployment, ..TemporalState::default() }
    }

    fn plan(&self) -> Plan {
        let (kube, temporal, nothing) = (self.kube(), self.temporal(), BTreeMap::new());
        plan(&PlanInput {
            fleet: self.fleet(),
            kube: &kube,
            applied: &nothing,
            temporal: &temporal,
            scaling: &State::default(),
            others: &BTreeMap::new(),
            now: Duration::from_secs(100_000),
            clock: Clock::at(now()),
            identity: "me",
            former_identities: &BTreeSet::new(),
            max_versions: 75,
            protected: self.protected,
            order: self.order,
            since_marked: None,
            resting: &BTreeSet::new(),
        })
    }

    /// The version whose Deployment has this name.
    fn of_child(&self, child: &str) -> (usize, &Version) {
        let named =
            |at: usize| if at == 0 { self.fleet().child_name.clone() } else { format!("orders-{}", OLD[at - 1]) };
        self.versions().find(|(at, _)| named(*at) == child).unwrap()
    }

    /// Whether the server's fresh word is that it has no work.
    fn has_no_work(&self, at: usize, version: &Version) -> bool {
        let wanted = at == 0 || self.current == Some(at) || self.ramp.is_some_and(|(ramping, ..)| ramping == at);
        let over = [Answer::Absent, Answer::Is(VersionStatus::Inactive), Answer::Is(VersionStatus::Drained)];
        self.fresh && !wanted && over.contains(&version.answer)
    }

    /// Hours since the version lost its last reason to be there.
    fn hours_over(&self, version: &Version) -> u64 {
        match version.answer {
            Answer::Is(VersionStatus::Drained) => version.hours_ago,
            _ => version.superseded_hours_ago.unwrap_or(0),
        }
    }
}

fn word(action: &Action) -> &'static str {
    match action {
        Action::Protect => "Protect",
        Action::Apply { .. } => "Apply",
        Action::SetDeletionCost { .. } => "SetDeletionCost",
        Action::ShowCordon { .. } => "ShowCordon",
        Action::Scale { .. } => "Scale",
        Action::Attach { .. } => "Attach",
        Action::ClaimManager { .. } => "ClaimManager",
        Action::SetRamping { .. } => "SetRamping",
        Action::SetCurrent { .. } => "SetCurrent",
        Action::NoteSuperseded { .. } => "NoteSuperseded",
        Action::DeleteVersion { .. } => "DeleteVersion",
        Action::DeleteChild { .. } => "DeleteChild",
        Action::ClearRamp { .. } => "ClearRamp",
    }
}

/// Every kind of action that these worlds call for: pods are marked and cordoned by the decision alone, which has properties
/// of its own.
const COUNTED: [&str; 10] = [
    "Protect",
    "Apply",
    "Scale",
    "ClaimManager",
    "SetRamping",
    "SetCurrent",
    "NoteSuperseded",
    "DeleteVersion",
    "DeleteChild",
    "ClearRamp",
];

fn is_routing(action: &Action) -> bool {
    matches!(action, Action::SetCurrent { .. } | Action::SetRamping { .. } | Action::ClearRamp { .. })
}

fn holds_of_old_versions(world: &World, action: &Action) -> Result<(), TestCaseError> {
    match action {
        Action::DeleteChild { child, .. } => {
            let (at, version) = world.of_child(child);
            prop_assert!(world.has_no_work(at, version), "deletes what may have work");
            prop_assert!(version.replicas == 0 && version.pods == 0, "deletes what has pods");
            prop_assert!(world.hours_over(version) >= 25, "deletes too soon");
        }
        Action::Scale { child, from, to: 0, .. } if *from > 0 => {
            let (at, version) = world.of_child(child);
            let by_work = world.fleet().scaling.is_some();
            prop_assert!(by_work || world.has_no_work(at, version), "takes the pods of what may have work");
            prop_assert!(by_work || !version.busy || version.pods == 0, "ends tasks that run");
            prop_assert!(by_work || world.hours_over(version) >= 1, "takes pods too soon");
        }
        Action::Scale { child, from, to, .. } if to < from => {
            let (_, version) = world.of_child(child);
            let read = matches!(version.answer, Answer::Is(_)) || world.fleet().replicas.is_some();
            prop_assert!(read, "shrinks what was not read");
        }
        _ => {}
    }
    Ok(())
}

fn holds_of_routing(world: &World, plan: &Plan) -> Result<(), TestCaseError> {
    let routing: Vec<_> = plan.actions.iter().filter(|action| is_routing(action)).collect();
    prop_assert!(routing.len() <= 1, "more than one change of the routing");
    let claims = plan.actions.iter().any(|action| matches!(action, Action::ClaimManager { .. }));
    prop_assert_eq!(claims, world.manager == 0 && !routing.is_empty());
    let Some(change) = routing.first() else { return Ok(()) };
    prop_assert!(world.fresh && world.manager != 2, "changes what it does not know, or what somebody else manages");
    let forward = !matches!(change, Action::ClearRamp { .. });
    let polls = world.has_target_child && world.target.pods > 0 && matches!(world.target.answer, Answer::Is(_));
    prop_assert!(!forward || polls, "routes to what does not poll");
    let held = matches!(world.order, Order::Pause | Order::Abort)
        || world.fleet().rollout.paused && world.order != Order::Promote;
    prop_assert!(!forward || !held, "goes forward though it is held");
    if let Action::SetRamping { percent, .. } = change {
        let next = match world.ramp {
            Some((0, at, _)) if at >= 10 => vec![10, 50],
            _ => vec![10],
        };
        prop_assert!(next.contains(percent), "skips a step: {:?} → {percent}", world.ramp);
    }
    Ok(())
}

#[test]
fn no_world_makes_the_plan_lose_work_or_route_to_nobody() {
    let counts = RefCell::new(BTreeMap::<&str, u32>::new());
    let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    runner
        .run(&worlds(), |world| {
            let plan = world.plan();
            let kinds: BTreeSet<_> = plan.actions.iter().map(word).collect();
            kinds.into_iter().for_each(|kind| *counts.borrow_mut().entry(kind).or_default() += 1);
            for action in &plan.actions {
                holds_of_old_versions(&world, action)?;
            }
            holds_of_routing(&world, &plan)
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
    let counts = counts.into_inner();
    println!("{counts:?} in {CASES} worlds");
    for kind in COUNTED {
        let seen = counts.get(kind).copied().unwrap_or(0);
        assert!(seen >= CASES / 100, "{kind} in {seen} of {CASES} worlds: too few to prove anything");
    }
}

#[test]
fn the_same_world_gives_the_same_plan() {
    let mut runner = TestRunner::new(Config { cases: 2_000, failure_persistence: None, ..Config::default() });
    let same = |world: World| {
        prop_assert_eq!(world.plan().actions, world.plan().actions);
        Ok(())
    };
    runner.run(&worlds(), same).unwrap_or_else(|failure| panic!("{failure}"));
}
