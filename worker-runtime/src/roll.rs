//! The Workers of the process that poll: who of them may begin a poll, and whether core makes progress.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::slots::Gate;

/// Time without a poll, beginning or ending, after which core is stuck. A poll takes 11 seconds, and the longest wait after
/// one that failed is shorter than a minute.
const PATIENCE: Duration = Duration::from_secs(180);
/// Time between two looks at who should poll.
const LOOK: Duration = Duration::from_secs(5);

/// The Workers, by core's key of each. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Roll(Arc<Mutex<BTreeMap<String, Polling>>>);

#[derive(Debug)]
struct Polling {
    task_queue: String,
    gate: Gate,
    patience: Duration,
    /// Last beginning or end of a poll, or last moment at which none was due.
    at: Instant,
}

/// A Worker on the roll, until it is dropped.
#[derive(Debug)]
pub struct Entry {
    roll: Roll,
    key: String,
}

impl Roll {
    /// Puts a Worker on the roll. `rate` is the number of tasks a second that it takes at most: so rarely may it poll.
    pub fn enter(&self, key: String, task_queue: &str, gate: Gate, rate: Option<f64>) -> Entry {
        let between = rate.and_then(|rate| Duration::try_from_secs_f64(1.0 / rate).ok()).unwrap_or_default();
        let patience = PATIENCE.saturating_add(between);
        let polling = Polling { task_queue: task_queue.to_owned(), gate, patience, at: Instant::now() };
        self.0.lock().insert(key.clone(), polling);
        Entry { roll: self.clone(), key }
    }

    /// Whether a Worker may begin a poll. One that is not on the roll may.
    pub fn may_poll(&self, key: &str) -> bool {
        self.0.lock().get(key).is_none_or(|polling| !polling.gate.is_shut())
    }

    /// Notes that a poll of a Worker begins or ends.
    pub fn beat(&self, key: &str, now: Instant) {
        if let Some(polling) = self.0.lock().get_mut(key) {
            polling.at = now;
        }
    }

    /// A Task Queue that should be polled and has not been for too long, and for how long.
    pub fn stuck(&self, now: Instant) -> Option<(String, Duration)> {
        let mut roll = self.0.lock();
        roll.values_mut().find_map(|polling| {
            if !polling.gate.wants_polls() {
                polling.at = now;
            }
            let silence = now.saturating_duration_since(polling.at);
            (silence > polling.patience).then(|| (polling.task_queue.clone(), silence))
        })
    }

    /// Notes again and again who need not poll. Never returns.
    pub async fn keep(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Some((task_queue, silence)) = self.stuck(Instant::now()) {
                tracing::error!(
                    task_queue,
                    seconds = silence.as_secs(),
                    "core does not poll: the process is not alive"
                );
            }
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.roll.0.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cordon::Cordon;
    use crate::room::Room;

    #[test]
    fn a_worker_that_should_poll_and_does_not_is_stuck() {
        const SECOND: Duration = Duration::from_secs(1);
        let (roll, room) = (Roll::default(), Room::new(1, None));
        let gate = Gate::new(room.clone(), Cordon::default());
        let entry = roll.enter("w".to_owned(), "q", gate, None);
        let mut now = Instant::now();
        roll.beat("w", now);
        assert_eq!(roll.stuck(now + PATIENCE), None);
        now += PATIENCE;
        roll.beat("w", now);
        assert_eq!(roll.stuck(now + PATIENCE), None, "a poll is progress");
        assert_eq!(roll.stuck(now + PATIENCE + SECOND), Some(("q".to_owned(), PATIENCE + SECOND)));
        room.occupy();
        now += PATIENCE * 2;
        assert_eq!(roll.stuck(now), None, "with every slot taken it need not");
        room.vacate();
        assert_eq!(roll.stuck(now + PATIENCE), None, "and then it has its time");
        assert!(roll.stuck(now + PATIENCE + SECOND).is_some());
        drop(entry);
        assert_eq!(roll.stuck(now + PATIENCE * 2), None);
    }

    #[test]
    fn a_worker_with_a_shut_gate_may_not_poll() {
        let roll = Roll::default();
        let gate = Gate::new(Room::new(1, None), Cordon::default());
        let _entry = roll.enter("w".to_owned(), "q", gate.clone(), Some(0.01));
        assert!(roll.may_poll("w") && roll.may_poll("another"));
        gate.shut();
        assert!(!roll.may_poll("w") && roll.may_poll("another"));
    }
}
