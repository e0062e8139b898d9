//! The runtime's sidecar on this machine, for clients: what they say in the clear, the server gets encrypted.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::control_plane::free_ports;

const START_LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// The sidecar. It ends with the value.
pub struct ClientSidecar {
    child: Child,
    address: String,
    _files: TempDir,
}

impl Drop for ClientSidecar {
    fn drop(&mut self) {
        // One that has ended is as good.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl ClientSidecar {
    /// Starts it from the program `worker-runtime`, in front of the server at `host:port` with a Temporal namespace, with a key of 32
    /// bytes and its id.
    ///
    /// # Errors
    /// It can't be started, or does not listen in time.
    pub async fn start(program: &Path, (host_port, namespace): (&str, &str), (id, key): (&str, &[u8])) -> Result<Self> {
        let files = tempfile::tempdir()?;
        let (key_file, limits, log) = (files.path().join("key"), files.path().join("limits"), files.path().join("log"));
        fs::write(&key_file, key)?;
        fs::write(&limits, json!({"encryption": {"writeKey": {"id": id, "file": key_file}}}).to_string())?;
        let [port] = free_ports()?;
        let address = format!("127.0.0.1:{port}");
        let child = Command::new(program)
            .args(["sidecar", "--bind-address", &address, "--limits"])
            .arg(limits)
            .args(["--metrics-bind-address", "127.0.0.1:0", "--health-probe-bind-address", "127.0.0.1:0"])
            .envs([("TEMPORAL_ADDRESS", host_port), ("TEMPORAL_NAMESPACE", namespace)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let sidecar = Self { child, address, _files: files };
        let begun = Instant::now();
        while TcpStream::connect(&sidecar.address).await.is_err() {
            if begun.elapsed() > START_LIMIT {
                bail!("the sidecar does not listen at {}: {}", sidecar.address, fs::read_to_string(log)?);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(sidecar)
    }

    /// Where clients find it, `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }
}
