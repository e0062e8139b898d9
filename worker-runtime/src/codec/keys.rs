//! Keys: what their files hold, and which of them does what.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, LessSafeKey, UnboundKey};

/// Length of a key, in bytes.
const KEY_LENGTH: usize = 32;
/// Characters of a key in base64, with padding.
const BASE64_LENGTH: usize = 44;
/// Characters of a key in hexadecimal.
const HEX_LENGTH: usize = 64;

/// Most payloads that one key encrypts in a process. NIST SP 800-38D section 8.3: with random nonces of 96 bits, at most
/// 2^32 invocations with a key, so that a nonce is used twice with a probability of at most 2^-32.
pub const MAX_ENCRYPTIONS: u64 = 1 << 32;

/// The keys of a process. Its `Debug` shows their ids alone.
///
/// The count of [`MAX_ENCRYPTIONS`] lives as long as the ring: another one with the same write key has to go on from it.
pub struct KeyRing {
    write: Key,
    read: BTreeMap<String, Key>,
}

/// A key. Its `Debug` does not show its bytes.
pub struct Key {
    /// Id that encrypted payloads carry.
    pub id: String,
    /// The key itself.
    pub aead: LessSafeKey,
    /// Payloads that it encrypted.
    pub(super) encryptions: AtomicU64,
}

/// A key that can't be used. No message holds bytes of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is of no length that a key has.
    #[error(
        "encryption key {id:?} has {length} bytes; a key is exactly 32 raw bytes, or those as 44 characters of base64 or 64 of hexadecimal, and only text may end with a newline; make one with `openssl rand -base64 32`"
    )]
    Length {
        /// Id of the key.
        id: String,
        /// Length of what was given, in bytes.
        length: usize,
    },
    /// It has the length of a text form, and is not that text.
    #[error(
        "encryption key {id:?} has {length} bytes, and is not the {form} of 32 bytes; make a key with `openssl rand -base64 32`"
    )]
    Text {
        /// Id of the key.
        id: String,
        /// Length of what was given, in bytes.
        length: usize,
        /// Form that has this length.
        form: &'static str,
    },
    /// Two keys have one id.
    #[error(
        "encryption key {id:?} is given twice, with different bytes; give each key an id of its own in writeKey and readKeys"
    )]
    Ambiguous {
        /// Id of both.
        id: String,
    },
    /// It has no id.
    #[error("an encryption key has id \"\"; give it one of 1 to 128 characters")]
    NoId,
}

impl KeyRing {
    /// Reads the contents of key files: `write` is the id and content of the key that encrypts, `read` are those of the
    /// keys that only decrypt. What is written can be read: `write` needs no entry in `read`, and may have one.
    ///
    /// A content is taken for the first of these that it can be:
    /// 1. exactly 32 bytes: the key, whatever they are;
    /// 2. 44 characters: base64 (RFC 4648 section 4, with padding);
    /// 3. 64 characters: hexadecimal, upper or lower case.
    ///
    /// One trailing newline (LF or CR LF) of the two texts is ignored.
    ///
    /// # Errors
    /// A content is none of these, or two keys have one id; names the id, and what is right.
    pub fn load<'a>(
        write: (&str, &[u8]),
        read: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Self, KeyError> {
        let write_bytes = parse(write.0, write.1)?;
        let mut others = BTreeMap::new();
        for (id, content) in read {
            let bytes = parse(id, content)?;
            let same = if id == write.0 { write_bytes } else { insert(&mut others, id, bytes) };
            if same != bytes {
                return Err(KeyError::Ambiguous { id: id.to_owned() });
            }
        }
        let read = others.into_iter().map(|(id, bytes)| Ok((id.to_owned(), Key::new(id, &bytes)?)));
        Ok(Self { write: Key::new(write.0, &write_bytes)?, read: read.collect::<Result<_, _>>()? })
    }

    /// Goes on with the count of `before`, if its key that encrypts is the same one.
    pub fn go_on_from(&self, before: &Self) {
        self.write.encryptions.store(before.write.encryptions.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The key that encrypts.
    pub fn write(&self) -> &Key {
        &self.write
    }

    /// The key with this id.
    pub fn get(&self, id: &str) -> Option<&Key> {
        if id == self.write.id { Some(&self.write) } else { self.read.get(id) }
    }

    /// Ids of all keys: first that of the one that encrypts, then the others in order.
    pub fn ids(&self) -> Vec<String> {
        std::iter::once(&self.write.id).chain(self.read.keys()).cloned().collect()
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").field("write", &self.write).field("read", &self.read.keys()).finish()
    }
}

impl Key {
    fn new(id: &str, bytes: &[u8; KEY_LENGTH]) -> Result<Self, KeyError> {
        let unbound = UnboundKey::new(&AES_256_GCM, bytes)
            .map_err(|_| KeyError::Length { id: id.to_owned(), length: bytes.len() })?;
        Ok(Self { id: id.to_owned(), aead: LessSafeKey::new(unbound), encryptions: AtomicU64::new(0) })
    }

    /// Counts an encryption before it is made; false when the key must not make it.
    pub fn count_encryption(&self) -> bool {
        self.encryptions.fetch_add(1, Ordering::Relaxed) < MAX_ENCRYPTIONS
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The bytes that the id has now: those it had before, if it had any.
fn insert<'a>(
    keys: &mut BTreeMap<&'a str, [u8; KEY_LENGTH]>,
    id: &'a str,
    bytes: [u8; KEY_LENGTH],
) -> [u8; KEY_LENGTH] {
    match keys.entry(id) {
        Entry::Occupied(before) => *before.get(),
        Entry::Vacant(place) => *place.insert(bytes),
    }
}

fn parse(id: &str, content: &[u8]) -> Result<[u8; KEY_LENGTH], KeyError> {
    if id.is_empty() {
        return Err(KeyError::NoId);
    }
    if let Ok(raw) = content.try_into() {
        return Ok(raw);
    }
    let text = without_newline(content);
    let (bytes, form) = match text.len() {
        BASE64_LENGTH => (STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok()), "base64"),
        HEX_LENGTH => (hexadecimal(text), "hexadecimal"),
        _ => return Err(KeyError::Length { id: id.to_owned(), length: content.len() }),
    };
    bytes.ok_or_else(|| KeyError::Text { id: id.to_owned(), length: content.len(), form })
}

fn without_newline(text: &[u8]) -> &[u8] {
    text.strip_suffix(b"\r\n").or_else(|| text.strip_suffix(b"\n")).unwrap_or(text)
}

fn hexadecimal(text: &[u8]) -> Option<[u8; KEY_LENGTH]> {
    let digit = |character: u8| char::from(character).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let pairs = text.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?));
    pairs.collect::<Option<Vec<u8>>>()?.try_into().ok()
}
