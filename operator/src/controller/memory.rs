//! What the operator remembers of a fleet from one reconcile to the next. All of it may be lost: a fleet without a
//! memory is not scaled down until its windows have passed again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use operator_core::api::WorkerDeploymentStatus;
use operator_core::backoff::Backoff;
use operator_core::observed::ChildState;
use operator_core::scaling::State;
use parking_lot::Mutex;

use super::gates::Failed;
use crate::changes::FleetId;

/// Memory of one fleet.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Kubernetes namespace and name.
    pub key: (String, String),
    /// Name of the child that [`Memory::scaling`] is about: that of the version that does the work.
    pub child: String,
    /// State of its scaling decision.
    pub scaling: State,
    /// The same of other versions, by the names of their children.
    pub others: BTreeMap<String, State>,
    /// Build ID of a target that polls all that it must: what it waits for is not a poll.
    pub settled: Option<String>,
    /// The state as it was last written down, or found, and when; none while nothing of it is to be written.
    pub saved: Option<Box<(State, Instant)>>,
    /// What was applied, by `Kind/name`. Boxed, as a node of the map has room for eleven.
    pub applied: BTreeMap<String, Box<Applied>>,
    /// The conflict token of the last change of the routing: until the server shows a new one, the change is not yet in
    /// what was read.
    pub routed: Option<Vec<u8>>,
    /// Versions whose record the server refused to delete, by Build ID.
    pub resting: BTreeMap<String, Rest>,
    /// Test Workflows that could not be started, by Workflow ID.
    pub unstarted: BTreeMap<String, Failed>,
    /// Whether temporal-worker-controller has fields of the object still.
    pub peer_has_fields: bool,
    /// Build ID of the target that was last said not to be the computed one.
    pub told_target: Option<String>,
    /// The status as it was last written, until the cache shows it.
    pub written: Option<Box<WorkerDeploymentStatus>>,
    /// When it was last written.
    pub written_at: Option<Instant>,
    /// Since when readings have been missing or old without a break.
    pub stale_since: Option<Instant>,
    /// When victims were last marked.
    pub marked: Option<Instant>,
    /// When it was last said that the target is missed.
    pub slo_missed: Option<Instant>,
    /// What was last said to have failed, until a plan is carried out: the note of the event.
    pub told_failure: Option<String>,
    /// Failures in a row.
    pub backoff: Backoff,
}

/// Something that is not tried again for a while.
#[derive(Clone, Copy, Debug)]
pub struct Rest {
    /// Failures in a row.
    pub backoff: Backoff,
    /// When it may be tried again.
    pub until: Instant,
}

/// An object that was applied.
#[derive(Clone, Debug)]
pub struct Applied {
    /// Digest of what was applied.
    pub digest: String,
    /// Its UID.
    pub uid: Option<String>,
    /// Its generation afterwards: a later one means that somebody changed its spec.
    pub generation: Option<i64>,
    /// When that was last known to stand.
    pub at: Instant,
}

impl Applied {
    /// Whether a Deployment is seen as it was before this.
    fn is_ahead_of(&self, child: &ChildState) -> bool {
        self.uid.as_ref() == Some(&child.uid) && self.generation.is_some_and(|generation| generation > child.generation)
    }
}

/// Time that an unwatched object, such as a ConfigMap, is taken to stand as it was applied.
const UNWATCHED_STANDS: Duration = Duration::from_secs(600);

impl Memory {
    /// Digests of what stands as it was applied, given the Deployments that there are now.
    #[must_use]
    pub fn standing(&self, children: &[ChildState]) -> BTreeMap<String, String> {
        let stands = |key: &String, applied: &Applied| match key.strip_prefix("Deployment/") {
            Some(name) => {
                let is_it =
                    |child: &ChildState| Some(child.generation) == applied.generation || applied.is_ahead_of(child);
                children.iter().any(|child| child.name == name && is_it(child))
            }
            None => applied.at.elapsed() < UNWATCHED_STANDS,
        };
        let standing = self.applied.iter().filter(|(key, applied)| stands(key, applied));
        standing.map(|(key, applied)| (key.clone(), applied.digest.clone())).collect()
    }

    /// Notes that the operator itself has changed the replicas of a Deployment that was as given: it stands as it did, though its
    /// spec has changed once more.
    pub fn scaled(&mut self, child: &ChildState) {
        let applied = self.applied.get_mut(&format!("Deployment/{}", child.name));
        if let Some(applied) = applied.filter(|applied| applied.generation == Some(child.generation)) {
            applied.generation = Some(child.generation + 1);
        }
    }

    /// Whether a child is seen as it was before the operator's own last write: whatever is decided on it is outdated.
    #[must_use]
    pub fn is_ahead_of(&self, child: &str, children: &[ChildState]) -> bool {
        let applied = self.applied.get(&format!("Deployment/{child}"));
        let seen = children.iter().find(|known| known.name == child);
        applied.zip(seen).is_some_and(|(applied, seen)| applied.is_ahead_of(seen))
    }

    /// Notes that a status was written.
    pub fn wrote(&mut self, status: WorkerDeploymentStatus) {
        self.written = Some(Box::new(status));
        self.written_at = Some(Instant::now());
    }

    /// Makes [`Memory::scaling`] that of the version that does the work now. A version that was not scaled before begins with
    /// what was learned of the one before it: start-up times and gaps hold for it too, what its pods did does not.
    pub fn follow(&mut self, main: &str, children: &[ChildState]) {
        let learned = || self.scaling.clone().restored(Duration::ZERO);
        let new: Vec<_> = children
            .iter()
            .filter(|child| child.name != self.child && !self.others.contains_key(&child.name))
            .map(|child| (child.name.clone(), learned()))
            .collect();
        self.others.extend(new);
        if main != self.child {
            let next = self.others.remove(main).unwrap_or_else(learned);
            let before = std::mem::replace(&mut self.scaling, next);
            self.others.insert(std::mem::replace(&mut self.child, main.to_owned()), before);
        }
        self.others.retain(|name, _| children.iter().any(|child| child.name == *name));
    }

    /// Build IDs whose records are not to be deleted just now.
    #[must_use]
    pub fn resting(&self) -> BTreeSet<String> {
        let now = Instant::now();
        self.resting.iter().filter(|(_, rest)| rest.until > now).map(|(build_id, _)| build_id.clone()).collect()
    }

    /// Whether an unwatched object was applied like this before, only too long ago to be sure that it still stands.
    #[must_use]
    pub fn only_aged(&self, key: &str, digest: &str) -> bool {
        !key.starts_with("Deployment/") && self.applied.get(key).is_some_and(|applied| applied.digest == digest)
    }

    /// Notes that an object stands as it was applied.
    pub fn confirm(&mut self, key: &str) {
        if let Some(applied) = self.applied.get_mut(key) {
            applied.at = Instant::now();
        }
    }
}

/// Memories of all fleets. Boxed, as a table has room for twice as many as it holds.
#[derive(Default)]
pub struct Memories(Mutex<HashMap<FleetId, Box<Memory>>>);

impl Memories {
    /// A copy of a fleet's memory; empty for a new fleet.
    pub fn get(&self, fleet: &FleetId) -> Memory {
        self.0.lock().get(fleet).map(|memory| (**memory).clone()).unwrap_or_default()
    }

    /// Copies of all memories.
    pub fn all(&self) -> Vec<(FleetId, Memory)> {
        self.0.lock().iter().map(|(fleet, memory)| (fleet.clone(), (**memory).clone())).collect()
    }

    /// Keeps a fleet's memory.
    pub fn put(&self, fleet: &FleetId, memory: Memory) {
        self.0.lock().insert(fleet.clone(), Box::new(memory));
    }

    /// Changes what is remembered of a fleet; nothing is made for one that is gone.
    pub fn change<T>(&self, fleet: &FleetId, change: impl FnOnce(&mut Memory) -> T) -> Option<T> {
        self.0.lock().get_mut(fleet).map(|memory| change(memory))
    }

    /// Takes note of the status that the cache shows of a fleet: nothing has to make up for it any more.
    pub fn shown(&self, fleet: &FleetId, status: Option<&WorkerDeploymentStatus>) {
        self.change(fleet, |memory| {
            if memory.written.as_deref() == status {
                memory.written = None;
            }
        });
    }

    /// Fleets of a Kubernetes namespace, or of all, that are remembered and not among these.
    pub fn missing_in(&self, here: &HashSet<FleetId>, namespace: Option<&str>) -> Vec<FleetId> {
        let memories = self.0.lock();
        let of_scope = memories.iter().filter(|(_, memory)| namespace.is_none_or(|own| own == memory.key.0));
        of_scope.map(|(fleet, _)| fleet).filter(|fleet| !here.contains(*fleet)).cloned().collect()
    }

    /// Forgets a fleet.
    pub fn remove(&self, fleet: &FleetId) {
        self.0.lock().remove(fleet);
    }

    /// Kubernetes namespace and name of a fleet.
    pub fn key(&self, fleet: &FleetId) -> Option<(String, String)> {
        self.0.lock().get(fleet).map(|memory| memory.key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_keeps_its_own_state_when_another_one_takes_over_the_work() {
        let child = |name: &str| ChildState { name: name.into(), ..ChildState::default() };
        let state = |template: &str| serde_json::from_value(serde_json::json!({"template": template})).unwrap();
        let mut memory = Memory { child: "a".into(), scaling: state("a"), ..Memory::default() };
        memory.follow("a", &[child("a"), child("b")]);
        assert_eq!(memory.others.keys().collect::<Vec<_>>(), ["b"]);
        memory.others.insert("b".into(), state("b"));
        memory.follow("b", &[child("a"), child("b")]);
        assert_eq!((&memory.scaling, &memory.others), (&state("b"), &BTreeMap::from([("a".into(), state("a"))])));
        memory.follow("b", &[child("b")]);
        assert!(memory.others.is_empty(), "its child is gone");
    }

    #[test]
    fn fleets_that_are_remembered_and_not_listed_are_those_of_the_scope() {
        let memories = Memories::default();
        for (id, namespace) in [("a", "one"), ("b", "one"), ("c", "two")] {
            memories.put(&id.into(), Memory { key: (namespace.into(), id.into()), ..Memory::default() });
        }
        let missing = |here: &[&str], namespace| {
            let here = here.iter().map(|id| FleetId::from(*id)).collect();
            let missing: BTreeSet<_> = memories.missing_in(&here, namespace).into_iter().collect();
            missing
        };
        let ids = |ids: &[&str]| ids.iter().map(|id| FleetId::from(*id)).collect::<BTreeSet<_>>();
        assert_eq!(missing(&["a"], Some("one")), ids(&["b"]));
        assert_eq!(missing(&["a"], None), ids(&["b", "c"]));
        assert_eq!(missing(&["a", "b"], Some("one")), ids(&[]));
    }

    #[test]
    fn what_is_gone_is_not_remembered_again_by_a_change() {
        let (memories, fleet) = (Memories::default(), FleetId::from("u"));
        assert!(memories.change(&fleet, |_| ()).is_none());
        assert!(memories.all().is_empty());
        memories.put(&fleet, Memory::default());
        assert!(memories.change(&fleet, |memory| memory.settled = Some("b".into())).is_some());
        assert_eq!(memories.get(&fleet).settled.as_deref(), Some("b"));
    }

    #[test]
    fn a_status_is_kept_until_the_cache_shows_it_and_no_older_one() {
        let status =
            |generation| WorkerDeploymentStatus { observed_generation: Some(generation), ..Default::default() };
        let (memories, fleet) = (Memories::default(), FleetId::from("u"));
        let mut memory = Memory::default();
        memory.wrote(status(2));
        memories.put(&fleet, memory);
        let kept = || memories.get(&fleet).written.map(|written| *written);
        for older in [None, Some(status(1))] {
            memories.shown(&fleet, older.as_ref());
            assert_eq!(kept(), Some(status(2)), "{older:?}");
        }
        memories.shown(&"another".into(), Some(&status(2)));
        assert_eq!(kept(), Some(status(2)));
        memories.shown(&fleet, Some(&status(2)));
        assert_eq!(kept(), None);
    }

    #[test]
    fn a_deployment_that_somebody_changed_does_not_stand() {
        let applied = |generation| Box::new(Applied { digest: "d".into(), uid: None, generation, at: Instant::now() });
        let mut memory = Memory {
            applied: BTreeMap::from([
                ("Deployment/a".into(), applied(Some(1))),
                ("Deployment/b".into(), applied(Some(1))),
                ("ConfigMap/a".into(), applied(None)),
            ]),
            ..Memory::default()
        };
        let child = |name: &str, generation| ChildState { name: name.into(), generation, ..ChildState::default() };
        let standing = |memory: &Memory, a, b| {
            memory.standing(&[child("a", a), child("b", b)]).into_keys().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(standing(&memory, 1, 2), "ConfigMap/a Deployment/a");
        memory.scaled(&child("a", 1));
        memory.scaled(&child("b", 2));
        assert_eq!(
            standing(&memory, 2, 3),
            "ConfigMap/a Deployment/a",
            "scaling one makes up for no change of another hand"
        );
        assert_eq!(standing(&memory, 3, 3), "ConfigMap/a", "another change after that is one");
    }

    #[test]
    fn a_deployment_that_is_seen_as_it_was_before_the_last_write_stands_and_is_not_decided_on() {
        let applied = Applied { digest: "d".into(), uid: Some("u".into()), generation: Some(2), at: Instant::now() };
        let memory =
            Memory { applied: BTreeMap::from([("Deployment/a".into(), Box::new(applied))]), ..Memory::default() };
        let seen = |uid: &str, generation| {
            let child = ChildState { name: "a".into(), uid: uid.into(), generation, ..ChildState::default() };
            let children = [child];
            (!memory.standing(&children).is_empty(), memory.is_ahead_of("a", &children))
        };
        assert_eq!(seen("u", 1), (true, true));
        assert_eq!(seen("u", 2), (true, false));
        assert_eq!(seen("u", 3), (false, false), "somebody changed it");
        assert_eq!(seen("another", 1), (false, false), "it is another one of its name");
    }
}
