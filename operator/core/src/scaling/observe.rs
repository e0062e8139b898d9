//! What the lanes' loads and backlogs teach.

use std::time::Duration;

use super::fleet::{Fleet, LaneLoad};
use super::flow::real;
use super::memory::{LaneMemory, Standing, entry};
use super::state::{Lesson, State};
use super::{Input, Mode, Policy, TICK};
use crate::observed::{LaneStats, Observation};

/// Weight of a new measure beside the old ones.
const WEIGHT: f64 = 0.2;
/// Time over which the throughput at a limit is measured.
const LIMIT_WINDOW: Duration = Duration::from_secs(30);
/// Time after which a limit that nobody told is tried again.
const LIMIT_HOLDS: Duration = Duration::from_secs(600);
/// Longest wait of a task that nothing holds back.
const PASSING: Duration = Duration::from_secs(10);
/// Time for which no task must wait before an episode is over.
const EPISODE_ENDS: Duration = Duration::from_secs(10);

/// A reading of the server with the time when it was taken.
#[derive(Clone, Copy)]
struct Fresh<'a> {
    stats: &'a LaneStats,
    taken: Duration,
}

impl State {
    /// Notes the load and the backlog of every lane.
    pub(super) fn see_lanes(&mut self, policy: &Policy, input: &Input, fleet: &Fleet<'_>) {
        for (key, load) in &fleet.lanes {
            let fresh = match input.lanes.get(*key) {
                Some(Observation::Known { value, age }) => {
                    Some(Fresh { stats: value, taken: input.now.saturating_sub(*age) })
                }
                _ => None,
            };
            let memory = entry(&mut self.memory.lanes, key);
            memory.see(fresh, load, fleet.ready, input.now);
            let lesson = entry(&mut self.learned.lanes, key);
            lesson.see(memory, load, input.now);
            if let Some(fresh) = fresh {
                lesson.see_limit(memory, fresh.stats, load, input.now);
                if policy.mode == Mode::ServerOnly {
                    lesson.see_throughput(fresh.stats, fleet.ready);
                }
            }
        }
    }

    /// Notes the pods that a backlog calls for: the most of them are kept until nothing waits any more.
    pub(super) fn see_episode(&mut self, pods: Option<u32>, waiting: Option<u64>, now: Duration) {
        match waiting {
            Some(0) => {
                let since = *self.memory.empty_since.get_or_insert(now);
                if now.saturating_sub(since) >= EPISODE_ENDS {
                    self.learned.latch = None;
                }
            }
            Some(_) => self.memory.empty_since = None,
            None => {}
        }
        if let Some(pods) = pods {
            self.learned.latch = self.learned.latch.max(Some(pods));
        }
    }
}

impl LaneMemory {
    fn see(&mut self, fresh: Option<Fresh<'_>>, load: &LaneLoad, ready: usize, now: Duration) {
        // A slot that is free took in whatever waited.
        let waiting = fresh.filter(|_| !load.has_room()).map(|fresh| (fresh.stats.backlog, fresh.oldest()));
        self.flow.see(now, waiting);
        let started = self.flow.started > self.started;
        self.started = self.flow.started;
        let works = started || load.used > 0;
        let waits = fresh.filter(|fresh| fresh.stats.backlog > 0);
        self.stuck = match (fresh, waits) {
            (Some(_), None) => None,
            _ if works => None,
            (_, Some(reading)) if load.all_free(ready) => Some(Standing::again(self.stuck, reading.taken, now)),
            _ => self.stuck,
        };
        // Tasks that wait for less than that are on their way to a slot.
        let passing = self.flow.started_since(now.saturating_sub(PASSING));
        let stands = waits.filter(|reading| reading.stats.backlog > passing);
        self.starved = match (fresh, stands) {
            (Some(_), None) => None,
            _ if !load.has_settled_room() => None,
            (_, Some(reading)) if works => Some(Standing::again(self.starved, reading.taken, now)),
            _ => self.starved,
        };
    }
}

impl Fresh<'_> {
    /// When the server counted, at the earliest.
    fn oldest(&self) -> Duration {
        // It hands out the same statistics for as long as a tick; a live reading has no rate.
        if self.stats.add_rate.is_some() { self.taken.saturating_sub(TICK) } else { self.taken }
    }
}

impl Lesson {
    fn see(&mut self, memory: &mut LaneMemory, load: &LaneLoad, now: Duration) {
        // Without a number of slots, a pod has as many as were ever seen busy.
        let seen_busy = load.unlimited.map(|busy| busy.max(self.slots.unwrap_or(1)));
        self.unlimited = seen_busy.is_some() || self.unlimited && load.slots_per_pod().is_none();
        self.slots = load.slots_per_pod().or(seen_busy).or(self.slots);
        if memory.cpu_at.is_some_and(|at| now.saturating_sub(at) < TICK) {
            return;
        }
        memory.cpu_at = Some(now);
        let [(tasks, cpu), (tasks_of_full, full_pods)] = load.cpu;
        if full_pods > 0.0 {
            let of_one = tasks_of_full / full_pods;
            self.per_cpu = Some(self.per_cpu.map_or(of_one, |before| before.min(of_one)));
        } else if cpu > 0.0 {
            let measured = tasks / cpu;
            self.per_cpu = Some(self.per_cpu.map_or(measured, |before| before + WEIGHT * (measured - before)));
        }
    }

    fn see_limit(&mut self, memory: &mut LaneMemory, stats: &LaneStats, load: &LaneLoad, now: Duration) {
        let starved = memory.starved.filter(|starved| starved.holds(now));
        if starved.is_some_and(|starved| now.saturating_sub(starved.since) > LIMIT_HOLDS) {
            memory.starved = None;
        }
        if memory.starved.is_some() && starved.is_some() || stats.rate_limiting && stats.backlog > 0 {
            let told = stats.dispatch_rate.filter(|rate| rate.is_finite()).unwrap_or(0.0);
            let seen = memory.flow.ended_per_second(now, LIMIT_WINDOW).unwrap_or(0.0);
            memory.limited = true;
            self.limit = Some(self.limit.unwrap_or(0.0).max(told).max(seen));
        } else if stats.backlog == 0 || load.is_full() || starved.is_some() {
            memory.limited = false;
            self.limit = None;
        }
    }

    /// What a pod starts a second, while tasks wait: then it starts as many as it can.
    fn see_throughput(&mut self, stats: &LaneStats, ready: usize) {
        let dispatched = stats.dispatch_rate.filter(|rate| rate.is_finite() && *rate > 0.0);
        let (Some(dispatched), true) = (dispatched, stats.backlog > 0 && ready > 0) else { return };
        let measured = dispatched / real(u64::try_from(ready).unwrap_or(u64::MAX));
        self.per_pod = Some(self.per_pod.map_or(measured, |before| before + WEIGHT * (measured - before)));
    }
}
