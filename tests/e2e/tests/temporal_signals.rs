//! What the operator reads of Workers on real SDKs, beside what the server recorded.

mod runtime_support;
mod signals_support;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::tools::Tools;
use operator_core::observed::{SlotUse, TaskType, Unreadable, Waits};
use runtime_support::{Server, program, wait_for};
use serde_json::json;
use signals_support::{
    Plain, QUEUE, Reader, Record, SLOTS, SOON, Sample, check_between, check_in_motion, check_still, free_port, records,
    sdk_workers, start_activities,
};

/// What is read may be as old as this. Tally, which the Go SDK's samples export by, renews its numbers each second; and a
/// slot is free again when the server has answered, which takes a busy machine as long.
const LAG: Duration = Duration::from_secs(3);
/// Tasks that fill the slots take this long, in milliseconds: longer than it takes to read that they are full.
const FULL: u64 = 4000;

async fn go_worker() -> Result<PathBuf> {
    Ok(Tools::ensure_async(Tools::GO_WORKER).await?.program("go-worker")?.to_owned())
}

/// Holds what is read of a Worker beside the server's record: with all slots in use, in a stream of short tasks, and
/// once nothing runs any more.
async fn is_read_exactly(server: &Server, reader: &Reader) -> Result<()> {
    wait_for(&format!("{}: a first reading", reader.task_queue), SOON, async || reader.slots(TaskType::Activity)).await;
    let mut ids = is_read_while_full(server, reader).await?;
    let times: Vec<u64> = (0..120).map(|number| 100 + number * 37 % 700).collect();
    let all = (ids.len() + times.len()) as u64;
    let starts = start_activities(server, reader.task_queue, &times, Duration::from_millis(60));
    let (started, samples) = tokio::join!(starts, samples_until(reader, all));
    ids.extend(started?);
    let records = records(server, &ids).await?;
    samples.iter().try_for_each(|sample| check_in_motion(sample, &records, LAG))?;
    check_between(&samples, &records)?;
    let waits = format!("{}: the waits of all tasks", reader.task_queue);
    let still = wait_for(&waits, SOON, async || {
        let slots = reader.slots(TaskType::Activity)?.0;
        (slots.waits.0.last()?.1 >= all).then_some(slots)
    })
    .await;
    check_still(&still, &records)?;
    ensure!(reader.seen().unreadable.is_none());
    lies_are_noticed(&samples, &still, &records)
}

/// Fills all slots, and waits until that is read to the task while the tasks run. Their IDs.
async fn is_read_while_full(server: &Server, reader: &Reader) -> Result<Vec<String>> {
    let times = vec![FULL; usize::try_from(SLOTS)?];
    let ids = start_activities(server, reader.task_queue, &times, Duration::ZERO).await?;
    wait_for(&format!("{}: a reading of all slots in use", reader.task_queue), SOON, async || {
        let slots = reader.slots(TaskType::Activity)?.0;
        let told = (slots.used, slots.available, slots.started, slots.waits.0.last()?.1);
        (told == (SLOTS, 0, SLOTS, SLOTS)).then_some(())
    })
    .await;
    for id in &ids {
        let info = server.describe(id).await?;
        ensure!(info.last_started_time.is_some() && info.close_time.is_none(), "it was read too late: {info:?}");
    }
    Ok(ids)
}

/// Reads until so many tasks have started and nothing runs.
async fn samples_until(reader: &Reader, all: u64) -> Vec<Sample> {
    let mut samples = Vec::new();
    wait_for(&format!("{}: the end of all tasks", reader.task_queue), SOON, async || {
        let (slots, asked) = reader.slots(TaskType::Activity)?;
        let done = slots.started >= all && slots.used == 0;
        samples.push(Sample { slots, asked });
        done.then_some(())
    })
    .await;
    samples
}

/// The checks refuse the same readings with half as many tasks again, and with two more than there are.
fn lies_are_noticed(samples: &[Sample], still: &SlotUse, records: &[Record]) -> Result<()> {
    let told = |it: &Sample, used, started| Sample { slots: SlotUse { used, started, ..it.slots.clone() }, ..*it };
    let fast: Vec<Sample> = samples.iter().map(|it| told(it, it.slots.used, it.slots.started * 3 / 2)).collect();
    ensure!(check_between(&fast, records).is_err());
    let mut busy = samples.iter().map(|it| told(it, it.slots.used + 2, it.slots.started));
    ensure!(busy.any(|it| check_in_motion(&it, records, LAG).is_err()));
    ensure!(check_still(&SlotUse { started: still.started + 2, ..still.clone() }, records).is_err());
    Ok(())
}

#[tokio::test]
async fn workers_on_the_sdks_of_four_languages_are_read_exactly() -> Result<()> {
    let server = Server::start().await?;
    let (mut running, mut readers) = (Vec::new(), Vec::new());
    for (language, program) in sdk_workers().await? {
        let port = free_port()?;
        let address = format!("127.0.0.1:{port}");
        running.push(Plain::start(&program, &server, language, &[("METRICS_ADDRESS", &address)])?);
        readers.push(Reader::of(port, language)?);
    }
    // One after another: the machine has to have time for the one that is measured.
    for reader in &readers {
        is_read_exactly(&server, reader).await.context(reader.task_queue)?;
        let cpu = wait_for("its CPU", SOON, async || reader.seen().load.known()?.cpu).await;
        assert!((0.0..1.0).contains(&cpu), "{}: {cpu}", reader.task_queue);
    }
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
    let _worker = Plain::start(&go_worker().await?, &server, QUEUE, &environment)?;
    let version = ["--deployment-name", "team/go", "--build-id", "v1", "--yes"];
    wait_for("the version", SOON, async || {
        server.cli(&[&["worker", "deployment", "set-current-version"][..], &version].concat()).ok()
    })
    .await;
    let reader = Reader::of(port, QUEUE)?;
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
    let _worker = Plain::start(&program("plain"), &server, QUEUE, &[("METRICS_ADDRESS", &address)])?;
    is_read_exactly(&server, &Reader::of(port, QUEUE)?).await
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
    is_read_exactly(&server, &Reader::of(port, QUEUE)?).await
}

#[tokio::test]
async fn a_pod_that_is_gone_says_how_it_can_not_be_read() -> Result<()> {
    let reader = Reader::of(free_port()?, QUEUE)?;
    let unreadable = wait_for("a failed read", SOON, async || reader.seen().unreadable).await;
    let Unreadable::Failed { .. } = &unreadable else { panic!("{unreadable:?}") };
    assert!(unreadable.problem().contains("connection refused"), "{}", unreadable.problem());
    Ok(())
}
