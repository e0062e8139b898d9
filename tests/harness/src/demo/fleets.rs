//! What is seen of the demo's fleets while it runs: from the API server, and live from the operator's metrics.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Client, ResourceExt as _};

use super::OPERATOR;

/// Name of the operator's gauge of a fleet's live values.
const FLEET_METRIC: &str = "temporal_worker_operator_fleet{";
/// Label of a fleet's child Deployments, and of the pods of each.
const FLEET_LABEL: &str = "temporal.io/deployment-name";

/// A fleet at one moment. What is not known is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    /// Name of the WorkerDeployment.
    pub name: String,
    /// Tasks that wait.
    pub backlog: Option<i64>,
    /// Tasks that run.
    pub in_flight: Option<i64>,
    /// Replicas that are asked for.
    pub desired: Option<i32>,
    /// Pods that are ready.
    pub ready: i32,
    /// Pods that there are.
    pub pods: i32,
    /// Why this many, in the operator's words.
    pub why: String,
    /// Whether the version is current and polled.
    pub is_ready: bool,
    /// Names of its Deployments, one a version.
    pub children: Vec<String>,
}

impl Fleet {
    /// Whether its version is ready for work and it has no pod.
    pub fn rests(&self) -> bool {
        self.is_ready && self.is_gone()
    }

    /// Whether it wants no pod and has none.
    pub fn is_gone(&self) -> bool {
        self.desired == Some(0) && self.pods == 0
    }
}

/// Reads the fleets of the demo, whose names are different in all namespaces, in the order of `names`.
///
/// # Errors
/// The API server does not answer. Metrics of the operator that can't be read are left out.
pub async fn observe(client: &Client, names: &[&str]) -> Result<Vec<Fleet>> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("temporal.io", "v1alpha1", "WorkerDeployment"));
    let objects = Api::<DynamicObject>::all_with(client.clone(), &kind);
    let deployments = Api::<Deployment>::all(client.clone());
    let pods = Api::<Pod>::all(client.clone());
    let (all, of_fleets) = (ListParams::default(), ListParams::default().labels(FLEET_LABEL));
    // At a time, so that the columns belong together.
    let lists = async { tokio::try_join!(objects.list(&all), deployments.list(&of_fleets), pods.list(&of_fleets)) };
    let (lists, live) = tokio::join!(lists, live_values(client));
    let (objects, deployments, pods) = lists.context("list the fleets and their pods")?;
    let live = live.unwrap_or_default();
    let value = |fleet: &str, value: &str| live.get(&(fleet.to_owned(), value.to_owned())).copied();
    let fleets = names.iter().map(|name| {
        let object = objects.items.iter().find(|object| object.name_any() == *name);
        let children: Vec<_> = deployments.items.iter().filter(|child| child.labels()[FLEET_LABEL] == *name).collect();
        let pods = pods.items.iter().filter(|pod| pod.labels()[FLEET_LABEL] == *name);
        Fleet {
            name: (*name).to_owned(),
            backlog: value(name, "backlog"),
            in_flight: value(name, "in_flight"),
            desired: children.iter().filter_map(|child| child.spec.as_ref()?.replicas).reduce(|a, b| a + b),
            ready: children.iter().filter_map(|child| child.status.as_ref()?.ready_replicas).sum(),
            pods: i32::try_from(pods.count()).unwrap_or(i32::MAX),
            why: object.map(why).unwrap_or_default(),
            is_ready: object.is_some_and(is_ready),
            children: children.iter().map(|child| child.name_any()).collect(),
        }
    });
    Ok(fleets.collect())
}

fn is_ready(object: &DynamicObject) -> bool {
    let conditions = object.data.pointer("/status/conditions").and_then(|conditions| conditions.as_array());
    let mut conditions = conditions.into_iter().flatten();
    let observed = object.data.pointer("/status/observedGeneration").and_then(serde_json::Value::as_i64);
    observed == object.metadata.generation
        && conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// The reason of the last decision; before there is one, the message of the condition Ready.
fn why(object: &DynamicObject) -> String {
    let reason = object.data.pointer("/status/scaling/reason").and_then(|reason| reason.as_str());
    let ready = || {
        let conditions = object.data.pointer("/status/conditions")?.as_array()?;
        conditions.iter().find(|condition| condition["type"] == "Ready")?["message"].as_str()
    };
    reason.or_else(ready).unwrap_or_default().to_owned()
}

/// Values of `temporal_worker_operator_fleet` by fleet and value, from the replica that leads.
async fn live_values(client: &Client) -> Result<BTreeMap<(String, String), i64>> {
    let pods = Api::<Pod>::namespaced(client.clone(), OPERATOR).list(&ListParams::default()).await?;
    for pod in &pods.items {
        let path = format!("/api/v1/namespaces/{OPERATOR}/pods/{}:8080/proxy/metrics", pod.name_any());
        let Ok(page) = client.request_text(http::Request::get(path).body(Vec::new())?).await else { continue };
        if page.lines().any(|line| line == "temporal_worker_operator_leader 1") {
            return Ok(page.lines().filter_map(fleet_value).collect());
        }
    }
    Ok(BTreeMap::new())
}

fn fleet_value(line: &str) -> Option<((String, String), i64)> {
    let (labels, value) = line.strip_prefix(FLEET_METRIC)?.split_once("} ")?;
    let labels: BTreeMap<_, _> = labels.split(',').filter_map(|label| label.split_once('=')).collect();
    let label = |name| labels.get(name).map(|value| value.trim_matches('"').to_owned());
    Some(((label("name")?, label("value")?), value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_values_of_fleets_are_read_from_the_metrics() {
        let line = r#"temporal_worker_operator_fleet{name="thumbnails",namespace="demo",value="backlog"} 36"#;
        assert_eq!(fleet_value(line), Some((("thumbnails".into(), "backlog".into()), 36)));
        assert_eq!(fleet_value("# HELP temporal_worker_operator_fleet Live values"), None);
    }

    #[test]
    fn a_fleet_rests_only_when_nothing_is_asked_for_and_no_pod_is_left() {
        let rests = Fleet { desired: Some(0), is_ready: true, ..Fleet::default() };
        assert!(rests.rests());
        assert!(!Fleet { pods: 1, ..rests.clone() }.rests());
        assert!(!Fleet { desired: None, ..rests.clone() }.rests());
        assert!(!Fleet { is_ready: false, ..rests }.rests());
    }
}
