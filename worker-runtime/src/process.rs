//! What the program and a library Worker share: start, signals, drain, exit.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use operator_core::contract::{RuntimeConfig, RuntimeLimits};
use serde::de::DeserializeOwned;
use temporalio_sdk_core::CoreRuntime;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::cordon::Cordon;
use crate::core_metrics;
use crate::encryption::Encryption;
use crate::lifecycle::{Lifecycle, Stage};
use crate::metrics::Metrics;
use crate::options::Options;
use crate::orders::Orders;
use crate::probes::Ports;
use crate::settings::Settings;
use crate::transport::Polls;

/// Core says at level info what every Worker does at start and end.
const DEFAULT_LOGS: &str = "info,temporalio_sdk_core=warn,temporalio_client=warn";

/// The parts that every Worker process has.
pub struct Process {
    /// How to reach Temporal.
    pub settings: Settings,
    /// The configuration file, when there is one.
    pub config: Option<RuntimeConfig>,
    /// The limits file, or the defaults.
    pub limits: RuntimeLimits,
    /// Metrics, served already.
    pub metrics: Metrics,
    /// Stage, shown by the probes already.
    pub lifecycle: Lifecycle,
    /// With what payloads are encrypted.
    pub encryption: Encryption,
    /// Whether it takes new tasks; orders are taken already.
    pub cordon: Cordon,
    /// Core's runtime.
    pub runtime: Arc<CoreRuntime>,
    /// The open ports.
    pub ports: Ports,
}

/// Logs as JSON lines on standard error, filtered by `RUST_LOG`. Does nothing when the program has set logs up itself.
pub fn init_logs() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOGS));
    let _ = tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}

impl Process {
    /// Reads what the process is told, and opens its ports.
    ///
    /// # Errors
    /// A variable, a file or a port can't be used; the message names it.
    pub async fn start(options: &Options) -> anyhow::Result<Self> {
        let settings = Settings::from_environment()?;
        let (config, limits) = files(options.config.as_deref(), options.limits.as_deref())?;
        let metrics = Metrics::new(settings.version.as_ref())?;
        let encryption = Encryption::start(&settings.namespace, (&limits, options.limits.as_deref()), &metrics)?;
        let lifecycle = Lifecycle::default();
        let cordon = Cordon::default();
        let orders = Orders::new(settings.pod_uid.clone(), options.limits.clone(), cordon.clone(), &metrics)?;
        let ports = Ports::open(options, metrics.clone(), lifecycle.clone(), orders).await?;
        let runtime = CoreRuntime::new_assume_tokio(core_metrics::runtime_options(&metrics)?)?;
        Ok(Self { settings, config, limits, metrics, lifecycle, encryption, cordon, runtime: Arc::new(runtime), ports })
    }

    /// Which polls may begin.
    pub fn polls(&self) -> Polls {
        Polls { lifecycle: self.lifecycle.clone(), cordon: self.cordon.clone() }
    }

    /// Runs `work` until SIGTERM or SIGINT, and then until it has drained. `work` gets no signal: it follows the
    /// lifecycle.
    ///
    /// # Errors
    /// `work` failed, or the signals can't be caught.
    pub async fn run(self, work: impl AsyncFnOnce(&Self) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let drain = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            let timeout = self.limits.drain_timeout();
            tracing::info!(?timeout, "asked to end");
            self.lifecycle.drain(timeout).await;
            tracing::error!("some tasks did not end; their time-outs hand them to another Worker");
        };
        tokio::select! {
            result = work(&self) => result?,
            () = drain => {}
            () = self.cordon.keep() => {}
            () = self.encryption.keep() => {}
        }
        self.lifecycle.reach(Stage::Drained);
        self.ports.close().await;
        Ok(())
    }
}

/// The configuration, when there is one, and the limits, or the defaults.
///
/// # Errors
/// A file can't be read; names it, the line and the field.
pub fn files(config: Option<&Path>, limits: Option<&Path>) -> anyhow::Result<(Option<RuntimeConfig>, RuntimeLimits)> {
    let config = config.map(read).transpose()?;
    let limits = limits.filter(|path| path.exists()).map(read).transpose()?.unwrap_or_default();
    Ok((config, limits))
}

fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = std::fs::read(path).with_context(|| format!("file {} can't be read", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("file {} does not follow its format", path.display()))
}
