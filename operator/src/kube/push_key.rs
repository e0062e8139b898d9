//! The Secret with the key of push tokens, in the operator's own namespace.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use operator_core::names::{FIELD_MANAGER, PUSH_KEY_SECRET};
use operator_core::push_token::{Invalid, KEY_BYTES, PushKey};

use super::client::{CallError, bounded};
use super::secrets::Secrets;

/// Key of its data.
const DATA: &str = "key";

/// Why the key can't be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The API server could not be asked, or refused.
    #[error("Secret {PUSH_KEY_SECRET:?}: {0}")]
    Call(#[from] CallError),
    /// The Secret is not there.
    #[error(
        "Secret {PUSH_KEY_SECRET:?} does not exist in namespace {0:?}; an operator with the push endpoint creates it"
    )]
    Missing(String),
    /// The Secret has no key in it.
    #[error("Secret {PUSH_KEY_SECRET:?}: {0}, under key {DATA:?} of its data; delete it, and a new one is created")]
    Invalid(#[from] Invalid),
}

/// Reads the key. It is read again each minute, so that a changed or deleted Secret revokes what it signed.
///
/// # Errors
/// [`KeyError`].
pub async fn read(secrets: &Secrets, namespace: &str, again: bool) -> Result<PushKey, KeyError> {
    let secret = secrets.get(namespace, PUSH_KEY_SECRET, again).await?;
    let secret = secret.ok_or_else(|| KeyError::Missing(namespace.to_owned()))?;
    Ok(PushKey::new(secret.data.get(DATA).map(Vec::as_slice).unwrap_or_default())?)
}

/// Creates the Secret with a new key. One that somebody else created meanwhile stands.
///
/// # Errors
/// [`KeyError::Call`].
pub async fn create(client: &Client, namespace: &str) -> Result<(), KeyError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let key: [u8; KEY_BYTES] = rand::random();
    let secret = Secret {
        metadata: ObjectMeta { name: Some(PUSH_KEY_SECRET.into()), ..ObjectMeta::default() },
        type_: Some("Opaque".into()),
        data: Some([(DATA.to_owned(), ByteString(key.to_vec()))].into()),
        ..Secret::default()
    };
    let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
    match bounded(api.create(&params, &secret)).await {
        Err(error) if !error.is_conflict() => Err(error.into()),
        _ => Ok(()),
    }
}
