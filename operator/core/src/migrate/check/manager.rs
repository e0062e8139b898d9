//! The Go controller itself: its Deployment, its pods, the Lease, and what the API server asks it.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::super::json::{is_ending, list, name, namespace, number, text};
use super::super::query::{Cluster, Kind};
use super::Finding;

/// Webhooks of the Go controller.
const WEBHOOKS: [&str; 2] = ["vworkerresourcetemplate.kb.io", "vworkerdeployment.kb.io"];
/// Time for which a Lease holds that does not say how long.
const LEASE_DURATION: i64 = 15;

pub(super) fn findings(cluster: &Cluster) -> Vec<Finding> {
    let managers = cluster.of(Kind::Manager).iter().map(manager);
    let pods = cluster.of(Kind::ManagerPod).iter().filter(|pod| runs(pod)).filter_map(|pod| stray(pod, cluster));
    let leases = cluster.of(Kind::Lease).iter().map(|it| lease(it, cluster));
    let webhooks = cluster.of(Kind::Webhook).iter().filter_map(webhook);
    managers.chain(pods).chain(leases).chain(webhooks).collect()
}

fn replicas(deployment: &Value) -> i64 {
    let wanted = number(deployment, "/spec/replicas").unwrap_or(1);
    wanted.max(number(deployment, "/status/replicas").unwrap_or(0))
}

fn manager(deployment: &Value) -> Finding {
    let (own, home) = (name(deployment), namespace(deployment));
    let image = list(deployment, "/spec/template/spec/containers")
        .iter()
        .filter_map(|container| text(container, "/image"))
        .find(|image| image.contains("temporal-worker-controller"))
        .map_or_else(String::new, |image| format!(" ({image})"));
    let identity = identity(deployment).map_or_else(String::new, |identity| {
        format!(
            " Temporal knows it as {identity:?}: a release of this operator's chart of the same name in the same namespace \
             is known by the same."
        )
    });
    match replicas(deployment) {
        0 => Finding::fine(
            "Deployment",
            deployment,
            format!("temporal-worker-controller{image} is at zero replicas.{identity}"),
        ),
        count => Finding::fine(
            "Deployment",
            deployment,
            format!(
                "temporal-worker-controller{image} runs, with {count} replicas. Two controllers must not act on the same \
                 objects.{identity}"
            ),
        )
        .blocking("Scale it to zero. Workers keep running, and nothing is rolled out or rerouted meanwhile.")
        .by(format!("kubectl -n {home} scale deployment/{own} --replicas=0")),
    }
}

/// `CONTROLLER_IDENTITY` of a manager, if it is written out.
pub(super) fn identity(deployment: &Value) -> Option<&str> {
    let containers = list(deployment, "/spec/template/spec/containers").iter();
    let mut variables = containers.flat_map(|container| list(container, "/env"));
    variables.find(|variable| variable["name"] == "CONTROLLER_IDENTITY").and_then(|variable| text(variable, "/value"))
}

fn runs(pod: &Value) -> bool {
    !matches!(text(pod, "/status/phase"), Some("Succeeded" | "Failed"))
}

/// A pod that is there though no Deployment wants it.
fn stray(pod: &Value, cluster: &Cluster) -> Option<Finding> {
    let wanted = |deployment: &&Value| namespace(deployment) == namespace(pod) && replicas(deployment) > 0;
    if cluster.of(Kind::Manager).iter().find(wanted).is_some() {
        return None;
    }
    let found = Finding::fine("Pod", pod, "is a pod of temporal-worker-controller that still runs.");
    Some(if is_ending(pod) {
        found.blocking("Wait until it has ended.").by(format!(
            "kubectl -n {} wait --for=delete pod/{} --timeout=2m",
            namespace(pod),
            name(pod)
        ))
    } else {
        found.blocking("Remove what starts it: none of the Deployments with the labels of the controller's chart does.")
    })
}

fn lease(lease: &Value, cluster: &Cluster) -> Finding {
    let Some(holder) = holder(lease, cluster.now) else {
        return Finding::fine("Lease", lease, "is held by nobody: the operator takes it when it starts.");
    };
    let by = |kind: Kind| {
        let pods = cluster.of(kind).iter().filter(|pod| namespace(pod) == namespace(lease));
        // Both write the pod's name, an underscore and something random.
        pods.map(name).any(|pod| holder.strip_prefix(pod).is_some_and(|rest| rest.is_empty() || rest.starts_with('_')))
    };
    if by(Kind::OperatorPod) {
        return Finding::fine("Lease", lease, format!("is held by this operator, as {holder:?}."));
    }
    let whose = if by(Kind::ManagerPod) { "temporal-worker-controller" } else { "a process that is not known here" };
    let found = Finding::fine(
        "Lease",
        lease,
        format!("is held by {whose}, as {holder:?}. An operator in this namespace waits for it and writes nothing."),
    );
    found.blocking(
        "Scale that to zero. The Lease is free 15 s after its holder has gone, or at once when it gives it up.",
    )
}

/// Who holds a Lease now.
fn holder(lease: &Value, now: Timestamp) -> Option<&str> {
    let holder = text(lease, "/spec/holderIdentity")?;
    let renewed: Timestamp = text(lease, "/spec/renewTime")?.parse().ok()?;
    let seconds = number(lease, "/spec/leaseDurationSeconds").unwrap_or(LEASE_DURATION);
    let until = renewed.saturating_add(Duration::from_secs(seconds.unsigned_abs())).ok()?;
    (until > now).then_some(holder)
}

fn webhook(configuration: &Value) -> Option<Finding> {
    let own: Vec<&Value> = list(configuration, "/webhooks")
        .iter()
        .filter(|webhook| text(webhook, "/name").is_some_and(|name| WEBHOOKS.contains(&name)))
        .collect();
    let names: Vec<&str> = own.iter().filter_map(|webhook| text(webhook, "/name")).collect();
    if names.is_empty() {
        return None;
    }
    let fails = own.iter().any(|webhook| webhook["failurePolicy"] != "Ignore");
    let names = names.join(" and ");
    let command = format!("kubectl delete validatingwebhookconfiguration {}", name(configuration));
    let change = "Delete it once the controller is at zero: the rules of the kinds' schemas hold without it, and authors of \
                  templates are checked by the policy of this operator's chart. Installing the controller's chart makes it again.";
    let kind = "ValidatingWebhookConfiguration";
    Some(if fails {
        let fate = format!(
            "has the API server ask temporal-worker-controller ({names}). Once that is at zero, every such change is refused, \
             this operator's too."
        );
        Finding::fine(kind, configuration, fate).blocking(change).by(command)
    } else {
        let fate = format!(
            "has the API server ask temporal-worker-controller ({names}), and go on without an answer after its timeout."
        );
        Finding::fine(kind, configuration, fate).warning(change).by(command)
    })
}
