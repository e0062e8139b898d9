//! Tokens of the push endpoint: one names a fleet and says that its bearer may ask for a look at the fleet's Task Queues.
//!
//! A token is `twp1.<uid>.<serial>.<mac>`: the UID of a WorkerDeployment, a number, and the HMAC-SHA-256 of both under the
//! installation's key, in hexadecimal. Nothing is stored a token: it is good while the fleet exists under that UID and asks
//! for that serial number ([`serial_of`]).

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::border::{self, Border};

/// Bytes of a key; RFC 2104 advises no fewer than the hash has.
pub const KEY_BYTES: usize = 32;
/// Longest token that is looked at; one for a UID of Kubernetes has some 125 bytes.
const LONGEST: usize = 256;
/// Start of every token, with the version of its form.
const PREFIX: &str = "twp1";
/// What the MAC is over starts with this, so that the key signs nothing else by accident.
const DOMAIN: &[u8] = b"temporal-worker-operator push token 1\0";

/// The key that an installation signs tokens with. No `Debug`: it is a secret.
#[derive(Clone)]
pub struct PushKey(Hmac<Sha256>);

/// What a token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// UID of the WorkerDeployment.
    pub fleet_uid: String,
    /// Serial number.
    pub serial: u64,
}

/// Why a token is refused. Never holds the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not of the form of a token.
    #[error("the bearer token is none of the push endpoint; print one with `temporal-worker-operator push-kubeconfig`")]
    Malformed,
    /// It was not signed with the installation's key.
    #[error(
        "the bearer token was not issued by this installation; print a new one with `temporal-worker-operator push-kubeconfig`"
    )]
    Forged,
    /// It is for another fleet, or for one of the same name that is gone.
    #[error("the bearer token is not for this WorkerDeployment")]
    OtherFleet,
    /// The fleet asks for another serial number.
    #[error("the bearer token was revoked: its serial number is {is}, and annotation {annotation} wants {wanted}", annotation = crate::names::PUSH_TOKEN_SERIAL_ANNOTATION)]
    Revoked {
        /// The token's.
        is: u64,
        /// The fleet's.
        wanted: u64,
    },
}

impl Refusal {
    /// Whether the bearer is unknown (401), rather than known and not allowed (403).
    #[must_use]
    pub fn is_unauthenticated(&self) -> bool {
        matches!(self, Self::Malformed | Self::Forged)
    }
}

/// What is wrong with a key, or with a serial number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The key is short.
    #[error("the key has {0} bytes; it needs {KEY_BYTES}")]
    ShortKey(usize),
    /// The annotation holds no number.
    #[error("annotation {annotation}: {0:?} is no whole number from 0 to {max}; correct it: until then no token is accepted", annotation = crate::names::PUSH_TOKEN_SERIAL_ANNOTATION, max = u64::MAX)]
    Serial(String),
}

/// The serial number that a fleet asks for, by its annotation; 0 without one.
///
/// # Errors
/// [`Invalid::Serial`].
pub fn serial_of(annotation: Option<&str>) -> Result<u64, Invalid> {
    let Some(text) = annotation else { return Ok(0) };
    text.trim().parse().map_err(|_| Invalid::Serial(text.to_owned()))
}

impl PushKey {
    /// A key.
    ///
    /// # Errors
    /// [`Invalid::ShortKey`].
    pub fn new(bytes: &[u8]) -> Result<Self, Invalid> {
        let short = || Invalid::ShortKey(bytes.len());
        if bytes.len() < KEY_BYTES {
            return Err(short());
        }
        Hmac::new_from_slice(bytes).map(Self).map_err(|_| short())
    }

    /// The token for a grant.
    #[must_use]
    pub fn issue(&self, grant: &Grant) -> String {
        let mut token = format!("{PREFIX}.{}.{}.", grant.fleet_uid, grant.serial);
        for byte in self.mac(grant).finalize().into_bytes() {
            // A String takes everything.
            let _ = write!(token, "{byte:02x}");
        }
        token
    }

    /// What a token stands for, if this key signed it. The comparison takes the same time whatever differs.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] or [`Refusal::Forged`].
    pub fn authenticate(&self, token: &str) -> Result<Grant, Refusal> {
        let (grant, mac) = parse(token).ok_or(Refusal::Malformed)?;
        let verified = self.mac(&grant).verify_slice(&mac);
        if border::stands(Border::PushSignature) {
            verified.map_err(|_| Refusal::Forged)?;
        }
        Ok(grant)
    }

    fn mac(&self, grant: &Grant) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(DOMAIN);
        mac.update(grant.fleet_uid.as_bytes());
        mac.update(b"\0");
        mac.update(grant.serial.to_string().as_bytes());
        mac
    }
}

impl Grant {
    /// Whether it is good for a fleet: the grant that the fleet's own UID and serial number make.
    ///
    /// # Errors
    /// [`Refusal::OtherFleet`] or [`Refusal::Revoked`].
    pub fn permits(&self, fleet: &Self) -> Result<(), Refusal> {
        if border::stands(Border::PushFleet) && self.fleet_uid != fleet.fleet_uid {
            return Err(Refusal::OtherFleet);
        }
        if self.serial != fleet.serial {
            return Err(Refusal::Revoked { is: self.serial, wanted: fleet.serial });
        }
        Ok(())
    }
}

fn parse(token: &str) -> Option<(Grant, Vec<u8>)> {
    if token.len() > LONGEST {
        return None;
    }
    let mut parts = token.split('.');
    let (prefix, uid, serial, mac) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let written = serial.parse::<u64>().ok()?;
    // One way to write a number, so one token a grant.
    if prefix != PREFIX || uid.is_empty() || parts.next().is_some() || written.to_string() != serial {
        return None;
    }
    Some((Grant { fleet_uid: uid.to_owned(), serial: written }, bytes_of(mac)?))
}

fn bytes_of(hexadecimal: &str) -> Option<Vec<u8>> {
    let digits = hexadecimal.as_bytes();
    if digits.len() != 2 * KEY_BYTES || !digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> PushKey {
        PushKey::new(&[byte; KEY_BYTES]).unwrap()
    }

    fn grant(uid: &str, serial: u64) -> Grant {
        Grant { fleet_uid: uid.into(), serial }
    }

    #[test]
    fn a_token_stands_for_what_it_was_issued_for() {
        let issued = grant("0b1e7c5a-9f1d-4c2b-8f7e-3a5d6c7b8a90", 7);
        let token = key(1).issue(&issued);
        assert_eq!(key(1).authenticate(&token), Ok(issued.clone()));
        assert_eq!(issued.permits(&issued), Ok(()));
        assert!(token.len() <= LONGEST && token.starts_with("twp1."), "{token}");
    }

    #[test]
    fn the_mac_is_that_of_the_standard() {
        // Computed with Python's hmac module: key 32 × 0x01, "temporal-worker-operator push token 1\0" "u" "\0" "0".
        let token = key(1).issue(&grant("u", 0));
        assert_eq!(token, "twp1.u.0.0858095320acf31bde41146a382d93e4de7dd6f10cc5959b322a68d07c376022");
    }

    #[test]
    fn a_token_of_another_installation_or_with_a_changed_part_is_forged() {
        let token = key(1).issue(&grant("fleet-a", 1));
        assert_eq!(key(2).authenticate(&token), Err(Refusal::Forged));
        for changed in [token.replace("fleet-a", "fleet-b"), token.replace(".1.", ".2.")] {
            assert_ne!(changed, token);
            assert_eq!(key(1).authenticate(&changed), Err(Refusal::Forged), "{changed}");
        }
        let (head, mac) = token.rsplit_once('.').unwrap();
        for place in 0..mac.len() {
            let mut digits = mac.as_bytes().to_vec();
            digits[place] = if digits[place] == b'0' { b'1' } else { b'0' };
            let changed = format!("{head}.{}", String::from_utf8(digits).unwrap());
            assert_eq!(key(1).authenticate(&changed), Err(Refusal::Forged), "digit {place}");
        }
    }

    #[test]
    fn what_has_not_the_form_of_a_token_is_malformed() {
        let token = key(1).issue(&grant("fleet-a", 1));
        let cases = [
            String::new(),
            "twp1".into(),
            "eyJhbGciOi.eyJzdWIi.c2ln".into(),
            token.replace("twp1", "twp2"),
            token.replace(".1.", ".01."),
            token.replace(".1.", ".-1."),
            token.replace("fleet-a", ""),
            token.to_uppercase(),
            format!("{token}00"),
            format!("{token}.x"),
            key(1).issue(&grant(&"u".repeat(LONGEST), 1)),
        ];
        for case in cases {
            assert_eq!(key(1).authenticate(&case), Err(Refusal::Malformed), "{case}");
        }
    }

    #[test]
    fn a_raised_serial_number_revokes_what_was_issued_before() {
        let refusal = grant("a", 1).permits(&grant("a", 2)).unwrap_err();
        assert_eq!(refusal, Refusal::Revoked { is: 1, wanted: 2 });
        assert!(!refusal.is_unauthenticated());
        assert!(refusal.to_string().contains("temporal.io/push-token-serial"), "{refusal}");
        assert_eq!(grant("a", 3).permits(&grant("a", 2)), Err(Refusal::Revoked { is: 3, wanted: 2 }));
    }

    #[test]
    fn a_token_of_another_fleet_is_refused_whatever_its_serial_number() {
        for serial in [0, 1] {
            assert_eq!(grant("a", serial).permits(&grant("b", 1)), Err(Refusal::OtherFleet));
        }
    }

    #[test]
    fn a_serial_number_that_is_none_names_the_annotation() {
        assert_eq!((serial_of(None), serial_of(Some("12"))), (Ok(0), Ok(12)));
        for text in ["", "-1", "two", "1.0", "18446744073709551616"] {
            let error = serial_of(Some(text)).unwrap_err().to_string();
            assert!(error.contains("temporal.io/push-token-serial") && error.contains(text), "{error}");
        }
    }

    #[test]
    fn a_short_key_is_refused() {
        assert_eq!(PushKey::new(&[0; 31]).err(), Some(Invalid::ShortKey(31)));
    }
}
