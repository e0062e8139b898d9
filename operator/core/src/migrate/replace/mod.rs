//! The WorkerDeployment and the Connection that replace a Deployment and whoever scales it, and the way over without a gap in
//! capacity.
//!
//! The fleet runs with Worker Versioning off, as the Deployment did, under another name: both run side by side for a while, and
//! with versioning off a fleet's Deployment has the fleet's own name.

mod bounds;
mod connect;
mod cron;
mod keda;
mod queues;
mod steps;
mod text;
mod workload;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

pub use queues::task_queue;

use super::json::{controller, label, name, namespace};
use crate::api::{API_VERSION, ScalingTaskQueue, WorkerDeployment};
use crate::fleet::{Surroundings, resolve};
use crate::names::DEPLOYMENT_NAME_LABEL;

/// Longest name of a WorkerDeployment.
const MAX_NAME: usize = 63;
const SUFFIX: &str = "-fleet";

/// Who scales the Deployment now.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Scaler {
    /// Nobody but people.
    #[default]
    Nobody,
    /// KEDA, by this ScaledObject.
    ScaledObject(Value),
    /// This HorizontalPodAutoscaler.
    Autoscaler(Value),
}

/// What is there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Source {
    /// The Deployment.
    pub deployment: Value,
    /// Who scales it.
    pub scaler: Scaler,
    /// TriggerAuthentications of its namespace.
    pub authentications: Vec<Value>,
    /// Connections of its namespace.
    pub connections: Vec<Value>,
}

/// What is asked for beyond what is there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wish {
    /// Name of the WorkerDeployment; without one that of the Deployment with `-fleet`.
    pub name: Option<String>,
    /// Task Queues, in addition to those of the triggers; one that both name has these types.
    pub task_queues: Vec<ScalingTaskQueue>,
    /// Temporal namespace.
    pub temporal_namespace: Option<String>,
    /// `host:port` of the Temporal frontend.
    pub address: Option<String>,
    /// Connection that exists and is to be used.
    pub connection: Option<String>,
}

/// What replaces it.
#[derive(Clone, Debug, PartialEq)]
pub struct Replacement {
    /// The Connection to create; none where one that exists is used.
    pub connection: Option<Value>,
    /// The WorkerDeployment.
    pub fleet: Value,
    /// What is not taken over, or is otherwise than it was.
    pub notes: Vec<String>,
    /// The way over, in this order.
    pub steps: Vec<Step>,
    /// The way back, until the last step.
    pub back: Step,
}

/// A step of the way over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it does, and why.
    pub what: String,
    /// The commands for it.
    pub commands: Vec<String>,
}

/// Why nothing can be printed: what is missing or can't be, and what to do, one sentence each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Refused(pub Vec<String>);

/// What is found on the way.
#[derive(Debug, Default)]
struct Findings {
    wrong: Vec<String>,
    notes: Vec<String>,
}

/// Makes the manifests and the way over.
///
/// # Errors
/// [`Refused`] with everything that is missing or that a fleet can't be.
pub fn replace(source: &Source, wish: &Wish) -> Result<Replacement, Refused> {
    let mut found = Findings::default();
    let deployment = &source.deployment;
    refuse_owned(deployment, &mut found);
    let fleet_name = fleet_name(deployment, wish, &mut found);
    let triggers = keda::triggers(source, &mut found);
    let server = connect::server(source, wish, &triggers, &mut found);
    let task_queues = queues::collect(&triggers, wish, &mut found);
    let scaling = bounds::scaling(source, &task_queues, &mut found);
    if !found.wrong.is_empty() {
        return Err(Refused(found.wrong));
    }
    let template = workload::template(deployment, &server, &mut found);
    let mut spec = json!({
        "versioning": "Disabled",
        "workerOptions": {
            "connectionRef": {"name": server.connection_name(source, &fleet_name)},
            "temporalNamespace": server.namespace,
        },
        "template": template,
    });
    workload::rollout(deployment, &mut spec, &mut found);
    bounds::put(&scaling, deployment, &mut spec, &mut found);
    let metadata = json!({"name": fleet_name, "namespace": namespace(deployment)});
    let fleet = json!({"apiVersion": API_VERSION, "kind": "WorkerDeployment", "metadata": metadata, "spec": spec});
    validate(&fleet, &server)?;
    Ok(Replacement {
        connection: server.manifest(source, &fleet_name),
        steps: steps::steps(source, &fleet),
        back: steps::back(source, &fleet),
        fleet,
        notes: found.notes,
    })
}

/// By what the operator itself checks, so that nothing is printed that it would refuse.
fn validate(fleet: &Value, server: &connect::Server) -> Result<(), Refused> {
    let parsed: WorkerDeployment = serde_json::from_value(fleet.clone())
        .map_err(|error| Refused(vec![format!("The manifest is none: {error}.")]))?;
    let (images, uncordonable) = (BTreeMap::new(), BTreeSet::new());
    let connection = server.facts();
    let around = Surroundings {
        connection: &connection,
        default_runtime_image: "",
        runtime_images: &images,
        order_keys: &[],
        uncordonable: &uncordonable,
    };
    resolve(&parsed, &around).map(|_| ()).map_err(|wrong| Refused(wrong.0))
}

fn refuse_owned(deployment: &Value, found: &mut Findings) {
    if let Some(owner) = controller(deployment) {
        let word = |part: &str| owner[part].as_str().unwrap_or("?").to_owned();
        found.wrong.push(format!(
            "Deployment {} belongs to {} {}, which makes it: replace that.",
            name(deployment),
            word("kind"),
            word("name")
        ));
    } else if label(deployment, DEPLOYMENT_NAME_LABEL).is_some() {
        found.wrong.push(format!(
            "Deployment {} has the label {DEPLOYMENT_NAME_LABEL}: it is a version of a fleet already.",
            name(deployment)
        ));
    }
}

fn fleet_name(deployment: &Value, wish: &Wish, found: &mut Findings) -> String {
    let old = name(deployment);
    let asked = wish.name.clone();
    let fleet = asked.unwrap_or_else(|| {
        let kept: String = old.chars().take(MAX_NAME - SUFFIX.len()).collect();
        format!("{}{SUFFIX}", kept.trim_end_matches(['-', '.']))
    });
    if fleet == old {
        found.wrong.push(format!(
            "The WorkerDeployment can't be named {old}: with versioning Disabled its Deployment has its name, and both run side by \
             side for a while. Choose another with --name."
        ));
    }
    if fleet.len() > MAX_NAME {
        found.wrong.push(format!("The name {fleet:?} is longer than {MAX_NAME} characters: shorten it with --name."));
    }
    fleet
}
