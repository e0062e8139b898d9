//! An operator that is newer than the kinds: what it would write would lose its fields.

use std::process::{Child, Command};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use e2e::host::install_kinds;
use e2e::{Ground, HostBed, eventually};
use harness::ControlPlane;
use harness::control_plane::free_ports;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{Patch, PatchParams};
use operator_core::api::Connection;
use serde_json::json;

use super::{orders, runs};

const FLEETS: &str = "workerdeployments.temporal.io";
const FIELD: &str = "WorkerDeployment.spec.deletionPolicy";

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

pub async fn nothing_is_written_before_the_fields_are_served(bed: Arc<HostBed>) -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    let client = control_plane.client();
    install_kinds(&client).await?;
    let kinds = Api::<CustomResourceDefinition>::all(client.clone());
    let without = json!([{"op": "remove",
        "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/deletionPolicy"}]);
    let without: Patch<()> = Patch::Json(serde_json::from_value(without)?);
    kinds.patch(FLEETS, &PatchParams::default(), &without).await?;
    let ground = Ground::with_connection(client.clone(), "older-fields", &bed.server.host_port()).await?;
    ground.apply(&orders()).await?;
    eventually("the document lacks the field too", async || {
        let request = http::Request::get("/openapi/v3/apis/temporal.io/v1alpha1").body(Vec::new())?;
        ensure!(!client.request_text(request).await?.contains("\"deletionPolicy\""));
        Ok(())
    })
    .await?;

    let (folder, [metrics, probes]) = (tempfile::tempdir()?, free_ports()?);
    let log = folder.path().join("log");
    let process = Command::new(bed.programs.program("temporal-worker-operator")?)
        .env("KUBECONFIG", control_plane.kubeconfig_path())
        .arg(format!("--metrics-bind-address=127.0.0.1:{metrics}"))
        .arg(format!("--health-probe-bind-address=127.0.0.1:{probes}"))
        .stderr(std::fs::File::create(&log)?)
        .spawn()?;
    let process = Process(process);
    eventually("the operator says what is missing", async || {
        let said = std::fs::read_to_string(&log)?;
        ensure!(said.contains(FIELD), "{said}");
        Ok(())
    })
    .await?;
    let ready = reqwest::get(format!("http://127.0.0.1:{probes}/readyz")).await?.status();
    ensure!(!ready.is_success(), "it is ready: {ready}");
    let fleet = ground.fleet("orders").await?;
    ensure!(fleet.metadata.finalizers.is_none() && fleet.status.is_none(), "it wrote: {fleet:?}");
    let connection = ground.api::<Connection>().list(&Default::default()).await?;
    ensure!(connection.items.iter().all(|it| it.metadata.finalizers.is_none()), "it wrote: {connection:?}");
    ensure!(ground.children("orders").await?.is_empty(), "it made a Deployment");

    install_kinds(&client).await?;
    runs(&ground).await.with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
    drop((process, ground));
    control_plane.stop()
}
