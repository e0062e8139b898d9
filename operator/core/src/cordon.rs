//! Orders to the Worker of a pod: to take no new task, and to take tasks again.
//!
//! The operator signs them (Ed25519, RFC 8032), the runtime checks them. What is signed is the canonical text of
//! [`Order::text`]: five lines, each ended by a line feed. An order names the pod by its uid, so that it serves for no
//! other one; it lapses, so that an operator that is gone leaves no pod cordoned; and each must have been issued after the
//! last one that was accepted, so that none serves twice.
//!
//! [`Correspondence`] says when the operator sends which.

mod correspondence;

use std::time::Duration;

use ed25519_compact::{KeyPair, PublicKey, Seed, Signature};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use correspondence::{Correspondence, Wish};

/// Longest time for which an order holds, unless it is renewed.
pub const LONGEST_LIFETIME: Duration = Duration::from_secs(60);
/// How far the clocks of operator and pod may be apart: an order counts within this time of its issue, by the pod's clock.
/// What is left of [`LONGEST_LIFETIME`] then is still longer than [`RENEWAL`].
pub const CLOCK_SKEW: Duration = Duration::from_secs(30);
/// Time after which the operator renews an order that is to stand.
pub const RENEWAL: Duration = Duration::from_secs(20);
/// Length of a private key, in bytes.
pub const SEED_LENGTH: usize = 32;

/// First line of the canonical text.
const FORM: &str = "temporal-worker-runtime order 1";

/// What is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// To take no new task.
    Cordon,
    /// To take tasks again.
    Uncordon,
}

impl Verb {
    /// The word in the canonical text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cordon => "cordon",
            Self::Uncordon => "uncordon",
        }
    }
}

/// An order to one pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// What is ordered.
    pub verb: Verb,
    /// `metadata.uid` of the pod.
    pub pod_uid: String,
    /// When it was issued, by the operator's clock.
    pub issued_at: Timestamp,
    /// When it lapses.
    pub expires_at: Timestamp,
}

impl Order {
    /// An order of the longest lifetime.
    #[must_use]
    pub fn new(verb: Verb, pod_uid: &str, issued_at: Timestamp) -> Self {
        let expires_at = issued_at.saturating_add(LONGEST_LIFETIME).unwrap_or(issued_at);
        Self { verb, pod_uid: pod_uid.to_owned(), issued_at, expires_at }
    }

    /// What is signed: form, verb, uid, issue and expiry (RFC 3339, UTC), a line each.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{FORM}\n{}\n{}\n{}\n{}\n", self.verb.as_str(), self.pod_uid, self.issued_at, self.expires_at)
    }
}

/// An order as it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedOrder {
    /// The order.
    #[serde(flatten)]
    pub order: Order,
    /// Signature of [`Order::text`], in hexadecimal digits.
    pub signature: String,
}

/// The operator's private key. No `Debug`: it is secret.
#[derive(Clone)]
pub struct OrderKey(KeyPair);

impl OrderKey {
    /// The key that a seed of [`SEED_LENGTH`] random bytes stands for; none for another length.
    #[must_use]
    pub fn from_seed(seed: &[u8]) -> Option<Self> {
        Some(Self(KeyPair::from_seed(Seed::new(seed.try_into().ok()?))))
    }

    /// The public key, in hexadecimal digits.
    #[must_use]
    pub fn public(&self) -> String {
        hex(&*self.0.pk)
    }

    /// Signs an order.
    #[must_use]
    pub fn sign(&self, order: Order) -> SignedOrder {
        let signature = hex(&*self.0.sk.sign(order.text(), None));
        SignedOrder { order, signature }
    }
}

/// Why an order is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It names another pod.
    #[error("the order is for the pod with uid {0:?}, and this is another one")]
    Foreign(String),
    /// It orders something else than it was sent for.
    #[error("the order says {:?}, which is not what it was sent for", .0.as_str())]
    OtherVerb(Verb),
    /// Nobody's orders count.
    #[error("no public key is known: orderKeys of the limits file is empty or can't be read")]
    NoKey,
    /// None of the keys signed it.
    #[error("none of the configured public keys (orderKeys of the limits file) signed the order")]
    NotSigned,
    /// It would hold too long, or not at all.
    #[error("the order is not meant for 0 to {} s", LONGEST_LIFETIME.as_secs())]
    Lifetime,
    /// It lapsed, or its issue is too far from now by this clock.
    #[error(
        "the order was issued at {issued_at} and expires at {expires_at}, and this pod's clock says {now}; clocks may \
         be {} s apart", CLOCK_SKEW.as_secs()
    )]
    OutOfTime {
        /// When it was issued.
        issued_at: Timestamp,
        /// When it expires.
        expires_at: Timestamp,
        /// Time of the one who was to obey.
        now: Timestamp,
    },
    /// It was issued before another one that was accepted, or is that one.
    #[error("the order was issued at {0}, not after the last one that was accepted")]
    Replayed(Timestamp),
}

impl Refusal {
    /// The word in metrics' labels.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Foreign(_) => "foreign",
            Self::OtherVerb(_) => "other_verb",
            Self::NoKey => "no_key",
            Self::NotSigned => "not_signed",
            Self::Lifetime => "lifetime",
            Self::OutOfTime { .. } => "out_of_time",
            Self::Replayed(_) => "replayed",
        }
    }
}

/// Who is to obey an order, and what it was sent for.
#[derive(Clone, Copy, Debug)]
pub struct Receiver<'a> {
    /// `metadata.uid` of the pod.
    pub pod_uid: &'a str,
    /// Public keys whose orders count, as [`OrderKey::public`] writes them.
    pub keys: &'a [String],
    /// Issue of the last order that was accepted.
    pub last: Option<Timestamp>,
    /// Time by the pod's clock.
    pub now: Timestamp,
}

impl Receiver<'_> {
    /// Checks an order that was sent for `verb`. Gives the time for which it holds from now on, by the pod's own clock.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn check(&self, verb: Verb, signed: &SignedOrder) -> Result<Duration, Refusal> {
        let order = &signed.order;
        if order.pod_uid != self.pod_uid {
            return Err(Refusal::Foreign(order.pod_uid.clone()));
        }
        if order.verb != verb {
            return Err(Refusal::OtherVerb(order.verb));
        }
        self.check_signature(signed)?;
        let lifetime = between(order.issued_at, order.expires_at).ok_or(Refusal::Lifetime)?;
        if lifetime.is_zero() || lifetime > LONGEST_LIFETIME {
            return Err(Refusal::Lifetime);
        }
        if self.last.is_some_and(|last| order.issued_at <= last) {
            return Err(Refusal::Replayed(order.issued_at));
        }
        let left = between(self.now, order.expires_at).filter(|left| !left.is_zero());
        let apart = order.issued_at.duration_until(self.now).unsigned_abs();
        match left {
            // A clock that is behind must not stretch an order.
            Some(left) if apart <= CLOCK_SKEW => Ok(left.min(lifetime)),
            _ => Err(Refusal::OutOfTime { issued_at: order.issued_at, expires_at: order.expires_at, now: self.now }),
        }
    }

    fn check_signature(&self, signed: &SignedOrder) -> Result<(), Refusal> {
        if self.keys.is_empty() {
            return Err(Refusal::NoKey);
        }
        let text = signed.order.text();
        let Some(signature) = bytes(&signed.signature).map(Signature::new) else {
            return Err(Refusal::NotSigned);
        };
        let signs = |key: &String| {
            let key = bytes(key).map(PublicKey::new);
            key.is_some_and(|key| key.verify(&text, &signature).is_ok())
        };
        if self.keys.iter().any(signs) { Ok(()) } else { Err(Refusal::NotSigned) }
    }
}

fn between(from: Timestamp, to: Timestamp) -> Option<Duration> {
    Duration::try_from(from.duration_until(to)).ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = hex.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    pairs.collect::<Option<Vec<u8>>>()?.try_into().ok()
}

#[cfg(test)]
mod tests;
