//! Encryption of payloads: AES-256-GCM, with one key that encrypts and any number that decrypt.
//!
//! An encrypted payload holds a whole payload, serialised (protobuf). Its data is a random nonce of 12 bytes, then the
//! ciphertext, then the tag of 16 bytes. Its metadata names the format:
//!
//! | metadata | format 1 | format of the official samples |
//! |---|---|---|
//! | `encoding` | `binary/encrypted` | `binary/encrypted` |
//! | `encryption-key-id` | id of the key | id of the key |
//! | `encryption-format` | `1` | absent |
//! | `encryption-namespace` | Temporal namespace of the writer | absent |
//!
//! In format 1 the four values are authenticated too, as the associated data of [`Bound::canonical`]. The samples
//! (`encryption` of samples-go and samples-typescript) authenticate the data alone; that format is read in
//! [`Mode::Migrate`] only, and never written.

mod bound;
mod error;
mod failure;
mod keys;
mod open;
mod seal;

use temporalio_common::protos::temporal::api::common::v1::Payload;
use temporalio_common::protos::temporal::api::failure::v1::Failure;

use bound::Bound;
pub use error::CodecError;
#[cfg(test)]
use failure::decode_failure;
pub use failure::{PLACEHOLDER, encode_failure};
#[cfg(test)]
use keys::KeyError;
pub use keys::KeyRing;
use keys::MAX_ENCRYPTIONS;
pub use open::{Mode, Opener};
pub use seal::Sealer;

/// Field of a fleet that encryption is set in, as messages name it: that of the runtime.
const FIELD: &str = "spec.runtime.encryption";

/// Metadata key of every payload: how its data is encoded.
const ENCODING: &str = "encoding";
/// Metadata key: id of the key that encrypted the payload.
const KEY_ID: &str = "encryption-key-id";
/// Metadata key: version of the format; absent in the format of the official samples.
const FORMAT: &str = "encryption-format";
/// Metadata key: Temporal namespace in which the payload was encrypted.
const NAMESPACE: &str = "encryption-namespace";

/// Encoding of encrypted payloads.
const ENCRYPTED: &[u8] = b"binary/encrypted";
/// The format that is written.
const FORMAT_1: &[u8] = b"1";

/// Length of a nonce, in bytes (NIST SP 800-38D section 5.2.1.1 recommends it).
const NONCE_LENGTH: usize = ring::aead::NONCE_LEN;
/// Length of a tag, in bytes.
const TAG_LENGTH: usize = 16;

/// Whether `payload` says that it is encrypted.
fn is_encrypted(payload: &Payload) -> bool {
    payload.metadata.get(ENCODING).is_some_and(|encoding| encoding == ENCRYPTED)
}

#[cfg(test)]
mod tests;
