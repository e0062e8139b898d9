//! Settings of the process: flags, each with an environment variable of the same name.

use std::net::SocketAddr;
use std::path::PathBuf;

use operator_core::contract;

/// What a Worker process is told at start. Everything has a default but the configuration of `worker-runtime run`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// File with the Task Queues, handlers and activities, in JSON.
    #[arg(long, value_name = "FILE", env = "WORKER_RUNTIME_CONFIG")]
    pub config: Option<PathBuf>,
    /// File with slots, timeouts and drain time, in JSON; an absent file means the defaults.
    #[arg(long, value_name = "FILE", env = "WORKER_RUNTIME_LIMITS")]
    pub limits: Option<PathBuf>,
    /// File that a new token is written to at start, by which services of the pod know this process; none without.
    #[arg(long, value_name = "FILE", env = contract::ENV_TOKEN_FILE)]
    pub token_file: Option<PathBuf>,
    /// Where it is seen and told.
    #[command(flatten)]
    pub addresses: Addresses,
}

/// Where a process is seen and told.
#[derive(Clone, Debug, clap::Args)]
pub struct Addresses {
    /// Address of `/metrics`.
    #[arg(long, value_name = "ADDRESS", env = "WORKER_RUNTIME_METRICS_BIND_ADDRESS", default_value_t = any(contract::METRICS_PORT))]
    pub metrics_bind_address: SocketAddr,
    /// Address of `/healthz`, `/readyz`, `/drained`, `/cordon` and `/uncordon`.
    #[arg(long, value_name = "ADDRESS", env = "WORKER_RUNTIME_HEALTH_PROBE_BIND_ADDRESS", default_value_t = any(contract::PROBES_PORT))]
    pub health_probe_bind_address: SocketAddr,
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], port))
}

#[derive(clap::Parser)]
struct OnlyOptions {
    #[command(flatten)]
    options: Options,
}

impl Options {
    /// The options that the environment states, for a Worker that has flags of its own.
    ///
    /// # Errors
    /// A variable has a value that can't be read; the message names it.
    pub fn from_environment() -> Result<Self, clap::Error> {
        <OnlyOptions as clap::Parser>::try_parse_from(["worker"]).map(|parsed| parsed.options)
    }
}
