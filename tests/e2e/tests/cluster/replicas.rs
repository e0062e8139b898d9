//! Who owns the replicas: the autoscaler, the manifest, or the user.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::ground::{Ground, runtime_fleet};
use e2e::tasks::Order;
use e2e::{ClusterBed, eventually};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::ResourceExt as _;
use serde_json::{Value, json};

/// Pods that do nothing: nobody asks what a Worker would do.
fn plain_fleet(name: &str) -> Value {
    let container = json!({"name": "worker", "image": e2e::bed::HANDLERS_IMAGE, "command": ["sleep", "1000000"]});
    let mut fleet = runtime_fleet(name, "unused", 1);
    let spec = fleet["spec"].as_object_mut().expect("an object");
    for field in ["runtime", "rollout", "sunset", "scaling"] {
        spec.remove(field);
    }
    spec.insert("versioning".into(), json!("Disabled"));
    spec.insert("template".into(), json!({"spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}}));
    fleet
}

/// Changes what is applied, and waits until the child shows it.
async fn apply_with_min_ready_seconds(ground: &Ground, fleet: &mut Value, seconds: i32) -> Result<Deployment> {
    fleet["spec"]["minReadySeconds"] = json!(seconds);
    ground.apply(fleet).await?;
    let name = fleet["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    eventually("the change was applied", async || {
        let child = ground.child(&name).await?;
        let is = child.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
        ensure!(is == Some(seconds), "minReadySeconds is {is:?}");
        Ok(child)
    })
    .await
}

pub async fn without_scaling_replicas_stay_as_they_are(bed: Arc<ClusterBed>) -> Result<()> {
    const FLEET: &str = "plain";
    let ground = bed.ground("without_scaling_replicas_stay_as_they_are").await?;
    let mut fleet = plain_fleet(FLEET);
    fleet["spec"]["scaling"] = json!({"minReplicas": 7, "taskQueues": [{"name": "unused"}]});
    ground.apply(&fleet).await?;
    eventually("the minimum runs", async || ground.settled_at(FLEET, 7).await).await?;

    fleet["spec"].as_object_mut().expect("an object").remove("scaling");
    let child = apply_with_min_ready_seconds(&ground, &mut fleet, 1).await?;
    ensure!(child.spec.as_ref().and_then(|spec| spec.replicas) == Some(7), "{:?}", child.spec);
    eventually("the status says that nobody scales", async || {
        ground.has_condition(FLEET, ("ScalingActive", "False", "ScalingDisabled")).await.map(|_| ())
    })
    .await?;
    ground.scale_by_hand(FLEET, 5).await?;
    let child = apply_with_min_ready_seconds(&ground, &mut fleet, 2).await?;
    ensure!(child.spec.as_ref().and_then(|spec| spec.replicas) == Some(5), "{:?}", child.spec);

    fleet["spec"]["replicas"] = json!(3);
    ground.apply(&fleet).await?;
    eventually("spec.replicas is followed", async || ground.settled_at(FLEET, 3).await).await?;

    // Whoever applied replicas would own the field by an entry of operation Apply; a scale leaves none.
    let child = ground.child(FLEET).await?;
    let applies_replicas = |entry: &&ManagedFieldsEntry| {
        let fields = entry.fields_v1.as_ref().map(|fields| fields.0.to_string()).unwrap_or_default();
        entry.operation.as_deref() == Some("Apply") && fields.contains("f:replicas")
    };
    let appliers: Vec<_> = child.managed_fields().iter().filter(applies_replicas).collect();
    ensure!(appliers.is_empty(), "replicas were in an apply: {appliers:?}");
    let scales = bed.writes_in(&ground.namespace)?;
    let scales = scales.iter().filter(|write| write.resource == "deployments/scale" && write.code < 300);
    let to: Vec<_> = scales.filter_map(|write| write.replicas).collect();
    ensure!(to == [7, 5, 3], "replicas were written as {to:?}");
    Ok(())
}

pub async fn a_fleet_without_versioning_is_one_deployment(bed: Arc<ClusterBed>) -> Result<()> {
    const FLEET: &str = "invoices";
    let ground = bed.ground("a_fleet_without_versioning_is_one_deployment").await?;
    let mut fleet = runtime_fleet(FLEET, "unversioned", 2);
    fleet["spec"]["versioning"] = json!("Disabled");
    fleet["spec"].as_object_mut().expect("an object").retain(|field, _| field != "rollout" && field != "sunset");
    ground.apply(&fleet).await?;
    eventually("nothing to do: no pod", async || ground.settled_at(FLEET, 0).await).await?;
    ensure!(ground.child(FLEET).await?.name_any() == FLEET, "its Deployment is not named after it");

    let tasks = bed.tasks()?;
    let burst = tasks.start(&Order::work("unversioned", 12, 3.0)).await?;
    eventually("pods work", async || {
        let replicas = ground.replicas(FLEET).await?;
        ensure!(replicas >= 2, "{replicas} replicas");
        Ok(())
    })
    .await?;
    tasks.finish_once_each(&burst, Duration::from_secs(120)).await?;
    eventually("all is done: no pod", async || ground.settled_at(FLEET, 0).await).await
}
