//! From everything that was seen to the writes that follow, in their order.

mod attach;
mod gate;
mod route;
mod scale;
mod signals;
mod sunset;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::clock::Clock;
use crate::connection::Attachment;
use crate::fleet::Fleet;
use crate::names;
use crate::observed::{KubeState, TemporalState};
use crate::rollout::gate::{Gate, Record};
use crate::rollout::sunset::Sunset;
use crate::rollout::{self, Order, Rollout, Stage};
use crate::scaling::{Decision, Input, Policy, State};

pub use signals::{is_gated, known_lanes};

/// `controller.kubernetes.io/pod-deletion-cost` of a pod that should go first.
pub const VICTIM_COST: i32 = -1_000_000;

/// One write. A plan is a list of them in the order in which they are carried out; the first failure ends it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Action {
    /// Keep the object, when it is deleted, until its side of the server is cleaned up.
    Protect,
    /// Server-side apply of an object of the fleet.
    Apply {
        /// The object.
        object: Value,
        /// Its digest, to be remembered once it was applied.
        digest: String,
    },
    /// Say which pods a ReplicaSet should remove first, or that one should no longer.
    SetDeletionCost {
        /// Name of the pod.
        pod: String,
        /// The cost; none takes it away.
        cost: Option<i32>,
    },
    /// Show on a pod whether it is ordered to take no new task.
    ShowCordon {
        /// Name of the pod.
        pod: String,
        /// Whether it is.
        cordoned: bool,
    },
    /// Write `spec.replicas` of a child through its `scale` subresource.
    Scale {
        /// Name of the child.
        child: String,
        /// Replicas that the decision was based on.
        from: u32,
        /// Replicas to have.
        to: u32,
        /// Version of the child that the decision was based on.
        resource_version: String,
        /// Why.
        reason: String,
    },
    /// Start a test Workflow, pinned to a version, unless there is one of its ID. A failure ends no plan.
    StartGate {
        /// The version.
        build_id: String,
        /// Its Workflow ID.
        workflow_id: String,
        /// Its Task Queue.
        task_queue: String,
        /// What it is.
        gate: Gate,
    },
    /// Have the pods of a child work at the fleet's Connection, by a change of its own template.
    Attach {
        /// Name of the child.
        child: String,
        /// Its UID.
        uid: String,
        /// Its version; none with Worker Versioning off.
        build_id: Option<String>,
        /// Where they are to work.
        to: Attachment,
    },
    /// Make the operator's identity the one that alone may change the routing. The change that follows in the same plan
    /// carries the token that the server gives in return.
    ClaimManager {
        /// The manager before; empty when there was none.
        from: String,
        /// Token for the change.
        conflict_token: Vec<u8>,
    },
    /// Give a version a share of new Workflows.
    SetRamping {
        /// The version.
        build_id: String,
        /// The share, in percent.
        percent: u8,
        /// The version that had a share before, and how much.
        from: Option<(String, f32)>,
        /// Token for the change.
        conflict_token: Vec<u8>,
    },
    /// Give a version the traffic.
    SetCurrent {
        /// The version.
        build_id: String,
        /// The version that had it before.
        from: Option<String>,
        /// Token for the change.
        conflict_token: Vec<u8>,
    },
    /// Note on a child since when nobody wants its version, or take the note away.
    NoteSuperseded {
        /// Name of the child.
        child: String,
        /// Since when.
        at: Option<Timestamp>,
        /// Version of the child that the decision was based on: a note that comes late would shorten a delay.
        resource_version: String,
    },
    /// Delete the server's record of a version. The server refuses while it has pollers, traffic or open Workflows. A refusal
    /// ends what follows for this version, not the plan.
    DeleteVersion {
        /// The version.
        build_id: String,
    },
    /// Delete the ConfigMap that a child's pods mounted, if it is the fleet's own, and the child.
    DeleteChild {
        /// Its version.
        build_id: String,
        /// Name of the child.
        child: String,
        /// Name of the ConfigMap.
        config_map: String,
        /// UID of the child.
        uid: String,
        /// Version of the child that the decision was based on.
        resource_version: String,
    },
    /// Take the share away that a version has beside the current one.
    ClearRamp {
        /// The version that has it, and how much.
        from: (String, f32),
        /// Token for the change.
        conflict_token: Vec<u8>,
    },
}

/// Everything that a plan stands on.
#[derive(Clone, Copy, Debug)]
pub struct PlanInput<'a> {
    /// The fleet as the user wants it.
    pub fleet: &'a Fleet,
    /// The cluster.
    pub kube: &'a KubeState,
    /// Digests of the fleet's objects as they were last applied and not changed by others since, by `Kind/name`.
    pub applied: &'a BTreeMap<String, String>,
    /// The server.
    pub temporal: &'a TemporalState,
    /// State of the last scaling decision for the version that does the work
    /// ([`main_child`](crate::versions::main_child)).
    pub scaling: &'a State,
    /// The same for other versions, by the names of their Deployments.
    pub others: &'a BTreeMap<String, State>,
    /// Time on the operator's monotonic clock.
    pub now: Duration,
    /// The time of day.
    pub clock: Clock,
    /// The operator's identity towards the server.
    pub identity: &'a str,
    /// Identities that it had before: what these manage is its own.
    pub former_identities: &'a BTreeSet<String>,
    /// Whether the object has the finalizer that keeps it.
    pub protected: bool,
    /// What the user ordered of the target's rollout beside the spec.
    pub order: Order,
    /// What is known of the target's gates beside the server's word.
    pub gates: &'a Record,
    /// Whether the operator changed the routing after the server was read: what is old by that reading may have traffic again.
    pub outdated: bool,
    /// Time since victims were last marked; none when this process never did.
    pub since_marked: Option<Duration>,
    /// Most old versions that have work or pods beside which a new one is begun.
    pub max_versions: usize,
    /// Build IDs whose record or Deployment could not be deleted a short time ago.
    pub resting: &'a BTreeSet<String>,
}

/// What was decided for a version beside the one that does the work.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionPlan {
    /// The scaling decision.
    pub decision: Decision,
    /// State for the next one.
    pub scaling: State,
}

/// What is to be done, and what it was concluded from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The writes.
    pub actions: Vec<Action>,
    /// Where the target version is; none with Worker Versioning off.
    pub rollout: Option<Rollout>,
    /// The scaling decision for the version that does the work; none without `spec.scaling` or without its Deployment.
    pub decision: Option<Decision>,
    /// What that decision stood on beside the state before.
    pub basis: Option<(Policy, Input)>,
    /// State for the next scaling decision.
    pub scaling: State,
    /// Scaling of the other versions that are scaled by their work, by the names of their Deployments.
    pub others: BTreeMap<String, VersionPlan>,
    /// So many old versions have work or pods that the target is not begun; none while it may be.
    pub at_version_limit: Option<usize>,
    /// What becomes of each version that has a Deployment, by the name of that.
    pub sunsets: BTreeMap<String, Sunset>,
    /// Names of the pods that are to take no new task. All others are to take tasks.
    pub cordon: BTreeSet<String>,
}

impl Plan {
    /// Where the target version is.
    #[must_use]
    pub fn stage(&self) -> Option<&Stage> {
        self.rollout.as_ref().map(|rollout| &rollout.stage)
    }

    /// Time after which to plan again at the latest, if nothing else calls for it.
    #[must_use]
    pub fn recheck_after(&self) -> Option<Duration> {
        let others = self.others.values().map(|other| other.decision.recheck_after);
        let own = self.decision.iter().map(|decision| decision.recheck_after);
        let routing = self.rollout.iter().filter_map(|rollout| rollout.due_in);
        own.chain(others).chain(routing).chain(sunset::due_in(self)).min()
    }
}

/// Plans.
#[must_use]
pub fn plan(input: &PlanInput<'_>) -> Plan {
    let at_version_limit = sunset::at_limit(input);
    let mut planned = Plan {
        rollout: input.fleet.build_id.as_deref().map(|build_id| rollout_of(input, build_id)),
        scaling: input.scaling.clone(),
        actions: protect(input),
        at_version_limit,
        sunsets: sunset::sunsets(input),
        ..Plan::default()
    };
    if at_version_limit.is_none() {
        planned.actions.extend(applies(input));
    }
    scale::scale(input, &mut planned);
    let attached = attach::attach(input, &planned.actions);
    planned.actions.extend(attached);
    let tests = gate::starts(input, planned.rollout.as_ref());
    let routing = route::route(input, planned.rollout.as_ref());
    planned.actions.extend(tests.into_iter().chain(routing));
    let marks = scale::cordon_marks(input, &planned.cordon);
    planned.actions.extend(marks);
    sunset::carry_out(input, &mut planned);
    planned
}

/// Before anything is made that would be left behind.
fn protect(input: &PlanInput<'_>) -> Vec<Action> {
    if input.fleet.cleans_up && !input.protected { vec![Action::Protect] } else { Vec::new() }
}

fn rollout_of(input: &PlanInput<'_>, build_id: &str) -> Rollout {
    let fleet = input.fleet;
    let label = names::build_id_label(build_id);
    let own = |pod: &&crate::observed::PodState| pod.build_id.as_deref() == Some(&label);
    // Pods of a Deployment without replicas are about to go, however ready.
    let runs = input.kube.children.iter().any(|child| child.name == fleet.child_name && child.spec_replicas > 0);
    let target = rollout::Target {
        build_id,
        declared_lanes: &fleet.declared.lanes,
        declared_queues: &fleet.declared.task_queues,
        has_ready_pod: runs && input.kube.pods.iter().filter(own).any(|pod| pod.ready && !pod.terminating),
        policy: &fleet.rollout,
        order: input.order,
        deployment_name: &fleet.deployment_name,
        gates: input.gates,
        identity: input.identity,
        former_identities: input.former_identities,
    };
    rollout::decide(&target, input.temporal, &input.clock)
}

/// Key of an object among the applied ones.
#[must_use]
pub fn object_key(object: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!("{}/{}", word(&object["kind"]), word(&object["metadata"]["name"]))
}

fn applies(input: &PlanInput<'_>) -> Vec<Action> {
    if input.kube.foreign_deployments.contains(&input.fleet.child_name) {
        return Vec::new();
    }
    let changed = |object: &Value| {
        let digest = digest(object);
        (input.applied.get(&object_key(object)) != Some(&digest))
            .then(|| Action::Apply { object: object.clone(), digest })
    };
    input.fleet.config_maps.iter().chain([&input.fleet.child.object]).filter_map(changed).collect()
}

/// Digest of an object as it is applied: SHA-256 of its JSON, in hexadecimal digits.
#[must_use]
pub fn digest(object: &Value) -> String {
    let text = object.to_string();
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
