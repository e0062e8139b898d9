//! Two clients: one for work, and one for the Lease that nothing else can hold up.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::settings::KUBE_CALL_DEADLINE;

/// Watches are ended by the server after five minutes; a silent one is dead a little later.
const WATCH_SILENCE: Duration = Duration::from_secs(310);
/// A renewal that takes longer than this is worth a second try.
const LEASE_DEADLINE: Duration = Duration::from_secs(4);

/// Makes the client for work and the one for the Lease.
///
/// # Errors
/// When neither the cluster's own configuration nor a kubeconfig is found, or it can't be used.
pub async fn clients() -> anyhow::Result<(Client, Client)> {
    clients_of(None).await
}

/// The same by a kubeconfig, if one is named.
///
/// # Errors
/// As [`clients`], or the file can't be read.
pub async fn clients_of(kubeconfig: Option<&Path>) -> anyhow::Result<(Client, Client)> {
    let mut config = match kubeconfig {
        Some(file) => {
            let read = Kubeconfig::read_from(file).with_context(|| format!("--kubeconfig {}", file.display()))?;
            Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?
        }
        None => Config::infer().await?,
    };
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(WATCH_SILENCE);
    config.write_timeout = Some(KUBE_CALL_DEADLINE);
    let mut lease = config.clone();
    lease.read_timeout = Some(LEASE_DEADLINE);
    lease.default_retry = false;
    Ok((Client::try_from(config)?, Client::try_from(lease)?))
}

/// Bounds one call to the API server.
///
/// # Errors
/// The call's own, or one that says that no answer came in time.
pub async fn bounded<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, CallError> {
    match tokio::time::timeout(KUBE_CALL_DEADLINE, call).await {
        Ok(result) => result.map_err(CallError::from),
        Err(_) => Err(CallError::Timeout),
    }
}

/// Why a call to the API server failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The API server or the transport said so.
    #[error("{}", said(.0))]
    Api(#[from] Box<kube::Error>),
    /// No answer in time.
    #[error("the API server did not answer within {} s", KUBE_CALL_DEADLINE.as_secs())]
    Timeout,
}

impl From<kube::Error> for CallError {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

impl CallError {
    fn is(&self, test: impl Fn(&kube::core::Status) -> bool) -> bool {
        matches!(self, Self::Api(error) if matches!(&**error, kube::Error::Api(status) if test(status)))
    }

    /// Whether the object does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.is(is_not_found)
    }

    /// Whether the object changed meanwhile.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.is(kube::core::Status::is_conflict)
    }

    /// Whether the operator may not do this.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        self.is(kube::core::Status::is_forbidden)
    }

    /// Whether the API server refuses the object as it is.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        self.is(kube::core::Status::is_invalid)
    }
}

/// Whether something does not exist: an object, or its kind, of which the API server says so without a reason.
#[must_use]
pub fn is_not_found(status: &kube::core::Status) -> bool {
    status.is_not_found() || status.code == 404
}

/// What the API server said, without the structure around it.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => format!("{} ({})", status.message, status.reason),
        other => other.to_string(),
    }
}
