//! Each rival on cases that can be computed by hand.

use super::{Clairvoyant, HpaSlots, Keda, Kpa, Ours, Wci};
use crate::observation::{Bounds, Ideal, Observation, Pods, QueueSeen};
use crate::policy::Policy;
use crate::random::{Purpose, Stream};
use crate::server::ServerStats;
use crate::time::{Micros, SECOND};
use crate::workload::{Task, Workload};
use crate::world::Pod;

const BOUNDS: Bounds = Bounds { min: 0, max: 100 };
const NO_PODS: Pods<'_> = Pods { all: &[], existing: &[] };

/// What a rival may see, all of it the same at each of its looks.
#[derive(Clone, Copy, Default)]
struct Scene {
    stats: ServerStats,
    ideal: Ideal,
}

impl Scene {
    fn backlog(backlog: u64) -> Self {
        let stats = ServerStats { backlog, ..ServerStats::default() };
        Self { stats, ideal: Ideal { waiting: backlog, ..Ideal::default() } }
    }

    fn queue(&self) -> QueueSeen {
        QueueSeen { stats: self.stats, live_backlog: self.stats.backlog }
    }

    fn seen<'a>(&self, replicas: u32, queues: &'a [QueueSeen], pods: Pods<'a>) -> Observation<'a> {
        Observation {
            replicas,
            server: Some(self.stats),
            live_backlog: Some(self.stats.backlog),
            scrapes_fail: false,
            queues,
            floor: 0,
            ideal: self.ideal,
            pods,
        }
    }
}

/// A policy with the replicas that it ordered.
struct Play<P> {
    policy: P,
    now: Micros,
    replicas: u32,
}

impl<P: Policy> Play<P> {
    fn new(policy: P, replicas: u32) -> Self {
        Self { policy, now: 0, replicas }
    }

    /// Asks it whenever it wants for `time`; gives the numbers that it ordered, each once.
    fn go_on(&mut self, time: Micros, scene: Scene, pods: Pods<'_>) -> Vec<u32> {
        let mut ordered = Vec::new();
        let end = self.now + time;
        while self.now < end {
            let verdict = self.policy.decide(self.now, &scene.seen(self.replicas, &[scene.queue()], pods));
            if verdict.replicas != self.replicas {
                ordered.push(verdict.replicas);
                self.replicas = verdict.replicas;
            }
            assert!(verdict.next > self.now, "asks to be asked in the past");
            self.now = verdict.next;
        }
        ordered
    }
}

fn phase() -> Stream {
    Stream::new(1, Purpose::Phase)
}

fn tasks(tasks: &[(Micros, Micros)]) -> Workload {
    let task = |(arrival, service): &(Micros, Micros)| Task {
        arrival: arrival * SECOND,
        service: service * SECOND,
        ..Task::default()
    };
    Workload::new("test", tasks.iter().map(task).collect())
}

#[test]
fn keda_goes_from_zero_to_one_and_its_hpa_doubles_to_a_fifth_of_the_backlog() {
    let mut keda = Play::new(Keda::with_defaults(BOUNDS, &mut phase()), 0);
    assert_eq!(keda.go_on(150 * SECOND, Scene::backlog(100), NO_PODS), [1, 4, 8, 16, 20]);
}

#[test]
fn keda_scales_a_fleet_without_backlog_to_zero_however_busy_it_is() {
    let mut keda = Play::new(Keda::with_defaults(BOUNDS, &mut phase()), 0);
    keda.go_on(60 * SECOND, Scene::backlog(10), NO_PODS);
    assert_eq!(keda.replicas, 2);
    // One by the HPA after its five minutes, none by KEDA after its own, whichever comes first.
    let ordered = keda.go_on(360 * SECOND, Scene::default(), NO_PODS);
    assert!(ordered == [1, 0] || ordered == [0], "{ordered:?}");
}

#[test]
fn keda_with_a_minimum_of_one_stays_at_one() {
    let mut keda = Play::new(Keda::with_defaults(BOUNDS.at_least(1), &mut phase()), 1);
    assert_eq!(keda.go_on(900 * SECOND, Scene::default(), NO_PODS), [] as [u32; 0]);
}

#[test]
fn keda_does_nothing_while_the_server_cannot_be_read() {
    let mut keda = Keda::with_defaults(BOUNDS, &mut phase());
    let mut now = 0;
    while now < 900 * SECOND {
        let seen = Observation { server: None, ..Scene::backlog(9).seen(7, &[], NO_PODS) };
        let verdict = keda.decide(now, &seen);
        assert_eq!(verdict.replicas, 7);
        now = verdict.next;
    }
}

#[test]
fn an_experts_keda_takes_the_backlog_that_a_pod_clears_in_time_as_target() {
    // 10 slots, 2 s a task, 5 s of waiting: 25 tasks a pod.
    let workload = tasks(&[(0, 1), (0, 3)]);
    let mut keda = Play::new(Keda::of_an_expert(&workload, BOUNDS, &mut phase()), 0);
    keda.go_on(120 * SECOND, Scene::backlog(250), NO_PODS);
    assert_eq!(keda.replicas, 10);
}

#[test]
fn hpa_slots_adds_a_tenth_at_a_time_once_full_slots_last() {
    let all: Vec<Pod> = (0..4).map(|id| Pod::busy(id, 10, 10)).collect();
    let pods = Pods { all: &all, existing: &[0, 1, 2, 3] };
    let mut hpa = Play::new(HpaSlots::new(BOUNDS, &mut phase()), 4);
    // All slots busy: 4 pods at 1.0 of 0.75 call for 6. Two syncs of lag and window pass first.
    assert_eq!(hpa.go_on(35 * SECOND, Scene::default(), pods), [] as [u32; 0]);
    assert_eq!(hpa.go_on(100 * SECOND, Scene::default(), pods), [5, 6]);
}

#[test]
fn hpa_slots_never_goes_below_one() {
    let all = [Pod::busy(0, 0, 10), Pod::busy(1, 0, 10)];
    let pods = Pods { all: &all, existing: &[0, 1] };
    let mut hpa = Play::new(HpaSlots::new(BOUNDS, &mut phase()), 2);
    assert_eq!(hpa.go_on(600 * SECOND, Scene::default(), pods), [1]);
}

#[test]
fn kpa_panics_at_once_keeps_the_most_of_it_and_goes_to_zero_after_window_and_grace() {
    let mut kpa = Play::new(Kpa::new(10, BOUNDS), 0);
    // 35 tasks at 7 a pod.
    assert_eq!(kpa.go_on(3 * SECOND, Scene::backlog(35), NO_PODS), [5]);
    assert_eq!(kpa.go_on(57 * SECOND, Scene::default(), NO_PODS), [] as [u32; 0]);
    let ordered = kpa.go_on(60 * SECOND, Scene::default(), NO_PODS);
    assert_eq!(ordered.last(), Some(&0), "{ordered:?}");
    // The last second with tasks leaves the stable window after 60 s, and 30 s later the last pod goes.
    assert!(kpa.now >= 90 * SECOND);
}

#[test]
fn wci_adds_a_pod_every_two_seconds_while_tasks_find_no_worker() {
    let mut wci = Play::new(Wci::new(BOUNDS, &mut phase()), 0);
    let mut ordered = Vec::new();
    for look in 0..8 {
        let ideal = Ideal { unmatched: look + 1, ..Ideal::default() };
        ordered.extend(wci.go_on(SECOND / 2, Scene { ideal, ..Scene::default() }, NO_PODS));
    }
    assert_eq!(ordered, [1, 2]);
}

#[test]
fn wci_sizes_by_arrivals_over_capacity_four_at_a_time_and_shrinks_by_one_a_minute() {
    let mut wci = Play::new(Wci::new(BOUNDS, &mut phase()), 2);
    let arrivals = ServerStats { add_rate: 20.0, dispatch_rate: 20.0, ..ServerStats::default() };
    let scene = Scene { stats: arrivals, ..Scene::default() };
    // 20/s at 2/s a pod, 80 % busy: 12.5, so 13.
    assert_eq!(wci.go_on(300 * SECOND, scene, NO_PODS), [6, 10, 13]);
    assert_eq!(wci.go_on(180 * SECOND, Scene::default(), NO_PODS), [12, 11, 10]);
}

#[test]
fn wci_takes_pods_that_start_for_slow_ones() {
    let mut wci = Play::new(Wci::new(BOUNDS, &mut phase()), 20);
    // 20 planned, of which few are Ready: 4/s dispatched.
    let stats = ServerStats { backlog: 500, add_rate: 20.0, dispatch_rate: 4.0, ..ServerStats::default() };
    let ordered = wci.go_on(60 * SECOND, Scene { stats, ..Scene::default() }, NO_PODS);
    // Capacity 0.45 * 0.2 + 0.55 * 2 = 1.19; 22 / 1.19 / 0.8 calls for 24.
    assert_eq!(ordered, [24]);
}

#[test]
fn the_clairvoyant_has_the_pods_when_the_tasks_come_and_keeps_them_for_a_while() {
    // 25 tasks of 100 s at second 200; a median start of 20 s.
    let workload = tasks(&[(200, 100); 25]);
    let mut play = Play::new(Clairvoyant::new(&workload, BOUNDS), 0);
    assert_eq!(play.go_on(160 * SECOND, Scene::default(), NO_PODS), [] as [u32; 0]);
    assert_eq!(play.go_on(SECOND, Scene::default(), NO_PODS), [3]);
    assert_eq!(play.go_on(184 * SECOND, Scene::default(), NO_PODS), [] as [u32; 0]);
    assert_eq!(play.go_on(2 * SECOND, Scene::default(), NO_PODS), [0]);
}

#[test]
fn ours_decides_at_zero_as_soon_as_a_poll_sees_backlog() {
    let workload = tasks(&[(0, 1)]);
    let mut ours = Play::new(Ours::new(&workload, BOUNDS), 0);
    assert_eq!(ours.go_on(100 * SECOND, Scene::default(), NO_PODS), [] as [u32; 0]);
    let before = ours.now;
    assert!(!ours.go_on(SECOND / 2, Scene::backlog(30), NO_PODS).is_empty());
    assert!(ours.now <= before + 5 * SECOND);
    assert!(ours.replicas >= 1);
}
