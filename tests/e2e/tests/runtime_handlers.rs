//! Handlers of the shared runtime, against a real Temporal server: what they are given, and how each failure reads.

mod runtime_support;

use std::time::Duration;

use anyhow::Result;
use runtime_support::{Activity, SOON, Server, Worker, config, exec, json_payload, payload, runs, wait_for};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const WORK: &str = r#"task_queue="q",task_type="activity""#;

/// Runs one activity with a handler, and says how it failed: type and message.
async fn failure(configuration: serde_json::Value, limits: serde_json::Value) -> Result<(String, String)> {
    let server = Server::start().await?;
    let worker = Worker::ready(&server, configuration, limits).await?;
    let failure = server.run(Activity::default()).await?.failure();
    let reason = format!(r#"reason="{}",task_queue="q""#, failure.0);
    worker.wait_metric("activity_failures_total", &reason, 1.0).await;
    worker.wait_metric("tasks_ended_total", &format!(r#"outcome="failed",{WORK}"#), 1.0).await;
    Ok(failure)
}

fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[tokio::test]
async fn one_process_serves_many_task_queues() -> Result<()> {
    let server = Server::start().await?;
    let queues: Vec<String> = (0..12).map(|number| format!("queue-{number}")).collect();
    let mut configuration = exec(&["cat"]);
    configuration["taskQueues"] = json!(queues);
    let worker = Worker::ready(&server, configuration, json!({})).await?;
    for (number, task_queue) in queues.iter().enumerate() {
        let input = vec![json_payload(&json!({"number": number})), payload("binary/null", "")];
        let result = server.run(Activity { task_queue, input, ..Activity::default() }).await?.result();
        assert_eq!(result, json!([{"number": number}, null]));
        let labels = format!(r#"task_queue="{task_queue}",task_type="activity""#);
        worker.wait_metric("tasks_started_total", &labels, 1.0).await;
        worker.wait_metric("slots_available", &labels, 10.0).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_program_that_prints_nothing_gives_null() -> Result<()> {
    let server = Server::start().await?;
    let _worker = Worker::ready(&server, exec(&["true"]), json!({})).await?;
    assert_eq!(server.run(Activity::default()).await?.result(), json!(null));
    Ok(())
}

#[tokio::test]
async fn a_failing_program_is_retried_until_it_works() -> Result<()> {
    let server = Server::start().await?;
    let script = r#"[ "$TEMPORAL_ACTIVITY_ATTEMPT" = 3 ] || exit 1; echo "$TEMPORAL_ACTIVITY_ATTEMPT""#;
    let _worker = Worker::ready(&server, exec(&["sh", "-c", script]), json!({})).await?;
    assert_eq!(server.run(Activity { attempts: 0, ..Activity::default() }).await?.result(), json!(3));
    Ok(())
}

#[tokio::test]
async fn a_failure_carries_the_last_4_kib_of_stderr() -> Result<()> {
    let script = "head -c 20000 /dev/zero | tr '\\0' x >&2; echo the end >&2; exit 7";
    let (kind, message) = failure(exec(&["sh", "-c", script]), json!({})).await?;
    assert_eq!(kind, "HandlerFailed");
    assert_says(&message, &["\"worker\"", "code 7", "the end"]);
    let carried = message.chars().filter(|letter| *letter == 'x').count();
    assert!((4000..=4096).contains(&carried), "{carried}");
    Ok(())
}

#[tokio::test]
async fn a_program_gets_a_cleared_environment() -> Result<()> {
    let server = Server::start().await?;
    let handler =
        json!({"name": "worker", "exec": {"command": ["sh", "-c", "env >&2; exit 1"], "env": {"COLOR": "red"}}});
    let secret = [("TEMPORAL_API_KEY", "s3cret-key"), ("TEMPORAL_TLS", "false"), ("OTHER_SECRET", "s3cret-other")];
    let worker = Worker::start(&server.temporal.host_port(), &config(handler), &json!({}), &secret)?;
    worker.wait_ready().await;
    let (_, message) = server.run(Activity::default()).await?.failure();
    assert_says(&message, &["COLOR=red", "PATH=", "TEMPORAL_ACTIVITY_TYPE=Work", "TEMPORAL_TASK_QUEUE=q"]);
    assert_says(&message, &["TEMPORAL_ACTIVITY_ID=Work-", "TEMPORAL_ACTIVITY_ATTEMPT=1", "TEMPORAL_WORKFLOW_ID="]);
    assert!(!message.contains("s3cret"), "{message}");
    assert!(!worker.log().contains("s3cret-key"), "{}", worker.log());
    Ok(())
}

#[tokio::test]
async fn a_missing_program_is_named_with_field_value_and_remedy() -> Result<()> {
    let (kind, message) = failure(exec(&["/no/such/program"]), json!({})).await?;
    assert_eq!(kind, "HandlerNotStarted");
    assert_says(&message, &["\"worker\"", "command[0]", "\"/no/such/program\"", "No such file", "image"]);
    Ok(())
}

#[tokio::test]
async fn a_missing_working_folder_is_named() -> Result<()> {
    let handler = json!({"name": "worker", "exec": {"command": ["true"], "workingDir": "/no/such/folder"}});
    let (kind, message) = failure(config(handler), json!({})).await?;
    assert_eq!(kind, "HandlerNotStarted");
    assert_says(&message, &["\"worker\"", "workingDir", "\"/no/such/folder\"", "correct the field"]);
    Ok(())
}

#[tokio::test]
async fn output_that_is_not_json_is_shown() -> Result<()> {
    let (kind, message) = failure(exec(&["echo", "all went well"]), json!({})).await?;
    assert_eq!(kind, "HandlerOutputInvalid");
    assert_says(&message, &["\"worker\"", "all went well", "standard output"]);
    Ok(())
}

#[tokio::test]
async fn output_over_2_mib_is_refused() -> Result<()> {
    // The program would print for ever: it is stopped at the limit.
    let (kind, message) = failure(exec(&["sh", "-c", "yes 1"]), json!({})).await?;
    assert_eq!(kind, "HandlerOutputTooLarge");
    assert_says(&message, &["\"worker\"", "2097152", "store"]);
    Ok(())
}

#[tokio::test]
async fn a_handler_over_its_timeout_is_killed_with_its_children() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let pids = folder.path().join("pids");
    let script = format!("sleep 600 & echo $! $$ > {}; wait", pids.display());
    let limits = json!({"handlerTimeoutMs": {"worker": 1500}});
    let (kind, message) = failure(exec(&["sh", "-c", &script]), limits).await?;
    assert_eq!(kind, "HandlerTimedOut");
    assert_says(&message, &["\"worker\"", "1.5s", "raise the timeout"]);
    assert_all_gone(&pids).await
}

async fn assert_all_gone(pids: &std::path::Path) -> Result<()> {
    let text = std::fs::read_to_string(pids)?;
    let pids = text.split_whitespace().map(str::parse).collect::<Result<Vec<i32>, _>>()?;
    assert_eq!(pids.len(), 2, "{text}");
    wait_for("the processes to be gone", SOON, async || (!pids.iter().any(|pid| runs(*pid))).then_some(())).await;
    Ok(())
}

#[tokio::test]
async fn a_cancelled_activity_is_killed_with_its_children() -> Result<()> {
    let server = Server::start().await?;
    let folder = tempfile::tempdir()?;
    let pids = folder.path().join("pids");
    let script = format!("sleep 600 & echo $! $$ > {}; wait", pids.display());
    let worker = Worker::ready(&server, exec(&["sh", "-c", &script]), json!({})).await?;
    let activity = Activity { heartbeat: Some(Duration::from_secs(2)), ..Activity::default() };
    let activity_id = server.start_activity(activity).await?;
    worker.wait_metric("slots_used", WORK, 1.0).await;
    wait_for("the handler to run", SOON, async || pids.exists().then_some(())).await;
    server.cancel(&activity_id).await?;
    let ended = server.end_of(&activity_id).await;
    assert!(matches!(ended, runtime_support::Ended::Cancelled), "{ended:?}");
    worker.wait_metric("tasks_ended_total", &format!(r#"outcome="cancelled",{WORK}"#), 1.0).await;
    worker.wait_metric("slots_used", WORK, 0.0).await;
    assert_all_gone(&pids).await
}

#[tokio::test]
async fn heartbeats_keep_a_long_activity_on_its_first_attempt() -> Result<()> {
    let server = Server::start().await?;
    let _worker = Worker::ready(&server, exec(&["sh", "-c", "sleep 5; echo 1"]), json!({})).await?;
    let activity = Activity { heartbeat: Some(Duration::from_secs(2)), attempts: 0, ..Activity::default() };
    let activity_id = server.start_activity(activity).await?;
    assert_eq!(server.end_of(&activity_id).await.result(), json!(1));
    let info = server.describe(&activity_id).await?;
    assert_eq!(info.attempt, 1);
    assert!(info.last_heartbeat_time.is_some(), "{info:?}");
    Ok(())
}

#[tokio::test]
async fn an_unknown_activity_type_names_the_known_ones() -> Result<()> {
    let server = Server::start().await?;
    let _worker = Worker::ready(&server, exec(&["cat"]), json!({})).await?;
    let activity = Activity { activity_type: "Wrok", ..Activity::default() };
    let (kind, message) = server.run(activity).await?.failure();
    assert_eq!(kind, "UnknownActivityType");
    assert_says(&message, &["\"Wrok\"", "\"q\"", "runs Work", "add it to activities"]);
    Ok(())
}

#[tokio::test]
async fn an_argument_that_is_not_json_is_named() -> Result<()> {
    let server = Server::start().await?;
    let _worker = Worker::ready(&server, exec(&["cat"]), json!({})).await?;
    let activity = Activity { input: vec![payload("binary/encrypted", "x")], ..Activity::default() };
    let (kind, message) = server.run(activity).await?.failure();
    assert_eq!(kind, "ArgumentsInvalid");
    assert_says(&message, &["argument 0", "binary/encrypted", "json/plain"]);
    Ok(())
}

/// Answers one request with a status and a body, and says what was asked.
async fn answer_once(listener: TcpListener, answer: &'static str) -> Result<String> {
    let (mut stream, _) = listener.accept().await?;
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    while !String::from_utf8_lossy(&request).ends_with("[{\"n\":1}]") {
        let read = stream.read(&mut chunk).await?;
        assert!(read > 0, "the request broke off: {}", String::from_utf8_lossy(&request));
        request.extend_from_slice(&chunk[..read]);
    }
    stream.write_all(answer.as_bytes()).await?;
    Ok(String::from_utf8(request)?)
}

#[tokio::test]
async fn a_service_gets_arguments_and_task_and_answers_json() -> Result<()> {
    let server = Server::start().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let handler = json!({"name": "worker", "http": {"url": format!("http://{}/do", listener.local_addr()?)}});
    let service = tokio::spawn(answer_once(listener, "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"done\":true}"));
    let _worker = Worker::ready(&server, config(handler), json!({})).await?;
    assert_eq!(server.run(Activity::default()).await?.result(), json!({"done": true}));
    let request = service.await??.to_lowercase();
    assert_says(&request, &["post /do ", "content-type: application/json", "temporal-activity-type: work"]);
    assert_says(&request, &["temporal-task-queue: q", "temporal-activity-attempt: 1", "temporal-activity-id: work-"]);
    Ok(())
}

#[tokio::test]
async fn a_service_that_refuses_is_quoted() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let handler = json!({"name": "worker", "http": {"url": format!("http://{}/", listener.local_addr()?)}});
    let answer = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 8\r\n\r\nnot now!";
    let service = tokio::spawn(answer_once(listener, answer));
    let (kind, message) = failure(config(handler), json!({})).await?;
    service.await??;
    assert_eq!(kind, "HandlerRefused");
    assert_says(&message, &["\"worker\"", "503", "not now!"]);
    Ok(())
}

#[tokio::test]
async fn a_service_that_does_not_listen_is_named() -> Result<()> {
    let handler = json!({"name": "worker", "http": {"url": "http://127.0.0.1:1/"}});
    let (kind, message) = failure(config(handler), json!({})).await?;
    assert_eq!(kind, "HandlerUnreachable");
    assert_says(&message, &["\"worker\"", "http://127.0.0.1:1/", "refused", "same pod"]);
    Ok(())
}

#[tokio::test]
async fn a_redirect_is_not_followed() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let handler = json!({"name": "worker", "http": {"url": format!("http://{}/", listener.local_addr()?)}});
    let answer = "HTTP/1.1 307 Moved\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n";
    let service = tokio::spawn(answer_once(listener, answer));
    let (kind, message) = failure(config(handler), json!({})).await?;
    service.await??;
    assert_eq!((kind.as_str(), message.contains("307")), ("HandlerRefused", true), "{message}");
    Ok(())
}
