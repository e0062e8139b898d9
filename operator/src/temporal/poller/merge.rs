//! From readings to what a decision is given.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use operator_core::observed::{
    DeploymentInfo, LaneKey, LaneStats, Observation, PollingDegraded, Ramp, TemporalFailure, TemporalState, TestRun,
    VersionInfo, VersionStatus,
};
use tokio::time::Instant;

use super::fleet::{Fleet, STATS_KEPT_UP, Version};
use super::lane::{Every, Lane};
use super::pace::{Class, Pace};
use super::state::State;
use super::{DEPLOYMENT_FRESH, LIVE_FRESH, Phase, STATS_FRESH};
use crate::changes::FleetId;
use crate::temporal::api::VersionReading;

/// Statistics may describe the queue as it was this long before they were read: the server's cache, and then some.
const STATS_LAG: Duration = Duration::from_secs(6);
/// A queue's rates mean nothing until its own clock, which starts when it is loaded, has run for a while.
const RATES_SETTLE: Duration = Duration::from_secs(10);

/// Planned intervals after which a reading is stale, where that is longer than the usual limit: at zero nothing is taken
/// away, and what is read seldom by plan is not missing.
const INTERVALS_AT_ZERO: u32 = 3;
/// The same for deployments: a change of the routing carries the token of the reading that it follows from.
const INTERVALS_OF_ROUTING: u32 = 2;

/// A backlog and when it was read.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Reading {
    stats: LaneStats,
    taken: Instant,
    fresh: bool,
}

impl State {
    /// What was seen of a fleet, as of `now`.
    pub(super) fn snapshot(&self, id: &FleetId, now: Instant) -> TemporalState {
        let Some(fleet) = self.fleets.get(id) else { return TemporalState::default() };
        let mut keys: BTreeSet<&LaneKey> = fleet.watch.lanes.iter().collect();
        let main = fleet.main_version().and_then(|version| version.reading.as_ref()?.0.as_ref());
        keys.extend(main.iter().flat_map(|reading| reading.stats.keys()));
        let lanes: BTreeMap<LaneKey, Observation<LaneStats>> =
            keys.into_iter().filter_map(|key| Some((key.clone(), self.lane(fleet, key, now)?))).collect();
        TemporalState {
            deployment: deployment(fleet, &self.deployment_pace, now),
            lanes,
            unversioned: self.unversioned(fleet, now),
            test_workflows: self.tests(fleet, now),
            failure: self.failure_of(fleet, now),
            degraded: self.degraded.map(|factor| PollingDegraded { factor }),
        }
    }

    /// Who polls a queue is told by its own description, which is read as seldom as its configuration.
    fn unversioned(&self, fleet: &Fleet, now: Instant) -> BTreeMap<LaneKey, Observation<bool>> {
        let limit = self.queue_pace.interval(Class::Configured) * INTERVALS_OF_ROUTING;
        let told = |key: &LaneKey| {
            let (stats, taken) = self.lanes.get(key)?.stats?;
            Some((key.clone(), Observation::aged(stats.unversioned_pollers, age(taken, now), limit)))
        };
        fleet.watch.lanes.iter().filter_map(told).collect()
    }

    /// A test Workflow that was not read yet is not in it: that is not one that was not found.
    fn tests(&self, fleet: &Fleet, now: Instant) -> BTreeMap<String, Observation<Option<TestRun>>> {
        let limit = DEPLOYMENT_FRESH.max(self.queue_pace.interval(Class::Test) * INTERVALS_OF_ROUTING);
        let told = fleet.tests.iter().filter_map(|(workflow_id, test)| {
            let (run, taken) = test.reading.as_ref()?;
            Some((workflow_id.clone(), Observation::aged(run.clone(), age(*taken, now), limit)))
        });
        told.collect()
    }

    /// Of what is read: a read that failed and is not made any more would never be made good.
    fn failure_of(&self, fleet: &Fleet, now: Instant) -> Option<TemporalFailure> {
        let read = fleet.versions.iter().filter(|(build_id, _)| fleet.version_class(build_id, now).is_some());
        let versions = read.map(|(_, version)| &version.timer);
        let tests = fleet.tests.values().map(|test| &test.timer);
        let lanes = fleet.watch.lanes.iter().filter_map(|key| self.lanes.get(key));
        let queues = fleet.watch.lanes.iter().filter_map(|key| self.queues.get(&key.task_queue));
        let mut timers = std::iter::once(&fleet.deployment_timer)
            .chain(versions.chain(tests))
            .chain(lanes.flat_map(Lane::timers))
            .chain(queues.map(|queue| &queue.timer));
        self.health.failure.clone().or_else(|| timers.find_map(|timer| timer.failure.clone()))
    }

    fn lane(&self, fleet: &Fleet, key: &LaneKey, now: Instant) -> Option<Observation<LaneStats>> {
        let lane = self.lanes.get(key);
        let at_zero = fleet.watch.phase == Phase::AtZero;
        let pinned = self.deployment_pace.interval(Class::Pinned) * INTERVALS_AT_ZERO;
        let fresh = if at_zero { STATS_FRESH.max(pinned) } else { fleet.stats_fresh() };
        let by_version = version_stats(fleet, key, fresh, now);
        let of_all_versions = lane.and_then(|lane| lane_stats(lane, fleet, now));
        let stats = match (by_version, of_all_versions) {
            (Some(own), Some(all)) if at_zero => Some(either(own, all)),
            (Some(own), _) if own.fresh && fleet.gated() => Some(own),
            (Some(own), all) if own.fresh => Some(all.filter(|all| all.fresh && newer(*all, own)).unwrap_or(own)),
            (own, all) => all.filter(|all| all.fresh).or(own).or(all),
        };
        let live = lane.and_then(|lane| live(lane, now));
        let mut reading = match (live, stats) {
            (Some(live), Some(stats)) => both(live, stats),
            (live, stats) => live.or(stats)?,
        };
        reading.stats.rate_limit = lane.and_then(Lane::rate_limit);
        let age = age(reading.taken, now);
        Some(match reading.fresh {
            true => Observation::Known { value: reading.stats, age },
            false => Observation::Stale { value: reading.stats, age },
        })
    }
}

/// The sum over partitions. A sum over some of them counts while it is more than nothing: there is that much at least.
fn live(lane: &Lane, now: Instant) -> Option<Reading> {
    let limit = longer(LIVE_FRESH, lane.live_read);
    let sum = |oldest: Option<Duration>| {
        let read = lane.live.iter().flatten();
        let used: Vec<_> = read.filter(|(_, taken)| oldest.is_none_or(|oldest| age(*taken, now) <= oldest)).collect();
        let backlog: u64 = used.iter().map(|(backlog, _)| backlog).sum();
        let taken = used.iter().map(|(_, taken)| *taken).min()?;
        (backlog > 0 || used.len() == lane.live.len()).then_some((backlog, taken))
    };
    let (backlog, taken) = sum(Some(limit)).or_else(|| sum(None))?;
    Some(Reading { stats: LaneStats { backlog, ..LaneStats::default() }, taken, fresh: age(taken, now) <= limit })
}

fn lane_stats(lane: &Lane, fleet: &Fleet, now: Instant) -> Option<Reading> {
    let (mut stats, taken) = lane.stats?;
    if lane.first_stats.is_none_or(|first| age(first, taken) < RATES_SETTLE) {
        stats.add_rate = None;
    }
    let stands_in = lane.stats_read.filter(|_| fleet.watch.phase == Phase::AtZero && lane.live_read.is_none());
    Some(Reading { stats, taken, fresh: age(taken, now) <= longer(fleet.stats_fresh(), stands_in) })
}

/// A limit of age, or more where readings are planned to be further apart.
fn longer(usual: Duration, every: Option<Every>) -> Duration {
    usual.max(every.map_or(Duration::ZERO, |every| every.period * INTERVALS_AT_ZERO))
}

/// What the version that does the work tells of a lane; one that the server does not know has no backlog.
fn version_stats(fleet: &Fleet, key: &LaneKey, limit: Duration, now: Instant) -> Option<Reading> {
    let version = fleet.main_version()?;
    let (reading, taken) = version.reading.as_ref()?;
    let mut stats = *reading.as_ref()?.stats.get(key)?;
    if version.first_stats.get(key).is_none_or(|first| age(*first, *taken) < RATES_SETTLE) {
        stats.add_rate = None;
    }
    Some(Reading { stats, taken: *taken, fresh: age(*taken, now) <= limit })
}

/// The larger of two readings if both are fresh, with the age of the older: neither sees everything.
fn either(a: Reading, b: Reading) -> Reading {
    match (a.fresh, b.fresh) {
        (true, false) => a,
        (false, true) => b,
        (false, false) => {
            if a.taken >= b.taken {
                a
            } else {
                b
            }
        }
        (true, true) => {
            let backlog = a.stats.backlog.max(b.stats.backlog);
            let stats = LaneStats {
                backlog,
                backlog_age: a.stats.backlog_age.max(b.stats.backlog_age),
                add_rate: a.stats.add_rate.or(b.stats.add_rate),
                dispatch_rate: a.stats.dispatch_rate.or(b.stats.dispatch_rate),
                rate_limiting: a.stats.rate_limiting || b.stats.rate_limiting,
                ..LaneStats::default()
            };
            Reading { stats, taken: a.taken.min(b.taken), fresh: true }
        }
    }
}

/// A live reading and statistics. Statistics that can't describe a time before the live reading replace it; pinned tasks
/// are in the statistics alone, so both count until then.
fn both(live: Reading, stats: Reading) -> Reading {
    if stats.fresh && stats.taken.saturating_duration_since(live.taken) > STATS_LAG {
        stats
    } else {
        either(live, stats)
    }
}

fn deployment(fleet: &Fleet, pace: &Pace, now: Instant) -> Observation<Option<DeploymentInfo>> {
    let Some((reading, taken)) = &fleet.deployment else { return Observation::Unknown };
    let class = match fleet.deployment_class(now) {
        // The list is what tells of it.
        Some(Class::Confirmed) => Class::Settled,
        class => class.unwrap_or(Class::Routing),
    };
    let fresh = longest(pace, &[class, Class::Routing, Class::Steady]);
    let taken = fleet.confirmed.map_or(*taken, |confirmed| confirmed.asked.max(*taken));
    let Some(reading) = reading else {
        return Observation::aged(None, age(taken, now), fresh);
    };
    let since = fleet.ramp_since.map(|since| age(since, now));
    let value = DeploymentInfo {
        current_build_id: reading.current_build_id.clone(),
        ramp: reading.ramp.clone().map(|ramp| Ramp { unchanged_for: since, ..ramp }),
        versions: versions(fleet, pace, now),
        summaries: reading.summaries.iter().cloned().collect(),
        conflict_token: reading.conflict_token.clone(),
        manager_identity: reading.manager_identity.clone(),
        last_modifier_identity: reading.last_modifier_identity.clone(),
        remembered: reading.remembered,
    };
    Observation::aged(Some(value), age(taken, now), fresh)
}

/// A version that was not asked for yet is not in it: that is not one that was not found.
fn versions(fleet: &Fleet, pace: &Pace, now: Instant) -> BTreeMap<String, Observation<Option<VersionInfo>>> {
    let limit = |build_id: &String| {
        let class = fleet.version_class(build_id, now).unwrap_or(Class::Routing);
        longest(pace, &[class, Class::Steady])
    };
    let read = fleet.versions.iter().filter_map(|(build_id, version)| {
        let (reading, taken) = version.reading.as_ref()?;
        let info = reading.as_ref().map(|reading| version_info(version, reading, now));
        Some((build_id.clone(), Observation::aged(info, age(*taken, now), limit(build_id))))
    });
    read.collect()
}

/// Age up to which a reading of a deployment or version tells what is.
fn longest(pace: &Pace, classes: &[Class]) -> Duration {
    let planned = classes.iter().map(|class| pace.interval(*class) * INTERVALS_OF_ROUTING);
    planned.fold(DEPLOYMENT_FRESH, Duration::max)
}

fn version_info(version: &Version, reading: &VersionReading, now: Instant) -> VersionInfo {
    let drains = matches!(reading.status, VersionStatus::Draining | VersionStatus::Drained);
    VersionInfo {
        status: reading.status,
        lanes: reading.lanes.clone(),
        lanes_unchanged_for: age(version.lanes_since, now),
        stats: reading.stats.clone(),
        last_current_at: reading.last_current_at,
        drainage_changed_at: reading.drainage_changed_at.filter(|_| drains),
        status_unchanged_for: version.status_since.map(|since| age(since, now)),
    }
}

/// Whether statistics of all versions are so much newer that those of the fleet's own have not kept up.
fn newer(all: Reading, own: Reading) -> bool {
    all.taken.saturating_duration_since(own.taken) > STATS_KEPT_UP
}

fn age(taken: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(taken)
}
