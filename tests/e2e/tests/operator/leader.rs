//! Two replicas of the operator: one writes, and one that was paused for too long never again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::host::{Operator, holder, install_kinds, write_kubeconfig_of};
use e2e::wait::within;
use e2e::{Ground, HostBed, eventually};
use harness::{AuditEvent, ControlPlane};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use super::{orders, runs};

const NAMESPACE: &str = "two-replicas";
const REPLICAS: [&str; 2] = ["replica-a", "replica-b"];
/// Longer than the Lease lasts.
const PAUSE: Duration = Duration::from_secs(20);

/// A kubeconfig with which the API server knows a replica by a name of its own.
async fn kubeconfig_of(control_plane: &ControlPlane, folder: &Path, replica: &str) -> Result<PathBuf> {
    let client = control_plane.client();
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), NAMESPACE);
    let account = serde_json::from_value(json!({"metadata": {"name": replica}}))?;
    accounts.create(&PostParams::default(), &account).await?;
    let binding: ClusterRoleBinding = serde_json::from_value(json!({"metadata": {"name": replica},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": replica, "namespace": NAMESPACE}]}))?;
    Api::<ClusterRoleBinding>::all(client.clone()).create(&PostParams::default(), &binding).await?;
    let path = folder.join(replica);
    write_kubeconfig_of(control_plane, (NAMESPACE, replica), &path).await?;
    Ok(path)
}

/// Writes of a replica, oldest first; those to the Lease too when `lease`.
fn writes_of(control_plane: &ControlPlane, replica: &str, lease: bool) -> Result<Vec<AuditEvent>> {
    let mut events = control_plane.audit_events()?;
    events.retain(|event| {
        event.user.ends_with(&format!(":{replica}"))
            && !matches!(event.verb.as_str(), "get" | "list" | "watch")
            && (lease || event.resource != "leases")
    });
    Ok(events)
}

async fn has_replicas(ground: &Ground, wanted: i32) -> Result<()> {
    eventually(&format!("{wanted} replicas are written"), async || {
        let replicas = ground.replicas("orders").await?;
        ensure!(replicas == wanted, "{replicas} replicas");
        Ok(())
    })
    .await
}

pub async fn one_of_two_writes_and_a_paused_leader_never_again(bed: Arc<HostBed>) -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    let client = control_plane.client();
    install_kinds(&client).await?;
    let ground = Ground::with_connection(client.clone(), NAMESPACE, &bed.server.host_port()).await?;
    let folder = tempfile::tempdir()?;
    let mut operators = Vec::new();
    for replica in REPLICAS {
        let kubeconfig = kubeconfig_of(&control_plane, folder.path(), replica).await?;
        let flags = ["--leader-elect", "--pod-namespace", NAMESPACE, "--pod-name", replica];
        operators.push(Operator::start(&bed.programs, &kubeconfig, &flags).await?);
    }
    let first = eventually("one leads", async || holder(&client, NAMESPACE).await).await?;
    let (leader, standby) = if first == REPLICAS[0] { (0, 1) } else { (1, 0) };

    let mut fleet = orders();
    fleet["spec"]["replicas"] = json!(2);
    ground.apply(&fleet).await?;
    runs(&ground).await?;
    has_replicas(&ground, 2).await?;
    eventually("the leader has written the status", async || ground.condition("orders", "Ready").await).await?;
    let by_standby = writes_of(&control_plane, REPLICAS[standby], false)?;
    ensure!(by_standby.is_empty(), "the standby wrote {by_standby:?}");
    ensure!(!writes_of(&control_plane, REPLICAS[leader], false)?.is_empty(), "the log does not show the leader");

    operators[leader].process.set_paused(true)?;
    let paused_at = Instant::now();
    fleet["spec"]["replicas"] = json!(4);
    ground.apply(&fleet).await?;
    within(PAUSE, "the standby leads", async || {
        let now = holder(&client, NAMESPACE).await?;
        ensure!(now == REPLICAS[standby], "{now} does");
        Ok(())
    })
    .await?;
    has_replicas(&ground, 4).await?;
    tokio::time::sleep(PAUSE.saturating_sub(paused_at.elapsed())).await;

    let resumed_at = Timestamp::now();
    operators[leader].process.set_paused(false)?;
    fleet["spec"]["replicas"] = json!(3);
    ground.apply(&fleet).await?;
    has_replicas(&ground, 3).await?;
    eventually("the one that lost the Lease ends", async || {
        ensure!(!operators[leader].process.id().is_alive(), "it runs");
        Ok(())
    })
    .await?;
    let log = operators[leader].log()?;
    ensure!(log.contains("was lost, or could not be renewed in time"), "{log}");
    let late: Vec<_> = writes_of(&control_plane, REPLICAS[leader], true)?;
    let late: Vec<_> = late.iter().filter(|write| write.time >= resumed_at && write.code < 300).collect();
    ensure!(late.is_empty(), "it wrote after it had lost the Lease: {late:?}");
    ensure!(holder(&client, NAMESPACE).await? == REPLICAS[standby], "the Lease went back");
    for operator in operators {
        operator.kill()?;
    }
    drop(ground);
    control_plane.stop()
}
