//! Which pod is read next, and what came of it. A fleet's pods are read in rounds, so that a decision sees them at about
//! the same moment and is asked for once a round.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use operator_core::observed::{Observation, PodLoad};
use rand::RngExt as _;
use tokio::time::Instant;

use super::scraper::{LOAD_FRESH, Target};
use crate::changes::FleetId;

/// A read of one pod.
#[derive(Clone, Debug)]
pub(super) struct Scrape {
    pub fleet: FleetId,
    pub target: Arc<Target>,
}

#[derive(Debug)]
struct Fleet {
    targets: Vec<Arc<Target>>,
    due: Instant,
    open: usize,
    changed: bool,
}

/// All fleets with pods.
pub(super) struct Rounds {
    interval: Duration,
    fleets: HashMap<FleetId, Fleet>,
    waiting: VecDeque<Scrape>,
    loads: HashMap<String, (PodLoad, Instant)>,
}

impl Rounds {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, fleets: HashMap::new(), waiting: VecDeque::new(), loads: HashMap::new() }
    }

    /// Replaces a fleet's pods. New ones are read at once. Says whether anything changed.
    pub(super) fn set(&mut self, id: &FleetId, targets: Vec<Target>, now: Instant) -> bool {
        if targets.is_empty() {
            return self.remove(id);
        }
        let known = self.fleets.get(id).map(|fleet| fleet.targets.as_slice()).unwrap_or_default();
        if known.len() == targets.len() && known.iter().zip(&targets).all(|(known, new)| **known == *new) {
            return false;
        }
        for target in known {
            if !targets.iter().any(|new| new.pod_uid == target.pod_uid) {
                self.loads.remove(&target.pod_uid);
            }
        }
        let targets = targets.into_iter().map(Arc::new).collect();
        match self.fleets.get_mut(id) {
            Some(fleet) => {
                fleet.targets = targets;
                fleet.due = now;
            }
            None => {
                self.fleets.insert(id.clone(), Fleet { targets, due: now, open: 0, changed: false });
            }
        }
        true
    }

    /// Forgets a fleet's pods. Says whether there were any.
    pub(super) fn remove(&mut self, id: &FleetId) -> bool {
        let Some(fleet) = self.fleets.remove(id) else { return false };
        for target in fleet.targets {
            self.loads.remove(&target.pod_uid);
        }
        self.waiting.retain(|scrape| scrape.fleet != *id);
        true
    }

    /// The next read, or when to look again.
    pub(super) fn next(&mut self, now: Instant) -> Result<Scrape, Option<Instant>> {
        if let Some(scrape) = self.waiting.pop_front() {
            return Ok(scrape);
        }
        for (id, fleet) in self.fleets.iter_mut().filter(|(_, fleet)| fleet.open == 0 && fleet.due <= now) {
            fleet.open = fleet.targets.len();
            fleet.due = now + self.interval.mul_f64(rand::rng().random_range(0.95..1.05));
            let scrapes = fleet.targets.iter().map(|target| Scrape { fleet: id.clone(), target: target.clone() });
            self.waiting.extend(scrapes);
        }
        let next_round = || self.fleets.values().filter(|fleet| fleet.open == 0).map(|fleet| fleet.due).min();
        self.waiting.pop_front().ok_or_else(next_round)
    }

    /// Takes the outcome of a read; none when it failed. Gives the fleet if its round is over and showed a change.
    pub(super) fn finish(&mut self, scrape: &Scrape, load: Option<PodLoad>, asked: Instant) -> Option<FleetId> {
        let fleet = self.fleets.get_mut(&scrape.fleet)?;
        fleet.open = fleet.open.saturating_sub(1);
        let still_there = fleet.targets.contains(&scrape.target);
        if let Some(load) = load.filter(|_| still_there) {
            let before = self.loads.get(&scrape.target.pod_uid);
            fleet.changed |= before.is_none_or(|(before, _)| *before != load);
            self.loads.insert(scrape.target.pod_uid.clone(), (load, asked));
        }
        let over = fleet.open == 0;
        (over && std::mem::take(&mut fleet.changed)).then(|| scrape.fleet.clone())
    }

    /// What a pod said last.
    pub(super) fn load(&self, pod_uid: &str, now: Instant) -> Observation<PodLoad> {
        match self.loads.get(pod_uid) {
            Some((load, taken)) => Observation::aged(load.clone(), now.saturating_duration_since(*taken), LOAD_FRESH),
            None => Observation::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use operator_core::observed::{LaneKey, SlotUse, TaskType};

    const INTERVAL: Duration = Duration::from_secs(2);

    fn target(pod: &str) -> Target {
        Target { pod_uid: pod.into(), url: format!("http://{pod}/metrics") }
    }

    fn load(used: u64) -> Option<PodLoad> {
        let lane = LaneKey { task_queue: "q".into(), task_type: TaskType::Activity };
        Some(PodLoad::of([(lane, SlotUse { used, available: 10 - used, started: used, ..SlotUse::default() })]))
    }

    fn round(rounds: &mut Rounds, now: Instant) -> Vec<Scrape> {
        std::iter::from_fn(|| rounds.next(now).ok()).collect()
    }

    #[test]
    fn a_fleet_is_named_once_a_round_and_only_if_its_load_changed() {
        let (mut rounds, fleet, mut now) = (Rounds::new(INTERVAL), FleetId::from("f"), Instant::now());
        assert!(rounds.set(&fleet, vec![target("a"), target("b")], now));
        assert!(!rounds.set(&fleet, vec![target("a"), target("b")], now));
        for (loads, named) in [([1, 2], true), ([1, 2], false), ([1, 3], true)] {
            let scrapes = round(&mut rounds, now);
            assert_eq!(scrapes.len(), 2);
            assert_eq!(rounds.finish(&scrapes[0], load(loads[0]), now), None);
            assert_eq!(rounds.finish(&scrapes[1], load(loads[1]), now).is_some(), named, "{loads:?}");
            assert!(round(&mut rounds, now).is_empty(), "a round began before its time");
            now += INTERVAL.mul_f64(1.05);
        }
    }

    #[test]
    fn a_round_waits_for_the_slowest_pod_of_the_last_one() {
        let (mut rounds, fleet, now) = (Rounds::new(INTERVAL), FleetId::from("f"), Instant::now());
        rounds.set(&fleet, vec![target("a"), target("b")], now);
        let scrapes = round(&mut rounds, now);
        rounds.finish(&scrapes[0], load(1), now);
        let later = now + INTERVAL * 3;
        assert!(round(&mut rounds, later).is_empty());
        rounds.finish(&scrapes[1], None, later);
        assert_eq!(round(&mut rounds, later).len(), 2);
    }

    #[test]
    fn a_pod_that_does_not_answer_keeps_its_last_load_which_grows_stale() {
        let (mut rounds, fleet, now) = (Rounds::new(INTERVAL), FleetId::from("f"), Instant::now());
        rounds.set(&fleet, vec![target("a")], now);
        let scrape = round(&mut rounds, now).remove(0);
        rounds.finish(&scrape, load(4), now);
        let later = now + INTERVAL * 2;
        let scrape = round(&mut rounds, later).remove(0);
        assert_eq!(rounds.finish(&scrape, None, later), None);
        assert_eq!(rounds.load("a", later).known(), load(4).as_ref());
        assert!(matches!(rounds.load("a", now + LOAD_FRESH * 2), Observation::Stale { .. }));
    }

    #[test]
    fn pods_that_are_gone_are_forgotten_even_if_they_answer_late() {
        let (mut rounds, fleet, now) = (Rounds::new(INTERVAL), FleetId::from("f"), Instant::now());
        rounds.set(&fleet, vec![target("a"), target("b")], now);
        let scrapes = round(&mut rounds, now);
        rounds.finish(&scrapes[0], load(1), now);
        let (gone, stays) = (&scrapes[0].target.pod_uid, &scrapes[1].target.pod_uid);
        rounds.set(&fleet, vec![target(stays)], now);
        assert_eq!(rounds.load(gone, now), Observation::Unknown);
        rounds.finish(&scrapes[0], load(1), now);
        assert_eq!(rounds.load(gone, now), Observation::Unknown, "it answered late");
        rounds.set(&fleet, vec![], now);
        assert_eq!(rounds.finish(&scrapes[1], load(1), now), None);
        assert_eq!(rounds.load("b", now), Observation::Unknown);
        assert!(matches!(rounds.next(now), Err(None)), "nothing is read without pods");
    }
}
