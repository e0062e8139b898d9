//! Labels of namespaces, read by name and only where a ClusterConnection selects by them: again each minute.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use operator_core::border::{self, Border};
use parking_lot::Mutex;

use super::client::{CallError, bounded};

/// Time that labels are taken for unchanged.
const FRESH: Duration = Duration::from_secs(60);

/// Labels of a namespace.
pub type Labels = Arc<BTreeMap<String, String>>;

/// Labels of namespaces that were read lately.
pub struct Namespaces {
    client: Client,
    read: Mutex<HashMap<String, (Instant, Labels)>>,
}

impl Namespaces {
    /// An empty memory.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, read: Mutex::default() }
    }

    /// Labels of a namespace, at most a minute old.
    ///
    /// # Errors
    /// [`CallError`] when the API server could not be asked or refused.
    pub async fn labels(&self, namespace: &str) -> Result<Labels, CallError> {
        let key = border::within(Border::NamespaceLabels, namespace);
        if let Some((at, labels)) = self.read.lock().get(key)
            && at.elapsed() < FRESH
        {
            return Ok(labels.clone());
        }
        let api: Api<Namespace> = Api::all(self.client.clone());
        let found = bounded(api.get_metadata(namespace)).await?;
        let labels = Arc::new(found.metadata.labels.unwrap_or_default());
        let mut read = self.read.lock();
        read.retain(|_, (at, _)| at.elapsed() < FRESH);
        read.insert(key.to_owned(), (Instant::now(), labels.clone()));
        Ok(labels)
    }
}
