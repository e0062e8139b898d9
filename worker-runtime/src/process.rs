//! What the program and a library Worker share: start, signals, drain, exit.

use std::sync::Arc;
use std::time::Duration;

use temporalio_sdk_core::CoreRuntime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::cordon::Cordon;
use crate::core_metrics;
use crate::encryption::Encryption;
use crate::files::{Files, Paths, Told};
use crate::lifecycle::{Ended, Lifecycle, Stage};
use crate::metrics::Metrics;
use crate::options::Options;
use crate::orders::Orders;
use crate::probes::Ports;
use crate::settings::Settings;
use crate::slots;
use crate::transport::Wire;

/// Core says at level info what every Worker does at start and end.
const DEFAULT_LOGS: &str = "info,temporalio_sdk_core=warn,temporalio_client=warn";

/// How long a process that a hook has drained waits for the signal that follows.
const SIGNAL_FOLLOWS: Duration = Duration::from_secs(10);

/// The parts that every Worker process has.
pub struct Process {
    /// How to reach Temporal.
    pub settings: Settings,
    /// Where the files are.
    pub paths: Paths,
    /// What they say.
    pub told: watch::Sender<Told>,
    /// Metrics, served already.
    pub metrics: Metrics,
    /// Stage, shown by the probes already.
    pub lifecycle: Lifecycle,
    /// With what payloads are encrypted.
    pub encryption: Encryption,
    /// Whether it takes new tasks; orders are taken already.
    pub cordon: Cordon,
    /// What decides about calls.
    pub wire: Wire,
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
        let paths = Paths { config: options.config.clone(), limits: options.limits.clone() };
        let told = paths.read()?;
        let metrics = Metrics::new(settings.version.as_ref())?;
        let source = (&told.limits, options.limits.as_deref());
        let encryption = Encryption::start(&settings.namespace, source, &metrics)?;
        let wire = Wire::default();
        wire.set_compression(told.limits.grpc_compression);
        let (lifecycle, cordon) = (wire.lifecycle.clone(), wire.cordon.clone());
        let orders = Orders::new(settings.pod_uid.clone(), options.limits.clone(), cordon.clone(), &metrics)?;
        let ports = Ports::open(&options.addresses, metrics.clone(), &wire, orders).await?;
        let runtime = Arc::new(CoreRuntime::new_assume_tokio(core_metrics::runtime_options(&metrics)?)?);
        let told = watch::Sender::new(told);
        Ok(Self { settings, paths, told, metrics, lifecycle, encryption, cordon, wire, runtime, ports })
    }

    /// Watches the files.
    ///
    /// # Errors
    /// Two metrics share a name; a bug.
    pub fn files(&self) -> Result<Files, prometheus::Error> {
        Files::new(self.paths.clone(), self.told.borrow().clone(), &self.metrics, self.lifecycle.clone())
    }

    /// Takes over what the files say now, as far as it concerns the whole process.
    pub fn take_over(&self, files: &mut Files, told: Told) {
        self.wire.set_compression(told.limits.grpc_compression);
        self.told.send_replace(told.clone());
        files.accept(told);
    }

    /// How long polls may stay open in a drain.
    pub fn settle_limit(&self) -> Duration {
        slots::settle_limit(self.told.borrow().limits.drain_timeout())
    }

    /// Runs `work` until SIGTERM, SIGINT or a hook, and then until it has drained. `work` gets no signal: it follows the
    /// lifecycle.
    ///
    /// # Errors
    /// `work` failed, or the signals can't be caught.
    pub async fn run(self, work: impl AsyncFnOnce(&Self) -> anyhow::Result<()>) -> anyhow::Result<Ended> {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let signalled = CancellationToken::new();
        let wait = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            signalled.cancel();
            tracing::info!("asked to end");
            self.lifecycle.reach(Stage::Draining);
            std::future::pending::<()>().await;
        };
        let drain = async {
            self.lifecycle.reached(Stage::Draining).await;
            let timeout = self.told.borrow().limits.drain_timeout();
            self.lifecycle.drain(timeout).await;
            tracing::error!("some tasks did not end; their time-outs hand them to another Worker");
        };
        let work = async {
            tokio::select! {
                result = work(&self) => result.map(|()| self.ended()),
                () = drain => Ok(Ended::Abandoned),
                () = self.cordon.keep() => Ok(Ended::Drained),
                () = self.encryption.keep() => Ok(Ended::Drained),
                () = self.wire.roll.keep() => Ok(Ended::Drained),
            }
        };
        let ended = async {
            let ended = work.await?;
            self.lifecycle.reach(Stage::Drained);
            // A pod's end begins with its hook: the signal follows.
            let _ = tokio::time::timeout(SIGNAL_FOLLOWS, signalled.cancelled()).await;
            anyhow::Ok(ended)
        };
        let ended = tokio::select! {
            ended = ended => ended?,
            () = wait => Ended::Drained,
        };
        self.ports.close().await;
        Ok(ended)
    }

    fn ended(&self) -> Ended {
        if self.lifecycle.abandon_tasks().is_cancelled() { Ended::Cancelled } else { Ended::Drained }
    }
}
