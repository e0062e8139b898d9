//! Says in the log that the server is away when it goes and when it is back, and not at each call.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::Status;

/// Time between two lines that say that calls fail.
const QUIET: Duration = Duration::from_secs(30);

/// How the calls to the server go.
#[derive(Debug, Default)]
pub struct Outage(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When it was last said that calls fail.
    said: Option<Instant>,
    /// Calls that have failed since.
    failed: u64,
    /// Whether it was said, and not yet that calls go through again.
    away: bool,
}

impl Outage {
    /// A call did not get through.
    pub fn failed(&self, method: &str, status: &Status) {
        let said = self.0.lock().failed(Instant::now());
        if let Some(calls) = said {
            let code = status.code();
            tracing::warn!(method, ?code, calls, "calls to the Temporal server fail: {}", status.message());
        }
    }

    /// A call was answered.
    pub fn answered(&self) {
        if self.0.lock().answered() {
            tracing::info!("the Temporal server answers again");
        }
    }
}

impl State {
    /// How many calls have failed, when that is to be said.
    fn failed(&mut self, now: Instant) -> Option<u64> {
        self.failed += 1;
        if self.said.is_some_and(|said| now.duration_since(said) < QUIET) {
            return None;
        }
        self.said = Some(now);
        self.away = true;
        Some(std::mem::take(&mut self.failed))
    }

    /// Whether that is to be said.
    fn answered(&mut self) -> bool {
        std::mem::take(&mut self.away)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_away_is_said_when_it_goes_every_30_s_and_when_it_is_back() {
        let (mut state, begun) = (State::default(), Instant::now());
        assert!(!state.answered(), "it was never away");
        let said: Vec<_> = (0..65).filter_map(|second| state.failed(begun + Duration::from_secs(second))).collect();
        assert_eq!(said, [1, 30, 30]);
        assert_eq!([state.answered(), state.answered()], [true, false]);
    }

    #[test]
    fn one_that_comes_and_goes_is_said_no_more_often() {
        let (mut state, begun) = (State::default(), Instant::now());
        let mut said = (0, 0);
        for second in 0..60 {
            said.0 += u32::from(state.failed(begun + Duration::from_secs(second)).is_some());
            said.1 += u32::from(state.answered());
        }
        assert_eq!(said, (2, 2));
    }
}
