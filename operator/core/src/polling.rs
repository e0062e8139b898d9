//! When the server need not be asked, because the pods say enough.

use std::collections::BTreeMap;

use crate::observed::{Cordon, LaneKey, LaneStats, Observation, PodState};

/// Share of its slots that a lane must have free for its backlog to be empty for certain: the server gives a task that
/// arrives to a free slot at once. Less may be free in one pod while the polls of another are all taken.
pub const FREE_SHARE: f64 = 0.2;

/// What is known of a fleet that runs.
#[derive(Clone, Copy, Debug)]
pub struct Running<'a> {
    /// Every lane that the fleet is known to serve.
    pub lanes: &'a BTreeMap<LaneKey, Observation<LaneStats>>,
    /// Its pods, of the version that gets the traffic.
    pub pods: &'a [&'a PodState],
    /// Whether the fleet may go to zero.
    pub may_go_to_zero: bool,
}

/// Whether the pods alone prove that no task of the fleet waits, so that the server's statistics may be read less often.
///
/// All of it must hold:
/// * every lane is known, was read, and had no backlog and no rate limit in force: tasks that wait beside free slots are
///   the server's to tell of;
/// * every pod that is not on its way out or cordoned is Ready, and its load is fresh;
/// * every lane has more than [`FREE_SHARE`] of their slots free;
/// * something runs, if the fleet may go to zero: that step needs a fresh word of the server, too.
#[must_use]
pub fn is_gated(running: &Running<'_>) -> bool {
    let lanes = running.lanes;
    if lanes.is_empty() || !lanes.values().all(is_quiet) {
        return false;
    }
    let staying: Vec<_> = running.pods.iter().filter(|pod| !pod.terminating && takes_tasks(pod)).collect();
    let loads: Option<Vec<_>> = staying.iter().map(|pod| pod.load.known().filter(|_| pod.ready)).collect();
    let Some(loads) = loads.filter(|loads| !loads.is_empty()) else { return false };
    let free = |lane: &LaneKey| {
        let uses = loads.iter().filter_map(|load| load.lanes.get(lane));
        let (used, available) = uses.fold((0_u64, 0_u64), |(used, available), slots| {
            (used.saturating_add(slots.used), available.saturating_add(slots.available))
        });
        available as f64 > FREE_SHARE * (used as f64 + available as f64)
    };
    let busy = loads.iter().any(|load| load.lanes.values().any(|slots| slots.used > 0));
    lanes.keys().all(free) && (busy || !running.may_go_to_zero)
}

/// The free slots of a cordoned pod take nothing.
fn takes_tasks(pod: &PodState) -> bool {
    pod.load.last().and_then(|load| load.cordon).is_none_or(|word| word == Cordon::Open)
}

fn is_quiet(reading: &Observation<LaneStats>) -> bool {
    reading.last().is_some_and(|stats| stats.backlog == 0 && !stats.rate_limiting)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::observed::{PodLoad, SlotUse, TaskType};

    fn lane() -> LaneKey {
        LaneKey { task_queue: "q".into(), task_type: TaskType::Activity }
    }

    fn other() -> LaneKey {
        LaneKey { task_queue: "q".into(), task_type: TaskType::Workflow }
    }

    fn known<T>(value: T) -> Observation<T> {
        Observation::Known { value, age: Duration::ZERO }
    }

    fn pod(lanes: &[(LaneKey, u64, u64)]) -> PodState {
        let uses = lanes
            .iter()
            .cloned()
            .map(|(lane, used, available)| (lane, SlotUse { used, available, ..SlotUse::default() }));
        PodState {
            name: "p".into(),
            build_id: None,
            ready: true,
            terminating: false,
            may_run: true,
            waiting: None,
            deletion_cost: 0,
            restarts: 0,
            may_be_cordoned: false,
            cordoned: false,
            shown_cordoned: false,
            unreadable: None,
            load: known(PodLoad::of(uses)),
        }
    }

    fn cordoned(pod: PodState, word: Cordon) -> PodState {
        let load = pod.load.known().cloned().unwrap_or_default();
        PodState { load: known(PodLoad { cordon: Some(word), ..load }), ..pod }
    }

    type Change = fn(&mut World);

    struct World {
        lanes: BTreeMap<LaneKey, Observation<LaneStats>>,
        pods: Vec<PodState>,
        may_go_to_zero: bool,
    }

    /// Two pods with 15 of 20 slots free between them, one lane without backlog.
    fn world() -> World {
        World {
            lanes: BTreeMap::from([(lane(), known(LaneStats::default()))]),
            pods: vec![pod(&[(lane(), 5, 5)]), pod(&[(lane(), 0, 10)])],
            may_go_to_zero: true,
        }
    }

    fn gated(change: impl FnOnce(&mut World)) -> bool {
        let mut world = world();
        change(&mut world);
        let pods: Vec<&PodState> = world.pods.iter().collect();
        is_gated(&Running { lanes: &world.lanes, pods: &pods, may_go_to_zero: world.may_go_to_zero })
    }

    #[test]
    fn free_slots_prove_that_nothing_waits() {
        assert!(gated(|_| {}));
        assert!(gated(|world| world.pods[0] = pod(&[(lane(), 10, 0)])), "10 of 20 are free");
        assert!(gated(|world| {
            let value = LaneStats::default();
            world.lanes.insert(lane(), Observation::Stale { value, age: Duration::from_secs(90) });
        }));
        assert!(gated(|world| {
            let mut leaving = pod(&[(lane(), 10, 0)]);
            (leaving.terminating, leaving.load) = (true, Observation::Unknown);
            world.pods.push(leaving);
        }));
        assert!(gated(|world| world.pods.push(cordoned(pod(&[(lane(), 10, 0)]), Cordon::Closed))));
        assert!(gated(|world| world.pods[1] = cordoned(pod(&[(lane(), 0, 10)]), Cordon::Open)));
    }

    #[test]
    fn anything_less_does_not() {
        let cases: Vec<(&str, Change)> = vec![
            ("a fifth of the slots is not more than a fifth", |world| {
                world.pods = vec![pod(&[(lane(), 8, 2)])];
            }),
            ("another lane is full", |world| {
                world.lanes.insert(other(), known(LaneStats::default()));
                world.pods.iter_mut().for_each(|p| *p = pod(&[(lane(), 1, 9), (other(), 10, 0)]));
            }),
            ("no pod tells of a lane", |world| {
                world.lanes.insert(other(), known(LaneStats::default()));
            }),
            ("the slots that are free are those of a cordoned pod", |world| {
                world.pods = vec![pod(&[(lane(), 10, 0)]), cordoned(pod(&[(lane(), 0, 10)]), Cordon::Closed)];
            }),
            ("one that was told to take nothing more may still take a task, or not", |world| {
                world.pods = vec![pod(&[(lane(), 10, 0)]), cordoned(pod(&[(lane(), 0, 10)]), Cordon::Closing)];
            }),
            ("a pod starts", |world| world.pods[1].ready = false),
            ("a load is old", |world| {
                let value = PodLoad::of([(lane(), SlotUse { available: 10, ..SlotUse::default() })]);
                world.pods[1].load = Observation::Stale { value, age: Duration::from_secs(20) };
            }),
            ("there is no pod", |world| world.pods.clear()),
            ("tasks waited at the last look", |world| {
                world.lanes.insert(lane(), known(LaneStats { backlog: 1, ..LaneStats::default() }));
            }),
            ("a rate limit holds tasks back", |world| {
                world.lanes.insert(lane(), known(LaneStats { rate_limiting: true, ..LaneStats::default() }));
            }),
            ("a lane was never read", |world| {
                world.lanes.insert(lane(), Observation::Unknown);
            }),
            ("no lane is known", |world| world.lanes.clear()),
        ];
        for (why, change) in cases {
            assert!(!gated(change), "{why}");
        }
    }

    #[test]
    fn a_fleet_that_may_go_to_zero_is_read_in_full_once_nothing_runs() {
        let idle = |world: &mut World| world.pods = vec![pod(&[(lane(), 0, 10)])];
        assert!(!gated(idle));
        assert!(gated(|world| {
            idle(world);
            world.may_go_to_zero = false;
        }));
    }
}
