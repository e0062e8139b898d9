//! What is secret stays so.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use e2e::bed::OPERATOR;
use e2e::ground::runtime_fleet;
use e2e::{ClusterBed, eventually};
use kube::ResourceExt as _;
use serde_json::json;

/// Recognisable, also where it is encoded.
const VALUE: &str = "s3cr3t-that-nobody-may-see";
const BASE64: &str = "czNjcjN0LXRoYXQtbm9ib2R5LW1heS1zZWU";

pub async fn nothing_shows_a_secret(bed: Arc<ClusterBed>) -> Result<()> {
    let ground = bed.ground("nothing_shows_a_secret").await?;
    let secret = |name: &str, kind: &str, data: serde_json::Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": kind, "stringData": data});
    ground.apply(&secret("api-key", "Opaque", json!({"key": VALUE}))).await?;
    let pem = format!("-----BEGIN CERTIFICATE-----\n{VALUE}\n-----END CERTIFICATE-----\n");
    ground.apply(&secret("pem", "kubernetes.io/tls", json!({"tls.crt": pem, "tls.key": VALUE}))).await?;
    let connections = [
        ("by-key", json!({"hostPort": bed.server.host_port(), "apiKeySecretRef": {"name": "api-key", "key": "key"}})),
        ("by-pem", json!({"hostPort": bed.server.host_port(), "mutualTLSSecretRef": {"name": "pem"}})),
    ];
    for (name, spec) in connections {
        let kind = json!({"apiVersion": "temporal.io/v1alpha1", "kind": "Connection", "metadata": {"name": name}, "spec": spec});
        ground.apply(&kind).await?;
        let mut fleet = runtime_fleet(name, "secret", 1);
        fleet["spec"]["workerOptions"]["connectionRef"]["name"] = json!(name);
        ground.apply(&fleet).await?;
    }
    for (fleet, reason) in [("by-key", "TemporalClientCreationFailed"), ("by-pem", "AuthSecretInvalid")] {
        eventually(&format!("{fleet} fails"), async || {
            ground.has_condition(fleet, ("Ready", "False", reason)).await.map(|_| ())
        })
        .await?;
    }

    let reads = bed.writes_in(&ground.namespace)?;
    for name in ["api-key", "pem"] {
        let by_operator = |read: &&harness::AuditEvent| read.name == name && read.user.contains(OPERATOR);
        let read = reads.iter().filter(|read| read.resource == "secrets").find(by_operator);
        ensure!(read.is_some_and(|read| read.verb == "get"), "the operator never read {name}: {read:?}");
    }
    // The control: where the secret is, the search finds it.
    let stored = bed.cluster.run("kubectl", &["get", "secret", "api-key", "-n", &ground.namespace, "-o", "yaml"])?;
    ensure!(stored.contains(BASE64), "the search would find nothing: {stored}");
    for (place, text) in everything_shown(&bed, &ground.namespace).await? {
        ensure!(text.len() > 100, "{place} shows nothing");
        ensure!(!text.contains(VALUE) && !text.contains(BASE64), "{place} shows the secret");
    }
    Ok(())
}

/// All that the operator shows.
async fn everything_shown(bed: &ClusterBed, namespace: &str) -> Result<Vec<(String, String)>> {
    let mut shown = Vec::new();
    for kind in ["workerdeployments", "events.v1.events.k8s.io", "deployments", "configmaps"] {
        let text = bed.cluster.run("kubectl", &["get", kind, "--namespace", namespace, "--output", "yaml"])?;
        shown.push((kind.to_owned(), text));
    }
    for pod in bed.operator_pods().await? {
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).context("no address")?;
        let page = reqwest::get(format!("http://{address}:8080/metrics")).await?.text().await?;
        shown.push((format!("metrics of {}", pod.name_any()), page));
    }
    let logs = bed.operator_logs(100_000).await?;
    shown.extend(logs.into_iter().map(|(pod, log)| (format!("log of {pod}"), log)));
    Ok(shown)
}
