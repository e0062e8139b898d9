//! The sidecar before a server that is slow, busy, broken, away, or takes another API key: what the Worker is told, and
//! that both go on as they are once the server is well.

mod runtime_support;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::between::{Between, End, Fault, Seen};
use e2e::codec::KEYS;
use e2e::double::Double;
use e2e::process::most_resident_kib;
use e2e::service::Service;
use futures::future::try_join_all;
use http::{HeaderMap, Request};
use prost::Message as _;
use prost::bytes::Bytes;
use runtime_support::stream::stream;
use runtime_support::{Activity, NAMESPACE, SOON, Server, Worker, exec, program, wait_for};
use serde_json::{Value, json};
use temporalio_protos::temporal::api::common::v1::{Payload, Payloads, WorkflowExecution, WorkflowType};
use temporalio_protos::temporal::api::query::v1::WorkflowQuery;
use temporalio_protos::temporal::api::taskqueue::v1::TaskQueue;
use temporalio_protos::temporal::api::workflowservice::v1::workflow_service_client::WorkflowServiceClient;
use temporalio_protos::temporal::api::workflowservice::v1::{
    GetClusterInfoRequest, QueryWorkflowRequest, StartWorkflowExecutionRequest,
};
use tokio::net::TcpStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// A call that the sidecar has no business with, and one that it looks into.
const PASSED: &str = "GetClusterInfo";
const LOOKED_INTO: &str = "StartWorkflowExecution";
/// Bytes of a payload, and how many are under way at a time: 64 MB.
const PAYLOAD: usize = 2 << 20;
const AT_A_TIME: usize = 32;
/// Bytes of memory that the sidecar may have beside half of the payloads under way.
const MEMORY: usize = 64 << 20;

type Client = WorkflowServiceClient<Channel>;

/// A sidecar that is ready.
async fn sidecar(address: &str, limits: &Value, environment: &[(&str, &str)]) -> Result<Worker> {
    let mut command = Command::new(program("worker-runtime"));
    command.arg("sidecar").env("WORKER_RUNTIME_SIDECAR_BIND_ADDRESS", "127.0.0.1:0");
    let sidecar = Worker::start_program(command, address, &json!({}), limits, environment)?;
    sidecar.wait_ready().await;
    Ok(sidecar)
}

async fn client(sidecar: &Worker) -> Result<Client> {
    let channel = Channel::from_shared(format!("http://{}", sidecar.address("worker").await))?.connect_lazy();
    Ok(Client::new(channel).max_decoding_message_size(2 * PAYLOAD))
}

/// A Worker that takes 0.1 s for each task, behind a sidecar.
async fn worker(sidecar: &Worker) -> Result<Worker> {
    let address = sidecar.address("worker").await.to_string();
    let worker = Worker::start(&address, &exec(&["sh", "-c", "sleep 0.1; echo 7"]), &json!({}), &[])?;
    worker.wait_ready().await;
    Ok(worker)
}

/// A server, a proxy before it, and a sidecar before that.
struct Way {
    server: Server,
    between: Between,
    sidecar: Worker,
}

impl Way {
    async fn start() -> Result<Self> {
        let server = Server::start().await?;
        let between = Between::start(&server.temporal.host_port()).await?;
        let sidecar = sidecar(&between.host_port(), &json!({}), &[]).await?;
        Ok(Self { server, between, sidecar })
    }
}

fn start_request() -> StartWorkflowExecutionRequest {
    StartWorkflowExecutionRequest {
        namespace: NAMESPACE.into(),
        workflow_id: format!("w-{:08x}", rand::random::<u32>()),
        workflow_type: Some(WorkflowType { name: "None".into() }),
        task_queue: Some(TaskQueue { name: "nobody".into(), ..TaskQueue::default() }),
        request_id: "r".into(),
        ..Default::default()
    }
}

async fn call(client: &Client, method: &str) -> Result<(), Status> {
    let mut client = client.clone();
    let answered = async {
        match method {
            PASSED => client.get_cluster_info(GetClusterInfoRequest {}).await.map(drop),
            _ => client.start_workflow_execution(start_request()).await.map(drop),
        }
    };
    tokio::time::timeout(SOON, answered).await.unwrap_or_else(|_| panic!("{method}: no answer"))
}

#[tokio::test]
async fn whatever_breaks_on_the_way_has_a_status_after_which_sdks_try_again() -> Result<()> {
    let Way { server: _server, between, sidecar } = Way::start().await?;
    let client = client(&sidecar).await?;
    let faults = [
        (Fault::Exhausted, Code::ResourceExhausted),
        (Fault::Http(429), Code::Unavailable),
        (Fault::Http(503), Code::Unavailable),
        (Fault::Reset, Code::Unavailable),
        (Fault::Ended, Code::Unavailable),
        (Fault::Cut, Code::Unavailable),
    ];
    for (fault, code) in faults {
        for method in [PASSED, LOOKED_INTO] {
            let hits = between.count(End::Refused);
            between.set(Some(fault));
            let status = call(&client, method).await.unwrap_err();
            assert_eq!(between.count(End::Refused), hits + 1, "{fault:?} hit {method}");
            assert_eq!(status.code(), code, "{fault:?}, {method}: {status}");
            if fault == Fault::Exhausted {
                assert_eq!((status.message(), status.details()), ("slow", Between::DETAILS));
            }
            between.set(None);
            wait_for("the way to be well", SOON, async || call(&client, method).await.ok()).await;
        }
    }
    Ok(())
}

/// Calls with this `grpc-timeout`, which nobody but the server and the sidecar heeds; what follows the answer.
async fn call_with_timeout(sidecar: &Worker, method: &str, timeout: &str) -> Result<HeaderMap> {
    let (mut calls, connection) =
        h2::client::handshake(TcpStream::connect(sidecar.address("worker").await).await?).await?;
    tokio::spawn(connection);
    let message = if method == PASSED { Vec::new() } else { start_request().encode_to_vec() };
    let framed = [&[0][..], &u32::try_from(message.len())?.to_be_bytes(), &message].concat();
    let request = Request::post(format!("http://sidecar/temporal.api.workflowservice.v1.WorkflowService/{method}"))
        .header("content-type", "application/grpc")
        .header("grpc-timeout", timeout);
    let (answer, mut body) = calls.send_request(request.body(())?, false)?;
    body.send_data(Bytes::from(framed), true)?;
    let answered = async {
        let (head, mut body) = answer.await?.into_parts();
        while body.data().await.transpose()?.is_some() {}
        anyhow::Ok(body.trailers().await?.unwrap_or(head.headers))
    };
    tokio::time::timeout(SOON, answered).await.with_context(|| format!("{method}: no answer"))?
}

#[tokio::test]
async fn a_server_that_never_answers_holds_no_call_longer_than_its_deadline() -> Result<()> {
    let Way { server: _server, between, sidecar } = Way::start().await?;
    for fault in [Fault::Silent, Fault::Stalled] {
        for method in [PASSED, LOOKED_INTO] {
            let calls = between.seen().len();
            between.set(Some(fault));
            let headers = call_with_timeout(&sidecar, method, "300m").await?;
            let status = Status::from_header_map(&headers).context("a status")?;
            assert_eq!(status.code(), Code::DeadlineExceeded, "{fault:?}, {method}: {status}");
            assert_eq!(between.seen()[calls].method, method, "the fault hit");
            between.set(None);
            let status = Status::from_header_map(&call_with_timeout(&sidecar, method, "10S").await?);
            assert_eq!(status.map(|status| status.code()), Some(Code::Ok), "{method}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_call_has_a_deadline_and_that_of_the_worker_counts() -> Result<()> {
    let Way { server: _server, between, sidecar } = Way::start().await?;
    let client = client(&sidecar).await?;
    for method in [PASSED, LOOKED_INTO] {
        call(&client, method).await?;
        call_with_timeout(&sidecar, method, "7S").await?;
        let timeouts: Vec<_> = between.seen().into_iter().filter(|seen| seen.method == method).collect();
        let timeouts: Vec<_> = timeouts.iter().map(|seen| seen.timeout.as_str()).collect();
        assert_eq!(timeouts, ["120S", "7S"], "{method}");
    }
    Ok(())
}

#[tokio::test]
async fn the_same_worker_goes_on_once_the_server_is_well_again() -> Result<()> {
    let Way { server, between, sidecar } = Way::start().await?;
    let worker = worker(&sidecar).await?;
    let slow = Fault::Slow(Duration::from_millis(300));
    for fault in [slow, Fault::Exhausted, Fault::Http(429), Fault::Reset, Fault::Ended, Fault::Cut] {
        let calls = between.seen().len();
        between.set(Some(fault));
        // With the connection, answers of the server are cut off that bring tasks: those come again after this time.
        let (start_to_close, attempts) = (Duration::from_secs(5), if fault == Fault::Cut { 2 } else { 1 });
        let mut activities = Vec::new();
        for _ in 0..3 {
            let activity = Activity { start_to_close, attempts, ..Activity::default() };
            activities.push(server.start_activity(activity).await?);
        }
        let is_hit = |seen: &&Seen| fault == slow || seen.end == Some(End::Refused);
        wait_for(&format!("{fault:?} to hit"), SOON, async || {
            (between.seen()[calls..].iter().filter(is_hit).count() >= 5).then_some(())
        })
        .await;
        between.set(None);
        for activity_id in activities {
            assert_eq!(server.end_of(&activity_id).await.result(), json!(7), "{fault:?}");
        }
    }
    for process in [&sidecar, &worker] {
        assert_eq!(process.probe("/readyz").await.map(|(status, _)| status), Some(200));
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_goes_and_comes_back_is_said_once_each() -> Result<()> {
    let (server, service) = (Server::start().await?, Service::start().await?);
    let port = server.temporal.host_port().rsplit_once(':').context("a port")?.1.parse()?;
    service.aim(Some(port));
    let sidecar = sidecar(&service.address().to_string(), &json!({}), &[]).await?;
    let _worker = worker(&sidecar).await?;
    service.aim(None);
    let failed = r#"code="Unavailable",method="PollActivityTaskQueue""#;
    sidecar.wait_metric_above("sidecar_calls_total", failed, 10.0).await;
    service.aim(Some(port));
    sidecar.wait_log("the Temporal server answers again").await;
    assert_eq!(server.run(Activity::default()).await?.result(), json!(7));
    let log = sidecar.log();
    let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!(lines("calls to the Temporal server fail"), 1, "{log}");
    assert_eq!(lines("the Temporal server answers again"), 1, "{log}");
    assert_eq!(lines("WARN"), 1, "{log}");
    Ok(())
}

/// A payload that no other one is like, and that does not compress.
fn payload() -> Payload {
    let mut data = vec![0; PAYLOAD];
    rand::fill(&mut data[..]);
    Payload { metadata: [("encoding".to_owned(), b"binary/plain".to_vec())].into(), data, ..Payload::default() }
}

/// Sends a payload as the argument of a query, and gets it back as its result.
async fn there_and_back(mut client: Client) -> Result<()> {
    let sent = Payloads { payloads: vec![payload()] };
    let request = QueryWorkflowRequest {
        namespace: NAMESPACE.into(),
        execution: Some(WorkflowExecution { workflow_id: "w".into(), run_id: String::new() }),
        query: Some(WorkflowQuery { query_args: Some(sent.clone()), ..Default::default() }),
        ..Default::default()
    };
    let answer = tokio::time::timeout(SOON, client.query_workflow(request)).await.context("no answer")??.into_inner();
    // Not by assert_eq!, which would print both.
    assert!(answer.query_result == Some(sent), "another payload came back");
    Ok(())
}

#[tokio::test]
async fn payloads_of_64_mb_under_way_take_a_bounded_part_of_memory() -> Result<()> {
    let (keys, double) = (tempfile::tempdir()?, Double::start().await?);
    let file = keys.path().join(KEYS[0].0);
    std::fs::write(&file, KEYS[0].1)?;
    let limits = json!({"encryption": {"writeKey": {"id": KEYS[0].0, "file": file}}});
    let sidecar = sidecar(&double.host_port(), &limits, &[]).await?;
    let client = client(&sidecar).await?;
    // Without a bound the last round took 287 MiB.
    let rounds = [AT_A_TIME, AT_A_TIME, AT_A_TIME, 4 * AT_A_TIME];
    for calls in rounds {
        try_join_all((0..calls).map(|_| there_and_back(client.clone()))).await?;
        let most = usize::try_from(most_resident_kib(sidecar.pid())?)? * 1024;
        println!("{calls} calls at a time: at most {} MiB", most >> 20);
        assert!(most > PAYLOAD && most < MEMORY + calls * PAYLOAD / 2, "{calls} calls: {} MiB", most >> 20);
    }
    let queried = double.queried();
    assert_eq!(queried.len(), rounds.iter().sum::<usize>());
    assert!(queried.iter().all(|payload| payload.metadata["encoding"] == b"binary/encrypted"), "one was not encrypted");
    Ok(())
}

/// Replaces a file, as the kubelet does: at once.
fn replace(file: &Path, text: &str) -> Result<()> {
    let unfinished = file.with_extension("new");
    std::fs::write(&unfinished, text)?;
    Ok(std::fs::rename(unfinished, file)?)
}

#[tokio::test]
async fn a_new_api_key_counts_within_ten_seconds_and_no_poll_or_task_is_lost() -> Result<()> {
    let server = Arc::new(Server::start().await?);
    let between = Between::start(&server.temporal.host_port()).await?;
    between.take_keys(&["first", "second"]);
    let folder = tempfile::tempdir()?;
    let key = folder.path().join("key");
    replace(&key, "first\n")?;
    let file = key.display().to_string();
    let environment = [("TEMPORAL_API_KEY_FILE", file.as_str()), ("TEMPORAL_TLS", "false")];
    let sidecar = sidecar(&between.host_port(), &json!({}), &environment).await?;
    let _worker = worker(&sidecar).await?;

    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn(stream(server.clone(), stop.clone(), Duration::from_millis(40)));
    let ended = r#"outcome="completed",task_queue="q",task_type="activity""#;
    sidecar.wait_metric_above("tasks_ended_total", ended, 10.0).await;
    assert!(between.seen().iter().all(|seen| seen.authorization == "Bearer first"));
    replace(&key, "second\n")?;
    let is_new = |seen: &Seen| seen.authorization == "Bearer second";
    // The first call with it is the sidecar's own, on the new connection; then come those of the Worker.
    let polled = |seen: &Seen| is_new(seen) && seen.method.starts_with("Poll");
    wait_for("the second key", Duration::from_secs(10), async || between.seen().iter().any(polled).then_some(())).await;
    between.take_keys(&["second"]);
    let seen = between.seen();
    let old: Vec<_> = (0..seen.len()).filter(|index| !is_new(&seen[*index]) && seen[*index].end.is_none()).collect();
    assert!(!old.is_empty(), "no call was open at the change");
    let at_change = sidecar.metric("tasks_ended_total", ended).await.unwrap_or_default();
    sidecar.wait_metric_above("tasks_ended_total", ended, at_change + 40.0).await;
    wait_for("the end of what was open at the change", SOON, async || {
        let seen = between.seen();
        old.iter().all(|index| seen[*index].end.is_some()).then_some(())
    })
    .await;
    stop.store(true, Ordering::SeqCst);
    for activity_id in load.await?? {
        assert_eq!(server.end_of(&activity_id).await.result(), json!(7));
        assert_eq!(server.describe(&activity_id).await?.attempt, 1, "an attempt failed");
    }
    let seen = between.seen();
    assert!(old.iter().all(|index| seen[*index].end == Some(End::Answered)), "a call that was open was broken off");
    assert!(seen.iter().all(|seen| seen.end != Some(End::Refused)), "a call had a key that was over");
    Ok(())
}

#[tokio::test]
async fn a_key_that_the_server_does_not_take_is_said_by_the_readiness_probe() -> Result<()> {
    let server = Server::start().await?;
    let between = Between::start(&server.temporal.host_port()).await?;
    between.take_keys(&["second"]);
    let mut command = Command::new(program("worker-runtime"));
    command.arg("sidecar").env("WORKER_RUNTIME_SIDECAR_BIND_ADDRESS", "127.0.0.1:0");
    let environment = [("TEMPORAL_API_KEY", "first"), ("TEMPORAL_TLS", "false")];
    let sidecar = Worker::start_program(command, &between.host_port(), &json!({}), &json!({}), &environment)?;
    wait_for("what is wrong", SOON, async || {
        let (status, text) = sidecar.probe("/readyz").await?;
        assert_eq!(status, 503);
        text.contains("check the API key").then_some(())
    })
    .await;
    assert!(between.count(End::Refused) > 0, "the key was refused");
    Ok(())
}
