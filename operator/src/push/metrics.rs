//! How many calls came, and what became of them.

use prometheus::{IntCounterVec, Opts, Registry};

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A hint that this replica acted on.
    Accepted,
    /// A hint that the leader acted on.
    Relayed,
    /// A read that was answered.
    Read,
    /// The token was refused.
    Refused,
    /// The fleet had no call left.
    Limited,
    /// Nobody leads, or the key could not be had.
    Unavailable,
    /// The call is none that is served.
    Invalid,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Relayed => "relayed",
            Self::Read => "read",
            Self::Refused => "refused",
            Self::Limited => "limited",
            Self::Unavailable => "unavailable",
            Self::Invalid => "invalid",
        }
    }
}

/// Metrics of the endpoint.
#[derive(Clone)]
pub struct Metrics {
    calls: IntCounterVec,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// A name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let calls = IntCounterVec::new(
            Opts::new(
                "temporal_worker_operator_push_calls_total",
                "Calls of the push endpoint, by what became of them",
            ),
            &["outcome"],
        )?;
        registry.register(Box::new(calls.clone()))?;
        Ok(Self { calls })
    }

    pub(super) fn count(&self, outcome: Outcome) {
        self.calls.with_label_values(&[outcome.as_str()]).inc();
    }
}
