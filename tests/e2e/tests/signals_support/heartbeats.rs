//! A pod without metrics, as the operator knows it by the heartbeats of its Workers.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use operator_core::observed::{Observation, PodLoad};
use prometheus::Registry;
use temporal_worker_operator::changes::Changes;
use temporal_worker_operator::temporal::{
    ConnectionSpec, Credentials, Heartbeats, Limits, Metrics, Need, Pool, PoolKey,
};
use tokio::time::Instant;

use super::SOON;
use crate::runtime_support::{NAMESPACE, Server, wait_for};

/// A fleet with a pod that is this machine, and another one that is nowhere.
pub struct Unread {
    heartbeats: Arc<Heartbeats>,
    pod: String,
}

impl Unread {
    pub fn watch(server: &Server) -> Result<Self> {
        let pool = Pool::new(Limits::default(), Metrics::register(&Registry::new())?);
        let key = PoolKey {
            kubernetes_namespace: "tests".into(),
            connection_uid: "main".into(),
            connection_generation: 1,
            secret: None,
            ca_secret: None,
        };
        let host_port = server.temporal.host_port();
        let spec = ConnectionSpec { host_port, server_name: None, credentials: Credentials::None, ca_cert: None };
        let heartbeats = Heartbeats::new(Changes::new());
        let pod = nix::unistd::gethostname()?.to_string_lossy().into_owned();
        heartbeats.set(Need {
            fleet: "fleet".into(),
            namespace: NAMESPACE.into(),
            connection: pool.connect(key, &spec)?,
            deployment_name: None,
            pods: BTreeMap::from([(pod.clone(), None), ("another-pod".to_owned(), None)]),
        });
        Ok(Self { heartbeats, pod })
    }

    /// What is known of the pod that is nowhere.
    pub fn another(&self) -> Observation<PodLoad> {
        self.load("another-pod")
    }

    /// What is known of this machine.
    pub fn own(&self) -> Observation<PodLoad> {
        self.load(&self.pod)
    }

    fn load(&self, pod: &str) -> Observation<PodLoad> {
        self.heartbeats.load(&"fleet".into(), pod, Instant::now())
    }

    /// Waits until something is known of this machine.
    pub async fn when(&self, what: &str, holds: impl Fn(&Observation<PodLoad>) -> bool) -> Observation<PodLoad> {
        wait_for(what, SOON, async || Some(self.own()).filter(&holds)).await
    }
}
