//! The processes that are measured.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use e2e::wait::eventually;
use harness::TemporalServer;
use harness::programs::source_root;
use harness::tools::Tools;
use serde_json::json;
use tempfile::TempDir;

use crate::runtime::load::NAMESPACE;

/// What all have in common.
pub struct Scene {
    /// Address of the Temporal server.
    pub host_port: String,
    rival: PathBuf,
    program: PathBuf,
    folder: TempDir,
}

/// A running process, killed with its value.
pub struct Worker(Child);

/// A sidecar.
pub struct Sidecar {
    /// Where Workers connect to it.
    pub address: String,
    /// Where it is asked to drain.
    pub probes: String,
    process: Worker,
}

impl Worker {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Whether it has ended.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_some())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Sidecar {
    /// Starts the program `worker-runtime` as a sidecar before the server at `host:port`, and waits until it is ready.
    ///
    /// # Errors
    /// It can't be started.
    pub async fn start(program: &Path, host_port: &str, name: &str, limits: Option<&Path>) -> Result<Self> {
        let (address, probes) = (free_address()?, free_address()?);
        let mut command = Command::new(program);
        command
            .args(["sidecar", "--bind-address", &address, "--health-probe-bind-address", &probes])
            .args(["--metrics-bind-address", "127.0.0.1:0"])
            .env("TEMPORAL_ADDRESS", host_port);
        if let Some(limits) = limits {
            command.arg("--limits").arg(limits);
        }
        let process = spawn(command, &format!("sidecar-{name}"))?;
        eventually("the sidecar is ready", async || {
            let answer = reqwest::get(format!("http://{probes}/readyz")).await?;
            ensure!(answer.status().is_success(), "{}", answer.status());
            Ok(())
        })
        .await?;
        Ok(Self { address, probes, process })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

impl Scene {
    /// Builds the Worker.
    ///
    /// # Errors
    /// It can't be built, or the runtime's program is missing.
    pub async fn new(server: &TemporalServer) -> Result<Self> {
        let rival = Tools::ensure_async(Tools::RIVAL).await?.program("rival")?.to_owned();
        let own = std::env::current_exe()?;
        let programs = own.ancestors().nth(2).context("the benchmark lies in no folder of cargo's")?.join("dist");
        let program = programs.join("worker-runtime");
        ensure!(program.exists(), "{} is not there; run make bench-sidecar, which builds it", program.display());
        let folder = tempfile::tempdir()?;
        let key = json!({"id": "k", "file": folder.path().join("key")});
        std::fs::write(folder.path().join("key"), [7; 32])?;
        std::fs::write(folder.path().join("limits.json"), json!({"encryption": {"writeKey": key}}).to_string())?;
        Ok(Self { host_port: server.host_port(), rival, program, folder })
    }

    /// Starts a Worker on a Task Queue.
    ///
    /// # Errors
    /// It can't be started.
    pub fn worker(&self, task_queue: &str, address: &str) -> Result<Worker> {
        let mut command = Command::new(&self.rival);
        command.arg("plain").env("TASK_QUEUE", task_queue).env("TEMPORAL_ADDRESS", address);
        spawn(command, task_queue)
    }

    /// Starts a sidecar, and waits until it is ready.
    ///
    /// # Errors
    /// It can't be started.
    pub async fn sidecar(&self, name: &str, encrypts: bool) -> Result<Sidecar> {
        let limits = encrypts.then(|| self.folder.path().join("limits.json"));
        Sidecar::start(&self.program, &self.host_port, name, limits.as_deref()).await
    }
}

fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// Starts a process that is killed with its value. What it says goes to `target/bench/sidecar/<name>.log`.
///
/// # Errors
/// It can't be started.
pub fn spawn(mut command: Command, name: &str) -> Result<Worker> {
    let logs = source_root().join("target/bench/sidecar");
    std::fs::create_dir_all(&logs)?;
    let log = File::create(logs.join(name).with_extension("log"))?;
    command.env("TEMPORAL_NAMESPACE", NAMESPACE).env_remove("RUST_LOG");
    let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
    Ok(Worker(child.with_context(|| format!("start {:?}", command.get_program()))?))
}
