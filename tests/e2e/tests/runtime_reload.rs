//! The files of a running Worker process change: Task Queues, handlers, slots, rates, polls, resources.

mod runtime_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use runtime_support::stream::stream;
use runtime_support::{Activity, SOON, Server, WORK, Worker, assert_says, exec, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;
use temporalio_protos::temporal::api::enums::v1::PendingActivityState;

const STALE: &str = "configuration_stale";

/// A handler that ends with `result` once the gate is open.
fn gated(gate: &TempDir, result: u32) -> Value {
    let script = format!("while [ ! -e {}/open ]; do sleep 0.05; done; echo {result}", gate.path().display());
    exec(&["sh", "-c", &script])
}

fn lane(task_queue: &str) -> String {
    format!(r#"task_queue="{task_queue}",task_type="activity""#)
}

#[tokio::test]
async fn queues_and_handlers_change_while_tasks_run() -> Result<()> {
    let (server, gate) = (Server::start().await?, tempfile::tempdir()?);
    let worker = Worker::ready(&server, gated(&gate, 1), json!({})).await?;
    let before = server.start_activity(Activity::default()).await?;
    worker.wait_metric("slots_used", WORK, 1.0).await;
    let mut changed = exec(&["echo", "2"]);
    changed["taskQueues"] = json!(["q", "r"]);
    worker.write_config(&changed)?;
    // The task that runs keeps its handler; those that come get the new one, on both Task Queues.
    worker.wait_metric("slots_available", &lane("r"), 10.0).await;
    for task_queue in ["r", "q"] {
        let ended = server.run(Activity { task_queue, ..Activity::default() }).await?;
        assert_eq!(ended.result(), json!(2), "{task_queue}");
    }
    // A Task Queue that is no longer wished takes no further task, and ends what it runs.
    changed["taskQueues"] = json!(["r"]);
    worker.write_config(&changed)?;
    worker.wait_log("no longer polled").await;
    worker.wait_log("polls no more").await;
    // Wished again while it still runs a task, it is one Task Queue with the slots of one.
    changed["taskQueues"] = json!(["r", "q"]);
    worker.write_config(&changed)?;
    assert_eq!(server.run(Activity::default()).await?.result(), json!(2));
    worker.wait_metric("slots_used", WORK, 1.0).await;
    assert_eq!(worker.metric("slots_available", WORK).await, Some(9.0));
    changed["taskQueues"] = json!(["r"]);
    worker.write_config(&changed)?;
    wait_for("it to be left again", SOON, async || (worker.log().matches("polls no more").count() >= 2).then_some(()))
        .await;
    let later = server.start_activity(Activity::default()).await?;
    std::fs::write(gate.path().join("open"), "")?;
    assert_eq!(server.end_of(&before).await.result(), json!(1));
    assert_eq!(server.describe(&before).await?.attempt, 1);
    assert_eq!(server.run(Activity { task_queue: "r", ..Activity::default() }).await?.result(), json!(2));
    wait_for("no slots of it to be shown", SOON, async || {
        worker.metric("slots_available", WORK).await.is_none().then_some(())
    })
    .await;
    assert_eq!(server.describe(&later).await?.run_state(), PendingActivityState::Scheduled);
    // And back again.
    changed["taskQueues"] = json!(["r", "q"]);
    worker.write_config(&changed)?;
    assert_eq!(server.end_of(&later).await.result(), json!(2));
    Ok(())
}

#[tokio::test]
async fn slots_change_while_they_are_taken() -> Result<()> {
    let (server, gate) = (Server::start().await?, tempfile::tempdir()?);
    let slots = |slots: u32| json!({"maxConcurrentActivities": {"q": slots}});
    let worker = Worker::ready(&server, gated(&gate, 1), slots(1)).await?;
    let mut activities = Vec::new();
    for _ in 0..4 {
        activities.push(server.start_activity(Activity::default()).await?);
    }
    worker.wait_metric("slots_used", WORK, 1.0).await;
    worker.write_limits(&slots(3))?;
    worker.wait_metric("slots_used", WORK, 3.0).await;
    worker.write_limits(&slots(2))?;
    worker.wait_log(r#""slots":2"#).await;
    assert_eq!(worker.metric("slots_used", WORK).await, Some(3.0), "nothing that runs is stopped");
    assert_eq!(worker.metric("slots_available", WORK).await, Some(0.0));
    std::fs::write(gate.path().join("open"), "")?;
    for activity_id in activities {
        assert_eq!(server.end_of(&activity_id).await.result(), json!(1));
        assert_eq!(server.describe(&activity_id).await?.attempt, 1);
    }
    worker.wait_metric("slots_available", WORK, 2.0).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_under_a_stream_of_tasks_lose_and_fail_none() -> Result<()> {
    let server = Arc::new(Server::start().await?);
    let worker = Worker::ready(&server, exec(&["echo", "0"]), json!({})).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let starters: Vec<_> = (0..2).map(|_| tokio::spawn(stream(server.clone(), stop.clone(), Duration::ZERO))).collect();
    for change in 1..=4_u32 {
        worker.write_config(&exec(&["echo", &change.to_string()]))?;
        worker.write_limits(&json!({
            "maxConcurrentActivities": {"q": 5 + change},
            // Each of these takes another Worker.
            "taskQueues": {"q": {"maxActivitiesPerSecond": 1000 + change, "pollers": {"minimum": 1, "maximum": 2 + change}}},
            "grpcCompression": if change % 2 == 0 { "None" } else { "Gzip" },
        }))?;
        let slots = format!(r#""slots":{}"#, 5 + change);
        worker.wait_log(&slots).await;
        // The Worker that was replaced has ended all its polls.
        wait_for("the end of the one before", SOON, async || {
            (worker.log().matches("polls no more").count() >= usize::try_from(change).ok()?).then_some(())
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut results = std::collections::BTreeSet::new();
    for starter in starters {
        for activity_id in starter.await?? {
            results.insert(server.end_of(&activity_id).await.result().as_u64());
            assert_eq!(server.describe(&activity_id).await?.attempt, 1, "{}", worker.log());
        }
    }
    assert!(results.len() >= 4, "tasks ran under each configuration: {results:?}");
    Ok(())
}

#[tokio::test]
async fn a_change_that_can_not_be_used_changes_nothing_and_is_said() -> Result<()> {
    let server = Server::start().await?;
    let worker = Worker::ready(&server, exec(&["echo", "1"]), json!({})).await?;
    let readiness = async || worker.probe("/readyz").await.expect("an answer");
    for (bad, parts) in [
        (exec(&["/no/such/program"]), ["handlers[worker].exec.command[0]", "/no/such/program", "handler's image"]),
        (json!({"version": 1, "taskQueue": []}), ["runtime.json", "taskQueue", "unknown field"]),
    ] {
        worker.write_config(&bad)?;
        worker.wait_gauge(STALE, 1.0).await;
        wait_for("the problem in the readiness text", SOON, async || {
            let (status, text) = readiness().await;
            (status == 200 && parts.iter().all(|part| text.contains(part))).then_some(())
        })
        .await;
        assert_says(&worker.log(), &["goes on with what the files said before"]);
        assert_eq!(server.run(Activity::default()).await?.result(), json!(1));
    }
    worker.write_config(&exec(&["echo", "2"]))?;
    worker.wait_gauge(STALE, 0.0).await;
    assert_eq!(readiness().await, (200, "ok".to_owned()));
    assert_eq!(server.run(Activity::default()).await?.result(), json!(2));
    worker.write_limits(&json!({"taskQueues": {"q": {"pollers": {"minimum": 0, "maximum": 2}}}}))?;
    worker.wait_gauge(STALE, 1.0).await;
    assert_says(&readiness().await.1, &["taskQueues[q].pollers: is 0 to 2"]);
    Ok(())
}

/// Time that four short tasks take with these limits.
async fn four_tasks(limits: Value) -> Result<Duration> {
    let server = Server::start().await?;
    let _worker = Worker::ready(&server, exec(&["true"]), limits).await?;
    let begun = Instant::now();
    let mut activities = Vec::new();
    for _ in 0..4 {
        activities.push(server.start_activity(Activity::default()).await?);
    }
    for activity_id in activities {
        server.end_of(&activity_id).await.result();
    }
    Ok(begun.elapsed())
}

#[tokio::test]
async fn a_process_starts_no_more_tasks_a_second_than_it_may() -> Result<()> {
    let slow = four_tasks(json!({"taskQueues": {"q": {"maxActivitiesPerSecond": 1.0}}})).await?;
    let free = four_tasks(json!({})).await?;
    assert!(slow > Duration::from_secs(2) && free < Duration::from_secs(2), "{slow:?} and {free:?}");
    Ok(())
}

#[tokio::test]
async fn slots_follow_memory_down_to_the_least() -> Result<()> {
    let (server, gate) = (Server::start().await?, tempfile::tempdir()?);
    let limits = |memory: f64| json!({"resourceTargets": {"memory": memory, "cpu": 1.0}, "taskQueues": {"q": {"minConcurrentActivities": 2}}});
    // More memory is in use than one part in a thousand.
    let worker = Worker::ready(&server, gated(&gate, 1), limits(0.001)).await?;
    let mut activities = Vec::new();
    for _ in 0..4 {
        activities.push(server.start_activity(Activity::default()).await?);
    }
    worker.wait_metric("slots_used", WORK, 2.0).await;
    worker.wait_metric("slots_available", WORK, 0.0).await;
    worker.write_limits(&limits(1.0))?;
    worker.wait_metric("slots_used", WORK, 4.0).await;
    std::fs::write(gate.path().join("open"), "")?;
    for activity_id in activities {
        assert_eq!(server.end_of(&activity_id).await.result(), json!(1));
    }
    Ok(())
}
