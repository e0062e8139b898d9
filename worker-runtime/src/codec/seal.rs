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
        let key = self.keys.write();
        if !key.count_encryption() {
            return Err(CodecError::Exhausted { key_id: key.id.clone() });
        }
        let mut nonce = [0; NONCE_LENGTH];
        self.random.fill(&mut nonce).map_err(|_| CodecError::NoRandomness)?;
        let data = encrypt(key, nonce, &self.namespace, &payload)?;
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

/// Nonce, ciphertext and tag of the serialised `payload`.
fn encrypt(key: &Key, nonce: [u8; NONCE_LENGTH], namespace: &str, payload: &Payload) -> Result<Vec<u8>, CodecError> {
    let too_long = || CodecError::TooLong { length: payload.data.len() };
    let associated =
        Bound { format: FORMAT_1, key_id: key.id.as_bytes(), encoding: ENCRYPTED, namespace: namespace.as_bytes() };
    let mut data = Vec::with_capacity(NONCE_LENGTH + payload.encoded_len() + TAG_LENGTH);
    data.extend_from_slice(&nonce);
    payload.encode(&mut data).map_err(|_| too_long())?;
    let tag = key
        .aead
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(associated.canonical()),
            &mut data[NONCE_LENGTH..],
        )
        .map_err(|_| too_long())?;
    data.extend_from_slice(tag.as_ref());
    Ok(data)
}
