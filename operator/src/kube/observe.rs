//! Reads of the Kubernetes side: a fleet's children and pods from the caches.

use operator_core::names;
use operator_core::observed::{Cordon, KubeState, Observation, PodLoad, PodState, Unreadable};

use super::views::PodView;
use super::watches::Caches;

/// What is known of a pod's load, and why it can't be read, while it can't.
pub type Load = (Observation<PodLoad>, Option<Unreadable>);

/// What others than the cluster know of pods.
pub trait Knowledge {
    /// The load of a pod.
    fn load(&self, pod: &PodView) -> Load;
    /// Whether orders reach a pod that takes some.
    fn may_order(&self, pod_uid: &str) -> bool;
}

/// The fleet's children and pods, with what is known of each pod.
pub fn kube_state(caches: &Caches, fleet: &FleetKey<'_>, known: &impl Knowledge) -> KubeState {
    let label = names::deployment_name_label(fleet.name);
    let mut state = KubeState::default();
    for deployment in caches.deployments.group(fleet.namespace, &label) {
        if deployment.ownership.is(fleet.name, fleet.uid) {
            state.children.push(deployment.child.clone());
        } else {
            state.foreign_deployments.insert(deployment.child.name.clone());
        }
    }
    let pods = pods(caches, fleet);
    state.pods = pods.iter().map(|pod| pod_state(pod, known)).collect();
    state
}

/// A WorkerDeployment by all its names.
#[derive(Clone, Copy, Debug)]
pub struct FleetKey<'a> {
    /// Kubernetes namespace.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
    /// UID.
    pub uid: &'a str,
}

/// The fleet's pods that have not ended.
pub fn pods(caches: &Caches, fleet: &FleetKey<'_>) -> Vec<std::sync::Arc<PodView>> {
    let label = names::deployment_name_label(fleet.name);
    caches.pods.group(fleet.namespace, &label).into_iter().filter(|pod| !pod.ended).collect()
}

fn pod_state(pod: &PodView, known: &impl Knowledge) -> PodState {
    let (load, unreadable) = known.load(pod);
    let takes_orders = load.last().is_some_and(|load| load.cordon.is_some());
    PodState {
        name: super::index::View::name(pod).to_owned(),
        build_id: pod.build_id.clone(),
        ready: pod.ready,
        terminating: pod.terminating,
        may_run: pod.may_run,
        waiting: pod.waiting.clone(),
        deletion_cost: pod.deletion_cost,
        restarts: pod.restarts,
        may_be_cordoned: takes_orders && known.may_order(&pod.uid),
        cordoned: load.known().is_some_and(|load| load.cordon == Some(Cordon::Closed)),
        shown_cordoned: pod.shown_cordoned,
        load,
        unreadable,
    }
}
