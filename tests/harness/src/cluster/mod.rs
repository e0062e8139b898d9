//! A whole cluster with one node, in namespaces of its own.

pub(crate) mod cgroup;
mod dns;
pub(crate) mod network;
mod node;
mod objects;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Node as NodeObject, Pod, ServiceAccount};
use kube::{Api, Client};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::audit::{self, AuditEvent};
use crate::control_plane::{Clients, Layout, Servers};
use crate::images::{self, ImageSpec};
use crate::launch::{Namespace, Place, Running};
use crate::state::{self, Record, StateDir};
use crate::tools::Tools;
use crate::{logs, prerequisites, process};
pub use network::Network;
pub use node::{DOMAIN, NODE};

const READY_LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);
const APISERVER_PORT: u16 = 6443;
const ETCD_PORTS: [u16; 2] = [2379, 2380];

/// How a cluster is started.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Name; a random one by default, so that clusters exist side by side.
    pub name: String,
    /// Folder below which the cluster's own folder lies.
    pub root: PathBuf,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self { name: format!("test-{:08x}", rand::random::<u32>()), root: state::default_root() }
    }
}

/// A running cluster. Unless [`Cluster::release`]d it ends with this value, and with the process at the latest.
pub struct Cluster {
    name: String,
    directory: PathBuf,
    state: Option<StateDir>,
    namespace: Namespace,
    network: Network,
    tools: Tools,
    clients: Clients,
    components: Vec<Running>,
}

impl Cluster {
    /// Starts a cluster and waits until pods can run: node ready, default ServiceAccount there, DNS answering.
    ///
    /// Takes minutes the first time, when the programs are built, else seconds. Shows its progress on standard error.
    ///
    /// # Errors
    /// A prerequisite is missing, or a part fails: the message holds the end of its log.
    pub async fn start(options: ClusterOptions) -> Result<Self> {
        tokio::task::spawn_blocking(prerequisites::ensure_for_cluster).await??;
        let tools = Tools::ensure_async(Tools::ALL).await?;
        let state = StateDir::create(&options.root, &options.name)?;
        let directory = state.path().to_owned();
        start(tools, Undo(Some(state)), &options.name)
            .await
            .with_context(|| format!("could not start the cluster in {}", directory.display()))
    }

    /// The cluster of that name that lives by itself (`dev-cluster up`).
    ///
    /// # Errors
    /// There is none, or its starter has not released it.
    pub async fn attach(root: &Path, name: &str) -> Result<Self> {
        let directory = root.join(name);
        let record = state::read_record(&directory)?;
        let running = record.init.filter(process::ProcessId::is_alive).zip(record.network);
        let (init, network) =
            running.with_context(|| format!("no cluster {name} runs: start it by `dev-cluster up --name {name}`"))?;
        let clients = Clients::read(&directory.join("kubeconfig")).await?;
        Ok(Self {
            name: name.to_owned(),
            directory,
            state: None,
            namespace: Namespace::attach(init),
            network,
            tools: Tools::ensure_async(Tools::ALL).await?,
            clients,
            components: Vec::new(),
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A new client with all rights. To be called inside the async runtime that uses it.
    #[must_use]
    pub fn client(&self) -> Client {
        self.clients.client()
    }

    /// A kubeconfig with all rights.
    #[must_use]
    pub fn kubeconfig_path(&self) -> PathBuf {
        self.directory.join("kubeconfig")
    }

    /// Folder of everything that belongs to it; removed at the end. Logs of the parts are `logs/*.log`.
    #[must_use]
    pub fn state_path(&self) -> &Path {
        &self.directory
    }

    /// Its addresses. A server of a test that pods shall reach listens on [`Network::host`].
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Its namespaces, to run commands in.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The third-party programs.
    #[must_use]
    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    /// Every write so far that the API server finished, oldest first (see [`AuditEvent`]).
    ///
    /// # Errors
    /// The log can't be read.
    pub fn audit_events(&self) -> Result<Vec<AuditEvent>> {
        audit::read_writes(&self.directory.join("audit.log"))
    }

    /// All that a user asked for so far and the API server finished, oldest first; reads only of
    /// [`OPERATOR_ACCOUNT`](audit::OPERATOR_ACCOUNT).
    ///
    /// # Errors
    /// The log can't be read.
    pub fn requests_of(&self, user: &str) -> Result<Vec<AuditEvent>> {
        audit::read_of(&self.directory.join("audit.log"), user)
    }

    /// A command for this cluster: `kubectl`, `helm` or another of the tools, with `KUBECONFIG` set.
    ///
    /// # Errors
    /// There is no such tool.
    pub fn command(&self, program: &str) -> Result<Command> {
        let mut command = Command::new(self.tools.program(program)?);
        command.env("KUBECONFIG", self.kubeconfig_path());
        Ok(command)
    }

    /// Runs `kubectl` or another of the tools to its end.
    ///
    /// # Errors
    /// It fails: the message holds what it said.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self.command(program)?.args(arguments).output()?;
        succeed(&format!("{program} {}", arguments.join(" ")), &output)
    }

    /// Loads images of an OCI archive (see [`images::build`]) into the node. Pods use them with
    /// `imagePullPolicy: Never` or `IfNotPresent`.
    ///
    /// # Errors
    /// The archive is not one.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        load_image(&self.tools, &self.directory, archive)
    }

    /// Sends a signal to every process of a pod's container, such as SIGKILL: no grace, no preStop hook.
    /// Returns how many processes got it.
    ///
    /// # Errors
    /// The pod has no such running container.
    pub async fn signal_container(&self, pod: (&str, &str), container: &str, signal: Signal) -> Result<usize> {
        let (namespace, name) = pod;
        let object = Api::<Pod>::namespaced(self.client(), namespace).get(name).await?;
        let statuses = object.status.and_then(|status| status.container_statuses).unwrap_or_default();
        let status = statuses.into_iter().find(|status| status.name == container);
        let id = status.and_then(|status| status.container_id?.strip_prefix("containerd://").map(str::to_owned));
        let id = id.with_context(|| format!("pod {namespace}/{name} has no running container {container}"))?;
        let members = process::in_cgroup(&id);
        ensure!(!members.is_empty(), "container {container} of pod {namespace}/{name} has no process");
        let sent = members.into_iter().filter(|pid| kill(Pid::from_raw(*pid), signal).is_ok());
        Ok(sent.count())
    }

    /// Sends a signal to one part, such as SIGSTOP and SIGCONT to `kube-apiserver`, or SIGKILL to `kubelet`.
    ///
    /// # Errors
    /// No such part runs.
    pub fn signal_component(&self, name: &str, signal: Signal) -> Result<()> {
        let program = format!("/{name}");
        let is_part = |pid: &i32| process::program(*pid).is_some_and(|path| path.ends_with(&program));
        let pid = process::children(self.namespace.init().pid).into_iter().find(is_part);
        let pid = pid.with_context(|| format!("the cluster {} runs no {name}", self.name))?;
        process::send(pid, signal).with_context(|| format!("send {signal} to {name}"))
    }

    /// Lets the cluster live on by itself. It ends by `dev-cluster down`, or by [`Cluster::remove`].
    ///
    /// # Errors
    /// It has ended already.
    pub fn release(mut self) -> Result<()> {
        let state = self.state.take().context("the cluster lives by itself already")?;
        let record = Record { released: true, ..state::read_record(state.path())? };
        state.write(&record)?;
        self.namespace.release()
    }

    /// Ends the cluster and removes everything of it.
    ///
    /// # Errors
    /// Something can't be ended or removed.
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    /// Ends the cluster of that name, whoever started it. Returns false when there is none.
    ///
    /// # Errors
    /// It belongs to a run that is still going, or can't be removed.
    pub fn remove(root: &Path, name: &str) -> Result<bool> {
        let Some(state) = StateDir::adopt(root, name)? else { return Ok(false) };
        state.remove()?;
        Ok(true)
    }

    fn end(&mut self) -> Result<()> {
        let Some(state) = self.state.take() else { return Ok(()) };
        self.namespace.end()?;
        self.components.clear();
        state.remove()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("could not end the cluster {}: {error:#}", self.name);
        }
    }
}

async fn start(tools: Tools, mut undo: Undo, name: &str) -> Result<Cluster> {
    let begin = Instant::now();
    let progress = |what: &str| eprintln!("{what} after {:.1} s", begin.elapsed().as_secs_f64());
    let state = undo.0.as_ref().context("no folder")?;
    let (namespace, network, cgroup) = make_room(&tools, state, name)?;

    let node = node::Node { tools: &tools, state, namespace: &namespace, network: &network, cgroup: &cgroup };
    node.prepare()?;
    let mut components = vec![node.start_containerd()?];
    let services = network.services();
    let layout = Layout {
        place: Place::Inside(&namespace),
        state,
        cluster: name,
        address: network.node(),
        port: APISERVER_PORT,
        etcd_ports: ETCD_PORTS,
        services: &services,
        service_address: network.kubernetes_service(),
        nodes: true,
        checks_owners: false,
    };
    let mut servers = Servers::start(&tools, &layout).await?;
    progress("API server ready");
    components.append(&mut servers.processes);
    let client = servers.clients.client();
    objects::create(&client).await?;
    load_pause(&tools, state)?;
    components.append(&mut node.start(&servers)?);
    wait_ready(&client, &network, &components).await?;
    progress("node ready and DNS answering");

    let directory = state.path().to_owned();
    let state = undo.0.take();
    let clients = servers.clients;
    Ok(Cluster { name: name.to_owned(), directory, state, namespace, network, tools, clients, components })
}

/// Makes namespaces, network and control group, each recorded as soon as it is there.
fn make_room(tools: &Tools, state: &StateDir, name: &str) -> Result<(Namespace, Network, String)> {
    let log = state.subdirectory("logs")?.join("namespaces.log");
    let namespace = Namespace::create(tools.program("pause")?, &state.path().display().to_string(), &log)?;
    let processes = namespace.starter()?.into_iter().collect();
    let mut record = Record { init: Some(namespace.init().clone()), processes, ..Record::default() };
    state.write(&record)?;
    let network = Network::create(name, namespace.init().pid)?;
    record.network = Some(network);
    state.write(&record)?;
    // Named like the link, which is unique on the machine; two roots may hold clusters of the same name.
    let cgroup = cgroup::create(&network.link())?;
    record.cgroup = Some(cgroup.clone());
    state.write(&record)?;
    Ok((namespace, network, cgroup))
}

/// Removes a half-started cluster.
struct Undo(Option<StateDir>);

impl Drop for Undo {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.take().map(StateDir::remove) {
            eprintln!("could not remove what was started: {error:#}");
        }
    }
}

async fn wait_ready(client: &Client, network: &Network, components: &[Running]) -> Result<()> {
    let end = Instant::now() + READY_LIMIT;
    loop {
        let waiting = match missing(client, network.node()).await {
            None => return Ok(()),
            Some(waiting) => waiting,
        };
        for component in components {
            component.check()?;
        }
        if Instant::now() > end {
            let blamed = components.iter().find(|component| component.name() == waiting.component);
            let log = blamed.map(|component| logs::tail(component.log())).unwrap_or_default();
            bail!("after {} s: {}\n{}: {log}", READY_LIMIT.as_secs(), waiting.what, waiting.component);
        }
        tokio::time::sleep(POLL).await;
    }
}

struct Waiting {
    what: &'static str,
    component: &'static str,
}

/// What is still missing until pods can run, and who should have made it.
async fn missing(client: &Client, dns_server: Ipv4Addr) -> Option<Waiting> {
    let node = Api::<NodeObject>::all(client.clone()).get_opt(NODE).await.ok().flatten();
    let conditions = node.and_then(|node| node.status?.conditions).unwrap_or_default();
    if !conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
        return Some(Waiting { what: "the node is not ready", component: "kubelet" });
    }
    let account = Api::<ServiceAccount>::namespaced(client.clone(), "default").get_opt("default").await;
    if !matches!(account, Ok(Some(_))) {
        return Some(Waiting { what: "there is no default ServiceAccount", component: "kube-controller-manager" });
    }
    let name = format!("kubernetes.default.svc.{DOMAIN}");
    if !matches!(dns::resolve(dns_server, &name), Ok(Some(_))) {
        return Some(Waiting { what: "DNS does not answer", component: "coredns" });
    }
    None
}

fn load_pause(tools: &Tools, state: &StateDir) -> Result<()> {
    let archive = state.path().join("pause.tar");
    images::build(&ImageSpec::new(node::PAUSE_IMAGE, ["/pause"]).file(tools.program("pause")?, "/pause"), &archive)?;
    let socket = node::containerd_socket(state.path());
    ensure!(
        process::wait_until(Duration::from_secs(30), || socket.exists()),
        "containerd did not open {}",
        socket.display()
    );
    load_image(tools, state.path(), &archive)
}

fn load_image(tools: &Tools, state: &Path, archive: &Path) -> Result<()> {
    let output = Command::new(tools.program("ctr")?)
        .arg("--address")
        .arg(node::containerd_socket(state))
        .args(["--namespace", "k8s.io", "images", "import"])
        .arg(archive)
        .output()?;
    succeed(&format!("load the image {}", archive.display()), &output)?;
    Ok(())
}

fn succeed(what: &str, output: &Output) -> Result<String> {
    if !output.status.success() {
        bail!("{what}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
