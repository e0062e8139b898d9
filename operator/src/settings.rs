//! Flags, and environment variables of the same names, as validated settings.

mod templates;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::cli::explain::Output;
use crate::cli::migrate::MigrateCommand;
use crate::compat::{self, UnusedFlags};

pub use templates::TemplateSettings;

/// Runs fleets of Temporal Workers on Kubernetes: versions, rollouts and scaling.
#[derive(Debug, Parser)]
#[command(name = "temporal-worker-operator", version, about, args_override_self = true)]
pub struct Cli {
    /// What to do instead of running the operator.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Settings of the operator.
    #[command(flatten)]
    pub settings: Settings,
}

/// Commands beside the operator itself.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the Build ID that a manifest stands for.
    BuildId {
        /// A WorkerDeployment or a PodTemplateSpec, YAML or JSON; `-` reads standard input.
        #[arg(short, long, value_name = "FILE")]
        file: String,
        /// Print {buildID, deploymentName} as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the CustomResourceDefinitions, or write each into a file of a folder.
    Crds {
        /// Folder to write into.
        #[arg(long, value_name = "DIR")]
        out: Option<std::path::PathBuf>,
        /// Write nothing; fail when a file differs.
        #[arg(long, requires = "out")]
        check: bool,
    },
    /// Print the reference of the kinds' fields as Markdown.
    Reference,
    /// Print how the number of replicas of a fleet came about.
    Explain {
        /// The WorkerDeployment.
        #[arg(value_name = "NAMESPACE/NAME")]
        fleet: String,
        /// Format.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Print what the operator would do now for a fleet, and why; nothing is written. Exits with 0 when nothing is to be
    /// done, 3 when something is, 4 when somebody has to change something first, 1 when no plan can be made.
    Plan(PlanArguments),
    /// Find out what stands in the way of taking over from temporal-worker-controller, or print what replaces a Deployment and its
    /// scaler. Nothing is written.
    #[command(subcommand)]
    Migrate(MigrateCommand),
    /// Delete every WorkerDeployment of the namespaces that the operator serves, and wait until they are gone.
    #[command(hide = true)]
    DeleteFleets {
        /// Seconds to wait.
        #[arg(long, value_name = "SECONDS", default_value_t = 600)]
        timeout: u64,
    },
    /// Print the kubeconfig by which a Temporal server may call the push endpoint for a fleet. It holds a secret.
    PushKubeconfig {
        /// The WorkerDeployment, as NAMESPACE/NAME.
        #[arg(value_name = "NAMESPACE/NAME")]
        fleet: String,
        /// URL by which the Temporal server reaches the endpoint.
        #[arg(long, value_name = "URL")]
        server: String,
        /// PEM file of the authority that the server is to believe; without one `ca.crt` of the endpoint's folder.
        #[arg(long, value_name = "FILE")]
        ca: Option<PathBuf>,
        /// Print the request that gives it to the server for the fleet's target version, as JSON: the message of
        /// UpdateWorkerDeploymentVersionComputeConfig.
        #[arg(long)]
        request: bool,
        /// Kubernetes namespace of the operator; without one that of POD_NAMESPACE.
        #[arg(long, value_name = "NAMESPACE")]
        operator_namespace: Option<String>,
    },
}

/// What to plan for.
#[derive(Debug, Args)]
pub struct PlanArguments {
    /// The WorkerDeployment, as it is stored.
    #[arg(value_name = "NAMESPACE/NAME", required_unless_present = "file", conflicts_with = "file")]
    pub fleet: Option<String>,
    /// Manifests as they would be after applying them: WorkerDeployments to plan for, Connections and
    /// ClusterConnections, YAML or JSON; `-` reads standard input.
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<String>,
    /// Format.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Kubernetes namespace of the operator; without one that of POD_NAMESPACE.
    #[arg(long, value_name = "NAMESPACE")]
    pub operator_namespace: Option<String>,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Settings of the operator.
#[derive(Clone, Debug, Args)]
pub struct Settings {
    /// Address of /metrics.
    #[arg(long, env, default_value = ":8080", value_parser = address)]
    pub metrics_bind_address: SocketAddr,
    /// Address of /healthz and /readyz.
    #[arg(long, env, default_value = ":8081", value_parser = address)]
    pub health_probe_bind_address: SocketAddr,
    /// Write only while holding the Lease. Without it, this process assumes that it is alone.
    #[arg(long, env, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        action = ArgAction::Set, value_parser = compat::truth)]
    pub leader_elect: bool,
    /// File with the way to the Kubernetes API; without one that of KUBECONFIG, or the pod's own account.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Kubernetes namespaces to serve, separated by commas; empty for all.
    #[arg(long, env, default_value = "", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
    /// Image of the worker runtime for new versions of fleets that name none.
    #[arg(long, env, default_value = concat!("temporal-worker-runtime:v", env!("CARGO_PKG_VERSION")))]
    pub runtime_image: String,
    /// Most calls a second to one Temporal namespace.
    #[arg(long, env, default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..))]
    pub temporal_calls_per_second: u32,
    /// Most reconciles at a time.
    #[arg(long, env, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrent_reconciles: u16,
    /// Format of log lines.
    #[arg(long, env, value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
    /// Log filter, such as `info` or `temporal_worker_operator=debug`.
    #[arg(long, env, default_value = "info")]
    pub log_level: String,
    /// Kubernetes namespace that the operator runs in; the Lease is there.
    #[arg(long, env, default_value = "default")]
    pub pod_namespace: String,
    /// Name of this replica among those of the operator.
    #[arg(long, env, default_value_t = default_pod_name())]
    pub pod_name: String,
    /// File to record scaling decisions in, for `scale-sim replay`. At 128 MiB it becomes FILE.1, and a new one is begun.
    #[arg(long, env, value_name = "FILE")]
    pub record_decisions: Option<PathBuf>,
    /// How the push endpoint is served.
    #[command(flatten)]
    pub push: PushSettings,
    /// What WorkerResourceTemplates may be.
    #[command(flatten)]
    pub templates: TemplateSettings,
    /// Most old versions of a fleet that have work or pods beside which a new one is begun.
    #[arg(long, env = "CONTROLLER_MAX_DEPLOYMENT_VERSIONS_INELIGIBLE_FOR_DELETION", default_value = MAX_VERSIONS, value_parser = max_versions)]
    pub max_deployment_versions_ineligible_for_deletion: usize,
    /// Identity towards Temporal, completed by the UID of the operator's namespace.
    #[arg(long, env, default_value = "temporal-worker-operator")]
    pub controller_identity: String,
    /// Identities that the operator had before, separated by commas: Worker Deployments that these manage are its own. The one
    /// without the UID is always among them.
    #[arg(long, env, alias = "former-controller-identities", default_value = "", value_delimiter = ',')]
    pub former_identities: Vec<String>,
    /// What temporal-worker-controller has, and has no meaning here.
    #[command(flatten)]
    pub unused: UnusedFlags,
}

impl Settings {
    /// The namespaces to serve; none for all.
    #[must_use]
    pub fn namespaces(&self) -> Vec<String> {
        let names = self.watch_namespaces.iter().map(|name| name.trim());
        names.filter(|name| !name.is_empty()).map(ToOwned::to_owned).collect()
    }

    /// What the operator, which is `identity` now, was called before.
    #[must_use]
    pub fn former_identities(&self, identity: &str) -> BTreeSet<String> {
        let named = self.former_identities.iter().map(|name| name.trim());
        let all = named.chain([self.controller_identity.as_str()]);
        all.filter(|name| !name.is_empty() && *name != identity).map(ToOwned::to_owned).collect()
    }
}

/// How the push endpoint is served.
#[derive(Clone, Debug, Default, Args)]
pub struct PushSettings {
    /// Address of the push endpoint, which Temporal servers with compute providers call. Without it there is none.
    #[arg(long, env, value_parser = address)]
    pub push_bind_address: Option<SocketAddr>,
    /// Folder with tls.crt, tls.key and, unless a public authority signed them, ca.crt, for the push endpoint.
    #[arg(long, env, value_name = "DIR")]
    pub push_tls_dir: Option<PathBuf>,
    /// Serve the push endpoint without TLS: tokens can be read on their way.
    #[arg(long, env)]
    pub push_plain_http: bool,
    /// Address of this replica for the others, which relay calls of the push endpoint to the one that leads.
    #[arg(long, env)]
    pub pod_ip: Option<IpAddr>,
}

/// Where and how the push endpoint is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushListen {
    /// Address to listen on.
    pub address: SocketAddr,
    /// Folder of the certificate; none for no TLS.
    pub tls: Option<PathBuf>,
}

impl PushSettings {
    /// Where and how it is served, if it is.
    ///
    /// # Errors
    /// Flags that don't go together.
    pub fn listen(&self) -> anyhow::Result<Option<PushListen>> {
        let tls = self.push_tls_dir.clone();
        let Some(address) = self.push_bind_address else {
            ensure!(
                tls.is_none() && !self.push_plain_http,
                "--push-tls-dir and --push-plain-http need --push-bind-address"
            );
            return Ok(None);
        };
        match (&tls, self.push_plain_http) {
            (None, false) => bail!(
                "--push-bind-address needs --push-tls-dir with a certificate, or --push-plain-http to do without TLS"
            ),
            (Some(_), true) => bail!("--push-tls-dir and --push-plain-http exclude each other"),
            _ => Ok(Some(PushListen { address, tls })),
        }
    }

    /// Where other replicas reach the endpoint of this one, if it is served.
    ///
    /// # Errors
    /// Nobody can tell.
    pub fn advertised(&self) -> anyhow::Result<Option<SocketAddr>> {
        let Some(address) = self.push_bind_address else { return Ok(None) };
        let own = (!address.ip().is_unspecified()).then_some(address.ip());
        let ip = self
            .pod_ip
            .or(own)
            .context("--push-bind-address of all addresses needs --pod-ip, the address of this replica")?;
        Ok(Some(SocketAddr::new(ip, address.port())))
    }
}

/// Deadline of one call to the API server: a write under the Lease ends before another replica can hold it.
pub const KUBE_CALL_DEADLINE: Duration = Duration::from_secs(5);
/// Deadline of one reconcile.
pub const RECONCILE_DEADLINE: Duration = Duration::from_secs(60);
/// Time after which every fleet is looked at again, whatever happens.
pub const RESYNC: Duration = Duration::from_secs(300);

fn default_pod_name() -> String {
    std::env::var("HOSTNAME").unwrap_or_else(|_| format!("pid-{}", std::process::id()))
}

/// Most old versions beside which a new one is begun, unless somebody says otherwise.
const MAX_VERSIONS: &str = "75";

/// Reads a number of versions; an empty variable is as good as none.
fn max_versions(text: &str) -> Result<usize, String> {
    let text = if text.is_empty() { MAX_VERSIONS } else { text };
    text.parse().map_err(|_| format!("{text:?} is no number of versions"))
}

/// Reads `:8080`, as well as `127.0.0.1:8080` and `[::]:8080`.
fn address(text: &str) -> Result<SocketAddr, String> {
    let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    full.parse().map_err(|_| format!("{text:?} is not an address such as :8080 or 127.0.0.1:8080"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_leave_out_the_host() {
        assert_eq!(address(":8080").unwrap().to_string(), "0.0.0.0:8080");
        assert_eq!(address("127.0.0.1:1").unwrap().to_string(), "127.0.0.1:1");
        assert!(address("8080").unwrap_err().contains("8080"));
    }

    fn push(flags: &[&str]) -> PushSettings {
        Cli::parse_from([&["temporal-worker-operator"], flags].concat()).settings.push
    }

    #[test]
    fn the_push_endpoint_is_off_and_its_tls_is_a_choice() {
        assert_eq!(push(&[]).listen().unwrap(), None);
        let bind = "--push-bind-address=127.0.0.1:8443";
        let refused = push(&[bind]).listen().unwrap_err().to_string();
        assert!(refused.contains("--push-tls-dir") && refused.contains("--push-plain-http"), "{refused}");
        assert!(push(&[bind, "--push-tls-dir=/tls", "--push-plain-http"]).listen().is_err());
        assert!(push(&["--push-plain-http"]).listen().is_err() && push(&["--push-tls-dir=/tls"]).listen().is_err());
        let listen = push(&[bind, "--push-tls-dir=/tls"]).listen().unwrap().unwrap();
        assert_eq!(listen.tls, Some("/tls".into()));
        assert_eq!(push(&[bind, "--push-plain-http"]).listen().unwrap().unwrap().tls, None);
    }

    #[test]
    fn other_replicas_are_told_an_address_that_they_can_reach() {
        assert_eq!(push(&[]).advertised().unwrap(), None);
        assert_eq!(push(&["--push-bind-address=127.0.0.1:1"]).advertised().unwrap(), "127.0.0.1:1".parse().ok());
        assert!(push(&["--push-bind-address=:1"]).advertised().unwrap_err().to_string().contains("--pod-ip"));
        let told = push(&["--push-bind-address=[::]:1", "--pod-ip=fd00::1"]).advertised().unwrap();
        assert_eq!(told, "[fd00::1]:1".parse().ok());
    }

    #[test]
    fn a_plan_is_for_a_fleet_or_a_file() {
        let parse =
            |arguments: &[&str]| Cli::try_parse_from([&["temporal-worker-operator", "plan"], arguments].concat());
        assert!(parse(&["prod/orders", "-o", "json"]).is_ok() && parse(&["-f", "-", "-o", "json"]).is_ok());
        assert!(parse(&[]).is_err() && parse(&["prod/orders", "-f", "-"]).is_err());
    }

    #[test]
    fn the_identity_without_its_uid_is_a_former_one() {
        let former = |flags: &[&str], identity: &str| {
            let settings = Cli::parse_from([&["temporal-worker-operator"], flags].concat()).settings;
            settings.former_identities(identity).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(former(&[], "temporal-worker-operator/u-1"), ["temporal-worker-operator"]);
        assert_eq!(former(&[], "temporal-worker-operator"), Vec::<String>::new());
        for named in ["--former-identities=a/b/u-1, c", "--former-controller-identities=a/b/u-1, c"] {
            let flags = ["--controller-identity=a/b", named];
            assert_eq!(former(&flags, "a/b/u-2"), ["a/b", "a/b/u-1", "c"]);
        }
    }

    #[test]
    fn no_namespaces_means_all() {
        let cli = Cli::parse_from(["temporal-worker-operator", "--leader-elect"]);
        assert!(cli.settings.namespaces().is_empty() && cli.settings.leader_elect);
        let cli = Cli::parse_from(["temporal-worker-operator", "--watch-namespaces=a, b"]);
        assert_eq!(cli.settings.namespaces(), ["a", "b"]);
    }
}
