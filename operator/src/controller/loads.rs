//! Where the load of a fleet's pods is known from.

use operator_core::api::PodMetrics;

use crate::kube::views::PodView;
use crate::workers::Target;

/// Where a pod's metrics are read.
pub fn target(pod: &PodView, metrics: &PodMetrics) -> Option<Target> {
    Some(Target { pod_uid: pod.uid.clone(), url: pod.metrics_url(metrics)?, cpu_limit: pod.cpu_limit })
}
