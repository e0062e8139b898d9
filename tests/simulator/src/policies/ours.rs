//! The operator's own decision, and around it what the operator does: when it looks, and what it makes of what it sees.
//!
//! Everything that turns the simulated world into the decision's input stands in this file. The decision is
//! [`operator_core::scaling::decide`], as it is.

use std::collections::BTreeMap;
use std::time::Duration;

use operator_core::observed::{LaneKey, LaneStats, Observation as Reading, PodLoad, SlotUse, TaskType, Waits};
use operator_core::scaling::{self, DEFAULT_GRACE, Decision, IdleWindow, Input, Mode, Pause, Ramp, State};

use crate::observation::{Bounds, Observation};
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

/// The operator.
#[derive(Debug)]
pub struct Ours {
    policy: scaling::Policy,
    lane: LaneKey,
    slots: u64,
    state: State,
    /// The last reading of the backlog.
    read: Option<(Micros, LaneStats)>,
    /// When the next decision is due.
    due: Micros,
}

impl Ours {
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
            lane: LaneKey { task_queue: workload.name.clone(), task_type: TaskType::Activity },
            slots: workload.slots.into(),
            state: State::default(),
            read: None,
            due: 0,
        }
    }

    /// At zero the live status, and else the server's statistics.
    fn poll(&mut self, now: Micros, seen: &Observation<'_>) {
        let stats = if seen.replicas == 0 {
            seen.live_backlog.map(|backlog| LaneStats { backlog, ..LaneStats::default() })
        } else {
            seen.server.map(|stats| LaneStats {
                backlog: stats.backlog,
                backlog_age: Some(Duration::from_micros(stats.backlog_age)),
                add_rate: Some(stats.add_rate),
                dispatch_rate: Some(stats.dispatch_rate),
                rate_limiting: stats.rate_limited,
                rate_limit: None,
            })
        };
        if let Some(stats) = stats {
            self.read = Some((now, stats));
        }
    }

    /// The decision of this moment. A decrease is decided once more on what the pods that should go say after they were
    /// chosen: a task may have come since they were last read.
    fn scale(&self, now: Micros, seen: &Observation<'_>) -> (Decision, State) {
        let mut input = self.input(now, seen);
        let (decision, state) = scaling::decide(&self.policy, &input, &self.state);
        if decision.desired >= seen.replicas || decision.victims.is_empty() || seen.scrapes_fail {
            return (decision, state);
        }
        for (pod, truth) in input.pods.iter_mut().zip(seen.pods()) {
            if decision.victims.contains(&pod.name) {
                pod.load = truth.scrape_again(now).map_or(Reading::Unknown, |scrape| self.load(now, &scrape));
            }
        }
        scaling::decide(&self.policy, &input, &self.state)
    }

    fn input(&self, now: Micros, seen: &Observation<'_>) -> Input {
        let backlog = self.read.map_or(Reading::Unknown, |(taken, stats)| {
            Reading::aged(stats, Duration::from_micros(now - taken), STATS_FRESH)
        });
        Input {
            now: Duration::from_micros(now),
            current: seen.replicas,
            lanes: BTreeMap::from([(self.lane.clone(), backlog)]),
            lanes_complete: true,
            declared_slots: BTreeMap::from([(self.lane.clone(), self.slots)]),
            pods: seen.pods().map(|pod| self.pod(now, pod)).collect(),
            floors: Vec::new(),
            grace: DEFAULT_GRACE,
            template: String::new(),
        }
    }

    fn pod(&self, now: Micros, pod: &Pod) -> scaling::Pod {
        let load = pod.scrape().map_or(Reading::Unknown, |scrape| self.load(now, scrape));
        scaling::Pod {
            name: name(pod.id()),
            ready: pod.phase() == Phase::Ready,
            terminating: pod.phase() == Phase::Terminating,
            load,
            ..scaling::Pod::default()
        }
    }

    fn load(&self, now: Micros, scrape: &Scrape) -> Reading<PodLoad> {
        let slots = SlotUse {
            used: scrape.used.into(),
            available: scrape.available.into(),
            started: scrape.started,
            waits: cumulated(&WAIT_BOUNDS, &scrape.waits),
            runs: cumulated(&RUN_BOUNDS, &scrape.runs),
        };
        Reading::aged(PodLoad::of([(self.lane.clone(), slots)]), Duration::from_micros(now - scrape.taken), LOAD_FRESH)
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

impl Policy for Ours {
    fn decide(&mut self, now: Micros, seen: &Observation<'_>) -> Verdict {
        self.poll(now, seen);
        let called = seen.replicas == 0 && self.read.is_some_and(|(taken, stats)| taken == now && stats.backlog > 0);
        let wait = if seen.replicas == 0 { POLL_AT_ZERO } else { TICK };
        if now < self.due && !called {
            return Verdict::new(seen.replicas, "no decision is due", self.due.min(now + wait));
        }
        let (decision, state) = self.scale(now, seen);
        self.state = state;
        let longest = if decision.desired == 0 { TICK_AT_ZERO } else { TICK };
        let recheck = Micros::try_from(decision.recheck_after.as_micros()).unwrap_or(longest);
        self.due = now + recheck.min(longest);
        let wait = if decision.desired == 0 { POLL_AT_ZERO } else { TICK };
        Verdict {
            replicas: decision.desired,
            victims: decision.victims.iter().filter_map(|victim| id(victim)).collect(),
            explanation: decision.reason.into(),
            next: self.due.min(now + wait),
        }
    }
}
