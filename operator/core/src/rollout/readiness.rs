//! What a version has yet to poll before it may get traffic.

use std::time::Duration;

use super::Target;
use crate::observed::{DeploymentInfo, VersionInfo, VersionStatus};

/// Time that the reported Task Queues must not have changed before they count as all of them, where nothing else says
/// which there are.
pub const LANES_SETTLE: Duration = Duration::from_secs(30);

/// What the server has never seen of a version.
pub(super) const NEVER_POLLED: &str = "the server has not seen a poll of it";

/// What the version has yet to poll, if anything: the declared Task Queues; else those of the current version; else
/// those that it reported, once they have settled.
pub(super) fn missing(target: &Target<'_>, version: &VersionInfo, deployment: &DeploymentInfo) -> Option<String> {
    if !target.has_ready_pod {
        return Some("none of its pods is Ready".into());
    }
    if version.status == VersionStatus::NotRegistered || version.lanes.is_empty() {
        return Some(NEVER_POLLED.into());
    }
    let polled = |queue: &String| version.lanes.iter().any(|lane| &lane.task_queue == queue);
    if !target.declared_lanes.is_empty() || !target.declared_queues.is_empty() {
        let lane = target.declared_lanes.difference(&version.lanes).next().map(|lane| format!("no poll of {lane} yet"));
        let queue = || target.declared_queues.iter().find(|queue| !polled(queue));
        return lane.or_else(|| queue().map(|queue| format!("no poll of Task Queue {queue:?} yet")));
    }
    let current = deployment.current_build_id.as_ref().and_then(|id| deployment.version(id));
    if let Some(current) = current.filter(|current| !current.lanes.is_empty()) {
        let lane = current.lanes.difference(&version.lanes).next();
        return lane.map(|lane| format!("no poll of {lane} yet, which the current version serves"));
    }
    (version.lanes_unchanged_for < LANES_SETTLE)
        .then(|| format!("its Task Queues have not been the same for {} s yet", LANES_SETTLE.as_secs()))
}
