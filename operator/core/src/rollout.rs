//! Where the target version is on its way to Current, and whether it may go on.
//!
//! A version is never routed to before it has polled every Task Queue that it must serve: a version that was made
//! current earlier owns no backlog until it polls, and the tasks would belong to nobody.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::observed::{DeploymentInfo, LaneKey, Observation, TemporalState, VersionInfo, VersionStatus};
use crate::scaling::Floor;

/// Time that the reported Task Queues must not have changed before they count as all of them, where nothing else says
/// which there are.
pub const LANES_SETTLE: Duration = Duration::from_secs(30);

/// What the user and the fleet say of the version that should get the traffic.
#[derive(Clone, Debug, PartialEq)]
pub struct Target<'a> {
    /// Its Build ID.
    pub build_id: &'a str,
    /// Lanes that the manifest names.
    pub declared_lanes: &'a BTreeSet<LaneKey>,
    /// Task Queues that the manifest names without saying the kind of task.
    pub declared_queues: &'a BTreeSet<String>,
    /// Whether one of its pods is Ready.
    pub has_ready_pod: bool,
    /// Whether the strategy lets the operator change the routing when there is a current version already.
    pub may_replace: bool,
    /// Whether it lets the operator change the routing when there is none.
    pub may_start: bool,
    /// The operator's own identity.
    pub identity: &'a str,
}

/// Where a version is.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// The server could not be asked lately.
    Unknown,
    /// The server has no record of the version, or not of all its Task Queues.
    Registering {
        /// What is still missing.
        missing: String,
    },
    /// Ready for traffic, but the strategy leaves that to the user or to a later release.
    WaitingForPromotion,
    /// Ready for traffic, but another identity manages the routing.
    ManagedBy(String),
    /// Ready for traffic: make it current.
    Promote {
        /// Token for the change.
        conflict_token: Vec<u8>,
    },
    /// It has the traffic.
    Current,
}

/// Finds the stage of the target version.
#[must_use]
pub fn stage(target: &Target<'_>, temporal: &TemporalState) -> Stage {
    let deployment = match &temporal.deployment {
        Observation::Known { value, .. } => value,
        Observation::Stale { .. } | Observation::Unknown => return last_known_stage(target, temporal),
    };
    let Some(deployment) = deployment else {
        return Stage::Registering { missing: "the server has not seen a poll of it".into() };
    };
    if deployment.current_build_id.as_deref() == Some(target.build_id) {
        return Stage::Current;
    }
    let Some(version) = deployment.versions.get(target.build_id) else {
        return Stage::Registering { missing: "the server has not seen a poll of it".into() };
    };
    if let Some(missing) = missing(target, version, deployment) {
        return Stage::Registering { missing };
    }
    let allowed = if deployment.current_build_id.is_none() { target.may_start } else { target.may_replace };
    if !allowed {
        return Stage::WaitingForPromotion;
    }
    if !deployment.manager_identity.is_empty() && deployment.manager_identity != target.identity {
        return Stage::ManagedBy(deployment.manager_identity.clone());
    }
    Stage::Promote { conflict_token: deployment.conflict_token.clone() }
}

/// A version that was seen to be current stays so while the server is away: the operator alone changes that.
fn last_known_stage(target: &Target<'_>, temporal: &TemporalState) -> Stage {
    let last = temporal.deployment.last().and_then(Option::as_ref);
    match last.and_then(|deployment| deployment.current_build_id.as_deref()) {
        Some(current) if current == target.build_id => Stage::Current,
        _ => Stage::Unknown,
    }
}

/// What the version has yet to poll, if anything: the declared Task Queues; else those of the current version; else
/// those that it reported, once they have settled.
fn missing(target: &Target<'_>, version: &VersionInfo, deployment: &DeploymentInfo) -> Option<String> {
    if !target.has_ready_pod {
        return Some("none of its pods is Ready".into());
    }
    if version.status == VersionStatus::NotRegistered || version.lanes.is_empty() {
        return Some("the server has not seen a poll of it".into());
    }
    let polled = |queue: &String| version.lanes.iter().any(|lane| &lane.task_queue == queue);
    if !target.declared_lanes.is_empty() || !target.declared_queues.is_empty() {
        let lane = target.declared_lanes.difference(&version.lanes).next().map(|lane| format!("no poll of {lane} yet"));
        let queue = || target.declared_queues.iter().find(|queue| !polled(queue));
        return lane.or_else(|| queue().map(|queue| format!("no poll of Task Queue {queue:?} yet")));
    }
    let current = deployment.current_build_id.as_ref().and_then(|id| deployment.versions.get(id));
    if let Some(current) = current.filter(|current| !current.lanes.is_empty()) {
        let lane = current.lanes.difference(&version.lanes).next();
        return lane.map(|lane| format!("no poll of {lane} yet, which the current version serves"));
    }
    (version.lanes_unchanged_for < LANES_SETTLE)
        .then(|| format!("its Task Queues have not been the same for {} s yet", LANES_SETTLE.as_secs()))
}

/// The floor under the target's replicas: one pod until it has the traffic.
#[must_use]
pub fn floor(stage: &Stage, build_id: &str) -> Option<Floor> {
    let because = match stage {
        // Unknown holds whatever runs: the lanes are unknown too, and doubt neither shrinks nor wakes a fleet.
        Stage::Current | Stage::Unknown => return None,
        Stage::Registering { missing } => {
            format!("version {build_id} runs one pod until the server knows its Task Queues: {missing}")
        }
        Stage::WaitingForPromotion | Stage::ManagedBy(_) => {
            format!("version {build_id} runs one pod until it is made current")
        }
        Stage::Promote { .. } => format!("version {build_id} runs one pod while it is made current"),
    };
    Some(Floor { replicas: 1, reason: because })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::TaskType;

    fn lane(name: &str) -> LaneKey {
        LaneKey { task_queue: name.into(), task_type: TaskType::Activity }
    }

    fn version(lanes: &[&str], settled: u64) -> VersionInfo {
        VersionInfo {
            status: VersionStatus::Inactive,
            lanes: lanes.iter().map(|name| lane(name)).collect(),
            lanes_unchanged_for: Duration::from_secs(settled),
        }
    }

    struct Case {
        declared: BTreeSet<LaneKey>,
        ready: bool,
        may_replace: bool,
        deployment: Observation<Option<DeploymentInfo>>,
    }

    impl Case {
        fn new(deployment: DeploymentInfo) -> Self {
            let deployment = Observation::Known { value: Some(deployment), age: Duration::ZERO };
            Self { declared: BTreeSet::new(), ready: true, may_replace: true, deployment }
        }

        fn stage(&self) -> Stage {
            let target = Target {
                build_id: "b2",
                declared_lanes: &self.declared,
                declared_queues: &BTreeSet::new(),
                has_ready_pod: self.ready,
                may_replace: self.may_replace,
                may_start: true,
                identity: "me",
            };
            stage(&target, &TemporalState { deployment: self.deployment.clone(), ..TemporalState::default() })
        }
    }

    fn deployment(versions: &[(&str, VersionInfo)], current: Option<&str>) -> DeploymentInfo {
        DeploymentInfo {
            current_build_id: current.map(Into::into),
            versions: versions.iter().map(|(id, info)| ((*id).into(), info.clone())).collect(),
            conflict_token: vec![7],
            ..DeploymentInfo::default()
        }
    }

    #[test]
    fn a_version_that_polls_its_declared_queues_is_promoted_at_once() {
        let mut case = Case::new(deployment(&[("b2", version(&["q"], 0))], None));
        case.declared = BTreeSet::from([lane("q")]);
        assert_eq!(case.stage(), Stage::Promote { conflict_token: vec![7] });
        case.declared.insert(lane("r"));
        assert_eq!(case.stage(), Stage::Registering { missing: r#"no poll of activity queue "r" yet"#.into() });
    }

    #[test]
    fn without_declared_queues_those_of_the_current_version_count() {
        let case = Case::new(deployment(&[("b1", version(&["q", "r"], 99)), ("b2", version(&["q"], 99))], Some("b1")));
        assert!(matches!(case.stage(), Stage::Registering { missing } if missing.contains("current version serves")));
        let case = Case::new(deployment(&[("b1", version(&["q"], 99)), ("b2", version(&["q"], 0))], Some("b1")));
        assert!(matches!(case.stage(), Stage::Promote { .. }));
    }

    #[test]
    fn the_first_version_waits_until_its_reported_queues_have_settled() {
        let case = |settled| Case::new(deployment(&[("b2", version(&["q"], settled))], None)).stage();
        assert!(matches!(case(29), Stage::Registering { .. }));
        assert!(matches!(case(30), Stage::Promote { .. }));
    }

    #[test]
    fn a_version_without_a_ready_pod_is_not_promoted() {
        let mut case = Case::new(deployment(&[("b2", version(&["q"], 99))], None));
        case.ready = false;
        assert!(matches!(case.stage(), Stage::Registering { .. }));
    }

    #[test]
    fn a_foreign_manager_is_respected() {
        let mut info = deployment(&[("b2", version(&["q"], 99))], None);
        info.manager_identity = "somebody".into();
        assert_eq!(Case::new(info.clone()).stage(), Stage::ManagedBy("somebody".into()));
        info.manager_identity = "me".into();
        assert!(matches!(Case::new(info).stage(), Stage::Promote { .. }));
    }

    #[test]
    fn a_strategy_that_leaves_it_to_the_user_only_waits() {
        let versions = [("b1", version(&["q"], 99)), ("b2", version(&["q"], 99))];
        let mut case = Case::new(deployment(&versions, Some("b1")));
        case.may_replace = false;
        assert_eq!(case.stage(), Stage::WaitingForPromotion);
    }

    #[test]
    fn an_old_answer_promotes_nothing_and_demotes_nothing() {
        let info = deployment(&[("b2", version(&["q"], 99))], None);
        let stale = |info| Observation::Stale { value: Some(info), age: Duration::from_secs(600) };
        let mut case = Case::new(info.clone());
        case.deployment = stale(info);
        assert_eq!(case.stage(), Stage::Unknown);
        case.deployment = stale(deployment(&[], Some("b2")));
        assert_eq!(case.stage(), Stage::Current);
        assert_eq!(
            floor(&Stage::Unknown, "b2"),
            None,
            "an operator that starts while the server is away wakes no idle fleet"
        );
    }
}
