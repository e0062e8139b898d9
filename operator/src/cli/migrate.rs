//! `temporal-worker-operator migrate`: what a cluster has of the Go controller and of those who scale its Workers, and what replaces
//! a Deployment that KEDA, a HorizontalPodAutoscaler or nobody scales. It reads, and writes nothing.

mod replace;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use kube::api::{DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use operator_core::api::ScalingTaskQueue;
use operator_core::migrate::replace::task_queue;
use operator_core::migrate::{Cluster, Kind, Listed, Query, Report, Scope, check};
use serde_json::Value;

use super::explain::Output;
use crate::kube::client::{CallError, bounded, clients_of};

/// Something has to be changed first.
const BLOCKED: u8 = 1;
/// Objects of a page: one of the API server's answers stays small.
const PAGE: u32 = 250;

/// The ways here.
#[derive(Debug, Subcommand)]
pub enum MigrateCommand {
    /// List every object of temporal-worker-controller, of KEDA and of HorizontalPodAutoscalers that has to do with its Workers,
    /// and say what will happen to it and what to change first. Exits with 0 when nothing stands in the way, 1 when something does
    /// or the cluster can't be read.
    Check(CheckArguments),
    /// Print the WorkerDeployment and the Connection that replace a Deployment and its scaler, and the way over without a gap in
    /// capacity, as YAML with comments.
    Plan(ReplaceArguments),
}

/// What to check.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// Namespace of the Workers; without one all of them. The controller itself is looked for everywhere.
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Format.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// What to replace.
#[derive(Debug, Args)]
pub struct ReplaceArguments {
    /// ScaledObject with triggers of type `temporal`, whose Deployment is replaced.
    #[arg(long, value_name = "NAME", required_unless_present = "from_deployment", conflicts_with = "from_deployment")]
    pub from_keda: Option<String>,
    /// Deployment that is replaced, with the HorizontalPodAutoscaler or ScaledObject that scales it.
    #[arg(long, value_name = "NAME")]
    pub from_deployment: Option<String>,
    /// Their namespace; without one that of the kubeconfig.
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Name of the WorkerDeployment; without one that of the Deployment with `-fleet`.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Task Queue that the Workers poll, as NAME or NAME=Workflow,Activity; once for each, in addition to those of the triggers.
    #[arg(long = "task-queue", value_name = "NAME[=TYPES]", value_parser = task_queue)]
    pub task_queues: Vec<ScalingTaskQueue>,
    /// Temporal namespace; without one that of the triggers, or of the container's TEMPORAL_NAMESPACE.
    #[arg(long, value_name = "NAMESPACE")]
    pub temporal_namespace: Option<String>,
    /// Address of the Temporal server; without one that of the container's TEMPORAL_ADDRESS, or of the triggers.
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "connection")]
    pub address: Option<String>,
    /// Connection of the namespace to use; without one a Connection is printed too, unless one is there that says the same.
    #[arg(long, value_name = "NAME")]
    pub connection: Option<String>,
}

/// Runs a command, and gives back the code to exit with.
///
/// # Errors
/// There is no way to the cluster, or what is named can't be read or replaced.
pub async fn run(command: &MigrateCommand, kubeconfig: Option<&Path>, mut out: impl Write) -> Result<u8> {
    let (client, _) = clients_of(kubeconfig).await.context("no way to the Kubernetes API; is KUBECONFIG set?")?;
    match command {
        MigrateCommand::Check(arguments) => {
            let report = check(&cluster(&client, arguments.namespace.as_deref()).await);
            print(&report, arguments.output, &mut out)?;
            Ok(if report.blocked { BLOCKED } else { 0 })
        }
        MigrateCommand::Plan(arguments) => {
            out.write_all(replace::yaml(&client, arguments).await?.as_bytes())?;
            Ok(0)
        }
    }
}

fn print(report: &Report, output: Output, out: &mut impl Write) -> Result<()> {
    match output {
        Output::Text => out.write_all(report.text().as_bytes())?,
        Output::Json => {
            serde_json::to_writer_pretty(&mut *out, report)?;
            writeln!(out)?;
        }
    }
    Ok(())
}

/// What the cluster has; a kind that can't be read is none of the errors, it is said.
async fn cluster(client: &Client, namespace: Option<&str>) -> Cluster {
    let mut lists = BTreeMap::new();
    for kind in Kind::ALL {
        lists.insert(kind, listed(client, &kind.query(), namespace).await);
    }
    Cluster { lists, now: Timestamp::now() }
}

async fn listed(client: &Client, query: &Query, namespace: Option<&str>) -> Listed {
    let asked = match query.scope {
        Scope::Cluster | Scope::Everywhere => None,
        Scope::Asked => namespace,
    };
    let answer = match (list(client, query, asked).await, namespace) {
        // Who may not look everywhere may still look where it was asked to.
        (Err(error), Some(namespace)) if error.is_forbidden() && query.scope == Scope::Everywhere => {
            list(client, query, Some(namespace)).await
        }
        (answer, _) => answer,
    };
    answer.unwrap_or_else(|error| match error {
        error if error.is_not_found() => Listed::NotServed,
        error => Listed::Refused(error.to_string()),
    })
}

/// All pages of a list.
async fn list(client: &Client, query: &Query, namespace: Option<&str>) -> Result<Listed, CallError> {
    let api = api(client, query, namespace);
    let mut params = ListParams::default().limit(PAGE);
    if !query.labels.is_empty() {
        params = params.labels(query.labels);
    }
    if !query.name.is_empty() {
        params = params.fields(&format!("metadata.name={}", query.name));
    }
    let mut objects = Vec::new();
    loop {
        let page = bounded(api.list(&params)).await?;
        objects.extend(page.items.into_iter().map(plain));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(Listed::Objects(objects)),
        }
    }
}

fn api(client: &Client, query: &Query, namespace: Option<&str>) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk(query.group, query.version, query.kind);
    let resource = ApiResource::from_gvk_with_plural(&kind, query.plural);
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

fn plain(mut object: DynamicObject) -> Value {
    object.metadata.managed_fields = None;
    serde_json::to_value(object).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::settings::Cli;

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["temporal-worker-operator", "migrate"], arguments].concat())
    }

    #[test]
    fn a_replacement_is_of_one_thing() {
        assert!(parse(&["plan", "--from-keda", "orders", "-n", "prod"]).is_ok());
        assert!(parse(&["plan", "--from-deployment=orders", "--task-queue=a", "--task-queue", "b=Activity"]).is_ok());
        assert!(parse(&["plan"]).is_err() && parse(&["plan", "--from-keda=a", "--from-deployment=b"]).is_err());
        assert!(parse(&["plan", "--from-keda=a", "--address=t:1", "--connection=c"]).is_err());
    }

    #[test]
    fn a_check_is_of_all_namespaces_or_one() {
        assert!(parse(&["check"]).is_ok() && parse(&["check", "-n", "prod", "-o", "json"]).is_ok());
        assert!(parse(&["check", "-o", "xml"]).is_err());
    }
}
