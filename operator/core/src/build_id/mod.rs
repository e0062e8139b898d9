//! Build IDs: which version of a Worker a pod template is.
//!
//! For a fleet with a template of its own the Build ID is that of temporal-worker-controller v1.8 to the byte, so that
//! a change of operator doesn't mint a version: the tag of the first container's image and four characters of a hash
//! over the template as Go prints it ([`go_json()`]). For a runtime fleet see [`compute_runtime`].

mod go_json;
mod image;
mod quantity;
mod runtime;
mod table;

use serde_json::Value;
use sha2::{Digest, Sha256};

pub use go_json::{InvalidTemplate, go_json};
pub(crate) use quantity::canonical as canonical_quantity;
pub use quantity::value as quantity_value;
pub use runtime::{RUNTIME_HASH_SCHEME, RuntimeInputs, compute_runtime, compute_sidecar};

/// Longest Build ID: it is a label value too.
pub const MAX_BUILD_ID: usize = 63;
/// Characters of a hash behind a prefix, and of one without.
const SHORT: usize = 4;
const LONG: usize = 10;
/// What [`safe_encode`] makes of the digits.
const DIGITS: &[u8; 10] = b"456789bcdf";

/// The hash of a template's [`go_json()`], of which only the last four decimal digits are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateHash {
    fnv: u32,
}

impl TemplateHash {
    /// FNV-1a of 32 bits.
    #[must_use]
    pub fn value(self) -> u32 {
        self.fnv
    }

    /// Four characters, the suffix behind a prefix from the image.
    #[must_use]
    pub fn short(self) -> String {
        safe_encode(&format!("{:04}", self.fnv % 10_000))
    }

    /// Ten characters (of which the first six are always `444444`), for a template without an image.
    #[must_use]
    pub fn long(self) -> String {
        safe_encode(&format!("{:010}", self.fnv % 10_000))
    }
}

/// Hashes the text of [`go_json()`]. `collisions` counts how often the result was taken already; it is mixed in the way
/// Kubernetes does for Deployments.
#[must_use]
pub fn hash(go_json: &str, collisions: Option<u32>) -> TemplateHash {
    // Kubernetes reserves eight bytes for the count and fills four.
    let count = collisions.map(|count| u64::from(count).to_le_bytes());
    let bytes = go_json.bytes().chain(count.into_iter().flatten());
    TemplateHash { fnv: bytes.fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)) }
}

/// The value of the annotation `temporal.io/pod-template-spec-hash`: sha256 of the text of [`go_json()`] in hex.
#[must_use]
pub fn template_hash(go_json: &str) -> String {
    sha256_hex(go_json.as_bytes())
}

/// The Build ID of a fleet with a template of its own.
///
/// 1. `unsafe_custom_build_id` if anything is left of it after cleaning;
/// 2. else, if the first container has an image: its tag (or digest, or path), `-`, and four characters of hash;
/// 3. else ten characters of hash.
///
/// # Errors
/// [`InvalidTemplate`] when the template is hashed and holds a value of the wrong type.
pub fn compute(template: &Value, unsafe_custom_build_id: Option<&str>) -> Result<String, InvalidTemplate> {
    if let Some(custom) = custom(unsafe_custom_build_id) {
        return Ok(custom);
    }
    hashed(template, None)
}

/// The Build ID of a template after as many collisions: what [`compute`] gives, with the count mixed into the hash.
///
/// # Errors
/// As [`compute`].
pub fn compute_past(template: &Value, collisions: u32) -> Result<String, InvalidTemplate> {
    hashed(template, Some(collisions))
}

fn hashed(template: &Value, collisions: Option<u32>) -> Result<String, InvalidTemplate> {
    let hash = hash(&go_json(template)?, collisions);
    Ok(match first_image(template) {
        Some(image) => with_prefix(image::version(image), &hash.short()),
        None => hash.long(),
    })
}

/// Whether another Build ID has the prefix of one that was computed, and a hash of another make behind it.
#[must_use]
pub fn differ_in_hash(computed: &str, other: &str) -> bool {
    let suffix = computed.len().checked_sub(SHORT).and_then(|prefix| other.strip_prefix(computed.get(..prefix)?));
    let is_hash = |text: &str| (SHORT..=LONG).contains(&text.len()) && text.bytes().all(|c| DIGITS.contains(&c));
    computed != other && suffix.is_some_and(is_hash)
}

/// The value of the annotation `temporal.io/connection-spec-hash`: sha256 in hex of the endpoint, the name that its
/// certificate is verified against and the name of the Secret with the credentials; empty without an endpoint.
#[must_use]
pub fn connection_spec_hash(host_port: &str, server_name: Option<&str>, secret_name: Option<&str>) -> String {
    if host_port.is_empty() {
        return String::new();
    }
    sha256_hex([host_port, server_name.unwrap_or_default(), secret_name.unwrap_or_default()].concat().as_bytes())
}

/// Whether `unsafe_custom_build_id` gives a Build ID.
#[must_use]
pub fn is_custom(unsafe_custom_build_id: &str) -> bool {
    custom(Some(unsafe_custom_build_id)).is_some()
}

/// What `unsafe_custom_build_id` gives as a Build ID, if anything.
fn custom(unsafe_custom_build_id: Option<&str>) -> Option<String> {
    let mut cleaned = clean(unsafe_custom_build_id?.as_bytes());
    cleaned.truncate(MAX_BUILD_ID);
    (!cleaned.is_empty()).then_some(cleaned)
}

/// The image of the first container, if it has one.
fn first_image(template: &Value) -> Option<&str> {
    template.pointer("/spec/containers/0/image")?.as_str().filter(|image| !image.is_empty())
}

/// `<prefix>-<hash>` cleaned, with as much of the prefix as a label value has room for.
fn with_prefix(prefix: &str, hash: &str) -> String {
    let room = MAX_BUILD_ID - 1 - hash.len();
    let prefix = &prefix.as_bytes()[..prefix.len().min(room)];
    clean(&[prefix, b"-", hash.as_bytes()].concat())
}

/// Keeps what a label value may hold: runs of anything else become a dash, and the ends are letters or digits.
/// It takes bytes, because what it cleans may be cut inside a character.
fn clean(text: &[u8]) -> String {
    let kept = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
    crate::names::replace_runs(text, kept).trim_matches(['-', '.', '_']).to_owned()
}

/// Replaces digits by characters that spell no word, as Kubernetes does in generated names.
fn safe_encode(digits: &str) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    digits.bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

fn sha256_bytes(bytes: &[u8]) -> impl IntoIterator<Item = u8> {
    Sha256::digest(bytes)
}

fn sha256_hex(bytes: &[u8]) -> String {
    sha256_bytes(bytes).into_iter().map(|byte| format!("{byte:02x}")).collect()
}
