//! What the fuzz targets of `worker-runtime/fuzz` call: functions that give any bytes to what reads what others wrote, and
//! panic where something does not hold. The bytes that are kept in `fuzz/corpus` are given to them by a test.

use std::sync::Arc;
use std::time::Duration;

use operator_core::contract::{RuntimeConfig, RuntimeLimits};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::json;
use temporalio_common::protos::temporal::api::common::v1::Payload;

use crate::codec::{KeyRing, Mode, Opener, Sealer};
use crate::handler::HandlerTable;
use crate::handler::fuzzing as handler;
use crate::sidecar::fuzzing as sidecar;
use crate::{devices, payload};

/// Lines that a handler writes, in pieces: the first byte is the length of a piece, the rest is what it writes.
pub fn line_protocol(data: &[u8]) {
    let Some((size, written)) = data.split_first() else { return };
    handler::lines(written, usize::from(*size).max(1));
    for line in written.split(|byte| *byte == b'\n') {
        for id in [None, Some(7)] {
            handler::word(line, id);
        }
        handler::task(line);
    }
}

/// A failure in the words of a handler.
pub fn failure(data: &[u8]) {
    let Some((message, terms)) = handler::failure(data) else { return };
    assert!(terms.details.iter().all(|detail| is_json(&detail.data)), "{terms:?}");
    let mut told = json!({
        "message": message, "type": terms.failure_type, "nonRetryable": terms.non_retryable, "benign": terms.benign,
        "nextRetryDelay": terms.next_retry_delay.map(|delay| delay.as_secs_f64()), "stackTrace": terms.stack_trace,
    });
    told.as_object_mut().into_iter().for_each(|object| object.retain(|_, value| !value.is_null()));
    let details = terms.details.iter().map(|detail| String::from_utf8_lossy(&detail.data)).collect::<Vec<_>>();
    let told = told.to_string();
    let told = format!(r#"{{"failure":{},"details":[{}]}}}}"#, &told[..told.len() - 1], details.join(","));
    let again = handler::failure(told.as_bytes());
    let (message_again, mut again) = again.unwrap_or_else(|| panic!("it was read, and is not again: {told}"));
    // A delay may change by a rounding.
    let delays = [&terms, &again].map(|terms| terms.next_retry_delay);
    assert!(delays.iter().flatten().all(|delay| *delay <= Duration::from_secs(365 * 86_400)), "{told}");
    let [before, after] = delays.map(Option::unwrap_or_default);
    assert!(before.abs_diff(after) < Duration::from_millis(1), "{told}");
    again.next_retry_delay = terms.next_retry_delay;
    assert_eq!((message_again, again), (message, terms), "{told}");
}

/// A configuration and limits, with a zero byte between them.
pub fn configuration(data: &[u8]) {
    let mut files = data.splitn(2, |byte| *byte == 0);
    let Some(config) = files.next().and_then(same_again::<RuntimeConfig>) else { return };
    let limits = files.next().unwrap_or(b"{}");
    let Ok(limits) = serde_json::from_slice::<RuntimeLimits>(limits) else { return };
    assert_eq!(again(&whole_numbers(limits.clone())), Some(whole_numbers(limits.clone())));
    match HandlerTable::new(&config, &limits, &Arc::default(), None) {
        Err(problems) => assert!(problems.0.iter().all(|problem| problem.contains(": ")), "{problems}"),
        Ok(table) => {
            assert_eq!(config.violations(), []);
            assert_eq!(devices::problems(&limits), [""; 0]);
            assert_eq!(table.activity_types().len(), config.activities.len());
            for activity in &config.activities {
                let named = activity.activity_type.as_str();
                assert!(table.get(named.strip_suffix('*').unwrap_or(named)).is_some(), "{named}");
            }
        }
    }
}

/// Fractions may change by a rounding when they are written and read.
fn whole_numbers(mut limits: RuntimeLimits) -> RuntimeLimits {
    limits.resource_targets = None;
    for queue in limits.task_queues.values_mut() {
        (queue.max_activities_per_second, queue.max_task_queue_activities_per_second) = (None, None);
    }
    limits
}

/// What a text says, which it also says when it is written and read again.
fn same_again<T: DeserializeOwned + serde::Serialize + PartialEq + std::fmt::Debug>(text: &[u8]) -> Option<T> {
    let value = serde_json::from_slice(text).ok()?;
    assert_eq!(again(&value).as_ref(), Some(&value));
    Some(value)
}

fn again<T: DeserializeOwned + serde::Serialize>(value: &T) -> Option<T> {
    serde_json::from_slice(&serde_json::to_vec(value).ok()?).ok()
}

fn is_json(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

/// What a Worker or a server sends through the sidecar: the first byte says what it is, the second of which kind or in which pieces.
pub fn proxy(data: &[u8]) {
    let [what, kind, message @ ..] = data else { return };
    let Ok(keys) = KeyRing::load(("key", &[7; 32]), []).map(Arc::new) else { return };
    match what % 3 {
        0 => sidecar::frames(message, usize::from(*kind)),
        1 => {
            let [more, message @ ..] = message else { return };
            let index = usize::from(u16::from_le_bytes([*kind, *more]));
            let opener = Opener::new(keys.clone(), Mode::Require, "default", []);
            sidecar::message(message, index, &Sealer::new(keys, "default"), &opener);
        }
        _ => sidecar::call(message),
    }
}

/// A payload that comes from anybody: nothing but what was sealed with the key is ever opened.
pub fn codec(data: &[u8]) {
    let mut fields = Fields(data);
    let kind = fields.byte();
    let Ok(keys) = KeyRing::load(("key", &[7; 32]), []).map(Arc::new) else { return };
    let [require, migrate] =
        [Mode::Require, Mode::Migrate].map(|mode| Opener::new(keys.clone(), mode, "default", ["other".to_owned()]));
    match kind % 3 {
        0 => {
            let forged = fields.payload();
            assert!(require.open(forged.clone()).is_err(), "{forged:?}");
            if let Ok(opened) = migrate.open(forged.clone()) {
                assert_ne!(forged.metadata.get("encoding").map(Vec::as_slice), Some(&b"binary/encrypted"[..]));
                assert_eq!(opened, forged);
            }
        }
        1 => {
            let original = fields.payload();
            let Ok(sealed) = Sealer::new(keys, "default").seal(original.clone()) else { return };
            assert_eq!(sealed != original, require.open(sealed.clone()).is_ok_and(|opened| opened == original));
            let changed = fields.change(sealed.clone());
            for (opener, passes_plain) in [(require, false), (migrate, true)] {
                let Ok(opened) = opener.open(changed.clone()) else { continue };
                assert!(opened == original || passes_plain && opened == changed, "{changed:?} of {sealed:?}");
            }
        }
        _ => {
            let (id, write, read) = (fields.text(), fields.field(), fields.field());
            let Ok(keys) = KeyRing::load((&id, write), [("read", read)]).map(Arc::new) else { return };
            let original = payload::of_json("7");
            let sealed = Sealer::new(keys.clone(), "default").seal(original.clone()).unwrap_or_default();
            assert_eq!(Opener::new(keys, Mode::Require, "default", []).open(sealed).ok(), Some(original));
        }
    }
}

/// Bytes as fields: the length in a byte, then as many bytes as there are of them.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn field(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (field, rest) = self.0.split_at(length);
        self.0 = rest;
        field
    }

    fn text(&mut self) -> String {
        String::from_utf8_lossy(self.field()).into_owned()
    }

    /// Metadata by the bits of a byte, then the data.
    fn payload(&mut self) -> Payload {
        const NAMES: [&str; 5] = ["encoding", "encryption-key-id", "encryption-format", "encryption-namespace", "more"];
        let there = self.byte();
        let names = NAMES.iter().enumerate().filter(|(bit, _)| there & (1 << bit) != 0);
        let metadata = names.map(|(_, name)| ((*name).to_owned(), self.field().to_vec())).collect();
        Payload { metadata, data: self.field().to_vec(), ..Payload::default() }
    }

    /// A payload with other metadata, another byte in its data, or another length.
    fn change(&mut self, mut payload: Payload) -> Payload {
        let metadata = self.payload().metadata;
        payload.metadata.extend(metadata);
        let (at, flip, cut) = (usize::from(self.byte()), self.byte(), usize::from(self.byte()));
        if let Some(byte) = payload.data.get_mut(at) {
            *byte ^= flip;
        }
        payload.data.truncate(payload.data.len().saturating_sub(cut));
        payload
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_was_found_once_is_not_found_again() {
        let targets = [
            ("line_protocol", line_protocol as fn(&[u8])),
            ("failure", failure),
            ("configuration", configuration),
            ("codec", codec),
            ("proxy", proxy),
        ];
        for (name, target) in targets {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
            let inputs: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert!(inputs.len() >= 5, "{} has {} inputs", folder.display(), inputs.len());
            for input in inputs {
                println!("{}", input.display());
                target(&std::fs::read(input).unwrap());
            }
        }
    }
}
