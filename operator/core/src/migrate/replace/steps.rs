//! The way over: the fleet runs at the Deployment's size before the Deployment goes.

use serde_json::Value;

use super::super::json::{name, namespace, number};
use super::{Scaler, Source, Step};

/// File that the commands name.
const FILE: &str = "fleet.yaml";

/// The steps, in order.
pub(super) fn steps(source: &Source, fleet: &Value) -> Vec<Step> {
    let (old, home, own) = (name(&source.deployment), namespace(&source.deployment), name(fleet));
    let scales = fleet["spec"]["scaling"].is_object();
    let size = size(source, fleet);
    let mut steps = vec![step(
        format!(
            "Save this as {FILE}, correct what is said above, and see what the operator would do. The new pods have the labels of the \
             old ones: Services, PodDisruptionBudgets and NetworkPolicies that select those select both."
        ),
        [format!("temporal-worker-operator plan -f {FILE}")],
    )];
    steps.extend(hold(source));
    let mut begin = vec![format!("kubectl apply -f {FILE}")];
    if scales {
        begin.push(format!(
            "kubectl -n {home} patch workerdeployment {own} --type merge -p '{{\"spec\":{{\"scaling\":{{\"minReplicas\":{size}}}}}}}'"
        ));
    }
    steps.push(step(
        format!("Start the fleet at the size of the Deployment, so that no capacity is missing when that goes ({size} pods)."),
        begin,
    ));
    steps.push(step(
        "Wait until its pods are ready. Workers of both then share the tasks; nothing is handed over, as the server gives each task to \
         whoever polls."
            .into(),
        [
            format!("kubectl -n {home} wait deployment/{own} --for=create --timeout=1m"),
            format!(
                "kubectl -n {home} wait deployment/{own} --for=jsonpath='{{.status.readyReplicas}}'={size} --timeout=15m"
            ),
        ],
    ));
    steps.push(step(
        "Take the old pods away. Each ends within its terminationGracePeriodSeconds; what runs longer is retried by the server, so \
         choose a quiet hour for Activities that must not be."
            .into(),
        [format!("kubectl -n {home} scale deployment/{old} --replicas=0")],
    ));
    if scales {
        steps.push(step(
            "Let the operator decide: the manifest's own bounds hold again. See why it runs how many.".into(),
            [format!("kubectl apply -f {FILE}"), format!("temporal-worker-operator explain {home}/{own}")],
        ));
    }
    steps.push(end(source));
    steps
}

/// The way back before the last step.
pub(super) fn back(source: &Source, fleet: &Value) -> Step {
    let (old, home, own) = (name(&source.deployment), namespace(&source.deployment), name(fleet));
    let mut commands = vec![format!("kubectl -n {home} scale deployment/{old} --replicas={}", size(source, fleet))];
    match &source.scaler {
        Scaler::Nobody => {}
        Scaler::ScaledObject(scaled) => {
            commands
                .push(format!("kubectl -n {home} annotate scaledobject {} autoscaling.keda.sh/paused-", name(scaled)));
        }
        Scaler::Autoscaler(autoscaler) => commands.push(release_autoscaler(home, autoscaler)),
    }
    commands.push(format!("kubectl -n {home} delete workerdeployment {own}"));
    step(
        "Back, at any time before the last step: the Deployment first, then its scaler, then the fleet goes.".into(),
        commands,
    )
}

/// How many pods do the work now.
fn size(source: &Source, fleet: &Value) -> i64 {
    let wanted = number(&source.deployment, "/spec/replicas").unwrap_or(1);
    let most = number(fleet, "/spec/scaling/maxReplicas").unwrap_or(i64::MAX);
    wanted.clamp(1, most.max(1))
}

/// Keeps the old scaler from acting meanwhile.
fn hold(source: &Source) -> Option<Step> {
    let home = namespace(&source.deployment);
    match &source.scaler {
        Scaler::Nobody => None,
        Scaler::ScaledObject(scaled) => Some(step(
            "Pause KEDA: it leaves the Deployment at the number that it has.".into(),
            [format!("kubectl -n {home} annotate scaledobject {} autoscaling.keda.sh/paused=true", name(scaled))],
        )),
        Scaler::Autoscaler(autoscaler) => Some(step(
            "Keep the HorizontalPodAutoscaler from taking pods: it counts the pods of both by their labels. At zero replicas it does \
             nothing."
                .into(),
            [format!(
                "kubectl -n {home} patch hpa {} --type merge -p \
                 '{{\"spec\":{{\"behavior\":{{\"scaleDown\":{{\"selectPolicy\":\"Disabled\"}}}}}}}}'",
                name(autoscaler)
            )],
        )),
    }
}

fn release_autoscaler(home: &str, autoscaler: &Value) -> String {
    let policy = autoscaler["spec"]["behavior"]["scaleDown"]["selectPolicy"].as_str().unwrap_or("Max");
    format!(
        "kubectl -n {home} patch hpa {} --type merge -p \
         '{{\"spec\":{{\"behavior\":{{\"scaleDown\":{{\"selectPolicy\":\"{policy}\"}}}}}}}}'",
        name(autoscaler)
    )
}

/// The last step.
fn end(source: &Source) -> Step {
    let (old, home) = (name(&source.deployment), namespace(&source.deployment));
    let mut commands = vec![format!("kubectl -n {home} delete deployment {old}")];
    match &source.scaler {
        Scaler::Nobody => {}
        Scaler::ScaledObject(scaled) => {
            commands.push(format!("kubectl -n {home} delete scaledobject {}", name(scaled)))
        }
        Scaler::Autoscaler(autoscaler) => commands.push(format!("kubectl -n {home} delete hpa {}", name(autoscaler))),
    }
    step(
        "Once you are content, delete what was replaced: the Deployment first, for a ScaledObject with \
         advanced.restoreToOriginalReplicaCount would start its pods again."
            .into(),
        commands,
    )
}

fn step(what: String, commands: impl Into<Vec<String>>) -> Step {
    Step { what, commands: commands.into() }
}
