//! Fleets with several versions in worlds of any kind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use jiff::Timestamp;
use operator_core::clock::Clock;
use operator_core::fleet::Fleet;
use operator_core::observed::{
    ChildState, DeploymentInfo, FailureClass, KubeState, Observation, PodLoad, PodState, Ramp, SlotUse,
    TemporalFailure, TemporalState, VersionInfo, VersionStatus, VersionSummary,
};
use operator_core::plan::{Plan, PlanInput, plan};
use operator_core::rollout::Order;
use operator_core::rollout::gate::Record;
use operator_core::scaling::State;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fixtures::{fleet, known, lane, runtime};

pub const HOUR: u64 = 3_600;
/// Build IDs of the versions beside the target.
pub const OLD: [&str; 2] = ["old", "older"];
/// A version that has a record on the server alone.
pub const FORGOTTEN: &str = "forgotten";
/// The token of the routing as it was read.
pub const TOKEN: [u8; 2] = [4, 2];

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
    let gated = gated();
    let all = strategies.iter().chain(&gated);
    all.flat_map(|strategy| replicas.iter().map(move |own| merge(strategy, own))).collect()
});
/// How many of the fleets have no gate; they come first.
const UNGATED: usize = 15;

fn gated() -> [Value; 3] {
    let gate = json!({"workflowType": "Smoke"});
    let first = json!({"rampPercentage": 10, "pauseDuration": "30s"});
    let second = json!({"rampPercentage": 50, "pauseDuration": "30s", "gate": gate});
    let steps = json!({"strategy": "Progressive", "steps": [first, second], "onGateFailure": "Rollback", "gate": gate});
    [json!({"strategy": "Manual", "gate": gate}), json!({"strategy": "AllAtOnce", "gate": gate}), steps]
}

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
    /// Hours since this operator saw it change, if it did.
    pub seen_hours_ago: Option<u64>,
    pub last_current_hours_ago: Option<u64>,
    pub replicas: u32,
    pub pods: u32,
    pub busy: bool,
    pub superseded_hours_ago: Option<u64>,
}

/// A share of the traffic.
#[derive(Clone, Debug)]
pub struct Share {
    pub at: usize,
    pub percent: u8,
    pub seconds: u64,
    /// Seconds since this operator saw it change, if it did.
    pub seen: Option<u64>,
    pub by_operator: bool,
}

#[derive(Clone, Debug)]
pub struct World {
    pub fleet: usize,
    pub has_target_child: bool,
    /// Whether somebody else has a Deployment of the target's name, if the fleet has none.
    pub is_taken: bool,
    pub target: Version,
    pub old: [Version; 2],
    /// Status and age of a record without a Deployment.
    pub forgotten: Option<(VersionStatus, u64)>,
    pub current: Option<usize>,
    pub ramp: Option<Share>,
    pub manager: usize,
    pub fresh: bool,
    pub order: Order,
    pub protected: bool,
    /// What is known of the gates beside the server's word.
    pub gates: Record,
    /// Hours by which the wall clock was set ahead, or back.
    pub ahead: i64,
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
    let seen = prop::option::weighted(0.2, 0..60_u64);
    (answers(), 0..60_u64, hours(), (0..3_u32, 0..3_u32, any::<bool>()), hours(), seen).prop_map(
        |(answer, hours_ago, last_current_hours_ago, (replicas, pods, busy), superseded_hours_ago, seen_hours_ago)| {
            // Nothing is left more often than not of what is to have no pods.
            let pods = if replicas == 0 && !busy { 0 } else { pods };
            Version {
                answer,
                hours_ago,
                seen_hours_ago,
                last_current_hours_ago,
                replicas,
                pods,
                busy,
                superseded_hours_ago,
            }
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

fn share() -> impl Strategy<Value = Share> {
    (0..3_usize, 1..=99_u8, 0..120_u64, prop::option::weighted(0.2, 0..120_u64), prop::bool::weighted(0.8))
        .prop_map(|(at, percent, seconds, seen, by_operator)| Share { at, percent, seconds, seen, by_operator })
}

fn forgotten() -> impl Strategy<Value = (VersionStatus, u64)> {
    let status = vec![VersionStatus::Inactive, VersionStatus::Draining, VersionStatus::Drained];
    (prop::sample::select(status), 0..60_u64)
}

/// Worlds of any kind.
pub fn worlds() -> impl Strategy<Value = World> {
    let order =
        prop::sample::select(vec![Order::AsSpecified, Order::AsSpecified, Order::Pause, Order::Promote, Order::Abort]);
    let versions = (target(), version(), version(), prop::option::of(forgotten()));
    let routing = (prop::option::weighted(0.8, 0..3_usize), prop::option::of(share()), 0..3_usize);
    let often = || prop::bool::weighted(0.9);
    let ahead = prop::sample::select(vec![0, 0, 0, 0, 0, 0, 100, -100]);
    (0..UNGATED, versions, routing, order, (often(), often(), often(), often(), ahead)).prop_map(
        |(fleet, (target, one, two, forgotten), (current, ramp, manager), order, rest)| {
            let (has_target_child, fresh, protected, is_free, ahead) = rest;
            World {
                fleet,
                has_target_child,
                is_taken: !is_free && !has_target_child,
                target,
                old: [one, two],
                forgotten,
                current,
                ramp: ramp.filter(|share| Some(share.at) != current),
                manager,
                fresh,
                order,
                protected,
                gates: Record::default(),
                ahead,
            }
        },
    )
}

pub fn ago(hours: u64) -> Timestamp {
    now() - Duration::from_secs(hours * HOUR)
}

pub fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

impl World {
    /// The same of a fleet with gates.
    pub fn gated(self, gates: Record, pick: usize) -> Self {
        Self { fleet: UNGATED + pick % (FLEETS.len() - UNGATED), gates, ..self }
    }

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

    pub fn kube(&self) -> KubeState {
        let mut kube = KubeState::default();
        if self.is_taken {
            kube.foreign_deployments.insert(self.fleet().child_name.clone());
        }
        for (at, version) in self.versions().filter(|(at, _)| *at > 0 || self.has_target_child) {
            let build_id = self.build_id(at);
            let name = self.child_name(at);
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
                uid: format!("uid of {name}"),
                resource_version: format!("version of {name}"),
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

    pub fn temporal(&self) -> TemporalState {
        let value = Some(self.info());
        if self.fresh {
            return TemporalState { deployment: known(value), ..TemporalState::default() };
        }
        let failure = TemporalFailure { class: FailureClass::Unreachable, message: "no connection".into() };
        let deployment = Observation::Stale { value, age: Duration::from_secs(HOUR) };
        TemporalState { deployment, failure: Some(failure), ..TemporalState::default() }
    }

    fn info(&self) -> DeploymentInfo {
        let info = |version: &Version, status| VersionInfo {
            status,
            lanes: [lane()].into(),
            lanes_unchanged_for: Duration::from_secs(99),
            last_current_at: version.last_current_hours_ago.map(ago),
            drainage_changed_at: Some(ago(version.hours_ago)),
            status_unchanged_for: version.seen_hours_ago.map(|hours| Duration::from_secs(hours * HOUR)),
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
        DeploymentInfo {
            current_build_id: self.current.map(|at| self.build_id(at)),
            ramp: self.ramp.as_ref().map(|share| Ramp {
                build_id: self.build_id(share.at),
                percent: f32::from(share.percent),
                since: None,
                changed_at: Some(now() - Duration::from_secs(share.seconds)),
                unchanged_for: share.seen.map(Duration::from_secs),
            }),
            versions: read.collect(),
            summaries: self.summaries(),
            remembered: false,
            conflict_token: TOKEN.into(),
            manager_identity: ["", "me", "somebody"][self.manager].into(),
            last_modifier_identity: if self.ramp.as_ref().is_none_or(|share| share.by_operator) { "me" } else { "x" }
                .into(),
        }
    }

    fn summaries(&self) -> BTreeMap<String, VersionSummary> {
        let summary = |status, hours| VersionSummary {
            status,
            created_at: Some(ago(hours)),
            drainage_changed_at: Some(ago(hours)),
        };
        let told = self.versions().filter_map(|(at, version)| match version.answer {
            Answer::Is(status) => Some((self.build_id(at), summary(status, version.hours_ago))),
            _ => None,
        });
        let forgotten = self.forgotten.map(|(status, hours)| (FORGOTTEN.to_owned(), summary(status, hours)));
        told.chain(forgotten).collect()
    }

    /// The two clocks of the operator.
    pub fn clock(&self) -> Clock {
        let set = Duration::from_secs(self.ahead.unsigned_abs() * HOUR);
        Clock { wall: if self.ahead < 0 { now() - set } else { now() + set }, steady: now() }
    }

    /// The operator's plan.
    pub fn plan(&self) -> Plan {
        self.plan_of(&self.kube(), &self.temporal())
    }

    /// Its plan in another cluster, or with another server.
    pub fn plan_of(&self, kube: &KubeState, temporal: &TemporalState) -> Plan {
        self.plan_with(kube, temporal, (&BTreeMap::new(), self.protected))
    }

    /// The same once objects stand as they were applied, and with or without the finalizer.
    pub fn plan_with(
        &self,
        kube: &KubeState,
        temporal: &TemporalState,
        (applied, protected): (&BTreeMap<String, String>, bool),
    ) -> Plan {
        plan(&PlanInput {
            fleet: self.fleet(),
            kube,
            applied,
            temporal,
            scaling: &State::default(),
            others: &BTreeMap::new(),
            now: Duration::from_secs(100_000),
            clock: self.clock(),
            identity: "me",
            former_identities: &BTreeSet::new(),
            max_versions: 75,
            protected,
            order: self.order,
            gates: &self.gates,
            outdated: false,
            since_marked: None,
            resting: &BTreeSet::new(),
        })
    }

    /// Name of the Deployment of a version.
    pub fn child_name(&self, at: usize) -> String {
        if at == 0 { self.fleet().child_name.clone() } else { format!("orders-{}", OLD[at - 1]) }
    }

    /// The version whose Deployment has this name.
    pub fn of_child(&self, child: &str) -> (usize, &Version) {
        self.versions().find(|(at, _)| self.child_name(*at) == child).unwrap()
    }

    /// What the server says of a version.
    pub fn answer(&mut self, at: usize) -> &mut Answer {
        if at == 0 { &mut self.target.answer } else { &mut self.old[at - 1].answer }
    }

    /// Whether the server's fresh word is that it has no work.
    pub fn has_no_work(&self, at: usize, version: &Version) -> bool {
        let wanted = at == 0 || self.current == Some(at) || self.ramp.as_ref().is_some_and(|share| share.at == at);
        let over = [Answer::Absent, Answer::Is(VersionStatus::Inactive), Answer::Is(VersionStatus::Drained)];
        self.fresh && !wanted && over.contains(&version.answer)
    }

    /// Hours since the version lost its last reason to be there.
    pub fn hours_over(&self, version: &Version) -> u64 {
        match version.answer {
            Answer::Is(VersionStatus::Drained) => version.hours_ago.min(version.seen_hours_ago.unwrap_or(u64::MAX)),
            _ => version.superseded_hours_ago.unwrap_or(0),
        }
    }
}
