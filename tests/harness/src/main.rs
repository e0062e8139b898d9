//! `dev-cluster`: a real cluster for developers, and what the Makefile calls.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use harness::demo;
use harness::tools::Tools;
use harness::{Cluster, ClusterOptions, ControlPlane, state};

/// Starts and stops a real Kubernetes cluster on this machine.
#[derive(Parser)]
#[command(name = "dev-cluster", version)]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Args)]
struct Which {
    /// Name of the cluster.
    #[arg(long, default_value = "dev", env = "DEV_CLUSTER_NAME")]
    name: String,
    /// Folder that holds clusters; by default below XDG_STATE_HOME, else below /var/tmp.
    #[arg(long, env = "DEV_CLUSTER_STATE")]
    state: Option<PathBuf>,
}

impl Which {
    fn root(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(state::default_root)
    }
}

#[derive(Subcommand)]
enum Action {
    /// Start a cluster and leave it running; prints KUBECONFIG.
    Up {
        #[command(flatten)]
        which: Which,
    },
    /// End a cluster and remove everything of it.
    Down {
        #[command(flatten)]
        which: Which,
    },
    /// Print the path of a running cluster's kubeconfig.
    Kubeconfig {
        #[command(flatten)]
        which: Which,
    },
    /// Load images of OCI archives into a running cluster.
    LoadImage {
        #[command(flatten)]
        which: Which,
        /// Archives to load.
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// Run the demo: everything from nothing, then a burst of real work.
    Demo {
        /// Tasks of the burst.
        #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(5..=10_000))]
        tasks: u32,
        /// Folder that holds clusters; by default below XDG_STATE_HOME, else below /var/tmp.
        #[arg(long, env = "DEV_CLUSTER_STATE")]
        state: Option<PathBuf>,
    },
    /// Run the demo of languages: one Workflow that uses Workers in Go, Java, PHP, Python, Rust and TypeScript.
    DemoPolyglot {
        /// Folder that holds clusters; by default below XDG_STATE_HOME, else below /var/tmp.
        #[arg(long, env = "DEV_CLUSTER_STATE")]
        state: Option<PathBuf>,
    },
    /// Run etcd and the API server alone, until Ctrl-C; prints KUBECONFIG. Needs no root.
    ApiServer {
        /// Folder that holds clusters; by default below XDG_STATE_HOME, else below /var/tmp.
        #[arg(long, env = "DEV_CLUSTER_STATE")]
        state: Option<PathBuf>,
    },
    /// Build or fetch every third-party program into the cache, and nothing else.
    BuildTools,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dev-cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(action: Action) -> Result<()> {
    match action {
        Action::Up { which } => up(which).await,
        Action::Down { which } => {
            if Cluster::remove(&which.root(), &which.name)? {
                eprintln!("cluster {} ended", which.name);
            } else {
                eprintln!("there is no cluster {}", which.name);
            }
            Ok(())
        }
        Action::Kubeconfig { which } => {
            println!("{}", Cluster::attach(&which.root(), &which.name).await?.kubeconfig_path().display());
            Ok(())
        }
        Action::LoadImage { which, archives } => {
            let cluster = Cluster::attach(&which.root(), &which.name).await?;
            archives.iter().try_for_each(|archive| cluster.load_image(archive))
        }
        Action::Demo { tasks, state } => demo(demo::Play::Pictures { tasks }, state).await,
        Action::DemoPolyglot { state } => demo(demo::Play::Languages, state).await,
        Action::ApiServer { state } => {
            let control_plane = ControlPlane::start_in(&state.unwrap_or_else(state::default_root)).await?;
            println!("export KUBECONFIG={}", control_plane.kubeconfig_path().display());
            tokio::signal::ctrl_c().await?;
            control_plane.stop()
        }
        Action::BuildTools => Tools::ensure_async(Tools::ALL).await.map(drop),
    }
}

async fn demo(play: demo::Play, state: Option<PathBuf>) -> Result<()> {
    demo::run(&demo::Options { play, root: state.unwrap_or_else(state::default_root) }).await
}

async fn up(which: Which) -> Result<()> {
    let options = ClusterOptions { name: which.name.clone(), root: which.root() };
    let cluster = tokio::select! {
        started = Cluster::start(options) => started?,
        _ = tokio::signal::ctrl_c() => {
            eprintln!("interrupted: what was started is ended");
            // A build in a thread of its own would be waited for otherwise.
            std::process::exit(130);
        }
    };
    let kubeconfig = cluster.kubeconfig_path();
    cluster.release()?;
    println!("export KUBECONFIG={}", kubeconfig.display());
    Ok(())
}
