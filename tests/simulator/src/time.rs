//! Time of a simulation: whole microseconds from its start, so that sums are exact and order is total.

/// A moment, or a length of time, in microseconds.
pub type Micros = u64;

/// One second.
pub const SECOND: Micros = 1_000_000;
/// Longest time that a workload may name: some 31 years. Sums of a few of them stay far from an overflow.
pub const LONGEST: f64 = 1e9;

/// `seconds` in microseconds, rounded; what is below zero or no number is zero, what is above [`LONGEST`] is that.
#[must_use]
pub fn micros(seconds: f64) -> Micros {
    if seconds.is_nan() {
        return 0;
    }
    // In range after the clamp.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    {
        (seconds.clamp(0.0, LONGEST) * 1e6 + 0.5) as Micros
    }
}

/// `time` in seconds.
#[must_use]
pub fn seconds(time: Micros) -> f64 {
    count(time) / 1e6
}

/// A count as a floating-point number. Counts here stay far below 2^53.
#[must_use]
#[allow(clippy::cast_precision_loss)]
pub fn count(number: u64) -> f64 {
    number as f64
}

/// The least whole number that is not below `value`, at most `most`; 0 for what is below zero or no number.
#[must_use]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub fn ceiling(value: f64, most: u32) -> u32 {
    // Truncation of a float saturates, and makes 0 of NaN.
    (libm::ceil(value) as u32).min(most)
}
