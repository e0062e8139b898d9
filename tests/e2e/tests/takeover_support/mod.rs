//! A cluster in which temporal-worker-controller worked, with a Temporal server; this operator comes and goes by the real Helm.

mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::eventually;
use e2e::ground::{CONNECTION, Ground, TEMPORAL_NAMESPACE, is_ready};
use e2e::host::{holder, install_kinds};
use e2e::peer::{FLEET, IDENTITY, Left, Release};
use e2e::worker::Worker;
use harness::programs::{self, OPERATOR_IMAGE, Profile, Programs};
use harness::tools::Tools;
use harness::{AuditEvent, Cluster, ClusterOptions, ImageSpec, TemporalOptions, TemporalServer};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use operator_core::names::LEASE_NAME;
use serde_json::{Value, json};
use tokio::task::block_in_place;

pub use work::Work;

/// Pods of each fleet.
const PODS: usize = 2;
const WORKER_IMAGE: &str = "orders-worker:v1.2.3";
/// Name of the operator's release and its namespace: those of the one before it, so that its identity is the same.
const RELEASE: &str = "twc";
const SYSTEM: &str = "temporal-system";
/// Name of the operator's Deployment and account.
const OPERATOR: &str = "twc-temporal-worker-operator";
/// Time without a write after which no more is expected of what came before.
const QUIET: Duration = Duration::from_secs(3);

/// The fleet at a release of the user's, on a Task Queue of its namespace's name.
pub fn orders(namespace: &str, release: &str) -> Value {
    let environment = json!([{"name": "TASK_QUEUE", "value": namespace}, {"name": "RELEASE", "value": release}]);
    json!({
        "apiVersion": "temporal.io/v1alpha1",
        "kind": "WorkerDeployment",
        "metadata": {"name": FLEET},
        "spec": {
            "workerOptions": {"connectionRef": {"name": CONNECTION}, "temporalNamespace": TEMPORAL_NAMESPACE},
            "template": {
                "metadata": {"labels": {"app": "worker"}},
                "spec": {"containers": [{"name": "worker", "image": WORKER_IMAGE, "env": environment}]},
            },
            "rollout": {"strategy": "AllAtOnce"},
            "sunset": {},
        },
    })
}

/// Everything together.
pub struct Stage {
    pub server: TemporalServer,
    /// UID of the namespace in which the manager was.
    pub uid: String,
    cluster: Cluster,
    client: Client,
}

impl Stage {
    pub async fn start() -> Result<Self> {
        let (programs, cluster) =
            tokio::join!(Programs::build(Profile::own()), Cluster::start(ClusterOptions::default()));
        let (programs, cluster) = (programs?, cluster?);
        // Records of versions can be deleted so long after their last poll.
        let quick = vec![("matching.PollerHistoryTTL".into(), "\"10s\"".into())];
        let options = TemporalOptions { dynamic_config: quick, ..TemporalOptions::default() };
        let server = TemporalServer::start_in(&cluster, options).await?;
        let go = Tools::ensure_async(Tools::GO_WORKER).await?;
        let worker = ImageSpec::new(WORKER_IMAGE, ["/go-worker"]).program(go.program("go-worker")?, "/go-worker");
        block_in_place(|| programs::load(&cluster, &[programs.operator_image()?, worker]))?;
        let client = cluster.client();
        install_kinds(&client).await?;
        let uid = leave_manager(&client).await?;
        Ok(Self { server, uid, cluster, client })
    }

    /// A fleet as a release left it, with its pods at work.
    pub async fn leave(&self, release: Release) -> Result<Left> {
        let address = self.server.host_port();
        let fleet = orders(release.namespace, "one");
        let laid = release.lay(self.client.clone(), &address, (fleet, i32::try_from(PODS)?)).await?;
        eventually(&format!("{} has its pods", release.namespace), async || {
            let pods = laid.ground.pods(FLEET).await?;
            let ready = pods.iter().filter(|pod| is_ready(pod)).count();
            ensure!((pods.len(), ready) == (PODS, PODS), "{ready} of {} are Ready", pods.len());
            Ok(())
        })
        .await?;
        let worker = Worker::of(&address, TEMPORAL_NAMESPACE, release.namespace)?;
        worker.follow(&laid.worker_deployment(), &laid.build_id).await?;
        laid.leave(worker, &address, &self.uid).await
    }

    /// Installs the operator's chart, and waits until one of its pods leads.
    pub async fn install(&self, settings: &[&str]) -> Result<()> {
        let (_, tag) = OPERATOR_IMAGE.split_once(':').context("no tag")?;
        let tags = format!("image.tag={tag},runtimeImage.tag={tag}");
        let chart = programs::source_root().join("charts/temporal-worker-operator").display().to_string();
        let arguments = ["install", RELEASE, &chart, "--namespace", SYSTEM, "--set", &tags];
        block_in_place(|| self.cluster.run("helm", &[arguments.as_slice(), settings].concat()))?;
        eventually("the operator leads", async || {
            let holder = holder(&self.client, SYSTEM).await?;
            ensure!(holder.starts_with(OPERATOR), "{holder} leads");
            Ok(())
        })
        .await
    }

    /// Uninstalls it, and waits until its pods are gone and the Lease is free.
    pub async fn uninstall(&self) -> Result<()> {
        let arguments = ["uninstall", RELEASE, "--namespace", SYSTEM, "--timeout", "5m"];
        block_in_place(|| self.cluster.run("helm", &arguments))?;
        eventually("the operator is gone", async || {
            let selected = ListParams::default().labels("app.kubernetes.io/component=operator");
            let pods = Api::<Pod>::namespaced(self.client.clone(), SYSTEM).list(&selected).await?.items;
            ensure!(pods.is_empty(), "{} pods are there", pods.len());
            let lease = Api::<Lease>::namespaced(self.client.clone(), SYSTEM).get(LEASE_NAME).await?;
            ensure!(is_free(&lease.spec.unwrap_or_default(), Timestamp::now()), "the Lease is held");
            Ok(())
        })
        .await
    }

    /// What the operator wrote of the fleets, once nothing more comes.
    pub async fn writes(&self) -> Result<Vec<AuditEvent>> {
        let account = format!("system:serviceaccount:{SYSTEM}:{OPERATOR}");
        eventually("nothing more is written", async || {
            let mut writes = self.cluster.audit_events()?;
            writes.retain(|event| event.user == account && event.namespace.starts_with("as-of-"));
            let last = writes.iter().map(|write| write.time).max().context("it wrote nothing")?;
            let quiet = Timestamp::now().duration_since(last).unsigned_abs();
            ensure!(quiet > QUIET, "something was written {quiet:?} ago");
            Ok(writes)
        })
        .await
    }

    /// What may explain a failure.
    pub fn explain(&self) -> String {
        let kubectl = |arguments: &[&str]| {
            block_in_place(|| self.cluster.run("kubectl", arguments)).unwrap_or_else(|error| format!("{error:#}"))
        };
        let mut text = kubectl(&["get", "workerdeployments,deployments,pods,events", "--all-namespaces"]);
        text += &kubectl(&["get", "workerdeployments", "--all-namespaces", "--output", "yaml"]);
        let operator = ["--namespace", SYSTEM, "--selector", "app.kubernetes.io/instance=twc", "--tail", "60"];
        text += &kubectl(&[["logs", "--prefix"].as_slice(), &operator].concat());
        text
    }

    pub fn stop(self) -> Result<()> {
        let Self { server, cluster, client, .. } = self;
        drop((server, client));
        cluster.stop()
    }
}

/// The namespace of a manager that is gone, with the Lease that it never gives up; the namespace's UID.
async fn leave_manager(client: &Client) -> Result<String> {
    let namespace = serde_json::from_value(json!({"metadata": {"name": SYSTEM}}))?;
    let made = Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await?;
    let renewed = Timestamp::now() - SignedDuration::from_hours(1);
    let lease = json!({"metadata": {"name": LEASE_NAME}, "spec": {"holderIdentity": "twc-manager-5d9c_0b7a",
        "leaseDurationSeconds": 15, "leaseTransitions": 3, "renewTime": format!("{renewed:.6}")}});
    let leases = Api::<Lease>::namespaced(client.clone(), SYSTEM);
    leases.create(&PostParams::default(), &serde_json::from_value(lease)?).await?;
    ensure!(IDENTITY == format!("{RELEASE}/{SYSTEM}"), "the fleets have another manager");
    made.uid().context("no uid")
}

/// What of a fleet must not change while nobody changes the fleet.
#[derive(Debug, PartialEq)]
pub struct Kept {
    /// How often a container was started again, by the pods' UIDs.
    pub restarts: BTreeMap<String, i32>,
    /// UIDs of ReplicaSets: a Deployment makes another one for another template.
    pub replica_sets: BTreeSet<String>,
    /// Deployments: UID, labels, annotations, owners, finalizers and spec.
    pub children: BTreeMap<String, Value>,
    /// The fleet: spec and finalizers.
    pub fleet: Value,
}

impl Kept {
    pub async fn of(ground: &Ground) -> Result<Self> {
        let by_name = ground.restarts(FLEET).await?;
        let pods = ground.pods(FLEET).await?;
        let restarts = pods.iter().map(|pod| Some((pod.uid()?, *by_name.get(&pod.name_any())?)));
        let replica_sets = ground.api::<ReplicaSet>().list(&ListParams::default()).await?.items;
        let fleet = serde_json::to_value(ground.fleet(FLEET).await?)?;
        Ok(Self {
            restarts: restarts.collect::<Option<_>>().context("a pod came meanwhile")?,
            replica_sets: replica_sets.iter().filter_map(ResourceExt::uid).collect(),
            children: ground.children(FLEET).await?.iter().map(child).collect::<Result<_>>()?,
            fleet: json!([fleet["spec"], fleet["metadata"]["finalizers"]]),
        })
    }
}

fn child((name, child): (&String, &Deployment)) -> Result<(String, Value)> {
    let metadata = serde_json::to_value(&child.metadata)?;
    let kept = ["uid", "labels", "annotations", "ownerReferences", "finalizers"].map(|field| metadata[field].clone());
    Ok((name.clone(), json!([kept, child.spec])))
}

/// An operator whose rights went before it can't give the Lease back: it ends by itself then.
fn is_free(lease: &LeaseSpec, now: Timestamp) -> bool {
    let is_held = lease.holder_identity.as_deref().is_some_and(|holder| !holder.is_empty());
    let lasts = SignedDuration::from_secs(lease.lease_duration_seconds.unwrap_or_default().into());
    !is_held || lease.renew_time.as_ref().is_none_or(|renewed| renewed.0 + lasts < now)
}
