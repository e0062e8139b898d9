//! The sidecar between a Worker on the Go SDK, which knows nothing of it, and a real Temporal server.

mod runtime_support;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::codec::{self, KEYS};
use harness::tools::Tools;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_support::{Activity, NAMESPACE, SOON, Server, WORK, Worker, assert_says, json_payload, program, wait_for};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

const CANARY: &str = "canary-91c2";

/// A sidecar.
fn sidecar(address: &str, limits: &Value, environment: &[(&str, &str)]) -> Result<Worker> {
    let mut command = Command::new(program("worker-runtime"));
    command.arg("sidecar").env("WORKER_RUNTIME_SIDECAR_BIND_ADDRESS", "127.0.0.1:0");
    Worker::start_program(command, address, &json!({}), limits, environment)
}

/// A Worker on the Go SDK with four slots, killed with its value.
struct Go(Child);

impl Go {
    async fn start(address: &str) -> Result<Self> {
        let program: PathBuf = Tools::ensure_async(Tools::GO_WORKER).await?.program("go-worker")?.into();
        let child = Command::new(&program)
            .env("TEMPORAL_ADDRESS", address)
            .env("TEMPORAL_NAMESPACE", NAMESPACE)
            .env("TASK_QUEUE", "q")
            .env("SLOTS", "4")
            .env("METRICS_ADDRESS", "127.0.0.1:0")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{}", program.display()))?;
        Ok(Self(child))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.0.id())?), signal)?)
    }

    async fn ended(&mut self) {
        wait_for("the end of the Go Worker", SOON, async || self.0.try_wait().ok().flatten().map(|_| ())).await;
    }
}

impl Drop for Go {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server, a sidecar, and a Go Worker behind it.
struct Pod {
    server: Server,
    sidecar: Worker,
    go: Go,
}

impl Pod {
    async fn start(limits: &Value) -> Result<Self> {
        let server = Server::start().await?;
        let sidecar = sidecar(&server.temporal.host_port(), limits, &[])?;
        sidecar.wait_ready().await;
        let go = Go::start(&sidecar.address("worker").await.to_string()).await?;
        Ok(Self { server, sidecar, go })
    }
}

fn work(milliseconds: u64) -> Activity<'static> {
    Activity { input: vec![json_payload(&json!(milliseconds))], attempts: 5, ..Activity::default() }
}

#[tokio::test]
async fn a_worker_behind_it_runs_tasks_and_its_slots_are_seen() -> Result<()> {
    let pod = Pod::start(&json!({})).await?;
    assert_eq!(pod.server.run(work(1)).await?.result(), json!(1));
    pod.sidecar.wait_metric("tasks_started_total", WORK, 1.0).await;
    pod.sidecar.wait_metric("tasks_ended_total", &format!(r#"outcome="completed",{WORK}"#), 1.0).await;
    pod.sidecar.wait_metric("slots_used", WORK, 0.0).await;
    for _ in 0..6 {
        pod.server.start_activity(work(60_000)).await?;
    }
    pod.sidecar.wait_metric("slots_used", WORK, 4.0).await;
    pod.sidecar.wait_metric("slots_available", WORK, 0.0).await;
    Ok(())
}

#[tokio::test]
async fn a_drain_lets_what_runs_end_and_takes_nothing_new() -> Result<()> {
    let mut pod = Pod::start(&json!({})).await?;
    let running = pod.server.start_activity(work(3_000)).await?;
    pod.sidecar.wait_metric("slots_used", WORK, 1.0).await;
    let hook = {
        let address = pod.sidecar.address("probes").await;
        tokio::spawn(async move { reqwest::Client::new().post(format!("http://{address}/drain")).send().await })
    };
    pod.sidecar.wait_readiness(503).await;
    let waiting = pod.server.start_activity(work(1)).await?;
    assert_eq!(hook.await??.status().as_u16(), 200);
    assert_eq!(pod.server.describe(&running).await?.attempt, 1);
    assert_eq!(pod.server.end_of(&running).await.result(), json!(3_000), "it ended before the hook did");
    pod.sidecar.terminate()?;
    let mut sidecar = pod.sidecar;
    assert!(sidecar.exit(Duration::from_millis(500)).await.is_err(), "it goes after the Worker");
    pod.go.signal(Signal::SIGTERM)?;
    pod.go.ended().await;
    assert!(sidecar.exit(SOON).await?.success(), "{}", sidecar.log());
    let _other = Go::start(&pod.server.temporal.host_port()).await?;
    assert_eq!(pod.server.end_of(&waiting).await.result(), json!(1));
    assert_eq!(pod.server.describe(&waiting).await?.attempt, 1, "nobody had begun it");
    Ok(())
}

#[tokio::test]
async fn payloads_are_encrypted_for_a_worker_without_a_codec() -> Result<()> {
    let keys = tempfile::tempdir()?;
    for (id, key) in KEYS {
        std::fs::write(keys.path().join(id), key)?;
    }
    let key = |id: &str| json!({"id": id, "file": keys.path().join(id)});
    let pod = Pod::start(&json!({"encryption": {"writeKey": key("k2"), "readKeys": [key("k1")]}})).await?;
    let input = codec::seal("k1", &[json_payload(&json!(CANARY))])?;
    let greeting = Activity { activity_type: "Greet", input, ..Activity::default() };
    let activity_id = pod.server.start_activity(greeting).await?;
    let payloads = pod.server.result_of(&activity_id).await;
    assert!(!String::from_utf8_lossy(&payloads[0].data).contains(CANARY));
    let opened = codec::open(&payloads)?;
    assert_eq!(String::from_utf8_lossy(&opened[0].data), format!("\"go greets {CANARY}\""));

    let plain = Activity { activity_type: "Greet", input: vec![json_payload(&json!(CANARY))], ..Activity::default() };
    let (_, message) = pod.server.run(plain).await?.failure();
    assert_eq!(message, "Encoded failure", "what is not encrypted is refused, and why is not for everyone to read");
    pod.sidecar.wait_log("is not encrypted, and encryption mode Require refuses it").await;
    Ok(())
}

#[tokio::test]
async fn a_worker_that_is_started_anew_after_a_drain_gets_tasks_again() -> Result<()> {
    let mut pod = Pod::start(&json!({})).await?;
    let address = pod.sidecar.address("worker").await.to_string();
    assert_eq!(pod.server.run(work(1)).await?.result(), json!(1));
    assert_eq!(pod.sidecar.post("/drain", &json!({})).await?.0, 200);
    pod.go.signal(Signal::SIGTERM)?;
    pod.go.ended().await;
    // The time itself is what tells a Worker that was started anew from a connection that broke: those are back sooner.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let _anew = Go::start(&address).await?;
    pod.sidecar.wait_readiness(200).await;
    assert_eq!(pod.server.run(work(2)).await?.result(), json!(2));
    Ok(())
}

#[tokio::test]
async fn a_task_of_a_worker_that_was_killed_does_not_hold_a_drain_up() -> Result<()> {
    let mut pod = Pod::start(&json!({})).await?;
    pod.server.start_activity(work(600_000)).await?;
    pod.sidecar.wait_metric("slots_used", WORK, 1.0).await;
    pod.go.signal(Signal::SIGKILL)?;
    pod.go.ended().await;
    pod.sidecar.wait_metric("tasks_ended_total", &format!(r#"outcome="lost",{WORK}"#), 1.0).await;
    assert_eq!(pod.sidecar.post("/drain", &json!({})).await?.0, 200);
    Ok(())
}

#[tokio::test]
async fn what_can_not_work_is_said_at_the_start() -> Result<()> {
    let refused = async |environment: &[(&str, &str)], limits: Value, parts: &[&str]| {
        let mut sidecar = sidecar("127.0.0.1:1", &limits, environment)?;
        assert_eq!(sidecar.exit(SOON).await?.code(), Some(1));
        assert_says(&sidecar.log(), parts);
        anyhow::Ok(())
    };
    let open = [("WORKER_RUNTIME_SIDECAR_BIND_ADDRESS", "0.0.0.0:7233")];
    refused(&open, json!({}), &["0.0.0.0:7233", "others than this pod can reach", "127.0.0.1:7233"]).await?;
    let itself = [("WORKER_RUNTIME_SIDECAR_BIND_ADDRESS", "127.0.0.1:1")];
    refused(&itself, json!({}), &["TEMPORAL_ADDRESS is 127.0.0.1:1", "the sidecar's own address"]).await?;
    let keyless = json!({"encryption": {"writeKey": {"id": "k1", "file": "/nowhere/k1"}}});
    refused(&[], keyless, &["encryption key", "k1", "/nowhere/k1", "check that its Secret has this key"]).await?;
    refused(&[("TEMPORAL_TLS_CLIENT_CERT_PATH", "/c")], json!({}), &["TEMPORAL_TLS_CLIENT_KEY_PATH", "set both"])
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said_by_the_readiness_probe() -> Result<()> {
    let sidecar = sidecar("127.0.0.1:1", &json!({}), &[])?;
    wait_for("what is wrong", SOON, async || {
        let (status, text) = sidecar.probe("/readyz").await?;
        assert_eq!(status, 503);
        text.contains("cannot connect to Temporal at")
            .then(|| assert_says(&text, &["127.0.0.1:1", "check the address"]))
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn a_worker_that_speaks_tls_to_it_is_told_what_to_do() -> Result<()> {
    let server = Server::start().await?;
    let sidecar = sidecar(&server.temporal.host_port(), &json!({}), &[])?;
    sidecar.wait_ready().await;
    let address = sidecar.address("worker").await;
    // A handshake begins like that.
    tokio::net::TcpStream::connect(address).await?.write_all(&[22, 3, 1, 0, 200, 1]).await?;
    sidecar.wait_log("the Worker speaks TLS to the sidecar").await;
    let (_, text) = sidecar.probe("/readyz").await.context("an answer")?;
    assert_says(&text, &["switch TLS off", "TEMPORAL_TLS=false"]);
    let _go = Go::start(&address.to_string()).await?;
    wait_for("the word to be gone", SOON, async || {
        (sidecar.probe("/readyz").await? == (200, "ok".into())).then_some(())
    })
    .await;
    Ok(())
}
