//! A fleet, its deployment and its versions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use operator_core::observed::{LaneKey, TestRun, VersionStatus};
use tokio::time::Instant;

use super::list::Confirmation;
use super::pace::Class;
use super::timer::Timer;
use super::{GATED_FRESH, Phase, STATS_FRESH, Watch};
use crate::temporal::api::{DeploymentReading, VersionReading};

/// A version that takes longer than this to register waits for something else, and must not use up everybody's budget.
const REGISTERING_SOON: Duration = Duration::from_secs(120);
/// Statistics of a version that are older than two readings apart have not kept up, and those of the queue must do.
pub(super) const STATS_KEPT_UP: Duration = Duration::from_secs(12);
/// A fleet that leaves zero is still read live until the ordinary statistics, two caches deep, must have caught up: so a
/// burst is seen in full.
const WAKING: Duration = Duration::from_secs(10);

/// A value and when it was read.
pub(super) type Read<T> = Option<(T, Instant)>;

/// A version of a fleet.
pub(super) struct Version {
    pub timer: Timer,
    pub reading: Read<Option<VersionReading>>,
    /// When its lanes last changed.
    pub lanes_since: Instant,
    /// When its status changed, if it was seen to.
    pub status_since: Option<Instant>,
    /// When statistics of a lane were first read: rates of a queue that was just loaded mean nothing.
    pub first_stats: BTreeMap<LaneKey, Instant>,
}

/// A test Workflow of a gate.
pub(super) struct Test {
    pub timer: Timer,
    pub reading: Read<Option<TestRun>>,
}

impl Test {
    /// Whether it is read on: what ended does not change.
    pub(super) fn is_open(&self) -> bool {
        !matches!(&self.reading, Some((Some(run), _)) if run.status.is_over())
    }
}

/// A fleet and what was read of it.
pub(super) struct Fleet {
    pub watch: Watch,
    pub deployment_timer: Timer,
    pub deployment: Read<Option<DeploymentReading>>,
    /// When a list last said the same.
    pub confirmed: Option<Confirmation>,
    /// Whether it is described only if the list does not confirm what the status has.
    pub awaits_list: bool,
    /// When the share of a version that ramps changed, if it was seen to.
    pub ramp_since: Option<Instant>,
    /// By Build ID; boxed, as a node of the map has room for eleven.
    pub versions: BTreeMap<String, Box<Version>>,
    /// Test Workflows by Workflow ID.
    pub tests: BTreeMap<String, Test>,
    /// When it left zero.
    pub woke: Option<Instant>,
    phase_since: Instant,
}

impl Fleet {
    pub(super) fn new(watch: Watch, now: Instant) -> Self {
        let mut fleet = Self {
            awaits_list: watch.remembered.is_some(),
            watch,
            deployment_timer: Timer::new(now),
            deployment: None,
            confirmed: None,
            ramp_since: None,
            versions: BTreeMap::new(),
            tests: BTreeMap::new(),
            woke: None,
            phase_since: now,
        };
        fleet.follow_build_ids(now);
        fleet
    }

    /// Takes a changed watch, and reads at once what the change calls for.
    pub(super) fn rewatch(&mut self, watch: Watch, now: Instant) {
        // Another address may be another server: what was read of the one before says nothing of it.
        let renamed = watch.deployment_name != self.watch.deployment_name
            || watch.namespace != self.watch.namespace
            || watch.connection.host_port() != self.watch.connection.host_port();
        if renamed {
            *self = Self::new(watch, now);
            return;
        }
        let phase_changed = watch.phase != self.watch.phase;
        let registered = self.watch.phase == Phase::Registering && watch.phase == Phase::Running;
        let opened = self.watch.gated && !watch.gated;
        if phase_changed {
            self.phase_since = now;
            self.woke = (self.watch.phase == Phase::AtZero).then_some(now);
        }
        self.awaits_list &= watch.remembered.is_some();
        self.watch = watch;
        self.follow_build_ids(now);
        // While it registered it was read all the time.
        if phase_changed && !(registered && self.is_settled()) {
            self.hurry(now);
        } else if opened {
            self.versions.values_mut().for_each(|version| version.timer.hurry(now));
        }
        if self.is_remembered() && !self.is_settled() {
            self.deployment_timer.hurry(now);
        }
    }

    pub(super) fn hurry(&mut self, now: Instant) {
        self.awaits_list = false;
        self.deployment_timer.hurry(now);
        self.versions.values_mut().for_each(|version| version.timer.hurry(now));
    }

    /// No read of it is under way any more: it moves to another poller.
    pub(super) fn detach(mut self, now: Instant) -> Self {
        self.awaits_list = false;
        self.confirmed = None;
        self.deployment_timer = Timer::new(now);
        self.versions.values_mut().for_each(|version| version.timer = Timer::new(now));
        self.tests.values_mut().for_each(|test| test.timer = Timer::new(now));
        self
    }

    /// Reads these test Workflows from now on, and no others. Says whether that is a change.
    pub(super) fn follow_tests(&mut self, wanted: &BTreeSet<String>, now: Instant) -> bool {
        if self.tests.keys().eq(wanted) {
            return false;
        }
        self.tests.retain(|workflow_id, _| wanted.contains(workflow_id));
        for workflow_id in wanted {
            let new = || Test { timer: Timer::new(now), reading: None };
            self.tests.entry(workflow_id.clone()).or_insert_with(new);
        }
        true
    }

    fn follow_build_ids(&mut self, now: Instant) {
        let wanted = &self.watch.build_ids;
        self.versions.retain(|build_id, _| wanted.contains(build_id));
        for build_id in wanted {
            self.versions.entry(build_id.clone()).or_insert_with(|| {
                Box::new(Version {
                    timer: Timer::new(now),
                    reading: None,
                    lanes_since: now,
                    status_since: None,
                    first_stats: BTreeMap::new(),
                })
            });
        }
    }

    fn waking(&self, now: Instant) -> bool {
        self.woke.is_some_and(|woke| now.saturating_duration_since(woke) < WAKING)
    }

    pub(super) fn reads_live(&self, now: Instant) -> bool {
        self.watch.phase == Phase::AtZero || self.waking(now)
    }

    /// Whether it runs, and its own pods prove that nothing waits.
    pub(super) fn gated(&self) -> bool {
        self.watch.gated && self.watch.phase == Phase::Running
    }

    /// Age up to which statistics tell what is.
    pub(super) fn stats_fresh(&self) -> Duration {
        if self.gated() { GATED_FRESH } else { STATS_FRESH }
    }

    /// The version whose statistics count for its lanes.
    pub(super) fn main_version(&self) -> Option<&Version> {
        self.versions.get(self.watch.main.as_deref()?).map(Box::as_ref)
    }

    /// Whether the statistics of its versions tell of a lane, lately.
    pub(super) fn has_stats_of(&self, lane: &LaneKey, now: Instant) -> bool {
        let lately = if self.gated() { GATED_FRESH } else { STATS_KEPT_UP };
        let reading = self.main_version().and_then(|version| version.reading.as_ref());
        let recent = reading.filter(|(_, taken)| now.saturating_duration_since(*taken) < lately);
        recent.and_then(|(reading, _)| reading.as_ref()).is_some_and(|reading| reading.stats.contains_key(lane))
    }

    /// Whether a rate limit holds tasks of a lane back, by the statistics of its versions.
    pub(super) fn is_limited(&self, lane: &LaneKey) -> bool {
        let readings = self.versions.values().filter_map(|version| version.reading.as_ref()?.0.as_ref());
        readings.filter_map(|reading| reading.stats.get(lane)).any(|stats| stats.rate_limiting)
    }

    fn registering(&self, now: Instant) -> Class {
        let soon = now.saturating_duration_since(self.phase_since) < REGISTERING_SOON;
        if soon { Class::Registering } else { Class::Hot }
    }

    /// How urgently its deployment is read, if it has one.
    pub(super) fn deployment_class(&self, now: Instant) -> Option<Class> {
        self.watch.deployment_name.as_ref().filter(|_| !self.awaits_list)?;
        Some(match self.watch.phase {
            _ if self.is_settled() && self.confirmed.is_some_and(|confirmed| confirmed.holds(now)) => Class::Confirmed,
            _ if self.is_settled() => Class::Settled,
            Phase::Registering => self.registering(now),
            _ => Class::Routing,
        })
    }

    /// Whether its only version is current, has all of the traffic, and is not scaled by what is read of it: only somebody else
    /// can change anything.
    pub(super) fn is_settled(&self) -> bool {
        let [target] = &self.watch.build_ids[..] else { return false };
        let Some((Some(reading), _)) = &self.deployment else { return false };
        let is_current = reading.current_build_id.as_ref() == Some(target) && reading.ramp.is_none();
        is_current && self.watch.phase != Phase::AtZero && self.watch.lanes.is_empty()
    }

    /// Whether nothing but the status and a list tells of its deployment.
    fn is_remembered(&self) -> bool {
        matches!(&self.deployment, Some((Some(reading), _)) if reading.remembered)
    }

    /// How urgently a version is read, if it may be there.
    pub(super) fn version_class(&self, build_id: &str, now: Instant) -> Option<Class> {
        self.watch.deployment_name.as_ref()?;
        // The server says that there is no such deployment, so there is no version of it either.
        if matches!(self.deployment, Some((None, _))) || self.is_settled() || self.awaits_list {
            return None;
        }
        let is_target = self.watch.build_ids.first().is_some_and(|target| target == build_id);
        let is_main = self.watch.main.as_deref() == Some(build_id);
        Some(match self.watch.phase {
            Phase::Registering if is_target => self.registering(now),
            _ if !is_target && !is_main && !self.ramps(build_id) => Class::Draining,
            // It has traffic, or is about to: its own pods prove nothing here.
            _ if !is_main && !self.watch.lanes.is_empty() => Class::Hot,
            _ if !is_main => Class::Routing,
            // Without lanes nobody scales by its statistics.
            Phase::Running if self.watch.lanes.is_empty() => Class::Routing,
            Phase::Running if self.watch.gated => Class::Steady,
            Phase::Registering | Phase::Running => Class::Hot,
            Phase::AtZero => Class::Pinned,
        })
    }

    fn ramps(&self, build_id: &str) -> bool {
        let reading = self.versions.get(build_id).and_then(|version| version.reading.as_ref()?.0.as_ref());
        reading.is_some_and(|reading| reading.status == VersionStatus::Ramping)
    }
}
