//! A real Temporal server for tests: it can be stopped, killed, paused and restarted with its data, and cut off.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::cluster::Cluster;
use crate::control_plane::free_ports;
use crate::launch::{Launch, Namespace, Place, Running};
use crate::logs;
use crate::tools::{Tool, Tools};

const READY_LIMIT: Duration = Duration::from_secs(60);
const STOP_GRACE: Duration = Duration::from_secs(15);
const CONNECT_LIMIT: Duration = Duration::from_millis(200);
const COMMAND_TIMEOUT: &str = "5s";
/// First port of servers inside a cluster; each takes four.
const CLUSTER_PORT: u16 = 7233;
const CLUSTER_SERVERS: u16 = 20;
const TOOLS: &[Tool] = &[Tool::Temporal, Tool::Pause];

/// How a server is started.
#[derive(Clone, Debug, Default)]
pub struct TemporalOptions {
    /// Temporal namespaces to create besides `default`.
    pub namespaces: Vec<String>,
    /// Dynamic configuration, such as `("matching.numTaskqueueReadPartitions", "1")`; values are JSON.
    pub dynamic_config: Vec<(String, String)>,
    /// Whether to serve the web UI too.
    pub ui: bool,
}

impl TemporalOptions {
    /// A server that finds out within seconds what others find out within minutes: that a version is drained, or not polled.
    #[must_use]
    pub fn quick_to_drain() -> Self {
        let seconds = |key: &str, seconds: u32| (format!("matching.{key}"), format!("\"{seconds}s\""));
        let dynamic_config = vec![
            seconds("PollerHistoryTTL", 20),
            seconds("wv.VersionDrainageStatusRefreshInterval", 5),
            seconds("wv.VersionDrainageStatusVisibilityGracePeriod", 5),
        ];
        Self { dynamic_config, ..Self::default() }
    }
}

/// A running server. It ends with this value; its data too.
pub struct TemporalServer {
    options: TemporalOptions,
    tools: Tools,
    place: ServerPlace,
    data: TempDir,
    address: Ipv4Addr,
    port: u16,
    more_ports: [u16; 3],
    running: Option<Running>,
}

enum ServerPlace {
    Loopback,
    /// Inside a cluster: the namespaces, and the addresses of pods.
    Cluster {
        namespace: Namespace,
        pods: String,
        _ports: ClusterPorts,
    },
}

/// Four ports in a row that a server has to itself: two that start at the same time would both find the same ones free.
struct ClusterPorts {
    address: Ipv4Addr,
    first: u16,
}

static TAKEN: Mutex<BTreeSet<(Ipv4Addr, u16)>> = Mutex::new(BTreeSet::new());

impl ClusterPorts {
    /// Those of servers that this process did not start are seen by a connection.
    fn take(address: Ipv4Addr) -> Result<Self> {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let is_free =
            |port: &u16| TcpStream::connect_timeout(&SocketAddr::from((address, *port)), CONNECT_LIMIT).is_err();
        let mut others =
            (0..CLUSTER_SERVERS).map(|n| CLUSTER_PORT + 4 * n).filter(|port| !taken.contains(&(address, *port)));
        let first = others.find(is_free).context("too many Temporal servers in this cluster: stop some")?;
        taken.insert((address, first));
        Ok(Self { address, first })
    }
}

impl Drop for ClusterPorts {
    fn drop(&mut self) {
        TAKEN.lock().unwrap_or_else(PoisonError::into_inner).remove(&(self.address, self.first));
    }
}

impl TemporalServer {
    /// Starts a server on a random port of the loopback address, for tests without pods.
    ///
    /// # Errors
    /// It can't be fetched or started: the message holds the end of its log.
    pub async fn start(options: TemporalOptions) -> Result<Self> {
        let tools = Tools::ensure_async(TOOLS).await?;
        let [port, more @ ..] = free_ports::<4>()?;
        let data = tempfile::Builder::new().prefix("temporal-worker-").tempdir()?;
        Self::begin(options, tools, ServerPlace::Loopback, data, (Ipv4Addr::LOCALHOST, port, more)).await
    }

    /// Starts a server on the node's address of a cluster, where pods reach it, and this machine too.
    ///
    /// # Errors
    /// As [`TemporalServer::start`].
    pub async fn start_in(cluster: &Cluster, options: TemporalOptions) -> Result<Self> {
        let tools = Tools::ensure_async(TOOLS).await?;
        let address = cluster.network().node();
        let ports = ClusterPorts::take(address)?;
        let port = ports.first;
        let namespace = Namespace::attach(cluster.namespace().init().clone());
        let place = ServerPlace::Cluster { namespace, pods: cluster.network().pods(), _ports: ports };
        let data = tempfile::Builder::new().prefix("temporal-").tempdir_in(cluster.state_path())?;
        Self::begin(options, tools, place, data, (address, port, [port + 1, port + 2, port + 3])).await
    }

    async fn begin(
        options: TemporalOptions,
        tools: Tools,
        place: ServerPlace,
        data: TempDir,
        (address, port, more_ports): (Ipv4Addr, u16, [u16; 3]),
    ) -> Result<Self> {
        let mut server = Self { options, tools, place, data, address, port, more_ports, running: None };
        server.restart().await?;
        Ok(server)
    }

    /// Address as `host:port`, for a client or a `Connection`'s `hostPort`.
    #[must_use]
    pub fn host_port(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }

    /// Address of the web UI, when there is one.
    #[must_use]
    pub fn ui(&self) -> Option<String> {
        self.options.ui.then(|| format!("http://{}:{}", self.address, self.more_ports[0]))
    }

    /// Path of its log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.data.path().join("temporal.log")
    }

    /// Starts the server when it does not run: at the same address, with the data it had.
    ///
    /// # Errors
    /// It does not serve within a minute: the message holds the end of its log.
    pub async fn restart(&mut self) -> Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let launch = Launch {
            name: "temporal",
            program: self.tools.program("temporal")?,
            arguments: self.arguments(),
            environment: Vec::new(),
            logs: self.data.path(),
            // Beside its Workers it has a machine of its own elsewhere: it has a second to hand out a task.
            goes_first: true,
        };
        let mark = self.data.path().display().to_string();
        let running = match &self.place {
            ServerPlace::Loopback => {
                Place::Guarded { pause: self.tools.program("pause")?, mark: &mark }.launch(launch)?
            }
            ServerPlace::Cluster { namespace, .. } => Place::Inside(namespace).launch(launch)?,
        };
        self.running = Some(running);
        self.wait_serving().await
    }

    fn arguments(&self) -> Vec<OsString> {
        let [ui, http, metrics] = self.more_ports;
        let mut arguments: Vec<OsString> =
            ["server", "start-dev", "--log-level", "warn", "--ip"].map(OsString::from).into();
        // The server's parts find each other on the loopback address, whatever address it serves on. Inside a cluster it
        // therefore serves on every address of the namespace: loopback, the link to this machine, the bridge of the pods.
        let serve_on = match &self.place {
            ServerPlace::Loopback => self.address,
            ServerPlace::Cluster { .. } => Ipv4Addr::UNSPECIFIED,
        };
        arguments.push(serve_on.to_string().into());
        for (option, port) in [("--port", self.port), ("--http-port", http), ("--metrics-port", metrics)] {
            arguments.extend([option.into(), port.to_string().into()]);
        }
        arguments.extend(["--db-filename".into(), self.data.path().join("temporal.db").into()]);
        // What a killed server has written is there for the next one; a loss of power it needs not survive.
        arguments.extend(["--sqlite-pragma", "synchronous=OFF"].map(OsString::from));
        if self.options.ui {
            arguments.extend(["--ui-port".into(), ui.to_string().into()]);
        } else {
            arguments.push("--headless".into());
        }
        for namespace in &self.options.namespaces {
            arguments.extend(["--namespace".into(), namespace.into()]);
        }
        for (key, value) in &self.options.dynamic_config {
            arguments.extend(["--dynamic-config-value".into(), format!("{key}={value}").into()]);
        }
        arguments
    }

    /// Serving means that Task Queues of every namespace can be described, which takes all parts of the server, not just
    /// that a port is open.
    async fn wait_serving(&self) -> Result<()> {
        let namespaces: Vec<String> =
            std::iter::once("default".to_owned()).chain(self.options.namespaces.iter().cloned()).collect();
        let end = tokio::time::Instant::now() + READY_LIMIT;
        for namespace in namespaces {
            while !self.describes(&namespace)? {
                if let Some(running) = &self.running {
                    running.check()?;
                }
                if tokio::time::Instant::now() > end {
                    bail!(
                        "the Temporal server does not serve after {} s\n{}",
                        READY_LIMIT.as_secs(),
                        logs::tail(&self.log())
                    );
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    fn describes(&self, namespace: &str) -> Result<bool> {
        let is_open = TcpStream::connect_timeout(&SocketAddr::from((self.address, self.port)), CONNECT_LIMIT).is_ok();
        Ok(is_open
            && self
                .cli()?
                .args(["task-queue", "describe", "--task-queue", "readiness", "--namespace", namespace])
                .output()?
                .status
                .success())
    }

    /// A `temporal` command against this server, such as `workflow start`; add its arguments.
    ///
    /// # Errors
    /// The program is missing.
    pub fn cli(&self) -> Result<Command> {
        let mut command = Command::new(self.tools.program("temporal")?);
        command.env("TEMPORAL_ADDRESS", self.host_port()).args([
            "--command-timeout",
            COMMAND_TIMEOUT,
            "--disable-config-file",
        ]);
        Ok(command)
    }

    /// Stops the server's execution (SIGSTOP): connections stay open and nothing answers. Or lets it go on.
    ///
    /// # Errors
    /// It does not run.
    pub fn set_paused(&self, paused: bool) -> Result<()> {
        self.running.as_ref().context("the Temporal server does not run")?.set_paused(paused)
    }

    /// Asks the server to end (SIGTERM) and waits for it. [`TemporalServer::restart`] brings it back.
    ///
    /// # Errors
    /// It does not run, or does not end.
    pub fn stop(&mut self) -> Result<()> {
        self.running.take().context("the Temporal server does not run")?.stop(STOP_GRACE)
    }

    /// Kills the server (SIGKILL). [`TemporalServer::restart`] brings it back.
    ///
    /// # Errors
    /// It does not run, or does not end.
    pub fn kill(&mut self) -> Result<()> {
        self.running.take().context("the Temporal server does not run")?.kill()
    }

    /// Cuts the network between all pods and this server, or joins it again: packets vanish, open connections hang.
    ///
    /// # Errors
    /// The server is not inside a cluster, or the packet filter refuses.
    pub fn set_cut_off(&self, cut_off: bool) -> Result<()> {
        let ServerPlace::Cluster { namespace, pods, .. } = &self.place else {
            bail!("a Temporal server on the loopback address can't be cut off: pause or stop it");
        };
        let (table, port) = (self.cut_table(), self.port);
        // One transaction: adding a table that is there does nothing, so it can always be deleted.
        let mut rules = format!("add table {table}; delete table {table};");
        if cut_off {
            rules.push_str(&format!(
                "table {table} {{
                    chain from_pods {{ type filter hook input priority 0; ip saddr {pods} tcp dport {port} counter drop; }}
                    chain to_pods {{ type filter hook output priority 0; ip daddr {pods} tcp sport {port} counter drop; }}
                }}"
            ));
        }
        namespace.run_script(&format!("nft '{rules}'")).context("change the packet filter")?;
        Ok(())
    }

    /// Packets between pods and this server that were dropped since [`TemporalServer::set_cut_off`], so that a test can
    /// assert that the fault hit.
    ///
    /// # Errors
    /// The server is not cut off.
    pub fn dropped_packets(&self) -> Result<u64> {
        let ServerPlace::Cluster { namespace, .. } = &self.place else { bail!("the server is not inside a cluster") };
        let listing = namespace.run_script(&format!("nft list table {}", self.cut_table()))?;
        let counts =
            listing.split("counter packets ").skip(1).filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok());
        Ok(counts.sum())
    }

    fn cut_table(&self) -> String {
        format!("inet temporal-cut-{}", self.port)
    }

    /// Path of the server's data.
    #[must_use]
    pub fn data(&self) -> &Path {
        self.data.path()
    }
}

impl Drop for TemporalServer {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take()
            && let Err(error) = running.kill()
        {
            eprintln!("could not end the Temporal server: {error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_start_at_the_same_time_get_ports_of_their_own() {
        let address = Ipv4Addr::new(127, 77, 0, 1);
        let [first, second] = [(); 2].map(|()| ClusterPorts::take(address).unwrap());
        let port = first.first;
        assert_ne!(port, second.first);
        drop(first);
        assert_eq!(ClusterPorts::take(address).unwrap().first, port, "what a server had is free again");
    }
}
