//! What the operator keeps of Deployments and Pods.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerPort, ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::DynamicObject;
use operator_core::adoption::Ownership;
use operator_core::api::PodMetrics;
use operator_core::border::Border;
use operator_core::build::attach;
use operator_core::connection::Attached;
use operator_core::last_words::last_words;
use operator_core::observed::{ChildState, Waiting};
use operator_core::{contract, names};
use serde_json::json;

use super::index::{Group, View};

/// Annotation by which a ReplicaSet chooses the pods to remove first.
pub const DELETION_COST_ANNOTATION: &str = "controller.kubernetes.io/pod-deletion-cost";
/// Reasons of a waiting container that do not pass by themselves.
const STUCK: [&str; 7] = [
    "ImagePullBackOff",
    "ErrImagePull",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
    "CrashLoopBackOff",
];

/// A Deployment with the label of a fleet.
pub struct DeploymentView {
    namespace: String,
    label: String,
    /// Whose it is.
    pub ownership: Ownership,
    /// What the core needs.
    pub child: ChildState,
}

/// A Pod with the label of a fleet.
pub struct PodView {
    namespace: String,
    label: String,
    name: String,
    /// Its UID.
    pub uid: String,
    /// Its Build ID label.
    pub build_id: Option<String>,
    /// Whether it is Ready.
    pub ready: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Whether it has ended.
    pub ended: bool,
    /// Whether one of its containers runs, or may run.
    pub may_run: bool,
    /// Its address, once it has one.
    ip: Option<String>,
    /// Ports of its containers that have a name.
    ports: Vec<(String, u16)>,
    /// CPUs that the container with its metrics may use, if it has a limit.
    pub cpu_limit: Option<f64>,
    /// Why it does not start.
    pub waiting: Option<Waiting>,
    /// Its deletion cost.
    pub deletion_cost: i32,
    /// Restarts of its containers.
    pub restarts: u32,
    /// Whether it is shown as cordoned.
    pub shown_cordoned: bool,
}

fn label(meta: &ObjectMeta, key: &str) -> Option<String> {
    meta.labels.as_ref().and_then(|labels| labels.get(key)).cloned()
}

fn annotation(meta: &ObjectMeta, key: &str) -> Option<String> {
    meta.annotations.as_ref().and_then(|annotations| annotations.get(key)).cloned()
}

impl View for DeploymentView {
    type Object = Deployment;

    const BORDER: Border = Border::Deployments;

    fn of(object: &Deployment) -> Self {
        let meta = &object.metadata;
        let spec_replicas = object.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let ready = object.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
        let exist = object.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
        let child = ChildState {
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            build_id: label(meta, names::BUILD_ID_LABEL),
            spec_replicas: u32::try_from(spec_replicas).unwrap_or(0),
            ready_replicas: u32::try_from(ready).unwrap_or(0),
            replicas: u32::try_from(exist).unwrap_or(0),
            available_since: available_since(object),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            generation: meta.generation.unwrap_or(0),
            runtime_image: annotation(meta, names::RUNTIME_IMAGE_ANNOTATION)
                .or_else(|| annotation(meta, names::SIDECAR_IMAGE_ANNOTATION)),
            cordonable: annotation(meta, names::CORDONABLE_ANNOTATION).as_deref() == Some("true"),
            superseded_at: annotation(meta, names::SUPERSEDED_AT_ANNOTATION).and_then(|at| at.parse().ok()),
            failure: failure(object),
            attached: attached(object),
            template_hash: template_hash(object),
            made_elsewhere: annotation(meta, names::MADE_BY_ANNOTATION).is_some() || !is_applied(meta),
        };
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            label: label(meta, names::DEPLOYMENT_NAME_LABEL).unwrap_or_default(),
            ownership: Ownership::of(meta),
            child,
        }
    }

    fn group(&self) -> Group {
        (self.namespace.clone(), self.label.clone())
    }

    fn name(&self) -> &str {
        &self.child.name
    }
}

/// A Deployment as an answer of the API server gives it; none if that is no Deployment.
#[must_use]
pub fn child(answer: DynamicObject) -> Option<ChildState> {
    answer.try_parse().ok().map(|deployment| DeploymentView::of(&deployment).child)
}

fn attached(object: &Deployment) -> Attached {
    let template = object.spec.as_ref().map(|spec| &spec.template);
    let meta = json!({"name": object.metadata.name, "annotations": object.metadata.annotations});
    attach::attached(&json!({"metadata": meta, "spec": {"template": template}}))
}

fn template_hash(object: &Deployment) -> Option<String> {
    annotation(object.spec.as_ref()?.template.metadata.as_ref()?, names::POD_TEMPLATE_SPEC_HASH_ANNOTATION)
}

/// Whether the operator ever applied it.
fn is_applied(meta: &ObjectMeta) -> bool {
    let own = |entry: &ManagedFieldsEntry| {
        entry.manager.as_deref() == Some(names::FIELD_MANAGER) && entry.operation.as_deref() == Some("Apply")
    };
    meta.managed_fields.iter().flatten().any(own)
}

fn available_since(object: &Deployment) -> Option<Timestamp> {
    let conditions = object.status.as_ref()?.conditions.as_ref()?;
    let available = conditions.iter().find(|condition| condition.type_ == "Available" && condition.status == "True")?;
    available.last_transition_time.as_ref().map(|time| time.0)
}

fn failure(object: &Deployment) -> Option<String> {
    let conditions = object.status.as_ref()?.conditions.as_ref()?;
    let failed = conditions.iter().find(|condition| match condition.type_.as_str() {
        "ReplicaFailure" => condition.status == "True",
        "Progressing" => condition.status == "False",
        _ => false,
    })?;
    let reason = failed.reason.as_deref().unwrap_or_default();
    Some(format!("{reason}: {}", failed.message.as_deref().unwrap_or_default()))
}

impl View for PodView {
    type Object = Pod;

    const BORDER: Border = Border::Pods;

    fn of(object: &Pod) -> Self {
        let meta = &object.metadata;
        let status = object.status.as_ref();
        let ready = status
            .and_then(|status| status.conditions.as_ref())
            .is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"));
        let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or_default();
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            label: label(meta, names::DEPLOYMENT_NAME_LABEL).unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            build_id: label(meta, names::BUILD_ID_LABEL),
            ready,
            terminating: meta.deletion_timestamp.is_some(),
            ended: matches!(phase, "Succeeded" | "Failed"),
            may_run: may_run(object),
            ip: status.and_then(|status| status.pod_ip.clone()).filter(|ip| !ip.is_empty()),
            ports: named_ports(object),
            cpu_limit: cpu_limit(object),
            waiting: waiting(object),
            restarts: restarts(object),
            shown_cordoned: annotation(meta, names::CORDONED_ANNOTATION).as_deref() == Some("true"),
            deletion_cost: annotation(meta, DELETION_COST_ANNOTATION).and_then(|cost| cost.parse().ok()).unwrap_or(0),
        }
    }

    fn group(&self) -> Group {
        (self.namespace.clone(), self.label.clone())
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// Only the kubelet's word that every container waits or has ended, or that none was made yet, counts as no.
fn may_run(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return true };
    match status.container_statuses.as_deref() {
        None | Some([]) => status.phase.as_deref() != Some("Pending"),
        Some(all) => all
            .iter()
            .any(|one| one.state.as_ref().is_none_or(|state| state.waiting.is_none() && state.terminated.is_none())),
    }
}

fn named_ports(pod: &Pod) -> Vec<(String, u16)> {
    let containers =
        pod.spec.iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports.filter_map(|port| Some((port.name.clone()?, u16::try_from(port.container_port).ok()?))).collect()
}

impl PodView {
    /// Where the pod's metrics are, by the user's word or else at the port that has the name of the contract.
    #[must_use]
    pub fn metrics_url(&self, metrics: &PodMetrics) -> Option<String> {
        let ip = self.ip.as_deref()?;
        let port = match &metrics.port {
            IntOrString::Int(port) => u16::try_from(*port).ok()?,
            // The sidecar's own count every task, and are there for every SDK.
            IntOrString::String(name) if name == contract::METRICS_PORT_NAME => {
                self.port(contract::SIDECAR_METRICS_PORT_NAME).or_else(|| self.port(name))?
            }
            IntOrString::String(name) => self.port(name)?,
        };
        Some(format!("http://{}:{port}{}", host(ip), metrics.path))
    }

    /// Where the pod takes orders, if it takes any: the container port of the sidecar's or the runtime's probes, or its default.
    #[must_use]
    pub fn orders_url(&self) -> Option<String> {
        let own = self.port(contract::SIDECAR_PROBES_PORT_NAME).or_else(|| self.port(contract::PROBES_PORT_NAME));
        let port = own.unwrap_or(contract::PROBES_PORT);
        Some(format!("http://{}:{port}", host(self.ip.as_deref()?)))
    }

    fn port(&self, name: &str) -> Option<u16> {
        self.ports.iter().find(|(own, _)| own == name).map(|(_, port)| *port)
    }
}

fn host(ip: &str) -> String {
    if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() }
}

fn cpu_limit(pod: &Pod) -> Option<f64> {
    let is_metrics = |port: &ContainerPort| port.name.as_deref() == Some(contract::METRICS_PORT_NAME);
    let containers = &pod.spec.as_ref()?.containers;
    let container = containers.iter().find(|container| container.ports.iter().flatten().any(is_metrics))?;
    cpus(&container.resources.as_ref()?.limits.as_ref()?.get("cpu")?.0)
}

/// CPUs of a quantity; of the units of Kubernetes only those that CPUs are given in.
fn cpus(quantity: &str) -> Option<f64> {
    let cpus = match quantity.strip_suffix('m') {
        Some(thousandths) => thousandths.parse::<f64>().ok()? / 1000.0,
        None => quantity.parse().ok()?,
    };
    (cpus > 0.0).then_some(cpus)
}

fn restarts(pod: &Pod) -> u32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    statuses.iter().map(|one| u32::try_from(one.restart_count).unwrap_or(0)).fold(0, u32::saturating_add)
}

fn waiting(pod: &Pod) -> Option<Waiting> {
    let status = pod.status.as_ref()?;
    let statuses = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    statuses.filter_map(stuck).next()
}

fn stuck(status: &ContainerStatus) -> Option<Waiting> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.clone().filter(|reason| STUCK.contains(&reason.as_str()))?;
    Some(Waiting {
        container: status.name.clone(),
        image: status.image.clone(),
        reason,
        message: waiting.message.clone().unwrap_or_default(),
        last_words: ended(status).and_then(last_words),
    })
}

/// The message of the container's last end.
fn ended(status: &ContainerStatus) -> Option<&str> {
    status.last_state.as_ref()?.terminated.as_ref()?.message.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(value: serde_json::Value) -> PodView {
        PodView::of(&serde_json::from_value(value).unwrap())
    }

    fn running(ip: &str) -> PodView {
        pod(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {
                "temporal.io/deployment-name": "fleet", "temporal.io/build-id": "b1"}},
            "spec": {"containers": [
                {"name": "side", "ports": [{"containerPort": 5}, {"name": "admin", "containerPort": 9}]},
                {"name": "w", "ports": [{"name": "metrics", "containerPort": 8080}]}]},
            "status": {"podIP": ip, "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        }))
    }

    #[test]
    fn a_running_pod_is_found_by_its_label_and_is_ready() {
        let view = running("10.1.2.3");
        assert_eq!(view.group(), ("ns".into(), "fleet".into()));
        assert_eq!(view.orders_url().as_deref(), Some("http://10.1.2.3:8081"));
        assert!(view.ready && !view.terminating && view.waiting.is_none() && !view.shown_cordoned);
    }

    #[test]
    fn the_metrics_of_a_pod_are_at_the_named_port_unless_the_user_says_otherwise() {
        let url = |ip: &str, metrics: serde_json::Value| {
            running(ip).metrics_url(&serde_json::from_value::<PodMetrics>(metrics).unwrap())
        };
        let at = |url: &str| Some(url.to_owned());
        assert_eq!(url("10.1.2.3", json!({})), at("http://10.1.2.3:8080/metrics"));
        assert_eq!(url("10.1.2.3", json!({"port": 9464})), at("http://10.1.2.3:9464/metrics"));
        assert_eq!(url("fd00::1", json!({"port": "admin", "path": "/m"})), at("http://[fd00::1]:9/m"));
        assert_eq!(url("10.1.2.3", json!({"port": "none"})), None, "no container has a port of that name");
        assert_eq!(url("", json!({})), None, "it has no address yet");
    }

    #[test]
    fn a_pod_may_run_unless_the_kubelet_says_that_no_container_does() {
        let may_run = |status: serde_json::Value| {
            pod(json!({"metadata": {}, "spec": {"containers": []}, "status": status})).may_run
        };
        let container = |state: serde_json::Value| json!({"name": "w", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        let waiting = container(json!({"waiting": {"reason": "CrashLoopBackOff"}}));
        assert!(!may_run(json!({"phase": "Pending"})));
        assert!(!may_run(json!({"phase": "Running", "containerStatuses": [waiting]})));
        assert!(may_run(
            json!({"phase": "Running", "containerStatuses": [waiting, container(json!({"running": {}}))]})
        ));
        assert!(may_run(json!({"phase": "Running"})) && may_run(json!({})));
    }

    #[test]
    fn a_pod_that_can_not_start_says_why_and_one_that_is_starting_does_not() {
        let waiting = |reason: &str| {
            pod(json!({"metadata": {}, "spec": {"containers": []}, "status": {"containerStatuses": [{
                "name": "w", "image": "nowhere/x:1", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": reason, "message": "no"}}}]}}))
            .waiting
        };
        assert_eq!(waiting("ImagePullBackOff").unwrap().image, "nowhere/x:1");
        assert_eq!(waiting("ContainerCreating"), None);
    }

    #[test]
    fn a_container_that_crashes_again_and_again_is_seen_with_its_last_words() {
        let view = pod(json!({"metadata": {}, "spec": {"containers": []}, "status": {"containerStatuses": [{
            "name": "w", "image": "x:1", "imageID": "", "ready": false, "restartCount": 4,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 1, "message": "first\nthe port is taken\n"}}}]}}));
        assert_eq!(view.waiting.unwrap().last_words.as_deref(), Some("the port is taken"));
    }
}
