//! How many pods a lane needs, and from what they follow.

use std::time::Duration;

use super::fleet::{Fleet, LaneLoad};
use super::flow::real;
use super::memory::LaneMemory;
use super::state::{Lesson, State};
use super::{CANARY, Input, Mode, Policy, TICK, staffing};
use crate::observed::{LaneKey, LaneStats, Observation, RateLimitSource};

/// Time for which the server hands out the same statistics (`matching.TaskQueueInfoByBuildIdTTL`).
const SERVER_CACHE: Duration = Duration::from_secs(5);
/// A backlog is worked off within this share of a start-up, or the target if that is longer.
const DRAIN: f64 = 0.35;
/// Part of a pod that no pod is started for, if it is for the margin beside the load.
const SPARE: f64 = 0.1;
/// What a load at the edge between two numbers of pods must leave to go to the lower one; a slot at least.
const FIRM: f64 = 1.1;
/// Service time, in seconds, of a task of which nothing is known, when it is asked how many of them a rate limit keeps
/// running.
const SUPPOSED: f64 = 1.0;
/// Room beside a rate limit.
const BESIDE_LIMIT: f64 = 1.1;
/// Room beside the throughput of pods that tell nothing.
const BESIDE_BLIND: f64 = 1.15;
/// If more than one Ready pod in so many is silent, arrivals can't be counted by what the others tell.
const SILENT: usize = 5;

/// From what a need follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Term {
    /// Nothing waits or runs.
    #[default]
    Nothing,
    /// The load when a pod ordered now can take a task.
    Load,
    /// A backlog beside it.
    Backlog,
    /// A slot for each task: nothing is known of their time.
    OneEach,
    /// Nothing is known of the pods.
    Canary,
    /// Tasks wait though slots are free, and none starts.
    Stuck,
    /// The queue gives out no more.
    Limited,
    /// The server's rates: the pods tell nothing.
    Server,
}

/// What a lane needs. Rates are a second, times seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LaneNeed<'a> {
    pub lane: Option<&'a LaneKey>,
    pub term: Term,
    /// Tasks that wait, by the last reading, and for how long the oldest does.
    pub backlog: Option<u64>,
    pub backlog_age: Option<Duration>,
    /// Those of them that still wait, if the reading is fresh.
    pub waiting: u64,
    /// Tasks that run.
    pub running: u64,
    /// Arrivals, as far as the queue gives them out.
    pub arrivals: f64,
    pub service: Option<f64>,
    /// Slots of a pod that count, and all.
    pub usable: Option<f64>,
    pub slots: Option<u64>,
    /// Slots that will be busy.
    pub load: f64,
    /// Slots for them.
    pub seats: f64,
    pub rate_pods: u32,
    /// The same if the load were a tenth higher, or a task.
    pub firm_pods: u32,
    pub burst_pods: u32,
    /// What the queue gives out at most, if that is known.
    pub limit: Option<(f64, Option<RateLimitSource>)>,
    pub age: Option<Duration>,
}

impl LaneNeed<'_> {
    /// Whether tasks wait that more pods would not help.
    pub fn is_limited(&self) -> bool {
        matches!(self.term, Term::Limited | Term::Stuck)
    }

    /// Pods for all of it.
    pub fn pods(&self) -> u32 {
        self.rate_pods.max(self.burst_pods)
    }
}

/// Everything that the needs of lanes follow from.
pub(super) struct Demand<'a, 'b> {
    pub policy: &'b Policy,
    pub input: &'b Input,
    pub fleet: &'b Fleet<'a>,
    pub state: &'b State,
}

/// What is known of one lane.
struct Lane<'a> {
    stats: Option<&'a LaneStats>,
    load: &'a LaneLoad,
    memory: &'a LaneMemory,
    lesson: &'a Lesson,
}

impl<'a> Demand<'a, '_> {
    /// The needs of all lanes.
    pub fn needs(&self) -> Vec<LaneNeed<'a>> {
        let (memory, lesson) = (LaneMemory::default(), Lesson::default());
        let of_lane = |(key, load): (&&'a LaneKey, &LaneLoad)| {
            let lane = Lane {
                stats: self.input.lanes.get(*key).and_then(Observation::known),
                load,
                memory: self.state.memory.lanes.get(*key).unwrap_or(&memory),
                lesson: self.state.learned.lanes.get(*key).unwrap_or(&lesson),
            };
            self.of_lane(key, &lane)
        };
        self.fleet.lanes.iter().map(of_lane).collect()
    }

    fn of_lane(&self, key: &'a LaneKey, lane: &Lane<'_>) -> LaneNeed<'a> {
        let mut need = self.known(key, lane);
        self.add_rate(&mut need, lane);
        match (need.usable, self.policy.mode) {
            (None, _) => canary(&mut need),
            (Some(usable), Mode::ServerOnly) => self.by_server_only(&mut need, lane, usable),
            (Some(usable), Mode::Full) if self.is_silent() => self.by_server(&mut need, lane, usable),
            (Some(usable), Mode::Full) => self.by_load(&mut need, lane, usable),
        }
        if need.term != Term::Canary
            && lane.memory.stuck.is_some_and(|stuck| stuck.holds(self.input.now))
            && need.waiting > 0
        {
            (need.term, need.rate_pods, need.burst_pods) = (Term::Stuck, need.rate_pods.min(1), 1);
        }
        need
    }

    fn known(&self, key: &'a LaneKey, lane: &Lane<'_>) -> LaneNeed<'a> {
        let declared = self.input.declared_slots.get(key).copied();
        let slots = lane.lesson.slots.or(declared).filter(|slots| *slots > 0);
        let by_cpu = lane.lesson.per_cpu.map_or(f64::INFINITY, |tasks| (CPU_TARGET * tasks).max(1.0));
        let reading = self.input.lanes.get(key).unwrap_or(&Observation::Unknown);
        let reading_age = match reading {
            Observation::Known { age, .. } | Observation::Stale { age, .. } => Some(*age),
            Observation::Unknown => None,
        };
        // At zero, pods that are still listed are about to go: what they run needs no other slot.
        let running = if self.input.current == 0 { 0 } else { lane.load.used };
        LaneNeed {
            lane: Some(key),
            backlog: reading.last().map(|stats| stats.backlog),
            backlog_age: reading.last().and_then(|stats| stats.backlog_age),
            running,
            service: lane.lesson.service.known(),
            usable: match slots {
                // Then CPU is the better measure, as soon as there is one.
                Some(_) if lane.lesson.unlimited && by_cpu.is_finite() => Some(by_cpu),
                slots => slots.map(|slots| real(slots).min(by_cpu)),
            },
            slots,
            age: lane.load.age.max(reading_age),
            ..LaneNeed::default()
        }
    }

    fn add_rate(&self, need: &mut LaneNeed<'_>, lane: &Lane<'_>) {
        let told = lane.stats.and_then(|stats| stats.rate_limit).filter(|limit| limit.per_second.is_finite());
        need.limit = match told {
            Some(limit) => Some((limit.per_second.max(0.0), Some(limit.source))),
            None if lane.memory.limited => lane.lesson.limit.map(|limit| (limit, None)),
            None => None,
        };
        let rate = lane.memory.flow.rate(self.input.now);
        need.arrivals = need.limit.map_or(rate, |(limit, _)| rate.min(limit));
        need.waiting = match lane.stats {
            // What starts now starts on pods that are about to go.
            Some(stats) if self.input.current == 0 => stats.backlog,
            Some(stats) => self.still_waiting(stats, lane, rate, need.lane),
            None => 0,
        };
    }

    /// Tasks that waited when the backlog was read and wait still: a task that started since then would count twice with
    /// those that run now, and every burst would get twice the pods.
    fn still_waiting(&self, stats: &LaneStats, lane: &Lane<'_>, rate: f64, key: Option<&LaneKey>) -> u64 {
        let Some(Observation::Known { age, .. }) = key.and_then(|key| self.input.lanes.get(key)) else { return 0 };
        let fewer = |age: Duration| {
            let started = lane.memory.flow.started_since(self.input.now.saturating_sub(age));
            started.saturating_sub(whole(rate * age.as_secs_f64()))
        };
        stats.backlog.saturating_sub(fewer(*age).max(fewer(*age + server_age(stats))))
    }

    /// Whether too few Ready pods tell their load.
    fn is_silent(&self) -> bool {
        self.fleet.silent * SILENT > self.fleet.ready
    }

    /// Time until a pod that is ordered now takes tasks.
    fn horizon(&self) -> f64 {
        (self.state.start_up() + TICK).as_secs_f64()
    }

    fn by_load(&self, need: &mut LaneNeed<'_>, lane: &Lane<'_>, usable: f64) {
        let running = real(need.running);
        let Some(service) = lane.lesson.service.guess(running) else {
            one_each(need, usable, self.input.current);
            return self.hold_to_limit(need, lane, (SUPPOSED, usable));
        };
        // Modified offered load (Jennings, Mandelbaum, Massey and Whitt, Management Science 42:10, 1996): what will be busy
        // when a pod ordered now takes tasks.
        let stays = libm::exp(-self.horizon() / service);
        need.load = need.arrivals * service * (1.0 - stays) + running * stays;
        let patience = self.policy.target_latency.as_secs_f64() / service;
        need.seats = staffing::slots_for(need.load, patience, 1.0 - self.policy.percentile);
        need.rate_pods = pods_for_load(need.load, need.seats, usable).max(u32::from(need.running > 0));
        let more = (FIRM * need.load).max(need.load + 1.0);
        let seats = staffing::slots_for(more, patience, 1.0 - self.policy.percentile);
        need.firm_pods = pods_for_load(more, seats, usable);
        if need.waiting == 0 {
            // At zero only a task that waits starts a pod.
            need.rate_pods = if self.input.current == 0 { 0 } else { need.rate_pods };
            need.term = if need.rate_pods > 0 { Term::Load } else { Term::Nothing };
            return;
        }
        need.term = Term::Load;
        if need.service.is_some() {
            self.add_episode(need, service, usable);
        } else {
            let rate_pods = need.rate_pods;
            one_each(need, usable, self.input.current);
            need.rate_pods = need.rate_pods.max(rate_pods);
        }
        self.hold_to_limit(need, lane, (service, usable));
    }

    /// No more pods for a backlog than can be kept busy by what the queue's rate limit lets through. One that was only
    /// measured, on tasks of which none has ended, is none.
    ///
    /// Tasks come out of such a queue at a steady beat, and pods that are read at the same one seem busy all the time. So no
    /// task is taken to be longer than those that ended, by the Worker's own histogram.
    fn hold_to_limit(&self, need: &mut LaneNeed<'_>, lane: &Lane<'_>, (service, usable): (f64, f64)) {
        let sure = |(_, source): &(f64, Option<RateLimitSource>)| source.is_some() || need.service.is_some();
        let Some((limit, _)) = need.limit.filter(|limit| need.waiting > 0 && sure(limit)) else { return };
        let service = lane.lesson.longest.of_ended().map_or(service, |longest| service.min(longest));
        let patience = self.policy.target_latency.as_secs_f64() / service;
        let seats = staffing::slots_for(BESIDE_LIMIT * limit * service, patience, 1.0 - self.policy.percentile);
        let most = pods(seats / usable).max(1);
        // A limit that is told and far away says nothing; one in force says all.
        if lane.memory.limited || need.burst_pods > most {
            need.burst_pods = most;
            need.term = Term::Limited;
        }
    }

    /// Slots beside those for the load, so that what still waits when they come is soon worked off.
    fn add_episode(&self, need: &mut LaneNeed<'_>, service: f64, usable: f64) {
        let horizon = self.horizon();
        let room = real(u64::try_from(self.fleet.serving()).unwrap_or(u64::MAX)) * usable;
        let left = real(need.waiting) + need.arrivals * horizon - self.startable(need, service, usable);
        need.burst_pods = 1;
        if left <= 0.0 || (room > 0.0 && left * service / room <= self.policy.target_latency.as_secs_f64()) {
            return;
        }
        let drain = self.policy.target_latency.as_secs_f64().max(DRAIN * self.state.start_up().as_secs_f64());
        let extra = left * service / (service + drain);
        need.burst_pods = pods((need.seats + extra) / usable).max(1);
        if need.burst_pods > need.rate_pods {
            need.term = Term::Backlog;
        }
    }

    /// Tasks that the pods that are there can start within the horizon: free slots at once, and then each slot one in each
    /// service time.
    fn startable(&self, need: &LaneNeed<'_>, service: f64, usable: f64) -> f64 {
        let horizon = self.horizon();
        let start_up = self.state.start_up().as_secs_f64();
        let room = real(u64::try_from(self.fleet.ready).unwrap_or(u64::MAX)) * usable;
        let running = real(need.running).min(room);
        let ready = running * horizon / service + (room - running) * (horizon / service).max(1.0);
        let of_starting = |age: &Duration| {
            let time = horizon - (start_up - age.as_secs_f64()).max(0.0);
            usable * (time / service).max(1.0)
        };
        ready + self.fleet.starting.iter().map(of_starting).sum::<f64>()
    }

    /// Too few pods tell anything, though they should: the server's word alone, and nothing of it lowers.
    fn by_server(&self, need: &mut LaneNeed<'_>, lane: &Lane<'_>, usable: f64) {
        let added = lane.stats.and_then(|stats| stats.add_rate).filter(|rate| rate.is_finite() && *rate > 0.0);
        let Some(service) = lane.lesson.service.known() else {
            one_each(need, usable, self.input.current);
            return self.hold_to_limit(need, lane, (SUPPOSED, usable));
        };
        let patience = self.policy.target_latency.as_secs_f64() / service;
        need.load = added.unwrap_or(0.0) * service;
        need.seats = staffing::slots_for(need.load, patience, 1.0 - self.policy.percentile);
        let drain = self.policy.target_latency.as_secs_f64().max(DRAIN * self.state.start_up().as_secs_f64());
        let extra = real(need.waiting) * service / (service + drain);
        need.rate_pods = pods(need.seats / usable).max(u32::from(need.running > 0));
        need.burst_pods = if need.waiting > 0 { pods((need.seats + extra) / usable).max(1) } else { 0 };
        need.term = if need.pods() > 0 { Term::Server } else { Term::Nothing };
        self.hold_to_limit(need, lane, (service, usable));
    }

    /// The user says that the pods tell nothing: throughput of a pod, measured while a backlog stood.
    fn by_server_only(&self, need: &mut LaneNeed<'_>, lane: &Lane<'_>, usable: f64) {
        let Some(per_pod) = lane.lesson.per_pod.filter(|rate| *rate > 0.0) else {
            one_each(need, usable, self.input.current);
            return self.hold_to_limit(need, lane, (SUPPOSED, usable));
        };
        let added = lane.stats.and_then(|stats| stats.add_rate).filter(|rate| rate.is_finite()).unwrap_or(0.0).max(0.0);
        let drain = self.policy.target_latency.as_secs_f64().max(DRAIN * self.state.start_up().as_secs_f64());
        need.arrivals = added;
        need.rate_pods = pods(BESIDE_BLIND * added / per_pod);
        let backlog = real(need.waiting) / (per_pod * drain);
        need.burst_pods = if need.waiting > 0 { pods(BESIDE_BLIND * added / per_pod + backlog).max(1) } else { 0 };
        need.term = if need.pods() > 0 { Term::Server } else { Term::Nothing };
        // As long as a task takes on a pod that is full.
        self.hold_to_limit(need, lane, (usable / per_pod, usable));
    }
}

/// CPU that a pod should use at most.
const CPU_TARGET: f64 = 0.85;

/// A pod beyond the load is not worth a tenth of it: the margin is a matter of chance, the load is not.
fn pods_for_load(load: f64, seats: f64, usable: f64) -> u32 {
    let fewer = pods(seats / usable - SPARE);
    if load <= (1.0 - SPARE) * f64::from(fewer) * usable { fewer } else { pods(seats / usable) }
}

fn canary(need: &mut LaneNeed<'_>) {
    let tasks = need.waiting.saturating_add(need.running);
    need.burst_pods = pods(real(tasks.min(CANARY)));
    need.term = if tasks > 0 { Term::Canary } else { Term::Nothing };
}

fn one_each(need: &mut LaneNeed<'_>, usable: f64, current: u32) {
    let tasks = need.waiting.saturating_add(need.running);
    need.load = need.load.max(real(need.running));
    need.seats = need.seats.max(real(need.running));
    // What runs has its slots already, on pods that may be just about to go.
    need.rate_pods = pods(real(need.running) / usable).min(current);
    need.burst_pods = if need.waiting > 0 { pods(real(tasks) / usable) } else { 0 };
    need.term = if tasks > 0 { Term::OneEach } else { Term::Nothing };
}

/// How old a reading may have been when the server gave it. A live one has no rate.
fn server_age(stats: &LaneStats) -> Duration {
    if stats.add_rate.is_some() { SERVER_CACHE } else { Duration::ZERO }
}

/// Pods for so many pods' work: rounded up, but not for a rounding error.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(super) fn pods(work: f64) -> u32 {
    // A cast of a float saturates.
    (work - 1e-9).ceil().max(0.0) as u32
}

/// A float that is not below zero, rounded down.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests;
