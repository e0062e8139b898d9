//! Orders to the pods of a fleet, as its plan says.

use std::collections::{BTreeMap, BTreeSet};

use operator_core::api::PodMetrics;
use operator_core::cordon::{OrderKey, Wish};
use operator_core::observed::{KubeState, PodState};
use tokio::time::Instant;

use super::{Context, Shared, loads};
use crate::changes::FleetId;
use crate::kube::index::View as _;
use crate::kube::observe::{self, FleetKey, Knowledge, Load};
use crate::kube::views::PodView;
use crate::workers::OrderedPod;

/// What the scraper and the sender of orders know of pods.
pub struct Known<'a> {
    /// Where they are.
    pub shared: &'a Shared,
    /// Time of the reconcile.
    pub now: Instant,
    /// Whether there is a key to sign orders with.
    pub has_key: bool,
    /// Where the fleet's pods have their metrics.
    pub metrics: &'a PodMetrics,
}

impl Knowledge for Known<'_> {
    fn load(&self, pod: &PodView) -> Load {
        let target = loads::target(pod, self.metrics);
        let seen = self.shared.scraper.snapshot(&pod.uid, target.as_ref(), self.now);
        (seen.load, seen.unreadable)
    }

    fn may_order(&self, pod_uid: &str) -> bool {
        self.has_key && !self.shared.cordons.is_failing(pod_uid)
    }
}

/// Says what the fleet's pods should do: those named in `cordon` are to take no new task, all others are to take some.
/// What they do by their own word is in `kube`.
pub fn order(
    ctx: &Context,
    fleet: &FleetKey<'_>,
    id: &FleetId,
    kube: &KubeState,
    (key, cordon): (&OrderKey, &BTreeSet<String>),
) {
    let word = |pod: &'_ PodState| pod.load.known().and_then(|load| load.cordon);
    let says: BTreeMap<_, _> = kube.pods.iter().map(|pod| (pod.name.as_str(), word(pod))).collect();
    let pods = observe::pods(&ctx.caches, fleet);
    let ordered = pods.iter().filter(|pod| !pod.terminating).filter_map(|pod| {
        let wish = Wish { cordon: cordon.contains(pod.name()), says: says.get(pod.name()).copied().flatten() };
        Some(OrderedPod { uid: pod.uid.clone(), url: pod.orders_url()?, wish })
    });
    ctx.shared.cordons.set(id, key, ordered.collect());
}
