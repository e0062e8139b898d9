//! Everything that is known and scheduled in one Temporal namespace. No call is made here.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use operator_core::observed::{LaneKey, TestRun, TestStatus};
use tokio::time::Instant;

use super::Watch;
use super::fleet::Fleet;
use super::health::Health;
use super::lane::{Lane, Queue};
use super::list::List;
use super::pace::Pace;
use super::schedule::Job;
use super::starts::Starts;
use super::timer::Timer;
use crate::changes::FleetId;
use crate::temporal::budget::Budget;

/// A server that does not tell the live status is asked again after this.
const LIVE_RETRY: Duration = Duration::from_secs(600);

/// State of one Temporal namespace.
#[derive(Default)]
pub(super) struct State {
    /// Boxed, as a table has room for twice as many as it holds.
    pub fleets: HashMap<FleetId, Box<Fleet>>,
    pub lanes: HashMap<LaneKey, Lane>,
    pub queues: HashMap<String, Queue>,
    pub list: List,
    pub starts: Starts,
    pub health: Health,
    /// Until when the server is not asked for the live status.
    pub live_off_until: Option<Instant>,
    pub closed: bool,
    /// When it was last decided how each lane is read.
    pub planned_at: Option<Instant>,
    /// Whether a lane is watched for its first task.
    pub sweeping: bool,
    /// How often deployments and versions are read.
    pub deployment_pace: Pace,
    /// How often Task Queues are read.
    pub queue_pace: Pace,
    /// By what factor the longest intervals that are borne are exceeded, if they are.
    pub degraded: Option<f64>,
    /// The number under which it shares the budget.
    pub owner: Option<u64>,
}

impl State {
    /// Takes a fleet's watch; says whether anything changed.
    pub(super) fn set(&mut self, watch: Watch, carried: Option<Fleet>, now: Instant) -> bool {
        let id = watch.fleet.clone();
        let moved = carried.is_some();
        if let Some(carried) = carried {
            self.fleets.insert(id.clone(), Box::new(carried.detach(now)));
        }
        match self.fleets.get_mut(&id) {
            Some(fleet) if !moved && same(&fleet.watch, &watch) => return false,
            Some(fleet) => fleet.rewatch(watch, now),
            None => {
                self.fleets.insert(id.clone(), Box::new(Fleet::new(watch, now)));
            }
        }
        self.await_list(&id, now);
        self.follow_lanes(&id, now);
        true
    }

    /// Forgets a fleet, and the lanes that nobody else watches.
    pub(super) fn remove(&mut self, id: &FleetId, budget: &Budget) -> Option<Fleet> {
        let fleet = self.fleets.remove(id)?;
        self.leave_lanes(id, |_| false);
        if let Some(owner) = self.owner.take_if(|_| self.fleets.is_empty()) {
            budget.leave(owner);
        }
        Some(*fleet)
    }

    fn follow_lanes(&mut self, id: &FleetId, now: Instant) {
        let Some(fleet) = self.fleets.get(id) else { return };
        let wanted = fleet.watch.lanes.clone();
        self.leave_lanes(id, |key| wanted.contains(key));
        for key in wanted {
            let queue = self.queues.entry(key.task_queue.clone()).or_insert_with(|| Queue::new(now));
            let partitions = queue.partitions_of(key.task_type);
            let lane = self.lanes.entry(key).or_insert_with(|| Lane::new(partitions, now));
            if !lane.watchers.contains(id) {
                lane.watchers.push(id.clone());
            }
        }
    }

    fn leave_lanes(&mut self, id: &FleetId, stays: impl Fn(&LaneKey) -> bool) {
        let before = self.lanes.len();
        self.lanes.retain(|key, lane| {
            if !stays(key) {
                lane.watchers.retain(|watcher| watcher != id);
            }
            !lane.watchers.is_empty()
        });
        if self.lanes.len() < before {
            let used: HashSet<&str> = self.lanes.keys().map(|key| key.task_queue.as_str()).collect();
            self.queues.retain(|queue, _| used.contains(queue.as_str()));
        }
        self.replan();
    }

    /// Reads everything of a fleet again at once, except what is read live anyway.
    pub(super) fn poke(&mut self, id: &FleetId, now: Instant) {
        let Some(fleet) = self.fleets.get_mut(id) else { return };
        fleet.hurry(now);
        for key in &fleet.watch.lanes {
            if let Some(lane) = self.lanes.get_mut(key) {
                lane.stats_timer.hurry(now);
            }
        }
    }

    /// A task of a fleet may be waiting: each partition of its lanes is read live once more, from now on.
    pub(super) fn hint(&mut self, id: &FleetId, now: Instant) {
        let Some(fleet) = self.fleets.get(id) else { return };
        let live_on = self.live_off_until.is_none_or(|until| until <= now);
        for key in &fleet.watch.lanes {
            if let Some(lane) = self.lanes.get_mut(key) {
                lane.hint(live_on, now);
            }
        }
    }

    /// Reads these test Workflows of a fleet, and no others. Says whether that is a change.
    pub(super) fn follow_tests(&mut self, id: &FleetId, wanted: &BTreeSet<String>, now: Instant) -> bool {
        let changed = self.fleets.get_mut(id).is_some_and(|fleet| fleet.follow_tests(wanted, now));
        if changed {
            self.replan();
        }
        changed
    }

    /// A test Workflow was started just now, as this run, or was there before.
    pub(super) fn test_started(&mut self, id: &FleetId, workflow_id: &str, run_id: Option<String>, now: Instant) {
        let Some(test) = self.fleets.get_mut(id).and_then(|fleet| fleet.tests.get_mut(workflow_id)) else { return };
        let run = run_id.map(|run_id| TestRun { run_id, status: TestStatus::Running, failure: None });
        test.reading = run.map(|run| (Some(run), now));
        test.timer.hurry(now);
    }

    /// When the partition of a live read was read before.
    pub(super) fn last_live(&self, job: &Job) -> Option<Instant> {
        let Job::Live { lane, partition } = job else { return None };
        self.lanes.get(lane)?.live.get(*partition)?.map(|(_, taken)| taken)
    }

    /// Whether the server is asked for the live status.
    pub(super) fn live_on(&self, now: Instant) -> bool {
        self.live_off_until.is_none_or(|until| until <= now)
    }

    /// What may change the plan happened.
    pub(super) fn replan(&mut self) {
        self.planned_at = None;
    }

    /// The server is back: what failed is read again soon.
    pub(super) fn forgive(&mut self, now: Instant) {
        for fleet in self.fleets.values_mut() {
            fleet.deployment_timer.forgive(now);
            fleet.versions.values_mut().for_each(|version| version.timer.forgive(now));
            fleet.tests.values_mut().for_each(|test| test.timer.forgive(now));
        }
        for lane in self.lanes.values_mut() {
            lane.live_timer.forgive(now);
            lane.stats_timer.forgive(now);
        }
        self.queues.values_mut().for_each(|queue| queue.timer.forgive(now));
        self.list.timer.iter_mut().chain(&mut self.starts.timer).for_each(|timer| timer.forgive(now));
    }

    /// The timer of a read; none when what it reads is not watched any more.
    pub(super) fn timer(&mut self, job: &Job) -> Option<&mut Timer> {
        match job {
            Job::Partitions { queue } => self.queues.get_mut(queue).map(|queue| &mut queue.timer),
            Job::Live { lane, .. } => self.lanes.get_mut(lane).map(|lane| &mut lane.live_timer),
            Job::Stats { lane } => self.lanes.get_mut(lane).map(|lane| &mut lane.stats_timer),
            Job::List => self.list.timer.as_mut(),
            Job::Starts { .. } => self.starts.timer.as_mut(),
            Job::Deployment { fleet, .. } => self.fleets.get_mut(fleet).map(|fleet| &mut fleet.deployment_timer),
            Job::Version { fleet, build_id, .. } => {
                Some(&mut self.fleets.get_mut(fleet)?.versions.get_mut(build_id)?.timer)
            }
            Job::Test { fleet, workflow_id } => {
                Some(&mut self.fleets.get_mut(fleet)?.tests.get_mut(workflow_id)?.timer)
            }
        }
    }

    /// The server does not tell the live status, or not to us: the ordinary statistics must do for a while.
    pub(super) fn live_unsupported(&mut self, now: Instant) {
        self.live_off_until = Some(now + LIVE_RETRY);
        self.replan();
    }
}

fn same(a: &Watch, b: &Watch) -> bool {
    a.phase == b.phase
        && a.gated == b.gated
        && a.deployment_name == b.deployment_name
        && a.build_ids == b.build_ids
        && a.main == b.main
        && a.lanes == b.lanes
        && a.namespace == b.namespace
}
