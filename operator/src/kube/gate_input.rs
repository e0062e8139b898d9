//! The argument of a test Workflow, from a ConfigMap or Secret of the fleet's own namespace.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use operator_core::border::{self, Border};
use operator_core::names::is_object_name;
use operator_core::rollout::gate::{Input, Key};
use serde::de::IgnoredAny;

use super::client::{CallError, bounded};
use super::secrets::Secrets;

/// JSON text. No `Debug`: it may be a Secret's.
pub struct Argument(pub Vec<u8>);

/// Why there is no argument.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The user must change something.
    #[error("{0}")]
    Unusable(String),
    /// The API server could not be asked.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Reads the argument; none where there is none to be, or what is optional is missing. What a Secret holds is in no message.
///
/// # Errors
/// [`InputError`].
pub async fn read(
    client: &Client,
    secrets: &Secrets,
    namespace: &str,
    input: &Input,
) -> Result<Option<Argument>, InputError> {
    let (kind, key, found) = match input {
        Input::Nothing => return Ok(None),
        Input::Json(value) => return Ok(Some(Argument(value.to_string().into_bytes()))),
        Input::ConfigMap(key) => ("ConfigMap", key, config_map(client, namespace, key).await?),
        Input::Secret(key) => ("Secret", key, secret(secrets, namespace, key).await?),
    };
    match found {
        Found::Value(text) => json(kind, key, text).map(Some),
        _ if key.optional => Ok(None),
        Found::NoObject => Err(InputError::Unusable(format!(
            "{kind} {:?} of its inputFrom does not exist in namespace {namespace}; create it.",
            key.name
        ))),
        Found::NoKey => Err(InputError::Unusable(format!(
            "{kind} {:?} of its inputFrom has no key {:?}; add it.",
            key.name, key.key
        ))),
    }
}

enum Found {
    Value(Vec<u8>),
    NoKey,
    NoObject,
}

async fn config_map(client: &Client, namespace: &str, key: &Key) -> Result<Found, CallError> {
    if border::stands(Border::ObjectName) && !is_object_name(&key.name) {
        return Ok(Found::NoObject);
    }
    #[cfg(feature = "breach")]
    let namespace = &super::breach::home::<ConfigMap>(client, Border::GateInput, (namespace, &key.name)).await;
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let Some(map) = bounded(api.get_opt(&key.name)).await? else { return Ok(Found::NoObject) };
    let text = map.data.unwrap_or_default().remove(&key.key).map(String::into_bytes);
    let text = text.or_else(|| map.binary_data.unwrap_or_default().remove(&key.key).map(|bytes| bytes.0));
    Ok(text.map_or(Found::NoKey, Found::Value))
}

async fn secret(secrets: &Secrets, namespace: &str, key: &Key) -> Result<Found, CallError> {
    let Some(mut secret) = secrets.get(namespace, &key.name, true).await? else { return Ok(Found::NoObject) };
    Ok(secret.data.remove(&key.key).map_or(Found::NoKey, Found::Value))
}

fn json(kind: &str, key: &Key, text: Vec<u8>) -> Result<Argument, InputError> {
    match serde_json::from_slice::<IgnoredAny>(&text) {
        Ok(_) => Ok(Argument(text)),
        Err(_) => Err(InputError::Unusable(format!(
            "{kind} {:?} of its inputFrom: key {:?} holds no JSON text; put the argument there as JSON, a text in quotes.",
            key.name, key.key
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_json_text_is_refused_by_its_place_and_never_quoted() {
        let key = Key { name: "gate".into(), key: "argument".into(), optional: false };
        let read = |text: &str| json("Secret", &key, text.into()).map(|argument| argument.0);
        for good in ["null", " {\"a\": [1]}\n", "\"text\""] {
            assert_eq!(read(good).ok().as_deref(), Some(good.as_bytes()));
        }
        for bad in ["", "s3cret", "{\"a\": s3cret}", "1 2"] {
            let Err(error) = read(bad) else { panic!("{bad:?} is taken") };
            let error = error.to_string();
            assert!(error.contains("Secret \"gate\"") && error.contains("\"argument\""), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
