//! Secrets, read by name only: again each minute, and at once when the server refused what they hold.
//!
//! They are never listed or watched: either would show the operator every Secret of its namespaces.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use operator_core::border::{self, Border};
use operator_core::names::is_object_name;
use parking_lot::Mutex;

use super::client::{CallError, bounded};

/// Time that a Secret is taken for unchanged.
const FRESH: Duration = Duration::from_secs(60);

/// A Secret as it was read. No `Debug`: it holds credentials.
#[derive(Clone)]
pub struct SecretData {
    /// Its UID.
    pub uid: String,
    /// Its version.
    pub resource_version: String,
    /// Its type.
    pub kind: String,
    /// Its data.
    pub data: BTreeMap<String, Vec<u8>>,
}

/// When a Secret was read, and what was found.
type Read = (Instant, Option<SecretData>);

/// Secrets that were read lately.
pub struct Secrets {
    client: Client,
    read: Mutex<HashMap<(String, String), Read>>,
}

impl Secrets {
    /// An empty memory.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, read: Mutex::default() }
    }

    /// A Secret; `None` when it does not exist, as under what is no name. `again` reads it even if it was read lately.
    ///
    /// # Errors
    /// [`CallError`] when the API server could not be asked or refused.
    pub async fn get(&self, namespace: &str, name: &str, again: bool) -> Result<Option<SecretData>, CallError> {
        if border::stands(Border::ObjectName) && !is_object_name(name) {
            return Ok(None);
        }
        let key = (border::within(Border::SecretCache, namespace).to_owned(), name.to_owned());
        if let Some((at, secret)) = self.read.lock().get(&key)
            && !again
            && at.elapsed() < FRESH
            && secret.is_some()
        {
            return Ok(secret.clone());
        }
        #[cfg(feature = "breach")]
        let namespace = &super::breach::home::<Secret>(&self.client, Border::SecretNamespace, (namespace, name)).await;
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let secret = bounded(api.get_opt(name)).await?.map(|secret| SecretData {
            uid: secret.metadata.uid.unwrap_or_default(),
            resource_version: secret.metadata.resource_version.unwrap_or_default(),
            kind: secret.type_.unwrap_or_default(),
            data: secret.data.unwrap_or_default().into_iter().map(|(key, bytes)| (key, bytes.0)).collect(),
        });
        let mut read = self.read.lock();
        read.retain(|_, (at, _)| at.elapsed() < FRESH * 10);
        read.insert(key, (Instant::now(), secret.clone()));
        Ok(secret)
    }
}
