//! Handlers of the shared runtime, against a real Temporal server: what they are given, and how each failure reads.

mod runtime_support;

use std::time::Duration;

use anyhow::Result;
use runtime_support::pids::runs;
use runtime_support::{
    Activity, Ended, SOON, Server, WORK, Worker, assert_says, config, exec, json_payload, payload, wait_for,
};
use serde_json::json;
use temporalio_protos::temporal::api::enums::v1::ApplicationErrorCategory;

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
    let (kind, message) = Worker::failure(exec(&["sh", "-c", script]), json!({})).await?;
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
async fn a_program_that_vanished_is_named_with_field_value_and_remedy() -> Result<()> {
    let server = Server::start().await?;
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("program");
    std::os::unix::fs::symlink("/bin/true", &program)?;
    let path = program.display().to_string();
    let _worker = Worker::ready(&server, exec(&[&path]), json!({})).await?;
    std::fs::remove_file(&program)?;
    let (kind, message) = server.run(Activity::default()).await?.failure();
    assert_eq!(kind, "HandlerNotStarted");
    assert_says(&message, &["\"worker\"", "command[0]", &path, "is not there", "image"]);
    Ok(())
}

#[tokio::test]
async fn a_working_folder_that_vanished_is_named() -> Result<()> {
    let server = Server::start().await?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().display().to_string();
    let handler = json!({"name": "worker", "exec": {"command": ["true"], "workingDir": path}});
    let _worker = Worker::ready(&server, config(handler), json!({})).await?;
    folder.close()?;
    let (kind, message) = server.run(Activity::default()).await?.failure();
    assert_eq!(kind, "HandlerNotStarted");
    assert_says(&message, &["\"worker\"", "workingDir", &path, "correct the field"]);
    Ok(())
}

#[tokio::test]
async fn output_that_is_not_json_is_shown() -> Result<()> {
    let (kind, message) = Worker::failure(exec(&["echo", "all went well"]), json!({})).await?;
    assert_eq!(kind, "HandlerOutputInvalid");
    assert_says(&message, &["\"worker\"", "all went well", "standard output"]);
    Ok(())
}

#[tokio::test]
async fn output_over_2_mib_is_refused() -> Result<()> {
    // The program would print for ever: it is stopped at the limit.
    let (kind, message) = Worker::failure(exec(&["sh", "-c", "yes 1"]), json!({})).await?;
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
    let (kind, message) = Worker::failure(exec(&["sh", "-c", &script]), limits).await?;
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
    assert!(matches!(ended, Ended::Cancelled), "{ended:?}");
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

#[tokio::test]
async fn a_program_chooses_its_failure() -> Result<()> {
    let server = Server::start().await?;
    let failure = r#"{"failure":{"message":"no card","type":"Declined","nonRetryable":true,"details":[{"code":7}]}}"#;
    let script = format!("echo '{failure}'; exit 4");
    let worker = Worker::ready(&server, exec(&["sh", "-c", &script]), json!({})).await?;
    let ended = server.run(Activity { attempts: 0, ..Activity::default() }).await?;
    assert!(matches!(&ended, Ended::Failure { message, .. } if message == "no card"), "{ended:?}");
    let info = ended.info();
    assert_eq!((info.r#type.as_str(), info.non_retryable), ("Declined", true));
    assert_eq!(info.details.unwrap().payloads[0].data, br#"{"code":7}"#);
    worker.wait_metric("activity_failures_total", r#"reason="HandlerFailed",task_queue="q""#, 1.0).await;
    Ok(())
}

#[tokio::test]
async fn a_benign_failure_is_one_for_the_server_alone() -> Result<()> {
    let server = Server::start().await?;
    let script = r#"echo '{"failure":{"message":"as ever","benign":true}}'; exit 1"#;
    let worker = Worker::ready(&server, exec(&["sh", "-c", script]), json!({})).await?;
    let info = server.run(Activity::default()).await?.info();
    assert_eq!((info.category(), info.r#type.as_str()), (ApplicationErrorCategory::Benign, "HandlerFailed"));
    worker.wait_metric("tasks_ended_total", &format!(r#"outcome="failed",{WORK}"#), 1.0).await;
    assert_eq!(worker.metric("activity_failures_total", r#"reason="HandlerFailed",task_queue="q""#).await, None);
    assert!(!worker.log().contains("as ever"), "{}", worker.log());
    Ok(())
}

#[tokio::test]
async fn a_next_retry_delay_replaces_that_of_the_policy() -> Result<()> {
    let server = Server::start().await?;
    let folder = tempfile::tempdir()?;
    let marker = folder.path().join("tried");
    let failure = r#"{"failure":{"message":"later","nextRetryDelay":0.2}}"#;
    let script = format!("test -e {0} && echo 1 && exit; touch {0}; echo '{failure}'; exit 1", marker.display());
    let _worker = Worker::ready(&server, exec(&["sh", "-c", &script]), json!({})).await?;
    // The policy's own first interval is longer than the test waits.
    let activity = Activity { attempts: 0, retry_interval: Some(Duration::from_secs(600)), ..Activity::default() };
    assert_eq!(server.run(activity).await?.result(), json!(1));
    Ok(())
}

#[tokio::test]
async fn the_handler_of_a_type_is_the_exact_one_then_that_of_the_longest_beginning() -> Result<()> {
    let server = Server::start().await?;
    let say = |name: &str| json!({"name": name, "exec": {"command": ["echo", format!("\"{name}\"")]}});
    let route = |activity_type: &str, handler: &str| json!({"type": activity_type, "handler": handler});
    let configuration = json!({
        "version": 1,
        "taskQueues": ["q"],
        "handlers": [say("any"), say("mail"), say("exact")],
        "activities": [route("*", "any"), route("Mail.*", "mail"), route("Mail.Send", "exact")],
    });
    let _worker = Worker::ready(&server, configuration, json!({})).await?;
    for (activity_type, handler) in [("Mail.Send", "exact"), ("Mail.Sent", "mail"), ("Mail", "any"), ("Other", "any")] {
        let result = server.run(Activity { activity_type, ..Activity::default() }).await?.result();
        assert_eq!(result, json!(handler), "{activity_type}");
    }
    Ok(())
}
