//! The objects that the Go controller works on: fleets, connections, templates of resources, and Deployments of versions.

use serde_json::Value;

use super::super::json::{annotation, find, is_ending, label, list, name, namespace, number, text};
use super::super::query::{Cluster, Kind};
use super::{Finding, fleet_of, manager, owner};
use crate::adoption::target_of;
use crate::api::{PodTemplate, Versioning, WorkerDeployment};
use crate::fleet::build_id_of;
use crate::identity::remedy;
use crate::names::{BUILD_ID_LABEL, MIGRATED_LABEL, TAKE_OVER_ANNOTATION, temporal_deployment_name};
use crate::resource_template::scales;

pub(super) fn findings(cluster: &Cluster) -> Vec<Finding> {
    let fleets = cluster.of(Kind::Fleet).iter().flat_map(|object| fleet(object, cluster));
    let connections = cluster.of(Kind::Connection).iter().map(connection);
    let old_fleets = cluster.of(Kind::DeprecatedFleet).iter().map(|object| deprecated_fleet(object, cluster));
    let old_connections = cluster.of(Kind::DeprecatedConnection).iter();
    let old_connections = old_connections.map(|object| deprecated_connection(object, cluster));
    let templates = cluster.of(Kind::ResourceTemplate).iter().map(|object| template(object, cluster));
    let children = cluster.of(Kind::Child).iter().map(|object| child(object, cluster));
    fleets.chain(connections).chain(old_fleets).chain(old_connections).chain(templates).chain(children).collect()
}

const FLEET: &str = "WorkerDeployment";

/// Everything that stands in the way of one fleet, or that nothing does.
fn fleet(object: &Value, cluster: &Cluster) -> Vec<Finding> {
    let parsed = serde_json::from_value::<WorkerDeployment>(object.clone());
    let troubles: Vec<Finding> = match &parsed {
        Err(error) => vec![
            Finding::fine(FLEET, object, format!("can't be read by this operator: {error}."))
                .blocking("Correct the field. Until then the operator leaves this fleet as it is."),
        ],
        Ok(parsed) => {
            [leaving(object), version(object, parsed), foreign(object, parsed, cluster)].into_iter().flatten().collect()
        }
    };
    if !troubles.is_empty() {
        return troubles;
    }
    let own = |child: &&Value| fleet_of(cluster, child).is_some_and(|fleet| std::ptr::eq(fleet, object));
    let children: Vec<&str> = cluster.of(Kind::Child).iter().filter(own).map(name).collect();
    vec![Finding::fine(
        FLEET,
        object,
        match children.as_slice() {
            [] => "is taken over. It has no Deployment yet.".to_owned(),
            children => format!(
                "is taken over with its {} ({}). No pod restarts, and the routing stays as it is.",
                if children.len() == 1 { "Deployment".to_owned() } else { format!("{} Deployments", children.len()) },
                children.join(", ")
            ),
        },
    )]
}

fn leaving(object: &Value) -> Option<Finding> {
    is_ending(object).then(|| {
        let finalizers: Vec<_> = list(object, "/metadata/finalizers").iter().filter_map(Value::as_str).collect();
        let fate = format!(
            "is being deleted, and waits for {}. The operator goes on with it: Deployments to zero, then routing and versions on \
             the server.",
            finalizers.join(", ")
        );
        Finding::fine(FLEET, object, fate).warning("See to it before, if you want to keep it: a deletion can't be taken back.")
    })
}

/// Whether the operator would take the spec for another version than the Go controller did.
fn version(object: &Value, parsed: &WorkerDeployment) -> Option<Finding> {
    if parsed.spec.versioning == Versioning::Disabled {
        return None;
    }
    let template = parsed.spec.template.as_ref().map_or(Value::Null, PodTemplate::value);
    let computed = match build_id_of(parsed, &template) {
        Ok(build_id) => build_id,
        Err(problem) => {
            let found = Finding::fine(FLEET, object, format!("has no Build ID: {problem}"));
            return Some(found.blocking("Correct the field."));
        }
    };
    let told = text(object, "/status/targetVersion/buildID").filter(|told| *told != computed)?;
    let generation = number(object, "/metadata/generation").unwrap_or_default();
    // A Build ID that was computed for this very spec stands, whatever scheme it is of.
    target_of(parsed.status.as_ref(), generation).is_none().then(|| {
        let fate = format!(
            "has a spec that no controller has seen: its status says version {told}, and the spec stands for {computed}. The \
             operator would roll that out."
        );
        let change = format!(
            "Let the controller that runs take it up, or wait for its rollout: status.targetVersion.buildID is then {computed}, or \
             a condition that a look at its versions gives, such as RolloutComplete, has observedGeneration {generation}."
        );
        Finding::fine(FLEET, object, fate).warning(change)
    })
}

/// Whether Temporal knows the fleet as somebody else's than the Go controller's that was found, and the fleet does not say that this
/// may be taken over.
fn foreign(object: &Value, parsed: &WorkerDeployment, cluster: &Cluster) -> Option<Finding> {
    let manager = text(object, "/status/managerIdentity")?;
    if annotation(object, TAKE_OVER_ANNOTATION) == Some(manager) {
        return None;
    }
    let mut known = cluster.of(Kind::Manager).iter().filter_map(manager::identity).peekable();
    known.peek()?;
    let own =
        |identity: &str| manager.strip_prefix(identity).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    (!known.any(own)).then(|| {
        let fate = format!(
            "is managed by {manager:?} on the Temporal server, which is not the controller that was found here. The server refuses \
             changes of its routing by anybody else."
        );
        let change = format!(
            "Name that identity in the chart's value formerIdentities, if it is a former one of yours; or hand this fleet alone \
             over, by {}.",
            remedy(
                manager,
                &parsed.spec.worker_options.temporal_namespace,
                &temporal_deployment_name(namespace(object), name(object)),
            )
        );
        Finding::fine(FLEET, object, fate).warning(change)
    })
}

fn connection(object: &Value) -> Finding {
    let found = Finding::fine("Connection", object, "is used as it is.");
    if is_ending(object) {
        return found.warning("It is being deleted, and goes once no fleet uses it.");
    }
    found
}

fn deprecated_fleet(object: &Value, cluster: &Cluster) -> Finding {
    const KIND: &str = "TemporalWorkerDeployment";
    let (home, own) = (namespace(object), name(object));
    let successor = find(cluster.of(Kind::Fleet), home, own).is_some();
    match (label(object, MIGRATED_LABEL), successor) {
        (Some("true"), _) => Finding::fine(KIND, object, "has given its Deployments to a WorkerDeployment, and can be deleted."),
        (_, true) => Finding::fine(
            KIND,
            object,
            "has a WorkerDeployment of its name, to which the operator gives its Deployments. No pod restarts.",
        ),
        _ => Finding::fine(KIND, object, "is of a deprecated kind. Its Workers keep running, and nobody rolls out or scales them.")
            .warning(format!(
                "Create a WorkerDeployment {own} in namespace {home} with the same spec, and a Connection of the name in its \
                 connectionRef: its Deployments then go there, without a restart."
            )),
    }
}

fn deprecated_connection(object: &Value, cluster: &Cluster) -> Finding {
    const KIND: &str = "TemporalConnection";
    let (home, own) = (namespace(object), name(object));
    if find(cluster.of(Kind::Connection), home, own).is_some() {
        return Finding::fine(KIND, object, "has a Connection of its name, which is used instead. It can be deleted.");
    }
    Finding::fine(KIND, object, "is of a deprecated kind, which no WorkerDeployment uses.")
        .warning(format!("Create a Connection {own} in namespace {home} with the same spec."))
}

fn template(object: &Value, cluster: &Cluster) -> Finding {
    const KIND: &str = "WorkerResourceTemplate";
    let referred = text(object, "/spec/workerDeploymentRef/name");
    let referred = referred.or_else(|| text(object, "/spec/temporalWorkerDeploymentRef/name")).unwrap_or_default();
    let made = text(object, "/spec/template/kind").unwrap_or("object");
    let Some(fleet) = find(cluster.of(Kind::Fleet), namespace(object), referred) else {
        let found =
            Finding::fine(KIND, object, format!("is for WorkerDeployment {referred:?}, which was not found here."));
        return found.warning("Nothing is made of it until that exists.");
    };
    let scaling = &fleet["spec"]["scaling"];
    if scaling.is_object() && scaling["dryRun"] != true && scales(&object["spec"]["template"]) {
        let fate = format!(
            "makes a {made} that scales the versions of {referred}, which has spec.scaling. Replicas have one owner: the operator \
             refuses it."
        );
        return Finding::fine(KIND, object, fate).blocking("Delete it, or take spec.scaling out of the fleet.");
    }
    let found = Finding::fine(KIND, object, format!("is taken over: the {made} of each version of {referred} stays."));
    if made == "HorizontalPodAutoscaler" {
        return found;
    }
    found.warning(format!("The chart's value workerResourceTemplate.allowedResources has to allow kind {made}."))
}

fn child(object: &Value, cluster: &Cluster) -> Finding {
    const KIND: &str = "Deployment";
    let build_id = label(object, BUILD_ID_LABEL);
    let left = |why: String| {
        let fate =
            format!("has the label of a version, and {why}. It is left alone: nobody rolls out, scales or deletes it.");
        Finding::fine(KIND, object, fate)
    };
    match (owner(object), fleet_of(cluster, object), build_id) {
        (Some(("WorkerDeployment", fleet)), Some(parent), None) if parent["spec"]["versioning"] != "Disabled" => {
            left(format!("belongs to {fleet} without the label {BUILD_ID_LABEL}"))
                .warning("Delete it, if nobody needs it.")
        }
        (Some(("WorkerDeployment", fleet)), Some(_), build_id) => {
            let version = build_id.map_or_else(String::new, |build_id| format!(" as version {build_id}"));
            Finding::fine(KIND, object, format!("is taken over{version} of {fleet}, with its pods as they are."))
        }
        (Some(("TemporalWorkerDeployment", fleet)), ..) => {
            Finding::fine(KIND, object, format!("goes with TemporalWorkerDeployment {fleet}."))
        }
        (Some(("WorkerDeployment", fleet)), None, _) if cluster.knows(Kind::Fleet) => {
            left(format!("belongs to WorkerDeployment {fleet}, which does not exist"))
                .warning("Delete it, if nobody needs it.")
        }
        (Some((kind, owner)), ..) => {
            Finding::fine(KIND, object, format!("belongs to {kind} {owner}, and is not judged here."))
        }
        (None, ..) => left("belongs to no fleet".into()).warning("Delete it, if nobody needs it."),
    }
}
