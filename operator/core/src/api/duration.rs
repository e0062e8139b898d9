//! Durations as Go writes them: `90s`, `1h30m`, `1.5h`, `0`.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A duration in Go's syntax, kept as the user wrote it.
///
/// Reading an object never fails for a bad duration: the fields that the contract leaves unchecked may hold any text,
/// so the text is parsed where it is needed, and the error names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GoDuration(String);

/// A text that is no usable duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not Go's syntax.
    #[error("{0:?} is not a duration; write numbers with units, such as 90s, 1h30m or 1.5h")]
    Syntax(String),
    /// Below zero.
    #[error("{0:?} is negative; write a duration of zero or more")]
    Negative(String),
    /// More than a signed 64-bit count of nanoseconds holds.
    #[error("{0:?} is too long; the longest duration is about 292 years")]
    TooLong(String),
}

impl GoDuration {
    /// Keeps `text` as it is.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The duration that the text means, never negative.
    ///
    /// # Errors
    /// [`DurationError`], with the text, when it is not Go's syntax, negative or beyond Go's range.
    pub fn get(&self) -> Result<Duration, DurationError> {
        let text = self.0.as_str();
        let (negative, magnitude) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let nanos = parse_nanos(magnitude, text)?;
        if negative && nanos > 0 {
            return Err(DurationError::Negative(text.to_owned()));
        }
        Ok(Duration::from_nanos(nanos))
    }
}

impl From<Duration> for GoDuration {
    /// Prints as Go does: `1h30m0s`, `90s` as `1m30s`, `0s`.
    fn from(duration: Duration) -> Self {
        Self(print(duration))
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for GoDuration {
    fn schema_name() -> Cow<'static, str> {
        "GoDuration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

/// Units longest first, so that `ms` is not read as `m`. Both micro signs, as Go accepts them.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

fn parse_nanos(magnitude: &str, text: &str) -> Result<u64, DurationError> {
    if magnitude == "0" {
        return Ok(0);
    }
    if magnitude.is_empty() {
        return Err(DurationError::Syntax(text.to_owned()));
    }
    let (mut rest, mut total) = (magnitude, 0_u64);
    while !rest.is_empty() {
        let (nanos, after) = parse_term(rest, text)?;
        total = total
            .checked_add(nanos)
            .filter(|sum| i64::try_from(*sum).is_ok())
            .ok_or_else(|| DurationError::TooLong(text.to_owned()))?;
        rest = after;
    }
    Ok(total)
}

/// One number with its unit, such as `1.5h`, and what follows it.
fn parse_term<'a>(term: &'a str, text: &str) -> Result<(u64, &'a str), DurationError> {
    let syntax = || DurationError::Syntax(text.to_owned());
    let number_len = term.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(syntax)?;
    let (number, rest) = term.split_at(number_len);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(syntax());
    }
    let (unit, nanos) = UNITS.iter().find(|(unit, _)| rest.starts_with(unit)).ok_or_else(syntax)?;
    let too_long = || DurationError::TooLong(text.to_owned());
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| too_long())? };
    let value = whole.checked_mul(*nanos).and_then(|v| v.checked_add(fraction_nanos(fraction, *nanos)));
    Ok((value.ok_or_else(too_long)?, &rest[unit.len()..]))
}

/// Nanoseconds of the digits after the point, cut below a nanosecond. Eighteen digits are more than the largest unit has.
fn fraction_nanos(digits: &str, unit: u64) -> u64 {
    let digits = &digits[..digits.len().min(18)];
    let Ok(value) = digits.parse::<u128>() else { return 0 };
    let scale = 10_u128.pow(u32::try_from(digits.len()).unwrap_or(18));
    u64::try_from(value * u128::from(unit) / scale).unwrap_or(u64::MAX)
}

fn print(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < 1_000_000_000 {
        let (unit, scale) = match nanos {
            0..1_000 => ("ns", 1),
            1_000..1_000_000 => ("µs", 1_000),
            _ => ("ms", 1_000_000),
        };
        return format!("{}{unit}", decimal(nanos, scale));
    }
    let minutes = duration.as_secs() / 60;
    let seconds = decimal(nanos % 60_000_000_000, 1_000_000_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// `value / scale` with as many decimals as it needs.
fn decimal(value: u128, scale: u128) -> String {
    let (whole, fraction) = (value / scale, value % scale);
    if fraction == 0 {
        return whole.to_string();
    }
    let width = scale.ilog10() as usize;
    format!("{whole}.{fraction:0width$}").trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_syntax_is_read_as_go_reads_it() {
        let cases = [
            ("0", 0),
            ("0s", 0),
            ("-0s", 0),
            ("+5s", 5_000_000_000),
            ("90s", 90_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("100ms", 100_000_000),
            ("1m1ms", 60_001_000_000),
            ("3us2ns", 3_002),
            ("3µs", 3_000),
            ("3μs", 3_000),
            ("0.1000000000000000000001h", 360_000_000_000),
            ("2562047h47m16.854775807s", i64::MAX as u64),
        ];
        for (text, nanos) in cases {
            assert_eq!(GoDuration::new(text).get(), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn what_go_refuses_is_an_error_that_names_the_text() {
        for text in ["", "-", "5", "s", ".s", "1..5s", "1.2.3s", "1 s", "1d", "1h30", "banana", "1e3s", "--1s"] {
            assert_eq!(GoDuration::new(text).get(), Err(DurationError::Syntax(text.to_owned())), "{text}");
        }
        assert_eq!(GoDuration::new("-1s").get(), Err(DurationError::Negative("-1s".into())));
        for text in ["2562048h", "99999999999999999999s", "9223372036854775808ns"] {
            assert_eq!(GoDuration::new(text).get(), Err(DurationError::TooLong(text.into())), "{text}");
        }
    }

    #[test]
    fn the_text_survives_a_round_trip_as_written() {
        let read: GoDuration = serde_json::from_str(r#""1.5h""#).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), r#""1.5h""#);
    }

    #[test]
    fn durations_print_as_go_prints_them() {
        let cases = [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (90_000_000_000, "1m30s"),
            (5_400_000_000_000, "1h30m0s"),
            (1_001_000_000, "1.001s"),
            (3_600_000_000_000, "1h0m0s"),
        ];
        for (nanos, text) in cases {
            assert_eq!(GoDuration::from(Duration::from_nanos(nanos)).as_str(), text);
        }
    }
}
