//! Whether there are Workers without Worker Versioning to share the traffic with.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::observed::{LaneKey, Observation, VersionInfo};

/// What is not known yet.
pub(super) const NOT_KNOWN: &str = "whether Workers without Worker Versioning poll its Task Queues is not known yet";

/// Time after which a server that does not tell who polls is taken to have told that nobody else does: else the first version
/// would never get traffic.
pub(super) const LONGEST: Duration = Duration::from_secs(120);

/// Whether Workers without Worker Versioning poll every lane of a version; none while that is not known.
pub(super) fn poll_all(version: &VersionInfo, lanes: &BTreeMap<LaneKey, Observation<bool>>) -> Option<bool> {
    let told: Vec<_> = version.lanes.iter().map(|lane| lanes.get(lane).and_then(Observation::known).copied()).collect();
    if told.contains(&Some(false)) {
        return Some(false);
    }
    match told.contains(&None) {
        true => (version.lanes_unchanged_for >= LONGEST).then_some(false),
        false => Some(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::TaskType;

    #[test]
    fn only_workers_on_every_queue_are_somebody_to_share_with() {
        let lane = |name: &str| LaneKey { task_queue: name.into(), task_type: TaskType::Workflow };
        let of = |told: &[(&str, bool)], seconds| {
            let version = VersionInfo {
                lanes: [lane("a"), lane("b")].into(),
                lanes_unchanged_for: Duration::from_secs(seconds),
                ..VersionInfo::default()
            };
            let known = |value| Observation::Known { value, age: Duration::ZERO };
            poll_all(&version, &told.iter().map(|(name, polled)| (lane(name), known(*polled))).collect())
        };
        assert_eq!(of(&[("a", true), ("b", true)], 0), Some(true));
        assert_eq!(of(&[("a", true), ("b", false)], 0), Some(false));
        assert_eq!(of(&[("a", false)], 0), Some(false), "one that nobody polls is enough");
        assert_eq!(of(&[("a", true)], 119), None);
        assert_eq!(of(&[("a", true)], 120), Some(false), "a server that does not tell is not waited for");
    }
}
