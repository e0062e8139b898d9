//! An operator that may not read ClusterConnections: it is limited to namespaces, or newer than the kinds.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::host::{Operator, install_kinds, install_kinds_but};
use e2e::wait::within;
use e2e::{Ground, HostBed, eventually};
use harness::ControlPlane;
use harness::programs::source_root;
use harness::tools::{Tool, Tools};
use kube::config::Kubeconfig;
use kube::{Api, ResourceExt as _};
use operator_core::api::ClusterConnection;
use serde_json::json;

use super::shared::{SharedConnection, orders_on};
use super::{is_blocked, orders, runs};

/// Name of the operator's release, and its Kubernetes namespace.
pub const RELEASE: &str = "temporal-worker-operator";
/// What is refused is asked for again each minute.
pub const ASKED_AGAIN: Duration = Duration::from_secs(120);

/// A kubeconfig with the rights of the chart's account.
pub fn kubeconfig(control_plane: &ControlPlane, folder: &Path) -> Result<PathBuf> {
    let mut config = serde_json::to_value(Kubeconfig::read_from(control_plane.kubeconfig_path())?)?;
    config["users"][0]["user"]["as"] = json!(format!("system:serviceaccount:{RELEASE}:{RELEASE}"));
    let path = folder.join("kubeconfig");
    std::fs::write(&path, serde_yaml::to_string(&config)?)?;
    Ok(path)
}

/// Installs the chart for namespace `limited`, or as the settings say.
pub fn helm(tools: &Tools, control_plane: &ControlPlane, settings: &[&str]) -> Result<()> {
    let chart = ["upgrade", "--install", RELEASE, "charts/temporal-worker-operator", "--namespace", RELEASE];
    let output = tools
        .command("helm")?
        .current_dir(source_root())
        .env("KUBECONFIG", control_plane.kubeconfig_path())
        .args(chart)
        .args(["--create-namespace", "--set", "rbac.restrictWatchNamespaces={limited}"])
        .args(settings)
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

pub async fn limited_to_namespaces_it_reads_them_where_it_may_and_keeps_none(bed: Arc<HostBed>) -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    let client = control_plane.client();
    install_kinds(&client).await?;
    let ground = Ground::with_connection(client.clone(), "limited", &bed.server.host_port()).await?;
    let shared = SharedConnection::named(&client, "shared");
    shared.apply(json!({"hostPort": bed.server.host_port(), "allowedNamespaces": {"selector": {}}})).await?;
    let (tools, folder) = (Tools::ensure_async(&[Tool::Helm]).await?, tempfile::tempdir()?);
    helm(&tools, &control_plane, &[])?;
    let flags = ["--watch-namespaces=limited", "--pod-namespace", RELEASE];
    let operator = Operator::start(&bed.programs, &kubeconfig(&control_plane, folder.path())?, &flags).await?;

    ground.apply(&orders_on("shared")).await?;
    let parts =
        ["ClusterConnection \"shared\" can't be read", "forbidden", "rbac.clusterConnections", "namespace limited"];
    is_blocked(&ground, "ConnectionNotFound", &parts).await?;
    // Whoever uses a Connection of the namespace is served.
    ground.apply(&orders()).await?;
    runs(&ground).await?;

    helm(&tools, &control_plane, &["--set", "rbac.clusterConnections=true"])?;
    let mut fleet = orders_on("shared");
    fleet["metadata"]["name"] = json!("more");
    ground.apply(&fleet).await?;
    within(ASKED_AGAIN, "the other fleet has its Deployment", async || ground.child("more").await).await?;
    super::holding::is_held(&ground, "temporal", true).await?;
    let stored = Api::<ClusterConnection>::all(client).get("shared").await?;
    ensure!(stored.finalizers().is_empty(), "{:?}", stored.finalizers());
    let events = control_plane.audit_events()?;
    let tried = events.iter().filter(|event| event.resource == "clusterconnections" && event.code == 403);
    ensure!(tried.clone().all(|event| event.verb != "patch"), "{:?}", tried.collect::<Vec<_>>());
    let told = operator.log()?.matches("ClusterConnections can't be read").count();
    ensure!(told == 1, "it says {told} times that it can't read them");
    operator.kill()?;
    drop((ground, shared));
    control_plane.stop()
}

pub async fn without_their_kind_all_else_goes_on(bed: Arc<HostBed>) -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    let client = control_plane.client();
    install_kinds_but(&client, &["clusterconnections.temporal.io"]).await?;
    let listed = Api::<ClusterConnection>::all(client.clone()).list(&Default::default()).await;
    ensure!(listed.is_err(), "the kind is served");
    let operator = Operator::start(&bed.programs, control_plane.kubeconfig_path(), &[]).await?;
    let ground = Ground::with_connection(client.clone(), "older-kinds", &bed.server.host_port()).await?;
    ground.apply(&orders_on("shared")).await?;
    is_blocked(&ground, "ConnectionNotFound", &["ClusterConnection \"shared\" can't be read"]).await?;
    ground.apply(&orders()).await?;
    runs(&ground).await?;

    install_kinds(&client).await?;
    let shared = SharedConnection::named(&client, "shared");
    eventually("the kind is there", async || shared.apply(json!({"hostPort": bed.server.host_port()})).await).await?;
    let mut fleet = orders_on("shared");
    fleet["metadata"]["name"] = json!("more");
    ground.apply(&fleet).await?;
    within(ASKED_AGAIN, "the other fleet has its Deployment", async || ground.child("more").await).await?;
    operator.kill()?;
    drop((ground, shared));
    control_plane.stop()
}
