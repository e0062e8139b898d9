//! A Rust Worker on the runtime's library: the example, whose thumbnails the shared runtime makes.

mod runtime_support;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use runtime_support::{Server, Worker, program, wait_for};
use serde_json::{Value, json};

const PICTURES: &str = "3";

fn example(server: &Server, config: &Value, environment: &[(&str, &str)]) -> Result<Worker> {
    limited_example(server, config, environment, json!({}))
}

fn limited_example(server: &Server, config: &Value, environment: &[(&str, &str)], limits: Value) -> Result<Worker> {
    let command = Command::new(program("pictures"));
    let mut all = json!({"drainTimeoutMs": 90_000});
    all.as_object_mut().context("an object")?.extend(limits.as_object().cloned().unwrap_or_default());
    Worker::start_program(command, &server.temporal.host_port(), config, &all, environment)
}

fn queues() -> Value {
    json!({"version": 1, "taskQueues": ["pictures-workflows", "pictures-local"]})
}

/// The fleet that makes thumbnails.
async fn thumbnails(server: &Server, folder: &std::path::Path) -> Result<Worker> {
    limited_thumbnails(server, folder, json!({})).await
}

async fn limited_thumbnails(server: &Server, folder: &std::path::Path, limits: Value) -> Result<Worker> {
    let made = Command::new(program("thumbnail")).arg("--make-pictures").arg(folder).arg(PICTURES).status()?;
    assert!(made.success());
    let command = [program("thumbnail").display().to_string(), folder.display().to_string()];
    let config = json!({
        "version": 1,
        "taskQueues": ["thumbnails"],
        "handlers": [{"name": "thumbnail", "exec": {"command": command}}],
        "activities": [{"type": "Thumbnail", "handler": "thumbnail"}],
    });
    let mut all = json!({"maxConcurrentActivities": {"thumbnails": 2}});
    all.as_object_mut().context("an object")?.extend(limits.as_object().cloned().unwrap_or_default());
    Worker::ready(server, config, all).await
}

fn start_workflow(server: &Server, pictures: u32) -> Result<()> {
    let input = json!({"pictures": pictures, "different": 3, "width": 200}).to_string();
    let arguments = ["workflow", "start", "--workflow-id", "make", "--type", "MakeThumbnails"];
    server.cli(&[&arguments[..], &["--task-queue", "pictures-workflows", "--input", &input]].concat())?;
    Ok(())
}

async fn result(server: &Server) -> Value {
    wait_for("the Workflow's end", Duration::from_secs(90), async || {
        let described = server.cli(&["workflow", "describe", "--workflow-id", "make"]).ok()?;
        let closed = described["workflowExecutionInfo"]["status"] == "WORKFLOW_EXECUTION_STATUS_COMPLETED";
        closed.then(|| described["result"].clone())
    })
    .await
}

fn attempts(server: &Server) -> Result<Vec<Value>> {
    let history = server.cli(&["workflow", "show", "--workflow-id", "make"])?;
    let events = history["events"].as_array().context("no events")?;
    Ok(events
        .iter()
        .filter_map(|event| event.get("activityTaskStartedEventAttributes")?.get("attempt").cloned())
        .collect())
}

#[tokio::test]
async fn the_example_has_thumbnails_made_and_checked() -> Result<()> {
    let server = Server::start().await?;
    let folder = tempfile::tempdir()?;
    let fleet = thumbnails(&server, folder.path()).await?;
    let mut example = example(&server, &queues(), &[])?;
    example.wait_ready().await;
    start_workflow(&server, 6)?;
    let summary = result(&server).await;
    assert_eq!((&summary["pictures"], &summary["checked"]), (&json!(6), &json!(6)), "{summary}");
    assert_eq!(attempts(&server)?, vec![json!(1); 7]);
    fleet.wait_metric("tasks_started_total", r#"task_queue="thumbnails",task_type="activity""#, 6.0).await;
    let (local, workflow) = (
        r#"task_queue="pictures-local",task_type="activity""#,
        r#"task_queue="pictures-workflows",task_type="workflow""#,
    );
    assert_eq!(example.metric("tasks_started_total", local).await, Some(1.0));
    example.wait_metric("slots_used", local, 0.0).await;
    example.wait_metric("slots_used", workflow, 0.0).await;
    assert_eq!(example.metric("slots_available", local).await, Some(10.0));
    let unpolled = r#"task_queue="pictures-workflows",task_type="activity""#;
    assert_eq!(example.metric("slots_available", unpolled).await, None, "it polls no activities there");
    example.terminate()?;
    // Its open polls end within ten seconds.
    assert!(example.exit(Duration::from_secs(20)).await?.success());
    Ok(())
}

#[tokio::test]
async fn a_library_worker_finishes_its_activity_in_a_drain() -> Result<()> {
    let server = Server::start().await?;
    let folder = tempfile::tempdir()?;
    let _fleet = thumbnails(&server, folder.path()).await?;
    let mut first = example(&server, &queues(), &[])?;
    first.wait_ready().await;
    start_workflow(&server, 3)?;
    first.wait_metric("slots_used", r#"task_queue="pictures-local",task_type="activity""#, 1.0).await;
    first.terminate()?;
    first.wait_readiness(503).await;
    assert!(first.exit(Duration::from_secs(90)).await?.success());
    // The Workflow goes on in another process.
    let second = example(&server, &queues(), &[])?;
    second.wait_ready().await;
    assert_eq!(result(&server).await["checked"], json!(3));
    assert_eq!(attempts(&server)?, vec![json!(1); 4]);
    Ok(())
}

#[tokio::test]
async fn a_library_worker_s_result_outlives_an_outage_of_the_server() -> Result<()> {
    let mut server = Server::start().await?;
    let folder = tempfile::tempdir()?;
    let _fleet = thumbnails(&server, folder.path()).await?;
    let example = example(&server, &queues(), &[])?;
    example.wait_ready().await;
    start_workflow(&server, 3)?;
    let checks = r#"task_queue="pictures-local",task_type="activity""#;
    example.wait_metric("slots_used", checks, 1.0).await;
    server.temporal.stop()?;
    // The check ends meanwhile, and core by itself would give its result up after ten seconds.
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(example.metric("slots_used", checks).await, Some(1.0), "the result is not given up");
    assert_eq!(example.probe("/readyz").await.map(|answer| answer.0), Some(200));
    server.temporal.restart().await?;
    assert_eq!(result(&server).await["checked"], json!(3));
    assert_eq!(attempts(&server)?, vec![json!(1); 4]);
    Ok(())
}

#[tokio::test]
async fn a_versioned_library_worker_registers_both_kinds_of_queues() -> Result<()> {
    let server = Server::start().await?;
    let environment = [("TEMPORAL_DEPLOYMENT_NAME", "team/pictures"), ("TEMPORAL_WORKER_BUILD_ID", "v1")];
    let example = example(&server, &queues(), &environment)?;
    example.wait_ready().await;
    let arguments =
        ["worker", "deployment", "describe-version", "--deployment-name", "team/pictures", "--build-id", "v1"];
    wait_for("both Task Queues", Duration::from_secs(30), async || {
        let version = server.cli(&arguments).ok()?.to_string();
        (version.contains("pictures-workflows") && version.contains("pictures-local")).then_some(())
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn task_queues_that_differ_from_the_configuration_are_refused() -> Result<()> {
    let server = Server::start().await?;
    let mut example = example(&server, &json!({"version": 1, "taskQueues": ["pictures-workflows"]}), &[])?;
    assert_eq!(example.exit(Duration::from_secs(10)).await?.code(), Some(1));
    assert!(example.log().contains("pictures-local") && example.log().contains("make them equal"), "{}", example.log());
    Ok(())
}

/// Encodings of all payloads of the history, but for the input that whoever started the Workflow gave it.
fn encodings(server: &Server) -> Result<BTreeSet<String>> {
    fn collect(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => {
                found.extend(object.get("encoding").and_then(Value::as_str).map(str::to_owned));
                object.values().for_each(|value| collect(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
    let history = server.cli(&["workflow", "show", "--workflow-id", "make"])?;
    let mut found = BTreeSet::new();
    for event in history["events"].as_array().context("no events")?.iter().skip(1) {
        collect(event, &mut found);
    }
    Ok(found)
}

/// Runs the example to its end, and says how its payloads are encoded.
async fn encodings_with(limits: Value) -> Result<BTreeSet<String>> {
    let (server, folder) = (Server::start().await?, tempfile::tempdir()?);
    let _fleet = limited_thumbnails(&server, folder.path(), limits.clone()).await?;
    let example = limited_example(&server, &queues(), &[], limits)?;
    example.wait_ready().await;
    start_workflow(&server, 3)?;
    result(&server).await;
    encodings(&server)
}

#[tokio::test]
async fn a_rust_workflow_and_its_activities_encrypt_what_they_say() -> Result<()> {
    // In Base64, as the command shows them: `json/plain`.
    const PLAIN: &str = "anNvbi9wbGFpbg==";
    let keys = tempfile::tempdir()?;
    let key = json!({"id": "k1", "file": keys.path().join("k1")});
    std::fs::write(keys.path().join("k1"), [1; 32])?;
    // The input comes from somebody without a key.
    let encrypted = encodings_with(json!({"encryption": {"mode": "Migrate", "writeKey": key}})).await?;
    assert!(!encrypted.is_empty() && !encrypted.contains(PLAIN), "{encrypted:?}");
    let plain = encodings_with(json!({})).await?;
    assert!(plain.contains(PLAIN), "the control finds nothing: {plain:?}");
    Ok(())
}
