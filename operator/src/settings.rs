//! Flags, and environment variables of the same names, as validated settings.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cli::explain::Output;

/// Runs fleets of Temporal Workers on Kubernetes: versions, rollouts and scaling.
#[derive(Debug, Parser)]
#[command(name = "temporal-worker-operator", version, about)]
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
    #[arg(long, env)]
    pub leader_elect: bool,
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
    /// Identity towards Temporal, completed by the UID of the operator's namespace.
    #[arg(long, env, default_value = "temporal-worker-operator")]
    pub controller_identity: String,
}

impl Settings {
    /// The namespaces to serve; none for all.
    #[must_use]
    pub fn namespaces(&self) -> Vec<String> {
        let names = self.watch_namespaces.iter().map(|name| name.trim());
        names.filter(|name| !name.is_empty()).map(ToOwned::to_owned).collect()
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

    #[test]
    fn no_namespaces_means_all() {
        let cli = Cli::parse_from(["temporal-worker-operator", "--leader-elect"]);
        assert!(cli.settings.namespaces().is_empty() && cli.settings.leader_elect);
        let cli = Cli::parse_from(["temporal-worker-operator", "--watch-namespaces=a, b"]);
        assert_eq!(cli.settings.namespaces(), ["a", "b"]);
    }
}
