//! The two servers: where they listen, who may call them, how they are started.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::audit;
use crate::launch::{Launch, Place, Running};
use crate::pki::{Authority, CertificateFiles, User, create_service_account_key};
use crate::state::StateDir;
use crate::tools::Tools;

/// Generous: on two busy cores the API server needs three seconds alone.
const READY_LIMIT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);
/// The API server itself gives up a request after 60 s. By default a client would wait for ever for one that is lost.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);
const ADMIN: User<'_> = User { name: "admin", group: "system:masters" };
/// Advertised by an API server without nodes, which may not advertise loopback (RFC 5737).
const UNROUTED_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

const SERVER_NAMES: [&str; 5] =
    ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];

/// The admission plugin that checks who sets owners.
const OWNERS_CHECK: &str = "OwnerReferencesPermissionEnforcement";

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
    /// Whether it is checked who sets owners.
    pub checks_owners: bool,
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
        let authority = Authority::create(&pki, "kubernetes")?;
        let service_account = create_service_account_key(&pki)?;
        let etcd_authority = Authority::create(&layout.state.subdirectory("pki/etcd")?, "etcd")?;
        let etcd_user = User { name: "kube-apiserver", group: "etcd" };
        let etcd_files = etcd_authority.sign("etcd", etcd_user, &[IpAddr::V4(Ipv4Addr::LOCALHOST)], &["localhost"])?;
        let launch = |name: &'static str, arguments| -> Result<Running> {
            let program = tools.program(name)?;
            layout.place.launch(Launch {
                name,
                program,
                arguments,
                environment: Vec::new(),
                logs: &logs,
                goes_first: false,
            })
        };

        let etcd = launch("etcd", etcd_arguments(layout, &etcd_files, &etcd_authority))?;
        let audit_log = layout.state.path().join("audit.log");
        let mut arguments = apiserver_arguments(layout, &authority, &service_account)?;
        arguments.extend(audit::server_arguments(layout.state.path(), &audit_log)?);
        arguments.extend(etcd_client_arguments(layout, &etcd_files, &etcd_authority));
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
        let mut config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
        config.read_timeout = Some(ANSWER_LIMIT);
        config.reset_reader_on_write = true;
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
    authority: &Authority,
    service_account: &CertificateFiles,
) -> Result<Vec<OsString>> {
    let addresses = [Ipv4Addr::LOCALHOST, layout.address, layout.service_address].map(IpAddr::V4);
    let user = User { name: "kube-apiserver", group: "kubernetes" };
    let serving = authority.sign("apiserver", user, &addresses, &SERVER_NAMES)?;
    let admission = ["NodeRestriction"].into_iter().chain(layout.checks_owners.then_some(OWNERS_CHECK));
    let admission = admission.collect::<Vec<_>>().join(",");
    let advertised = if layout.nodes { layout.address } else { UNROUTED_ADDRESS };
    let mut arguments = options([
        ("bind-address", layout.address.to_string().into()),
        ("secure-port", layout.port.to_string().into()),
        ("advertise-address", advertised.to_string().into()),
        ("tls-cert-file", serving.certificate.into()),
        ("tls-private-key-file", serving.key.into()),
        ("client-ca-file", authority.certificate().into()),
        ("service-account-issuer", "https://kubernetes.default.svc".into()),
        ("service-account-key-file", service_account.certificate.clone().into()),
        ("service-account-signing-key-file", service_account.key.clone().into()),
        ("service-cluster-ip-range", layout.services.into()),
        ("authorization-mode", "Node,RBAC".into()),
        ("enable-admission-plugins", admission.into()),
        // Node names are no DNS names here.
        ("kubelet-preferred-address-types", "InternalIP".into()),
        ("allow-privileged", "true".into()),
    ]);
    if layout.nodes {
        let to_kubelet = authority.sign("apiserver-kubelet-client", KUBELET_CLIENT, &[], &[])?;
        arguments.extend(options([
            ("kubelet-certificate-authority", authority.certificate().into()),
            ("kubelet-client-certificate", to_kubelet.certificate.into()),
            ("kubelet-client-key", to_kubelet.key.into()),
        ]));
    } else {
        // No controller makes the default ServiceAccount that pods would need, and there is no address to publish.
        arguments.extend(options([
            ("disable-admission-plugins", "ServiceAccount".into()),
            ("endpoint-reconciler-type", "none".into()),
        ]));
    }
    Ok(arguments)
}
