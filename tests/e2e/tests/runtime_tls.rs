//! Certificates that change under load: a Worker behind an endpoint that asks for client certificates.

mod runtime_support;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use e2e::endpoint::{Authority, Endpoint, Signed};
use runtime_support::stream::stream;
use runtime_support::{SOON, Server, Worker, assert_says, exec, program, wait_for};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// An endpoint on the loopback address, before a server.
async fn endpoint(server: &Server) -> Result<Endpoint> {
    Endpoint::start(Authority::new()?, [127, 0, 0, 1].into(), &server.temporal.host_port()).await
}

/// The files of a Worker's connection.
struct Files(TempDir);

impl Files {
    fn new(endpoint: &Endpoint) -> Result<Self> {
        let files = Self(tempfile::tempdir()?);
        std::fs::write(files.path("ca.crt"), &endpoint.authority().pem)?;
        Ok(files)
    }

    fn path(&self, file: &str) -> String {
        self.0.path().join(file).display().to_string()
    }

    /// Replaces certificate and key, as the kubelet does: each file at once.
    fn write(&self, certificate: &str, key: &str) -> Result<()> {
        for (file, text) in [("tls.key", key), ("tls.crt", certificate)] {
            let path = self.path(file);
            let unfinished = format!("{path}.new");
            std::fs::write(&unfinished, text)?;
            std::fs::rename(unfinished, Path::new(&path))?;
        }
        Ok(())
    }

    fn hold(&self, signed: &Signed) -> Result<()> {
        self.write(&signed.certificate, &signed.key)
    }

    fn start(&self, endpoint: &Endpoint) -> Result<Worker> {
        let mut command = Command::new(program("worker-runtime"));
        command.arg("run");
        self.start_program(command, endpoint)
    }

    fn start_sidecar(&self, endpoint: &Endpoint) -> Result<Worker> {
        let mut command = Command::new(program("worker-runtime"));
        command.arg("sidecar").env("WORKER_RUNTIME_SIDECAR_BIND_ADDRESS", "127.0.0.1:0");
        self.start_program(command, endpoint)
    }

    fn start_program(&self, command: Command, endpoint: &Endpoint) -> Result<Worker> {
        let (ca, certificate, key) = (self.path("ca.crt"), self.path("tls.crt"), self.path("tls.key"));
        let environment = [
            ("TEMPORAL_TLS_SERVER_CA_CERT_PATH", ca.as_str()),
            ("TEMPORAL_TLS_CLIENT_CERT_PATH", certificate.as_str()),
            ("TEMPORAL_TLS_CLIENT_KEY_PATH", key.as_str()),
        ];
        let handler = exec(&["sh", "-c", "sleep 0.2; echo 7"]);
        Worker::start_program(command, &endpoint.address, &handler, &json!({}), &environment)
    }
}

#[tokio::test]
async fn a_new_certificate_counts_within_ten_seconds_and_no_task_fails() -> Result<()> {
    let server = Arc::new(Server::start().await?);
    let endpoint = endpoint(&server).await?;
    let (first, second) = (endpoint.authority().sign("first", 2090)?, endpoint.authority().sign("second", 2091)?);
    let files = Files::new(&endpoint)?;
    files.hold(&first)?;
    let worker = files.start(&endpoint)?;
    worker.wait_ready().await;
    is_rotated(&server, (&endpoint, &files), &worker, (&first, &second)).await
}

/// The same behind a sidecar: a Worker that reads its certificates once, and here none at all.
#[tokio::test]
async fn a_sidecar_takes_a_new_certificate_within_ten_seconds_and_no_task_of_its_worker_fails() -> Result<()> {
    let server = Arc::new(Server::start().await?);
    let endpoint = endpoint(&server).await?;
    let (first, second) = (endpoint.authority().sign("first", 2090)?, endpoint.authority().sign("second", 2091)?);
    let files = Files::new(&endpoint)?;
    files.hold(&first)?;
    let sidecar = files.start_sidecar(&endpoint)?;
    sidecar.wait_ready().await;
    let address = sidecar.address("worker").await.to_string();
    let worker = Worker::start(&address, &exec(&["sh", "-c", "sleep 0.2; echo 7"]), &json!({}), &[])?;
    worker.wait_ready().await;
    is_rotated(&server, (&endpoint, &files), &sidecar, (&first, &second)).await
}

/// Changes the certificate of a process under load, then gives it one that can't be used.
async fn is_rotated(
    server: &Arc<Server>,
    (endpoint, files): (&Endpoint, &Files),
    worker: &Worker,
    (first, second): (&Signed, &Signed),
) -> Result<()> {
    assert!(!endpoint.seen(first).is_empty() && endpoint.seen(second).is_empty());

    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn(stream(server.clone(), stop.clone(), Duration::from_millis(40)));
    let ended = r#"outcome="completed",task_queue="q",task_type="activity""#;
    worker.wait_metric_above("tasks_ended_total", ended, 10.0).await;
    files.hold(second)?;
    let within = Duration::from_secs(10);
    wait_for("the second certificate", within, async || endpoint.seen(second).pop()).await;
    let at_change = worker.metric("tasks_ended_total", ended).await.unwrap_or_default();
    worker.wait_metric_above("tasks_ended_total", ended, at_change + 40.0).await;

    // What can't be used is said, and changes nothing.
    files.write("no certificate", "no key")?;
    worker.wait_log("goes on with the credentials that it has").await;
    assert_says(&worker.log(), &["tls.crt", "PEM"]);
    let at_change = worker.metric("tasks_ended_total", ended).await.unwrap_or_default();
    worker.wait_metric_above("tasks_ended_total", ended, at_change + 40.0).await;

    stop.store(true, Ordering::SeqCst);
    for activity_id in load.await?? {
        assert_eq!(server.end_of(&activity_id).await.result(), json!(7));
        assert_eq!(server.describe(&activity_id).await?.attempt, 1, "an attempt failed");
    }
    let status = worker.probe("/readyz").await.map(|(status, _)| status);
    assert_eq!(status, Some(200));
    Ok(())
}

#[tokio::test]
async fn a_certificate_that_is_over_is_named_with_its_end_and_its_successor_is_taken() -> Result<()> {
    let server = Server::start().await?;
    let endpoint = endpoint(&server).await?;
    let (old, new) = (endpoint.authority().sign("old", 2020)?, endpoint.authority().sign("new", 2090)?);
    let files = Files::new(&endpoint)?;
    files.hold(&old)?;
    let worker = files.start(&endpoint)?;
    worker.wait_log("is over since 2020-12-31").await;
    assert_says(&worker.log(), &["tls.crt", "renew it"]);
    assert!(endpoint.seen(&old).is_empty());
    files.hold(&new)?;
    wait_for("the new certificate", SOON, async || endpoint.seen(&new).pop()).await;
    worker.wait_ready().await;
    Ok(())
}

/// Starts a sidecar before an endpoint with this certificate; what its readiness probe says is wrong, once it says so.
async fn refusal_of(name: &str, year: i32) -> Result<String> {
    let server = Server::start().await?;
    let authority = Authority::new()?;
    let own = authority.sign(name, year)?;
    let target = server.temporal.host_port();
    let endpoint = Endpoint::start_as(own, authority, [127, 0, 0, 1].into(), &target).await?;
    let client = endpoint.authority().sign("worker", 2090)?;
    let files = Files::new(&endpoint)?;
    files.hold(&client)?;
    let sidecar = files.start_sidecar(&endpoint)?;
    let said = wait_for("what is wrong", SOON, async || {
        let (status, text) = sidecar.probe("/readyz").await?;
        assert_eq!(status, 503);
        text.contains("cannot connect to Temporal at").then_some(text)
    })
    .await;
    // It tries again and again, and each time the same way.
    wait_for("three attempts", SOON, async || (endpoint.refused().len() >= 3).then_some(())).await;
    let is_end_of_tls = |why: &str| why == "tls handshake eof" || why.contains("received fatal alert");
    assert!(endpoint.refused().iter().all(|refused| is_end_of_tls(&refused.why)), "{:?}", endpoint.refused());
    assert_eq!((endpoint.plaintext(), endpoint.seen(&client).len()), (0, 0));
    // What the endpoint would have seen otherwise.
    TcpStream::connect(&endpoint.address).await?.write_all(b"PRI * HTTP/2.0\r\n\r\n").await?;
    wait_for("plaintext to be seen", SOON, async || (endpoint.plaintext() == 1).then_some(())).await;
    Ok(said)
}

#[tokio::test]
async fn a_server_whose_name_is_not_in_its_certificate_is_refused_by_a_sidecar_and_why_is_said() -> Result<()> {
    let said = refusal_of("temporal.example", 2090).await?;
    assert_says(&said, &["not valid for name \"127.0.0.1\"", "temporal.example", "serverName"]);
    Ok(())
}

#[tokio::test]
async fn a_server_whose_certificate_is_over_is_refused_by_a_sidecar_and_why_is_said() -> Result<()> {
    assert_says(&refusal_of("127.0.0.1", 2020).await?, &["certificate expired", "renew the server's certificate"]);
    Ok(())
}
