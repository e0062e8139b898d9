//! `temporal-worker-operator explain`: the whole calculation of a fleet's last decision, from its status.

use std::io::Write;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::ValueEnum;
use kube::{Api, Client};
use operator_core::api::WorkerDeployment;
use operator_core::explain;

use crate::kube::client::{CallError, bounded};

/// How the calculation is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Reads a WorkerDeployment, with the kubeconfig that kubectl would use, and prints the calculation.
///
/// # Errors
/// When `fleet` is not `NAMESPACE/NAME`, does not exist, can't be read, or has nothing to explain.
pub async fn run(fleet: &str, output: Output, out: impl Write) -> Result<()> {
    let (namespace, name) = split(fleet)?;
    let client = Client::try_default().await.context("no way to the Kubernetes API; is KUBECONFIG set?")?;
    let api: Api<WorkerDeployment> = Api::namespaced(client, namespace);
    let object = bounded(api.get_opt(name)).await.map_err(|error| unread(fleet, &error))?;
    let Some(object) = object else {
        bail!("WorkerDeployment {fleet} does not exist; `kubectl get workerdeployments -A` lists those that do")
    };
    print(&object, output, out)
}

/// Namespace and name of a fleet.
///
/// # Errors
/// The text names none.
pub(super) fn split(fleet: &str) -> Result<(&str, &str)> {
    let parts = fleet.split_once('/').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty());
    parts
        .filter(|(_, name)| !name.contains('/'))
        .ok_or_else(|| anyhow!("{fleet:?} names no WorkerDeployment; write NAMESPACE/NAME, such as prod/orders"))
}

/// What to say of a fleet that can't be read.
pub(super) fn unread(fleet: &str, error: &CallError) -> anyhow::Error {
    anyhow!("WorkerDeployment {fleet} can't be read: {error}; it takes the right to get workerdeployments.temporal.io")
}

fn print(object: &WorkerDeployment, output: Output, mut out: impl Write) -> Result<()> {
    match output {
        Output::Text => write!(out, "{}", explain::text(object)?)?,
        Output::Json => {
            serde_json::to_writer_pretty(&mut out, &explain::json(object)?)?;
            writeln!(out)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_is_named_by_namespace_and_name() {
        assert_eq!(split("prod/orders").unwrap(), ("prod", "orders"));
        for wrong in ["orders", "/orders", "prod/", "a/b/c", ""] {
            let error = split(wrong).unwrap_err().to_string();
            assert!(error.contains(&format!("{wrong:?}")) && error.contains("NAMESPACE/NAME"), "{error}");
        }
    }
}
