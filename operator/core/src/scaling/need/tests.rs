//! More work never needs fewer pods, whatever the fleet.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::{Demand, LaneNeed};
use crate::observed::{LaneKey, LaneStats, Observation, PodLoad, SlotUse, TaskType};
use crate::scaling::fleet::Fleet;
use crate::scaling::memory::entry;
use crate::scaling::state::State;
use crate::scaling::{IdleWindow, Input, Mode, Pause, Pod, Policy, Ramp};

const SLOTS: u64 = 10;

/// A lane and its fleet. Rates are tasks in a tick of 5 s, times milliseconds.
#[derive(Clone, Debug)]
struct Scenario {
    arrivals: u64,
    service: u64,
    backlog: u64,
    busy: Vec<u64>,
    starting: usize,
    start_up: u64,
    target: u64,
}

prop_compose! {
    fn any_scenario()(
        arrivals in 0_u64..500,
        service in prop_oneof![10_u64..1_000, 1_000_u64..60_000, 60_000_u64..4_000_000],
        backlog in prop_oneof![Just(0), 1_u64..50, 50_u64..5_000],
        busy in proptest::collection::vec(0_u64..=SLOTS, 0..12),
        starting in 0_usize..6,
        start_up in 1_u64..90,
        target in prop_oneof![Just(1_u64), Just(5), Just(60)],
    ) -> Scenario {
        Scenario { arrivals, service, backlog, busy, starting, start_up, target }
    }
}

fn policy(target: u64) -> Policy {
    Policy {
        min_replicas: 0,
        max_replicas: u32::MAX,
        target_latency: Duration::from_secs(target),
        percentile: 0.95,
        idle_window: IdleWindow::Auto,
        pause: Pause::None,
        mode: Mode::Full,
        ramp: Ramp::default(),
    }
}

fn input(scenario: &Scenario, lane: &LaneKey) -> Input {
    let ready = scenario.busy.iter().enumerate().map(|(at, used)| {
        let slots = SlotUse { used: *used, available: SLOTS - used, ..SlotUse::default() };
        let load = Observation::Known { value: PodLoad::of([(lane.clone(), slots)]), age: Duration::ZERO };
        Pod { name: format!("p{at}"), ready: true, load, ..Pod::default() }
    });
    let starting = (0..scenario.starting).map(|at| Pod { name: format!("s{at}"), ..Pod::default() });
    let stats = LaneStats { backlog: scenario.backlog, ..LaneStats::default() };
    Input {
        now: Duration::from_secs(1_000),
        current: u32::try_from(scenario.busy.len() + scenario.starting).unwrap(),
        lanes: BTreeMap::from([(lane.clone(), Observation::Known { value: stats, age: Duration::ZERO })]),
        lanes_complete: true,
        declared_slots: BTreeMap::from([(lane.clone(), SLOTS)]),
        pods: ready.chain(starting).collect(),
        floors: Vec::new(),
        grace: Duration::from_secs(30),
        template: String::new(),
    }
}

/// Pods for the load and for all of it, and the load.
fn needs(scenario: &Scenario) -> (u32, u32, f64) {
    let lane = LaneKey { task_queue: "q".into(), task_type: TaskType::Activity };
    let (policy, input) = (policy(scenario.target), input(scenario, &lane));
    let mut state = State::default();
    let flow = &mut entry(&mut state.memory.lanes, &lane).flow;
    for tick in 0..=60 {
        flow.count(scenario.arrivals, 0);
        flow.see(Duration::from_secs(700 + tick * 5), None);
    }
    let service = Duration::from_millis(scenario.service).as_secs_f64();
    entry(&mut state.learned.lanes, &lane).service.see(service * 1_000.0, 1_000.0, 0.0);
    state.learned.start_ups.see(Duration::from_secs(scenario.start_up));
    let fleet = Fleet::of(&input, &state);
    let needs = Demand { policy: &policy, input: &input, fleet: &fleet, state: &state }.needs();
    let LaneNeed { rate_pods, load, .. } = needs[0];
    (rate_pods, needs[0].pods(), load)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn more_backlog_or_more_arrivals_never_need_fewer_pods(
        scenario in any_scenario(), backlog in 0_u64..100, arrivals in 0_u64..100,
    ) {
        let (_, pods, _) = needs(&scenario);
        let more = Scenario { backlog: scenario.backlog + backlog, ..scenario.clone() };
        prop_assert!(needs(&more).1 >= pods, "{more:?}");
        let more = Scenario { arrivals: scenario.arrivals + arrivals, ..scenario };
        prop_assert!(needs(&more).1 >= pods, "{more:?}");
    }

    #[test]
    fn longer_tasks_never_need_fewer_pods(scenario in any_scenario(), longer in 1_u64..10_000) {
        // Of tasks that run the load ahead is at least what is left of them, so that a longer time can only add to it
        // where the slots that are busy now are no more than the load in the long run.
        let scenario = Scenario { busy: vec![0; scenario.busy.len()], ..scenario };
        let more = Scenario { service: scenario.service + longer, ..scenario.clone() };
        let (before, after) = (needs(&scenario), needs(&more));
        prop_assert!(after.2 >= before.2 - 1e-9 && after.1 >= before.1, "{scenario:?} {before:?} {after:?}");
    }

    #[test]
    fn a_need_is_at_least_its_load_and_not_absurd(scenario in any_scenario()) {
        let (rate, pods, load) = needs(&scenario);
        // At zero only a task that waits starts a pod.
        let at_zero = scenario.busy.is_empty() && scenario.starting == 0 && scenario.backlog == 0;
        prop_assert!(at_zero || f64::from(rate) * SLOTS as f64 + 1e-6 >= load, "{scenario:?}: {rate} for {load}");
        let tasks = scenario.backlog as f64 + load + 6.0 * load.sqrt() + 20.0;
        let all = tasks + scenario.arrivals as f64 / 5.0 * (scenario.start_up as f64 + 5.0);
        prop_assert!(f64::from(pods) * SLOTS as f64 <= all + SLOTS as f64, "{scenario:?}: {pods} for {all} tasks");
    }
}
