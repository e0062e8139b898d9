//! `worker-runtime`: hosts activities in any language on Temporal Task Queues.
#![deny(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use operator_core::contract;
use worker_runtime::{CodecServerOptions, Options, SidecarOptions};

/// Hosts activities in any language on Temporal Task Queues.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Polls the Task Queues of the configuration and runs their activities, until SIGTERM.
    Run(Options),
    /// Checks the files as `run` would at its start, without connecting.
    Check {
        /// File with the Task Queues, handlers and activities, in JSON.
        #[arg(long, value_name = "FILE", env = contract::ENV_CONFIG)]
        config: PathBuf,
        /// File with slots, timeouts and drain time, in JSON.
        #[arg(long, value_name = "FILE", env = contract::ENV_LIMITS)]
        limits: Option<PathBuf>,
    },
    /// Carries the calls of a Worker of any SDK in the same pod over to the server: with TLS, credentials, encryption, metrics,
    /// and a drain that loses no task.
    Sidecar(SidecarOptions),
    /// Decrypts and encrypts payloads for Temporal's UI and CLI.
    CodecServer(CodecServerOptions),
    /// Has the runtime in the same container drain, as SIGTERM does, and waits until it has. For its own preStop hook.
    Drain {
        /// Address of the runtime's probes.
        #[arg(long, default_value_t = format!("127.0.0.1:{}", contract::PROBES_PORT))]
        address: String,
    },
    /// Waits until the runtime in the same pod has drained. For the preStop hook of a handler's container.
    Drained {
        /// Address of the runtime's probes.
        #[arg(long, default_value_t = format!("127.0.0.1:{}", contract::PROBES_PORT))]
        address: String,
    },
}

// One thread: handlers do the work in processes of their own, and each further thread costs memory.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    worker_runtime::init_logs();
    let done = |()| ExitCode::SUCCESS;
    let result = match arguments.command {
        Command::Run(options) => worker_runtime::run(&options).await.map(|ended| ended.code().into()),
        Command::Check { config, limits } => {
            worker_runtime::check(&config, limits.as_deref()).map(|summary| println!("{summary}")).map(done)
        }
        Command::Sidecar(options) => worker_runtime::run_sidecar(&options).await.map(done),
        Command::CodecServer(options) => worker_runtime::serve_codec(&options).await.map(done),
        Command::Drain { address } => worker_runtime::begin_drain(&address).await.map(done),
        Command::Drained { address } => worker_runtime::wait_drained(&address).await.map(done),
    };
    result.unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        ExitCode::FAILURE
    })
}
