//! Random fleets with several versions, as their cluster and server may be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use jiff::Timestamp;
use operator_core::clock::Clock;
use operator_core::fleet::Fleet;
use operator_core::observed::{
    ChildState, DeploymentInfo, KubeState, LaneKey, Observation, PodLoad, PodState, Ramp, SlotUse, TaskType,
    TemporalState, TestRun, TestStatus, VersionInfo, VersionStatus,
};
use operator_core::plan::{Plan, PlanInput, plan};
use operator_core::rollout::Order;
use operator_core::rollout::gate::{Record, Test};
use operator_core::scaling::State;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fixtures::{fleet, known, lane, runtime};

const HOUR: u64 = 3_600;
const OLD: [&str; 2] = ["old", "older"];

static FLEETS: LazyLock<Vec<Fleet>> = LazyLock::new(|| {
    let step = |percent| json!({"rampPercentage": percent, "pauseDuration": "30s"});
    let progressive = json!({"strategy": "Progressive", "steps": [step(10), step(50)]});
    let paused = json!({"strategy": "AllAtOnce", "paused": true});
    let gate = json!({"workflowType": "Smoke"});
    let mut gated = progressive.clone();
    (gated["gate"], gated["onGateFailure"], gated["steps"][1]["gate"]) =
        (gate.clone(), json!("Rollback"), gate.clone());
    // Steps are taken in fewer worlds than the rest, so that there are more of them.
    let strategies = [
        json!({"strategy": "Manual", "gate": gate}),
        json!({"strategy": "AllAtOnce"}),
        json!({"strategy": "AllAtOnce", "gate": gate}),
        progressive.clone(),
        progressive,
        gated,
        paused,
    ];
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
pub enum Answer {
    NotAsked,
    Old(VersionStatus),
    Absent,
    Is(VersionStatus),
}

#[derive(Clone, Debug)]
pub struct Version {
    pub answer: Answer,
    pub hours_ago: u64,
    pub last_current_hours_ago: Option<u64>,
    pub replicas: u32,
    pub pods: u32,
    pub busy: bool,
    pub superseded_hours_ago: Option<u64>,
}

/// What is known of a test Workflow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Seen {
    Unread,
    Absent,
    Is(TestStatus),
    Written(TestStatus),
}

/// The gates of the fleets here, by their Workflow IDs' parts.
pub const GATES: [&str; 2] = ["", ":ramp-50"];

#[derive(Clone, Debug)]
pub struct World {
    pub fleet: usize,
    pub has_target_child: bool,
    pub target: Version,
    pub old: [Version; 2],
    pub current: Option<usize>,
    pub ramp: Option<(usize, u8, u64)>,
    pub manager: usize,
    pub fresh: bool,
    pub order: Order,
    pub protected: bool,
    /// Of each of [`GATES`].
    pub tests: [Seen; 2],
}

fn tests() -> impl Strategy<Value = Seen> {
    let status = prop::sample::select(vec![
        TestStatus::Running,
        TestStatus::Completed,
        TestStatus::Completed,
        TestStatus::Completed,
        TestStatus::Failed,
        TestStatus::TimedOut,
    ]);
    prop_oneof![
        1 => Just(Seen::Unread),
        2 => Just(Seen::Absent),
        4 => status.clone().prop_map(Seen::Is),
        4 => status.prop_map(Seen::Written),
    ]
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

pub fn worlds() -> impl Strategy<Value = World> {
    let ramp = prop::option::of((0..3_usize, 1..=99_u8, 0..120_u64));
    let order =
        prop::sample::select(vec![Order::AsSpecified, Order::AsSpecified, Order::Pause, Order::Promote, Order::Abort]);
    let versions = (target(), version(), version());
    let routing = (prop::option::weighted(0.8, 0..3_usize), ramp, 0..3_usize);
    let rest = (prop::bool::weighted(0.9), prop::bool::weighted(0.9), prop::bool::weighted(0.9), [tests(), tests()]);
    (0..FLEETS.len(), versions, routing, order, rest).prop_map(
        |(fleet, (target, one, two), (current, ramp, manager), order, (has_target_child, fresh, protected, tests))| {
            World {
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
                tests,
            }
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
    pub fn fleet(&self) -> &'static Fleet {
        &FLEETS[self.fleet]
    }

    pub fn build_id(&self, at: usize) -> String {
        match at {
            0 => self.fleet().build_id.clone().unwrap(),
            at => OLD[at - 1].to_owned(),
        }
    }

    pub fn versions(&self) -> impl Iterator<Item = (usize, &Version)> {
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
        let workflows = LaneKey { task_queue: "flows".into(), task_type: TaskType::Workflow };
        let is_target = |version: &Version| std::ptr::eq(version, &self.target);
        let info = |version: &Version, status| VersionInfo {
            status,
            lanes: [lane()].into_iter().chain(is_target(version).then(|| workflows.clone())).collect(),
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
        let seen = |seen: Seen| match seen {
            Seen::Absent => Some(known(None)),
            Seen::Is(status) => Some(known(Some(run(status)))),
            Seen::Unread | Seen::Written(_) => None,
        };
        let tests = self.tests().filter_map(|(id, test)| Some((id, seen(test)?)));
        TemporalState { deployment, test_workflows: tests.collect(), ..TemporalState::default() }
    }

    /// Workflow IDs of the tests, with what is known of each.
    pub fn tests(&self) -> impl Iterator<Item = (String, Seen)> {
        let id = |gate: &str| format!("test-prod/orders:{}{gate}-flows", self.build_id(0));
        GATES.into_iter().map(id).zip(self.tests)
    }

    fn record(&self) -> Record {
        let written = |(workflow_id, test)| match test {
            Seen::Written(status) => Some(Test { workflow_id, task_queue: "flows".into(), run: run(status) }),
            _ => None,
        };
        Record { tests: self.tests().filter_map(written).collect(), ..Record::default() }
    }

    pub fn plan(&self) -> Plan {
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
            max_versions: 75,
            protected: self.protected,
            order: self.order,
            gates: &self.record(),
            since_marked: None,
            resting: &BTreeSet::new(),
        })
    }

    /// The version whose Deployment has this name.
    pub fn of_child(&self, child: &str) -> (usize, &Version) {
        let named =
            |at: usize| if at == 0 { self.fleet().child_name.clone() } else { format!("orders-{}", OLD[at - 1]) };
        self.versions().find(|(at, _)| named(*at) == child).unwrap()
    }

    /// Whether the server's fresh word is that it has no work.
    pub fn has_no_work(&self, at: usize, version: &Version) -> bool {
        let wanted = at == 0 || self.current == Some(at) || self.ramp.is_some_and(|(ramping, ..)| ramping == at);
        let over = [Answer::Absent, Answer::Is(VersionStatus::Inactive), Answer::Is(VersionStatus::Drained)];
        self.fresh && !wanted && over.contains(&version.answer)
    }

    /// Hours since the version lost its last reason to be there.
    pub fn hours_over(&self, version: &Version) -> u64 {
        match version.answer {
            Answer::Is(VersionStatus::Drained) => version.hours_ago,
            _ => version.superseded_hours_ago.unwrap_or(0),
        }
    }
}

fn run(status: TestStatus) -> TestRun {
    TestRun { run_id: "r".into(), status, failure: None }
}
