//! The text that Kubernetes' Go `resource.Quantity` prints for a quantity that it has read.
//!
//! Go keeps the text as it was written when it looks canonical, and prints a canonical form otherwise; what "looks
//! canonical" means depends on which of two number representations the parser took. Both decisions are repeated here,
//! because the text is part of what a Build ID hashes: `1000m` becomes `1`, but `1.500` and `1e3` stay.

/// How a quantity is printed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    /// `1500m`, `2k`
    Decimal,
    /// `12e6`
    Exponent,
    /// `12Mi`
    Binary,
}

const DECIMAL_SUFFIXES: [(&str, i64); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY_SUFFIXES: [(&str, i64); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

/// Smallest power of ten that a quantity keeps; what is finer is rounded away from zero.
const NANO: i64 = -9;
/// Digits of the largest power of ten in an int64.
const INT64_DIGITS: i64 = 18;
/// Largest quantity with a binary suffix; more is cut to it.
const BINARY_MAX: u128 = i64::MAX as u128;
const GIGA: u128 = 1_000_000_000;

/// The canonical text of `text`, or `None` when it is not a quantity.
pub(crate) fn canonical(text: &str) -> Option<String> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    let parts = split(text)?;
    let (exponent, format) = suffix(parts.suffix)?;
    if stays_as_written(&parts, exponent, format) {
        return Some(text.to_owned());
    }
    let digits: Vec<u8> = parts.whole.bytes().chain(parts.fraction.bytes()).map(|digit| digit - b'0').collect();
    let fraction = i64::try_from(parts.fraction.len()).ok()?;
    let number = match format {
        Format::Binary => binary(digits, exponent, fraction),
        format => decimal(round_to_nano((digits, exponent - fraction)), format),
    };
    Some(if number == "0" || !parts.negative { number } else { format!("-{number}") })
}

/// The whole number that `text` stands for, rounded up; `None` when it is no quantity, negative, or too large.
#[must_use]
pub fn value(text: &str) -> Option<u64> {
    let parts = split(text.trim())?;
    let (exponent, format) = suffix(parts.suffix)?;
    let mut digits: Vec<u8> = parts.whole.bytes().chain(parts.fraction.bytes()).map(|digit| digit - b'0').collect();
    let fraction = i64::try_from(parts.fraction.len()).ok()?;
    let power = match format {
        Format::Binary => {
            (0..exponent / 10).for_each(|_| multiply(&mut digits, 1024));
            -fraction
        }
        Format::Decimal | Format::Exponent => exponent - fraction,
    };
    let whole = nanos(round_to_nano((digits, power))).div_ceil(GIGA);
    u64::try_from(whole).ok().filter(|_| !parts.negative)
}

/// The pieces of a quantity's text.
struct Parts<'a> {
    negative: bool,
    /// Digits before the point without leading zeros, `0` when nothing is left.
    whole: &'a str,
    /// Digits after the point.
    fraction: &'a str,
    suffix: &'a str,
}

fn split(text: &str) -> Option<Parts<'_>> {
    let negative = text.starts_with('-');
    let number = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (whole, rest) = split_digits(number.trim_start_matches('0'));
    let (fraction, suffix) = rest.strip_prefix('.').map_or(("", rest), split_digits);
    // Go takes some texts without a digit for zero, but the schema of a CRD takes none.
    if suffix.len() == number.len() || number.starts_with('.') && fraction.is_empty() {
        return None;
    }
    let exponent = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    exponent.bytes().all(|c| c.is_ascii_digit()).then_some(Parts {
        negative,
        whole: if whole.is_empty() { "0" } else { whole },
        fraction,
        suffix,
    })
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn suffix(text: &str) -> Option<(i64, Format)> {
    if let Some((_, exponent)) = DECIMAL_SUFFIXES.iter().find(|(suffix, _)| *suffix == text) {
        return Some((*exponent, Format::Decimal));
    }
    if let Some((_, exponent)) = BINARY_SUFFIXES.iter().find(|(suffix, _)| *suffix == text) {
        return Some((*exponent, Format::Binary));
    }
    let exponent: i64 = text.strip_prefix(['e', 'E'])?.parse().ok()?;
    // Go narrows the exponent to an int32 without a check.
    let exponent = i64::from(exponent as i32);
    Some((exponent, Format::Exponent))
}

/// Go reuses the text when the number fits its int64 representation and passes a cheap test for being canonical.
fn stays_as_written(parts: &Parts<'_>, exponent: i64, format: Format) -> bool {
    let (Ok(whole), Ok(fraction)) = (i64::try_from(parts.whole.len()), i64::try_from(parts.fraction.len())) else {
        return false;
    };
    match format {
        Format::Binary => {
            // 2^20 has about 6 decimal digits, so this bounds the product to 15 of them.
            let fits = fraction == 0 && whole + exponent * 3 / 10 < 15;
            fits && parts.whole.parse::<i64>().is_ok_and(|value| value & 7 != 0)
        }
        Format::Decimal | Format::Exponent => {
            let fits = whole + fraction <= INT64_DIGITS && exponent - fraction >= NANO;
            let shifted = [parts.whole, parts.fraction].concat();
            fits && (exponent - fraction) % 3 == 0 && !shifted.ends_with("000") && !shifted.starts_with('0')
        }
    }
}

/// A number as digits and the power of ten that they are multiplied with.
type Number = (Vec<u8>, i64);

/// Drops what is finer than [`NANO`], rounding away from zero: who asks for a little gets a little.
fn round_to_nano((mut digits, power): Number) -> Number {
    let Some(drop) = usize::try_from(NANO - power).ok().filter(|drop| *drop > 0) else {
        return (digits, power);
    };
    let dropped = digits.split_off(digits.len().saturating_sub(drop));
    if dropped.iter().any(|digit| *digit != 0) {
        add_one(&mut digits);
    }
    (digits, NANO)
}

fn add_one(digits: &mut Vec<u8>) {
    for digit in digits.iter_mut().rev() {
        if *digit < 9 {
            *digit += 1;
            return;
        }
        *digit = 0;
    }
    digits.insert(0, 1);
}

/// Prints a number with a power of ten that is a multiple of three, as small a number as possible.
fn decimal((mut digits, mut power): Number, format: Format) -> String {
    let Some(first) = digits.iter().position(|digit| *digit != 0) else {
        return "0".to_owned();
    };
    while digits.last() == Some(&0) {
        digits.pop();
        power += 1;
    }
    while power % 3 != 0 {
        digits.push(0);
        power -= 1;
    }
    let number: String = digits.iter().skip(first).map(|digit| char::from(b'0' + digit)).collect();
    let suffix = match format {
        Format::Exponent if power != 0 => format!("e{power}"),
        Format::Exponent => String::new(),
        // Beyond the largest suffix Go prints none at all.
        _ => DECIMAL_SUFFIXES.iter().find(|(_, known)| *known == power).map_or("", |(suffix, _)| suffix).to_owned(),
    };
    number + &suffix
}

/// Prints `digits` · 2^`exponent` / 10^`fraction`: with a binary suffix from 1024 on, unless that would lose a fraction.
fn binary(mut digits: Vec<u8>, exponent: i64, fraction: i64) -> String {
    for _ in 0..exponent / 10 {
        multiply(&mut digits, 1024);
    }
    let nanos = nanos(round_to_nano((digits, -fraction))).min(BINARY_MAX * GIGA);
    let (mut value, rest) = (nanos / GIGA, nanos % GIGA);
    if rest != 0 || value < 1024 {
        return decimal((nanos.to_string().bytes().map(|digit| digit - b'0').collect(), NANO), Format::Decimal);
    }
    let mut suffix = "";
    for (name, _) in BINARY_SUFFIXES {
        if value % 1024 != 0 {
            break;
        }
        value /= 1024;
        suffix = name;
    }
    format!("{value}{suffix}")
}

fn multiply(digits: &mut Vec<u8>, factor: u32) {
    let mut carry = 0;
    for digit in digits.iter_mut().rev() {
        carry += u32::from(*digit) * factor;
        *digit = last_digit(carry);
        carry /= 10;
    }
    while carry > 0 {
        digits.insert(0, last_digit(carry));
        carry /= 10;
    }
}

fn last_digit(number: u32) -> u8 {
    u8::try_from(number % 10).unwrap_or_default()
}

/// The number in billionths, saturating far above [`BINARY_MAX`].
fn nanos((digits, power): Number) -> u128 {
    let scaled = digits.iter().try_fold(0_u128, |sum, digit| sum.checked_mul(10)?.checked_add(u128::from(*digit)));
    let factor = u32::try_from(power - NANO).ok().and_then(|power| 10_u128.checked_pow(power));
    scaled.zip(factor).and_then(|(scaled, factor)| scaled.checked_mul(factor)).unwrap_or(u128::MAX)
}

#[cfg(test)]
mod tests {
    use super::value;

    #[test]
    fn a_quantity_is_a_whole_number_rounded_up() {
        let table =
            [("2", 2), ("512Mi", 536_870_912), ("1.5Gi", 1_610_612_736), ("1k", 1000), ("1e3", 1000), ("1500m", 2)];
        for (text, number) in table {
            assert_eq!(value(text), Some(number), "{text}");
        }
        for text in ["", "-1", "lots", "16Ei", "1e40"] {
            assert_eq!(value(text), None, "{text}");
        }
    }
}
