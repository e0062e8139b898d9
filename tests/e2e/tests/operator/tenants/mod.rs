//! Two tenants: what one tries to have of the other, refused by the operator as it is, and had by a build without the guard.

mod attempts;
mod judge;
mod objects;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::HostBed;
use e2e::wait::{eventually, within};
use e2e::worker::Worker;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use harness::programs::Programs;
use harness::{TemporalOptions, TemporalServer};
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use operator_core::api::WorkerResourceTemplate;
use operator_core::border::Border;
use serde_json::{Value, json};

use attempts::{Attempt, Expected};
use judge::{foreign_credentials, leaks};
use objects::BUILD_ID;
use world::{A, B, World, apply_to_cluster};

/// Names borders for a build that can take them down.
const BREACH: &str = "TEMPORAL_OPERATOR_BREACH";
const LEAST_ATTEMPTS: usize = 100;
const LEAST_WAYS: usize = 12;
/// Attempts that are made at a time.
const AT_A_TIME: usize = 8;
/// Time within which an attempt that is not refused shows: a status that changes in nothing else is written each 30 s.
const LEAKS_WITHIN: Duration = Duration::from_secs(60);
const QUEUE: &str = "payments";

async fn server() -> Result<TemporalServer> {
    let namespaces = vec![A.to_owned(), B.to_owned()];
    TemporalServer::start(TemporalOptions { namespaces, ..TemporalOptions::default() }).await
}

pub async fn no_attempt_crosses_the_border_of_a_namespace(bed: Arc<HostBed>) -> Result<()> {
    let server = server().await?;
    // To a normal build this says nothing.
    let all: Vec<_> = Border::ALL.iter().map(|border| format!("{border:?}")).collect();
    let world = World::start(&bed.programs, &server.host_port(), &[(BREACH, &all.join(","))]).await?;
    let told = story(&world, &server).await;
    let told = told.with_context(|| world.operator.log().unwrap_or_default());
    world.stop()?;
    told
}

async fn story(world: &World, server: &TemporalServer) -> Result<()> {
    let payments = Worker::of(&server.host_port(), A, QUEUE)?;
    payments.register(&format!("{A}/payments"), BUILD_ID).await?;
    payments.make_current().await?;
    eventually("A's version is current", async || {
        world.a.status("payments").await?.current_version.context("none is").map(drop)
    })
    .await?;
    world.works(&world.b, "orders").await?;
    let (routing, before) = (payments.routing().await?, settled_picture(world).await?);

    let attempts = attempts::all(world).await?;
    counts(&attempts)?;
    let (first, second): (Vec<_>, Vec<_>) = attempts.iter().enumerate().partition(|(number, _)| number % 2 == 0);
    for (part, half) in [first, second].into_iter().enumerate() {
        let half: Vec<_> = half.into_iter().map(|(_, attempt)| attempt).collect();
        make(world, &half).await?;
        are_as_expected(world, &half).await?;
        judge::follows(world).await?;
        if part == 0 {
            world.rotate().await?;
        }
    }
    for way in Border::ALL {
        let found = leaks(world, way, &attempts).await?;
        ensure!(found.is_empty(), "{way:?}: {found:#?}");
    }
    let (seen_a, seen_b) = (world.calls_of(true).len(), world.calls_of(false).len());
    ensure!(seen_a > 0 && seen_b > 0 && foreign_credentials(world).is_empty(), "calls of A {seen_a}, of B {seen_b}");
    let (_, current, _) = payments.routing().await?;
    ensure!(current == routing.1, "A's current version was {} and is {current}", routing.1);
    let after = judge::picture(&world.a).await?;
    ensure!(before == after, "A's objects were {before:#}\nand are {after:#}");
    judge::nothing_is_told(world).await
}

/// A's objects, once every Connection that is used is held: nothing is due any more.
async fn settled_picture(world: &World) -> Result<Value> {
    eventually("A's objects stand", async || {
        let picture = judge::picture(&world.a).await?;
        for connection in ["temporal", "second"] {
            ensure!(picture["connections"][connection][0] != json!([]), "{connection} is not held");
        }
        let is_there = |fleet: &Value| fleet[0] != "";
        let fleets = picture["fleets"].as_object().context("no fleets")?;
        ensure!(fleets.values().all(is_there), "{fleets:?}");
        ensure!(picture["deployments"].as_object().map(serde_json::Map::len) == Some(fleets.len()), "{picture}");
        Ok(picture)
    })
    .await
}

/// They are as many as they have to be, and each is another one.
fn counts(attempts: &[Attempt]) -> Result<()> {
    let mut ways: BTreeMap<Border, usize> = BTreeMap::new();
    let mut distinct = BTreeSet::new();
    for attempt in attempts {
        *ways.entry(attempt.way).or_default() += 1;
        ensure!(
            distinct.insert((attempt.way, attempt.what.clone())),
            "{:?} {} is twice there",
            attempt.way,
            attempt.what
        );
    }
    println!("{} attempts in {} ways: {ways:?}", attempts.len(), ways.len());
    ensure!(attempts.len() >= LEAST_ATTEMPTS && ways.len() >= LEAST_WAYS, "{} in {ways:?}", attempts.len());
    ensure!(ways.len() == Border::ALL.len(), "a border without an attempt: {ways:?}");
    Ok(())
}

/// Makes attempts, several at a time.
async fn make(world: &World, attempts: &[&Attempt]) -> Result<()> {
    let makes = attempts.iter().map(|attempt| async move {
        apply(world, attempt).await.with_context(|| format!("{:?}: {}", attempt.way, attempt.what))
    });
    stream::iter(makes).buffer_unordered(AT_A_TIME).try_collect::<Vec<()>>().await.map(drop)
}

async fn apply(world: &World, attempt: &Attempt) -> Result<()> {
    let mut owner = String::new();
    for (number, object) in attempt.objects.iter().enumerate() {
        if object["kind"] == "ClusterConnection" {
            apply_to_cluster(&world.client, object).await?;
            continue;
        }
        let mut object: Value = serde_json::from_str(&object.to_string().replace("$owner", &owner))?;
        let status = object.as_object_mut().and_then(|object| object.remove("status"));
        let is_old = object["kind"].as_str().is_some_and(|kind| kind.starts_with("Temporal"));
        let applied = match is_old {
            // As soon as its kind is served without the rule against creations.
            true => eventually("the old object is created", async || world.b.apply(&object).await).await,
            false => world.b.apply(&object).await,
        };
        if attempt.expected == Expected::Denied && number + 1 == attempt.objects.len() {
            ensure!(applied.is_err(), "the API server takes it");
            return Ok(());
        }
        owner = applied?.uid().unwrap_or_default();
        if let Some(status) = status {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let patch = Patch::Merge(json!({"status": status}));
            world.b.objects(&object).patch_status(name, &PatchParams::default(), &patch).await?;
        }
    }
    if let Expected::Ungated(fleet) = &attempt.expected {
        Worker::of(&world.server, B, fleet)?.register(&format!("{B}/{fleet}"), BUILD_ID).await?;
    }
    Ok(())
}

/// Waits until each attempt is refused as it has to be.
async fn are_as_expected(world: &World, attempts: &[&Attempt]) -> Result<()> {
    for attempt in attempts {
        let context = || format!("{:?}: {}", attempt.way, attempt.what);
        match &attempt.expected {
            Expected::Denied | Expected::Nothing => {}
            Expected::Works(fleet) => world.works(&world.b, fleet).await.with_context(context)?,
            Expected::Blocked(fleet, reason) => is_blocked(world, fleet, reason).await.with_context(context)?,
            Expected::Refused(template, reason) => is_refused(world, template, reason).await.with_context(context)?,
            Expected::Ungated(fleet) => is_ungated(world, fleet).await.with_context(context)?,
            Expected::Answered(push, status) => {
                let answered = judge::call(world, push).await?;
                ensure!(answered == *status, "{}: answered with {answered}, not {status}", context());
            }
        }
    }
    Ok(())
}

async fn is_blocked(world: &World, fleet: &str, reason: &str) -> Result<()> {
    eventually(&format!("{fleet} says {reason}"), async || {
        world.b.has_condition(fleet, ("Stalled", "True", reason)).await
    })
    .await?;
    let children = world.b.children(fleet).await?;
    ensure!(children.is_empty(), "it has {:?}", children.keys());
    Ok(())
}

async fn is_ungated(world: &World, fleet: &str) -> Result<()> {
    let message = eventually(&format!("{fleet} says that its gate has no argument"), async || {
        world.b.has_condition(fleet, ("Ready", "False", "TestWorkflowStartFailed")).await
    })
    .await?;
    ensure!(message.contains(&format!("does not exist in namespace {B}")), "{message}");
    Ok(())
}

async fn is_refused(world: &World, template: &str, reason: &str) -> Result<()> {
    eventually(&format!("{template} says {reason}"), async || {
        let found = world.b.api::<WorkerResourceTemplate>().get(template).await?;
        let conditions = found.status.unwrap_or_default().conditions;
        let is = |condition: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
            condition.type_ == "Ready" && condition.status == "False" && condition.reason == reason
        };
        ensure!(conditions.iter().any(is), "{conditions:?}");
        Ok(())
    })
    .await
}

pub async fn long_without_its_guard_an_attempt_of_each_way_leaks(_bed: Arc<HostBed>) -> Result<()> {
    let (programs, server) = tokio::try_join!(Programs::build_breach(), server())?;
    for border in Border::ALL {
        let name = format!("{border:?}");
        let world = World::start(&programs, &server.host_port(), &[(BREACH, &name)]).await;
        let world = world.with_context(|| format!("{name} taken down"))?;
        let attempts: Vec<_> = attempts::all(&world).await?.into_iter().filter(|one| one.way == border).collect();
        let leaked = leak(&world, border, &attempts).await;
        let leaked = leaked.with_context(|| format!("{name}: {}", world.operator.log().unwrap_or_default()));
        world.stop()?;
        println!("without {name}: {}", leaked?);
    }
    Ok(())
}

/// The first thing that crosses a border which is down.
async fn leak(world: &World, border: Border, attempts: &[Attempt]) -> Result<String> {
    make(world, &attempts.iter().collect::<Vec<_>>()).await?;
    within(LEAKS_WITHIN, "something crosses the border", async || {
        world.nudge().await?;
        leaks(world, border, attempts).await?.into_iter().next().context("nothing does")
    })
    .await
}
