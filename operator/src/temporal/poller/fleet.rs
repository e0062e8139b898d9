//! A fleet, its deployment and its versions.

use std::collections::BTreeMap;
use std::time::Duration;

use operator_core::observed::LaneKey;
use tokio::time::Instant;

use super::timer::Timer;
use super::{Phase, Watch};
use crate::temporal::api::{DeploymentReading, VersionReading};

/// While a version registers. The fleet can't do anything else meanwhile.
const REGISTERING_EVERY: Duration = Duration::from_secs(1);
/// A version that takes longer than this to register waits for something else, and must not use up everybody's budget.
const REGISTERING_SOON: Duration = Duration::from_secs(120);
/// The server caches statistics for 5 s. Just after that, a reading is one of this moment.
pub(super) const STATS_EVERY: Duration = Duration::from_millis(5100);
/// For the backlog of pinned Workflows, which is in no live reading.
const STATS_AT_ZERO_EVERY: Duration = Duration::from_millis(10_200);
/// Statistics of a version that are older than two readings apart have not kept up, and those of the queue must do.
pub(super) const STATS_KEPT_UP: Duration = Duration::from_secs(12);
pub(super) const DEPLOYMENT_EVERY: Duration = Duration::from_secs(30);
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
    /// When statistics of a lane were first read: rates of a queue that was just loaded mean nothing.
    pub first_stats: BTreeMap<LaneKey, Instant>,
}

/// A fleet and what was read of it.
pub(super) struct Fleet {
    pub watch: Watch,
    pub deployment_timer: Timer,
    pub deployment: Read<Option<DeploymentReading>>,
    pub versions: BTreeMap<String, Version>,
    /// When it left zero.
    pub woke: Option<Instant>,
    phase_since: Instant,
}

impl Fleet {
    pub(super) fn new(watch: Watch, now: Instant) -> Self {
        let mut fleet = Self {
            watch,
            deployment_timer: Timer::new(now),
            deployment: None,
            versions: BTreeMap::new(),
            woke: None,
            phase_since: now,
        };
        fleet.follow_build_ids(now);
        fleet
    }

    /// Takes a changed watch, and reads at once what the change calls for.
    pub(super) fn rewatch(&mut self, watch: Watch, now: Instant) {
        let renamed = watch.deployment_name != self.watch.deployment_name || watch.namespace != self.watch.namespace;
        if renamed {
            *self = Self::new(watch, now);
            return;
        }
        let phase_changed = watch.phase != self.watch.phase;
        if phase_changed {
            self.phase_since = now;
            self.woke = (self.watch.phase == Phase::AtZero).then_some(now);
        }
        self.watch = watch;
        self.follow_build_ids(now);
        if phase_changed {
            self.hurry(now);
        }
    }

    pub(super) fn hurry(&mut self, now: Instant) {
        self.deployment_timer.hurry(now);
        self.versions.values_mut().for_each(|version| version.timer.hurry(now));
    }

    /// No read of it is under way any more: it moves to another poller.
    pub(super) fn detach(mut self, now: Instant) -> Self {
        self.deployment_timer = Timer::new(now);
        self.versions.values_mut().for_each(|version| version.timer = Timer::new(now));
        self
    }

    fn follow_build_ids(&mut self, now: Instant) {
        let wanted = &self.watch.build_ids;
        self.versions.retain(|build_id, _| wanted.contains(build_id));
        for build_id in wanted {
            self.versions.entry(build_id.clone()).or_insert_with(|| Version {
                timer: Timer::new(now),
                reading: None,
                lanes_since: now,
                first_stats: BTreeMap::new(),
            });
        }
    }

    fn waking(&self, now: Instant) -> bool {
        self.woke.is_some_and(|woke| now.saturating_duration_since(woke) < WAKING)
    }

    pub(super) fn reads_live(&self, now: Instant) -> bool {
        self.watch.phase == Phase::AtZero || self.waking(now)
    }

    /// Whether the statistics of its versions tell of a lane, lately.
    pub(super) fn has_stats_of(&self, lane: &LaneKey, now: Instant) -> bool {
        let readings = self.versions.values().filter_map(|version| version.reading.as_ref());
        let mut recent = readings.filter(|(_, taken)| now.saturating_duration_since(*taken) < STATS_KEPT_UP);
        recent.any(|(reading, _)| reading.as_ref().is_some_and(|reading| reading.stats.contains_key(lane)))
    }

    fn registering_every(&self, now: Instant) -> Duration {
        let soon = now.saturating_duration_since(self.phase_since) < REGISTERING_SOON;
        if soon { REGISTERING_EVERY } else { STATS_EVERY }
    }

    pub(super) fn deployment_every(&self, now: Instant) -> Option<Duration> {
        self.watch.deployment_name.as_ref()?;
        Some(if self.watch.phase == Phase::Registering { self.registering_every(now) } else { DEPLOYMENT_EVERY })
    }

    pub(super) fn version_every(&self, build_id: &str, now: Instant) -> Option<Duration> {
        self.watch.deployment_name.as_ref()?;
        if matches!(self.deployment, Some((None, _))) {
            // The server says that there is no such deployment, so there is no version of it either.
            return None;
        }
        let is_target = self.watch.build_ids.first().is_some_and(|target| target == build_id);
        Some(match self.watch.phase {
            Phase::Registering if is_target => self.registering_every(now),
            // Without lanes nobody scales by its statistics.
            Phase::Running if self.watch.lanes.is_empty() => DEPLOYMENT_EVERY,
            Phase::Registering | Phase::Running => STATS_EVERY,
            Phase::AtZero => STATS_AT_ZERO_EVERY,
        })
    }
}
