//! The operator's own decision, and around it what the operator does: when it looks, and what it makes of what it sees.
//!
//! Everything that turns the simulated world into the decision's input stands in this file. The decision is
//! [`operator_core::scaling::decide`], as it is.

use std::time::Duration;

use operator_core::observed::{LaneKey, LaneStats, Observation as Reading, PodLoad, SlotUse, TaskType, Waits};
use operator_core::scaling::{self, DEFAULT_GRACE, Decision, Floor, IdleWindow, Input, Mode, Pause, Ramp, State};

use crate::observation::{Bounds, Observation, QueueSeen};
use crate::policy::{Policy, Verdict};
use crate::time::{Micros, SECOND};
use crate::workload::Workload;
use crate::world::{Phase, Pod, PodId, RUN_BOUNDS, Scrape, WAIT_BOUNDS};

/// Time between two decisions while pods run.
const TICK: Micros = 5 * SECOND;
/// Time between two readings of the live status at zero.
const POLL_AT_ZERO: Micros = SECOND / 2;
/// Time between two decisions at zero while no reading calls for one.
const TICK_AT_ZERO: Micros = 30 * SECOND;
/// Time after which the server's statistics prove nothing.
const STATS_FRESH: Duration = Duration::from_secs(30);
/// Time after which a pod's metrics prove nothing.
const LOAD_FRESH: Duration = Duration::from_secs(15);
/// Time without work after which a fleet goes to zero.
const IDLE_WINDOW: Duration = Duration::from_secs(180);

/// What is told of each decision: the user's policy, what was seen, the state before, and what came of it.
pub type Witness<'w> = Box<dyn FnMut(&scaling::Policy, &Input, &State, (&Decision, &State)) + 'w>;

/// The operator.
pub struct Ours<'w> {
    policy: scaling::Policy,
    /// By Task Queue.
    lanes: Vec<LaneKey>,
    slots: u64,
    may_cordon: bool,
    witness: Option<Witness<'w>>,
    state: State,
    /// When its process started.
    started: Micros,
    /// The last reading of the backlog by Task Queue.
    read: Option<(Micros, Vec<LaneStats>)>,
    /// Pods that take no new task by the last decision.
    cordoned: Vec<PodId>,
    /// When the next decision is due.
    due: Micros,
}

impl<'w> Ours<'w> {
    /// With the operator's defaults.
    #[must_use]
    pub fn new(workload: &Workload, bounds: Bounds) -> Self {
        Self {
            policy: scaling::Policy {
                min_replicas: bounds.min,
                max_replicas: bounds.max,
                target_latency: Duration::from_micros(workload.target),
                percentile: 0.95,
                idle_window: IdleWindow::Fixed(IDLE_WINDOW),
                pause: Pause::None,
                mode: Mode::Full,
                ramp: Ramp::default(),
            },
            lanes: workload.queues.iter().map(|queue| lane(queue)).collect(),
            slots: workload.slots.into(),
            may_cordon: false,
            witness: None,
            state: State::default(),
            started: 0,
            read: None,
            cordoned: Vec::new(),
            due: 0,
        }
    }

    /// The same for Workers that can be told to take no new task.
    #[must_use]
    pub fn with_cordon(self) -> Self {
        Self { may_cordon: true, ..self }
    }

    /// The same with somebody who is told of each decision.
    #[must_use]
    pub fn with_witness(self, witness: Witness<'w>) -> Self {
        Self { witness: Some(witness), ..self }
    }

    /// At zero the live status, and else the server's statistics.
    fn poll(&mut self, now: Micros, seen: &Observation<'_>) {
        let stats = |queue: &QueueSeen| match seen.replicas {
            0 => LaneStats { backlog: queue.live_backlog, ..LaneStats::default() },
            _ => LaneStats {
                backlog: queue.stats.backlog,
                backlog_age: Some(Duration::from_micros(queue.stats.backlog_age)),
                add_rate: Some(queue.stats.add_rate),
                dispatch_rate: Some(queue.stats.dispatch_rate),
                rate_limiting: queue.stats.rate_limited,
                ..LaneStats::default()
            },
        };
        if !seen.queues.is_empty() {
            self.read = Some((now, seen.queues.iter().map(stats).collect()));
        }
    }

    /// The decision of this moment. A decrease is decided once more on what the pods that should go say after they were
    /// chosen: a task may have come since they were last read.
    fn scale(&mut self, now: Micros, seen: &Observation<'_>) -> Decision {
        let mut input = self.input(now, seen);
        let (mut decision, mut next) = scaling::decide(&self.policy, &input, &self.state);
        if decision.desired < seen.replicas && !decision.victims.is_empty() && !seen.scrapes_fail {
            for (pod, truth) in input.pods.iter_mut().zip(seen.pods()) {
                if decision.victims.contains(&pod.name) {
                    pod.load = truth.scrapes_again(now).map_or(Reading::Unknown, |read| self.load(now, &read));
                }
            }
            (decision, next) = scaling::decide(&self.policy, &input, &self.state);
        }
        if let Some(witness) = &mut self.witness {
            witness(&self.policy, &input, &self.state, (&decision, &next));
        }
        self.state = next;
        decision
    }

    fn input(&self, now: Micros, seen: &Observation<'_>) -> Input {
        let backlog = |queue: usize| match &self.read {
            None => Reading::Unknown,
            Some((taken, stats)) => Reading::aged(stats[queue], Duration::from_micros(now - taken), STATS_FRESH),
        };
        let lanes = || self.lanes.iter().cloned();
        let floor = Floor { replicas: seen.floor, reason: "the rollout prepares its next step".into() };
        Input {
            now: Duration::from_micros(now - self.started),
            current: seen.replicas,
            lanes: lanes().zip((0..).map(backlog)).collect(),
            lanes_complete: true,
            declared_slots: lanes().map(|lane| (lane, self.slots)).collect(),
            pods: seen.pods().map(|pod| self.pod(now, pod)).collect(),
            floors: Some(floor).filter(|floor| floor.replicas > 0).into_iter().collect(),
            grace: DEFAULT_GRACE,
            template: String::new(),
        }
    }

    fn pod(&self, now: Micros, pod: &Pod) -> scaling::Pod {
        // What was read before this process started is not known to it.
        let read = pod.scrapes().first().is_some_and(|scrape| scrape.taken >= self.started);
        let load = if read { self.load(now, pod.scrapes()) } else { Reading::Unknown };
        scaling::Pod {
            name: name(pod.id()),
            ready: pod.phase() == Phase::Ready,
            terminating: pod.phase() == Phase::Terminating,
            load,
            may_be_cordoned: self.may_cordon,
            ..scaling::Pod::default()
        }
    }

    fn load(&self, now: Micros, scrapes: &[Scrape]) -> Reading<PodLoad> {
        let age = scrapes.iter().map(|scrape| now - scrape.taken).max().unwrap_or(0);
        let lanes = self.lanes.iter().cloned().zip(scrapes.iter().map(slot_use));
        Reading::aged(PodLoad::of(lanes), Duration::from_micros(age), LOAD_FRESH)
    }
}

fn lane(queue: &str) -> LaneKey {
    LaneKey { task_queue: queue.into(), task_type: TaskType::Activity }
}

fn slot_use(scrape: &Scrape) -> SlotUse {
    SlotUse {
        used: scrape.used.into(),
        available: scrape.available.into(),
        started: scrape.started,
        waits: cumulated(&WAIT_BOUNDS, &scrape.waits),
        runs: cumulated(&RUN_BOUNDS, &scrape.runs),
        unlimited: false,
    }
}

/// A histogram as the SDK exposes it: each bucket holds those before it too, and the last one all.
fn cumulated(bounds: &[Micros], buckets: &[u64]) -> Waits {
    let edges = bounds.iter().map(|bound| Duration::from_micros(*bound)).chain([Duration::MAX]);
    let sums = buckets.iter().scan(0, |sum, bucket| {
        *sum += bucket;
        Some(*sum)
    });
    Waits(edges.zip(sums).collect())
}

fn name(id: PodId) -> String {
    format!("pod-{id:06}")
}

fn id(name: &str) -> Option<PodId> {
    name.strip_prefix("pod-")?.parse().ok()
}

/// The pods that are named.
fn ids(names: &[String]) -> Vec<PodId> {
    names.iter().filter_map(|name| id(name)).collect()
}

impl Policy for Ours<'_> {
    fn decide(&mut self, now: Micros, seen: &Observation<'_>) -> Verdict {
        self.poll(now, seen);
        let waits =
            |(taken, stats): &(Micros, Vec<LaneStats>)| *taken == now && stats.iter().any(|queue| queue.backlog > 0);
        let waiting = seen.replicas == 0 && self.read.as_ref().is_some_and(waits);
        let called = waiting || seen.floor > seen.replicas;
        let wait = if seen.replicas == 0 { POLL_AT_ZERO } else { TICK };
        if now < self.due && !called {
            let cordon = self.cordoned.clone();
            return Verdict { cordon, ..Verdict::new(seen.replicas, "no decision is due", self.due.min(now + wait)) };
        }
        let decision = self.scale(now, seen);
        self.cordoned = ids(&decision.cordon);
        let longest = if decision.desired == 0 { TICK_AT_ZERO } else { TICK };
        let recheck = Micros::try_from(decision.recheck_after.as_micros()).unwrap_or(longest);
        self.due = now + recheck.min(longest);
        let wait = if decision.desired == 0 { POLL_AT_ZERO } else { TICK };
        Verdict {
            replicas: decision.desired,
            victims: ids(&decision.victims),
            cordon: self.cordoned.clone(),
            explanation: decision.reason.into(),
            next: self.due.min(now + wait),
        }
    }

    fn restart(&mut self, now: Micros, checkpoint: bool) {
        // As the operator does: what is kept is the state's JSON.
        let kept = checkpoint.then(|| serde_json::to_value(&self.state).ok()).flatten();
        self.state = kept.and_then(|kept| serde_json::from_value(kept).ok()).unwrap_or_default();
        (self.started, self.read, self.due) = (now, None, now);
        self.cordoned.clear();
    }
}
