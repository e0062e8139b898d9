//! A Temporal server on the loopback address keeps its address and its Workflows over every kind of interruption.

use std::process::Command;
use std::time::Duration;

use harness::{TemporalOptions, TemporalServer};

fn succeeds(command: &mut Command) -> bool {
    command.output().unwrap().status.success()
}

fn knows(server: &TemporalServer, workflow: &str) -> bool {
    succeeds(server.cli().unwrap().args(["workflow", "describe", "--namespace", "orders", "--workflow-id", workflow]))
}

#[tokio::test]
async fn workflows_survive_a_stop_a_kill_and_a_pause() {
    let options = TemporalOptions {
        namespaces: vec!["orders".into()],
        dynamic_config: vec![("matching.numTaskqueueReadPartitions".into(), "1".into())],
        ..TemporalOptions::default()
    };
    let mut server = TemporalServer::start(options).await.unwrap();
    let address = server.host_port();
    let start =
        ["workflow", "start", "--namespace", "orders", "--task-queue", "q", "--type", "Order", "--workflow-id", "w-1"];
    assert!(succeeds(server.cli().unwrap().args(start)));
    assert!(knows(&server, "w-1"));

    server.stop().unwrap();
    assert!(!knows(&server, "w-1"), "nothing answers while it is stopped");
    server.restart().await.unwrap();
    assert!(knows(&server, "w-1"));

    server.kill().unwrap();
    server.restart().await.unwrap();
    assert!(knows(&server, "w-1"));
    assert_eq!(server.host_port(), address);

    server.set_paused(true).unwrap();
    assert!(!knows(&server, "w-1"), "calls time out while it is paused");
    server.set_paused(false).unwrap();
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while !knows(&server, "w-1") {
        assert!(tokio::time::Instant::now() < end);
    }
}
