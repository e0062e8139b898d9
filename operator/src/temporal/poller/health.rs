//! Whether a server answers at all.

use std::time::Duration;

use operator_core::observed::{FailureClass, TemporalFailure};
use tokio::time::Instant;

use super::timer::backoff;

/// Failures in a row, none of them answered, after which the server counts as down.
const DOWN_AFTER: u32 = 2;
const LONGEST_PROBE_PAUSE: Duration = Duration::from_secs(5);

/// Whether the server answers at all.
#[derive(Default)]
pub(super) struct Health {
    unanswered: u32,
    pub probe_at: Option<Instant>,
    pub failure: Option<TemporalFailure>,
}

impl Health {
    /// A call was answered. Says whether the server had been down.
    pub(super) fn answered(&mut self) -> bool {
        self.unanswered = 0;
        self.probe_at = None;
        self.failure.take().is_some()
    }

    /// A call failed in a way that all calls to this server would. Says whether the server is now down and was not
    /// before, or is down for another reason.
    pub(super) fn unanswered(&mut self, failure: &TemporalFailure, now: Instant) -> bool {
        self.unanswered += 1;
        if self.unanswered < DOWN_AFTER {
            return false;
        }
        self.probe_at = Some(now + backoff(self.unanswered - DOWN_AFTER, LONGEST_PROBE_PAUSE));
        let news = self.failure.as_ref().is_none_or(|before| before.class != failure.class);
        self.failure = Some(failure.clone());
        news
    }
}

/// Whether a failure is one of the server or the credentials, so that any other call would fail as well.
pub(super) fn is_general(class: FailureClass) -> bool {
    matches!(class, FailureClass::Unreachable | FailureClass::Unauthenticated | FailureClass::NamespaceNotFound)
}
