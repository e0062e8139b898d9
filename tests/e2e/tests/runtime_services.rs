//! Services in the pod as handlers, against a real Temporal server.

mod runtime_support;

use std::time::Duration;

use anyhow::Result;
use runtime_support::{Activity, SOON, Server, Worker, assert_says, config, wait_for};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};

/// Answers one request with a status and a body, and says what was asked.
async fn answer_once(listener: TcpListener, text: &'static str) -> Result<String> {
    answer(&listener, text).await
}

async fn answer(listener: &TcpListener, text: &str) -> Result<String> {
    let (mut stream, _) = listener.accept().await?;
    let request = asked(&mut stream).await?;
    stream.write_all(text.as_bytes()).await?;
    Ok(request)
}

/// The request, once it is there as a whole.
async fn asked(stream: &mut (impl AsyncRead + Unpin)) -> Result<String> {
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    while !String::from_utf8_lossy(&request).ends_with("[{\"n\":1}]") {
        let read = stream.read(&mut chunk).await?;
        assert!(read > 0, "the request broke off: {}", String::from_utf8_lossy(&request));
        request.extend_from_slice(&chunk[..read]);
    }
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
    let (kind, message) = Worker::failure(config(handler), json!({})).await?;
    service.await??;
    assert_eq!(kind, "HandlerRefused");
    assert_says(&message, &["\"worker\"", "503", "not now!"]);
    Ok(())
}

#[tokio::test]
async fn a_status_says_whether_to_try_again_and_when() -> Result<()> {
    let server = Server::start().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let handler = json!({"name": "worker", "http": {"url": format!("http://{}/", listener.local_addr()?)}});
    let service = tokio::spawn(async move {
        let busy = "HTTP/1.1 429 Too Many\r\nRetry-After: 0\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        let bad = "HTTP/1.1 422 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        answer(&listener, busy).await?;
        answer(&listener, bad).await
    });
    let _worker = Worker::ready(&server, config(handler), json!({})).await?;
    // Without the service's word the first retry would come after ten minutes, and after its second there would be more.
    let activity = Activity { attempts: 0, retry_interval: Some(Duration::from_secs(600)), ..Activity::default() };
    let info = server.run(activity).await?.info();
    service.await??;
    assert_eq!((info.r#type.as_str(), info.non_retryable), ("HandlerRefused", true));
    Ok(())
}

#[tokio::test]
async fn a_service_chooses_its_failure() -> Result<()> {
    let server = Server::start().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let handler = json!({"name": "worker", "http": {"url": format!("http://{}/", listener.local_addr()?)}});
    let body = r#"{"failure":{"message":"no card","type":"Declined","nonRetryable":true}}"#;
    let text = format!("HTTP/1.1 500 Oh\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let service = tokio::spawn(async move { answer(&listener, &text).await });
    let _worker = Worker::ready(&server, config(handler), json!({})).await?;
    let (kind, message) = server.run(Activity { attempts: 0, ..Activity::default() }).await?.failure();
    service.await??;
    assert_eq!((kind.as_str(), message.as_str()), ("Declined", "no card"));
    Ok(())
}

#[tokio::test]
async fn lines_of_progress_become_heartbeats_that_the_next_attempt_finds() -> Result<()> {
    let server = Server::start().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let handler = json!({"name": "worker", "http": {"url": format!("http://{}/", listener.local_addr()?)}});
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n\r\n";
    let (proceed, may_proceed) = tokio::sync::oneshot::channel::<()>();
    let service = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        asked(&mut stream).await?;
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(b"{\"heartbeat\":{\"page\":3}}\n").await?;
        may_proceed.await?;
        stream.write_all(b"{\"result\":\"done\"}").await?;
        anyhow::Ok(())
    });
    let _worker = Worker::ready(&server, config(handler), json!({})).await?;
    let activity = Activity { heartbeat: Some(Duration::from_secs(30)), ..Activity::default() };
    let activity_id = server.start_activity(activity).await?;
    wait_for("the details at the server", SOON, async || {
        let details = server.describe(&activity_id).await.ok()?.heartbeat_details?;
        (details.payloads.first()?.data == br#"{"page":3}"#).then_some(())
    })
    .await;
    proceed.send(()).expect("the service waits");
    service.await??;
    assert_eq!(server.end_of(&activity_id).await.result(), json!("done"));
    Ok(())
}

#[tokio::test]
async fn a_service_on_a_socket_knows_the_runtime_by_its_token() -> Result<()> {
    let server = Server::start().await?;
    let folder = tempfile::tempdir()?;
    let (socket, token) = (folder.path().join("service"), folder.path().join("token"));
    let listener = UnixListener::bind(&socket)?;
    let handler = json!({"name": "worker", "http": {"url": "http://localhost/do", "socket": socket}});
    let token_file = token.display().to_string();
    let environment = [("WORKER_RUNTIME_TOKEN_FILE", token_file.as_str())];
    let worker = Worker::start(&server.temporal.host_port(), &config(handler), &json!({}), &environment)?;
    worker.wait_ready().await;
    let service = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let request = asked(&mut stream).await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1").await?;
        anyhow::Ok(request)
    });
    assert_eq!(server.run(Activity::default()).await?.result(), json!(1));
    let request = service.await??.to_lowercase();
    let token = std::fs::read_to_string(token)?;
    assert_eq!(token.len(), 64);
    assert_says(&request, &["post /do ", &format!("authorization: bearer {token}")]);
    assert!(!worker.log().contains(&token), "the token is in the log");
    Ok(())
}

#[tokio::test]
async fn a_service_that_does_not_listen_is_named() -> Result<()> {
    let handler = json!({"name": "worker", "http": {"url": "http://127.0.0.1:1/"}});
    let (kind, message) = Worker::failure(config(handler), json!({})).await?;
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
    let (kind, message) = Worker::failure(config(handler), json!({})).await?;
    service.await??;
    assert_eq!((kind.as_str(), message.contains("307")), ("HandlerRefused", true), "{message}");
    Ok(())
}
