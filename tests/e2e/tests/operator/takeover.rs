//! An operator that starts where temporal-worker-controller worked: what it writes, what it leaves, and whom it waits for.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::host::{Operator, holder, install_kinds};
use e2e::peer::{IDENTITY, Left, RELEASES, Release, Told};
use e2e::wait::within;
use e2e::worker::{Worker, set_manager};
use e2e::{Ground, HostBed, eventually};
use harness::ControlPlane;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use operator_core::api::WorkerDeployment;
use operator_core::names::{BUILD_ID_LABEL, DEPLOYMENT_NAME_LABEL, LEASE_NAME};
use serde_json::json;

use super::{orders, says};

const SYSTEM: &str = "temporal-system";
const REPLICAS: i32 = 4;

async fn leave(release: Release, client: Client, bed: &HostBed, uid: &str) -> Result<Left> {
    let address = bed.server.host_port();
    let laid = release.lay(client, &address, (orders(), REPLICAS)).await?;
    let worker = Worker::of(&address, "default", release.namespace)?;
    worker.register(&laid.worker_deployment(), &laid.build_id).await?;
    laid.leave(worker, &address, uid).await
}

async fn made(client: &Client, namespace: &str) -> Result<String> {
    let object = serde_json::from_value(json!({"metadata": {"name": namespace}}))?;
    let made = Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &object).await?;
    made.uid().context("no uid")
}

pub async fn what_each_release_left_is_taken_over_without_a_write_to_a_template_or_the_routing(
    bed: Arc<HostBed>,
) -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    let client = control_plane.client();
    install_kinds(&client).await?;
    let uid = made(&client, SYSTEM).await?;
    let mut fleets = Vec::new();
    for release in RELEASES {
        fleets.push(leave(release, client.clone(), &bed, &uid).await?);
    }
    let before = control_plane.audit_events()?.len();
    let identity = format!("--controller-identity={IDENTITY}");
    let flags = ["--pod-namespace", SYSTEM, &identity];
    let operator = Operator::start(&bed.programs, control_plane.kubeconfig_path(), &flags).await?;
    for fleet in &fleets {
        fleet.is_taken_over().await.with_context(|| operator.log().unwrap_or_default())?;
    }
    operator.kill()?;
    for fleet in &fleets {
        fleet.stands().await.with_context(|| fleet.release.namespace)?;
    }
    let events = control_plane.audit_events()?;
    let events = &events[before..];
    let told = Told::read()?;
    for fleet in &fleets {
        told.holds(fleet, events).with_context(|| fleet.release.namespace)?;
    }
    ensure!(events.iter().all(|event| event.resource != "deployments/scale"), "replicas were written");
    drop(fleets);
    control_plane.stop()
}

pub async fn a_foreign_manager_is_named_and_taken_over_once_the_fleet_says_so(bed: Arc<HostBed>) -> Result<()> {
    const NAMESPACE: &str = "foreign-manager";
    const FOREIGN: &str = "twc/temporal-system/0b7a2f0e";
    let ground = bed.ground(NAMESPACE).await?;
    let mut fleet = orders();
    fleet["spec"]["scaling"] = json!({"minReplicas": 1, "taskQueues": [{"name": NAMESPACE, "types": ["Workflow"]}]});
    ground.apply(&fleet).await?;
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "worker", "labels": {DEPLOYMENT_NAME_LABEL: "orders", BUILD_ID_LABEL: "v1.2.3-45d8"}},
        "spec": {"containers": [{"name": "worker", "image": "worker:1"}]},
    }))?;
    ground.api::<Pod>().create(&PostParams::default(), &pod).await?;
    let deployment = format!("{NAMESPACE}/orders");
    let worker = Worker::of(&bed.server.host_port(), "default", NAMESPACE)?;
    worker.register(&deployment, "v1.2.3-45d8").await?;
    set_manager(&bed.server.host_port(), "default", &deployment, FOREIGN).await?;
    // Only now the version may get traffic.
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    ground.api::<Pod>().patch_status("worker", &PatchParams::default(), &Patch::Merge(status)).await?;
    let unset = format!("manager-identity unset --namespace default --deployment-name {deployment}`");
    let annotate = format!("temporal.io/take-over={FOREIGN}`");
    eventually("the manager is named, and what hands the deployment over", async || {
        let message = ground.has_condition("orders", ("Ready", "False", "WaitingForPromotion")).await?;
        says(&message, &[FOREIGN, &unset, &annotate])
    })
    .await?;
    ensure!(worker.routing().await?.2 == FOREIGN, "it was taken over unasked");

    let annotation = json!({"metadata": {"annotations": {"temporal.io/take-over": FOREIGN}}});
    let fleets = ground.api::<WorkerDeployment>();
    fleets.patch("orders", &PatchParams::default(), &Patch::Merge(&annotation)).await?;
    ground.is_current("orders").await?;
    let (_, current, manager) = worker.routing().await?;
    ensure!(current == "v1.2.3-45d8" && manager != FOREIGN && !manager.is_empty(), "{current} by {manager}");
    let kept = ground.fleet("orders").await?.annotations().get("temporal.io/take-over").cloned();
    ensure!(kept.as_deref() == Some(FOREIGN), "the annotation is {kept:?}");
    Ok(())
}

/// Renews a Lease as a manager in that namespace does.
async fn renew(client: &Client, namespace: &str) -> Result<()> {
    let now = Timestamp::now();
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": LEASE_NAME},
        "spec": {"holderIdentity": "manager-7", "leaseDurationSeconds": 15, "renewTime": format!("{now:.6}")}});
    let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
    api.patch(LEASE_NAME, &PatchParams::apply("manager").force(), &Patch::Apply(lease)).await?;
    Ok(())
}

pub async fn a_manager_in_another_namespace_is_named_and_waited_for(bed: Arc<HostBed>) -> Result<()> {
    const OTHER: &str = "go-system";
    let control_plane = ControlPlane::start().await?;
    let client = control_plane.client();
    install_kinds(&client).await?;
    made(&client, SYSTEM).await?;
    made(&client, OTHER).await?;
    let ground = Ground::with_connection(client.clone(), "waiting", &bed.server.host_port()).await?;
    ground.apply(&orders()).await?;
    renew(&client, OTHER).await?;
    let flags = ["--leader-elect", "--pod-namespace", SYSTEM];
    let operator = Operator::start(&bed.programs, control_plane.kubeconfig_path(), &flags).await?;
    eventually("the other manager is named", async || {
        renew(&client, OTHER).await?;
        let log = operator.log()?;
        ensure!(log.contains("other managers serve the same fleets") && log.contains("go-system/manager-7"), "{log}");
        Ok(())
    })
    .await?;
    ensure!(holder(&client, SYSTEM).await.is_err(), "the operator leads");
    ensure!(ground.children("orders").await?.is_empty(), "it wrote");
    // From here on nobody renews it any more.
    within(Duration::from_secs(60), "the operator leads", async || {
        holder(&client, SYSTEM).await?;
        ground.child("orders").await
    })
    .await
    .with_context(|| operator.log().unwrap_or_default())?;
    operator.kill()?;
    drop(ground);
    control_plane.stop()
}
