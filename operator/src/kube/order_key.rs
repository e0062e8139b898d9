//! The private key of the operator's orders to pods, in one Secret of its own namespace.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use operator_core::backoff::{Backoff, RetryClass};
use operator_core::cordon::{OrderKey, SEED_LENGTH};
use operator_core::names::ORDER_KEY_SECRET;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::client::{CallError, bounded};
use super::lease::Leadership;

/// Key of the Secret's data.
const SEED: &str = "seed";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
enum KeyError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("its data {SEED:?} is not {SEED_LENGTH} bytes; delete the Secret, and the operator makes another")]
    Malformed,
    #[error("this replica is not the leader")]
    NotLeader,
}

/// The key, read by name, and made once by the leader.
pub struct OrderKeys {
    api: Api<Secret>,
    namespace: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    key: Option<OrderKey>,
    backoff: Backoff,
    next_try: Option<Instant>,
}

impl OrderKeys {
    /// The key in a Kubernetes namespace; nothing is read yet.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        let api = Api::namespaced(client, namespace);
        Self { api, namespace: namespace.to_owned(), state: Mutex::default() }
    }

    /// The key; none while it can't be had, which is tried again with growing waits. Without it no pod is cordoned.
    pub async fn get(&self, leadership: &Leadership) -> Option<OrderKey> {
        // Held while the key is read, so that it is read once.
        let mut state = self.state.lock().await;
        if state.key.is_some() || state.next_try.is_some_and(|at| Instant::now() < at) {
            return state.key.clone();
        }
        match self.read_or_make(leadership).await {
            Ok(key) => *state = State { key: Some(key), ..State::default() },
            Err(error) => {
                let (backoff, wait) = state.backoff.next(RetryClass::RateLimited, rand::random());
                (state.backoff, state.next_try) = (backoff, Some(Instant::now() + wait));
                let (name, namespace) = (ORDER_KEY_SECRET, &self.namespace);
                tracing::warn!(name, namespace, %error, wait = ?Duration::from_secs(wait.as_secs()), "the Secret with the key of orders to pods can't be had; no pod is cordoned");
            }
        }
        state.key.clone()
    }

    async fn read_or_make(&self, leadership: &Leadership) -> Result<OrderKey, KeyError> {
        if let Some(secret) = bounded(self.api.get_opt(ORDER_KEY_SECRET)).await? {
            return key(&secret);
        }
        let _permit = leadership.permit().await.ok_or(KeyError::NotLeader)?;
        let made = secret(rand::random());
        match bounded(self.api.create(&PostParams::default(), &made)).await {
            Ok(secret) => key(&secret),
            // Somebody else was first: theirs counts.
            Err(error) => match bounded(self.api.get_opt(ORDER_KEY_SECRET)).await? {
                Some(secret) => key(&secret),
                None => Err(error.into()),
            },
        }
    }
}

fn key(secret: &Secret) -> Result<OrderKey, KeyError> {
    let seed = secret.data.as_ref().and_then(|data| data.get(SEED));
    seed.and_then(|seed| OrderKey::from_seed(&seed.0)).ok_or(KeyError::Malformed)
}

fn secret(seed: [u8; SEED_LENGTH]) -> Secret {
    Secret {
        metadata: ObjectMeta { name: Some(ORDER_KEY_SECRET.to_owned()), ..ObjectMeta::default() },
        data: Some(BTreeMap::from([(SEED.to_owned(), ByteString(seed.to_vec()))])),
        immutable: Some(true),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_holds_the_key() {
        let expected = OrderKey::from_seed(&[5; SEED_LENGTH]).map(|key| key.public());
        assert_eq!(key(&secret([5; SEED_LENGTH])).ok().map(|key| key.public()), expected);
    }

    #[test]
    fn a_secret_that_somebody_else_filled_is_named_with_its_remedy() {
        let mut other = secret([5; SEED_LENGTH]);
        other.data = Some(BTreeMap::from([(SEED.to_owned(), ByteString(b"short".to_vec()))]));
        let message = key(&other).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(message.contains("\"seed\" is not 32 bytes; delete the Secret"), "{message}");
    }
}
