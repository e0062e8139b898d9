//! Objects of temporal-worker-controller before 1.7: TemporalWorkerDeployments and TemporalConnections.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use e2e::host::{Operator, install_kinds, install_kinds_but};
use e2e::peer::deployment;
use e2e::wait::within;
use e2e::{Ground, HostBed, eventually};
use harness::ControlPlane;
use harness::tools::{Tool, Tools};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use operator_core::api::{TemporalConnection, TemporalWorkerDeployment, WorkerDeployment, crds};
use operator_core::names::{MIGRATED_LABEL, MIGRATION_GUARD_FINALIZER};
use serde_json::{Value, json};

use super::limited::{ASKED_AGAIN, RELEASE, helm, kubeconfig};
use super::{ORDERS_CHILD, fails, orders, runs};

const NAMESPACE: &str = "old-kinds";
const OLD: [&str; 2] = ["temporalconnections.temporal.io", "temporalworkerdeployments.temporal.io"];

/// The old kinds as they were when objects of them were created.
pub async fn install_old_kinds(client: &Client) -> Result<()> {
    for mut crd in crds() {
        let name = crd["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if !OLD.contains(&name.as_str()) {
            continue;
        }
        let rules = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["x-kubernetes-validations"];
        rules.as_array_mut().context("rules")?.retain(|rule| rule["optionalOldSelf"] != true);
        let kinds = Api::<CustomResourceDefinition>::all(client.clone());
        kinds.patch(&name, &PatchParams::apply("tests").force(), &Patch::Apply(&crd)).await?;
    }
    Ok(())
}

fn old_connection() -> Value {
    json!({"apiVersion": "temporal.io/v1alpha1", "kind": "TemporalConnection", "metadata": {"name": "temporal"},
        "spec": {"hostPort": "temporal:7233"}})
}

pub fn old_fleet(name: &str) -> Value {
    let mut old = orders();
    old["kind"] = json!("TemporalWorkerDeployment");
    old["metadata"]["name"] = json!(name);
    old
}

/// Applies it, as soon as its kind is served without the rule against creations.
async fn create(ground: &Ground, object: &Value) -> Result<String> {
    let created = eventually("the old object is created", async || ground.apply(object).await).await?;
    created.uid().context("no uid")
}

fn because(conditions: &[Condition]) -> Option<(&str, &str)> {
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    Some((&ready.status, &ready.reason))
}

pub async fn fleet_says(ground: &Ground, name: &str, reason: &str) -> Result<TemporalWorkerDeployment> {
    eventually(&format!("{name} says {reason}"), async || {
        let old = ground.api::<TemporalWorkerDeployment>().get(name).await?;
        let conditions = old.status.clone().unwrap_or_default().conditions;
        ensure!(because(&conditions) == Some(("False", reason)), "{conditions:?}");
        Ok(old)
    })
    .await
}

pub async fn connection_says(ground: &Ground, reason: &str) -> Result<TemporalConnection> {
    eventually(&format!("the connection says {reason}"), async || {
        let old = ground.api::<TemporalConnection>().get("temporal").await?;
        let conditions = old.status.clone().unwrap_or_default().conditions;
        ensure!(because(&conditions) == Some(("False", reason)), "{conditions:?}");
        Ok(old)
    })
    .await
}

async fn is_gone<K>(ground: &Ground, name: &str) -> Result<()>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug,
    K::DynamicType: Default,
{
    eventually(&format!("{name} is gone"), async || {
        let left = ground.api::<K>().get_opt(name).await?;
        ensure!(left.is_none(), "{left:?}");
        Ok(())
    })
    .await
}

fn owner(child: &Deployment) -> Result<OwnerReference> {
    ensure!(child.owner_references().len() == 1, "{:?}", child.owner_references());
    Ok(child.owner_references()[0].clone())
}

fn pods(child: &Deployment) -> Result<Value> {
    Ok(serde_json::to_value(child.spec.as_ref().map(|spec| &spec.template))?)
}

/// With a Deployment of its own, a status of the old controller's, and beside it one that owns nothing.
pub async fn create_old_objects(ground: &Ground, address: &str) -> Result<Deployment> {
    create(ground, &old_connection()).await?;
    create(ground, &old_fleet("billing")).await?;
    let uid = create(ground, &old_fleet("orders")).await?;
    let status =
        json!({"status": {"targetVersion": {"buildID": "v1.2.3-45d8", "status": "Current"}, "versionCount": 1}});
    let fleets = ground.api::<TemporalWorkerDeployment>();
    fleets.patch_status("orders", &PatchParams::default(), &Patch::Merge(status)).await?;
    let template = &orders()["spec"]["template"];
    let mut child = deployment(&uid, (&ground.namespace, address), template, "v1.2.3-45d8")?;
    child["metadata"]["ownerReferences"][0]["kind"] = json!("TemporalWorkerDeployment");
    let params = PostParams { field_manager: Some("manager".into()), ..PostParams::default() };
    let child = serde_json::from_value(child)?;
    // An API server that checks who sets owners takes half a minute to know of a new kind.
    eventually("its Deployment is created", async || Ok(ground.api::<Deployment>().create(&params, &child).await?))
        .await
}

/// Once the kinds are today's, objects of the old ones are only changed.
async fn can_not_be_created(ground: &Ground) -> Result<()> {
    eventually("the kinds are today's", async || {
        for (object, message) in [
            (old_fleet("more"), "TemporalWorkerDeployment is deprecated and cannot be created. Use WorkerDeployment"),
            (old_connection(), "TemporalConnection is deprecated and cannot be created. Use Connection"),
        ] {
            let params = PostParams { dry_run: true, ..PostParams::default() };
            let mut object: kube::api::DynamicObject = serde_json::from_value(object)?;
            object.metadata.name = Some("more".into());
            let manifest =
                json!({"apiVersion": "temporal.io/v1alpha1", "kind": object.types.clone().context("no kind")?.kind});
            let refused = ground.objects(&manifest).create(&params, &object).await.err().context("it is created")?;
            ensure!(refused.to_string().contains(message), "{refused}");
        }
        Ok(())
    })
    .await?;
    let mut changed = old_fleet("billing");
    changed["spec"]["replicas"] = json!(3);
    ground.apply(&changed).await.map(|_| ())
}

/// Both get the finalizer, and stay with what they say when they are deleted before they are handed over.
async fn is_kept_when_it_is_deleted_too_early(ground: &Ground) -> Result<()> {
    for name in ["orders", "billing"] {
        let old = fleet_says(ground, name, "Deprecated").await?;
        ensure!(old.finalizers() == [MIGRATION_GUARD_FINALIZER], "{:?}", old.finalizers());
    }
    let old = connection_says(ground, "Deprecated").await?;
    ensure!(old.finalizers() == [MIGRATION_GUARD_FINALIZER], "{:?}", old.finalizers());

    ground.api::<TemporalWorkerDeployment>().delete("orders", &Default::default()).await?;
    ground.api::<TemporalConnection>().delete("temporal", &Default::default()).await?;
    let old = fleet_says(ground, "orders", "DeletingPendingMigration").await?;
    let status = old.status.unwrap_or_default();
    ensure!(status.version_count == Some(1) && status.target_version.version.build_id == "v1.2.3-45d8", "{status:?}");
    connection_says(ground, "DeletingPendingMigration").await.map(|_| ())
}

/// The note of a plan that there is something to hand over first.
const HANDED_OVER_FIRST: &str = "TemporalWorkerDeployment orders still owns 1 object(s): first they are handed over";

/// What `plan` prints of a fleet that is not stored, in `folder`.
fn planned(bed: &HostBed, control_plane: &ControlPlane, folder: &Path) -> Result<String> {
    let mut fleet = orders();
    fleet["metadata"]["namespace"] = json!(NAMESPACE);
    let file = folder.join("orders.json");
    std::fs::write(&file, fleet.to_string())?;
    let output = Command::new(bed.programs.program("temporal-worker-operator")?)
        .env("KUBECONFIG", control_plane.kubeconfig_path())
        .args(["plan", "-f"])
        .arg(&file)
        .output()?;
    let said = String::from_utf8([output.stdout, output.stderr].concat())?;
    ensure!(output.status.code().is_some_and(|code| code != 1), "{said}");
    Ok(said)
}

/// Of the Deployment `made` the owner alone was written, once: the WorkerDeployment of this UID.
async fn has_another_owner_and_nothing_else(
    ground: &Ground,
    control_plane: &ControlPlane,
    made: &Deployment,
    uid: &str,
) -> Result<()> {
    let child = ground.api::<Deployment>().get(ORDERS_CHILD).await?;
    let expected = OwnerReference { kind: "WorkerDeployment".into(), uid: uid.to_owned(), ..owner(made)? };
    ensure!(owner(&child)? == expected, "{:?}", child.owner_references());
    ensure!((child.uid(), child.metadata.generation) == (made.uid(), made.metadata.generation), "{:?}", child.metadata);
    ensure!(child.spec == made.spec, "{:?}", child.spec);
    let events = control_plane.audit_events()?;
    let writes: Vec<_> = events
        .iter()
        .filter(|event| event.namespace == NAMESPACE && event.resource == "deployments" && event.code < 300)
        .filter(|event| ["patch", "update", "delete"].contains(&event.verb.as_str()))
        .collect();
    ensure!(writes.len() == 1, "{writes:?}");
    Ok(())
}

pub async fn a_fleet_of_the_old_kind_is_handed_over_and_goes_only_then(bed: Arc<HostBed>) -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    let client = control_plane.client();
    install_kinds(&client).await?;
    install_old_kinds(&client).await?;
    let ground = Ground::bare(client.clone(), NAMESPACE).await?;
    let address = bed.server.host_port();
    let made = create_old_objects(&ground, &address).await?;
    install_kinds(&client).await?;
    can_not_be_created(&ground).await?;
    let folder = tempfile::tempdir()?;
    let plan = planned(&bed, &control_plane, folder.path())?;
    ensure!(plan.contains(HANDED_OVER_FIRST), "{plan}");

    // With the rights of the chart's account.
    let tools = Tools::ensure_async(&[Tool::Helm]).await?;
    let namespaces = format!("rbac.restrictWatchNamespaces={{{NAMESPACE}}}");
    helm(&tools, &control_plane, &["--set", &namespaces])?;
    let watched = format!("--watch-namespaces={NAMESPACE}");
    let flags = [watched.as_str(), "--pod-namespace", RELEASE];
    let operator = Operator::start(&bed.programs, &kubeconfig(&control_plane, folder.path())?, &flags).await?;

    is_kept_when_it_is_deleted_too_early(&ground).await?;
    // A new fleet gets it, whether it can run yet or not: here it has no Connection.
    let uid = ground.apply(&orders()).await?.uid().context("no uid")?;
    is_gone::<TemporalWorkerDeployment>(&ground, "orders").await?;
    fails(&ground, "ConnectionNotFound", &[]).await?;
    has_another_owner_and_nothing_else(&ground, &control_plane, &made, &uid).await?;
    let plan = planned(&bed, &control_plane, folder.path())?;
    ensure!(!plan.contains("handed over"), "{plan}");
    eventually("the hand-over is said", async || {
        let events = ground.events("orders").await?;
        let said = events.iter().filter(|(reason, note)| reason == "HandedOver" && note.starts_with("1 object(s) of"));
        ensure!(said.count() == 1, "{events:?}");
        Ok(())
    })
    .await?;

    // And runs it as it is.
    ground.connect(&address).await?;
    is_gone::<TemporalConnection>(&ground, "temporal").await?;
    eventually("it is the target", async || {
        let target = ground.status("orders").await?.target_version;
        ensure!(target.version.build_id == "v1.2.3-45d8" && target.version.deployment.is_some(), "{target:?}");
        Ok(())
    })
    .await?;
    let child = runs(&ground).await?;
    ensure!(child.uid() == made.uid() && pods(&child)? == pods(&made)?, "{:?}", child.spec);
    ensure!(owner(&child)?.uid == uid, "{:?}", child.owner_references());

    // One that is not deleted is labelled, says that it may be, and then goes at once.
    let mut fleet = orders();
    fleet["metadata"]["name"] = json!("billing");
    ground.apply(&fleet).await?;
    let old = fleet_says(&ground, "billing", "MigratedToWorkerDeployment").await?;
    ensure!(old.labels().get(MIGRATED_LABEL).map(String::as_str) == Some("true"), "{:?}", old.labels());
    ground.api::<TemporalWorkerDeployment>().delete("billing", &Default::default()).await?;
    is_gone::<TemporalWorkerDeployment>(&ground, "billing").await?;
    ensure!(ground.api::<WorkerDeployment>().get("billing").await?.metadata.deletion_timestamp.is_none());
    operator.kill()?;
    drop(ground);
    control_plane.stop()
}

pub async fn without_the_old_kinds_all_else_goes_on_and_later_they_are_found(bed: Arc<HostBed>) -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    let client = control_plane.client();
    install_kinds_but(&client, &OLD).await?;
    let operator = Operator::start(&bed.programs, control_plane.kubeconfig_path(), &[]).await?;
    let ground = Ground::with_connection(client.clone(), NAMESPACE, &bed.server.host_port()).await?;
    ground.apply(&orders()).await?;
    runs(&ground).await?;

    install_old_kinds(&client).await?;
    create(&ground, &old_fleet("billing")).await?;
    within(ASKED_AGAIN, "it is found", async || fleet_says(&ground, "billing", "Deprecated").await).await?;
    let told = operator.log()?.matches("deprecated kind not watched").count();
    ensure!(told == OLD.len(), "it says {told} times that they are not watched");
    operator.kill()?;
    drop(ground);
    control_plane.stop()
}
