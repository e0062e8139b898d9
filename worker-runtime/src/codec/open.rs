//! Decryption.

use std::collections::BTreeSet;
use std::sync::Arc;

use prost::Message as _;
use ring::aead::{Aad, Nonce};

use super::error::shown;
use super::keys::Key;
use super::{
    Bound, CodecError, ENCODING, ENCRYPTED, FORMAT, FORMAT_1, KEY_ID, KeyRing, NAMESPACE, NONCE_LENGTH, Payload,
    TAG_LENGTH, is_encrypted,
};

/// What is read beside format 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    #[default]
    Require,
    /// Payloads that are not encrypted, and those in the format of the official samples.
    Migrate,
}

/// Decrypts the payloads that a process of one Temporal namespace gets.
#[derive(Debug)]
pub struct Opener {
    keys: Arc<KeyRing>,
    mode: Mode,
    namespaces: BTreeSet<String>,
}

impl Opener {
    /// Decrypts with all of `keys` what was encrypted in Temporal namespace `own`, or in one of `others`.
    pub fn new(keys: Arc<KeyRing>, mode: Mode, own: &str, others: impl IntoIterator<Item = String>) -> Self {
        Self { keys, mode, namespaces: others.into_iter().chain([own.to_owned()]).collect() }
    }

    /// The payload that `payload` holds. In [`Mode::Migrate`], one that is not encrypted comes back as it was.
    ///
    /// # Errors
    /// `payload` is refused, or can't be decrypted; says why, and what to do.
    pub fn open(&self, payload: Payload) -> Result<Payload, CodecError> {
        if !is_encrypted(&payload) {
            return self.plain(payload);
        }
        self.opened(payload).map(|(_, payload)| payload)
    }

    /// The same of a payload that is serialised, and need not be of this release: all of what it holds is kept. None when it is
    /// not encrypted, and read as it is.
    ///
    /// # Errors
    /// As [`Self::open`]; or it is no payload.
    pub fn open_encoded(&self, encoded: &[u8]) -> Result<Option<Vec<u8>>, CodecError> {
        let payload = Payload::decode(encoded).map_err(|_| CodecError::Unreadable)?;
        if !is_encrypted(&payload) {
            return self.plain(payload).map(|_| None);
        }
        self.opened(payload).map(|(serialised, _)| Some(serialised))
    }

    /// What an encrypted payload holds, serialised and not.
    fn opened(&self, payload: Payload) -> Result<(Vec<u8>, Payload), CodecError> {
        match payload.metadata.get(FORMAT).map(Vec::as_slice) {
            Some(FORMAT_1) => self.format_1(payload),
            Some(other) => Err(CodecError::UnknownFormat { format: shown(other) }),
            None => self.unversioned(payload),
        }
    }

    fn plain(&self, payload: Payload) -> Result<Payload, CodecError> {
        let encoding = || shown(payload.metadata.get(ENCODING).map(Vec::as_slice).unwrap_or_default());
        match self.mode {
            Mode::Require => Err(CodecError::NotEncrypted { encoding: encoding() }),
            // The encoding of an encrypted payload that was changed must not make ciphertext a value.
            Mode::Migrate if payload.metadata.contains_key(FORMAT) => {
                Err(CodecError::Mislabelled { encoding: encoding() })
            }
            Mode::Migrate => Ok(payload),
        }
    }

    fn format_1(&self, payload: Payload) -> Result<(Vec<u8>, Payload), CodecError> {
        let namespace = payload.metadata.get(NAMESPACE).ok_or_else(|| CodecError::namespace("is missing"))?;
        let named = std::str::from_utf8(namespace).map_err(|_| CodecError::namespace("is not UTF-8"))?;
        if !self.namespaces.contains(named) {
            let allowed = self.namespaces.iter().cloned().collect();
            return Err(CodecError::ForeignNamespace { namespace: shown(namespace), allowed });
        }
        let key = self.key(&payload)?;
        let bound = Bound { format: FORMAT_1, key_id: key.id.as_bytes(), encoding: ENCRYPTED, namespace };
        decrypt(key, &bound.canonical(), payload.data)
    }

    fn unversioned(&self, payload: Payload) -> Result<(Vec<u8>, Payload), CodecError> {
        match self.mode {
            Mode::Require => {
                let key_id = payload.metadata.get(KEY_ID).map(Vec::as_slice).unwrap_or_default();
                Err(CodecError::Unversioned { key_id: shown(key_id) })
            }
            Mode::Migrate => decrypt(self.key(&payload)?, &[], payload.data),
        }
    }

    /// The key that `payload` names. Its id is, byte for byte, the value of the metadata.
    fn key(&self, payload: &Payload) -> Result<&Key, CodecError> {
        let named = payload.metadata.get(KEY_ID).ok_or_else(|| CodecError::key_id("is missing"))?;
        let id = std::str::from_utf8(named).map_err(|_| CodecError::key_id("is not UTF-8"))?;
        self.keys.get(id).ok_or_else(|| CodecError::UnknownKey { key_id: shown(named), known: self.keys.ids() })
    }
}

/// The payload in `data`, which is nonce, ciphertext and tag, serialised and not.
fn decrypt(key: &Key, associated: &[u8], mut data: Vec<u8>) -> Result<(Vec<u8>, Payload), CodecError> {
    let key_id = || key.id.clone();
    let length = data.len();
    let (nonce, sealed) = data
        .split_first_chunk_mut::<NONCE_LENGTH>()
        .filter(|(_, sealed)| sealed.len() >= TAG_LENGTH)
        .ok_or_else(|| CodecError::Truncated { key_id: key_id(), length })?;
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let opened = key.aead.open_in_place(nonce, Aad::from(associated), sealed);
    let end = NONCE_LENGTH + opened.map_err(|_| CodecError::NotAuthentic { key_id: key_id() })?.len();
    data.truncate(end);
    data.drain(..NONCE_LENGTH);
    let payload = Payload::decode(&*data).map_err(|_| CodecError::NoPayload { key_id: key_id() })?;
    Ok((data, payload))
}
