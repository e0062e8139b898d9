//! Random numbers, one stream for each purpose.
//!
//! A stream of its own for each purpose keeps what one purpose draws out of the others' numbers: all policies see the same
//! arrivals and service times, and the n-th pod of a run has the same start-up time under each of them. The mathematical
//! functions come from a library, not from the platform, so that a seed means the same bytes everywhere.

use rand_pcg::Pcg64;
use rand_pcg::rand_core::Rng;

use crate::time::{Micros, count, micros};

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Times of arrival.
    Arrivals = 1,
    /// Service times.
    Service = 2,
    /// Start-up times of pods.
    StartUp = 3,
    /// Which free slot gets a task.
    Dispatch = 4,
    /// Identities of pods, by which a ReplicaSet breaks ties.
    Identity = 5,
    /// When in its interval a scrape happens.
    Scrape = 6,
    /// When in its interval a policy looks.
    Phase = 7,
    /// Which reads fail.
    Loss = 8,
    /// Which version gets a task.
    Routing = 9,
}

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Stream(Pcg64);

impl Stream {
    /// The stream of `seed` for `purpose`.
    #[must_use]
    pub fn new(seed: u64, purpose: Purpose) -> Self {
        // Neighbouring seeds must not give neighbouring states.
        let state = (u128::from(scramble(seed)) << 64) | u128::from(scramble(!seed));
        Self(Pcg64::new(state, purpose as u128))
    }

    /// Any 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        count(self.bits() >> 11) / count(1 << 53)
    }

    /// Uniform in [0, `bound`); 0 for a bound of 0.
    #[allow(clippy::cast_possible_truncation)]
    pub fn below(&mut self, bound: usize) -> usize {
        // The high half of a product: even to one part in 2^32 for any number of slots, and without a loop.
        ((u128::from(self.bits()) * bound as u128) >> 64) as usize
    }

    /// Uniform in [0, `time`).
    pub fn phase(&mut self, time: Micros) -> Micros {
        micros(self.unit() * crate::time::seconds(time))
    }

    /// Exponential with a mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * libm::log(1.0 - self.unit())
    }

    /// Lognormal with a median, and the standard deviation of its logarithm.
    pub fn lognormal(&mut self, median: f64, sigma: f64) -> f64 {
        median * libm::exp(sigma * self.normal())
    }

    /// Normal with mean 0 and standard deviation 1 (Box-Muller; the second number is left, so that one call is one draw).
    fn normal(&mut self) -> f64 {
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.unit()));
        radius * libm::cos(std::f64::consts::TAU * self.unit())
    }
}

/// The finaliser of SplitMix64.
fn scramble(seed: u64) -> u64 {
    let mut bits = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::{Purpose, Stream};

    fn mean(mut draw: impl FnMut() -> f64) -> f64 {
        (0..100_000).map(|_| draw()).sum::<f64>() / 100_000.0
    }

    #[test]
    fn a_seed_and_a_purpose_give_the_same_numbers_and_others_give_others() {
        let first = |seed, purpose| Stream::new(seed, purpose).bits();
        assert_eq!(first(1, Purpose::Arrivals), first(1, Purpose::Arrivals));
        assert_ne!(first(1, Purpose::Arrivals), first(2, Purpose::Arrivals));
        assert_ne!(first(1, Purpose::Arrivals), first(1, Purpose::Service));
    }

    #[test]
    fn the_distributions_have_their_means() {
        let mut stream = Stream::new(7, Purpose::Service);
        assert!((mean(|| stream.exponential(3.0)) - 3.0).abs() < 0.05);
        // exp(mu + sigma^2 / 2)
        let expected = 20.0 * libm::exp(0.3 * 0.3 / 2.0);
        assert!((mean(|| stream.lognormal(20.0, 0.3)) - expected).abs() < 0.1);
        assert!((mean(|| stream.unit()) - 0.5).abs() < 0.01);
    }

    #[test]
    fn a_bounded_number_reaches_each_value_and_not_the_bound() {
        let mut stream = Stream::new(7, Purpose::Dispatch);
        let mut seen = [0_u32; 3];
        (0..3_000).for_each(|_| seen[stream.below(3)] += 1);
        assert!(seen.iter().all(|times| (900..1_100).contains(times)), "{seen:?}");
        assert_eq!(stream.below(0), 0);
    }
}
