//! Workers on the SDKs of four languages, each behind a sidecar of its own, against a real Temporal server: what each of them has to
//! do to be scaled, drained and encrypted alike.

mod runtime_support;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::codec::{self, KEYS};
use harness::tools::{Tool, Tools};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_support::{Activity, NAMESPACE, SOON, Server, Worker, json_payload, program, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;

const CANARY: &str = "canary-5e1d";
const SLOTS: u32 = 4;
/// Time in which a Worker ends that has nothing to do.
const ENDS: Duration = Duration::from_secs(60);

/// A server, and a Worker of a language behind a sidecar that encrypts.
struct Bed {
    server: Server,
    sidecar: Worker,
    worker: Child,
    language: &'static str,
    _keys: TempDir,
}

impl Bed {
    async fn start(language: &'static str, tools: &'static [Tool]) -> Result<Self> {
        let program_file: PathBuf = Tools::ensure_async(tools).await?.program(&format!("{language}-worker"))?.into();
        let server = Server::start().await?;
        let keys = tempfile::tempdir()?;
        let (id, key) = KEYS[0];
        std::fs::write(keys.path().join(id), key)?;
        let limits = json!({"encryption": {"writeKey": {"id": id, "file": keys.path().join(id)}}});
        let mut command = Command::new(program("worker-runtime"));
        command.arg("sidecar").env("WORKER_RUNTIME_SIDECAR_BIND_ADDRESS", "127.0.0.1:0");
        let sidecar = Worker::start_program(command, &server.temporal.host_port(), &json!({}), &limits, &[])?;
        sidecar.wait_ready().await;
        let worker = Command::new(&program_file)
            .env("TEMPORAL_ADDRESS", sidecar.address("worker").await.to_string())
            .env("TEMPORAL_NAMESPACE", NAMESPACE)
            .env("TASK_QUEUE", language)
            .env("SLOTS", SLOTS.to_string())
            .env("METRICS_ADDRESS", "127.0.0.1:0")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{}", program_file.display()))?;
        Ok(Self { server, sidecar, worker, language, _keys: keys })
    }

    fn lane(&self) -> String {
        format!(r#"task_queue="{}",task_type="activity""#, self.language)
    }

    fn activity(&self, activity_type: &'static str, input: &Value) -> Result<Activity<'static>> {
        let input = codec::seal(KEYS[0].0, &[json_payload(input)])?;
        Ok(Activity { activity_type, task_queue: self.language, input, attempts: 5, ..Activity::default() })
    }

    /// What an activity gave, decrypted; the server has it encrypted.
    async fn result_of(&self, activity_id: &str) -> Result<Value> {
        let sealed = self.server.result_of(activity_id).await;
        assert_eq!(sealed.iter().filter_map(codec::key_of).collect::<Vec<_>>(), [KEYS[0].0]);
        Ok(serde_json::from_slice(&codec::open(&sealed)?[0].data)?)
    }

    async fn greets(&self) -> Result<()> {
        let activity_id = self.server.start_activity(self.activity("Greet", &json!(CANARY))?).await?;
        assert_eq!(self.result_of(&activity_id).await?, json!(format!("{} greets {CANARY}", self.language)));
        Ok(())
    }

    /// Fills its slots and more, and drains it: what runs ends on its first attempt, what waits is not begun.
    async fn drains(&mut self) -> Result<()> {
        let mut tasks = Vec::new();
        for _ in 0..SLOTS {
            tasks.push(self.server.start_activity(self.activity("Work", &json!(3_000))?).await?);
        }
        let lane = self.lane();
        self.sidecar.wait_metric("slots_used", &lane, SLOTS.into()).await;
        self.sidecar.wait_metric("slots_available", &lane, 0.0).await;
        let hook = {
            let address = self.sidecar.address("probes").await;
            let client = reqwest::Client::builder().no_proxy().build()?;
            tokio::spawn(async move { client.post(format!("http://{address}/drain")).send().await })
        };
        self.sidecar.wait_readiness(503).await;
        let waiting = self.server.start_activity(self.activity("Work", &json!(1))?).await?;
        assert_eq!(hook.await??.status().as_u16(), 200);
        for task in &tasks {
            assert_eq!(self.result_of(task).await?, json!(3_000));
            assert_eq!(self.server.describe(task).await?.attempt, 1);
        }
        self.sidecar.wait_metric("slots_used", &lane, 0.0).await;
        let ended = format!(r#"outcome="completed",{lane}"#);
        self.sidecar.wait_metric("tasks_ended_total", &ended, f64::from(SLOTS) + 1.0).await;
        self.sidecar.wait_metric("schedule_to_start_seconds_count", &lane, f64::from(SLOTS) + 1.0).await;
        kill(Pid::from_raw(i32::try_from(self.worker.id())?), Signal::SIGTERM)?;
        wait_for("the end of the Worker", ENDS, async || self.worker.try_wait().ok().flatten()).await;
        self.sidecar.terminate()?;
        assert!(self.sidecar.exit(SOON).await?.success(), "{}", self.sidecar.log());
        assert!(self.server.describe(&waiting).await?.last_started_time.is_none(), "nobody had begun it");
        Ok(())
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = self.worker.kill();
        let _ = self.worker.wait();
    }
}

async fn is_encrypted_and_drained(language: &'static str, tools: &'static [Tool]) -> Result<()> {
    if !Tools::ensure_async(tools).await?.has(&format!("{language}-worker")) {
        return Ok(());
    }
    let mut bed = Bed::start(language, tools).await?;
    bed.greets().await?;
    bed.drains().await
}

#[tokio::test]
async fn a_worker_in_go_is_encrypted_and_drained_without_its_help() -> Result<()> {
    is_encrypted_and_drained("go", Tools::GO_WORKER).await
}

#[tokio::test]
async fn a_worker_in_java_is_encrypted_and_drained_without_its_help() -> Result<()> {
    is_encrypted_and_drained("java", &[Tool::JavaWorker]).await
}

#[tokio::test]
async fn a_worker_in_python_is_encrypted_and_drained_without_its_help() -> Result<()> {
    is_encrypted_and_drained("python", &[Tool::PythonWorker]).await
}

#[tokio::test]
async fn a_worker_in_typescript_is_encrypted_and_drained_without_its_help() -> Result<()> {
    is_encrypted_and_drained("typescript", &[Tool::TypeScriptWorker]).await
}
