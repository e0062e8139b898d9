//! A pod's own word on whether it takes new tasks.

use operator_core::contract::{METRIC_CORDONED, METRIC_OPEN_POLLS};
use operator_core::observed::Cordon;

/// What a page says of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Word {
    cordoned: Option<f64>,
    open_polls: Option<f64>,
}

impl Word {
    /// Takes a sample by its name and what follows that. Says whether it was about this.
    pub(super) fn read(&mut self, name: &str, rest: &str) -> bool {
        let number = match name {
            METRIC_CORDONED => &mut self.cordoned,
            METRIC_OPEN_POLLS => &mut self.open_polls,
            _ => return false,
        };
        *number = rest.split_whitespace().next().and_then(|value| value.parse().ok());
        true
    }

    /// The word; none unless it is whole.
    pub(super) fn cordon(self) -> Option<Cordon> {
        match (self.cordoned?, self.open_polls?) {
            (cordoned, _) if cordoned < 1.0 => Some(Cordon::Open),
            (_, open_polls) if open_polls > 0.0 => Some(Cordon::Closing),
            (_, _) => Some(Cordon::Closed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(lines: &[(&str, &str)]) -> Option<Cordon> {
        let mut word = Word::default();
        for (name, rest) in lines {
            assert!(word.read(name, rest));
        }
        word.cordon()
    }

    #[test]
    fn a_pod_is_closed_once_it_is_cordoned_and_its_polls_have_ended() {
        let says = |cordoned, polls| word(&[(METRIC_CORDONED, cordoned), (METRIC_OPEN_POLLS, polls)]);
        assert_eq!(says(" 0", " 0"), Some(Cordon::Open));
        assert_eq!(says(" 1", " 2"), Some(Cordon::Closing));
        assert_eq!(says(" 1", " 0"), Some(Cordon::Closed));
    }

    #[test]
    fn half_a_word_is_none() {
        assert_eq!(word(&[(METRIC_CORDONED, " 1")]), None);
        assert_eq!(word(&[(METRIC_CORDONED, " 1"), (METRIC_OPEN_POLLS, " many")]), None);
        assert!(!Word::default().read("temporal_worker_runtime_slots_used", " 1"));
    }
}
