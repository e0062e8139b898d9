//! Everything that is known and scheduled in one Temporal namespace. No call is made here.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use operator_core::observed::{FailureClass, LaneKey, LaneStats, TemporalFailure};
use tokio::time::Instant;

use super::pace::{Demand, Pace, paces};
use super::timer::{Timer, backoff};
use super::{Phase, Watch};
use crate::changes::FleetId;
use crate::temporal::api::{DeploymentReading, Partitions, VersionReading};
use crate::temporal::budget::{Budget, Kind};

/// While a version registers. The fleet can't do anything else meanwhile.
const REGISTERING_EVERY: Duration = Duration::from_secs(1);
/// The server caches statistics for 5 s. Just after that, a reading is one of this moment.
const STATS_EVERY: Duration = Duration::from_millis(5100);
/// For the backlog of pinned Workflows, which is in no live reading.
const STATS_AT_ZERO_EVERY: Duration = Duration::from_millis(10_200);
const DEPLOYMENT_EVERY: Duration = Duration::from_secs(30);
const PARTITIONS_EVERY: Duration = Duration::from_secs(600);
/// A fleet that leaves zero is still read live until the ordinary statistics, two caches deep, must have caught up: so a
/// burst is seen in full.
const WAKING: Duration = Duration::from_secs(10);
/// A lane without a task for so long is quiet.
const QUIET_AFTER: Duration = Duration::from_secs(3600);
/// A server that does not tell the live status is asked again after this.
const LIVE_RETRY: Duration = Duration::from_secs(600);
/// Paces follow changes of the demand at least this often.
const PLAN_EVERY: Duration = Duration::from_secs(1);
/// Partitions of a Task Queue until the server told: its default.
const USUAL_PARTITIONS: usize = 4;
/// Failures in a row, none of them answered, after which the server counts as down.
const DOWN_AFTER: u32 = 2;
const LONGEST_PROBE_PAUSE: Duration = Duration::from_secs(5);

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
}

impl Fleet {
    pub(super) fn new(watch: Watch, now: Instant) -> Self {
        let mut fleet =
            Self { watch, deployment_timer: Timer::new(now), deployment: None, versions: BTreeMap::new(), woke: None };
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

    fn reads_live(&self, now: Instant) -> bool {
        self.watch.phase == Phase::AtZero || self.waking(now)
    }

    /// Whether the statistics of its versions tell of a lane.
    pub(super) fn has_stats_of(&self, lane: &LaneKey) -> bool {
        let mut readings = self.versions.values().filter_map(|version| version.reading.as_ref()?.0.as_ref());
        readings.any(|reading| reading.stats.contains_key(lane))
    }

    fn deployment_every(&self) -> Option<Duration> {
        self.watch.deployment_name.as_ref()?;
        Some(if self.watch.phase == Phase::Registering { REGISTERING_EVERY } else { DEPLOYMENT_EVERY })
    }

    fn version_every(&self, build_id: &str) -> Option<Duration> {
        self.watch.deployment_name.as_ref()?;
        if matches!(self.deployment, Some((None, _))) {
            // The server says that there is no such deployment, so there is no version of it either.
            return None;
        }
        let is_target = self.watch.build_ids.first().is_some_and(|target| target == build_id);
        Some(match self.watch.phase {
            Phase::Registering if is_target => REGISTERING_EVERY,
            Phase::Registering | Phase::Running => STATS_EVERY,
            Phase::AtZero => STATS_AT_ZERO_EVERY,
        })
    }
}

/// A Task Queue.
pub(super) struct Queue {
    pub timer: Timer,
    pub partitions: Option<Partitions>,
}

/// A lane, for all fleets that watch it.
pub(super) struct Lane {
    pub watchers: Vec<FleetId>,
    pub live_timer: Timer,
    pub next_partition: usize,
    /// Live backlog by partition.
    pub live: Vec<Read<u64>>,
    pub stats_timer: Timer,
    pub stats: Read<LaneStats>,
    pub first_stats: Option<Instant>,
    pub last_busy: Instant,
    live_every: Option<Duration>,
    stats_every: Option<Duration>,
}

impl Lane {
    fn new(now: Instant) -> Self {
        Self {
            watchers: Vec::new(),
            live_timer: Timer::new(now),
            next_partition: 0,
            live: vec![None; USUAL_PARTITIONS],
            stats_timer: Timer::new(now),
            stats: None,
            first_stats: None,
            last_busy: now,
            live_every: None,
            stats_every: None,
        }
    }

    fn quiet(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_busy) >= QUIET_AFTER
    }
}

/// Whether the server answers at all.
#[derive(Default)]
pub(super) struct Health {
    unanswered: u32,
    probe_at: Option<Instant>,
    pub failure: Option<TemporalFailure>,
}

impl Health {
    /// A call was answered. Says whether the server had been down.
    pub(super) fn answered(&mut self) -> bool {
        self.unanswered = 0;
        self.probe_at = None;
        self.failure.take().is_some()
    }

    /// A call failed in a way that all calls to this server would. Says whether the server is now down and was not
    /// before, or is down for another reason.
    pub(super) fn unanswered(&mut self, failure: &TemporalFailure, now: Instant) -> bool {
        self.unanswered += 1;
        if self.unanswered < DOWN_AFTER {
            return false;
        }
        self.probe_at = Some(now + backoff(self.unanswered - DOWN_AFTER, LONGEST_PROBE_PAUSE));
        let news = self.failure.as_ref().is_none_or(|before| before.class != failure.class);
        self.failure = Some(failure.clone());
        news
    }
}

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

/// State of one Temporal namespace.
#[derive(Default)]
pub(super) struct State {
    pub fleets: HashMap<FleetId, Fleet>,
    pub lanes: HashMap<LaneKey, Lane>,
    pub queues: HashMap<String, Queue>,
    pub health: Health,
    /// Until when the server is not asked for the live status.
    pub live_off_until: Option<Instant>,
    pub closed: bool,
    planned_at: Option<Instant>,
    sweep_calls: usize,
}

impl State {
    /// Takes a fleet's watch; says whether anything changed.
    pub(super) fn set(&mut self, watch: Watch, carried: Option<Fleet>, now: Instant) -> bool {
        let id = watch.fleet.clone();
        if let Some(carried) = carried {
            self.fleets.insert(id.clone(), carried.detach(now));
        }
        match self.fleets.get_mut(&id) {
            Some(fleet) if same(&fleet.watch, &watch) => return false,
            Some(fleet) => fleet.rewatch(watch, now),
            None => {
                self.fleets.insert(id.clone(), Fleet::new(watch, now));
            }
        }
        self.follow_lanes(&id, now);
        true
    }

    /// Forgets a fleet, and the lanes that nobody else watches.
    pub(super) fn remove(&mut self, id: &FleetId, budget: &Budget) -> Option<Fleet> {
        let fleet = self.fleets.remove(id)?;
        self.leave_lanes(id, |_| false);
        if self.fleets.is_empty() {
            budget.sweep_changed(self.sweep_calls, 0);
            self.sweep_calls = 0;
        }
        Some(fleet)
    }

    fn follow_lanes(&mut self, id: &FleetId, now: Instant) {
        let Some(fleet) = self.fleets.get(id) else { return };
        let wanted = fleet.watch.lanes.clone();
        for key in &wanted {
            let lane = self.lanes.entry(key.clone()).or_insert_with(|| Lane::new(now));
            if !lane.watchers.contains(id) {
                lane.watchers.push(id.clone());
            }
            if !self.queues.contains_key(&key.task_queue) {
                self.queues.insert(key.task_queue.clone(), Queue { timer: Timer::new(now), partitions: None });
            }
        }
        self.leave_lanes(id, |key| wanted.contains(key));
        self.planned_at = None;
    }

    fn leave_lanes(&mut self, id: &FleetId, stays: impl Fn(&LaneKey) -> bool) {
        self.lanes.retain(|key, lane| {
            if !stays(key) {
                lane.watchers.retain(|watcher| watcher != id);
            }
            !lane.watchers.is_empty()
        });
        let lanes = &self.lanes;
        self.queues.retain(|queue, _| lanes.keys().any(|key| key.task_queue == *queue));
        self.planned_at = None;
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

    /// When the partition of a live read was read before.
    pub(super) fn last_live(&self, job: &Job) -> Option<Instant> {
        let Job::Live { lane, partition } = job else { return None };
        self.lanes.get(lane)?.live.get(*partition)?.map(|(_, taken)| taken)
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
        }
        for lane in self.lanes.values_mut() {
            lane.live_timer.forgive(now);
            lane.stats_timer.forgive(now);
        }
        self.queues.values_mut().for_each(|queue| queue.timer.forgive(now));
    }

    /// Chooses the read that is most overdue and within the budget.
    pub(super) fn next(&mut self, now: Instant, in_flight: usize, budget: &Budget) -> Next {
        if self.planned_at.is_none_or(|planned| now.saturating_duration_since(planned) >= PLAN_EVERY) {
            self.plan(now, budget);
        }
        let far = now + DEPLOYMENT_EVERY;
        let (queue_read, deployment_read) = (self.first_queue_read(now), self.first_deployment_read());
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

    /// The timer of a read; none when what it reads is not watched any more.
    pub(super) fn timer(&mut self, job: &Job) -> Option<&mut Timer> {
        match job {
            Job::Partitions { queue } => self.queues.get_mut(queue).map(|queue| &mut queue.timer),
            Job::Live { lane, .. } => self.lanes.get_mut(lane).map(|lane| &mut lane.live_timer),
            Job::Stats { lane } => self.lanes.get_mut(lane).map(|lane| &mut lane.stats_timer),
            Job::Deployment { fleet, .. } => self.fleets.get_mut(fleet).map(|fleet| &mut fleet.deployment_timer),
            Job::Version { fleet, build_id, .. } => {
                Some(&mut self.fleets.get_mut(fleet)?.versions.get_mut(build_id)?.timer)
            }
        }
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

    fn first_deployment_read(&self) -> Option<(Instant, Job)> {
        let mut first: Option<(Instant, &Fleet, Option<&str>)> = None;
        let mut offer = |due: Option<Instant>, fleet, build_id| {
            if let Some(due) = due.filter(|due| first.is_none_or(|(best, ..)| *due < best)) {
                first = Some((due, fleet, build_id));
            }
        };
        for fleet in self.fleets.values() {
            if let Some(every) = fleet.deployment_every() {
                offer(fleet.deployment_timer.due(every), fleet, None);
            }
            for (build_id, version) in &fleet.versions {
                if let Some(every) = fleet.version_every(build_id) {
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
            let untold = watchers().any(|fleet| fleet.watch.phase != Phase::AtZero && !fleet.has_stats_of(key));
            if running {
                lane.last_busy = now;
            }
            lane.stats_every = untold.then_some(STATS_EVERY);
            lane.live_every = live.then_some(super::pace::FASTEST);
            if live {
                let known = self.queues.get(&key.task_queue).and_then(|queue| queue.partitions);
                let calls = known.map_or(USUAL_PARTITIONS, |partitions| partitions.of(key.task_type));
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
                    let period = period.max(super::pace::FASTEST_ORDINARY);
                    lane.live_every = None;
                    lane.stats_every = Some(lane.stats_every.map_or(period, |every| every.min(period)));
                }
            }
        }
    }

    /// The server does not tell the live status, or not to us: the ordinary statistics must do for a while.
    pub(super) fn live_unsupported(&mut self, now: Instant) {
        self.live_off_until = Some(now + LIVE_RETRY);
        self.replan();
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

fn same(a: &Watch, b: &Watch) -> bool {
    a.phase == b.phase
        && a.deployment_name == b.deployment_name
        && a.build_ids == b.build_ids
        && a.lanes == b.lanes
        && a.namespace == b.namespace
}

/// Whether a failure is one of the server or the credentials, so that any other call would fail as well.
pub(super) fn is_general(class: FailureClass) -> bool {
    matches!(class, FailureClass::Unreachable | FailureClass::Unauthenticated | FailureClass::NamespaceNotFound)
}
