//! When the server need not be asked, because the pods say enough.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::observed::{Cordon, LaneKey, LaneStats, Observation, PodLoad, PodState};

/// Share of its slots that a lane must have free for its backlog to be empty for certain: the server gives a task that
/// arrives to a free slot at once. Less may be free in one pod while the polls of another are all taken.
pub const FREE_SHARE: f64 = 0.2;
/// Age up to which a load says what is free now. What Workers tell the server of themselves counts for longer elsewhere,
/// and is no proof here.
pub const LOOK_FRESH: Duration = Duration::from_secs(15);

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
/// * every pod that is not on its way out is Ready, and its load is at most [`LOOK_FRESH`] old;
/// * every lane has more than [`FREE_SHARE`] of its slots free, on pods that take tasks;
/// * something runs, if the fleet may go to zero: that step needs a fresh word of the server, too.
#[must_use]
pub fn is_gated(running: &Running<'_>) -> bool {
    let lanes = running.lanes;
    if lanes.is_empty() || !lanes.values().all(is_quiet) {
        return false;
    }
    let staying: Vec<_> = running.pods.iter().filter(|pod| !pod.terminating).collect();
    let loads: Option<Vec<_>> = staying.iter().map(|pod| look(pod)).collect();
    let Some(loads) = loads else { return false };
    let takes_tasks = |load: &&&PodLoad| !matches!(load.cordon, Some(Cordon::Closing | Cordon::Closed));
    let free = |lane: &LaneKey| {
        let uses = loads.iter().filter(takes_tasks).filter_map(|load| load.lanes.get(lane));
        let (used, available) = uses.fold((0_u64, 0_u64), |(used, available), slots| {
            (used.saturating_add(slots.used), available.saturating_add(slots.available))
        });
        available as f64 > FREE_SHARE * (used as f64 + available as f64)
    };
    let busy = loads.iter().any(|load| load.lanes.values().any(|slots| slots.used > 0));
    lanes.keys().all(free) && (busy || !running.may_go_to_zero)
}

/// The load of a Ready pod as it is now.
fn look(pod: &PodState) -> Option<&PodLoad> {
    match &pod.load {
        Observation::Known { value, age } if pod.ready && *age <= LOOK_FRESH => Some(value),
        _ => None,
    }
}

fn is_quiet(reading: &Observation<LaneStats>) -> bool {
    reading.last().is_some_and(|stats| stats.backlog == 0 && !stats.rate_limiting)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::{SlotUse, TaskType};

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
        PodState { name: "p".into(), ready: true, may_run: true, load: known(PodLoad::of(uses)), ..PodState::default() }
    }

    type Change = fn(&mut World);

    /// A pod that takes no new task, with free slots.
    fn cordoned(cordon: Cordon) -> PodState {
        let mut pod = pod(&[(lane(), 1, 9)]);
        if let Observation::Known { value, .. } = &mut pod.load {
            value.cordon = Some(cordon);
        }
        pod
    }

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
        assert!(gated(|world| world.pods.push(cordoned(Cordon::Open))));
        assert!(gated(|world| world.pods.push(cordoned(Cordon::Closed))), "the others have room");
        assert!(gated(|world| {
            let value = LaneStats::default();
            world.lanes.insert(lane(), Observation::Stale { value, age: Duration::from_secs(90) });
        }));
        assert!(gated(|world| {
            let mut leaving = pod(&[(lane(), 10, 0)]);
            (leaving.terminating, leaving.load) = (true, Observation::Unknown);
            world.pods.push(leaving);
        }));
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
            ("a pod starts", |world| world.pods[1].ready = false),
            ("a load is old", |world| {
                let value = PodLoad::of([(lane(), SlotUse { available: 10, ..SlotUse::default() })]);
                world.pods[1].load = Observation::Stale { value, age: Duration::from_secs(20) };
            }),
            ("a load is what a Worker told a minute ago", |world| {
                let value = PodLoad::of([(lane(), SlotUse { available: 10, ..SlotUse::default() })]);
                world.pods[1].load = Observation::Known { value, age: Duration::from_secs(60) };
            }),
            ("the free slots are those of a cordoned pod", |world| {
                world.pods = vec![pod(&[(lane(), 10, 0)]), cordoned(Cordon::Closed)];
            }),
            ("the free slots are those of a pod that begins no further poll", |world| {
                world.pods = vec![cordoned(Cordon::Closing)];
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
