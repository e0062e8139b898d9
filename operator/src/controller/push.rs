//! What the push endpoint needs: fleets of the caches, the key, the Lease, and the poller that a hint goes to.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use backon::{ExponentialBuilder, Retryable as _};
use futures::StreamExt as _;
use kube::{Client, ResourceExt as _};
use operator_core::api::WorkerDeployment;
use operator_core::names::PUSH_TOKEN_SERIAL_ANNOTATION;
use operator_core::push_token::{PushKey, serial_of};
use tokio::net::TcpListener;

use super::Shared;
use crate::kube::lease::Leadership;
use crate::kube::push_key::{self, KeyError};
use crate::push::{self, Backend, Endpoint, Fleet, Leader, Metrics, Relay, Transport};
use crate::settings::PushListen;

/// The first and the longest pause between tries to have a key.
const KEY_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The operator, as the endpoint sees it.
pub struct Operator {
    /// Client for work.
    pub client: Client,
    /// Who leads.
    pub leadership: Arc<Leadership>,
    /// Caches, Secrets and the poller.
    pub shared: Arc<Shared>,
    /// Kubernetes namespace of the operator.
    pub namespace: String,
}

/// Serves the endpoint if there is one.
///
/// # Errors
/// It can't be listened, or the certificate can't be used.
pub async fn run(operator: Operator, listen: Option<PushListen>, metrics: Metrics) -> anyhow::Result<()> {
    let Some(PushListen { address, tls }) = listen else { return std::future::pending().await };
    let transport = match tls {
        Some(directory) => Transport::Tls(push::tls::Certificate::read(&directory)?),
        None => Transport::Plain,
    };
    let listener = TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))?;
    let operator = Arc::new(operator);
    let endpoint = Endpoint::new(operator.clone(), Relay::over(transport.clone()), metrics);
    tracing::info!(%address, tls = matches!(transport, Transport::Tls(_)), "push endpoint");
    tokio::select! {
        result = push::serve(endpoint, listener, transport) => result,
        () = operator.prepare_key() => Ok(()),
    }
}

impl Backend for Operator {
    fn fleet(&self, namespace: &str, name: &str) -> Option<Fleet> {
        let found = self.shared.directory.find(namespace, name)?;
        found.0.as_ref().ok().and_then(fleet)
    }

    async fn key(&self) -> Result<PushKey, String> {
        self.read_key().await.map_err(|error| error.to_string())
    }

    fn leader(&self) -> Leader {
        if self.leadership.may_write() {
            return Leader::Here;
        }
        self.leadership.push_address_of_leader().map_or(Leader::Nobody, Leader::At)
    }

    fn hint(&self, fleet_uid: &str) {
        self.shared.poller.hint(&fleet_uid.into());
    }
}

impl Operator {
    /// Once this replica leads, sees to it that there is a key to print tokens with. Never ends.
    async fn prepare_key(&self) {
        Box::pin(self.leadership.clone().gained()).next().await;
        let backoff = ExponentialBuilder::new()
            .with_min_delay(KEY_RETRY.0)
            .with_max_delay(KEY_RETRY.1)
            .without_max_times()
            .with_jitter();
        let read = async || self.read_key().await.map(|_| ());
        let told = |error: &KeyError, _| tracing::warn!(%error, "the key of push tokens can't be had");
        let _ = read.retry(backoff).notify(told).await;
        std::future::pending().await
    }

    async fn read_key(&self) -> Result<PushKey, KeyError> {
        let secrets = &self.shared.secrets;
        match push_key::read(secrets, &self.namespace, false).await {
            Err(KeyError::Missing(_)) => {}
            read => return read,
        }
        if let Some(_permit) = self.leadership.permit().await {
            push_key::create(&self.client, &self.namespace).await?;
        }
        push_key::read(secrets, &self.namespace, true).await
    }
}

fn fleet(wd: &WorkerDeployment) -> Option<Fleet> {
    let annotation = wd.annotations().get(PUSH_TOKEN_SERIAL_ANNOTATION).map(String::as_str);
    let scaling = wd.status.as_ref().and_then(|status| status.scaling.as_ref());
    Some(Fleet {
        uid: wd.uid()?,
        serial: serial_of(annotation),
        replicas: scaling.and_then(|scaling| scaling.current).unwrap_or(0),
    })
}
