//! The sidecar: a gRPC proxy between a Worker of any SDK, in the same pod, and the Temporal server.
//!
//! It adds to the Worker's calls what its SDK lacks, or would need code for: TLS and credentials that change, encryption of
//! payloads, metrics of the tasks, and a drain and a cordon that lose no task. What it does not know passes as it is.

mod budget;
mod calls;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod outage;
mod payloads;
mod proxy;
mod server;
mod traffic;
mod upstream;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use operator_core::contract;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::encryption::Encryption;
use crate::files::Paths;
use crate::lifecycle::{Lifecycle, Stage};
use crate::link;
use crate::metrics::Metrics;
use crate::options::Addresses;
use crate::orders::Orders;
use crate::probes::Ports;
use crate::settings::Settings;
use crate::transport::Wire;
use budget::ANSWER_WINDOW;
use payloads::Payloads;
use proxy::Proxy;
use traffic::Traffic;

/// Settings of a sidecar.
#[derive(Clone, Debug, clap::Args)]
pub struct SidecarOptions {
    /// File with the encryption keys, and the keys of orders, in JSON; an absent file means none.
    #[arg(long, value_name = "FILE", env = contract::ENV_LIMITS)]
    pub limits: Option<PathBuf>,
    /// Address that the Worker connects to, of the loopback interface.
    #[arg(long, value_name = "ADDRESS", env = "WORKER_RUNTIME_SIDECAR_BIND_ADDRESS", default_value = contract::SIDECAR_ADDRESS)]
    pub bind_address: SocketAddr,
    /// File that the program of the Worker's preStop hook is written to; none without.
    #[arg(long, value_name = "FILE")]
    pub hook: Option<PathBuf>,
    /// Where it is seen and told.
    #[command(flatten)]
    pub addresses: Addresses,
}

/// Runs until SIGTERM or SIGINT, and then until the Worker has ended.
///
/// # Errors
/// A variable, a file or a port can't be used; the message names it.
pub async fn run(options: &SidecarOptions) -> anyhow::Result<()> {
    let address = options.bind_address;
    ensure!(
        address.ip().is_loopback(),
        "--bind-address is {address}, which others than this pod can reach; use a loopback address, such as {}",
        contract::SIDECAR_ADDRESS
    );
    let settings = Settings::from_environment()?;
    ensure!(
        settings.address != address.to_string(),
        "{} is {address}, the sidecar's own address; set it to that of the Temporal server",
        contract::ENV_ADDRESS
    );
    let told = Paths { config: None, limits: options.limits.clone() }.read()?;
    let metrics = Metrics::without_cpu(settings.version.as_ref())?;
    let limits = options.limits.as_deref();
    let encryption = Encryption::start(&settings.namespace, (&told.limits, limits), &metrics)?;
    let wire = Wire { window: Some(ANSWER_WINDOW), ..Wire::default() };
    let (lifecycle, cordon) = (wire.lifecycle.clone(), wire.cordon.clone());
    let orders = Orders::new(settings.pod_uid.clone(), options.limits.clone(), cordon.clone(), &metrics)?;
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address} for the Worker; use a free address, with --bind-address")
    })?;
    // Port 0 stands for a free one.
    let address = listener.local_addr().unwrap_or(address);
    let ports = Ports::open(&options.addresses, metrics.clone(), &wire, orders).await?;
    options.hook.as_deref().map(put_hook).transpose()?;
    let traffic = Traffic::new(cordon.clone(), metrics.clone());
    let serve = async {
        let (link, keeper) = link::open(&settings, wire.clone(), &metrics).await?;
        let payloads = Payloads::new(encryption.clone(), &metrics)?;
        let proxy = Proxy::new(link, traffic.clone(), payloads, (cordon.clone(), lifecycle.clone()), &metrics)?;
        lifecycle.reach(Stage::Serving);
        tracing::info!(%address, what = "worker", "listening");
        tokio::select! {
            () = server::serve(listener, proxy, traffic.clone(), lifecycle.clone()) => {}
            () = keeper.keep() => {}
            () = traffic.keep() => {}
        }
        anyhow::Ok(())
    };
    tokio::select! {
        served = serve => served?,
        () = cordon.keep() => {}
        () = encryption.keep() => {}
        () = drain(&lifecycle, &traffic) => {}
        ended = end(&lifecycle, &traffic) => ended?,
    }
    ports.close().await;
    Ok(())
}

/// Writes the program of the Worker's hook, which is beside this one, to where the Worker's container finds it.
fn put_hook(file: &Path) -> anyhow::Result<()> {
    let program = std::env::current_exe()?.with_file_name(contract::HOOK_PROGRAM);
    let unfinished = file.with_extension("new");
    std::fs::copy(&program, &unfinished)
        .and_then(|_| std::fs::rename(&unfinished, file))
        .with_context(|| format!("the hook {} can't be copied to {}", program.display(), file.display()))
}

/// Tells, in each drain, when nothing is under way any more. Never returns.
async fn drain(lifecycle: &Lifecycle, traffic: &Traffic) {
    loop {
        lifecycle.reached(Stage::Draining).await;
        traffic.idle().await;
        if lifecycle.stage() == Stage::Draining {
            lifecycle.reach(Stage::Drained);
        }
        lifecycle.is_serving().await;
    }
}

/// Returns after a signal, once the Worker has ended too: it goes first, and this process last.
async fn end(lifecycle: &Lifecycle, traffic: &Traffic) -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("asked to end: waiting for the Worker");
    lifecycle.reach(Stage::Draining);
    lifecycle.reached(Stage::Drained).await;
    traffic.alone().await;
    Ok(())
}
