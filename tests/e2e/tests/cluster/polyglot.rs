//! Workers of six languages, each in a Kubernetes namespace of its own, and one Workflow that uses them all.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::codec::{self, KEYS};
use e2e::ground::TEMPORAL_NAMESPACE;
use e2e::load::all_run;
use e2e::tasks::{Order, payload};
use e2e::{ClusterBed, Ground, eventually};
use futures::future::try_join_all;
use harness::ClientSidecar;
use harness::polyglot::{self, LANGUAGES, WITH_SIDECAR};
use harness::programs;
use harness::sdk_images::sdk_images;
use harness::workflows::Workflows;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use serde_json::json;
use tokio::task::spawn_blocking;

const WORKFLOW: &str = "greet-everywhere";
/// Nowhere in plain at the server.
const NAME: &str = "canary-41c7";
/// Milliseconds that a task takes, and seconds after which the server gives it to another Worker when nobody answers for it.
const TASK: u64 = 15_000;
const LOST_AFTER: u64 = 30;
/// Time in which tasks end that were begun before their pods went.
const END: Duration = Duration::from_secs(90);

/// Applies a language's manifest as it is, but for where the Temporal server of the tests is.
async fn apply(bed: &ClusterBed, language: &str) -> Result<Ground> {
    let ground = Ground::bare(bed.client.clone(), &polyglot::namespace(language)).await?;
    let (_, key) = KEYS[0];
    let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    ground.apply(&polyglot::key_secret(language, &key)).await?;
    for mut object in polyglot::manifest(language)? {
        match object["kind"].as_str() {
            Some("Namespace") => continue,
            Some("Connection") => object["spec"]["hostPort"] = json!(bed.server.host_port()),
            _ => object["spec"]["workerOptions"]["temporalNamespace"] = json!(TEMPORAL_NAMESPACE),
        }
        ground.apply(&object).await?;
    }
    Ok(ground)
}

/// Tasks of a language's Worker, with encrypted arguments.
fn order(language: &str) -> Result<Order> {
    let inputs = codec::seal(KEYS[0].0, &vec![payload(&json!(TASK)); 3])?.iter().map(codec::to_json).collect();
    Ok(Order { inputs, sealed: true, start_to_close_s: LOST_AFTER, ..Order::work(language, 0, 0.0) })
}

/// Deletes the pods that run tasks.
async fn delete_pods(ground: &Ground, language: &str) -> Result<()> {
    for pod in ground.pods(language).await? {
        ground.api::<Pod>().delete(&pod.name_any(), &DeleteParams::default()).await?;
    }
    Ok(())
}

pub async fn one_workflow_uses_workers_of_every_language(bed: Arc<ClusterBed>) -> Result<()> {
    let images = sdk_images(&bed.programs).await?;
    let of_bed = bed.clone();
    spawn_blocking(move || programs::load(&of_bed.cluster, &images)).await??;
    let grounds = try_join_all(LANGUAGES.map(|language| apply(&bed, language))).await?;
    let fleets = || LANGUAGES.into_iter().zip(&grounds);
    for (language, ground) in fleets() {
        ground.is_current(language).await.with_context(|| format!("fleet {language}"))?;
    }
    for (language, ground) in fleets() {
        let rests = eventually("no pod is left", async || ground.settled_at(language, 0).await).await;
        rests.with_context(|| format!("fleet {language}"))?;
    }

    let begun = Timestamp::now();
    let server = bed.server.host_port();
    let program = bed.programs.program("worker-runtime")?;
    let (id, key) = KEYS[0];
    let sidecar = ClientSidecar::start(program, (&server, TEMPORAL_NAMESPACE), (id, &key)).await?;
    let clear = Workflows::connect(sidecar.address(), TEMPORAL_NAMESPACE).await?;
    polyglot::start(&clear, WORKFLOW, NAME).await?;
    let mut again = Vec::new();
    let answer = polyglot::answer(&clear, WORKFLOW, |event| again.extend(attempt(event))).await?;
    polyglot::check(&answer, NAME)?;
    ensure!(again == vec![1; LANGUAGES.len()], "attempts of the greetings: {again:?}");
    let raw = Workflows::connect(&server, TEMPORAL_NAMESPACE).await?;
    let read = polyglot::check_hidden(&raw, WORKFLOW, &[NAME, "greets", "heard"]).await?;
    ensure!(read == 1 + WITH_SIDECAR.len(), "{read} Workflows were run");
    ensure!(polyglot::check_hidden(&clear, WORKFLOW, &[NAME]).await.is_err(), "the check does not find what is plain");
    for (language, ground) in fleets() {
        let scalings = bed.scalings((&ground.namespace, language), begun)?;
        ensure!(scalings.first().is_some_and(|(_, replicas)| *replicas > 0), "fleet {language}: {scalings:?}");
    }
    let with_sidecar = fleets().filter(|(language, _)| WITH_SIDECAR.contains(language));
    let bed = &bed;
    try_join_all(with_sidecar.map(|(language, ground)| async move {
        let kept = nothing_is_lost_with_the_pods(bed, language, ground).await;
        kept.with_context(|| format!("tasks of the Worker in {language}"))
    }))
    .await
    .map(drop)
}

/// The attempt that a history's event says was begun.
fn attempt(event: &temporalio_protos::temporal::api::history::v1::HistoryEvent) -> Option<i32> {
    use temporalio_protos::temporal::api::history::v1::history_event::Attributes::ActivityTaskStartedEventAttributes;
    match &event.attributes {
        Some(ActivityTaskStartedEventAttributes(started)) => Some(started.attempt),
        _ => None,
    }
}

/// Deletes the pods of a fleet under load: every task ends on its first attempt, whatever the SDK does on SIGTERM. The fleet may be at
/// zero when they come, and its Worker slow to start: none waits for that of another language.
async fn nothing_is_lost_with_the_pods(bed: &ClusterBed, language: &'static str, ground: &Ground) -> Result<()> {
    let tasks = bed.tasks()?;
    let burst = tasks.start(&spawn_blocking(move || order(language)).await??).await?;
    all_run(&tasks, &burst).await?;
    delete_pods(ground, language).await?;
    tasks.finish_once_each(&burst, END).await?;
    let told = tasks.activities(&burst).await?.into_values().flat_map(|one| one.payloads);
    let open: Vec<_> = told.filter(|payload| codec::key_of(payload).is_none()).collect();
    ensure!(open.is_empty(), "{open:?}");
    Ok(())
}
