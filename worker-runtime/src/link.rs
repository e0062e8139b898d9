//! The connection that everything in the process shares, made anew when its credentials change.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntGauge, Opts};
use temporalio_client::Connection;
use tokio::sync::watch;
use tonic::codegen::http::HeaderValue;
use tonic::transport::Channel;

use crate::connect::{self, Opened};
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
pub struct Link(watch::Receiver<Open>);

/// A connection, and what its calls bring along.
#[derive(Clone)]
struct Open {
    opened: Opened,
    authorization: Option<HeaderValue>,
}

/// Keeps a [`Link`] up to date.
pub struct Keeper {
    sender: watch::Sender<Open>,
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
    let (opened, used) = connect::connect(settings, &wire).await;
    gauges.see(&used);
    let (sender, receiver) = watch::channel(Open::new(opened, &used));
    let keeper = Keeper { sender, settings: settings.clone(), wire, used, gauges };
    Ok((Link(receiver), keeper))
}

impl Open {
    fn new(opened: Opened, credentials: &Credentials) -> Self {
        // One that is no header value did not connect.
        let bearer = |key: &String| HeaderValue::try_from(format!("Bearer {key}")).ok();
        let authorization = credentials.api_key.as_ref().and_then(bearer).map(|mut value| {
            value.set_sensitive(true);
            value
        });
        Self { opened, authorization }
    }
}

impl Link {
    /// The connection as it is now.
    pub fn connection(&self) -> Connection {
        self.0.borrow().opened.connection.clone()
    }

    /// What is under it, with the value of the header that the server knows the caller by.
    pub fn channel(&self) -> (Channel, Option<HeaderValue>) {
        let open = self.0.borrow();
        (open.opened.channel.clone(), open.authorization.clone())
    }

    /// Waits for another one.
    pub async fn renewed(&mut self) -> Connection {
        if self.0.changed().await.is_err() {
            // Nobody is left who could make one.
            std::future::pending::<()>().await;
        }
        self.0.borrow_and_update().opened.connection.clone()
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
        let opened = connected.map_err(|error| error.to_string())?;
        tracing::info!("credentials changed: connected anew");
        self.gauges.see(&credentials);
        // What is under way on the old connection ends there.
        self.sender.send_replace(Open::new(opened, &credentials));
        self.used = credentials;
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
