//! Whether something crossed a border: what the witness saw, what became of A's objects, and whom B reached.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::Ground;
use e2e::ground::replicas_of;
use e2e::wait::within;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use operator_core::api::{Connection, WorkerDeployment, WorkerResourceTemplate};
use operator_core::border::Border;
use serde_json::{Value, json};

use super::attempts::{Attempt, Expected, Push};
use super::objects::{REPLICAS, STOLEN};
use super::world::{A, ARGUMENT, B, OF_A, OF_B, OF_BOTH, World};

/// Time within which a fleet that is not held up follows a change of its spec.
const FOLLOWS: Duration = Duration::from_secs(20);

/// What crossed a border, as sentences; nothing when all was refused.
pub async fn leaks(world: &World, way: Border, attempts: &[Attempt]) -> Result<Vec<String>> {
    match way {
        Border::Connection
        | Border::ClusterConnection
        | Border::NamespaceLabels
        | Border::SecretNamespace
        | Border::SecretCache
        | Border::ObjectName
        | Border::Channel => Ok(foreign_credentials(world)),
        Border::GateInput => Ok(arguments(world)),
        Border::WorkerDeployment => Ok(shared_names(world)),
        Border::ConnectionHold => held(world).await,
        Border::Deployments => deployments(world).await,
        Border::Pods => {
            let visits = world.visits.count();
            Ok((visits > 0).then(|| format!("pods of B were visited {visits} times")).into_iter().collect())
        }
        Border::OldKinds => Ok(follows(world).await.err().map(|error| format!("{error:#}")).into_iter().collect()),
        Border::Successor => successors(world).await,
        Border::TemplateFleet => templates(world).await,
        Border::TemplateNamespace => copies(world).await,
        Border::PushFleet | Border::PushSignature => pushes(world, attempts).await,
    }
}

/// Calls with the credential of one tenant where, or for whom, only the other's belongs; with their bytes.
pub fn foreign_credentials(world: &World) -> Vec<String> {
    let is_foreign = |(call, is_a): &(e2e::witness::Call, bool)| match call.address {
        OF_A => !is_a,
        OF_B => *is_a,
        OF_BOTH => call.namespace == if *is_a { B } else { A },
        _ => true,
    };
    let calls =
        [true, false].into_iter().flat_map(|is_a| world.calls_of(is_a).into_iter().map(move |call| (call, is_a)));
    let told = |(call, is_a): (e2e::witness::Call, bool)| {
        let whose = if is_a { A } else { B };
        let e2e::witness::Call { address, method, namespace, bytes, .. } = call;
        format!("{bytes} bytes with the credential of {whose} at {address}: {method} for {namespace}")
    };
    calls.filter(is_foreign).map(told).collect()
}

/// Calls that hold the argument of A's gate, which no fleet of A has.
fn arguments(world: &World) -> Vec<String> {
    let marked = world.witness.seen().into_iter().filter(|call| call.is_marked);
    marked.map(|call| format!("{} at {} holds A's argument", call.method, call.address)).collect()
}

/// Worker Deployments that both tenants named.
fn shared_names(world: &World) -> Vec<String> {
    let named = |is_a| -> BTreeSet<_> {
        let calls = world.calls_of(is_a).into_iter();
        calls.filter_map(|call| Some((call.namespace, call.deployment?))).collect()
    };
    named(true).intersection(&named(false)).map(|name| format!("both named {name:?}")).collect()
}

async fn held(world: &World) -> Result<Vec<String>> {
    let connections = world.a.api::<Connection>().list(&ListParams::default()).await?;
    let spare = connections.into_iter().filter(|one| one.name_any().starts_with("spare"));
    Ok(spare.filter(|one| !one.finalizers().is_empty()).map(|one| format!("{} is held", one.name_any())).collect())
}

async fn deployments(world: &World) -> Result<Vec<String>> {
    let status = serde_json::to_string(&world.a.status("payments").await?)?;
    let mut leaks: Vec<_> =
        status.contains(STOLEN).then(|| format!("A's fleet has it: {status}")).into_iter().collect();
    for child in world.b.api::<Deployment>().list(&ListParams::default()).await? {
        let name = child.name_any();
        if name.starts_with(STOLEN) && (replicas_of(&child) != REPLICAS || child.metadata.generation != Some(1)) {
            leaks.push(format!("{name} was changed"));
        }
    }
    Ok(leaks)
}

/// Changes the replicas of A's fleet `payments`, and waits until its Deployment has them.
pub async fn follows(world: &World) -> Result<()> {
    world.nudge().await?;
    let fleets = world.a.api::<WorkerDeployment>();
    let wanted = fleets.get("payments").await?.spec.replicas.unwrap_or(0) + 1;
    let patch = Patch::Merge(json!({"spec": {"replicas": wanted}}));
    fleets.patch("payments", &PatchParams::default(), &patch).await?;
    within(FOLLOWS, "A's fleet follows its spec", async || {
        let replicas = world.a.replicas("payments").await?;
        ensure!(replicas == wanted, "{replicas} of {wanted} replicas");
        Ok(())
    })
    .await
}

async fn successors(world: &World) -> Result<Vec<String>> {
    let uid = world.uid(&world.a, "ledger").await?;
    let is_given = |meta: &ObjectMeta| {
        meta.owner_references.iter().flatten().any(|owner| owner.uid == uid && owner.controller == Some(true))
    };
    let children = world.b.api::<Deployment>().list(&ListParams::default()).await?;
    let given =
        children.into_iter().filter(|child| child.name_any().starts_with("ledger") && is_given(&child.metadata));
    Ok(given.map(|child| format!("{} of B was given to A's fleet", child.name_any())).collect())
}

async fn templates(world: &World) -> Result<Vec<String>> {
    let templates = world.b.api::<WorkerResourceTemplate>().list(&ListParams::default()).await?;
    let for_a = templates.into_iter().filter(|template| template.name_any().starts_with("for-"));
    let leaks = for_a.filter(|template| {
        let versions = template.status.as_ref().map_or(0, |status| status.versions.len());
        versions > 0 || template.metadata.owner_references.as_ref().is_some_and(|owners| !owners.is_empty())
    });
    Ok(leaks.map(|template| format!("{} of B has versions or the UID of A's fleet", template.name_any())).collect())
}

async fn copies(world: &World) -> Result<Vec<String>> {
    async fn of<K>(ground: &Ground) -> Result<Vec<ObjectMeta>>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let api: Api<K> = ground.api();
        Ok(api.list(&ListParams::default()).await?.into_iter().map(|object| object.meta().clone()).collect())
    }
    let mut found = of::<ConfigMap>(&world.a).await?;
    found.extend(of::<PodDisruptionBudget>(&world.a).await?);
    found.extend(of::<HorizontalPodAutoscaler>(&world.a).await?);
    let is_copy =
        |meta: &ObjectMeta| meta.owner_references.iter().flatten().any(|owner| owner.kind == "WorkerResourceTemplate");
    let copies = found.into_iter().filter(is_copy);
    Ok(copies.map(|meta| format!("A has {:?}", meta.name)).collect())
}

async fn pushes(world: &World, attempts: &[Attempt]) -> Result<Vec<String>> {
    let mut leaks = Vec::new();
    for attempt in attempts {
        let Expected::Answered(push, _) = &attempt.expected else { continue };
        let status = call(world, push).await?;
        if (200..300).contains(&status) {
            leaks.push(format!("{}: {status}", attempt.what));
        }
    }
    Ok(leaks)
}

/// Calls the push endpoint; gives the status of the answer.
pub async fn call(world: &World, push: &Push) -> Result<u16> {
    let url = format!("http://127.0.0.1:{}{}", world.push_port, push.path);
    let request = reqwest::Client::new().request(push.method.parse()?, url).bearer_auth(&push.token);
    Ok(request.send().await.context("call the push endpoint")?.status().as_u16())
}

/// What of A's nobody but A may change: its Deployments, Connections and versions.
pub async fn picture(ground: &Ground) -> Result<Value> {
    let mut picture = json!({});
    for child in ground.api::<Deployment>().list(&ListParams::default()).await? {
        let template = child.spec.as_ref().map(|spec| &spec.template);
        picture["deployments"][child.name_any()] = json!([child.uid(), child.owner_references(), template]);
    }
    for connection in ground.api::<Connection>().list(&ListParams::default()).await? {
        picture["connections"][connection.name_any()] = json!([connection.finalizers(), connection.spec]);
    }
    for fleet in ground.api::<WorkerDeployment>().list(&ListParams::default()).await? {
        let status = fleet.status.clone().unwrap_or_default();
        let target = status.target_version.version.build_id;
        let current = status.current_version.map(|version| version.build_id);
        picture["fleets"][fleet.name_any()] = json!([target, current, status.deprecated_versions.len()]);
    }
    for map in ground.api::<ConfigMap>().list(&ListParams::default()).await? {
        picture["configMaps"][map.name_any()] = json!(map.data);
    }
    Ok(picture)
}

/// No key is in the operator's log or metrics, in an event or in a status.
pub async fn nothing_is_told(world: &World) -> Result<()> {
    let mut texts = vec![("the log", world.operator.log()?), ("the metrics", world.operator.metrics().await?)];
    for ground in [&world.a, &world.b] {
        let events = ground.api::<Event>().list(&ListParams::default()).await?;
        texts.push(("an event", serde_json::to_string(&events.items)?));
        let fleets = ground.api::<WorkerDeployment>().list(&ListParams::default()).await?;
        texts.push(("a fleet", serde_json::to_string(&fleets.items)?));
        let children = ground.api::<Deployment>().list(&ListParams::default()).await?;
        texts.push(("a Deployment", serde_json::to_string(&children.items)?));
        let templates = ground.api::<WorkerResourceTemplate>().list(&ListParams::default()).await?;
        texts.push(("a template", serde_json::to_string(&templates.items)?));
    }
    for (place, text) in &texts {
        let keys = world.keys.of_a.iter().chain([&world.keys.of_b]).map(String::as_str);
        let told = keys.chain([ARGUMENT]).any(|key| text.contains(key));
        ensure!(!told, "a key is in {place}");
    }
    // The control: these are the log and the fleets of this story.
    ensure!(texts[0].1.contains("payments") && texts.iter().any(|(_, text)| text.contains("path-connection-0")));
    Ok(())
}
