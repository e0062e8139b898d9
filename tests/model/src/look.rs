//! What the operator concludes from a look: the production planner, behind a memory of what it was asked before.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use operator_core::api::{ConditionStatus, ConditionType};
use operator_core::clock::Clock;
use operator_core::deletion::{self, Deletion};
use operator_core::names;
use operator_core::observed::{FailureClass, KubeState, Observation, TemporalFailure, TemporalState};
use operator_core::plan::{Action, Plan};
use operator_core::status::{self, StatusInput};
use parking_lot::RwLock;

use crate::act::{self, Act};
use crate::fleets::{self, Fleets, IDENTITY, Input};
use crate::invariants::{self, S};
use crate::mutants::Mutant;
use crate::world::{Cluster, Id, Server, ids};

/// Everything that a look stands on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// The cluster.
    pub cluster: Cluster,
    /// The server.
    pub server: Server,
    /// Whether the server was read lately.
    pub fresh: bool,
    /// A version of which the server said that it has no record.
    pub absent: Option<Id>,
    /// A version that is missing from all that was read of the server.
    pub unlisted: Option<Id>,
    /// A version whose Deployment is missing from what was read of the cluster.
    pub hidden: Option<Id>,
    /// Whether the objects of the target stand as this operator applied them.
    pub applied: bool,
    /// Versions whose record it was refused to delete within the hour.
    pub resting: u8,
    /// Whether its wall clock is far ahead.
    pub ahead: bool,
    /// Whether its own last change of the routing is not in what it read.
    pub outdated: bool,
}

/// What follows: writes, the next one last, and the invariants that they break already.
#[derive(Clone, Debug, Default)]
pub struct Conclusion {
    /// The writes.
    pub acts: Vec<Act>,
    /// A bit for each invariant.
    pub broken: u32,
}

/// The planner.
pub struct Looker {
    pub(crate) fleets: Fleets,
    pub(crate) mutant: Option<Mutant>,
    known: RwLock<HashMap<View, Conclusion>>,
}

impl Looker {
    /// The planner of a fleet, with a fault in it or not.
    #[must_use]
    pub fn new(kind: fleets::Kind, mutant: Option<Mutant>) -> Self {
        Self { fleets: Fleets::new(kind), mutant, known: RwLock::default() }
    }

    /// How many different views it was asked about.
    #[must_use]
    pub fn views(&self) -> usize {
        self.known.read().len()
    }

    /// What follows from a view. The planner is pure, so that it is asked once about each.
    #[must_use]
    pub fn conclude(&self, view: &View) -> Conclusion {
        if let Some(known) = self.known.read().get(view) {
            return known.clone();
        }
        let conclusion = self.plan(view);
        self.known.write().insert(view.clone(), conclusion.clone());
        conclusion
    }

    fn plan(&self, truth: &View) -> Conclusion {
        let view = &self.mutant.map_or_else(|| truth.clone(), |mutant| mutant.distort(truth));
        let (mut kube, temporal) = (self.fleets.kube(&view.cluster), self.temporal(view));
        if let Some(hidden) = view.hidden {
            kube.children.retain(|child| child.uid != self.fleets.uid(hidden));
        }
        let resting = ids().filter(|id| view.resting & (1 << *id) != 0).map(|id| self.fleets.build_id(id).to_owned());
        let read = Read { view, kube: &kube, temporal: &temporal, resting: &resting.collect() };
        let (mut concluded, is_ready) = match view.cluster.spec.deleting {
            Some(since) => (self.deletion(&read, fleets::hours(since)), false),
            None => self.rollout(&read),
        };
        if let Some(mutant) = self.mutant {
            mutant.alter(&mut concluded.acts, truth);
        }
        concluded.broken |= invariants::of_plan(&concluded.acts, truth);
        concluded.broken |= S::S14.unless(!is_ready || invariants::is_ready(truth));
        concluded
    }

    fn temporal(&self, view: &View) -> TemporalState {
        let mut temporal = self.fleets.temporal(&view.server);
        if let Observation::Known { value: Some(info), .. } = &mut temporal.deployment {
            if let Some(absent) = view.absent {
                info.versions.insert(self.fleets.build_id(absent).to_owned(), fleets::known(None));
            }
            if let Some(unlisted) = view.unlisted {
                info.versions.remove(self.fleets.build_id(unlisted));
            }
            for missing in view.absent.into_iter().chain(view.unlisted) {
                info.summaries.remove(self.fleets.build_id(missing));
            }
        }
        if !view.fresh {
            let value = temporal.deployment.last().cloned().unwrap_or_default();
            temporal.deployment = Observation::Stale { value, age: Duration::from_secs(600) };
            temporal.failure =
                Some(TemporalFailure { class: FailureClass::Unreachable, message: "no connection".into() });
        }
        temporal
    }

    fn rollout(&self, read: &Read<'_>) -> (Conclusion, bool) {
        let view = read.view;
        let spec = &view.cluster.spec;
        let fleet = self.fleets.of(spec.target);
        let nothing = BTreeMap::new();
        let input = Input {
            kube: read.kube,
            temporal: read.temporal,
            applied: if view.applied { self.fleets.applied(spec.target) } else { &nothing },
            protected: spec.protected,
            order: spec.order,
            clock: self.clock(view.ahead),
            resting: read.resting,
            outdated: view.outdated,
            ..Input::new(fleet)
        };
        let mut plan = input.plan();
        if self.mutant == Some(Mutant::NoPreconditions) {
            plan.actions.iter_mut().for_each(strip);
        }
        let (acts, conditioned) = act::of_plan(&plan.actions, &self.fleets, &view.cluster);
        (Conclusion { acts, broken: S::S18.unless(conditioned) }, self.says_ready(read, &plan))
    }

    fn clock(&self, ahead: bool) -> Clock {
        let clock = fleets::clock(ahead);
        if self.mutant == Some(Mutant::OneClock) { Clock::at(clock.wall) } else { clock }
    }

    /// Whether the status says that the fleet is ready.
    fn says_ready(&self, read: &Read<'_>, plan: &Plan) -> bool {
        let (fleet, nothing) = (self.fleets.of(read.view.cluster.spec.target), BTreeMap::new());
        let fresh = View { fresh: true, ..read.view.clone() };
        let restamped = (self.mutant == Some(Mutant::StatusOfOldReadings)).then(|| self.temporal(&fresh));
        let status = status::compute(&StatusInput {
            generation: 1,
            previous: &Default::default(),
            blocked: None,
            planned: Some((fleet, plan)),
            kube: read.kube,
            temporal: restamped.as_ref().unwrap_or(read.temporal),
            annotations: &nothing,
            order: Default::default(),
            scaled_to: &BTreeMap::new(),
            stale_for: (!read.view.fresh && restamped.is_none()).then_some(status::STALE_GRACE),
            now: fleets::now(),
        });
        let yes = ConditionStatus::True.as_str();
        status.condition(ConditionType::Ready).is_some_and(|condition| condition.status == yes)
    }

    fn deletion(&self, read: &Read<'_>, since: Duration) -> Conclusion {
        let (steps, _) = deletion::plan(&Deletion {
            orphan: false,
            kube: read.kube,
            temporal: Some(read.temporal),
            identity: IDENTITY,
            former_identities: &BTreeSet::new(),
            temporal_namespace: "default",
            deployment_name: &names::temporal_deployment_name("prod", "orders"),
            resting: read.resting,
            since,
        });
        Conclusion { acts: act::of_deletion(&steps, &self.fleets), broken: 0 }
    }
}

/// Takes the preconditions of a deletion away.
fn strip(action: &mut Action) {
    if let Action::DeleteChild { uid, resource_version, .. } = action {
        uid.clear();
        resource_version.clear();
    }
}

struct Read<'a> {
    view: &'a View,
    kube: &'a KubeState,
    temporal: &'a TemporalState,
    resting: &'a BTreeSet<String>,
}
