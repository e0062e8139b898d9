//! An operator that is newer than the kinds: what it would write would lose its fields.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use e2e::host::install_kinds;
use e2e::{Ground, HostBed, eventually};
use harness::ControlPlane;
use harness::control_plane::free_ports;
use harness::programs::source_root;
use harness::tools::{Tool, Tools};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use operator_core::api::{Connection, WorkerDeployment, crds};
use serde_json::json;
use tempfile::TempDir;

use super::{orders, runs};

const FLEETS: &str = "workerdeployments.temporal.io";
const FIELDS: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
const FIELD: &str = "deletionPolicy";
const CHART: &str = "charts/temporal-worker-operator-crds";

/// An operator that is not ready; it ends with the test.
struct Unready {
    process: Child,
    folder: TempDir,
    probes: u16,
}

impl Drop for Unready {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

impl Unready {
    fn start(bed: &HostBed, control_plane: &ControlPlane) -> Result<Self> {
        let (folder, [metrics, probes]) = (tempfile::tempdir()?, free_ports()?);
        let process = Command::new(bed.programs.program("temporal-worker-operator")?)
            .env("KUBECONFIG", control_plane.kubeconfig_path())
            .arg(format!("--metrics-bind-address=127.0.0.1:{metrics}"))
            .arg(format!("--health-probe-bind-address=127.0.0.1:{probes}"))
            .stderr(std::fs::File::create(folder.path().join("log"))?)
            .spawn()?;
        Ok(Self { process, folder, probes })
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Waits until it names the field that is missing: it is not ready, and has written nothing.
    async fn waits(&self, ground: &Ground) -> Result<()> {
        eventually("the operator says what is missing", async || {
            let said = self.log();
            ensure!(said.contains(&format!("WorkerDeployment.spec.{FIELD}")), "{said}");
            Ok(())
        })
        .await?;
        let ready = reqwest::get(format!("http://127.0.0.1:{}/readyz", self.probes)).await?.status();
        ensure!(!ready.is_success(), "it is ready: {ready}");
        let fleet = ground.fleet("orders").await?;
        ensure!(fleet.metadata.finalizers.is_none() && fleet.status.is_none(), "it wrote: {fleet:?}");
        let connection = ground.api::<Connection>().list(&ListParams::default()).await?;
        ensure!(connection.items.iter().all(|it| it.metadata.finalizers.is_none()), "it wrote: {connection:?}");
        ensure!(ground.children("orders").await?.is_empty(), "it made a Deployment");
        Ok(())
    }
}

/// Waits until the document that the operator reads lacks the field too.
async fn is_missing(client: &Client) -> Result<()> {
    eventually("the document has the kinds, and not the field", async || {
        let request = http::Request::get("/openapi/v3/apis/temporal.io/v1alpha1").body(Vec::new())?;
        let document = client.request_text(request).await?;
        ensure!(document.contains("WorkerDeployment") && !document.contains(&format!("\"{FIELD}\"")));
        Ok(())
    })
    .await
}

pub async fn nothing_is_written_before_the_fields_are_served(bed: Arc<HostBed>) -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    let client = control_plane.client();
    install_kinds(&client).await?;
    let kinds = Api::<CustomResourceDefinition>::all(client.clone());
    let without = json!([{"op": "remove", "path": format!("{FIELDS}/{FIELD}")}]);
    let without: Patch<()> = Patch::Json(serde_json::from_value(without)?);
    kinds.patch(FLEETS, &PatchParams::default(), &without).await?;
    let ground = Ground::with_connection(client.clone(), "older-fields", &bed.server.host_port()).await?;
    ground.apply(&orders()).await?;
    is_missing(&client).await?;

    let operator = Unready::start(&bed, &control_plane)?;
    operator.waits(&ground).await?;
    install_kinds(&client).await?;
    runs(&ground).await.with_context(|| operator.log())?;
    drop((operator, ground));
    control_plane.stop()
}

/// A chart with the kinds of an older release: without a field of ours, and nothing that keeps them when it is uninstalled.
fn older_chart(folder: &Path) -> Result<PathBuf> {
    let (from, to) = (source_root().join(CHART), folder.join("older-crds"));
    std::fs::create_dir_all(to.join("templates"))?;
    for file in ["Chart.yaml", "values.yaml", "values.schema.json"] {
        std::fs::copy(from.join(file), to.join(file))?;
    }
    for mut crd in crds() {
        let name = crd["metadata"]["name"].as_str().context("a kind without a name")?.to_owned();
        if name == FLEETS {
            let fields = crd.pointer_mut(FIELDS).and_then(|fields| fields.as_object_mut()).context("no fields")?;
            fields.remove(FIELD).context("no such field")?;
        }
        std::fs::write(to.join("templates").join(format!("{name}.yaml")), crd.to_string())?;
    }
    Ok(to)
}

fn helm(tools: &Tools, control_plane: &ControlPlane, arguments: &[&str]) -> Result<String> {
    let mut command = tools.command("helm")?;
    command.current_dir(source_root()).args(arguments).env("KUBECONFIG", control_plane.kubeconfig_path());
    let output = command.output()?;
    ensure!(output.status.success(), "helm {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

pub async fn nothing_is_written_before_helm_has_taken_over_an_older_releases_kinds(bed: Arc<HostBed>) -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    let client = control_plane.client();
    let (tools, folder) = (Tools::ensure_async(&[Tool::Helm]).await?, tempfile::tempdir()?);
    let run = |arguments: &[&str]| helm(&tools, &control_plane, arguments);
    let older = older_chart(folder.path())?.display().to_string();
    run(&["install", "twc-crds", &older, "--namespace", "old", "--create-namespace"])?;
    eventually("the kinds are served", async || {
        Api::<Connection>::all(client.clone()).list(&ListParams::default()).await?;
        Ok(Api::<WorkerDeployment>::all(client.clone()).list(&ListParams::default()).await.map(|_| ())?)
    })
    .await?;
    let ground = Ground::with_connection(client.clone(), "older-release", &bed.server.host_port()).await?;
    let uid = ground.apply(&orders()).await?.uid();
    is_missing(&client).await?;
    let operator = Unready::start(&bed, &control_plane)?;
    operator.waits(&ground).await?;

    // As docs/migrate-from-go-controller.md has it.
    run(&["upgrade", "--install", "kinds", CHART, "--take-ownership", "--force-conflicts"])?;
    let child = runs(&ground).await.with_context(|| operator.log())?;
    // This Helm asks who owns what it deletes; of older ones, the api_install tests show how to make them forget the release.
    run(&["uninstall", "twc-crds", "--namespace", "old"])?;
    let releases = run(&["list", "--all-namespaces", "--short"])?;
    ensure!(releases.split_whitespace().eq(["kinds"]), "releases: {releases}");
    run(&["uninstall", "kinds"])?;
    let kind = Api::<CustomResourceDefinition>::all(client).get(FLEETS).await?;
    ensure!(kind.metadata.deletion_timestamp.is_none(), "the kind is being deleted");
    let fleet = ground.fleet("orders").await?;
    ensure!(fleet.uid() == uid && fleet.metadata.deletion_timestamp.is_none(), "it goes, or is another one: {fleet:?}");
    ensure!(ground.child("orders").await?.uid() == child.uid(), "its Deployment is another one");
    drop((operator, ground));
    control_plane.stop()
}
