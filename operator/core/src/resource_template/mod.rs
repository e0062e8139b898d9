//! WorkerResourceTemplates: an object of any kind that every version of a fleet gets a copy of.
//!
//! What is in a template and how a copy is made of it are the contract's. What differs from it: a copy that somebody changed or
//! deleted is mended, a copy is deleted only once it is proven that its version needs none, and a template that can't be
//! applied is its own problem, not the fleet's.

mod owner;
mod picture;
mod plan;
mod render;
mod report;
mod template;
#[cfg(test)]
mod tests;
mod validate;

use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::names;

pub use owner::{is_version, owners};
pub use picture::{Picture, PictureInput, Traffic, VersionPicture, picture};
pub use plan::{Proof, Step, TemplateInput, plan};
pub use render::{Copy, render};
pub use report::{Outcome, Refusal, Report, report};
pub use template::{AllowedKinds, scales};
pub use validate::validate;

/// Time between two looks at the copies of a template, while there are few of them.
pub const LOOK: Duration = Duration::from_secs(60);
/// Least time that a copy gets of all looks, so that many copies are read no faster than ten a second.
const SHARE: Duration = Duration::from_millis(100);

/// Bytes of a copy's name before its hash.
const MAX_PREFIX: usize = 38;
/// Bytes of the hash in a copy's name.
const NAME_HASH: usize = 4;
/// Bytes of the hash of a copy.
const COPY_HASH: usize = 8;

/// Name of the copy for a version: fleet, template and Build ID as a DNS label of at most 38 bytes, and eight digits of a hash
/// over the three.
#[must_use]
pub fn copy_name(fleet: &str, template: &str, build_id: &str) -> String {
    let mut prefix = names::dns_label(format!("{fleet}-{template}-{build_id}").as_bytes());
    prefix.truncate(MAX_PREFIX);
    let hash = hash(format!("{fleet}{template}{build_id}").as_bytes(), NAME_HASH);
    format!("{}-{hash}", prefix.trim_end_matches('-'))
}

/// Time until the copies of a template are looked at again, where there are so many copies in all.
#[must_use]
pub fn look_again_after(copies: usize) -> Duration {
    LOOK.max(SHARE.saturating_mul(u32::try_from(copies).unwrap_or(u32::MAX)))
}

/// The first bytes of a SHA-256, in hexadecimal digits.
fn hash(text: &[u8], bytes: usize) -> String {
    Sha256::digest(text).iter().take(bytes).map(|byte| format!("{byte:02x}")).collect()
}
