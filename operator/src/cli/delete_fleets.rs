//! `temporal-worker-operator delete-fleets`: what the chart runs before it is uninstalled with `uninstall.deleteFleets`.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client, ResourceExt as _};
use operator_core::api::WorkerDeployment;
use tokio::time::Instant;

use crate::kube::client::{CallError, bounded, clients};

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(2);

/// Deletes every WorkerDeployment of some namespaces, of all without one, and waits until they are gone. The operator, which still
/// runs, takes their Deployments to zero and their versions from the Temporal server first.
///
/// # Errors
/// They are not gone in time: the error names those that are left.
pub async fn run(namespaces: &[String], timeout: Duration) -> Result<()> {
    let (client, _) = clients().await.context("no way to the Kubernetes API; is KUBECONFIG set?")?;
    let scopes: Vec<Api<WorkerDeployment>> = match namespaces {
        [] => vec![Api::all(client.clone())],
        named => named.iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect(),
    };
    let deadline = Instant::now() + timeout;
    loop {
        let trouble = match round(&client, &scopes).await {
            Ok(left) if left.is_empty() => return Ok(()),
            Ok(left) => format!("waits for {}", left.into_iter().collect::<Vec<_>>().join(", ")),
            Err(error) => error.to_string(),
        };
        if Instant::now() + EVERY > deadline {
            bail!(
                "not all WorkerDeployments are gone within {timeout:?}: {trouble}. Their conditions say what they wait for. Uninstall \
                 with uninstall.deleteFleets=false to leave them in place."
            );
        }
        tracing::info!("{trouble}");
        tokio::time::sleep(EVERY).await;
    }
}

/// Deletes what is not being deleted yet, and gives back what is still there.
async fn round(client: &Client, scopes: &[Api<WorkerDeployment>]) -> Result<BTreeSet<String>, CallError> {
    let mut left = BTreeSet::new();
    for scope in scopes {
        for fleet in bounded(scope.list_metadata(&ListParams::default())).await? {
            let (namespace, name) = (fleet.namespace().unwrap_or_default(), fleet.name_any());
            if fleet.metadata.deletion_timestamp.is_none() {
                let api: Api<WorkerDeployment> = Api::namespaced(client.clone(), &namespace);
                match bounded(api.delete(&name, &DeleteParams::default())).await {
                    Err(error) if !error.is_not_found() => return Err(error),
                    _ => {}
                }
            }
            left.insert(format!("{namespace}/{name}"));
        }
    }
    Ok(left)
}
