//! Workers on the SDKs of several languages by themselves, without a sidecar: what they make of the environment that
//! the operator gives them, and what they tell the server of themselves.

mod runtime_support;
mod signals_support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::endpoint::{Authority, Endpoint, Signed};
use futures::future::try_join_all;
use operator_core::contract::{
    ENV_ADDRESS, ENV_TLS, ENV_TLS_CLIENT_CERT_PATH, ENV_TLS_CLIENT_KEY_PATH, ENV_TLS_SERVER_CA_CERT_PATH,
};
use operator_core::observed::{Observation, PodLoad, TaskType};
use runtime_support::{Activity, Server, json_payload, program, wait_for};
use serde_json::json;
use signals_support::heartbeats::Unread;
use signals_support::{Plain, SLOTS, SOON, lane, sdk_workers, start_activities};
use tempfile::TempDir;

const CANARY: &str = "canary-77c0";
/// Tasks that each Worker runs at a time.
const TASKS: u64 = 3;
/// How long each takes, in milliseconds: several heartbeats.
const TAKES: u64 = 10_000;

/// The files that a Connection's Secrets become in a pod.
struct Files(TempDir);

impl Files {
    fn of(endpoint: &Endpoint, signed: &Signed) -> Result<Self> {
        let files = Self(tempfile::tempdir()?);
        let texts = [("ca.crt", &endpoint.authority().pem), ("tls.crt", &signed.certificate), ("tls.key", &signed.key)];
        for (file, text) in texts {
            std::fs::write(files.path(file), text)?;
        }
        Ok(files)
    }

    fn path(&self, file: &str) -> String {
        self.0.path().join(file).display().to_string()
    }

    /// Starts a Worker with the variables that the operator sets for mutual TLS.
    fn start(&self, program: &Path, server: &Server, endpoint: &Endpoint, task_queue: &str) -> Result<Plain> {
        let environment = [
            (ENV_ADDRESS, endpoint.address.as_str()),
            (ENV_TLS, "true"),
            (ENV_TLS_CLIENT_KEY_PATH, &self.path("tls.key")),
            (ENV_TLS_CLIENT_CERT_PATH, &self.path("tls.crt")),
            (ENV_TLS_SERVER_CA_CERT_PATH, &self.path("ca.crt")),
            ("METRICS_ADDRESS", "127.0.0.1:0"),
        ];
        Plain::start(program, server, task_queue, &environment)
    }
}

fn greeting(task_queue: &str) -> Activity<'_> {
    Activity { activity_type: "Greet", task_queue, input: vec![json_payload(&json!(CANARY))], ..Activity::default() }
}

/// A Worker with a certificate of the server's authority runs an activity; one with another's ends, and runs none.
async fn is_let_in(server: &Server, language: &'static str, program: &Path) -> Result<()> {
    let endpoint = Endpoint::start(Authority::new()?, [127, 0, 0, 1].into(), &server.temporal.host_port()).await?;
    let own = endpoint.authority().sign(language, 2090)?;
    let foreign = Authority::new()?.sign(language, 2090)?;
    let (files, foreign_files) = (Files::of(&endpoint, &own)?, Files::of(&endpoint, &foreign)?);
    let outside = format!("{language}-outside");
    let _worker = files.start(program, server, &endpoint, language)?;
    let mut stranger = foreign_files.start(program, server, &endpoint, &outside)?;
    let task = server.start_activity(greeting(language)).await?;
    let waiting = server.start_activity(greeting(&outside)).await?;

    wait_for(&format!("{language}: the certificate"), SOON, async || endpoint.seen(&own).pop()).await;
    let greeted = json!(format!("{language} greets {CANARY}"));
    assert_eq!(server.end_of(&task).await.result(), greeted);

    let end = format!("{language}: the end of the Worker that is not let in");
    let status = wait_for(&end, SOON, async || stranger.exited()).await;
    assert_eq!(status.code(), Some(1), "{language}");
    assert!(endpoint.seen(&foreign).is_empty(), "{language}");
    let refused = endpoint.refused();
    assert!(refused.iter().any(|it| it.why.contains("invalid peer certificate")), "{language}: {refused:?}");
    assert!(server.describe(&waiting).await?.last_started_time.is_none(), "{language}");
    Ok(())
}

#[tokio::test]
async fn workers_of_four_languages_are_let_in_by_the_certificate_that_the_operator_names_and_by_no_other() -> Result<()>
{
    let server = Server::start().await?;
    let workers = sdk_workers().await?;
    try_join_all(workers.iter().map(|(language, program)| is_let_in(&server, language, program))).await?;
    Ok(())
}

/// Whether so many activities run on each of these Task Queues, by a fresh load.
fn all_run(load: &Observation<PodLoad>, task_queues: &[&str], tasks: u64) -> bool {
    let used = |queue: &&str| Some(load.known()?.lanes.get(&lane(queue, TaskType::Activity))?.used);
    task_queues.iter().all(|queue| used(queue) == Some(tasks))
}

#[tokio::test]
async fn workers_of_every_language_without_metrics_are_known_by_their_heartbeats() -> Result<()> {
    let server = Server::start().await?;
    let fleet = Unread::watch(&server)?;
    assert_eq!(fleet.own(), Observation::Unknown);
    let mut workers = sdk_workers().await?;
    workers.push(("rust", program("plain")));
    let languages: Vec<&str> = workers.iter().map(|(language, _)| *language).collect();
    let environment = [("METRICS_ADDRESS", "127.0.0.1:0"), ("HEARTBEAT_SECONDS", "2")];
    let start = |(language, program): &(&str, PathBuf)| Plain::start(program, &server, language, &environment);
    let mut running: Vec<Plain> = workers.iter().map(start).collect::<Result<_>>()?;

    fleet.when("idleness", |load| all_run(load, &languages, 0)).await;
    let mut ids = Vec::new();
    for language in &languages {
        ids.extend(start_activities(&server, language, &[TAKES; TASKS as usize], Duration::ZERO).await?);
    }
    let busy = fleet.when("three tasks that run in each", |load| all_run(load, &languages, TASKS)).await;
    for language in &languages {
        let slots = &busy.known().context("fresh")?.lanes[&lane(language, TaskType::Activity)];
        assert_eq!((slots.available, slots.unlimited, slots.started), (SLOTS - TASKS, false, TASKS), "{language}");
    }
    for id in &ids {
        server.end_of(id).await;
    }
    let idle = fleet.when("idleness again", |load| all_run(load, &languages, 0)).await;
    let load = idle.known().context("fresh")?;
    for language in &languages {
        assert_eq!(load.lanes[&lane(language, TaskType::Activity)].started, TASKS, "{language}");
    }
    assert!(load.lanes.keys().all(|key| languages.contains(&&*key.task_queue)), "{load:?}");
    assert_eq!(fleet.another(), Observation::Unknown);
    running.iter_mut().try_for_each(Plain::kill)?;
    let stale = fleet.when("no proof of anything any more", |load| load.known().is_none()).await;
    assert!(matches!(stale, Observation::Stale { .. }), "the server still lists them: {stale:?}");
    Ok(())
}
