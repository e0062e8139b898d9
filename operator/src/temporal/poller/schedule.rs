//! Which read comes next.

use std::time::Duration;

use operator_core::observed::LaneKey;
use tokio::time::Instant;

use super::Phase;
use super::fleet::{DEPLOYMENT_EVERY, Fleet, STATS_EVERY};
use super::lane::Lane;
use super::pace::{Demand, FASTEST, FASTEST_ORDINARY, Pace, paces};
use super::state::State;
use crate::changes::FleetId;
use crate::temporal::budget::{Budget, Kind};

const PARTITIONS_EVERY: Duration = Duration::from_secs(600);
/// Paces follow changes of the demand at least this often.
const PLAN_EVERY: Duration = Duration::from_secs(1);

/// A read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Job {
    Partitions { queue: String },
    Live { lane: LaneKey, partition: usize },
    Stats { lane: LaneKey },
    Deployment { fleet: FleetId, name: String },
    Version { fleet: FleetId, name: String, build_id: String },
}

impl Job {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Partitions { .. } | Self::Live { .. } | Self::Stats { .. } => Kind::Queue,
            Self::Deployment { .. } | Self::Version { .. } => Kind::Deployment,
        }
    }
}

/// What to do next.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// Read this; its token is taken.
    Read(Job),
    /// Nothing before then.
    WaitUntil(Instant),
}

impl State {
    /// Chooses the read that is most overdue and within the budget.
    pub(super) fn next(&mut self, now: Instant, in_flight: usize, budget: &Budget) -> Next {
        if self.planned_at.is_none_or(|planned| now.saturating_duration_since(planned) >= PLAN_EVERY) {
            self.plan(now, budget);
        }
        let far = now + DEPLOYMENT_EVERY;
        let (queue_read, deployment_read) = (self.first_queue_read(now), self.first_deployment_read(now));
        if let Some(probe_at) = self.health.probe_at {
            // One call at a time finds out whether the server is back, whatever is due.
            if in_flight > 0 {
                return Next::WaitUntil(far);
            }
            let first = queue_read.into_iter().chain(deployment_read).min_by_key(|(due, _)| *due);
            return match first {
                Some((_, job)) => self.take([Some((probe_at, job)), None], now, far, budget),
                None => Next::WaitUntil(far),
            };
        }
        let mut order = [queue_read, deployment_read];
        order.sort_by_key(|candidate| candidate.as_ref().map_or(far, |(due, _)| *due));
        self.take(order, now, far, budget)
    }

    fn take(&mut self, candidates: [Option<(Instant, Job)>; 2], now: Instant, far: Instant, budget: &Budget) -> Next {
        let mut wake = far;
        for (due, job) in candidates.into_iter().flatten() {
            if due > now {
                wake = wake.min(due);
                continue;
            }
            match budget.try_take(job.kind(), now) {
                Ok(()) => {
                    budget.waited(job.kind(), now.saturating_duration_since(due));
                    if let Some(timer) = self.timer(&job) {
                        timer.start(now);
                    }
                    return Next::Read(job);
                }
                Err(wait) => wake = wake.min(now + wait),
            }
        }
        // Paces are looked at again while lanes are swept.
        if self.sweep_calls > 0 {
            wake = wake.min(now + PLAN_EVERY);
        }
        Next::WaitUntil(wake)
    }

    fn first_queue_read(&self, now: Instant) -> Option<(Instant, Job)> {
        let live_on = self.live_off_until.is_none_or(|until| until <= now);
        let mut first: Option<(Instant, Candidate<'_>)> = None;
        let mut offer = |due: Option<Instant>, candidate| {
            if let Some(due) = due.filter(|due| first.as_ref().is_none_or(|(best, _)| due < best)) {
                first = Some((due, candidate));
            }
        };
        for (key, lane) in &self.lanes {
            if let Some(every) = lane.live_every {
                let known = self.queues.get(&key.task_queue).and_then(|queue| queue.partitions);
                match known {
                    Some(partitions) => {
                        let every = every / u32::try_from(partitions.of(key.task_type)).unwrap_or(1);
                        offer(lane.live_timer.due(every), Candidate::Live(key, lane));
                    }
                    None => self.offer_partitions(key, &mut offer),
                }
            }
            if let Some(every) = lane.stats_every {
                offer(lane.stats_timer.due(every), Candidate::Stats(key));
            }
        }
        if live_on {
            for (name, queue) in self.queues.iter().filter(|(_, queue)| queue.partitions.is_some()) {
                offer(queue.timer.due(PARTITIONS_EVERY), Candidate::Partitions(name));
            }
        }
        first.map(|(due, candidate)| (due, candidate.job()))
    }

    fn offer_partitions<'a>(&'a self, key: &'a LaneKey, offer: &mut impl FnMut(Option<Instant>, Candidate<'a>)) {
        if let Some(queue) = self.queues.get(&key.task_queue) {
            offer(queue.timer.due(PARTITIONS_EVERY), Candidate::Partitions(&key.task_queue));
        }
    }

    fn first_deployment_read(&self, now: Instant) -> Option<(Instant, Job)> {
        let mut first: Option<(Instant, &Fleet, Option<&str>)> = None;
        let mut offer = |due: Option<Instant>, fleet, build_id| {
            if let Some(due) = due.filter(|due| first.is_none_or(|(best, ..)| *due < best)) {
                first = Some((due, fleet, build_id));
            }
        };
        for fleet in self.fleets.values() {
            if let Some(every) = fleet.deployment_every(now) {
                offer(fleet.deployment_timer.due(every), fleet, None);
            }
            for (build_id, version) in &fleet.versions {
                if let Some(every) = fleet.version_every(build_id, now) {
                    offer(version.timer.due(every), fleet, Some(build_id));
                }
            }
        }
        let (due, fleet, build_id) = first?;
        let (name, fleet) = (fleet.watch.deployment_name.clone()?, fleet.watch.fleet.clone());
        let job = match build_id {
            Some(build_id) => Job::Version { fleet, name, build_id: build_id.to_owned() },
            None => Job::Deployment { fleet, name },
        };
        Some((due, job))
    }

    /// Says for each lane how it is read.
    fn plan(&mut self, now: Instant, budget: &Budget) {
        self.planned_at = Some(now);
        let live_on = self.live_off_until.is_none_or(|until| until <= now);
        let (mut busy, mut quiet) = (Demand::default(), Demand::default());
        for (key, lane) in &mut self.lanes {
            let fleets = &self.fleets;
            let watchers = || lane.watchers.iter().filter_map(|id| fleets.get(id));
            let live = watchers().any(|fleet| fleet.reads_live(now));
            let running = watchers().any(|fleet| fleet.watch.phase != Phase::AtZero);
            let untold = watchers().any(|fleet| fleet.watch.phase != Phase::AtZero && !fleet.has_stats_of(key, now));
            if running {
                lane.last_busy = now;
            }
            lane.stats_every = untold.then_some(STATS_EVERY);
            lane.live_every = live.then_some(FASTEST);
            if live {
                let calls = self.queues.get(&key.task_queue).map_or(1, |queue| queue.partitions_of(key.task_type));
                let demand = if lane.quiet(now) { &mut quiet } else { &mut busy };
                demand.lanes += 1;
                demand.calls += if live_on { calls } else { 1 };
            }
        }
        let sweep_calls = busy.calls + quiet.calls;
        budget.sweep_changed(self.sweep_calls, sweep_calls);
        self.sweep_calls = sweep_calls;
        let (busy_pace, quiet_pace) = paces(busy, quiet, budget.sweep_share(sweep_calls));
        for lane in self.lanes.values_mut().filter(|lane| lane.live_every.is_some()) {
            match if lane.quiet(now) { quiet_pace } else { busy_pace } {
                Pace::Live(period) if live_on => lane.live_every = Some(period),
                Pace::Live(period) | Pace::Ordinary(period) => {
                    let period = period.max(FASTEST_ORDINARY);
                    lane.live_every = None;
                    lane.stats_every = Some(lane.stats_every.map_or(period, |every| every.min(period)));
                }
            }
        }
        for lane in self.lanes.values_mut() {
            let timers = [(lane.live_every, &mut lane.live_timer), (lane.stats_every, &mut lane.stats_timer)];
            timers.into_iter().filter(|(every, _)| every.is_none()).for_each(|(_, timer)| timer.rest());
        }
    }
}

enum Candidate<'a> {
    Partitions(&'a str),
    Live(&'a LaneKey, &'a Lane),
    Stats(&'a LaneKey),
}

impl Candidate<'_> {
    fn job(self) -> Job {
        match self {
            Self::Partitions(queue) => Job::Partitions { queue: queue.to_owned() },
            Self::Live(key, lane) => Job::Live { lane: key.clone(), partition: lane.next_partition },
            Self::Stats(key) => Job::Stats { lane: key.clone() },
        }
    }
}
