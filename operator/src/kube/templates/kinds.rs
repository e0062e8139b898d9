//! The kinds of copies, as the API server has them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use kube::api::{ApiResource, GroupVersionKind};
use kube::discovery::{Scope, pinned_kind};
use kube::{Client, Error};
use parking_lot::Mutex;

use crate::kube::client::{CallError, bounded};

/// Time that what a kind is counts.
const FRESH: Duration = Duration::from_secs(600);

/// Why there can be no copy of a kind.
#[derive(Debug, thiserror::Error)]
pub enum KindError {
    /// The API server does not have it.
    #[error("the API server has no kind {1} of {0}")]
    Missing(String, String),
    /// It is none of a namespace.
    #[error("{1} of {0} is a kind of the cluster; a template may only have one of a namespace")]
    OfCluster(String, String),
    /// The API server could not be asked.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Kinds that were asked for lately.
pub struct Kinds {
    client: Client,
    known: Mutex<HashMap<(String, String), (Instant, ApiResource)>>,
}

impl Kinds {
    /// An empty memory.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, known: Mutex::default() }
    }

    /// A kind of a namespace.
    ///
    /// # Errors
    /// [`KindError`].
    pub async fn of(&self, api_version: &str, kind: &str) -> Result<ApiResource, KindError> {
        let key = (api_version.to_owned(), kind.to_owned());
        if let Some((at, resource)) = self.known.lock().get(&key)
            && at.elapsed() < FRESH
        {
            return Ok(resource.clone());
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let asked = bounded(pinned_kind(&self.client, &GroupVersionKind::gvk(group, version, kind))).await;
        let (resource, capabilities) = match asked {
            Err(error) if is_missing(&error) => return Err(KindError::Missing(key.0, key.1)),
            asked => asked?,
        };
        if capabilities.scope != Scope::Namespaced {
            return Err(KindError::OfCluster(key.0, key.1));
        }
        let mut known = self.known.lock();
        known.retain(|_, (at, _)| at.elapsed() < FRESH);
        known.insert(key, (Instant::now(), resource.clone()));
        Ok(resource)
    }
}

/// Whether the answer was that there is no such kind.
fn is_missing(error: &CallError) -> bool {
    error.is_not_found() || matches!(error, CallError::Api(error) if matches!(**error, Error::Discovery(_)))
}
