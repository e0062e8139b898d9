//! From start to exit of a Worker process: readiness, versions, slots, drain, and a server that goes away.

mod runtime_support;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use runtime_support::stream::stream;
use runtime_support::{Activity, SOON, Server, WORK, Worker, assert_says, config, exec, program, wait_for};
use serde_json::json;
use temporalio_protos::temporal::api::enums::v1::PendingActivityState;

/// A configuration with several things wrong, and what has to be said of them.
fn wrong() -> (serde_json::Value, Vec<&'static str>) {
    let mut configuration = config(json!({"name": "worker", "http": {"url": "http://10.1.2.3/"}}));
    let gone = json!({"name": "gone", "exec": {"command": ["/no/such/program"]}});
    configuration["handlers"].as_array_mut().expect("a list").push(gone);
    configuration["activities"][0]["handler"] = json!("wroker");
    let parts = vec![
        "handlers[worker].http.url",
        "http://10.1.2.3/",
        "handlers[gone].exec.command[0]",
        "/no/such/program",
        "activities[Work].handler",
        "wroker",
    ];
    (configuration, parts)
}

#[tokio::test]
async fn a_configuration_that_cannot_run_is_refused_with_every_problem() -> Result<()> {
    let (configuration, parts) = wrong();
    let mut worker = Worker::start("127.0.0.1:1", &configuration, &json!({}), &[])?;
    assert_eq!(worker.exit(SOON).await?.code(), Some(1));
    assert_says(&worker.log().replace("\\\"", "\""), &parts);
    Ok(())
}

#[test]
fn a_configuration_is_checked_without_a_server() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("runtime.json");
    let check = |text: &str| -> Result<(bool, String)> {
        std::fs::write(&file, text)?;
        let output = Command::new(program("worker-runtime")).arg("check").arg("--config").arg(&file).output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8(said)?))
    };
    let (configuration, parts) = wrong();
    let (passed, said) = check(&configuration.to_string())?;
    assert!(!passed);
    assert_says(&said, &parts);
    let (passed, said) = check("{\n  \"version\": 1,\n  \"taskQueue\": []\n}")?;
    assert!(!passed);
    assert_says(&said, &[&file.display().to_string(), "taskQueue", "line 3"]);
    let (passed, said) = check(&exec(&["cat"]).to_string())?;
    assert!(passed, "{said}");
    assert_says(&said, &["q (10 slots)", "activities: Work"]);
    Ok(())
}

#[tokio::test]
async fn ready_once_the_server_lists_its_polls() -> Result<()> {
    let mut server = Server::start().await?;
    server.temporal.stop()?;
    let worker = Worker::start(&server.temporal.host_port(), &exec(&["cat"]), &json!({}), &[])?;
    worker.wait_log("cannot connect to Temporal").await;
    assert!(worker.log().contains(&server.temporal.host_port()) && worker.log().contains("check the address"));
    assert_eq!(worker.probe("/readyz").await.map(|answer| answer.0), Some(503));
    assert_eq!(worker.probe("/healthz").await.map(|answer| answer.0), Some(200));
    server.temporal.restart().await?;
    worker.wait_ready().await;
    let listed = server.cli(&["task-queue", "describe", "--task-queue", "q", "--task-queue-type", "activity"])?;
    assert!(listed.to_string().contains("pod-"), "{listed}");
    Ok(())
}

#[tokio::test]
async fn ready_though_its_first_tasks_leave_no_slot_to_poll_with() -> Result<()> {
    const QUEUES: usize = 8;
    let server = Server::start().await?;
    let gate = tempfile::tempdir()?;
    let script = format!("while [ ! -e {}/open ]; do sleep 0.05; done; echo 1", gate.path().display());
    let mut configuration = exec(&["sh", "-c", &script]);
    let queues: Vec<_> = (0..QUEUES).map(|number| format!("full-{number}")).collect();
    configuration["taskQueues"] = json!(queues);
    let mut tasks = Vec::new();
    for queue in &queues {
        // In every partition.
        for _ in 0..12 {
            tasks.push(server.start_activity(Activity { task_queue: queue, ..Activity::default() }).await?);
        }
    }
    let one: BTreeMap<_, _> = queues.iter().map(|queue| (queue, 1)).collect();
    let limits = json!({"maxConcurrentActivities": one});
    let worker = Worker::start(&server.temporal.host_port(), &configuration, &limits, &[])?;
    worker.wait_ready().await;
    for queue in &queues {
        let lane = format!(r#"task_queue="{queue}",task_type="activity""#);
        worker.wait_metric("slots_used", &lane, 1.0).await;
    }
    std::fs::write(gate.path().join("open"), "")?;
    server.end_of(&tasks[0]).await;
    Ok(())
}

#[tokio::test]
async fn an_unknown_namespace_is_named_and_healed() -> Result<()> {
    let server = Server::start().await?;
    let environment = [("TEMPORAL_NAMESPACE", "orders")];
    let worker = Worker::start(&server.temporal.host_port(), &exec(&["cat"]), &json!({}), &environment)?;
    worker.wait_log("create it, correct the name").await;
    assert!(worker.log().contains("orders"), "{}", worker.log());
    assert_eq!(worker.probe("/readyz").await.map(|answer| answer.0), Some(503));
    server.cli(&["operator", "namespace", "create", "--namespace", "orders"])?;
    worker.wait_ready().await;
    Ok(())
}

#[tokio::test]
async fn a_versioned_worker_registers_its_build_id() -> Result<()> {
    let server = Server::start().await?;
    let environment = [("TEMPORAL_DEPLOYMENT_NAME", "team/orders"), ("TEMPORAL_WORKER_BUILD_ID", "build-7")];
    let worker = Worker::start(&server.temporal.host_port(), &exec(&["cat"]), &json!({}), &environment)?;
    worker.wait_ready().await;
    let arguments =
        ["worker", "deployment", "describe-version", "--deployment-name", "team/orders", "--build-id", "build-7"];
    let version =
        wait_for("the version", SOON, async || server.cli(&arguments).ok().filter(|v| v.to_string().contains("\"q\"")))
            .await;
    assert!(version.to_string().contains("build-7"), "{version}");
    // Tasks go to the Current version alone.
    let activity_id = server.start_activity(Activity::default()).await?;
    assert_eq!(server.describe(&activity_id).await?.run_state(), PendingActivityState::Scheduled);
    server.cli(&[
        "worker",
        "deployment",
        "set-current-version",
        "--deployment-name",
        "team/orders",
        "--build-id",
        "build-7",
        "--yes",
    ])?;
    assert_eq!(server.end_of(&activity_id).await.result(), json!([{"n": 1}]));
    Ok(())
}

#[tokio::test]
async fn slots_are_counted_while_tasks_run_and_saturation_stays_ready() -> Result<()> {
    let server = Server::start().await?;
    let gate = tempfile::tempdir()?;
    let script = format!("while [ ! -e {}/open ]; do sleep 0.05; done; echo 1", gate.path().display());
    let limits = json!({"maxConcurrentActivities": {"q": 2}});
    let worker = Worker::ready(&server, exec(&["sh", "-c", &script]), limits).await?;
    assert_eq!(worker.metric("slots_available", WORK).await, Some(2.0));
    let mut activities = Vec::new();
    for _ in 0..3 {
        activities.push(server.start_activity(Activity::default()).await?);
    }
    worker.wait_metric("slots_used", WORK, 2.0).await;
    assert_eq!(worker.metric("slots_available", WORK).await, Some(0.0));
    assert_eq!(worker.metric("tasks_started_total", WORK).await, Some(2.0));
    assert_eq!(worker.probe("/readyz").await.map(|answer| answer.0), Some(200));
    std::fs::write(gate.path().join("open"), "")?;
    for activity_id in activities {
        assert_eq!(server.end_of(&activity_id).await.result(), json!(1));
    }
    worker.wait_metric("slots_used", WORK, 0.0).await;
    assert_eq!(worker.metric("slots_available", WORK).await, Some(2.0));
    assert_eq!(worker.metric("tasks_started_total", WORK).await, Some(3.0));
    assert_eq!(worker.metric("tasks_ended_total", &format!(r#"outcome="completed",{WORK}"#)).await, Some(3.0));
    Ok(())
}

#[tokio::test]
async fn a_drain_finishes_what_runs_and_leaves_the_rest_on_the_queue() -> Result<()> {
    let server = Server::start().await?;
    // Its only slot is taken, so that no poll is open any more.
    let limits = json!({"drainTimeoutMs": 20_000, "maxConcurrentActivities": {"q": 1}});
    let mut worker = Worker::ready(&server, exec(&["sh", "-c", "sleep 4; echo 1"]), limits).await?;
    let running = server.start_activity(Activity::default()).await?;
    worker.wait_metric("slots_used", WORK, 1.0).await;
    worker.terminate()?;
    worker.wait_readiness(503).await;
    let later = server.start_activity(Activity::default()).await?;
    // The hook of a handler's container is answered when the last task has ended, and not before.
    {
        let hook = worker.probe("/drained");
        let still_runs = tokio::time::sleep(Duration::from_secs(1));
        tokio::pin!(hook);
        tokio::select! {
            answer = &mut hook => panic!("the hook was answered while a task runs: {answer:?}"),
            () = still_runs => {}
        }
        assert_eq!(hook.await, Some((200, "drained".to_owned())));
    }
    assert!(worker.exit(Duration::from_secs(10)).await?.success());
    assert_eq!(server.end_of(&running).await.result(), json!(1));
    assert_eq!(server.describe(&running).await?.attempt, 1);
    let info = server.describe(&later).await?;
    assert_eq!((info.run_state(), info.attempt), (PendingActivityState::Scheduled, 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn drains_under_a_stream_of_tasks_lose_none() -> Result<()> {
    let server = Arc::new(Server::start().await?);
    let completed = format!(r#"outcome="completed",{WORK}"#);
    // More slots than tasks, so that polls are open when a drain begins.
    let (configuration, limits) = (exec(&["true"]), json!({"maxConcurrentActivities": {"q": 50}}));
    let mut old = Worker::ready(&server, configuration.clone(), limits.clone()).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let starters: Vec<_> = (0..3).map(|_| tokio::spawn(stream(server.clone(), stop.clone(), Duration::ZERO))).collect();
    for _ in 0..3 {
        // Both serve, so that tasks and polls meet at any moment of the drain.
        let new = Worker::ready(&server, configuration.clone(), limits.clone()).await?;
        for worker in [&old, &new] {
            let worked = async || (worker.metric("tasks_ended_total", &completed).await? >= 20.0).then_some(());
            wait_for("some work", SOON, worked).await;
        }
        old.terminate()?;
        assert!(old.exit(Duration::from_secs(20)).await?.success());
        // Nothing was cut: every poll has ended by itself.
        assert!(old.log().contains(r#""idle":true"#), "{}", old.log());
        old = new;
    }
    stop.store(true, Ordering::Relaxed);
    for starter in starters {
        for activity_id in starter.await?? {
            assert_eq!(server.end_of(&activity_id).await.result(), json!(null));
            let info = server.describe(&activity_id).await?;
            assert_eq!(info.attempt, 1, "{info:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_task_over_the_drain_timeout_is_handed_back() -> Result<()> {
    let server = Server::start().await?;
    let configuration = exec(&["sh", "-c", "sleep 600"]);
    let mut worker = Worker::ready(&server, configuration, json!({"drainTimeoutMs": 1500})).await?;
    let activity_id = server.start_activity(Activity { attempts: 0, ..Activity::default() }).await?;
    worker.wait_metric("slots_used", WORK, 1.0).await;
    let begun = Instant::now();
    worker.terminate()?;
    assert_eq!(worker.exit(Duration::from_secs(5)).await?.code(), Some(3), "it says that tasks were cancelled");
    assert!(begun.elapsed() >= Duration::from_millis(1500), "the task had its time");
    let info = wait_for("the second attempt", SOON, async || {
        server.describe(&activity_id).await.ok().filter(|info| info.attempt == 2)
    })
    .await;
    let failure = info.last_failure.unwrap_or_default();
    assert!(failure.message.contains("drain timeout"), "{failure:?}");
    // Another Worker finishes it.
    let _other = Worker::ready(&server, exec(&["cat"]), json!({})).await?;
    assert_eq!(server.end_of(&activity_id).await.result(), json!([{"n": 1}]));
    Ok(())
}

#[tokio::test]
async fn a_worker_that_never_connected_ends_at_once() -> Result<()> {
    let mut worker = Worker::start("127.0.0.1:1", &exec(&["cat"]), &json!({}), &[])?;
    worker.wait_log("cannot connect").await;
    worker.terminate()?;
    assert!(worker.exit(Duration::from_secs(5)).await?.success());
    Ok(())
}

#[tokio::test]
async fn a_result_outlives_an_outage_of_the_server() -> Result<()> {
    let mut server = Server::start().await?;
    let worker = Worker::ready(&server, exec(&["sh", "-c", "sleep 3; echo 1"]), json!({})).await?;
    let activity_id = server.start_activity(Activity { attempts: 0, ..Activity::default() }).await?;
    worker.wait_metric("slots_used", WORK, 1.0).await;
    server.temporal.stop()?;
    // The task ended while nobody could be told, and for longer than core itself tries to.
    worker.wait_log("cannot report the end of an activity").await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(worker.metric("slots_used", WORK).await, Some(1.0));
    assert_eq!(worker.probe("/readyz").await.map(|answer| answer.0), Some(200), "cut off, and still ready");
    server.temporal.restart().await?;
    assert_eq!(server.end_of(&activity_id).await.result(), json!(1));
    assert_eq!(server.describe(&activity_id).await?.attempt, 1);
    worker.wait_metric("slots_used", WORK, 0.0).await;
    assert_eq!(server.run(Activity::default()).await?.result(), json!(1), "and it polls again");
    Ok(())
}

#[tokio::test]
async fn the_commands_of_hooks_do_not_wait_for_nobody() -> Result<()> {
    // Nobody listens there, so that there is nothing to wait for.
    for command in ["drained", "drain"] {
        let status = Command::new(program("worker-runtime")).args([command, "--address", "127.0.0.1:1"]).status()?;
        assert!(status.success(), "{command}");
    }
    Ok(())
}

#[tokio::test]
async fn a_hook_drains_before_the_signal_comes() -> Result<()> {
    let (server, gate) = (Server::start().await?, tempfile::tempdir()?);
    let script = format!("while [ ! -e {}/open ]; do sleep 0.05; done; echo 1", gate.path().display());
    let limits = json!({"maxConcurrentActivities": {"q": 1}});
    let mut worker = Worker::ready(&server, exec(&["sh", "-c", &script]), limits).await?;
    let running = server.start_activity(Activity::default()).await?;
    worker.wait_metric("slots_used", WORK, 1.0).await;
    let mut hook = Command::new(program("worker-runtime"))
        .args(["drain", "--address", &worker.address("probes").await.to_string()])
        .spawn()?;
    worker.wait_readiness(503).await;
    assert!(hook.try_wait()?.is_none(), "a task runs");
    std::fs::write(gate.path().join("open"), "")?;
    let hook = wait_for("the hook to end", SOON, async || hook.try_wait().ok()?).await;
    assert!(hook.success());
    assert_eq!(server.end_of(&running).await.result(), json!(1));
    worker.terminate()?;
    let begun = Instant::now();
    assert_eq!(worker.exit(SOON).await?.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(2), "nothing is left to wait for");
    Ok(())
}
