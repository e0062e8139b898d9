//! A cluster with the operator installed by the real Helm as two pods, and a Temporal server.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::audit::OPERATOR_ACCOUNT;
use harness::polyglot;
use harness::programs::{self, OPERATOR_IMAGE, Profile, Programs, RUNTIME_IMAGE};
use harness::tools::Tools;
use harness::{AuditEvent, Cluster, ClusterOptions, ImageSpec, TemporalOptions, TemporalServer};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{ListParams, LogParams};
use kube::{Api, Client, ResourceExt};
use operator_core::names::{DEPLOYMENT_NAME_LABEL, LEASE_NAME};
use parking_lot::Mutex;

use crate::ground::{Ground, TEMPORAL_NAMESPACE};
use crate::suite::Environment;
use crate::tasks::Tasks;
use crate::wait::eventually;

/// The runtime's image with a shell on top, for handlers.
pub const HANDLERS_IMAGE: &str = "e2e-handlers:dev";
/// An image with a program `/bin/echo` alone, for a handler that comes with an image of its own.
pub const TOOL_IMAGE: &str = "e2e-tool:dev";
/// The Worker on the Go SDK.
pub const GO_WORKER_IMAGE: &str = "e2e-go-worker:dev";
/// Kubernetes namespace of the operator, and name of its release.
pub const OPERATOR: &str = "temporal-worker-operator";
/// Name of the operator's container.
pub const OPERATOR_CONTAINER: &str = "operator";

/// What the scenarios share.
pub struct ClusterBed {
    /// The cluster.
    pub cluster: Cluster,
    /// A client with all rights.
    pub client: Client,
    /// The Temporal server of all scenarios that don't harm theirs.
    pub server: TemporalServer,
    /// Fleets that one scenario has brought to rest, and another one watches.
    pub at_rest: Mutex<Option<Ground>>,
    /// The project's programs.
    pub programs: Programs,
}

impl Environment for ClusterBed {
    async fn start() -> Result<Self> {
        let (programs, cluster) =
            tokio::join!(Programs::build(Profile::own()), Cluster::start(ClusterOptions::default()));
        let (programs, cluster) = (programs?, cluster?);
        let server = TemporalServer::start_in(&cluster, TemporalOptions::default()).await?;
        let tool = ImageSpec::new(TOOL_IMAGE, ["/bin/echo"]).program(Path::new("/bin/echo"), "/bin/echo");
        let go = Tools::ensure_async(Tools::GO_WORKER).await?;
        let go = ImageSpec::new(GO_WORKER_IMAGE, ["/go-worker"]).program(go.program("go-worker")?, "/go-worker");
        let images = [
            programs.operator_image()?,
            programs.runtime_image(RUNTIME_IMAGE)?,
            handlers_image(&programs)?,
            programs.worker_image()?,
            tool,
            go,
        ];
        let (cluster, loaded) = tokio::task::spawn_blocking(move || {
            let loaded = programs::load(&cluster, &images).and_then(|()| install(&cluster));
            (cluster, loaded)
        })
        .await?;
        loaded?;
        let bed = Self { client: cluster.client(), cluster, server, at_rest: Mutex::default(), programs };
        eventually("two operator pods are Ready and one of them leads", async || {
            let ready = bed.operator_pods().await?.iter().filter(|pod| crate::ground::is_ready(pod)).count();
            ensure!(ready == 2, "{ready} are Ready");
            bed.leader().await
        })
        .await?;
        Ok(bed)
    }

    async fn explain(&self, scenario: &str) -> String {
        let mut text = String::new();
        for namespace in self.namespaces_of(scenario).await.unwrap_or_default() {
            text += &self.explain_namespace(&namespace).await;
        }
        text
    }

    fn stop(self) -> Result<()> {
        let Self { cluster, server, client, at_rest, .. } = self;
        drop((client, server, at_rest));
        let rights = rights_sufficed(&cluster);
        cluster.stop()?;
        rights
    }
}

impl ClusterBed {
    /// The namespaces that a scenario has now: their names are the beginning of its own, or are those of the languages' teams.
    async fn namespaces_of(&self, scenario: &str) -> Result<Vec<String>> {
        let own = namespace_of(scenario);
        let teams = polyglot::LANGUAGES.map(polyglot::namespace);
        let is_own = |name: &String| own.starts_with(name) || scenario.starts_with("polyglot") && teams.contains(name);
        let there = Api::<Namespace>::all(self.client.clone()).list(&ListParams::default()).await?;
        Ok(there.items.iter().map(ResourceExt::name_any).filter(is_own).collect())
    }

    async fn explain_namespace(&self, namespace: &str) -> String {
        let kubectl = |arguments: &[&str]| {
            let said = self.cluster.run("kubectl", &[arguments, &["--namespace", namespace]].concat());
            said.unwrap_or_else(|error| format!("{error:#}"))
        };
        let mut text = kubectl(&["get", "workerdeployments,deployments,pods,events", "--output", "wide"]);
        text += &kubectl(&["get", "workerdeployments", "--output", "yaml"]);
        let tail = ["--all-containers", "--prefix", "--tail", "15"];
        text += &kubectl(&[["logs", "--selector", DEPLOYMENT_NAME_LABEL].as_slice(), &tail].concat());
        for (pod, log) in self.operator_logs(1000).await.unwrap_or_default() {
            let lines: Vec<_> = log.lines().filter(|line| line.contains(namespace)).collect();
            text += &format!("log of {pod}:\n{}\n", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
        text
    }

    /// A namespace for a scenario, with a Connection to the shared server.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn ground(&self, scenario: &str) -> Result<Ground> {
        let name = namespace_of(scenario);
        Ground::with_connection(self.client.clone(), &name, &self.server.host_port()).await
    }

    /// Work on the shared server.
    ///
    /// # Errors
    /// The server can't be reached.
    pub fn tasks(&self) -> Result<Tasks> {
        Tasks::on(&self.server.host_port(), TEMPORAL_NAMESPACE)
    }

    /// The operator's pods.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn operator_pods(&self) -> Result<Vec<Pod>> {
        let selected = ListParams::default().labels("app.kubernetes.io/component=operator");
        Ok(Api::<Pod>::namespaced(self.client.clone(), OPERATOR).list(&selected).await?.items)
    }

    /// Who holds the Lease, and the name of its pod.
    ///
    /// # Errors
    /// Nobody holds it.
    pub async fn leader(&self) -> Result<(String, String)> {
        let lease = Api::<Lease>::namespaced(self.client.clone(), OPERATOR).get(LEASE_NAME).await?;
        let holder = lease.spec.and_then(|spec| spec.holder_identity).filter(|holder| !holder.is_empty());
        let holder = holder.context("nobody holds the Lease")?;
        let pod = holder.rsplit_once('_').map_or(holder.as_str(), |(pod, _)| pod).to_owned();
        Ok((holder, pod))
    }

    /// The last lines of each operator pod's log, of the containers before a restart too.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn operator_logs(&self, lines: i64) -> Result<Vec<(String, String)>> {
        let api = Api::<Pod>::namespaced(self.client.clone(), OPERATOR);
        let mut logs = Vec::new();
        for pod in self.operator_pods().await? {
            for previous in [true, false] {
                let params = LogParams { tail_lines: Some(lines), previous, ..LogParams::default() };
                if let Ok(log) = api.logs(&pod.name_any(), &params).await {
                    logs.push((pod.name_any(), log));
                }
            }
        }
        Ok(logs)
    }

    /// The processes of a pod's container.
    ///
    /// # Errors
    /// It does not run.
    pub async fn container_processes(&self, pod: (&str, &str), container: &str) -> Result<Vec<i32>> {
        let (namespace, name) = pod;
        let object = Api::<Pod>::namespaced(self.client.clone(), namespace).get(name).await?;
        let status = object.status.unwrap_or_default();
        let statuses = status.container_statuses.into_iter().chain(status.init_container_statuses).flatten();
        let id = statuses.into_iter().find(|status| status.name == container).and_then(|status| status.container_id);
        let id = id.with_context(|| format!("pod {namespace}/{name} has no running container {container}"))?;
        Ok(harness::process::in_cgroup(id.trim_start_matches("containerd://")))
    }

    /// The numbers that a fleet was scaled to since `since`, oldest first; a write that changed nothing is left out.
    ///
    /// # Errors
    /// The log can't be read.
    pub fn scalings(&self, (namespace, fleet): (&str, &str), since: Timestamp) -> Result<Vec<(Timestamp, i64)>> {
        let of_fleet = |name: &str| name == fleet || name.strip_prefix(fleet).is_some_and(|rest| rest.starts_with('-'));
        let (mut last, mut changes) = (None, Vec::new());
        for write in self.writes_in(namespace)? {
            let scales = write.resource == "deployments/scale" && write.code < 300 && of_fleet(&write.name);
            let Some(replicas) = write.replicas.filter(|_| scales) else { continue };
            if last.replace(replicas) != Some(replicas) && write.time > since {
                changes.push((write.time, replicas));
            }
        }
        Ok(changes)
    }

    /// Writes of a namespace that the API server has finished, oldest first.
    ///
    /// # Errors
    /// The log can't be read.
    pub fn writes_in(&self, namespace: &str) -> Result<Vec<AuditEvent>> {
        let mut events = self.cluster.audit_events()?;
        events.retain(|event| event.namespace == namespace);
        Ok(events)
    }
}

/// Passes if the operator was refused nothing for want of a right, whatever the scenarios had it do.
fn rights_sufficed(cluster: &Cluster) -> Result<()> {
    let mut requests = cluster.requests_of(OPERATOR_ACCOUNT)?;
    ensure!(requests.iter().any(AuditEvent::is_read), "the log does not show what the operator reads");
    requests.retain(|request| request.is_unauthorized);
    ensure!(requests.is_empty(), "the operator has no right to {requests:?}");
    Ok(())
}

/// Kubernetes namespace of a scenario `module::name`, or of a part of it.
fn namespace_of(scenario: &str) -> String {
    let name: String = scenario.rsplit("::").next().unwrap_or(scenario).chars().take(50).collect();
    name.replace('_', "-").trim_end_matches('-').to_owned()
}

fn handlers_image(programs: &Programs) -> Result<ImageSpec> {
    let mut image = programs.runtime_image(HANDLERS_IMAGE)?;
    for program in ["/bin/bash", "/bin/sleep", "/usr/bin/perl"] {
        image = image.program(Path::new(program), program);
    }
    Ok(image)
}

fn install(cluster: &Cluster) -> Result<()> {
    let chart = |name: &str| programs::source_root().join("charts").join(name).display().to_string();
    cluster.run("helm", &["install", "kinds", &chart("temporal-worker-operator-crds")])?;
    let image = |value: &str, image: &str| {
        let (repository, tag) = image.split_once(':').with_context(|| format!("image {image} has no tag"))?;
        anyhow::Ok(format!("{value}.repository={repository},{value}.tag={tag}"))
    };
    let (operator, runtime) = (image("image", OPERATOR_IMAGE)?, image("runtimeImage", RUNTIME_IMAGE)?);
    let chart = chart("temporal-worker-operator");
    let arguments = ["install", OPERATOR, &chart, "--namespace", OPERATOR, "--create-namespace"];
    let settings = ["--set", &operator, "--set", &runtime, "--set", "recordDecisions=true"];
    cluster.run("helm", &[arguments.as_slice(), settings.as_slice()].concat())?;
    Ok(())
}

/// Time within which another replica leads after the leader was killed.
pub const TAKEOVER: Duration = Duration::from_secs(20);
