//! `temporal-worker-operator plan`: what the operator would do now, by its own planner and its own readers. Nothing is written:
//! this process never holds the Lease, without which no write is begun.

use std::fmt::Debug;
use std::io::{Read, Write};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, Client, ResourceExt as _};
use operator_core::api::{ClusterConnection, Connection, ConnectionKind, WorkerDeployment};
use operator_core::names;
use operator_core::old_kinds::OldKind;
use operator_core::preview::{Preview, text};
use prometheus::Registry;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::explain::Output;
use super::{build_id, explain};
use crate::changes::Changes;
use crate::controller::{Context, Shared, preview};
use crate::kube::client::{CallError, bounded, clients_of};
use crate::kube::dry_run;
use crate::kube::lease::Leadership;
use crate::kube::old_kinds;
use crate::kube::watches::{Caches, Guarded, StoredConnections};
use crate::metrics::Metrics;
use crate::run;
use crate::settings::{PlanArguments, Settings};
use crate::workers::Cordons;

/// Something is to be written.
const WRITES: u8 = 3;
/// Somebody has to change something first.
const BLOCKED: u8 = 4;

/// Prints the plan of each fleet that is asked for, and gives back the code to exit with.
///
/// # Errors
/// What is named or held by the file is no fleet, or the API server refuses it or can't be asked.
pub async fn run(
    arguments: &PlanArguments,
    mut settings: Settings,
    stdin: impl Read,
    mut out: impl Write,
) -> Result<u8> {
    if let Some(namespace) = &arguments.operator_namespace {
        settings.pod_namespace.clone_from(namespace);
    }
    settings.record_decisions = None;
    let (client, _) =
        clients_of(settings.kubeconfig.as_deref()).await.context("no way to the Kubernetes API; is KUBECONFIG set?")?;
    let wanted = match (&arguments.fleet, &arguments.file) {
        (Some(fleet), _) => stored(&client, fleet).await?,
        (None, Some(file)) => as_applied(&client, file, stdin).await?,
        (None, None) => bail!("name a fleet as NAMESPACE/NAME, or a file with -f"),
    };
    let operator = Operator::new(client, &settings).await?;
    let mut previews = Vec::new();
    for fleet in &wanted.fleets {
        previews.push(operator.plan(fleet, &wanted).await?);
    }
    print(&previews, arguments.output, &mut out)?;
    Ok(code(&previews))
}

fn code(previews: &[Preview]) -> u8 {
    match () {
        () if previews.iter().any(|preview| preview.blocked) => BLOCKED,
        () if previews.iter().any(|preview| !preview.writes.is_empty()) => WRITES,
        () => 0,
    }
}

fn print(previews: &[Preview], output: Output, out: &mut impl Write) -> Result<()> {
    match output {
        Output::Text => {
            let texts: Vec<_> = previews.iter().map(text).collect();
            write!(out, "{}", texts.join("\n"))?;
        }
        Output::Json => {
            serde_json::to_writer_pretty(&mut *out, &json!({"plans": previews}))?;
            writeln!(out)?;
        }
    }
    Ok(())
}

/// What is planned for, and with which Connections in place of the stored ones.
#[derive(Default)]
struct Wanted {
    fleets: Vec<WorkerDeployment>,
    connections: Vec<Connection>,
    cluster_connections: Vec<ClusterConnection>,
}

async fn stored(client: &Client, fleet: &str) -> Result<Wanted> {
    let (namespace, name) = explain::split(fleet)?;
    let api: Api<WorkerDeployment> = Api::namespaced(client.clone(), namespace);
    let found = bounded(api.get_opt(name)).await.map_err(|error| explain::unread(fleet, &error))?;
    let found = found.ok_or_else(|| {
        anyhow!("WorkerDeployment {fleet} does not exist; `kubectl get workerdeployments -A` lists those that do")
    })?;
    Ok(Wanted { fleets: vec![found], ..Wanted::default() })
}

/// The objects of a file as the API server would store them.
async fn as_applied(client: &Client, file: &str, stdin: impl Read) -> Result<Wanted> {
    let (source, text) = build_id::read(file, stdin)?;
    let documents = build_id::documents(&text).with_context(|| source.to_owned())?;
    let mut wanted = Wanted::default();
    for document in documents {
        let what = described(&document);
        take(client, document, &mut wanted).await.with_context(|| format!("{source}: {what}"))?;
    }
    ensure!(!wanted.fleets.is_empty(), "{source}: holds no WorkerDeployment; add the one to plan for");
    Ok(wanted)
}

fn described(document: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    format!("{} {:?}", word(&document["kind"]), word(&document["metadata"]["name"]))
}

async fn take(client: &Client, document: Value, wanted: &mut Wanted) -> Result<()> {
    let version = document["apiVersion"].as_str();
    ensure!(
        version == Some(operator_core::api::API_VERSION),
        "apiVersion: {version:?} is none of this operator's; use {}",
        operator_core::api::API_VERSION
    );
    match document["kind"].as_str() {
        Some("WorkerDeployment") => wanted.fleets.push(dry_run::as_applied(client, document).await?),
        Some("Connection") => wanted.connections.push(dry_run::as_applied(client, document).await?),
        Some("ClusterConnection") => {
            wanted.cluster_connections.push(dry_run::as_applied_in_cluster(client, document).await?);
        }
        kind => bail!("kind: {kind:?} can't be planned for; leave the document out, or give a WorkerDeployment"),
    }
    Ok(())
}

/// The parts of an operator that read and decide.
struct Operator {
    client: Client,
    leadership: Arc<Leadership>,
    shared: Arc<Shared>,
    changes: Arc<Changes>,
}

impl Operator {
    async fn new(client: Client, settings: &Settings) -> Result<Self> {
        let (registry, changes) = (Registry::new(), Changes::new());
        let metrics = Metrics::register(&registry)?;
        let identity = run::identity(&client, settings).await;
        // By a Lease that is never asked for: it never may write.
        let leadership = Arc::new(Leadership::new(true, None, metrics.clone()));
        let cordons = Cordons::new(&registry, Box::new(|| false))?;
        let shared = run::shared(&client, settings, &registry, (metrics, changes.clone(), identity, cordons))?;
        Ok(Self { client, leadership, shared, changes })
    }

    async fn plan(&self, fleet: &WorkerDeployment, wanted: &Wanted) -> Result<Preview> {
        let ctx = Context {
            client: self.client.clone(),
            leadership: self.leadership.clone(),
            caches: Arc::new(self.caches(fleet, wanted).await?),
            old_kinds: Arc::default(),
            shared: self.shared.clone(),
            templates: Arc::default(),
        };
        let (namespace, name) = (fleet.namespace().unwrap_or_default(), fleet.name_any());
        let what = || format!("WorkerDeployment {namespace}/{name} can't be planned for");
        let mut preview = preview::preview(&ctx, fleet, &self.changes).await.with_context(what)?;
        preview.notes.extend(self.of_old_kind(&namespace, &name).await);
        Ok(preview)
    }

    /// What is to be said of the TemporalWorkerDeployment of a fleet's name.
    async fn of_old_kind(&self, namespace: &str, name: &str) -> Option<String> {
        let old = OldKind::WorkerDeployment.name();
        match old_kinds::owned_by(&self.client, namespace, name).await {
            Ok(0) => None,
            Ok(count) => Some(format!(
                "{old} {name} still owns {count} object(s): first they are handed over, and this plan is made without them"
            )),
            Err(error) => Some(format!("whether a {old} {name} still owns something could not be read: {error}")),
        }
    }

    /// What the cluster has of one fleet.
    async fn caches(&self, fleet: &WorkerDeployment, wanted: &Wanted) -> Result<Caches> {
        let namespace = fleet.namespace().unwrap_or_default();
        let label = format!("{}={}", names::DEPLOYMENT_NAME_LABEL, names::deployment_name_label(&fleet.name_any()));
        let labelled = ListParams::default().labels(&label);
        let (deployments, pods): (Api<Deployment>, Api<Pod>) =
            (Api::namespaced(self.client.clone(), &namespace), Api::namespaced(self.client.clone(), &namespace));
        let deployments = bounded(deployments.list(&labelled)).await;
        let deployments = deployments.with_context(|| format!("list Deployments of namespace {namespace}"))?.items;
        let pods = bounded(pods.list(&labelled)).await;
        let pods = pods.with_context(|| format!("list Pods of namespace {namespace}"))?.items;
        Ok(Caches::listed(self.connections(fleet, wanted).await?, deployments, pods))
    }

    /// What the fleet's `connectionRef` names, as it is given or stored.
    async fn connections(&self, fleet: &WorkerDeployment, wanted: &Wanted) -> Result<StoredConnections> {
        let (namespace, reference) = (fleet.namespace().unwrap_or_default(), &fleet.spec.worker_options.connection_ref);
        let name = reference.name.as_str();
        let mut stored = StoredConnections::default();
        match reference.kind {
            ConnectionKind::Connection => {
                let near = |one: &&Connection| one.namespace().as_ref() == Some(&namespace);
                let given =
                    wanted.connections.iter().filter(near).find(|one| one.metadata.name.as_deref() == Some(name));
                let api = Api::namespaced(self.client.clone(), &namespace);
                let found = given_or_stored(given, &api, name).await;
                stored.own.extend(found.with_context(|| format!("{reference} of namespace {namespace}"))?);
            }
            ConnectionKind::ClusterConnection => {
                let given = wanted.cluster_connections.iter().find(|one| one.metadata.name.as_deref() == Some(name));
                let api = Api::all(self.client.clone());
                stored.shared.extend(given_or_stored(given, &api, name).await.with_context(|| reference.to_string())?);
            }
        }
        Ok(stored)
    }
}

async fn given_or_stored<K>(
    given: Option<&K>,
    api: &Api<Guarded<K>>,
    name: &str,
) -> Result<Option<Guarded<K>>, CallError>
where
    K: kube::Resource + Clone + DeserializeOwned + Debug,
{
    match given {
        Some(given) => Ok(Some(DeserializeGuard(Ok(given.clone())))),
        None => bounded(api.get_opt(name)).await,
    }
}

#[cfg(test)]
mod tests {
    use operator_core::preview::Write;

    use super::*;

    #[test]
    fn the_exit_code_says_whether_something_is_to_be_done() {
        let write = Write { action: "Scale", object: String::new(), summary: String::new(), changes: Vec::new() };
        let preview = |blocked, writes| Preview { blocked, writes, ..Preview::default() };
        let (nothing, something) = (preview(false, Vec::new()), preview(false, vec![write]));
        assert_eq!(code(std::slice::from_ref(&nothing)), 0);
        assert_eq!(code(&[nothing.clone(), something.clone()]), WRITES);
        assert_eq!(code(&[preview(true, Vec::new()), something]), BLOCKED);
    }
}
