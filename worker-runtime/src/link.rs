//! The connection that everything in the process shares, made anew when its credentials change.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntGauge, Opts};
use temporalio_client::Connection;
use tokio::sync::watch;

use crate::connect;
use crate::credentials::{Credentials, NOTICE};
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::transport::Wire;

/// Time between two looks at the files: a new certificate or key counts within it.
const LOOK: Duration = Duration::from_secs(5);
/// Time between two notices that a certificate ends soon.
const REMIND: Duration = Duration::from_secs(24 * 3600);

/// The connection. Cheap to clone.
#[derive(Clone)]
pub struct Link {
    connection: watch::Receiver<Connection>,
}

/// Keeps a [`Link`] up to date.
pub struct Keeper {
    sender: watch::Sender<Connection>,
    settings: Settings,
    wire: Wire,
    used: Credentials,
    gauges: Gauges,
}

#[derive(Clone)]
struct Gauges {
    expiry: IntGauge,
    stale: IntGauge,
}

/// Connects, and tries again until it works.
///
/// # Errors
/// Two metrics share a name; a bug.
pub async fn open(settings: &Settings, wire: Wire, metrics: &Metrics) -> Result<(Link, Keeper), prometheus::Error> {
    let gauges = Gauges::new(settings, metrics)?;
    let (connection, used) = connect::connect(settings, &wire).await;
    gauges.see(&used);
    let (sender, receiver) = watch::channel(connection);
    let keeper = Keeper { sender, settings: settings.clone(), wire, used, gauges };
    Ok((Link { connection: receiver }, keeper))
}

impl Link {
    /// The connection as it is now.
    pub fn connection(&self) -> Connection {
        self.connection.borrow().clone()
    }

    /// Waits for another one.
    pub async fn renewed(&mut self) -> Connection {
        if self.connection.changed().await.is_err() {
            // Nobody is left who could make one.
            std::future::pending::<()>().await;
        }
        self.connection.borrow_and_update().clone()
    }
}

impl Keeper {
    /// Looks at the files again and again, and connects anew when they changed. Never returns.
    pub async fn keep(mut self) {
        let (mut said, mut reminded) = (None, None::<tokio::time::Instant>);
        loop {
            tokio::time::sleep(LOOK).await;
            let problem = self.look().await.err();
            self.gauges.stale.set(problem.is_some().into());
            if let Some(problem) = problem.as_ref().filter(|problem| said.as_ref() != Some(*problem)) {
                tracing::error!("the connection goes on with the credentials that it has: {problem}");
            }
            said = problem;
            let soon = self.used.left().filter(|left| *left < NOTICE);
            if let Some(left) = soon.filter(|_| reminded.is_none_or(|at| at.elapsed() >= REMIND)) {
                tracing::warn!(hours = left.as_secs() / 3600, "the client certificate ends soon; renew it");
                reminded = Some(tokio::time::Instant::now());
            }
        }
    }

    async fn look(&mut self) -> Result<(), String> {
        let credentials = Credentials::read(&self.settings).await?;
        if credentials == self.used {
            return Ok(());
        }
        let connected = connect::attempt(&self.settings, &credentials, &self.wire).await;
        let connection = connected.map_err(|error| error.to_string())?;
        tracing::info!("credentials changed: connected anew");
        self.gauges.see(&credentials);
        self.used = credentials;
        // What is under way on the old connection ends there.
        self.sender.send_replace(connection);
        Ok(())
    }
}

impl Gauges {
    fn new(settings: &Settings, metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| IntGauge::with_opts(Opts::new(name, help));
        let gauges = Self {
            expiry: gauge(
                "temporal_worker_runtime_client_certificate_expiry_timestamp_seconds",
                "End of the client certificate that is in use, in seconds since 1970.",
            )?,
            stale: gauge(
                "temporal_worker_runtime_credentials_stale",
                "1 while the credentials in the files can't be used, and older ones are.",
            )?,
        };
        if settings.tls.as_ref().is_some_and(|tls| tls.client.is_some()) {
            metrics.register(Box::new(gauges.expiry.clone()))?;
        }
        metrics.register(Box::new(gauges.stale.clone()))?;
        Ok(gauges)
    }

    fn see(&self, credentials: &Credentials) {
        self.expiry.set(credentials.expiry().unwrap_or(0));
    }
}

/// What follows a link: replaces the client of a core Worker with each new connection. Never returns.
pub async fn follow(
    mut link: Link,
    worker: Arc<temporalio_sdk_core::Worker>,
    prepare: impl Fn(Connection) -> Connection,
) {
    loop {
        let connection = prepare(link.renewed().await);
        if let Err(error) = worker.replace_client(connection) {
            tracing::error!(%error, "a Worker does not take the new connection, and goes on with the old one");
        }
    }
}
