//! etcd and the API server: alone, for tests that need no pods, and as the core of a whole cluster.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::audit::{self, AuditEvent};
use crate::launch::{Launch, Place, Running};
use crate::pki::{Authority, CertificateFiles, User, create_service_account_key};
use crate::state::{self, Record, StateDir};
use crate::tools::Tools;

/// Generous: on two busy cores the API server needs three seconds alone.
const READY_LIMIT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);
const ADMIN: User<'_> = User { name: "admin", group: "system:masters" };
/// Services of a control plane without a node get addresses that nothing routes (RFC 2544), and so does it itself (RFC 5737).
const UNROUTED_SERVICES: &str = "198.18.0.0/16";
const UNROUTED_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Where the two servers listen, and what they serve.
pub(crate) struct Layout<'a> {
    pub place: Place<'a>,
    /// The cluster's folder: `pki`, `etcd`, `logs` and the kubeconfig lie in it.
    pub state: &'a StateDir,
    pub cluster: &'a str,
    pub address: Ipv4Addr,
    pub port: u16,
    pub etcd_ports: [u16; 2],
    pub services: &'a str,
    pub service_address: Ipv4Addr,
    /// Whether nodes and controllers are there: then ServiceAccounts are enforced, and the server publishes itself.
    pub nodes: bool,
}

/// The running servers.
pub(crate) struct Servers {
    pub processes: Vec<Running>,
    pub authority: Authority,
    pub service_account: CertificateFiles,
    pub server: String,
    pub kubeconfig: PathBuf,
    pub audit_log: PathBuf,
    pub clients: Clients,
}

impl Servers {
    /// Starts both and waits until the API server is ready.
    pub async fn start(tools: &Tools, layout: &Layout<'_>) -> Result<Self> {
        let pki = layout.state.subdirectory("pki")?;
        let logs = layout.state.subdirectory("logs")?;
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let authority = Authority::create(&pki, "kubernetes")?;
        let service_account = create_service_account_key(&pki)?;
        let etcd_authority = Authority::create(&layout.state.subdirectory("pki/etcd")?, "etcd")?;
        let etcd_user = User { name: "kube-apiserver", group: "etcd" };
        let etcd_files = etcd_authority.sign("etcd", etcd_user, &[loopback], &["localhost"])?;

        let launch = |name: &'static str, arguments| -> Result<Running> {
            layout.place.launch(Launch {
                name,
                program: tools.program(name)?,
                arguments,
                environment: Vec::new(),
                logs: &logs,
            })
        };
        let etcd = launch("etcd", etcd_arguments(layout, &etcd_files, &etcd_authority))?;

        let serving = authority.sign(
            "apiserver",
            User { name: "kube-apiserver", group: "kubernetes" },
            &[loopback, IpAddr::V4(layout.address), IpAddr::V4(layout.service_address)],
            &[
                "localhost",
                "kubernetes",
                "kubernetes.default",
                "kubernetes.default.svc",
                "kubernetes.default.svc.cluster.local",
            ],
        )?;
        let to_kubelet = authority.sign("apiserver-kubelet-client", KUBELET_CLIENT, &[], &[])?;
        let audit_log = layout.state.path().join("audit.log");
        let mut arguments = apiserver_arguments(layout, &serving, &authority, &service_account);
        arguments.extend(audit::server_arguments(layout.state.path(), &audit_log)?);
        arguments.extend(etcd_client_arguments(layout, &etcd_files, &etcd_authority));
        if layout.nodes {
            arguments.extend(options([
                ("kubelet-certificate-authority", authority.certificate().into()),
                ("kubelet-client-certificate", to_kubelet.certificate.into()),
                ("kubelet-client-key", to_kubelet.key.into()),
            ]));
        }
        let apiserver = launch("kube-apiserver", arguments)?;

        let server = format!("https://{}:{}", layout.address, layout.port);
        let kubeconfig = layout.state.path().join("kubeconfig");
        authority.write_kubeconfig(&kubeconfig, &server, layout.cluster, ADMIN)?;
        let clients = Clients::read(&kubeconfig).await?;
        let processes = vec![etcd, apiserver];
        wait_ready(&clients.client(), &processes).await?;
        Ok(Self { processes, authority, service_account, server, kubeconfig, audit_log, clients })
    }
}

/// The API server as a client of kubelets; `cluster/objects.rs` grants it their API.
pub(crate) const KUBELET_CLIENT: User<'_> = User { name: "kube-apiserver-kubelet-client", group: "test cluster" };

/// Makes clients of one kubeconfig.
///
/// A client's connections belong to the async runtime that it was made in, and each test has a runtime of its own, so
/// every caller gets a client of its own.
#[derive(Clone)]
pub(crate) struct Clients {
    config: kube::Config,
    first: Client,
}

impl Clients {
    /// Clients for the current context of a kubeconfig.
    pub async fn read(kubeconfig: &Path) -> Result<Self> {
        let read = Kubeconfig::read_from(kubeconfig).with_context(|| format!("read {}", kubeconfig.display()))?;
        let config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
        let first = Client::try_from(config.clone())?;
        Ok(Self { config, first })
    }

    /// A new client; the first of them when no other can be made, which then fails the same way as that one.
    pub fn client(&self) -> Client {
        Client::try_from(self.config.clone()).unwrap_or_else(|_| self.first.clone())
    }
}

async fn wait_ready(client: &Client, processes: &[Running]) -> Result<()> {
    let end = Instant::now() + READY_LIMIT;
    loop {
        let request = http::Request::get("/readyz").body(Vec::new())?;
        let answer = tokio::time::timeout(Duration::from_secs(5), client.request_text(request)).await;
        if let Ok(Ok(_)) = answer {
            return Ok(());
        }
        for process in processes {
            process.check()?;
        }
        if Instant::now() > end {
            let apiserver = &processes[processes.len() - 1];
            bail!(
                "the API server is not ready after {} s: {answer:?}\n{}",
                READY_LIMIT.as_secs(),
                crate::logs::tail(apiserver.log())
            );
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Command-line options `--name=value`.
pub(crate) fn options<const N: usize>(pairs: [(&str, OsString); N]) -> Vec<OsString> {
    let option = |(name, value): (&str, OsString)| {
        let mut text = OsString::from(format!("--{name}="));
        text.push(value);
        text
    };
    pairs.into_iter().map(option).collect()
}

fn etcd_arguments(layout: &Layout<'_>, files: &CertificateFiles, authority: &Authority) -> Vec<OsString> {
    let [client, peer] = layout.etcd_ports.map(|port| OsString::from(format!("https://127.0.0.1:{port}")));
    let mut cluster = OsString::from("default=");
    cluster.push(&peer);
    let mut arguments = options([
        ("data-dir", layout.state.path().join("etcd").into()),
        ("listen-client-urls", client.clone()),
        ("advertise-client-urls", client),
        ("listen-peer-urls", peer.clone()),
        ("initial-advertise-peer-urls", peer),
        ("initial-cluster", cluster),
        ("cert-file", files.certificate.clone().into()),
        ("key-file", files.key.clone().into()),
        ("trusted-ca-file", authority.certificate().into()),
        ("peer-cert-file", files.certificate.clone().into()),
        ("peer-key-file", files.key.clone().into()),
        ("peer-trusted-ca-file", authority.certificate().into()),
    ]);
    // A cluster of tests is not to survive a loss of power.
    arguments.extend(["--client-cert-auth", "--peer-client-cert-auth", "--unsafe-no-fsync"].map(OsString::from));
    arguments
}

fn etcd_client_arguments(layout: &Layout<'_>, files: &CertificateFiles, authority: &Authority) -> Vec<OsString> {
    options([
        ("etcd-servers", format!("https://127.0.0.1:{}", layout.etcd_ports[0]).into()),
        ("etcd-cafile", authority.certificate().into()),
        ("etcd-certfile", files.certificate.clone().into()),
        ("etcd-keyfile", files.key.clone().into()),
    ])
}

fn apiserver_arguments(
    layout: &Layout<'_>,
    serving: &CertificateFiles,
    authority: &Authority,
    service_account: &CertificateFiles,
) -> Vec<OsString> {
    let advertised = if layout.nodes { layout.address } else { UNROUTED_ADDRESS };
    let mut arguments = options([
        ("bind-address", layout.address.to_string().into()),
        ("secure-port", layout.port.to_string().into()),
        ("advertise-address", advertised.to_string().into()),
        ("tls-cert-file", serving.certificate.clone().into()),
        ("tls-private-key-file", serving.key.clone().into()),
        ("client-ca-file", authority.certificate().into()),
        ("service-account-issuer", "https://kubernetes.default.svc".into()),
        ("service-account-key-file", service_account.certificate.clone().into()),
        ("service-account-signing-key-file", service_account.key.clone().into()),
        ("service-cluster-ip-range", layout.services.into()),
        ("authorization-mode", "Node,RBAC".into()),
        ("enable-admission-plugins", "NodeRestriction".into()),
        // Node names are no DNS names here.
        ("kubelet-preferred-address-types", "InternalIP".into()),
        ("allow-privileged", "true".into()),
    ]);
    if !layout.nodes {
        // No controller makes the default ServiceAccount that pods would need, and there is no address to publish.
        arguments.extend(options([
            ("disable-admission-plugins", "ServiceAccount".into()),
            ("endpoint-reconciler-type", "none".into()),
        ]));
    }
    arguments
}

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

    /// [`ControlPlane::start`] with its folder below `root`.
    ///
    /// # Errors
    /// As [`ControlPlane::start`].
    pub async fn start_in(root: &Path) -> Result<Self> {
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
        audit::read(&self.servers.audit_log)
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

/// Ports of the loopback address that nothing listens on at this moment.
///
/// # Errors
/// The kernel has none left.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    // All are held at once, so they differ; another process could take one between here and its use, which is rare.
    let listeners = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.as_ref().map_err(|error| anyhow::anyhow!("no free port: {error}"))?.local_addr()?.port();
    }
    Ok(ports)
}
