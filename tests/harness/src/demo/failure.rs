//! When the demo fails: what a user would look at, in that order.

use super::stage::Stage;
use super::{OPERATOR, Play};
use crate::logs;

const LINES: usize = 25;
/// Lines of logs are JSON; their beginning says what is the matter.
const LINE_CHARACTERS: usize = 300;

/// Prints objects, events and the ends of logs.
pub async fn explain(stage: &Stage, play: Play) {
    println!("\nThe demo failed. What there is:");
    let conditions = r#"jsonpath={range .items[*]}{.metadata.name}{"\n"}{range .status.conditions[*]}{"  "}{.type}={.status} {.reason}: {.message}{"\n"}{end}{end}"#;
    let operator_logs =
        ["--namespace", OPERATOR, "logs", "--selector", "app.kubernetes.io/name=temporal-worker-operator"];
    let tail = ["--prefix", "--tail", "15", "--all-containers"];
    let looks: [(&str, Vec<&str>); 4] = [
        ("Objects", vec!["get", "pods,deployments,workerdeployments", "--all-namespaces", "--output", "wide"]),
        ("Conditions", vec!["get", "workerdeployments", "--all-namespaces", "--output", conditions]),
        ("Events", vec!["get", "events", "--all-namespaces", "--sort-by", ".metadata.creationTimestamp"]),
        ("Log of the operator", [operator_logs.as_slice(), &tail].concat()),
    ];
    for (title, arguments) in looks {
        show(stage, title, &arguments).await;
    }
    for namespace in play.namespaces() {
        let worker_logs = ["--namespace", &namespace, "logs", "--selector", "temporal.io/deployment-name"];
        show(stage, &format!("Logs of the Workers in {namespace}"), &[worker_logs.as_slice(), &tail].concat()).await;
    }
    println!("\nLog of the Temporal server\n{}", logs::tail(&stage.server.log()));
}

async fn show(stage: &Stage, title: &str, arguments: &[&str]) {
    let said = stage.run("kubectl", arguments).await.unwrap_or_else(|error| format!("{error:#}"));
    println!("\n{title}\n{}", end_of(&said));
}

fn end_of(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let shown = lines[lines.len().saturating_sub(LINES)..].iter();
    shown
        .map(|line| format!("  {}", line.chars().take(LINE_CHARACTERS).collect::<String>()))
        .collect::<Vec<_>>()
        .join("\n")
}
