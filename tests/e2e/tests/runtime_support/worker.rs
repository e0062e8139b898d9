//! A Worker process that is built on the runtime.

use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::{Activity, NAMESPACE, SOON, Server, WORK, program, wait_for};

/// A Worker process, killed with its value.
pub struct Worker {
    child: Child,
    folder: TempDir,
    http: reqwest::Client,
}

impl Worker {
    /// Starts the shared runtime, and waits until it is ready.
    pub async fn ready(server: &Server, config: Value, limits: Value) -> Result<Self> {
        let worker = Self::start(&server.temporal.host_port(), &config, &limits, &[])?;
        worker.wait_ready().await;
        Ok(worker)
    }

    /// Runs one activity with a handler, and says how it failed: type and message.
    pub async fn failure(configuration: Value, limits: Value) -> Result<(String, String)> {
        let server = Server::start().await?;
        let worker = Self::ready(&server, configuration, limits).await?;
        let failure = server.run(Activity::default()).await?.failure();
        let reason = format!(r#"reason="{}",task_queue="q""#, failure.0);
        worker.wait_metric("activity_failures_total", &reason, 1.0).await;
        worker.wait_metric("tasks_ended_total", &format!(r#"outcome="failed",{WORK}"#), 1.0).await;
        Ok(failure)
    }

    /// Starts the shared runtime.
    pub fn start(address: &str, config: &Value, limits: &Value, environment: &[(&str, &str)]) -> Result<Self> {
        let mut command = Command::new(program("worker-runtime"));
        command.arg("run");
        Self::start_program(command, address, config, limits, environment)
    }

    /// Starts a program that is built on the runtime.
    pub fn start_program(
        mut command: Command,
        address: &str,
        config: &Value,
        limits: &Value,
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (config_file, limits_file) = (folder.path().join("runtime.json"), folder.path().join("limits.json"));
        std::fs::write(&config_file, config.to_string())?;
        std::fs::write(&limits_file, limits.to_string())?;
        let child = command
            .env("WORKER_RUNTIME_CONFIG", config_file)
            .env("WORKER_RUNTIME_LIMITS", limits_file)
            .env("WORKER_RUNTIME_METRICS_BIND_ADDRESS", "127.0.0.1:0")
            .env("WORKER_RUNTIME_HEALTH_PROBE_BIND_ADDRESS", "127.0.0.1:0")
            .env("TEMPORAL_ADDRESS", address)
            .env("TEMPORAL_NAMESPACE", NAMESPACE)
            .env("POD_NAME", format!("pod-{:08x}", rand::random::<u32>()))
            .env_remove("RUST_LOG")
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log"))?)
            .spawn()
            .with_context(|| format!("{:?}", command.get_program()))?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { child, folder, http })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Waits until `text` is in the log.
    pub async fn wait_log(&self, text: &str) {
        wait_for(&format!("{text:?} in the log"), SOON, async || self.log().contains(text).then_some(())).await;
    }

    /// Address of a port: `metrics` or `probes`.
    pub async fn address(&self, what: &str) -> SocketAddr {
        wait_for("an open port", SOON, async || {
            self.log().lines().find_map(|line| {
                let line: Value = serde_json::from_str(line).ok()?;
                (line["fields"]["what"] == what).then(|| line["fields"]["address"].as_str()?.parse().ok()).flatten()
            })
        })
        .await
    }

    /// Status and body of a path of the probes; none when nobody answers.
    pub async fn probe(&self, path: &str) -> Option<(u16, String)> {
        let url = format!("http://{}{path}", self.address("probes").await);
        let response = self.http.get(url).send().await.ok()?;
        Some((response.status().as_u16(), response.text().await.ok()?))
    }

    /// Status and body of what a path of the probes says to a POST.
    pub async fn post(&self, path: &str, body: &impl serde::Serialize) -> Result<(u16, String)> {
        let url = format!("http://{}{path}", self.address("probes").await);
        let response = self.http.post(url).json(body).send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    /// Waits for a status of `/readyz`.
    pub async fn wait_readiness(&self, status: u16) {
        wait_for(&format!("/readyz to answer {status}"), SOON, async || {
            (self.probe("/readyz").await?.0 == status).then_some(())
        })
        .await;
    }

    pub async fn wait_ready(&self) {
        let begun = Instant::now();
        while !matches!(self.probe("/readyz").await, Some((200, _))) {
            assert!(begun.elapsed() < SOON, "not ready:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Value of a metric with these labels, in the order of the alphabet.
    pub async fn metric(&self, name: &str, labels: &str) -> Option<f64> {
        let url = format!("http://{}/metrics", self.address("metrics").await);
        let text = self.http.get(url).send().await.ok()?.text().await.ok()?;
        let start = format!("temporal_worker_runtime_{name}{{{labels}}} ");
        text.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok())
    }

    /// Waits until a metric has a value.
    pub async fn wait_metric(&self, name: &str, labels: &str, value: f64) {
        wait_for(&format!("{name}{{{labels}}} to be {value}"), SOON, async || {
            (self.metric(name, labels).await == Some(value)).then_some(())
        })
        .await;
    }

    /// Waits until a metric is above a value.
    pub async fn wait_metric_above(&self, name: &str, labels: &str, value: f64) {
        wait_for(&format!("{name}{{{labels}}} to be above {value}"), SOON, async || {
            self.metric(name, labels).await.is_some_and(|now| now > value).then_some(())
        })
        .await;
    }

    /// Waits until a metric without labels has a value.
    pub async fn wait_gauge(&self, name: &str, value: f64) {
        let url = format!("http://{}/metrics", self.address("metrics").await);
        let line = format!("temporal_worker_runtime_{name} {value}");
        wait_for(&format!("{name} to be {value}"), SOON, async || {
            let text = self.http.get(&url).send().await.ok()?.text().await.ok()?;
            text.lines().any(|found| found == line).then_some(())
        })
        .await;
    }

    /// Replaces its limits file, as the kubelet does: at once.
    pub fn write_limits(&self, limits: &Value) -> Result<()> {
        self.write("limits.json", limits)
    }

    /// Replaces its configuration file.
    pub fn write_config(&self, config: &Value) -> Result<()> {
        self.write("runtime.json", config)
    }

    fn write(&self, name: &str, content: &Value) -> Result<()> {
        let file = self.folder.path().join(name);
        let unfinished = file.with_extension("new");
        std::fs::write(&unfinished, content.to_string())?;
        Ok(std::fs::rename(unfinished, file)?)
    }

    /// Asks it to end, as Kubernetes does.
    pub fn terminate(&self) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?)
    }

    /// Waits for its end.
    pub async fn exit(&mut self, within: Duration) -> Result<ExitStatus> {
        let begun = Instant::now();
        while begun.elapsed() < within {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("still runs after {within:?}:\n{}", self.log())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of the Worker:\n{}", self.log());
        }
    }
}
