//! WorkerResourceTemplates: their copies.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::host::{Operator, install_kinds};
use e2e::wait::within;
use e2e::worker::Worker;
use e2e::{Ground, HostBed, eventually};
use harness::ControlPlane;
use harness::programs::source_root;
use harness::tools::{Tool, Tools};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt as _};
use operator_core::api::{WorkerDeployment, WorkerResourceTemplate, WorkerResourceTemplateStatus};
use operator_core::resource_template::copy_name;
use serde_json::{Value, json};

use super::attach::{build_id, three_versions};
use super::limited::kubeconfig;
use super::{ORDERS_CHILD, orders, runs};

const RELEASE: &str = "temporal-worker-operator";
/// The policy of the chart.
pub const POLICY: &str = "temporal-worker-operator-temporal-worker-operator-resource-templates";
const KINDS: &str = "HorizontalPodAutoscaler,PodDisruptionBudget,ConfigMap,ScaledObject";
pub const BUILD_ID: &str = "v1.2.3-45d8";
/// Copies are looked at once a minute.
pub const LOOKED_AT: Duration = Duration::from_secs(150);

/// An API server with the chart, which allows four kinds, and an operator with the chart's rights.
pub struct World {
    pub control_plane: ControlPlane,
    operator: Option<Operator>,
    pub ground: Ground,
    /// Of the operator's kubeconfig.
    folder: tempfile::TempDir,
}

impl World {
    pub async fn without_operator(bed: &HostBed, namespace: &str) -> Result<Self> {
        let control_plane = ControlPlane::start().await?;
        let client = control_plane.client();
        install_kinds(&client).await?;
        install_scaled_objects(&client).await?;
        helm(&control_plane).await?;
        let ground = Ground::with_connection(client, namespace, &bed.server.host_port()).await?;
        let world = Self { control_plane, operator: None, ground, folder: tempfile::tempdir()? };
        eventually("the policy is in force", async || {
            let refused = world.ground.apply(&template("secret", json!({"apiVersion": "v1", "kind": "Secret"}))).await;
            if refused.is_ok() {
                // What is there is not refused when it is applied again.
                world.ground.api::<WorkerResourceTemplate>().delete("secret", &DeleteParams::default()).await?;
            }
            ensure!(refused.is_err_and(|error| format!("{error:#}").contains("not allowed")));
            Ok(())
        })
        .await?;
        Ok(world)
    }

    async fn new(bed: &HostBed, namespace: &str) -> Result<Self> {
        let mut world = Self::without_operator(bed, namespace).await?;
        let flags = [&format!("--allowed-kinds={KINDS}"), &format!("--resource-template-policy={POLICY}")];
        let flags = [flags[0].as_str(), flags[1].as_str(), "--pod-namespace", RELEASE];
        let rights = kubeconfig(&world.control_plane, world.folder.path())?;
        world.operator = Some(Operator::start(&bed.programs, &rights, &flags).await?);
        Ok(world)
    }

    pub fn stop(self) -> Result<()> {
        let Self { control_plane, operator, ground, .. } = self;
        drop(ground);
        operator.map(Operator::kill).transpose()?;
        control_plane.stop()
    }

    async fn copy(&self, kind: &Value, template: &str, build_id: &str) -> Result<Value> {
        let copy = self.ground.objects(kind).get(&copy_name("orders", template, build_id)).await?;
        Ok(serde_json::to_value(copy)?)
    }
}

async fn install_scaled_objects(client: &Client) -> Result<()> {
    let crd: Value = serde_yaml::from_str(include_str!("../../data/keda_scaledobject_crd.yaml"))?;
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = "scaledobjects.keda.sh";
    api.patch(name, &PatchParams::apply("tests").force(), &Patch::Apply(&crd)).await?;
    tokio::time::timeout(e2e::wait::SOON, await_condition(api, name, is_crd_established())).await??;
    Ok(())
}

async fn helm(control_plane: &ControlPlane) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let values = folder.path().join("values.yaml");
    let entry = |kind: &str, group: &str| json!({"kinds": [kind], "apiGroups": [group], "resources": [plural(kind)]});
    let allowed = [
        entry("HorizontalPodAutoscaler", "autoscaling"),
        entry("PodDisruptionBudget", "policy"),
        entry("ConfigMap", ""),
        entry("ScaledObject", "keda.sh"),
    ];
    std::fs::write(&values, json!({"workerResourceTemplate": {"allowedResources": allowed}}).to_string())?;
    let tools = Tools::ensure_async(&[Tool::Helm]).await?;
    let output = tools
        .command("helm")?
        .current_dir(source_root())
        .env("KUBECONFIG", control_plane.kubeconfig_path())
        .args(["install", RELEASE, "charts/temporal-worker-operator", "--namespace", RELEASE, "--create-namespace"])
        .arg("--values")
        .arg(&values)
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn plural(kind: &str) -> String {
    format!("{}s", kind.to_ascii_lowercase())
}

pub fn template(name: &str, object: Value) -> Value {
    json!({"apiVersion": "temporal.io/v1alpha1", "kind": "WorkerResourceTemplate", "metadata": {"name": name},
        "spec": {"workerDeploymentRef": {"name": "orders"}, "template": object}})
}

pub fn hpa() -> Value {
    let metric = json!({"name": "backlog", "selector": {"matchLabels": {"queue": "orders"}}});
    json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "spec": {"scaleTargetRef": {}, "minReplicas": 1, "maxReplicas": 5, "metrics": [
            {"type": "External", "external": {"metric": metric, "target": {"type": "AverageValue", "averageValue": "0.5"}}}]}})
}

fn budget() -> Value {
    json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {}}}})
}

fn map() -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"note": "kept"}})
}

fn scaled_object() -> Value {
    let metadata = json!({"endpoint": "temporal:7233", "workerDeploymentName": "", "workerDeploymentBuildId": "", "namespace": ""});
    json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
        "spec": {"scaleTargetRef": {}, "triggers": [{"type": "temporal", "metadata": metadata}]}})
}

async fn status(ground: &Ground, name: &str) -> Result<WorkerResourceTemplateStatus> {
    let found = ground.api::<WorkerResourceTemplate>().get(name).await?;
    let status = found.status.context("no status yet")?;
    let ready = status.conditions.first().context("no condition yet")?;
    ensure!(ready.observed_generation == found.metadata.generation, "the status is of an older generation");
    Ok(status)
}

/// Waits for a template to be ready or not, for a reason that names each of `parts`.
pub async fn says(ground: &Ground, name: &str, reason: &str, parts: &[&str]) -> Result<WorkerResourceTemplateStatus> {
    within(LOOKED_AT, &format!("{name} says {reason}"), async || {
        let status = status(ground, name).await?;
        let ready = &status.conditions[0];
        ensure!(ready.reason == reason && parts.iter().all(|part| ready.message.contains(part)), "{ready:?}");
        Ok(status)
    })
    .await
}

/// Waits until a template has copies for just these versions.
async fn has_copies(world: &World, name: &str, kind: &Value, build_ids: &[&str]) -> Result<()> {
    within(LOOKED_AT, &format!("{name} has copies for {build_ids:?}"), async || {
        let status = says(&world.ground, name, "AllVersionsApplied", &[]).await?;
        let mut is: Vec<_> = status.versions.iter().map(|version| version.build_id.as_str()).collect();
        let mut wanted = build_ids.to_vec();
        is.sort_unstable();
        wanted.sort_unstable();
        ensure!(is == wanted, "{is:?}");
        for build_id in &wanted {
            world.copy(kind, name, build_id).await?;
        }
        let there = world.ground.objects(kind).list(&Default::default()).await?.items;
        let own = |copy: &&kube::api::DynamicObject| copy.owner_references().iter().any(|owner| owner.name == name);
        ensure!(there.iter().filter(own).count() == wanted.len(), "{} objects", there.len());
        Ok(())
    })
    .await
}

pub async fn every_version_gets_a_copy_of_each_kind_and_drift_is_mended(bed: Arc<HostBed>) -> Result<()> {
    let world = World::new(&bed, "templates").await?;
    let ground = &world.ground;
    let early = template("early", map());
    ground.apply(&early).await?;
    says(ground, "early", "WorkerDeploymentNotFound", &["\"orders\"", "namespace templates"]).await?;
    ground.apply(&orders()).await?;
    runs(ground).await?;
    for (name, object) in [("hpa", hpa()), ("pdb", budget()), ("map", map()), ("keda", scaled_object())] {
        ground.apply(&template(name, object.clone())).await?;
        has_copies(&world, name, &object, &[BUILD_ID]).await?;
    }
    has_copies(&world, "early", &map(), &[BUILD_ID]).await?;
    are_filled_in(&world).await?;

    // What fails is the template's own.
    let broken = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"number": 1}});
    ground.apply(&template("broken", broken)).await?;
    let failed = says(ground, "broken", "ApplyFailed", &[BUILD_ID, "ConfigMap"]).await?;
    ensure!(failed.versions[0].apply_error.is_some(), "{failed:?}");
    eventually("the fleet goes on", async || {
        ground.has_condition("orders", ("Ready", "False", "WaitingForPollers")).await
    })
    .await?;

    let copies = ground.objects(&hpa());
    let name = copy_name("orders", "hpa", BUILD_ID);
    let drift = Patch::Merge(json!({"spec": {"maxReplicas": 50}}));
    copies.patch(&name, &PatchParams::default(), &drift).await?;
    ground.objects(&map()).delete(&copy_name("orders", "map", BUILD_ID), &DeleteParams::default()).await?;
    within(LOOKED_AT, "both are mended", async || {
        ensure!(world.copy(&hpa(), "hpa", BUILD_ID).await?["spec"]["maxReplicas"] == 5);
        world.copy(&map(), "map", BUILD_ID).await.map(drop)
    })
    .await?;

    let mut fleet = orders();
    fleet["spec"]["template"]["spec"]["containers"][0]["image"] = json!("ghcr.io/acme/worker:v2");
    ground.apply(&fleet).await?;
    let second = eventually("the second version has its Deployment", async || {
        let children = ground.children("orders").await?;
        ensure!(children.len() == 2, "{:?}", children.keys());
        children.into_iter().find(|(name, _)| name != ORDERS_CHILD).map(|(_, child)| build_id(&child)).context("none")
    })
    .await?;
    for (name, kind) in [("hpa", hpa()), ("pdb", budget())] {
        has_copies(&world, name, &kind, &[BUILD_ID, &second]).await?;
    }
    is_written_no_more_than_needed(&world)?;
    world.stop()
}

async fn are_filled_in(world: &World) -> Result<()> {
    let scaler = world.copy(&hpa(), "hpa", BUILD_ID).await?;
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": ORDERS_CHILD});
    ensure!(scaler["spec"]["scaleTargetRef"] == target, "{scaler}");
    let labels = &scaler["spec"]["metrics"][0]["external"]["metric"]["selector"]["matchLabels"];
    ensure!(labels["temporal_worker_deployment_name"] == "templates_orders", "{labels}");
    let managers = scaler["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    ensure!(managers.iter().all(|one| one["manager"] == "temporal-worker-controller"), "{managers:?}");
    let selector = &world.copy(&budget(), "pdb", BUILD_ID).await?["spec"]["selector"]["matchLabels"];
    let own = json!({"temporal.io/deployment-name": "orders", "temporal.io/build-id": BUILD_ID});
    ensure!(*selector == own, "{selector}");
    let keda = world.copy(&scaled_object(), "keda", BUILD_ID).await?;
    ensure!(keda["spec"]["scaleTargetRef"] == target, "{keda}");
    let trigger = json!({"endpoint": "temporal:7233", "workerDeploymentName": "templates/orders",
        "workerDeploymentBuildId": BUILD_ID, "namespace": "default"});
    ensure!(keda["spec"]["triggers"][0]["metadata"] == trigger, "{keda}");
    let wrt = world.ground.api::<WorkerResourceTemplate>().get("hpa").await?;
    let fleet = world.ground.api::<WorkerDeployment>().get("orders").await?;
    let owners = wrt.owner_references();
    ensure!(owners.len() == 1 && Some(&owners[0].uid) == fleet.metadata.uid.as_ref(), "{owners:?}");
    ensure!(keda["metadata"]["ownerReferences"][0]["uid"].as_str() == world_uid(world, "keda").await?.as_deref());
    Ok(())
}

async fn world_uid(world: &World, template: &str) -> Result<Option<String>> {
    Ok(world.ground.api::<WorkerResourceTemplate>().get(template).await?.metadata.uid)
}

/// Rights are enough, and a copy that stands as it should is not written again, though the API server writes its numbers in another
/// way.
fn is_written_no_more_than_needed(world: &World) -> Result<()> {
    let events = world.control_plane.audit_events()?;
    let refused: Vec<_> = events.iter().filter(|event| event.code == 403 && event.name != "secret").collect();
    ensure!(refused.is_empty(), "{refused:?}");
    let patches: Vec<_> =
        events.iter().filter(|event| event.resource == "horizontalpodautoscalers" && event.verb == "patch").collect();
    // The copies of two versions, the test's own change, and its mending.
    ensure!(patches.len() <= 4, "{patches:?}");
    Ok(())
}

pub async fn roles_and_the_owner_of_replicas_decide_which_copies_there_are(bed: Arc<HostBed>) -> Result<()> {
    let world = World::new(&bed, "template-roles").await?;
    let ground = &world.ground;
    let [current, _, target] = three_versions(&bed, ground).await?;
    let id = async |child: &str| anyhow::Ok(build_id(&ground.api::<Deployment>().get(child).await?));
    let (current, target) = (id(&current).await?, id(&target).await?);
    let mut by_role = template("current-only", map());
    by_role["spec"]["roles"] = json!(["Current"]);
    ground.apply(&by_role).await?;
    has_copies(&world, "current-only", &map(), &[&current]).await?;
    let mut drained = template("draining-only", map());
    drained["spec"]["roles"] = json!(["Draining"]);
    ground.apply(&drained).await?;
    has_copies(&world, "draining-only", &map(), &[]).await?;
    let worker = Worker::of(&bed.server.host_port(), "default", &ground.namespace)?;
    worker.register(&format!("{}/orders", ground.namespace), &target).await?;
    worker.make_current().await?;
    has_copies(&world, "current-only", &map(), &[&target]).await?;
    has_copies(&world, "draining-only", &map(), &[&current]).await?;

    ground.apply(&template("scaler", hpa())).await?;
    says(ground, "scaler", "AllVersionsApplied", &[]).await?;
    world.copy(&hpa(), "scaler", &target).await?;
    let fleets = ground.api::<WorkerDeployment>();
    let scaling = Patch::Merge(json!({"spec": {"scaling": {"maxReplicas": 3}}}));
    fleets.patch("orders", &PatchParams::default(), &scaling).await?;
    let refused = says(ground, "scaler", "ReplicasOwnedByScaling", &["spec.scaling", "one owner"]).await?;
    ensure!(refused.versions.is_empty(), "{refused:?}");
    let left = ground.objects(&hpa()).list(&Default::default()).await?.items;
    ensure!(left.is_empty(), "{left:?}");
    says(ground, "current-only", "AllVersionsApplied", &[]).await?;
    let only_tries = Patch::Merge(json!({"spec": {"scaling": {"dryRun": true}}}));
    fleets.patch("orders", &PatchParams::default(), &only_tries).await?;
    says(ground, "scaler", "AllVersionsApplied", &[]).await?;
    world.copy(&hpa(), "scaler", &target).await?;
    world.stop()
}

pub async fn without_the_policy_they_are_off(bed: Arc<HostBed>) -> Result<()> {
    let ground = bed.ground("templates-off").await?;
    ground.apply(&orders()).await?;
    runs(&ground).await?;
    ground.apply(&template("map", map())).await?;
    let off = says(&ground, "map", "PolicyNotInstalled", &["off", "--resource-template-policy"]).await?;
    ensure!(off.versions.is_empty(), "{off:?}");
    let copy = ground.objects(&map()).get_opt(&copy_name("orders", "map", BUILD_ID)).await?;
    ensure!(copy.is_none(), "{copy:?}");
    Ok(())
}
