//! How often each thing is read from now on.

use operator_core::observed::LaneKey;
use tokio::time::Instant;

use super::Phase;
use super::fleet::Fleet;
use super::lane::{Every, Lane};
use super::pace::{Class, Demand, Pace, Reading};
use super::state::State;
use crate::changes::FleetId;
use crate::temporal::budget::{Budget, Rates};

/// Excess over the longest intervals that are borne from which on it is said.
const DEGRADED_FROM: f64 = 1.1;

/// What is to be read of a lane.
struct Wanted {
    /// Whether its backlog as it is now, with its class.
    at_zero: Option<Class>,
    /// Whether its statistics, with their class.
    stats: Option<Class>,
}

impl State {
    /// Shares the calls that there are out.
    pub(super) fn plan(&mut self, now: Instant, budget: &Budget) {
        self.planned_at = Some(now);
        self.plan_list(now);
        let deployments = self.deployment_demand(now);
        let queues = self.queue_demand(now);
        let owner = *self.owner.get_or_insert_with(|| budget.join());
        let claim = Rates { queue: queues.most(), deployment: deployments.most() };
        let share = budget.share(owner, claim);
        self.deployment_pace = Pace::fit(deployments, share.deployment);
        self.queue_pace = Pace::fit(queues, share.queue);
        let excess = self.deployment_pace.degraded().max(self.queue_pace.degraded());
        let said_from = if self.degraded.is_some() { 1.0 } else { DEGRADED_FROM };
        self.degraded = (excess > said_from).then_some(excess);
        let State { lanes, fleets, queue_pace, .. } = self;
        for (key, lane) in lanes {
            let wanted = wanted(key, lane, |id| fleets.get(id).map(Box::as_ref), now);
            (lane.live_read, lane.stats_read) = reads(&wanted, queue_pace);
            lane.at_zero = wanted.at_zero.is_some();
            if lane.live_read.is_none() {
                lane.live_timer.rest();
            }
            if lane.stats_read.is_none() {
                lane.stats_timer.rest();
            }
        }
        self.plan_starts(now);
    }

    fn deployment_demand(&self, now: Instant) -> Demand {
        let mut demand = Demand::default();
        for fleet in self.fleets.values() {
            let versions = fleet.versions.keys().filter_map(|build_id| fleet.version_class(build_id, now));
            versions.chain(fleet.deployment_class(now)).for_each(|class| demand.add(class));
        }
        demand
    }

    fn queue_demand(&mut self, now: Instant) -> Demand {
        let live_on = self.live_on(now);
        let mut demand = Demand::default();
        self.sweeping = false;
        for (key, lane) in &mut self.lanes {
            let watchers = || lane.watchers.iter().filter_map(|id| self.fleets.get(id));
            if watchers().any(|fleet| fleet.watch.phase != Phase::AtZero) {
                lane.last_busy = now;
            }
            let wanted = wanted(key, lane, |id| self.fleets.get(id).map(Box::as_ref), now);
            wanted.stats.into_iter().for_each(|class| demand.add(class));
            let partitions = self.queues.get(&key.task_queue).map_or(1, |queue| queue.partitions_of(key.task_type));
            match wanted.at_zero {
                Some(class) if live_on => demand.add_live(class, partitions),
                Some(class) => demand.add(class),
                None => continue,
            }
            self.sweeping = true;
        }
        self.queues.values().for_each(|_| demand.add(Class::Configured));
        let tests = self.fleets.values().flat_map(|fleet| fleet.tests.values());
        tests.filter(|test| test.is_open()).for_each(|_| demand.add(Class::Test));
        demand
    }
}

fn wanted<'a>(key: &LaneKey, lane: &Lane, fleet: impl Fn(&FleetId) -> Option<&'a Fleet>, now: Instant) -> Wanted {
    let watchers = || lane.watchers.iter().filter_map(&fleet);
    let running = || watchers().filter(|fleet| fleet.watch.phase != Phase::AtZero);
    let stats = if running().any(|fleet| !fleet.has_stats_of(key, now)) {
        Some(if running().all(Fleet::gated) { Class::Steady } else { Class::Hot })
    } else if lane.limit_in_doubt || running().any(|fleet| fleet.is_limited(key)) {
        // Statistics of a version do not tell the limit.
        Some(Class::Steady)
    } else {
        running().next().map(|_| Class::Configured)
    };
    let at_zero = watchers().any(|fleet| fleet.reads_live(now)).then(|| lane.class_at_zero(now));
    Wanted { at_zero, stats }
}

/// How a lane's live status and statistics are read.
fn reads(wanted: &Wanted, pace: &Pace) -> (Option<Every>, Option<Every>) {
    let stats = wanted.stats.map(|class| Every { class, period: pace.interval(class) });
    let Some(class) = wanted.at_zero else { return (None, stats) };
    match pace.reading(class) {
        Reading::Live(period) => (Some(Every { class, period }), stats),
        Reading::Ordinary(period) => {
            let stand_in = Every { class, period };
            (None, Some(stats.filter(|stats| stats.period < period).unwrap_or(stand_in)))
        }
    }
}
