//! What an answer, or a failure, changes, and which fleets need to know.

use std::collections::BTreeMap;

use jiff::Timestamp;
use operator_core::observed::{FailureClass, LaneKey, LaneStats, TestRun};
use rand::RngExt as _;
use tokio::time::Instant;

use super::fleet::Version;
use super::health::is_general;
use super::lane::Lane;
use super::schedule::Job;
use super::state::State;
use super::{LIVE_FRESH, Phase, STATS_FRESH};
use crate::changes::FleetId;
use crate::temporal::api::{DeploymentReading, LiveStatus, Partitions, VersionReading};
use crate::temporal::budget::Budget;
use crate::temporal::errors::CallError;
use crate::temporal::lists::Settled;

/// The partition that knows the limits of the whole Task Queue.
const ROOT: usize = 0;

/// An answer to a [`Job`].
#[derive(Debug)]
pub(super) enum Answer {
    Partitions(Partitions),
    Live(Option<LiveStatus>),
    Stats(LaneStats),
    List(Settled),
    Starts(BTreeMap<String, Timestamp>),
    Deployment(Option<DeploymentReading>),
    Version(Option<VersionReading>),
    Test(Option<TestRun>),
}

impl State {
    /// Takes the outcome of a read that began at `asked`. Gives the fleets whose situation changed.
    pub(super) fn finish(
        &mut self,
        job: &Job,
        outcome: Result<Answer, CallError>,
        (asked, now): (Instant, Instant),
        budget: &Budget,
    ) -> Vec<FleetId> {
        match outcome {
            Ok(answer) => {
                budget.answered(job.kind());
                self.answered(job, answer, asked, now)
            }
            Err(error) => {
                if error.failure.class == FailureClass::ResourceExhausted {
                    budget.exhausted(job.kind(), error.refusal, now);
                }
                self.failed(job, &error, now)
            }
        }
    }

    fn answered(&mut self, job: &Job, answer: Answer, asked: Instant, now: Instant) -> Vec<FleetId> {
        let mut changed = Vec::new();
        if self.health.answered() {
            self.forgive(now);
            changed.extend(self.fleets.keys().cloned());
        }
        let stretch = stretch(job);
        if self.timer(job).is_some_and(|timer| timer.succeeded(stretch)) {
            changed.extend(self.concerned(job));
        }
        match (job, answer) {
            (Job::Partitions { queue }, Answer::Partitions(partitions)) => self.take_partitions(queue, partitions),
            (Job::Live { lane, partition }, Answer::Live(status)) => {
                changed.extend(self.take_live(lane, *partition, status, (asked, now)));
            }
            (Job::Stats { lane }, Answer::Stats(stats)) => changed.extend(self.take_stats(lane, stats, asked)),
            (Job::Starts { queues }, Answer::Starts(newest)) => self.take_starts(queues, newest, now),
            (Job::List, Answer::List(settled)) => changed.extend(self.take_list(settled, asked)),
            (Job::Deployment { fleet, name }, Answer::Deployment(reading)) => {
                changed.extend(self.take_deployment(fleet, name, reading, asked, now));
            }
            (Job::Version { fleet, name, build_id }, Answer::Version(reading)) => {
                changed.extend(self.take_version(fleet, name, build_id, reading, asked));
            }
            (Job::Test { fleet, workflow_id }, Answer::Test(run)) => {
                changed.extend(self.take_test(fleet, workflow_id, run, asked));
            }
            (job, answer) => debug_assert!(false, "{answer:?} is no answer to {job:?}"),
        }
        changed
    }

    fn failed(&mut self, job: &Job, error: &CallError, now: Instant) -> Vec<FleetId> {
        if matches!(job, Job::Partitions { .. } | Job::Live { .. }) && error.unsupported() {
            if let Some(timer) = self.timer(job) {
                timer.succeeded(1.0);
            }
            self.live_unsupported(now);
            return Vec::new();
        }
        let passes = is_general(error.failure.class) || error.failure.class == FailureClass::ResourceExhausted;
        match job {
            Job::List => self.list_failed(!passes, now),
            Job::Starts { .. } if !passes => self.starts_unsupported(now),
            _ => {}
        }
        let mut changed = Vec::new();
        let is_down = self.health.failure.is_some();
        if self.timer(job).is_some_and(|timer| timer.failed(error, now)) && !is_down {
            changed.extend(self.concerned(job));
        }
        if is_general(error.failure.class) {
            if self.health.unanswered(&error.failure, now) {
                changed.extend(self.fleets.keys().cloned());
            }
        } else if self.health.answered() {
            // It answers, if only to refuse this.
            self.forgive(now);
            changed.extend(self.fleets.keys().cloned());
        }
        changed
    }

    fn concerned(&self, job: &Job) -> Vec<FleetId> {
        match job {
            Job::Partitions { queue } => {
                let of_queue = self.lanes.iter().filter(|(key, _)| key.task_queue == *queue);
                of_queue.flat_map(|(_, lane)| lane.watchers.clone()).collect()
            }
            Job::Live { lane, .. } | Job::Stats { lane } => {
                self.lanes.get(lane).map(|lane| lane.watchers.clone()).unwrap_or_default()
            }
            Job::List | Job::Starts { .. } => Vec::new(),
            Job::Deployment { fleet, .. } | Job::Version { fleet, .. } | Job::Test { fleet, .. } => vec![fleet.clone()],
        }
    }

    fn take_partitions(&mut self, name: &str, partitions: Partitions) {
        let Some(queue) = self.queues.get_mut(name) else { return };
        if queue.partitions == Some(partitions) {
            return;
        }
        queue.partitions = Some(partitions);
        for (key, lane) in self.lanes.iter_mut().filter(|(key, _)| key.task_queue == name) {
            lane.live.resize(partitions.of(key.task_type), None);
            if lane.hinted > 0 {
                lane.follow_hint();
            }
            lane.next_partition = 0;
        }
        self.replan();
    }

    fn take_live(
        &mut self,
        key: &LaneKey,
        partition: usize,
        status: Option<LiveStatus>,
        (asked, now): (Instant, Instant),
    ) -> Vec<FleetId> {
        let Some(LiveStatus { backlog, rate_limit }) = status else {
            self.live_unsupported(now);
            return Vec::new();
        };
        let Some(lane) = self.lanes.get_mut(key) else { return Vec::new() };
        let Some(slot) = lane.live.get_mut(partition) else { return Vec::new() };
        let before = slot.replace((backlog, asked));
        lane.next_partition = (partition + 1) % lane.live.len();
        if partition == ROOT {
            lane.take_rate_limit(rate_limit, asked);
        }
        lane.hinted = lane.hinted.saturating_sub(1);
        if backlog > 0 {
            lane.last_busy = now;
        }
        // A fleet that runs is read live by hints alone: what one of them showed long ago is no news any more.
        let known = before.filter(|(_, taken)| asked.saturating_duration_since(*taken) <= LIVE_FRESH);
        let known = known.map_or(0, |(backlog, _)| backlog);
        let completed = before.is_none() && lane.live.iter().all(Option::is_some);
        let emptied = backlog == 0 && known > 0 && lane.live_sum() == 0;
        if backlog > known || emptied || completed { lane.watchers.clone() } else { Vec::new() }
    }

    fn take_stats(&mut self, key: &LaneKey, stats: LaneStats, asked: Instant) -> Vec<FleetId> {
        let Some(lane) = self.lanes.get_mut(key) else { return Vec::new() };
        let before = lane.stats.replace((stats, asked));
        let was_stale = before.is_some_and(|(_, taken)| asked.saturating_duration_since(taken) > STATS_FRESH);
        lane.first_stats.get_or_insert(asked);
        lane.take_rate_limit(stats.rate_limit, asked);
        if stats.backlog > 0 {
            lane.last_busy = asked;
        }
        let news = was_stale || stats.backlog > 0 || before.is_none_or(|(before, _)| before != stats);
        if news { lane.watchers.clone() } else { Vec::new() }
    }

    fn take_deployment(
        &mut self,
        id: &FleetId,
        name: &str,
        reading: Option<DeploymentReading>,
        asked: Instant,
        now: Instant,
    ) -> Option<FleetId> {
        let fleet = self.fleets.get_mut(id)?;
        if fleet.watch.deployment_name.as_deref() != Some(name) {
            return None;
        }
        let before = fleet.deployment.replace((reading, asked));
        let read = fleet.deployment.as_ref().map(|(reading, _)| reading);
        if let Some((before, _)) = &before
            && share(before) != read.and_then(share)
        {
            fleet.ramp_since = Some(asked);
        }
        if before.as_ref().map(|(reading, _)| reading) == read {
            return None;
        }
        fleet.confirmed = None;
        if matches!(before, Some((None, _))) {
            fleet.versions.values_mut().for_each(|version| version.timer.hurry(now));
        }
        Some(id.clone())
    }

    fn take_version(
        &mut self,
        id: &FleetId,
        name: &str,
        build_id: &str,
        reading: Option<VersionReading>,
        asked: Instant,
    ) -> Option<FleetId> {
        let fleet = self.fleets.get_mut(id)?;
        if fleet.watch.deployment_name.as_deref() != Some(name) {
            return None;
        }
        let running = fleet.watch.phase != Phase::AtZero;
        let limit = fleet.stats_fresh();
        let version = fleet.versions.get_mut(build_id)?;
        let before = version.reading.replace((reading, asked));
        let was_stale = before.as_ref().is_some_and(|(_, taken)| asked.saturating_duration_since(*taken) > limit);
        let before = before.map(|(reading, _)| reading);
        let lanes_changed = note_lanes(version, before.as_ref(), asked);
        let reading = version.reading.as_ref().and_then(|(reading, _)| reading.as_ref());
        let waiting = reading.is_some_and(|reading| reading.stats.values().any(|stats| stats.backlog > 0));
        let busy_lanes: Vec<LaneKey> = reading.map(with_backlog).unwrap_or_default();
        let news = was_stale || before.as_ref().is_none_or(|before| before.as_ref() != reading);
        for key in busy_lanes {
            if let Some(lane) = self.lanes.get_mut(&key) {
                lane.last_busy = asked;
            }
        }
        if lanes_changed {
            self.replan();
        }
        (news || (running && waiting)).then(|| id.clone())
    }

    /// What was asked for before the Workflow was started does not count.
    fn take_test(&mut self, id: &FleetId, workflow_id: &str, run: Option<TestRun>, asked: Instant) -> Option<FleetId> {
        let test = self.fleets.get_mut(id)?.tests.get_mut(workflow_id)?;
        if test.reading.as_ref().is_some_and(|(_, taken)| *taken > asked) {
            return None;
        }
        let before = test.reading.replace((run, asked));
        let news = before.map(|(before, _)| before) != test.reading.as_ref().map(|(run, _)| run.clone());
        if news {
            self.replan();
        }
        news.then(|| id.clone())
    }
}

/// Who ramps, at how much.
fn share(reading: &Option<DeploymentReading>) -> Option<(&str, f32)> {
    let ramp = reading.as_ref()?.ramp.as_ref()?;
    Some((ramp.build_id.as_str(), ramp.percent))
}

impl Lane {
    fn live_sum(&self) -> u64 {
        self.live.iter().flatten().map(|(backlog, _)| backlog).sum()
    }
}

/// Notes when lanes changed, and which have statistics for the first time. Says whether either did.
fn note_lanes(version: &mut Version, before: Option<&Option<VersionReading>>, asked: Instant) -> bool {
    let Some((reading, _)) = &version.reading else { return false };
    let lanes = reading.as_ref().map(|reading| &reading.lanes);
    let status = |reading: &Option<VersionReading>| reading.as_ref().map(|reading| reading.status);
    if before.is_some_and(|before| status(before) != status(reading)) {
        version.status_since = Some(asked);
    }
    let same_lanes = before.is_some_and(|before| before.as_ref().map(|before| &before.lanes) == lanes);
    if !same_lanes {
        version.lanes_since = asked;
    }
    let Some(reading) = reading else { return !same_lanes };
    let known = version.first_stats.len();
    for lane in reading.stats.keys() {
        if !version.first_stats.contains_key(lane) {
            version.first_stats.insert(lane.clone(), asked);
        }
    }
    !same_lanes || version.first_stats.len() != known
}

fn with_backlog(reading: &VersionReading) -> Vec<LaneKey> {
    reading.stats.iter().filter(|(_, stats)| stats.backlog > 0).map(|(lane, _)| lane.clone()).collect()
}

/// How much longer than its period the next wait is: a tenth less or more, but readings of what the server caches for 5 s
/// may only come later than planned.
fn stretch(job: &Job) -> f64 {
    let cached = matches!(job, Job::Stats { .. } | Job::Version { .. });
    rand::rng().random_range(if cached { 1.0..1.1 } else { 0.9..1.1 })
}
