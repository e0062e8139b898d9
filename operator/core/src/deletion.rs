//! How a WorkerDeployment goes: its pods first, then the routing to them, then the server's records, then the object.
//!
//! | step | waits for | because |
//! |---|---|---|
//! | replicas of every version to 0 | | a version that is polled can't be deleted on the server |
//! | the share of a version is taken away, then the traffic goes to unversioned Workers | no pod is left | nothing is routed to what has no pods |
//! | every version's record is deleted, then that of the Worker Deployment | five minutes from the last poll, which is the server's rule | |
//! | the finalizer is taken away | no record is left | Kubernetes then deletes the Deployments and ConfigMaps |
//!
//! What can't be done is waited for, and said, for an hour at most; without a Connection for ten minutes, as it is gone with its
//! namespace. Then the object goes all the same, with an event that says what is left. `spec.deletionPolicy: Orphan` leaves the
//! server as it is, at once.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use crate::identity::{Claim, claim, remedy};
use crate::observed::{DeploymentInfo, KubeState, Observation, TemporalState};

/// Longest time for which a deletion waits for what it can't do.
pub const LONGEST: Duration = Duration::from_secs(3600);
/// The same while the server can't be asked for want of a Connection or its Secret.
pub const LONGEST_WITHOUT_CONNECTION: Duration = Duration::from_secs(600);

/// What a deletion is planned from.
#[derive(Clone, Copy, Debug)]
pub struct Deletion<'a> {
    /// Whether the server is left as it is.
    pub orphan: bool,
    /// The cluster.
    pub kube: &'a KubeState,
    /// The server; none without a Connection that can be used.
    pub temporal: Option<&'a TemporalState>,
    /// The operator's identity towards the server.
    pub identity: &'a str,
    /// Identities that it had before.
    pub former_identities: &'a BTreeSet<String>,
    /// Temporal namespace.
    pub temporal_namespace: &'a str,
    /// Name of the Worker Deployment.
    pub deployment_name: &'a str,
    /// Versions whose record the server refused to delete a short time ago.
    pub resting: &'a BTreeSet<String>,
    /// Time since the user asked for it.
    pub since: Duration,
}

/// A write of a deletion.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Step {
    /// Take the pods of a version away.
    ScaleToZero {
        /// Name of the Deployment.
        child: String,
        /// Replicas that it has.
        from: u32,
        /// Version of the Deployment that this was decided on.
        resource_version: String,
    },
    /// Make the operator's identity the one that alone may clean up.
    ClaimManager {
        /// The manager before.
        from: String,
        /// Token for the change.
        conflict_token: Vec<u8>,
    },
    /// Take the share of a version away.
    ClearRamp {
        /// The version, and its share in percent.
        from: (String, f32),
        /// Token for the change.
        conflict_token: Vec<u8>,
    },
    /// Let unversioned Workers have the traffic.
    ClearCurrent {
        /// The version that had it.
        from: String,
        /// Token for the change.
        conflict_token: Vec<u8>,
    },
    /// Delete the server's record of a version, drained or not.
    DeleteVersion {
        /// The version.
        build_id: String,
    },
    /// Delete the server's record of the Worker Deployment.
    DeleteDeployment,
    /// Let the object go.
    Release {
        /// What is left on the server, if something is.
        left: Option<String>,
    },
}

/// What to do now, in this order, and what is waited for then: a sentence.
#[must_use]
pub fn plan(input: &Deletion<'_>) -> (Vec<Step>, String) {
    if input.orphan {
        return (
            vec![Step::Release { left: None }],
            "spec.deletionPolicy is Orphan: the server is left as it is.".into(),
        );
    }
    let (steps, waiting) = clean(input);
    let longest = if input.temporal.is_some() { LONGEST } else { LONGEST_WITHOUT_CONNECTION };
    if steps.is_empty() && input.since >= longest {
        return (vec![Step::Release { left: Some(waiting.clone()) }], waiting);
    }
    (steps, waiting)
}

fn clean(input: &Deletion<'_>) -> (Vec<Step>, String) {
    let running = input.kube.children.iter().filter(|child| child.spec_replicas > 0);
    let scale: Vec<_> = running
        .map(|child| Step::ScaleToZero {
            child: child.name.clone(),
            from: child.spec_replicas,
            resource_version: child.resource_version.clone(),
        })
        .collect();
    let pods = input.kube.pods.len();
    if !scale.is_empty() || pods > 0 || input.kube.children.iter().any(|child| child.replicas > 0) {
        return (scale, format!("It waits for {pods} pods to end."));
    }
    let Some(temporal) = input.temporal else {
        return (Vec::new(), "It waits for its Connection and Secret, to clean up on the Temporal server.".into());
    };
    match &temporal.deployment {
        Observation::Known { value: None, .. } => (vec![Step::Release { left: None }], "Nothing is left.".into()),
        Observation::Known { value: Some(info), .. } if !info.remembered => on_the_server(input, info),
        Observation::Known { .. } | Observation::Stale { .. } | Observation::Unknown => {
            (Vec::new(), "It waits for the Temporal server to answer.".into())
        }
    }
}

/// One change of the routing at a time, then the records.
fn on_the_server(input: &Deletion<'_>, info: &DeploymentInfo) -> (Vec<Step>, String) {
    let name = input.deployment_name;
    let manager = &info.manager_identity;
    let conflict_token = info.conflict_token.clone();
    match claim(manager, input.identity, input.former_identities) {
        Claim::Refused => {
            let message = format!(
                "Worker Deployment {name:?} is managed by {manager:?}, which alone may clean it up. Hand it over with {}.",
                remedy(manager, input.temporal_namespace, name)
            );
            return (Vec::new(), message);
        }
        // Without a manager anybody may.
        Claim::Due if !manager.is_empty() => {
            let step = Step::ClaimManager { from: manager.clone(), conflict_token };
            return (vec![step], "It becomes the manager of the Worker Deployment.".into());
        }
        Claim::Due | Claim::Held => {}
    }
    if let Some(ramp) = &info.ramp {
        let from = (ramp.build_id.clone(), ramp.percent);
        return (vec![Step::ClearRamp { from, conflict_token }], "It takes the share of a version away.".into());
    }
    if let Some(from) = info.current_build_id.clone() {
        let message = format!("It takes the traffic of version {from} away.");
        return (vec![Step::ClearCurrent { from, conflict_token }], message);
    }
    if info.summaries.is_empty() {
        return (vec![Step::DeleteDeployment], "It deletes the Worker Deployment on the server.".into());
    }
    let free = info.summaries.keys().filter(|id| !input.resting.contains(*id));
    let steps = free.map(|build_id| Step::DeleteVersion { build_id: build_id.clone() }).collect();
    let count = info.summaries.len();
    (
        steps,
        format!("It waits for the server to let {count} versions go, which takes five minutes from their last poll."),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::{ChildState, PodState, Ramp, VersionSummary};

    struct World {
        kube: KubeState,
        info: Option<DeploymentInfo>,
        connected: bool,
        since: Duration,
    }

    impl World {
        /// A fleet whose version b1 is current, b2 ramps, and both have pods.
        fn new() -> Self {
            let child = |name: &str| ChildState {
                name: name.into(),
                spec_replicas: 2,
                replicas: 2,
                resource_version: "7".into(),
                ..ChildState::default()
            };
            let info = DeploymentInfo {
                current_build_id: Some("b1".into()),
                ramp: Some(Ramp { build_id: "b2".into(), percent: 10.0, ..Ramp::default() }),
                summaries: ["b1", "b2"].map(|id| (id.into(), VersionSummary::default())).into(),
                manager_identity: "me".into(),
                ..DeploymentInfo::default()
            };
            let kube = KubeState {
                children: vec![child("f-b1"), child("f-b2")],
                pods: vec![PodState::default()],
                ..KubeState::default()
            };
            Self { kube, info: Some(info), connected: true, since: Duration::ZERO }
        }

        fn without_pods() -> Self {
            let mut world = Self::new();
            world.kube.pods.clear();
            world.kube.children.iter_mut().for_each(|child| (child.spec_replicas, child.replicas) = (0, 0));
            world
        }

        fn plan(&self, orphan: bool, resting: &[&str]) -> (Vec<Step>, String) {
            let deployment = Observation::Known { value: self.info.clone(), age: Duration::ZERO };
            let temporal = TemporalState { deployment, ..TemporalState::default() };
            let resting = resting.iter().map(|id| (*id).to_owned()).collect();
            plan(&Deletion {
                orphan,
                kube: &self.kube,
                temporal: self.connected.then_some(&temporal),
                identity: "me",
                former_identities: &["i".to_owned()].into(),
                temporal_namespace: "default",
                deployment_name: "ns/f",
                resting: &resting,
                since: self.since,
            })
        }

        fn steps(&self) -> Vec<Step> {
            self.plan(false, &[]).0
        }
    }

    #[test]
    fn pods_go_first_then_the_routing_then_the_records_then_the_object() {
        let mut world = World::new();
        assert!(matches!(world.steps()[..], [Step::ScaleToZero { from: 2, .. }, Step::ScaleToZero { .. }]));
        world.kube.children.iter_mut().for_each(|child| child.spec_replicas = 0);
        assert_eq!(world.steps(), [], "its pods are there still");
        world = World::without_pods();
        assert!(matches!(world.steps()[..], [Step::ClearRamp { .. }]));
        let info = world.info.as_mut().unwrap();
        info.ramp = None;
        assert!(matches!(world.steps()[..], [Step::ClearCurrent { .. }]));
        world.info.as_mut().unwrap().remembered = true;
        assert_eq!(world.steps(), [], "a list does not tell all of it");
        world.info.as_mut().unwrap().remembered = false;
        world.info.as_mut().unwrap().current_build_id = None;
        assert!(matches!(world.steps()[..], [Step::DeleteVersion { .. }, Step::DeleteVersion { .. }]));
        assert_eq!(world.plan(false, &["b1"]).0, [Step::DeleteVersion { build_id: "b2".into() }]);
        world.info.as_mut().unwrap().summaries.clear();
        assert_eq!(world.steps(), [Step::DeleteDeployment]);
        world.info = None;
        assert_eq!(world.steps(), [Step::Release { left: None }]);
    }

    #[test]
    fn what_a_former_identity_manages_is_claimed_first() {
        let mut world = World::without_pods();
        world.info.as_mut().unwrap().manager_identity = "i".into();
        assert!(matches!(&world.steps()[..], [Step::ClaimManager { from, .. }] if from == "i"));
        world.info.as_mut().unwrap().manager_identity.clear();
        assert!(matches!(world.steps()[..], [Step::ClearRamp { .. }]), "without a manager anybody may");
    }

    #[test]
    fn an_orphan_leaves_the_server_as_it_is() {
        assert_eq!(World::new().plan(true, &[]).0, [Step::Release { left: None }]);
    }

    #[test]
    fn what_can_not_be_done_is_waited_for_said_and_given_up_after_an_hour() {
        let mut world = World::without_pods();
        world.info.as_mut().unwrap().manager_identity = "somebody".into();
        world.since = LONGEST - Duration::from_secs(1);
        let (steps, waiting) = world.plan(false, &[]);
        assert!(steps.is_empty() && waiting.contains("\"somebody\"") && waiting.contains("unset"), "{waiting}");
        world.since = LONGEST;
        assert_eq!(world.steps(), [Step::Release { left: Some(waiting) }]);
        world.connected = false;
        world.since = LONGEST_WITHOUT_CONNECTION;
        assert!(matches!(&world.steps()[..], [Step::Release { left: Some(left) }] if left.contains("Connection")));
        world.connected = true;
        world.info.as_mut().unwrap().manager_identity = "me".into();
        assert!(matches!(world.steps()[..], [Step::ClearRamp { .. }]), "as long as it gets on, it goes on");
    }

    #[test]
    fn a_server_that_does_not_answer_is_not_one_that_knows_nothing() {
        let world = World::without_pods();
        let none = BTreeSet::new();
        for deployment in [Observation::Unknown, Observation::Stale { value: None, age: Duration::from_secs(999) }] {
            let temporal = TemporalState { deployment, ..TemporalState::default() };
            let input = Deletion {
                orphan: false,
                kube: &world.kube,
                temporal: Some(&temporal),
                identity: "me",
                former_identities: &none,
                temporal_namespace: "default",
                deployment_name: "ns/f",
                resting: &none,
                since: Duration::ZERO,
            };
            assert_eq!(plan(&input).0, []);
        }
    }
}
