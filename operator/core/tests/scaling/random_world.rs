//! A fleet that really runs, with a random life: traffic, pods that start slowly, never, or fail, a server and pods that
//! can't be read at times, an operator that restarts.

use std::collections::BTreeMap;
use std::time::Duration;

use operator_core::observed::{LaneStats, Observation, PodLoad, RateLimit, RateLimitSource, SlotUse, Waits};
use operator_core::scaling::{Decision, Floor, IdleWindow, Input, Mode, Pause, Pod, Policy, Ramp, State, decide};

use crate::fixtures::*;
use crate::rng::Rng;

/// What a world is like.
pub struct World {
    rng: Rng,
    pub policy: Policy,
    /// Mean time of a task and whether tasks are all alike.
    pub service: f64,
    constant: bool,
    slots: u64,
    declared: bool,
    start_up: f64,
    never_ready: bool,
    crashing: bool,
    grace: Duration,
    rate_limit: Option<f64>,
    limit_is_told: bool,
    tells_runs: bool,
    cordonable: bool,
    /// Tasks that something behind the Workers can do at a time: more of them all take longer.
    bottleneck: Option<f64>,
    /// Tasks a second, and until when.
    rate: f64,
    rate_until: f64,
    busy_rate: f64,
    server_fails_until: f64,
    scrapes_fail_until: f64,
    floor: Option<u32>,

    pub now: f64,
    waiting: u64,
    pub pods: Vec<Worker>,
    created: u32,
    pub replicas: u32,
    due: f64,
    started_lately: f64,
    /// When a task last waited, ran or started.
    pub active_at: f64,
    pub state: State,
    /// The state that the last decision was made with.
    pub before: State,
}

pub struct Worker {
    pub name: String,
    born: f64,
    ready_at: f64,
    pub ends: Vec<f64>,
    started: u64,
    late: u64,
    long: u64,
    ended: u64,
    terminating_since: Option<f64>,
    restarts: u32,
    read: Option<(f64, SlotUse)>,
    pub cordoned: bool,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let behind = rng.chance(0.2);
        let service = if behind { rng.scale(0.2, 1.0) } else { rng.scale(0.05, 300.0) };
        let slots = rng.between(1, 12);
        let busy_rate = rng.scale(0.05, 40.0) * slots as f64 / service / 2.0;
        let policy = random_policy(&mut rng);
        Self {
            service,
            constant: rng.chance(0.3),
            slots,
            declared: rng.chance(0.7),
            start_up: rng.scale(1.0, if behind { 8.0 } else { 60.0 }),
            never_ready: rng.chance(0.08),
            crashing: rng.chance(0.08),
            grace: seconds(rng.pick(&[10, 30, 60, 600])),
            rate_limit: rng.chance(0.15).then(|| busy_rate * rng.scale(0.1, 1.5)),
            limit_is_told: rng.chance(0.5),
            tells_runs: rng.chance(0.7),
            cordonable: rng.chance(0.3),
            bottleneck: behind.then(|| slots as f64 * rng.scale(0.5, 2.0)),
            rate: 0.0,
            rate_until: 0.0,
            busy_rate,
            server_fails_until: 0.0,
            scrapes_fail_until: 0.0,
            floor: None,
            now: 1_000.0,
            waiting: 0,
            pods: Vec::new(),
            created: 0,
            replicas: policy.min_replicas,
            due: 0.0,
            started_lately: 0.0,
            active_at: 1_000.0,
            state: State::default(),
            before: State::default(),
            policy,
            rng,
        }
    }

    /// Lets time pass until the next decision, makes it and follows it.
    pub fn turn(&mut self) -> (Input, Decision) {
        let step = if self.rng.chance(0.01) { self.rng.between(31, 100) as f64 } else { 5.0 };
        for _ in 0..(step as u64) {
            self.second();
        }
        self.weather();
        let input = self.observe();
        let (decision, state) = decide(&self.policy, &input, &self.state);
        self.before = std::mem::replace(&mut self.state, state);
        (input, decision)
    }

    /// The operator starts anew, with what it had written down.
    fn restart(&mut self) {
        let text = serde_json::to_string(&self.state).unwrap();
        let age = seconds(self.rng.pick(&[60, 100_000]));
        self.state = serde_json::from_str::<State>(&text).unwrap().restored(age);
    }

    fn weather(&mut self) {
        if self.now >= self.rate_until {
            self.rate_until = self.now + self.rng.scale(20.0, 600.0);
            self.rate = if self.rng.chance(0.45) { 0.0 } else { self.busy_rate * self.rng.scale(0.02, 1.0) };
            if let Some(most) = self.bottleneck {
                // First what it can do, then more.
                self.rate = most / self.service * if self.rate_until < 1_200.0 { 0.6 } else { 1.5 };
                self.rate_until = if self.rate_until < 1_200.0 { 1_100.0 } else { f64::INFINITY };
            }
            if self.rng.chance(0.2) {
                self.waiting += self.rng.between(1, 40 * self.slots);
            }
        }
        if self.rng.chance(0.01) {
            self.server_fails_until = self.now + self.rng.scale(5.0, 120.0);
        }
        if self.rng.chance(0.01) {
            self.scrapes_fail_until = self.now + self.rng.scale(5.0, 120.0);
        }
        if self.rng.chance(0.004) {
            self.restart();
        }
        if self.rng.chance(0.01) {
            self.floor = self.rng.chance(0.5).then(|| self.rng.between(1, 4) as u32);
        }
    }

    fn second(&mut self) {
        self.now += 1.0;
        let arrivals = self.rate + self.due;
        self.due = arrivals.fract();
        self.waiting += arrivals as u64;
        let mut active = self.waiting > 0;
        let mut may_start = self.rate_limit.map_or(u64::MAX, |limit| (limit + self.rng.unit()) as u64);
        let running: usize = self.pods.iter().map(|pod| pod.ends.len()).sum();
        let slower = self.bottleneck.map_or(1.0, |most| (running as f64 / most.max(1.0)).max(1.0));
        for pod in &mut self.pods {
            let before = pod.ends.len() as u64;
            pod.ends.retain(|end| *end > self.now);
            pod.ended += before - pod.ends.len() as u64;
            active |= before > 0;
            if self.crashing && self.rng.chance(0.02) {
                pod.restarts += 1;
            }
            let takes = pod.ready_at <= self.now && pod.terminating_since.is_none() && !pod.cordoned;
            let free = if takes { self.slots - pod.ends.len() as u64 } else { 0 };
            let taken = free.min(self.waiting).min(may_start);
            may_start -= taken;
            self.waiting -= taken;
            pod.started += taken;
            if self.waiting > 0 {
                pod.late += taken;
            }
            for _ in 0..taken {
                let time = if self.constant { self.service } else { self.rng.exponential(self.service) } * slower;
                pod.long += u64::from(time > self.grace.as_secs_f64());
                pod.ends.push(self.now + time);
            }
            self.started_lately = self.started_lately * (29.0 / 30.0) + taken as f64 / 30.0;
        }
        if active {
            self.active_at = self.now;
        }
        let (now, grace) = (self.now, self.grace.as_secs_f64());
        self.pods.retain(|pod| match pod.terminating_since {
            Some(since) => !pod.ends.is_empty() && now - since < grace,
            None => true,
        });
        self.scrape();
        self.create();
    }

    fn scrape(&mut self) {
        if self.now < self.scrapes_fail_until || !self.now.rem_euclid(2.0).eq(&0.0) {
            return;
        }
        let grace = self.grace;
        for pod in self.pods.iter_mut().filter(|pod| pod.ready_at <= self.now) {
            let runs = [(grace, pod.ended.saturating_sub(pod.long)), (Duration::MAX, pod.ended)];
            let slots = SlotUse {
                used: pod.ends.len() as u64,
                available: self.slots - pod.ends.len() as u64,
                unlimited: false,
                started: pod.started,
                waits: Waits(vec![(self.policy.target_latency, pod.started - pod.late), (Duration::MAX, pod.started)]),
                runs: if self.tells_runs { Waits(runs.to_vec()) } else { Waits::default() },
            };
            pod.read = Some((self.now, slots));
        }
    }

    fn create(&mut self) {
        let existing = self.pods.iter().filter(|pod| pod.terminating_since.is_none()).count();
        for _ in existing..self.replicas as usize {
            self.created += 1;
            let never = if self.never_ready { f64::INFINITY } else { 0.0 };
            let ready_at = self.now + self.start_up * (0.5 + self.rng.unit()) + never;
            self.pods.push(Worker {
                name: format!("p{}", self.created),
                born: self.now,
                ready_at,
                ends: Vec::new(),
                started: 0,
                late: 0,
                long: 0,
                ended: 0,
                terminating_since: None,
                restarts: 0,
                read: None,
                cordoned: false,
            });
        }
    }

    fn observe(&mut self) -> Input {
        let backlog = if self.now < self.server_fails_until {
            stale(LaneStats::default())
        } else {
            let limited = self.rate_limit.is_some_and(|limit| self.waiting > 0 && self.started_lately > 0.8 * limit);
            let told = |per_second| RateLimit { per_second, source: RateLimitSource::Api };
            known(LaneStats {
                backlog: self.waiting,
                add_rate: (self.replicas > 0).then_some(self.rate),
                dispatch_rate: (self.replicas > 0).then_some(self.started_lately),
                rate_limiting: limited,
                rate_limit: self.rate_limit.filter(|_| self.limit_is_told).map(told),
                ..LaneStats::default()
            })
        };
        let floors = self.floor.map(|replicas| Floor { replicas, reason: "a schedule asks for them".into() });
        Input {
            now: Duration::from_secs_f64(self.now),
            current: self.replicas,
            lanes: BTreeMap::from([(lane(), backlog)]),
            lanes_complete: true,
            declared_slots: if self.declared { BTreeMap::from([(lane(), self.slots)]) } else { BTreeMap::new() },
            pods: self.pods.iter().map(|pod| self.pod(pod)).collect(),
            floors: floors.into_iter().collect(),
            grace: self.grace,
            template: "t".into(),
        }
    }

    fn pod(&self, pod: &Worker) -> Pod {
        let load = pod.read.as_ref().map_or(Observation::Unknown, |(at, slots)| {
            let age = Duration::from_secs_f64(self.now - at);
            Observation::aged(PodLoad::of([(lane(), slots.clone())]), age, seconds(15))
        });
        Pod {
            name: pod.name.clone(),
            ready: pod.ready_at <= self.now && pod.terminating_since.is_none(),
            terminating: pod.terminating_since.is_some(),
            load,
            failing: (self.never_ready && self.now - pod.born > 30.0).then(|| "ImagePullBackOff".into()),
            restarts: pod.restarts,
            may_be_cordoned: self.cordonable,
            ..Pod::default()
        }
    }

    /// Does what a decision says.
    pub fn follow(&mut self, decision: &Decision) {
        self.replicas = decision.desired;
        let mut surplus = self.pods.iter().filter(|pod| pod.terminating_since.is_none()).count();
        surplus = surplus.saturating_sub(decision.desired as usize);
        // A ReplicaSet takes what is not Ready first, then those named, then any.
        let now = self.now;
        let mut order: Vec<usize> = (0..self.pods.len()).collect();
        order.sort_by_key(|at| {
            let pod = &self.pods[*at];
            (pod.ready_at <= now, !decision.victims.contains(&pod.name), std::cmp::Reverse(*at))
        });
        for at in order {
            let pod = &mut self.pods[at];
            pod.cordoned = decision.cordon.contains(&pod.name);
            if surplus > 0 && pod.terminating_since.is_none() {
                surplus -= 1;
                pod.terminating_since = Some(now);
            }
        }
    }
}

fn random_policy(rng: &mut Rng) -> Policy {
    let min_replicas = if rng.chance(0.6) { 0 } else { rng.between(1, 4) as u32 };
    let idle_window =
        if rng.chance(0.2) { IdleWindow::Auto } else { IdleWindow::Fixed(seconds(rng.pick(&[20, 60, 180]))) };
    Policy {
        min_replicas,
        max_replicas: min_replicas + rng.between(1, 30) as u32,
        target_latency: seconds(rng.pick(&[1, 5, 60])),
        percentile: 0.95,
        idle_window,
        pause: if rng.chance(0.9) { Pause::None } else { rng.pick(&[Pause::All, Pause::Down]) },
        mode: if rng.chance(0.95) { Mode::Full } else { Mode::ServerOnly },
        ramp: Ramp {
            up_per_minute: rng.chance(0.15).then(|| rng.between(1, 6) as u32),
            down_per_minute: rng.chance(0.15).then(|| rng.between(1, 6) as u32),
        },
    }
}
