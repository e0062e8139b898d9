//! Why a payload can't be encrypted or decrypted.

use super::{ENCODING, FIELD, FORMAT, KEY_ID, MAX_ENCRYPTIONS, NAMESPACE, NONCE_LENGTH, TAG_LENGTH};

/// Most characters of a metadata value in a message: whoever sent the payload chose it.
const LONGEST_VALUE: usize = 128;

/// A payload that can't be encrypted or decrypted.
///
/// None of the messages holds key bytes or data of a payload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// It is none.
    #[error("a payload can't be read: it is no message of Temporal's API; check the SDK where it was made")]
    Unreadable,
    /// It is not encrypted, and has to be.
    #[error(
        "a payload with encoding {encoding:?} is not encrypted, and encryption mode Require refuses it, empty or not; encrypt it where it is made, or set {FIELD}.mode to Migrate until all senders encrypt"
    )]
    NotEncrypted {
        /// Encoding that it names; empty without one.
        encoding: String,
    },
    /// It is in the format of the official samples, and has to be in a format that binds its metadata.
    #[error(
        "a payload encrypted with key {key_id:?} has no metadata {FORMAT:?}, so it is in the format of the Temporal samples, which encryption mode Require refuses; encrypt it in format 1, or set {FIELD}.mode to Migrate until all senders do"
    )]
    Unversioned {
        /// Key that it names; empty without one.
        key_id: String,
    },
    /// Its format is of another version of this program.
    #[error(
        "an encrypted payload has {FORMAT} {format:?}, and this version reads 1; run a version here that reads it, or write 1 where it is made"
    )]
    UnknownFormat {
        /// Format that it names.
        format: String,
    },
    /// Its key is not here.
    #[error(
        "a payload is encrypted with key {key_id:?}, and the keys here are {known:?}; add the key to {FIELD}.readKeys"
    )]
    UnknownKey {
        /// Key that it names.
        key_id: String,
        /// Ids of the keys that are here.
        known: Vec<String>,
    },
    /// It was encrypted in a namespace whose payloads are not read here.
    #[error(
        "a payload was encrypted in Temporal namespace {namespace:?}, and those of {allowed:?} are read here; if its payloads are meant to be read here, add the namespace to {FIELD}.namespaces"
    )]
    ForeignNamespace {
        /// Namespace that it names.
        namespace: String,
        /// Namespaces whose payloads are read.
        allowed: Vec<String>,
    },
    /// A metadata value that decryption needs can't be used.
    #[error("an encrypted payload's metadata {field:?} {problem}; check the codec where it was made")]
    Metadata {
        /// Metadata key.
        field: &'static str,
        /// What is wrong with its value.
        problem: &'static str,
    },
    /// It has metadata of an encrypted payload, and another encoding.
    #[error(
        "a payload has metadata {FORMAT:?} and {ENCODING} {encoding:?}, where encrypted payloads have binary/encrypted; its metadata was changed on the way, or the codec where it was made is at fault"
    )]
    Mislabelled {
        /// Encoding that it names; empty without one.
        encoding: String,
    },
    /// Its data is too short to be encrypted data.
    #[error(
        "the data of a payload encrypted with key {key_id:?} has {length} bytes, and encrypted data has {} at least; it was cut on the way, or the codec where it was made is at fault",
        NONCE_LENGTH + TAG_LENGTH
    )]
    Truncated {
        /// Key that it names.
        key_id: String,
        /// Length of its data, in bytes.
        length: usize,
    },
    /// The tag does not fit.
    #[error(
        "a payload encrypted with key {key_id:?} is not authentic: its data or metadata was changed, or {key_id:?} is another key here than where it was made; compare the two, and give different keys different ids"
    )]
    NotAuthentic {
        /// Key that it names.
        key_id: String,
    },
    /// What was encrypted is not a payload.
    #[error(
        "what a payload encrypted with key {key_id:?} holds is no serialised temporal.api.common.v1.Payload; check the codec where it was made"
    )]
    NoPayload {
        /// Key that it names.
        key_id: String,
    },
    /// The key has encrypted as much as it may.
    #[error(
        "key {key_id:?} has encrypted {MAX_ENCRYPTIONS} payloads in this process, the most that are safe with random nonces (NIST SP 800-38D section 8.3); rotate it: set {FIELD}.writeKey to a new key, and keep {key_id:?} in readKeys"
    )]
    Exhausted {
        /// Id of the key.
        key_id: String,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes for a nonce, so the payload was not encrypted; try again")]
    NoRandomness,
    /// It is longer than AES-GCM allows.
    #[error("a payload of {length} bytes is longer than AES-GCM encrypts at once; make it smaller")]
    TooLong {
        /// Length of its data, in bytes.
        length: usize,
    },
}

impl CodecError {
    /// The message where encryption is set in another field of the same form than [`FIELD`].
    pub fn in_field(&self, field: &str) -> String {
        self.to_string().replace(FIELD, field)
    }

    /// Whether the same payload may do later: with another configuration, with another version of this program, or
    /// because the cause was momentary. What is wrong with the payload itself stays.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NotEncrypted { .. }
            | Self::Unversioned { .. }
            | Self::UnknownFormat { .. }
            | Self::UnknownKey { .. }
            | Self::ForeignNamespace { .. }
            | Self::Exhausted { .. }
            | Self::NoRandomness => true,
            Self::Unreadable
            | Self::Metadata { .. }
            | Self::Mislabelled { .. }
            | Self::Truncated { .. }
            | Self::NotAuthentic { .. }
            | Self::NoPayload { .. }
            | Self::TooLong { .. } => false,
        }
    }

    /// The key id's value can't be used.
    pub(super) fn key_id(problem: &'static str) -> Self {
        Self::Metadata { field: KEY_ID, problem }
    }

    /// The namespace's value can't be used.
    pub(super) fn namespace(problem: &'static str) -> Self {
        Self::Metadata { field: NAMESPACE, problem }
    }
}

/// A metadata value for a message: as text, and not longer than 128 characters.
pub(super) fn shown(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    match text.char_indices().nth(LONGEST_VALUE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_the_field_of_whom_it_is_for() {
        let error = CodecError::UnknownKey { key_id: "k".into(), known: vec![] };
        assert!(error.to_string().ends_with("add the key to spec.runtime.encryption.readKeys"), "{error}");
        assert!(error.in_field("spec.other").ends_with("add the key to spec.other.readKeys"), "{error}");
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        assert_eq!(shown("é".repeat(128).as_bytes()), "é".repeat(128));
        assert_eq!(shown("é".repeat(129).as_bytes()), format!("{}…", "é".repeat(128)));
        assert_eq!(shown(b"\xff"), "\u{fffd}");
    }
}
