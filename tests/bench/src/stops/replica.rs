//! A Worker, alone or with a sidecar of its own, as a pod has them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::wait::within;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::sidecar::scene::{Sidecar, Worker, spawn};

/// The Workers end within 20 s of SIGTERM, by their own drain.
const ENDS: Duration = Duration::from_secs(60);
const DRAINS: Duration = Duration::from_secs(60);

/// How each replica is started.
pub struct Program {
    /// Address of the Temporal server.
    pub host_port: String,
    /// Task Queue of the Workers.
    pub task_queue: String,
    worker: PathBuf,
    sidecar: Option<PathBuf>,
}

impl Program {
    /// A Worker's program, on a server and a Task Queue, with the sidecar or without.
    ///
    /// # Errors
    /// The sidecar's program is missing.
    pub fn new(worker: &Path, host_port: &str, task_queue: &str, has_sidecar: bool) -> Result<Self> {
        let own = std::env::current_exe()?;
        let runtime = own.parent().context("the benchmark lies in no folder")?.join("worker-runtime");
        ensure!(runtime.exists(), "{} is not there; run make bench-stops, which builds it", runtime.display());
        let (worker, sidecar) = (worker.to_owned(), has_sidecar.then_some(runtime));
        Ok(Self { host_port: host_port.to_owned(), task_queue: task_queue.to_owned(), worker, sidecar })
    }
}

/// A running Worker, and its sidecar.
pub struct Replica {
    worker: Worker,
    sidecar: Option<Sidecar>,
}

impl Replica {
    /// Starts both.
    ///
    /// # Errors
    /// One can't be started.
    pub async fn start(program: &Program) -> Result<Self> {
        let Program { host_port, task_queue, worker, sidecar } = program;
        let sidecar = match sidecar {
            Some(runtime) => Some(Sidecar::start(runtime, host_port, task_queue, None).await?),
            None => None,
        };
        let address = sidecar.as_ref().map_or(host_port, |sidecar| &sidecar.address);
        let mut command = Command::new(worker);
        command.env("TEMPORAL_ADDRESS", address).env("TASK_QUEUE", task_queue).env("METRICS_ADDRESS", "127.0.0.1:0");
        Ok(Self { worker: spawn(command, task_queue)?, sidecar })
    }

    /// Stops it as Kubernetes stops a pod: first the hook, which drains the sidecar, then SIGTERM to the Worker.
    ///
    /// # Errors
    /// It does not drain, or does not end.
    pub async fn stop(mut self) -> Result<()> {
        if let Some(sidecar) = &self.sidecar {
            let client = reqwest::Client::builder().no_proxy().timeout(DRAINS).build()?;
            client.post(format!("http://{}/drain", sidecar.probes)).send().await?.error_for_status()?;
        }
        kill(Pid::from_raw(self.worker.pid().cast_signed()), Signal::SIGTERM)?;
        within(ENDS, "the Worker ends", async || {
            ensure!(self.worker.has_ended()?, "process {} runs", self.worker.pid());
            Ok(())
        })
        .await
    }
}
