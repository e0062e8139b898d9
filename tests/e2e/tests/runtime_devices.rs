//! Tasks are spread over the devices of the container, against a real Temporal server.

mod runtime_support;

use anyhow::Result;
use runtime_support::{Activity, Server, Worker, exec};
use serde_json::json;

/// Tasks that run at a time.
const SLOTS: usize = 4;
/// Devices that they have.
const DEVICES: usize = 2;
/// All tasks.
const TASKS: usize = 12;

#[tokio::test]
async fn tasks_are_spread_over_the_devices_and_know_theirs() -> Result<()> {
    let (server, folder) = (Server::start().await?, tempfile::tempdir()?);
    let file = folder.path().join("log").display().to_string();
    let script = format!(
        "echo + $TEMPORAL_DEVICE_INDEX >> {file}; sleep 0.5; echo - $TEMPORAL_DEVICE_INDEX >> {file}
         echo $TEMPORAL_DEVICE_INDEX"
    );
    let limits = json!({"maxConcurrentActivities": {"q": SLOTS}, "taskQueues": {"q": {"devices": DEVICES}}});
    let _worker = Worker::ready(&server, exec(&["sh", "-c", &script]), limits).await?;
    let mut started = Vec::new();
    for _ in 0..TASKS {
        started.push(server.start_activity(Activity::default()).await?);
    }
    for activity_id in &started {
        assert!([json!(0), json!(1)].contains(&server.end_of(activity_id).await.result()));
    }
    let log = std::fs::read_to_string(&file)?;
    let (mut now, mut most) = ([0_usize; DEVICES], [0; DEVICES]);
    for line in log.lines() {
        let device: usize = line[2..].parse()?;
        now[device] = if line.starts_with('+') { now[device] + 1 } else { now[device] - 1 };
        most[device] = most[device].max(now[device]);
    }
    assert_eq!(log.lines().count(), 2 * TASKS);
    assert_eq!(most, [SLOTS / DEVICES; DEVICES], "all slots were taken, and shared fairly:\n{log}");
    Ok(())
}

#[tokio::test]
async fn a_task_of_a_task_queue_without_devices_knows_of_none() -> Result<()> {
    let server = Server::start().await?;
    let script = r#"echo "\"${TEMPORAL_DEVICE_INDEX-none}\"""#;
    let limits = json!({"taskQueues": {"other": {"devices": 2}}});
    let _worker = Worker::ready(&server, exec(&["sh", "-c", script]), limits).await?;
    assert_eq!(server.run(Activity::default()).await?.result(), json!("none"));
    Ok(())
}
