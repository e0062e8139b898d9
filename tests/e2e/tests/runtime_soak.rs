//! Worker processes in many thousand tasks: memory, descriptors and processes stay what they were. Tasks come from a double of
//! the server, which hands them out as fast as they are taken.

mod runtime_support;

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::double::{Double, Handed};
use e2e::echo::Service;
use e2e::process::{children, descriptors, resident_kib};
use runtime_support::{SOON, Worker, config, exec, json_payload, program, project, wait_for};
use serde_json::{Value, json};
use temporalio_protos::temporal::api::common::v1::Payload;

/// Tasks of a proof that is part of every run.
const MANY: u64 = 10_000;
/// Tasks of a soak.
const VERY_MANY: u64 = 200_000;
const LIMIT: Duration = Duration::from_secs(25 * 60);

/// A process of a pool that gives back its arguments.
fn pool() -> Value {
    let script = "from temporal_handler import activity, run

@activity('*')
def echo(task, *arguments):
    return arguments

run()
";
    let adapter = project().join("worker-runtime/adapters/python");
    json!({"command": ["python3", "-c", script], "mode": "Pool", "env": {"PYTHONPATH": adapter}})
}

fn work(input: Payload) -> Handed {
    Handed { activity_type: "Work", input }
}

fn text() -> Payload {
    json_payload(&json!("x".repeat(98)))
}

/// Runs as many tasks after a tenth of them, and holds what the process has at the end beside what it had then.
async fn stays_as_it_is(configuration: Value) -> Result<()> {
    let double = Double::start().await?;
    let worker = Worker::start(&double.host_port(), &configuration, &json!({}), &[])?;
    let seen = async || {
        // Connections of tasks before have ended, and their processes were collected.
        let (mut last, mut same) = (None, 0);
        wait_for("descriptors and children to settle", SOON, async || {
            let now = (descriptors(worker.pid()).ok()?, children(worker.pid()).len());
            same = if last == Some(now) { same + 1 } else { 0 };
            last = Some(now);
            (same >= 10).then_some(now)
        })
        .await
    };
    double.run(&[work(text())], MANY / 10, LIMIT).await?;
    let (before, early) = (seen().await, resident_kib(worker.pid())?);
    double.run(&[work(text())], MANY - MANY / 10, LIMIT).await?;
    let (after, late) = (seen().await, resident_kib(worker.pid())?);
    assert!(after.0 <= before.0 + 3, "{} descriptors, then {}", before.0, after.0);
    assert!(after.1 <= before.1, "{} children, then {}", before.1, after.1);
    println!("{early} KiB, then {late}; {before:?} descriptors and children, then {after:?}");
    assert!(late <= early + early / 10, "{early} KiB, then {late} KiB");
    Ok(())
}

#[tokio::test]
async fn ten_thousand_tasks_of_a_pool_leave_nothing() -> Result<()> {
    stays_as_it_is(config(json!({"name": "worker", "exec": pool()}))).await
}

#[tokio::test]
async fn ten_thousand_programs_leave_nothing() -> Result<()> {
    stays_as_it_is(exec(&["cat"])).await
}

/// Resident memory after a fifth of very many tasks, and after all, in KiB.
async fn soak(double: &Double, worker: &Worker, activities: &[Handed]) -> Result<(u64, u64)> {
    double.run(activities, VERY_MANY / 5, LIMIT).await?;
    let early = resident_kib(worker.pid())?;
    double.run(activities, VERY_MANY - VERY_MANY / 5, LIMIT).await?;
    let late = resident_kib(worker.pid())?;
    println!("{early} KiB after {} tasks, {late} KiB after {VERY_MANY}", VERY_MANY / 5);
    Ok((early, late))
}

fn assert_flat((early, late): (u64, u64)) {
    assert!(late * 100 <= early * 105, "{early} KiB after a fifth of the tasks, {late} KiB at the end");
}

#[tokio::test]
async fn long_the_shared_runtime_s_memory_stays_flat() -> Result<()> {
    let service = Service::start().await?;
    let keys = tempfile::tempdir()?;
    std::fs::write(keys.path().join("k"), [7; 32])?;
    let key = json!({"id": "k", "file": keys.path().join("k")});
    let handlers = json!([{"name": "pool", "exec": pool()}, {"name": "web", "http": {"url": service.url}}]);
    let activities = json!([{"type": "Pooled", "handler": "pool"}, {"type": "Served", "handler": "web"}]);
    let configuration = json!({"version": 1, "taskQueues": ["q"], "handlers": handlers, "activities": activities});
    let limits = json!({"encryption": {"mode": "Migrate", "writeKey": key}});
    let double = Double::start().await?;
    let worker = Worker::start(&double.host_port(), &configuration, &limits, &[])?;
    double.run(&[Handed { activity_type: "Pooled", input: text() }], 1, SOON).await?;
    let sealed = double.last_result().context("no result")?;
    assert_eq!(sealed.metadata.get("encoding").map(Vec::as_slice), Some(&b"binary/encrypted"[..]));
    let handed = ["Pooled", "Served"].map(|activity_type| Handed { activity_type, input: sealed.clone() });
    assert_flat(soak(&double, &worker, &handed).await?);
    Ok(())
}

#[tokio::test]
async fn long_a_library_worker_s_memory_stays_flat() -> Result<()> {
    let double = Double::start().await?;
    let configuration = json!({"version": 1, "taskQueues": ["q"]});
    let environment = [("TASK_QUEUE", "q")];
    let worker = Worker::start_program(
        Command::new(program("echo")),
        &double.host_port(),
        &configuration,
        &json!({}),
        &environment,
    )?;
    let handed = Handed { activity_type: "Echo", input: text() };
    assert_flat(soak(&double, &worker, &[handed]).await?);
    Ok(())
}
