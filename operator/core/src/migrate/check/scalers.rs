//! Who else scales the Workers: KEDA's ScaledObjects, and HorizontalPodAutoscalers.

use serde_json::Value;

use super::super::json::{controller, find, list, name, namespace, text};
use super::super::query::{Cluster, Kind};
use super::{Finding, fleet_of};

const SCALED_OBJECT: &str = "ScaledObject";
const AUTOSCALER: &str = "HorizontalPodAutoscaler";

pub(super) fn findings(cluster: &Cluster) -> Vec<Finding> {
    let scaled = cluster.of(Kind::ScaledObject).iter().filter_map(|object| scaled_object(object, cluster));
    let autoscalers = cluster.of(Kind::Autoscaler).iter().filter_map(|object| autoscaler(object, cluster));
    scaled.chain(autoscalers).collect()
}

/// The Deployment of a version that an object scales.
fn target<'a>(object: &Value, cluster: &'a Cluster) -> Option<&'a Value> {
    let kind = text(object, "/spec/scaleTargetRef/kind").unwrap_or("Deployment");
    let target = text(object, "/spec/scaleTargetRef/name")?;
    (kind == "Deployment").then(|| find(cluster.of(Kind::Child), namespace(object), target)).flatten()
}

/// One that scales by Temporal, or that scales a version; others are not looked at.
fn scaled_object(object: &Value, cluster: &Cluster) -> Option<Finding> {
    if let Some(child) = target(object, cluster) {
        return Some(on_version(SCALED_OBJECT, "scaledobject", (object, child), cluster));
    }
    list(object, "/spec/triggers").iter().any(|trigger| trigger["type"] == "temporal").then(|| {
        let target = text(object, "/spec/scaleTargetRef/name").unwrap_or_default();
        let fate = format!("scales {target}, which belongs to no fleet. It stays as it is.");
        Finding::fine(SCALED_OBJECT, object, fate).by(format!(
            "temporal-worker-operator migrate plan --from-keda {} -n {}",
            name(object),
            namespace(object)
        ))
    })
}

fn autoscaler(object: &Value, cluster: &Cluster) -> Option<Finding> {
    let child = target(object, cluster)?;
    if let Some(owner) = controller(object).filter(|owner| owner["kind"] == SCALED_OBJECT) {
        let owner = owner["name"].as_str().unwrap_or_default();
        return Some(Finding::fine(
            AUTOSCALER,
            object,
            format!("is made by KEDA, and goes with ScaledObject {owner}."),
        ));
    }
    Some(on_version(AUTOSCALER, "hpa", (object, child), cluster))
}

fn on_version(kind: &'static str, command_kind: &str, (object, child): (&Value, &Value), cluster: &Cluster) -> Finding {
    let (own, home, scaled) = (name(object), namespace(object), name(child));
    let fleet = fleet_of(cluster, child);
    let fleet_name = fleet.map_or("its fleet", name);
    let delete = format!("kubectl -n {home} delete {command_kind} {own}");
    let owners = list(object, "/metadata/ownerReferences");
    let made = owners.iter().find(|owner| owner["kind"] == "WorkerResourceTemplate");
    let sets = |field: &str| fleet.is_some_and(|fleet| !fleet["spec"][field].is_null());
    if sets("scaling") {
        let fate =
            format!("scales version {scaled}, and so does spec.scaling of {fleet_name}. Replicas have one owner.");
        let found = Finding::fine(kind, object, fate);
        return match made.and_then(|made| made["name"].as_str()) {
            Some(template) => found.blocking(format!("Delete WorkerResourceTemplate {template}, which makes it.")),
            None => found.blocking("Delete it, and let the operator scale.").by(delete),
        };
    }
    if sets("replicas") {
        let fate = format!(
            "scales version {scaled}, and spec.replicas of {fleet_name} sets the same number: each undoes the other."
        );
        return Finding::fine(kind, object, fate)
            .warning("Take spec.replicas out of the fleet, or delete this.")
            .by(delete);
    }
    match made.and_then(|made| made["name"].as_str()) {
        Some(template) => {
            let fate = format!("is made by WorkerResourceTemplate {template} for version {scaled}, and stays.");
            Finding::fine(kind, object, fate)
        }
        None => Finding::fine(
            kind,
            object,
            format!("scales version {scaled} alone, and goes on with that. The next version of {fleet_name} has no such object."),
        )
        .warning("Once the operator has taken over, give the fleet spec.scaling and delete this.")
        .by(delete),
    }
}
