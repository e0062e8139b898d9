//! Manifests that the schema accepts and nobody can run.

use std::sync::Arc;

use anyhow::{Result, ensure};
use e2e::host::{Operator, install_kinds};
use e2e::{Ground, HostBed, eventually};
use harness::ControlPlane;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use operator_core::api::WorkerDeployment;
use serde_json::json;

use super::{is_blocked, orders, runs};

pub async fn a_template_without_containers_is_refused(bed: Arc<HostBed>) -> Result<()> {
    let ground = bed.ground("no-containers").await?;
    let mut fleet = orders();
    fleet["spec"]["template"]["spec"]["containers"] = json!([]);
    ground.apply(&fleet).await?;
    is_blocked(&ground, "InvalidSpec", &["spec.template.spec.containers", "is empty", "name the Worker's container"])
        .await
}

pub async fn a_name_with_a_dot_is_refused(bed: Arc<HostBed>) -> Result<()> {
    let ground = bed.ground("dotted").await?;
    let mut fleet = orders();
    fleet["metadata"]["name"] = json!("orders.eu");
    ground.apply(&fleet).await?;
    let message = eventually("it is refused", async || {
        ground.has_condition("orders.eu", ("Stalled", "True", "InvalidSpec")).await
    })
    .await?;
    super::says(&message, &["metadata.name", "\"orders.eu\"", "use dashes"])?;
    ensure!(ground.children("orders.eu").await?.is_empty(), "it has a Deployment");
    // Without Worker Versioning the server never hears of the name.
    let spec = fleet["spec"].as_object_mut().expect("an object");
    spec.insert("versioning".into(), json!("Disabled"));
    ground.apply(&fleet).await?;
    let child = eventually("it has its Deployment", async || ground.child("orders.eu").await).await?;
    ensure!(child.name_any() == "orders.eu", "{}", child.name_any());
    Ok(())
}

pub async fn a_stored_object_that_can_not_be_read_stops_nobody_else(bed: Arc<HostBed>) -> Result<()> {
    // An API server of its own: an earlier schema, under which such an object could be stored, would be everybody's.
    let control_plane = ControlPlane::start().await?;
    let client = control_plane.client();
    install_kinds(&client).await?;
    let kind = "workerdeployments.temporal.io";
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let loose = json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema",
        "value": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}]);
    let loose: Patch<serde_json::Value> = Patch::Json(serde_json::from_value(loose)?);
    crds.patch(kind, &PatchParams::default(), &loose).await?;
    let ground = Ground::with_connection(client.clone(), "unreadable", &bed.server.host_port()).await?;
    let mut unreadable = orders();
    unreadable["metadata"]["name"] = json!("a-first");
    unreadable["spec"] = json!({"workerOptions": 5, "replicas": "many"});
    eventually("it is stored", async || ground.apply(&unreadable).await).await?;
    install_kinds(&client).await?;

    let operator = Operator::start(&bed.programs, control_plane.kubeconfig_path(), &[]).await?;
    ground.apply(&orders()).await?;
    runs(&ground).await?;
    eventually("the log names it", async || {
        let log = operator.log()?;
        ensure!(log.contains("can't be read") && log.contains("a-first"), "{log}");
        Ok(())
    })
    .await?;
    let read = ground.api::<WorkerDeployment>().get("a-first").await;
    ensure!(read.is_err(), "the object can be read: the fault is none");
    let mut corrected = orders();
    corrected["spec"]["replicas"] = json!(null);
    // An apply would have to read what is stored.
    let corrected: Patch<serde_json::Value> = Patch::Merge(json!({"spec": corrected["spec"]}));
    ground.objects(&unreadable).patch("a-first", &PatchParams::default(), &corrected).await?;
    eventually("the corrected one runs", async || ground.child("a-first").await).await?;
    operator.kill()?;
    drop(ground);
    control_plane.stop()
}
