//! Encryption.

use std::sync::Arc;

use prost::Message as _;
use ring::aead::{Aad, Nonce};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::keys::Key;
use super::{
    Bound, CodecError, ENCODING, ENCRYPTED, FORMAT, FORMAT_1, KEY_ID, KeyRing, NAMESPACE, NONCE_LENGTH, Payload,
    TAG_LENGTH, is_encrypted,
};

/// Encrypts payloads of one Temporal namespace.
#[derive(Debug)]
pub struct Sealer {
    keys: Arc<KeyRing>,
    namespace: String,
    random: SystemRandom,
}

impl Sealer {
    /// Encrypts with the write key of `keys`, for Temporal `namespace`.
    pub fn new(keys: Arc<KeyRing>, namespace: impl Into<String>) -> Self {
        Self { keys, namespace: namespace.into(), random: SystemRandom::new() }
    }

    /// `payload` in format 1. One that is encrypted already comes back as it was.
    ///
    /// # Errors
    /// The key has encrypted [`super::MAX_ENCRYPTIONS`] payloads, the system has no random bytes, or `payload` is too
    /// long.
    pub fn seal(&self, payload: Payload) -> Result<Payload, CodecError> {
        if is_encrypted(&payload) {
            return Ok(payload);
        }
        self.seal_serialised(payload.encoded_len(), |data| payload.encode_raw(data))
    }

    /// The same of a payload that is serialised, and need not be of this release: all of it is kept. None when it is encrypted
    /// already.
    ///
    /// # Errors
    /// As [`Self::seal`]; or it is no payload.
    pub fn seal_encoded(&self, encoded: &[u8]) -> Result<Option<Payload>, CodecError> {
        if is_encrypted(&Payload::decode(encoded).map_err(|_| CodecError::Unreadable)?) {
            return Ok(None);
        }
        self.seal_serialised(encoded.len(), |data| data.extend_from_slice(encoded)).map(Some)
    }

    fn seal_serialised(&self, length: usize, write: impl FnOnce(&mut Vec<u8>)) -> Result<Payload, CodecError> {
        let key = self.keys.write();
        if !key.count_encryption() {
            return Err(CodecError::Exhausted { key_id: key.id.clone() });
        }
        let mut nonce = [0; NONCE_LENGTH];
        self.random.fill(&mut nonce).map_err(|_| CodecError::NoRandomness)?;
        let mut data = Vec::with_capacity(NONCE_LENGTH + length + TAG_LENGTH);
        data.extend_from_slice(&nonce);
        write(&mut data);
        encrypt(key, nonce, &self.namespace, &mut data)?;
        let metadata = [
            (ENCODING, ENCRYPTED),
            (KEY_ID, key.id.as_bytes()),
            (FORMAT, FORMAT_1),
            (NAMESPACE, self.namespace.as_bytes()),
        ];
        let metadata = metadata.map(|(name, value)| (name.to_owned(), value.to_vec())).into();
        Ok(Payload { metadata, data, ..Payload::default() })
    }
}

/// Encrypts what follows the nonce in `data`, and appends the tag.
fn encrypt(key: &Key, nonce: [u8; NONCE_LENGTH], namespace: &str, data: &mut Vec<u8>) -> Result<(), CodecError> {
    let associated =
        Bound { format: FORMAT_1, key_id: key.id.as_bytes(), encoding: ENCRYPTED, namespace: namespace.as_bytes() };
    let length = data.len() - NONCE_LENGTH;
    let tag = key
        .aead
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(associated.canonical()),
            &mut data[NONCE_LENGTH..],
        )
        .map_err(|_| CodecError::TooLong { length })?;
    data.extend_from_slice(tag.as_ref());
    Ok(())
}
