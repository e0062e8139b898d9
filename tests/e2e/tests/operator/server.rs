//! Temporal servers that don't answer, or refuse.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::{Ground, HostBed, eventually};
use harness::control_plane::free_ports;
use serde_json::json;
use tokio::net::TcpListener;

use super::{fails, orders, runs};

pub async fn a_server_that_does_not_answer_changes_nothing(bed: Arc<HostBed>) -> Result<()> {
    let [port] = free_ports::<1>()?;
    let address = format!("127.0.0.1:{port}");
    let ground = Ground::with_connection(bed.client.clone(), "silent-server", &address).await?;
    let mut fleet = orders();
    fleet["spec"]["scaling"] = json!({"minReplicas": 2, "idleWindow": "1s"});
    ground.apply(&fleet).await?;
    runs(&ground).await?;
    fails(&ground, "TemporalClientCreationFailed", &["does not answer", "spec.hostPort", "nothing is scaled down"])
        .await?;
    let health = ground.has_condition("orders", ("ConnectionHealthy", "False", "TemporalClientCreationFailed")).await;
    ensure!(health.is_ok(), "{health:?}");
    ensure!(ground.condition("orders", "Stalled").await.is_err(), "what heals alone is not Stalled");
    // The lower minimum is no reason to scale down while nobody knows what the fleet does.
    fleet["spec"]["scaling"] = json!({"minReplicas": 0, "idleWindow": "1s"});
    ground.apply(&fleet).await?;
    eventually("the new spec was seen", async || ground.condition("orders", "Ready").await).await?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let replicas = ground.replicas("orders").await?;
    ensure!(replicas == 2, "{replicas} replicas");
    Ok(())
}

pub async fn an_unknown_temporal_namespace_is_named(bed: Arc<HostBed>) -> Result<()> {
    let ground = bed.ground("unknown-namespace").await?;
    let mut fleet = orders();
    fleet["spec"]["workerOptions"]["temporalNamespace"] = json!("no-such-namespace");
    ground.apply(&fleet).await?;
    let parts = ["spec.workerOptions.temporalNamespace", "\"no-such-namespace\"", "create it"];
    fails(&ground, "NamespaceNotFound", &parts).await?;
    ground.has_condition("orders", ("Stalled", "True", "NamespaceNotFound")).await?;
    // The user corrects it.
    ground.apply(&orders()).await?;
    eventually("the server answers", async || {
        ground.has_condition("orders", ("ConnectionHealthy", "True", "ConnectionHealthy")).await
    })
    .await?;
    ensure!(ground.condition("orders", "Stalled").await.is_err(), "it is Stalled still");
    Ok(())
}

pub async fn a_refused_permission_is_said(bed: Arc<HostBed>) -> Result<()> {
    let refuser = Refuser::start().await?;
    let ground = Ground::with_connection(bed.client.clone(), "refused", &refuser.address).await?;
    ground.apply(&orders()).await?;
    let parts = ["credentials", "\"default\"", "you may not", "grant"];
    fails(&ground, "PermissionDenied", &parts).await?;
    ground.has_condition("orders", ("Stalled", "True", "PermissionDenied")).await?;
    Ok(())
}

/// A server that answers every call with PERMISSION_DENIED.
struct Refuser {
    address: String,
    accept: tokio::task::AbortHandle,
}

impl Drop for Refuser {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

impl Refuser {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let accept = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    if let Err(error) = refuse_all(socket).await {
                        eprintln!("refusing server: {error:#}");
                    }
                });
            }
        });
        Ok(Self { address, accept: accept.abort_handle() })
    }
}

async fn refuse_all(socket: tokio::net::TcpStream) -> Result<()> {
    let mut connection = h2::server::handshake(socket).await.context("handshake")?;
    while let Some(request) = connection.accept().await {
        let (_, mut respond) = request?;
        let answer = http::Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "7")
            .header("grpc-message", "you may not")
            .body(())?;
        respond.send_response(answer, true)?;
    }
    Ok(())
}
