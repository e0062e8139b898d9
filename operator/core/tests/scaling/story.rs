//! One fleet from zero to zero, second by second: tasks of twenty seconds, pods that need three to start.

use std::time::Duration;

use operator_core::scaling::{Decision, Input, Pod, State, decide};

use crate::fixtures::*;

const START_UP: u64 = 3;
const TASK: u64 = 20;

/// A cluster and a server in a few lines.
#[derive(Default)]
struct World {
    now: u64,
    waiting: u64,
    pods: Vec<Worker>,
    replicas: u32,
    created: u32,
    /// Backlog as the server last counted it, and when: it counts once in five seconds.
    counted: (u64, u64),
    state: State,
    ended: u64,
}

struct Worker {
    name: String,
    born: u64,
    started: u64,
    /// When its tasks end.
    ends: Vec<u64>,
}

impl World {
    fn input(&self) -> Input {
        let pods = self.pods.iter().map(|worker| {
            if self.now < worker.born + START_UP {
                return starting(&worker.name);
            }
            pod(&worker.name, known(load(worker.ends.len() as u64, worker.started)))
        });
        let backlog = if self.replicas == 0 { live(self.waiting) } else { cached(self.counted.1) };
        Input {
            now: Duration::from_secs(self.now),
            current: self.replicas,
            pods: pods.collect::<Vec<Pod>>(),
            ..at_zero(backlog)
        }
    }

    /// Lets a second pass: the operator decides, the cluster follows, the pods work.
    fn second(&mut self) -> Decision {
        let (decision, state) = decide(&policy(), &self.input(), &self.state);
        self.state = state;
        self.follow(&decision);
        self.now += 1;
        if self.now >= self.counted.0 + 5 {
            self.counted = (self.now, self.waiting);
        }
        for worker in &mut self.pods {
            let before = worker.ends.len();
            worker.ends.retain(|end| *end > self.now);
            self.ended += (before - worker.ends.len()) as u64;
            let free = if self.now < worker.born + START_UP { 0 } else { SLOTS - worker.ends.len() as u64 };
            let taken = free.min(self.waiting);
            self.waiting -= taken;
            worker.started += taken;
            worker.ends.extend(std::iter::repeat_n(self.now + TASK, taken as usize));
        }
        decision
    }

    fn follow(&mut self, decision: &Decision) {
        self.replicas = decision.desired;
        for victim in &decision.victims {
            let at = self.pods.iter().position(|worker| &worker.name == victim).unwrap();
            assert!(self.pods.remove(at).ends.is_empty(), "{victim} ran tasks at {}", self.now);
        }
        while self.pods.len() < self.replicas as usize {
            self.created += 1;
            let name = format!("p{}", self.created);
            self.pods.push(Worker { name, born: self.now, started: 0, ends: Vec::new() });
        }
        assert_eq!(self.pods.len(), self.replicas as usize, "a decrease names its pods");
    }

    /// Every change of the replicas until `end`: when, and to how many.
    fn until(&mut self, end: u64) -> Vec<(u64, u32)> {
        let mut changes = Vec::new();
        while self.now < end {
            let (now, before) = (self.now, self.replicas);
            if self.second().desired != before {
                changes.push((now, self.replicas));
            }
        }
        changes
    }
}

#[test]
fn a_burst_from_zero_gets_its_pods_at_once_and_all_of_them_go() {
    let mut world = World::default();
    assert_eq!(world.until(60), []);
    world.waiting = 45;
    // Started at 63, ended at 83: after 60 s of less need fewer, after 180 s without a task none.
    assert_eq!(world.until(600), [(60, 5), (123, 4), (142, 1), (263, 0)]);
    assert_eq!((world.ended, world.waiting), (45, 0));
}

#[test]
fn a_second_burst_finds_the_pods_of_the_first() {
    let mut world = World { waiting: 45, ..World::default() };
    assert_eq!(world.until(60), [(0, 5)]);
    world.waiting = 45;
    assert_eq!(world.until(400), [(140, 1), (261, 0)]);
    assert_eq!(world.ended, 90);
}

#[test]
fn a_steady_trickle_keeps_one_pod_though_nothing_ever_waits() {
    let mut world = World::default();
    let mut changes = Vec::new();
    for minute in 0..20 {
        world.waiting += 1;
        changes.extend(world.until((minute + 1) * 60));
    }
    assert_eq!(changes, [(0, 1)]);
    assert_eq!(world.until(3000), [(1341, 0)]);
    assert_eq!(world.ended, 20);
}

#[test]
fn a_load_that_grows_and_falls_is_followed_without_a_swing() {
    let mut world = World::default();
    let mut changes = Vec::new();
    for second in 0..600 {
        // Up to two tasks a second of twenty seconds each: 40 slots.
        world.waiting += if second < 300 { second / 150 + 1 } else { u64::from(second % 4 == 0) };
        changes.extend(world.until(second + 1));
    }
    let peak = changes.iter().map(|(_, to)| *to).max();
    assert!(peak >= Some(4) && peak <= Some(6), "{changes:?}");
    // Once the time of a task is known.
    let numbers: Vec<u32> = changes.iter().filter(|(at, _)| *at > 100).map(|(_, to)| *to).collect();
    let top = numbers.iter().position(|to| Some(*to) == peak).unwrap();
    assert!(numbers[..top].is_sorted() && numbers[top..].iter().rev().is_sorted(), "{changes:?}");
    world.until(2000);
    assert_eq!((world.replicas, world.waiting), (0, 0));
}
