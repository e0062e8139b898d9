//! etcd and the API server: alone, for tests that need no pods, and as the core of a whole cluster.

mod servers;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use kube::Client;
use rand::RngExt as _;

use crate::audit::{self, AuditEvent};
use crate::launch::Place;
use crate::state::{self, Record, StateDir};
use crate::tools::Tools;
pub(crate) use servers::{Clients, KUBELET_CLIENT, Layout, Servers, options};

/// Services of a control plane without a node get addresses that nothing routes (RFC 2544).
const UNROUTED_SERVICES: &str = "198.18.0.0/16";

/// etcd and the API server alone, on random ports of the loopback address. No root needed.
///
/// There are no controllers: Deployments make no pods, nothing is collected as garbage, and a deleted namespace stays
/// in phase Terminating. Give each test a namespace of its own.
pub struct ControlPlane {
    servers: Servers,
    state: Option<StateDir>,
}

impl ControlPlane {
    /// Starts both servers. Builds them first when they are not in the cache.
    ///
    /// # Errors
    /// A build or a server fails: the message holds the end of its log.
    pub async fn start() -> Result<Self> {
        Self::start_in(&state::default_root()).await
    }

    /// [`ControlPlane::start`] with an API server that checks who sets owners (`OwnerReferencesPermissionEnforcement`): to have
    /// an owner wait for an object takes the right to the owner's finalizers, to change owners that to delete the object.
    ///
    /// # Errors
    /// As [`ControlPlane::start`].
    pub async fn start_strict() -> Result<Self> {
        Self::launch(&state::default_root(), true).await
    }

    /// [`ControlPlane::start`] with its folder below `root`.
    ///
    /// # Errors
    /// As [`ControlPlane::start`].
    pub async fn start_in(root: &Path) -> Result<Self> {
        Self::launch(root, false).await
    }

    async fn launch(root: &Path, checks_owners: bool) -> Result<Self> {
        let tools = Tools::ensure_async(Tools::CONTROL_PLANE).await?;
        let name = format!("api-{:08x}", rand::random::<u32>());
        let state = StateDir::create(root, &name)?;
        let pause = tools.program("pause")?;
        let mark = state.path().display().to_string();
        let [port, etcd_client, etcd_peer] = free_ports()?;
        let layout = Layout {
            place: Place::Guarded { pause, mark: &mark },
            state: &state,
            cluster: &name,
            address: Ipv4Addr::LOCALHOST,
            port,
            etcd_ports: [etcd_client, etcd_peer],
            services: UNROUTED_SERVICES,
            service_address: Ipv4Addr::new(198, 18, 0, 1),
            nodes: false,
            checks_owners,
        };
        let started = Servers::start(&tools, &layout).await;
        let servers = match started {
            Ok(servers) => servers,
            Err(error) => {
                state.remove()?;
                return Err(error);
            }
        };
        let processes = servers.processes.iter().map(|process| process.id().clone()).collect();
        state.write(&Record { processes, ..Record::default() })?;
        Ok(Self { servers, state: Some(state) })
    }

    /// A new client with all rights. To be called inside the async runtime that uses it.
    #[must_use]
    pub fn client(&self) -> Client {
        self.servers.clients.client()
    }

    /// A kubeconfig with all rights.
    #[must_use]
    pub fn kubeconfig_path(&self) -> &Path {
        &self.servers.kubeconfig
    }

    /// Folder of everything that belongs to it, logs included; removed at the end.
    #[must_use]
    pub fn state_path(&self) -> Option<&Path> {
        self.state.as_ref().map(StateDir::path)
    }

    /// Every write so far that the API server finished, oldest first (see [`AuditEvent`]).
    ///
    /// # Errors
    /// The log can't be read.
    pub fn audit_events(&self) -> Result<Vec<AuditEvent>> {
        audit::read_writes(&self.servers.audit_log)
    }

    /// All that a user asked for so far and the API server finished, oldest first; reads only of
    /// [`OPERATOR_ACCOUNT`](audit::OPERATOR_ACCOUNT). A watch is finished when it ends.
    ///
    /// # Errors
    /// The log can't be read.
    pub fn requests_of(&self, user: &str) -> Result<Vec<AuditEvent>> {
        audit::read_of(&self.servers.audit_log, user)
    }

    /// Stops the API server's execution, or lets it go on: clients see calls that hang.
    ///
    /// # Errors
    /// It has ended.
    pub fn set_paused(&self, paused: bool) -> Result<()> {
        self.servers.processes.iter().try_for_each(|process| process.set_paused(paused))
    }

    /// Ends both servers and removes their files.
    ///
    /// # Errors
    /// A process can't be ended or a file can't be removed.
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let Some(state) = self.state.take() else { return Ok(()) };
        for process in self.servers.processes.iter_mut().rev() {
            process.kill()?;
        }
        state.remove()
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("could not end the API server: {error:#}");
        }
    }
}

/// Ports below the ones that Linux gives to outgoing connections (`net.ipv4.ip_local_port_range`, 32768 to 60999): those
/// are taken at any moment by some client.
const PORTS: std::ops::Range<u16> = 15000..30000;
const PORT_TRIES: usize = 1000;

/// Ports of the loopback address that nothing listens on at this moment, and that this process gave to nobody else.
///
/// # Errors
/// None was found.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut ports = [0; N];
    for port in &mut ports {
        let candidates = std::iter::repeat_with(|| rand::rng().random_range(PORTS)).take(PORT_TRIES);
        let free = |port: &u16| !given.contains(port) && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
        *port = candidates.into_iter().find(free).context("no free port between 15000 and 30000 was found")?;
        given.insert(*port);
    }
    Ok(ports)
}
