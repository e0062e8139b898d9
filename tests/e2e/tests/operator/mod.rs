//! The scenarios, a file a subject, and the manifests that they share.

pub mod adoption;
pub mod attach;
pub mod child;
pub mod connections;
pub mod cordon;
pub mod deletion;
pub mod gates;
pub mod holding;
pub mod kills;
pub mod leader;
pub mod limited;
pub mod manifests;
pub mod migrate;
pub mod old_kinds;
pub mod owner_rights;
pub mod plan;
pub mod push;
pub mod rights;
pub mod scaling;
pub mod served;
pub mod server;
pub mod shared;
pub mod takeover;
pub mod template_authors;
pub mod templates;
pub mod tenants;

use anyhow::{Result, ensure};
use e2e::{Ground, eventually};
use serde_json::{Value, json};

/// The worked example of the contract: its Build ID is `v1.2.3-45d8`.
pub fn orders() -> Value {
    json!({
        "apiVersion": "temporal.io/v1alpha1",
        "kind": "WorkerDeployment",
        "metadata": {"name": "orders"},
        "spec": {
            "workerOptions": {"connectionRef": {"name": "temporal"}, "temporalNamespace": "default"},
            "template": {
                "metadata": {"labels": {"app": "worker"}},
                "spec": {"containers": [{
                    "name": "worker",
                    "image": "ghcr.io/acme/worker:v1.2.3",
                    "env": [{"name": "TEMPORAL_TASK_QUEUE", "value": "orders"}],
                    "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                }]},
            },
            "rollout": {"strategy": "AllAtOnce"},
            "sunset": {},
        },
    })
}

/// Name of its Deployment.
pub const ORDERS_CHILD: &str = "orders-v1-2-3-45d8";

/// Waits for the fleet `orders` to fail for a reason that names each of `parts`, and to have no Deployment.
pub async fn is_blocked(ground: &Ground, reason: &str, parts: &[&str]) -> Result<()> {
    fails(ground, reason, parts).await?;
    let message = ground.has_condition("orders", ("Stalled", "True", reason)).await?;
    says(&message, parts)?;
    let children = ground.children("orders").await?;
    ensure!(children.is_empty(), "it has {:?}", children.keys());
    Ok(())
}

/// Waits for the fleet `orders` to be neither ready nor on its way, for a reason that names each of `parts`; an event
/// says so too.
pub async fn fails(ground: &Ground, reason: &str, parts: &[&str]) -> Result<()> {
    let message = eventually(&format!("orders says {reason}"), async || {
        let message = ground.has_condition("orders", ("Ready", "False", reason)).await?;
        ground.has_condition("orders", ("Progressing", "False", reason)).await?;
        Ok(message)
    })
    .await?;
    says(&message, parts)?;
    eventually("an event says it", async || {
        let events = ground.events("orders").await?;
        let told = events.iter().any(|(word, note)| word == reason && parts.iter().all(|part| note.contains(part)));
        ensure!(told, "{events:?}");
        Ok(())
    })
    .await
}

pub fn says(message: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(message.contains(part), "{part:?} is not in: {message}");
    }
    Ok(())
}

/// Waits for the fleet `orders` to have its Deployment.
pub async fn runs(ground: &Ground) -> Result<k8s_openapi::api::apps::v1::Deployment> {
    eventually("orders has its Deployment", async || ground.child("orders").await).await
}
