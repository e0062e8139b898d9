//! Where the load of a fleet's pods is known from: their metrics, else their Workers' heartbeats.

use std::collections::BTreeMap;
use std::sync::Arc;

use operator_core::api::PodMetrics;
use operator_core::fleet::Fleet;
use operator_core::observed::{KubeState, Observation, PodState};
use tokio::time::Instant;

use crate::changes::FleetId;
use crate::kube::views::PodView;
use crate::temporal::{Connection, Heartbeats, Need};
use crate::workers::Target;

/// Where a pod's metrics are read.
pub fn target(pod: &PodView, metrics: &PodMetrics) -> Option<Target> {
    Some(Target { pod_uid: pod.uid.clone(), url: pod.metrics_url(metrics)?, cpu_limit: pod.cpu_limit })
}

/// Adds what heartbeats say of pods that were never read. A pod that was keeps its own counts, however old: those of the
/// two sources are of different moments, and a count that goes back and forth is none.
pub fn add_heartbeats(
    heartbeats: &Heartbeats,
    id: &FleetId,
    fleet: &Fleet,
    connection: &Arc<Connection>,
    kube: &mut KubeState,
) {
    heartbeats.set(Need {
        fleet: id.clone(),
        namespace: fleet.temporal_namespace.clone(),
        connection: connection.clone(),
        deployment_name: fleet.build_id.is_some().then(|| fleet.deployment_name.clone()),
        pods: if fleet.scaling.is_some() { unread(kube) } else { BTreeMap::new() },
    });
    let now = Instant::now();
    for pod in kube.pods.iter_mut().filter(|pod| is_unread(pod)) {
        pod.load = heartbeats.load(id, &pod.name, now);
        if pod.load.known().is_some() {
            pod.unreadable = None;
        }
    }
}

fn unread(kube: &KubeState) -> BTreeMap<String, Option<String>> {
    let pods = kube.pods.iter().filter(|pod| is_unread(pod));
    pods.map(|pod| (pod.name.clone(), pod.build_id.clone())).collect()
}

/// Whether a pod's Worker may run, and its metrics were never read.
fn is_unread(pod: &PodState) -> bool {
    pod.may_run && (pod.ready || pod.terminating) && pod.unreadable.is_some() && pod.load == Observation::Unknown
}
