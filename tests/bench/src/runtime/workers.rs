//! The Workers that are measured, and how each is started.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use e2e::echo::Service;
use harness::TemporalServer;
use harness::programs::source_root;
use harness::tools::Tools;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::load::{ACTIVITY_TYPE, NAMESPACE};

/// Bytes of an argument.
const SMALL: usize = 100;
/// Bytes of an argument where payloads are encrypted, and where they are not.
const LARGE: usize = 1024;

/// A program of the runtime's protocol for pools that gives back what it gets.
const POOL: &str = "from temporal_handler import activity, run

@activity('Echo')
def echo(task, *arguments):
    return arguments

run()
";

/// What a Worker is.
#[derive(Clone, Debug)]
pub enum Host {
    /// The rival on the Go SDK, by its way of working.
    Rival(&'static str),
    /// The shared runtime, by its handler and its limits.
    Runtime(Value, Value),
    /// The example on the runtime's library.
    Library,
}

impl Host {
    /// Whether its payloads are encrypted.
    pub fn encrypts(&self) -> bool {
        matches!(self, Self::Runtime(_, limits) if limits.get("encryption").is_some())
    }
}

/// A Worker that is measured. Its name is that of its Task Queue too.
#[derive(Clone, Debug)]
pub struct Variant {
    /// Name in the figures.
    pub name: &'static str,
    /// Bytes of an argument.
    pub bytes: usize,
    /// What it is.
    pub host: Host,
}

/// What all Workers have in common.
pub struct Scene {
    /// Address of the Temporal server.
    pub host_port: String,
    rival: PathBuf,
    programs: PathBuf,
    service: Service,
    /// Files of the Workers.
    folder: TempDir,
}

/// A running Worker, killed with its value.
pub struct Worker(Child);

impl Worker {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Every Worker that is measured.
pub fn all(scene: &Scene) -> Vec<Variant> {
    let (http, once, pool) = (scene.http(), scene.once(), scene.pool());
    let runtime = |handler: &Value, limits: Value| Host::Runtime(handler.clone(), limits);
    let variant = |name, bytes, host| Variant { name, bytes, host };
    vec![
        variant("go_plain", SMALL, Host::Rival("plain")),
        variant("go_http", SMALL, Host::Rival("http")),
        variant("go_exec", SMALL, Host::Rival("exec")),
        variant("http", SMALL, runtime(&http, json!({}))),
        variant("exec", SMALL, runtime(&once, json!({}))),
        variant("pool", SMALL, runtime(&pool, json!({}))),
        variant("library", SMALL, Host::Library),
        variant("pool_gzip", SMALL, runtime(&pool, json!({"grpcCompression": "Gzip"}))),
        variant("pool_1kib", LARGE, runtime(&pool, json!({}))),
        variant("pool_1kib_encrypted", LARGE, runtime(&pool, scene.encrypted())),
    ]
}

impl Scene {
    /// Builds the rivals, and starts the service.
    ///
    /// # Errors
    /// They can't be built, or a program of the project is missing.
    pub async fn new(server: &TemporalServer) -> Result<Self> {
        let rival = Tools::ensure_async(Tools::RIVAL).await?.program("rival")?.to_owned();
        let own = std::env::current_exe()?;
        let programs = own.ancestors().nth(2).context("the benchmark lies in no folder of cargo's")?.join("dist");
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("key"), [7; 32])?;
        let scene = Self { host_port: server.host_port(), rival, programs, service: Service::start().await?, folder };
        for program in [scene.runtime(), scene.library()] {
            ensure!(program.exists(), "{} is not there; run make bench-runtime, which builds it", program.display());
        }
        Ok(scene)
    }

    /// Path of the shared runtime's program.
    pub fn runtime(&self) -> PathBuf {
        self.programs.join("worker-runtime")
    }

    fn library(&self) -> PathBuf {
        self.programs.join("examples/echo")
    }

    fn http(&self) -> Value {
        json!({"http": {"url": self.service.url}})
    }

    /// A handler whose program runs for each task.
    pub fn once(&self) -> Value {
        json!({"exec": {"command": ["cat"]}})
    }

    fn pool(&self) -> Value {
        let adapter = source_root().join("worker-runtime/adapters/python");
        json!({"exec": {"command": ["python3", "-c", POOL], "mode": "Pool", "env": {"PYTHONPATH": adapter}}})
    }

    /// Results are encrypted, and arguments are read whether they are or not.
    fn encrypted(&self) -> Value {
        json!({"encryption": {"mode": "Migrate", "writeKey": {"id": "k", "file": self.folder.path().join("key")}}})
    }

    /// Starts a Worker on a Task Queue.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(&self, host: &Host, task_queue: &str) -> Result<Worker> {
        let mut command = match host {
            Host::Rival(way) => self.rival(way),
            Host::Library => Command::new(self.library()),
            Host::Runtime(handler, limits) => return self.start_runtime(handler, limits, &[task_queue], 0),
        };
        command.env("TASK_QUEUE", task_queue);
        self.spawn(command, task_queue, 0)
    }

    fn rival(&self, way: &str) -> Command {
        let mut command = Command::new(&self.rival);
        command.arg(way).env("SERVICE_URL", &self.service.url);
        command
    }

    /// Starts the shared runtime on some Task Queues, with its probes on a port; 0 is any.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start_runtime(&self, handler: &Value, limits: &Value, task_queues: &[&str], probes: u16) -> Result<Worker> {
        let mut handler = handler.clone();
        handler["name"] = json!("echo");
        let activities = json!([{"type": ACTIVITY_TYPE, "handler": "echo"}]);
        let config = json!({"version": 1, "taskQueues": task_queues, "handlers": [handler], "activities": activities});
        let write = |what: &str, content: &Value| -> Result<PathBuf> {
            let file = self.folder.path().join(format!("{}-{what}.json", task_queues.first().unwrap_or(&"none")));
            std::fs::write(&file, content.to_string())?;
            Ok(file)
        };
        let mut command = Command::new(self.runtime());
        command.arg("run").arg("--config").arg(write("config", &config)?).arg("--limits").arg(write("limits", limits)?);
        self.spawn(command, task_queues.first().unwrap_or(&"none"), probes)
    }

    /// What it says goes to `target/bench/runtime/<name>.log`.
    fn spawn(&self, mut command: Command, name: &str, probes: u16) -> Result<Worker> {
        let logs = source_root().join("target/bench/runtime");
        std::fs::create_dir_all(&logs)?;
        let log = File::create(logs.join(name).with_extension("log"))?;
        let child = command
            .env("TEMPORAL_ADDRESS", &self.host_port)
            .env("TEMPORAL_NAMESPACE", NAMESPACE)
            .env("POD_NAME", format!("pod-{:08x}", rand::random::<u32>()))
            .env("WORKER_RUNTIME_METRICS_BIND_ADDRESS", "127.0.0.1:0")
            .env("WORKER_RUNTIME_HEALTH_PROBE_BIND_ADDRESS", format!("127.0.0.1:{probes}"))
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn();
        Ok(Worker(child.with_context(|| format!("start {:?}", command.get_program()))?))
    }
}
