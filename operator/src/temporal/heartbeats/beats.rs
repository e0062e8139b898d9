//! The last heartbeat of each Worker, and what they say of a pod together. No call is made here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use operator_core::observed::{LaneKey, Observation, PodLoad, TaskType};
use tokio::time::Instant;

/// Intervals after which a heartbeat proves nothing any more: two may be late, or lost on their way.
const FRESH_INTERVALS: f64 = 2.5;

/// A heartbeat of one Worker. Times are on the Worker's own clock, since the Unix epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Beat {
    /// Unique in the Temporal namespace, and new with each process.
    pub instance: String,
    pub host: String,
    pub task_queue: String,
    /// Name of the Worker Deployment and Build ID.
    pub version: Option<(String, String)>,
    /// Whether it takes tasks: not while it shuts down.
    pub running: bool,
    pub started: Duration,
    pub sent: Duration,
    /// Time since its heartbeat before; the first has none.
    pub interval: Option<Duration>,
    pub slots: Vec<(TaskType, Slots)>,
    pub cached: u64,
}

/// Slots of one kind of task in a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slots {
    pub used: u64,
    /// None where the supplier has no number.
    pub available: Option<u64>,
    pub processed: u64,
}

impl Slots {
    fn started(self) -> u64 {
        self.processed.saturating_add(self.used)
    }
}

struct Entry {
    beat: Beat,
    interval: Option<Duration>,
    /// When it was first read, and how old it was then, at most.
    read: Instant,
    age_then: Duration,
}

impl Entry {
    fn age(&self, now: Instant) -> Duration {
        self.age_then.saturating_add(now.saturating_duration_since(self.read))
    }

    fn is_proof(&self, now: Instant) -> bool {
        self.beat.running && self.interval.is_some_and(|it| self.age(now) < it.mul_f64(FRESH_INTERVALS))
    }

    /// Whether this process had ended when another one began: so says the other's start.
    fn is_succeeded_by(&self, other: &Self) -> bool {
        other.beat.host == self.beat.host
            && other.beat.task_queue == self.beat.task_queue
            && other.beat.instance != self.beat.instance
            && other.beat.started >= self.beat.sent
    }
}

/// When a list was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub at: Instant,
    /// The same, since the Unix epoch.
    pub clock: Duration,
}

/// Whose heartbeats count as a pod's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity<'a> {
    pub pod: &'a str,
    /// Name of the Worker Deployment and Build ID; none with versioning disabled.
    pub version: Option<(&'a str, &'a str)>,
}

/// Heartbeats of one Temporal namespace.
#[derive(Default)]
pub(super) struct Beats {
    entries: HashMap<String, Entry>,
    /// Tasks that processes which are gone started, by host and lane: the count of the next goes on from there.
    before: HashMap<String, BTreeMap<LaneKey, u64>>,
    /// Processes that have ended but are still listed.
    ended: HashSet<String>,
    last_asked: Option<Instant>,
}

impl Beats {
    /// Takes a list of heartbeats. A Worker that is missing from a `complete` one is gone.
    pub(super) fn take(&mut self, beats: Vec<Beat>, asked: Asked, complete: bool) {
        let listed: HashSet<String> = beats.iter().map(|beat| beat.instance.clone()).collect();
        for beat in beats.into_iter().filter(|beat| !self.ended.contains(&beat.instance)).collect::<Vec<_>>() {
            self.note(beat, asked);
        }
        let succeeded = self.entries.values().filter(|one| self.entries.values().any(|it| one.is_succeeded_by(it)));
        let mut gone: Vec<String> = succeeded.map(|entry| entry.beat.instance.clone()).collect();
        if complete {
            gone.extend(self.entries.keys().filter(|instance| !listed.contains(*instance)).cloned());
            self.ended.retain(|instance| listed.contains(instance));
        }
        gone.iter().for_each(|instance| self.retire(instance));
        let hosts: HashSet<&str> = self.entries.values().map(|entry| entry.beat.host.as_str()).collect();
        self.before.retain(|host, _| hosts.contains(host.as_str()));
        self.last_asked = Some(asked.at);
    }

    fn note(&mut self, beat: Beat, asked: Asked) {
        let known = self.entries.get(&beat.instance);
        if known.is_some_and(|known| known.beat.sent == beat.sent) {
            return;
        }
        let by_clock = asked.clock.checked_sub(beat.sent);
        let since_last = self.last_asked.map(|last| asked.at.saturating_duration_since(last));
        let age_then = match (known, by_clock, since_last) {
            // It was sent after the last list. A clock that says otherwise is off.
            (Some(_), by_clock, Some(since)) => by_clock.filter(|age| *age <= since).unwrap_or(since),
            (_, by_clock, _) => by_clock.unwrap_or_default(),
        };
        let between = known.and_then(|known| beat.sent.checked_sub(known.beat.sent));
        let interval = beat.interval.or(between).filter(|interval| !interval.is_zero());
        self.entries.insert(beat.instance.clone(), Entry { beat, interval, read: asked.at, age_then });
    }

    fn retire(&mut self, instance: &str) {
        let Some(Entry { beat, .. }) = self.entries.remove(instance) else { return };
        self.ended.insert(beat.instance);
        let before = self.before.entry(beat.host).or_default();
        for (task_type, slots) in beat.slots {
            let lane = LaneKey { task_queue: beat.task_queue.clone(), task_type };
            let count = before.entry(lane).or_default();
            *count = count.saturating_add(slots.started());
        }
    }

    /// What a pod's Workers say together.
    pub(super) fn load(&self, of: Identity<'_>, now: Instant) -> Observation<PodLoad> {
        let mut entries = self.entries.values().filter(|entry| of.owns(&entry.beat)).peekable();
        if entries.peek().is_none() {
            return Observation::Unknown;
        }
        let (mut load, mut age, mut proof) = (PodLoad::default(), Duration::ZERO, true);
        for entry in entries {
            age = age.max(entry.age(now));
            proof &= entry.is_proof(now);
            add(&mut load, &entry.beat);
        }
        for (lane, count) in self.before.get(of.pod).into_iter().flatten() {
            if let Some(slots) = load.lanes.get_mut(lane) {
                slots.started = slots.started.saturating_add(*count);
            }
        }
        if proof { Observation::Known { value: load, age } } else { Observation::Stale { value: load, age } }
    }

    /// The shortest interval of any Worker.
    pub(super) fn shortest_interval(&self) -> Option<Duration> {
        self.entries.values().filter_map(|entry| entry.interval).min()
    }
}

impl Identity<'_> {
    fn owns(&self, beat: &Beat) -> bool {
        let of_version = self.version.is_none_or(|(deployment, build_id)| {
            beat.version.as_ref().is_some_and(|(name, id)| name == deployment && id == build_id)
        });
        beat.host == self.pod && of_version
    }
}

fn add(load: &mut PodLoad, beat: &Beat) {
    for (task_type, slots) in &beat.slots {
        let lane = LaneKey { task_queue: beat.task_queue.clone(), task_type: *task_type };
        let sum = load.lanes.entry(lane).or_default();
        sum.used = sum.used.saturating_add(slots.used);
        sum.available = sum.available.saturating_add(slots.available.unwrap_or(0));
        sum.unlimited |= slots.available.is_none();
        sum.started = sum.started.saturating_add(slots.started());
    }
    load.cached_workflows = Some(load.cached_workflows.unwrap_or(0).saturating_add(beat.cached));
}
