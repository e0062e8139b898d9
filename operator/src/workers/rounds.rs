//! Which pod is read next, and what came of it. A fleet's pods are read in rounds, so that a decision sees them at about
//! the same moment and is asked for once a round.
//!
//! * Up to a hundred pods are read each interval. A larger fleet's rounds are longer, up to [`LONGEST_ROUND`]: that is
//!   well within [`LOAD_FRESH`], so that every pod may still be found idle.
//! * Fleets take turns, and none has more than a share of the reads under way: pods that don't answer cost the time of a
//!   deadline each, and must not keep others' from being read.
//! * A pod that failed several times in a row is read less often, up to [`LONGEST_RETRY`].

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use operator_core::observed::{Observation, PodLoad, ReadFailure};
use rand::RngExt as _;
use tokio::time::Instant;

use super::reading::Reading;
use super::scraper::{LOAD_FRESH, Target};
use super::series::Series;
use crate::changes::FleetId;

/// Pods that are read each interval.
const PODS_AN_INTERVAL: f64 = 100.0;
/// Longest round of a large fleet.
const LONGEST_ROUND: Duration = Duration::from_secs(6);
/// Share of a round's time after which the next one begins. Tasks that come at a steady beat are so not always met at the
/// same point of it: pods that run them half of the time would seem busy all the time, or never.
const SCATTER: Range<f64> = 0.75..1.25;
/// Failures in a row after which a pod is read less often.
const PATIENCE: u32 = 3;
/// Longest time between two reads of a pod that fails. Within it, a NetworkPolicy that was mended shows.
const LONGEST_RETRY: Duration = Duration::from_secs(15);

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
    /// Those of this round that are not read yet.
    waiting: VecDeque<Arc<Target>>,
    /// Reads under way.
    open: usize,
    changed: bool,
    /// The end of the next round is told whatever it shows.
    hurried: bool,
}

impl Fleet {
    fn is_done(&self) -> bool {
        self.open == 0 && self.waiting.is_empty()
    }
}

/// What is known of a pod.
#[derive(Default)]
struct Pod {
    series: Series,
    load: Option<(PodLoad, Instant)>,
    failure: Option<ReadFailure>,
    failures: u32,
    retry_at: Option<Instant>,
}

/// All fleets with pods.
pub(super) struct Rounds {
    interval: Duration,
    /// Most reads under way of one fleet.
    share: usize,
    fleets: HashMap<FleetId, Fleet>,
    /// Fleets with pods to read, in turn.
    turns: VecDeque<FleetId>,
    pods: HashMap<String, Pod>,
}

impl Rounds {
    /// Rounds without fleets, for `concurrency` reads under way at a time.
    pub(super) fn new(interval: Duration, concurrency: usize) -> Self {
        Self {
            interval,
            share: (concurrency / 2).max(1),
            fleets: HashMap::new(),
            turns: VecDeque::new(),
            pods: HashMap::new(),
        }
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
                self.pods.remove(&target.pod_uid);
            }
        }
        let targets = targets.into_iter().map(Arc::new).collect();
        match self.fleets.get_mut(id) {
            Some(fleet) => {
                fleet.targets = targets;
                fleet.due = now;
            }
            None => {
                let waiting = VecDeque::new();
                let fleet = Fleet { targets, due: now, waiting, open: 0, changed: false, hurried: false };
                self.fleets.insert(id.clone(), fleet);
            }
        }
        true
    }

    /// Starts the next round of a fleet as soon as the one under way is over, and tells of its end.
    pub(super) fn hurry(&mut self, id: &FleetId, now: Instant) {
        if let Some(fleet) = self.fleets.get_mut(id) {
            (fleet.due, fleet.hurried) = (now, true);
        }
    }

    /// Forgets a fleet's pods. Says whether there were any.
    pub(super) fn remove(&mut self, id: &FleetId) -> bool {
        let Some(fleet) = self.fleets.remove(id) else { return false };
        for target in fleet.targets {
            self.pods.remove(&target.pod_uid);
        }
        true
    }

    /// The next read, or when to look again.
    pub(super) fn next(&mut self, now: Instant) -> Result<Scrape, Option<Instant>> {
        if let Some(scrape) = self.take_turn() {
            return Ok(scrape);
        }
        for (id, fleet) in self.fleets.iter_mut().filter(|(_, fleet)| fleet.is_done() && fleet.due <= now) {
            fleet.due = now + round(self.interval, fleet.targets.len()).mul_f64(rand::rng().random_range(SCATTER));
            fleet.changed |= std::mem::take(&mut fleet.hurried);
            let due = |target: &&Arc<Target>| {
                let pod = self.pods.get(&target.pod_uid);
                pod.and_then(|pod| pod.retry_at).is_none_or(|retry_at| retry_at <= now)
            };
            fleet.waiting = fleet.targets.iter().filter(due).cloned().collect();
            self.turns.push_back(id.clone());
        }
        match self.take_turn() {
            Some(scrape) => Ok(scrape),
            None => Err(self.fleets.values().filter(|fleet| fleet.is_done()).map(|fleet| fleet.due).min()),
        }
    }

    fn take_turn(&mut self) -> Option<Scrape> {
        while let Some(id) = self.turns.pop_front() {
            let Some(fleet) = self.fleets.get_mut(&id) else { continue };
            // A fleet that has its share comes back when one of its reads ends.
            if fleet.open >= self.share {
                continue;
            }
            let Some(target) = fleet.waiting.pop_front() else { continue };
            fleet.open += 1;
            if !fleet.waiting.is_empty() {
                self.turns.push_back(id.clone());
            }
            return Some(Scrape { fleet: id, target });
        }
        None
    }

    /// Takes the outcome of a read. Gives the fleet if its round is over and showed a change.
    pub(super) fn finish(
        &mut self,
        scrape: &Scrape,
        outcome: Result<Reading, ReadFailure>,
        asked: Instant,
    ) -> Option<FleetId> {
        let interval = self.interval;
        let fleet = self.fleets.get_mut(&scrape.fleet)?;
        fleet.open = fleet.open.saturating_sub(1);
        if !fleet.waiting.is_empty() && !self.turns.contains(&scrape.fleet) {
            self.turns.push_back(scrape.fleet.clone());
        }
        let target = &scrape.target;
        if fleet.targets.contains(target) {
            let pod = self.pods.entry(target.pod_uid.clone()).or_default();
            fleet.changed |= match outcome {
                Ok(reading) => pod.answered(reading, asked, target),
                Err(failure) => pod.failed(failure, asked, interval),
            };
        }
        (fleet.is_done() && std::mem::take(&mut fleet.changed)).then(|| scrape.fleet.clone())
    }

    /// What a pod said last, and why its last read failed, if it did.
    pub(super) fn load(&self, pod_uid: &str, now: Instant) -> (Observation<PodLoad>, Option<ReadFailure>) {
        let Some(pod) = self.pods.get(pod_uid) else { return (Observation::Unknown, None) };
        let load = match &pod.load {
            Some((load, taken)) => Observation::aged(load.clone(), now.saturating_duration_since(*taken), LOAD_FRESH),
            None => Observation::Unknown,
        };
        (load, pod.failure)
    }
}

impl Pod {
    /// Takes a reading. Says whether it changes anything for the fleet.
    fn answered(&mut self, reading: Reading, asked: Instant, target: &Target) -> bool {
        let load = self.series.take(reading, asked, target.cpu_limit);
        let news =
            self.load.as_ref().is_none_or(|(before, _)| (&before.lanes, before.cordon) != (&load.lanes, load.cordon));
        let recovered = self.failure.take().is_some();
        self.load = Some((load, asked));
        (self.failures, self.retry_at) = (0, None);
        news || recovered
    }

    /// Takes a failure. Says whether it is news.
    fn failed(&mut self, failure: ReadFailure, now: Instant, interval: Duration) -> bool {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= PATIENCE {
            let wait = interval * 2_u32.pow((self.failures - PATIENCE).min(8));
            self.retry_at = Some(now + wait.min(LONGEST_RETRY).mul_f64(rand::rng().random_range(0.8..1.0)));
        }
        self.failure.replace(failure) != Some(failure)
    }
}

/// Time of one round of a fleet.
fn round(interval: Duration, pods: usize) -> Duration {
    let longest = LONGEST_ROUND.max(interval);
    interval.mul_f64((pods as f64 / PODS_AN_INTERVAL).max(1.0)).min(longest)
}

#[cfg(test)]
mod tests;
