//! What the operator reads of Workers on real SDKs, beside what the server recorded.

mod runtime_support;
mod signals_support;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::tools::Tools;
use operator_core::observed::{Observation, PodLoad, TaskType, Unreadable, Waits};
use prometheus::Registry;
use runtime_support::{NAMESPACE, Server, program, wait_for};
use serde_json::json;
use signals_support::{
    Plain, QUEUE, Reader, SLOTS, Sample, check_in_motion, check_still, free_port, lane, records, start_activities,
};
use temporal_worker_operator::changes::Changes;
use temporal_worker_operator::temporal::{
    ConnectionSpec, Credentials, Heartbeats, Limits, Metrics, Need, Pool, PoolKey,
};
use tokio::time::Instant;

/// What is read may be as old as this. Tally, which the Go SDK's samples export by, renews its numbers each second; and a
/// slot is free again when the server has answered, which takes a busy machine as long.
const LAG: Duration = Duration::from_secs(3);
const SOON: Duration = Duration::from_secs(60);

async fn go_worker() -> Result<PathBuf> {
    Ok(Tools::ensure_async(Tools::GO_WORKER).await?.program("go-worker")?.to_owned())
}

/// Gives a Worker more than it has slots for, reads it all the while, and holds both beside the server's record.
async fn is_read_exactly(server: &Server, reader: &Reader) -> Result<()> {
    wait_for("a first reading", SOON, async || reader.slots(TaskType::Activity)).await;
    let times: Vec<u64> = (0..60).map(|number| 300 + number * 37 % 900).collect();
    let starts = start_activities(server, &times, Duration::from_millis(60));
    let all = times.len() as u64;
    let mut samples = Vec::new();
    let read = async {
        wait_for("the end of all tasks", SOON, async || {
            let (slots, asked) = reader.slots(TaskType::Activity)?;
            let done = slots.started >= all && slots.used == 0;
            samples.push(Sample { slots, asked });
            done.then_some(())
        })
        .await;
    };
    let (ids, ()) = tokio::join!(starts, read);
    let records = records(server, &ids?).await?;
    let busiest = samples.iter().map(|sample| sample.slots.used).max();
    assert!(busiest >= Some(SLOTS - 1), "it was never full: {busiest:?}");
    samples.iter().for_each(|sample| check_in_motion(sample, &records, LAG));
    wait_for("the waits of all tasks", SOON, async || {
        let slots = reader.slots(TaskType::Activity)?.0;
        (slots.waits.0.last()?.1 >= all).then(|| check_still(&slots, &records))
    })
    .await;
    assert_eq!(reader.seen().unreadable, None);
    Ok(())
}

#[tokio::test]
async fn a_go_worker_is_read_exactly() -> Result<()> {
    let server = Server::start().await?;
    let port = free_port()?;
    let address = format!("127.0.0.1:{port}");
    let _worker = Plain::start(go_worker().await?, &server, &[("METRICS_ADDRESS", &address)])?;
    let reader = Reader::of(port)?;
    is_read_exactly(&server, &reader).await?;
    let cpu = wait_for("its CPU", SOON, async || reader.seen().load.known()?.cpu).await;
    assert!((0.0..1.0).contains(&cpu), "{cpu}");
    Ok(())
}

#[tokio::test]
async fn workflow_tasks_of_a_versioned_go_worker_count_and_so_do_the_activities_that_they_start() -> Result<()> {
    let server = Server::start().await?;
    let port = free_port()?;
    let address = format!("127.0.0.1:{port}");
    let environment = [
        ("METRICS_ADDRESS", address.as_str()),
        ("TEMPORAL_DEPLOYMENT_NAME", "team/go"),
        ("TEMPORAL_WORKER_BUILD_ID", "v1"),
    ];
    let _worker = Plain::start(go_worker().await?, &server, &environment)?;
    let version = ["--deployment-name", "team/go", "--build-id", "v1", "--yes"];
    wait_for("the version", SOON, async || {
        server.cli(&[&["worker", "deployment", "set-current-version"][..], &version].concat()).ok()
    })
    .await;
    let reader = Reader::of(port)?;
    let start = ["workflow", "execute", "--type", "Batch", "--task-queue", QUEUE, "--input", "6", "--input", "50"];
    server.cli(&start)?;
    let activities = wait_for("six activities that ended", SOON, async || {
        let slots = reader.slots(TaskType::Activity)?.0;
        (slots.started >= 6 && slots.used == 0).then_some(slots)
    })
    .await;
    assert_eq!(activities.started, 6, "{activities:?}");
    // Those that it was handed eagerly, with the Workflow task, too.
    let count = |times: &Waits| times.0.last().map(|(_, count)| *count);
    assert_eq!((count(&activities.waits), count(&activities.runs)), (Some(6), Some(6)), "{activities:?}");
    let workflows = reader.slots(TaskType::Workflow).context("no Workflow tasks")?.0;
    assert!(workflows.started >= 2 && workflows.used == 0 && !workflows.waits.0.is_empty(), "{workflows:?}");
    assert!(reader.seen().load.known().is_some_and(|load| load.cached_workflows.is_some()));
    Ok(())
}

#[tokio::test]
async fn a_plain_rust_worker_is_read_exactly() -> Result<()> {
    let server = Server::start().await?;
    let port = free_port()?;
    let address = format!("127.0.0.1:{port}");
    let _worker = Plain::start(program("plain"), &server, &[("METRICS_ADDRESS", &address)])?;
    is_read_exactly(&server, &Reader::of(port)?).await
}

#[tokio::test]
async fn a_worker_of_the_runtime_is_read_exactly() -> Result<()> {
    let server = Server::start().await?;
    let port = free_port()?;
    let address = format!("127.0.0.1:{port}");
    // Arguments are a JSON array of one number of milliseconds.
    let sleeper = "read -r a; a=${a#[}; a=${a%]}; sleep \"$(printf '%d.%03d' $((a / 1000)) $((a % 1000)))\"";
    let worker = runtime_support::Worker::start(
        &server.temporal.host_port(),
        &runtime_support::exec(&["sh", "-c", &format!("{sleeper}; echo null")]),
        &json!({"maxConcurrentActivities": {QUEUE: SLOTS}}),
        &[("WORKER_RUNTIME_METRICS_BIND_ADDRESS", &address)],
    )?;
    worker.wait_ready().await;
    is_read_exactly(&server, &Reader::of(port)?).await
}

/// A fleet of one pod without metrics, known by heartbeats.
struct Unread {
    heartbeats: std::sync::Arc<Heartbeats>,
    pod: String,
}

impl Unread {
    fn watch(server: &Server) -> Result<Self> {
        let pool = Pool::new(Limits::default(), Metrics::register(&Registry::new())?);
        let key = PoolKey {
            kubernetes_namespace: "tests".into(),
            connection_uid: "main".into(),
            connection_generation: 1,
            secret: None,
            ca_secret: None,
        };
        let host_port = server.temporal.host_port();
        let spec = ConnectionSpec { host_port, server_name: None, credentials: Credentials::None, ca_cert: None };
        let heartbeats = Heartbeats::new(Changes::new());
        let pod = nix::unistd::gethostname()?.to_string_lossy().into_owned();
        heartbeats.set(Need {
            fleet: "fleet".into(),
            namespace: NAMESPACE.into(),
            connection: pool.connect(key, &spec)?,
            deployment_name: None,
            pods: BTreeMap::from([(pod.clone(), None), ("another-pod".to_owned(), None)]),
        });
        Ok(Self { heartbeats, pod })
    }

    fn load(&self, pod: &str) -> Observation<PodLoad> {
        self.heartbeats.load(&"fleet".into(), pod, Instant::now())
    }

    async fn when(&self, what: &str, holds: impl Fn(&Observation<PodLoad>) -> bool) -> Observation<PodLoad> {
        wait_for(what, SOON, async || Some(self.load(&self.pod)).filter(&holds)).await
    }
}

#[tokio::test]
async fn a_worker_without_metrics_is_known_by_its_heartbeats() -> Result<()> {
    let server = Server::start().await?;
    let mut worker = Plain::start(program("plain"), &server, &[])?;
    let fleet = Unread::watch(&server)?;
    let used = |load: &Observation<PodLoad>| Some(load.known()?.lanes.get(&lane(TaskType::Activity))?.used);
    fleet.when("idleness", |load| used(load) == Some(0)).await;
    let ids = start_activities(&server, &[8000, 8000, 8000], Duration::ZERO).await?;
    let busy = fleet.when("three tasks that run", |load| used(load) == Some(3)).await;
    let slots = &busy.known().context("fresh")?.lanes[&lane(TaskType::Activity)];
    assert_eq!((slots.available, slots.unlimited, slots.started), (SLOTS - 3, false, 3));
    for id in &ids {
        server.end_of(id).await;
    }
    let idle = fleet.when("idleness again", |load| used(load) == Some(0)).await;
    let load = idle.known().context("fresh")?;
    assert_eq!(load.lanes[&lane(TaskType::Activity)].started, 3);
    assert!(load.lanes.keys().all(|key| key.task_queue == QUEUE), "{load:?}");
    assert_eq!(fleet.load("another-pod"), Observation::Unknown);
    worker.kill()?;
    let stale = fleet.when("no proof of anything any more", |load| load.known().is_none()).await;
    assert!(matches!(stale, Observation::Stale { .. }), "the server still lists it: {stale:?}");
    Ok(())
}

#[tokio::test]
async fn a_pod_that_is_gone_says_how_it_can_not_be_read() -> Result<()> {
    let reader = Reader::of(free_port()?)?;
    let unreadable = wait_for("a failed read", SOON, async || reader.seen().unreadable).await;
    let Unreadable::Failed { .. } = &unreadable else { panic!("{unreadable:?}") };
    assert!(unreadable.problem().contains("connection refused"), "{}", unreadable.problem());
    Ok(())
}
