//! What holds for every fleet and every course of events.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use operator_core::observed::{LaneStats, Observation, PodLoad, SlotUse};
use operator_core::scaling::{DEFAULT_GRACE, Decision, Floor, IdleWindow, Input, Pod, Policy, State, decide};
use proptest::prelude::*;

use crate::fixtures::*;

const QUEUES: [&str; 3] = ["a", "b", "c"];

fn observed<T: Clone + std::fmt::Debug + 'static>(
    value: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<Observation<T>> {
    (value, 0_u64..60, 0..10)
        .prop_map(|(value, age, kind)| match kind {
            0 => Observation::Unknown,
            1 => Observation::Stale { value, age: seconds(age + 15) },
            _ => Observation::Known { value, age: Duration::from_millis(age * 200) },
        })
        .boxed()
}

fn any_backlog() -> BoxedStrategy<Observation<LaneStats>> {
    let number = prop_oneof![4 => Just(0), 4 => 0_u64..200, 1 => any::<u64>()];
    let rate = prop_oneof![Just(None), any::<f64>().prop_map(Some)];
    observed((number, rate).prop_map(|(backlog, add_rate)| LaneStats { backlog, add_rate, ..LaneStats::default() }))
}

fn any_load() -> BoxedStrategy<Observation<PodLoad>> {
    let used = prop_oneof![3 => Just(0), 2 => 0_u64..12, 1 => any::<u64>()];
    let lanes = proptest::collection::vec((used, 0_u64..12, 0_u64..3), QUEUES.len());
    observed(lanes.prop_map(|lanes| {
        let lane = |(queue, (used, available, started)): (&&str, _)| {
            (activity(queue), SlotUse { used, available, started, ..SlotUse::default() })
        };
        PodLoad::of(QUEUES.iter().zip(lanes).map(lane))
    }))
}

fn any_pod() -> impl Strategy<Value = Pod> {
    (0_u8..12, proptest::bool::weighted(0.8), proptest::bool::weighted(0.1), any_load()).prop_map(
        |(name, ready, terminating, load)| Pod { name: format!("p{name}"), ready, terminating, load, ..Pod::default() },
    )
}

prop_compose! {
    fn any_input()(
        gap in 0_u64..40,
        current in 0_u32..12,
        lanes in proptest::collection::vec(any_backlog(), 0..=QUEUES.len()),
        lanes_complete in proptest::bool::weighted(0.9),
        declared in proptest::option::of(0_u64..20),
        pods in proptest::collection::vec(any_pod(), 0..12),
        floor in proptest::option::weighted(0.2, 0_u32..15),
    ) -> Input {
        let pods: BTreeMap<_, _> = pods.into_iter().map(|pod| (pod.name.clone(), pod)).collect();
        Input {
            now: seconds(gap),
            current,
            lanes: QUEUES.iter().map(|queue| activity(queue)).zip(lanes).collect(),
            lanes_complete,
            declared_slots: declared.into_iter().map(|slots| (activity("a"), slots)).collect(),
            pods: pods.into_values().collect(),
            floors: floor.map(|replicas| Floor { replicas, reason: "a rollout runs".into() }).into_iter().collect(),
            grace: DEFAULT_GRACE,
            template: String::new(),
        }
    }
}

/// A course of events; `now` of each is the time since the one before until [`play`] adds them up.
fn any_course() -> impl Strategy<Value = Vec<Input>> {
    proptest::collection::vec(any_input(), 1..12)
}

prop_compose! {
    fn any_policy()(min in 0_u32..6, more in 0_u32..12, idle in 0_u64..120) -> Policy {
        Policy { min_replicas: min, max_replicas: min + more, idle_window: IdleWindow::Fixed(seconds(idle)), ..policy() }
    }
}

fn play(policy: &Policy, course: &mut [Input], mut check: impl FnMut(&Input, &Decision)) -> State {
    let (mut state, mut now) = (State::default(), Duration::ZERO);
    for input in course {
        now += input.now;
        input.now = now;
        let (decision, next) = decide(policy, input, &state);
        check(input, &decision);
        state = next;
    }
    state
}

fn doubtful(input: &Input) -> bool {
    !input.lanes_complete
        || input.lanes.is_empty()
        || input.lanes.values().any(|lane| lane.known().is_none())
        // A pod that just appeared and never worked proves idle without metrics; such pods are left out here.
        || input.pods.iter().any(|pod| pod.load.known().is_none() && (pod.ready || pod.load.last().is_some()))
}

fn idle(pod: &Pod) -> bool {
    match &pod.load {
        Observation::Known { value, .. } => value.lanes.values().all(|slots| slots.used == 0),
        Observation::Stale { .. } => false,
        Observation::Unknown => !pod.ready,
    }
}

proptest! {
    #[test]
    fn bounds_hold(policy in any_policy(), mut course in any_course()) {
        play(&policy, &mut course, |input, decision| {
            assert!(decision.desired >= policy.min_replicas, "{decision:?}");
            assert!(decision.desired <= policy.max_replicas.max(input.current), "{decision:?}");
            assert!(!decision.recheck_after.is_zero());
        });
    }

    #[test]
    fn doubt_never_shrinks(policy in any_policy(), mut course in any_course()) {
        play(&policy, &mut course, |input, decision| {
            if doubtful(input) {
                assert!(decision.desired >= input.current.min(policy.max_replicas), "{decision:?} of {input:?}");
            }
        });
    }

    #[test]
    fn only_idle_pods_go_and_all_that_go_are_named(policy in any_policy(), mut course in any_course()) {
        play(&policy, &mut course, |input, decision| {
            let existing: Vec<_> = input.pods.iter().filter(|pod| !pod.terminating).collect();
            // What a ReplicaSet would remove: first whatever is not Ready, then the victims.
            let removed = existing.len().saturating_sub(decision.desired as usize);
            assert!(decision.victims.len() <= removed, "{decision:?}");
            for victim in &decision.victims {
                let pod = existing.iter().find(|pod| &pod.name == victim).expect("a pod of the fleet");
                assert!(idle(pod), "{pod:?}");
            }
            if decision.desired < input.current && removed > 0 {
                assert_eq!(decision.victims.len(), removed, "{decision:?} of {input:?}");
                assert!(existing.iter().all(|pod| pod.ready || idle(pod)), "{decision:?} of {input:?}");
            }
        });
    }

    #[test]
    fn it_is_deterministic(policy in any_policy(), mut course in any_course()) {
        let mut decisions = Vec::new();
        let state = play(&policy, &mut course.clone(), |_, decision| decisions.push(decision.clone()));
        let mut again = Vec::new();
        prop_assert_eq!(state, play(&policy, &mut course, |_, decision| again.push(decision.clone())));
        prop_assert_eq!(decisions, again);
    }

    #[test]
    fn it_is_monotone_in_backlog(
        policy in any_policy(), mut course in any_course(), at in 0..QUEUES.len(), less in 0_u64..300, more in 0_u64..300,
    ) {
        let mut input = course.pop().unwrap();
        let state = play(&policy, &mut course, |_, _| ());
        input.now += course.last().map_or(Duration::ZERO, |last| last.now);
        let mut with = |backlog: u64| {
            let age = seconds(1);
            let value = LaneStats { backlog, add_rate: Some(1.0), ..LaneStats::default() };
            input.lanes.insert(activity(QUEUES[at]), Observation::Known { value, age });
            decide(&policy, &input, &state).0.desired
        };
        let (few, many) = (with(less), with(less.saturating_add(more)));
        prop_assert!(few <= many, "{} tasks: {few}, {more} more: {many}", less);
    }

    #[test]
    fn at_zero_it_stays_unless_a_fresh_reading_shows_tasks(mut course in any_course()) {
        for input in &mut course {
            input.current = 0;
            input.floors.clear();
        }
        play(&policy(), &mut course, |input, decision| {
            let waits = input.lanes.values().filter_map(Observation::known).any(|stats| stats.backlog > 0);
            assert_eq!(decision.desired > 0, waits, "{decision:?} of {input:?}");
        });
    }
}

/// What happens to a fleet between two looks.
#[derive(Clone, Debug)]
struct Turn {
    gap: u64,
    arrivals: u64,
    /// Running tasks that end.
    end: u64,
    /// Whether a backlog or a pod can't be read.
    blind: (bool, bool),
    /// Whether a pod vanishes with what it runs.
    crash: bool,
}

prop_compose! {
    fn any_turn()(
        gap in prop_oneof![8 => 1_u64..8, 1 => 20_u64..45],
        arrivals in prop_oneof![12 => Just(0), 1 => 1_u64..60],
        end in prop_oneof![1 => Just(0), 2 => 0_u64..80],
        blind in (proptest::bool::weighted(0.03), proptest::bool::weighted(0.03)),
        crash in proptest::bool::weighted(0.02),
    ) -> Turn {
        Turn { gap, arrivals, end, blind, crash }
    }
}

/// A fleet that really runs, and knows when it last did.
#[derive(Default)]
struct Truth {
    now: Duration,
    waiting: u64,
    pods: Vec<(String, SlotUse)>,
    created: u32,
    replicas: u32,
    last_activity: Duration,
    last_raise: Duration,
    zeros: u32,
}

impl Truth {
    fn turn(&mut self, turn: &Turn) -> Input {
        self.now += seconds(turn.gap);
        self.waiting += turn.arrivals;
        let mut active = self.waiting > 0;
        let mut left = turn.end;
        for (_, slots) in &mut self.pods {
            active |= slots.used > 0;
            let ended = left.min(slots.used);
            left -= ended;
            let taken = (SLOTS - slots.used + ended).min(self.waiting);
            self.waiting -= taken;
            slots.started += taken;
            slots.used = slots.used - ended + taken;
            slots.available = SLOTS - slots.used;
        }
        if turn.crash {
            self.pods.pop();
        }
        if active {
            self.last_activity = self.now;
        }
        self.create();
        self.input(turn)
    }

    fn create(&mut self) {
        while self.pods.len() < self.replicas as usize {
            self.created += 1;
            let slots = SlotUse { available: SLOTS, ..SlotUse::default() };
            self.pods.push((format!("p{}", self.created), slots));
        }
    }

    fn input(&self, turn: &Turn) -> Input {
        let pods = self.pods.iter().enumerate().map(|(at, (name, slots))| {
            let load = PodLoad::of([(lane(), slots.clone())]);
            pod(name, if turn.blind.1 && at == 0 { stale(load) } else { known(load) })
        });
        let backlog = if turn.blind.0 { Observation::Unknown } else { live(self.waiting) };
        Input { now: self.now, current: self.replicas, pods: pods.collect(), ..at_zero(backlog) }
    }

    fn follow(&mut self, decision: &Decision, policy: &Policy) {
        if decision.desired > self.replicas {
            self.last_raise = self.now;
        }
        if decision.desired < self.replicas {
            let window = policy.idle_window.fixed().min(seconds(60));
            assert!(self.now - self.last_raise >= window, "lowered {:?} after a raise", self.now - self.last_raise);
        }
        if decision.desired == 0 && self.replicas > 0 {
            let idle = self.now - self.last_activity;
            assert!(idle >= policy.idle_window.fixed(), "zero after {idle:?} at {:?}", self.now);
            self.zeros += 1;
        }
        self.replicas = decision.desired;
        self.pods.retain(|(name, slots)| {
            let goes = decision.victims.contains(name);
            assert!(!goes || slots.used == 0, "{name} ran tasks");
            !goes
        });
        assert!(self.pods.len() <= self.replicas as usize, "a decrease names its pods");
        self.create();
    }
}

proptest! {
    #[test]
    fn zero_comes_never_before_the_idle_window(
        turns in proptest::collection::vec(any_turn(), 1..150), idle in 0_u64..120,
    ) {
        let policy = Policy { idle_window: IdleWindow::Fixed(seconds(idle)), ..policy() };
        let (mut truth, mut state) = (Truth::default(), State::default());
        for turn in &turns {
            let input = truth.turn(turn);
            let (decision, next) = decide(&policy, &input, &state);
            truth.follow(&decision, &policy);
            state = next;
        }
        // Left alone and seen well, every fleet gets to zero.
        let rest = Turn { gap: 5, arrivals: 0, end: u64::MAX, blind: (false, false), crash: false };
        for _ in 0..60 {
            let input = truth.turn(&rest);
            let (decision, next) = decide(&policy, &input, &state);
            truth.follow(&decision, &policy);
            state = next;
        }
        prop_assert_eq!(truth.replicas, 0);
    }
}

#[test]
fn five_hundred_pods_of_five_lanes_are_decided_in_no_time() {
    let queues = ["a", "b", "c", "d", "e"];
    let mut input = fleet(0, &vec![5; 500]);
    input.lanes = queues.iter().map(|queue| (activity(queue), live(3000))).collect();
    for (at, pod) in input.pods.iter_mut().enumerate() {
        let slots = SlotUse { used: at as u64 % 7, available: 10, started: 100, ..SlotUse::default() };
        pod.load = known(PodLoad::of(queues.iter().map(|queue| (activity(queue), slots.clone()))));
    }
    let policy = Policy { max_replicas: 1000, ..policy() };
    let mut state = State::default();
    let mut least = Duration::MAX;
    for _ in 0..30 {
        let start = Instant::now();
        let (decision, next) = decide(&policy, &input, &state);
        least = least.min(start.elapsed());
        assert_eq!(decision.desired, 500);
        (state, input.now) = (next, input.now + seconds(1));
    }
    // Without optimisation. A loop over pods in a loop over pods would take a hundred times as long.
    assert!(least < Duration::from_millis(40), "{least:?}");
}
