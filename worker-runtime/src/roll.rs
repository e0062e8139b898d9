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
    pub fn beat(&self, key: &str) {
        if let Some(polling) = self.0.lock().get_mut(key) {
            polling.at = Instant::now();
        }
    }

    /// A Task Queue that should be polled and has not been for too long, and for how long.
    pub fn stuck(&self) -> Option<(String, Duration)> {
        let mut roll = self.0.lock();
        roll.values_mut().find_map(|polling| {
            if !polling.gate.wants_polls() {
                polling.at = Instant::now();
            }
            let silence = polling.at.elapsed();
            (silence > polling.patience).then(|| (polling.task_queue.clone(), silence))
        })
    }

    /// Notes again and again who need not poll. Never returns.
    pub async fn keep(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Some((task_queue, silence)) = self.stuck() {
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

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_should_poll_and_does_not_is_stuck() {
        let (roll, room) = (Roll::default(), Room::new(1, None));
        let gate = Gate::new(room.clone(), Cordon::default());
        let entry = roll.enter("w".to_owned(), "q", gate.clone(), None);
        tokio::time::advance(PATIENCE).await;
        assert_eq!(roll.stuck(), None);
        roll.beat("w");
        tokio::time::advance(PATIENCE).await;
        assert_eq!(roll.stuck(), None, "a poll is progress");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(roll.stuck().map(|(queue, _)| queue).as_deref(), Some("q"));
        room.occupy();
        tokio::time::advance(PATIENCE * 2).await;
        assert_eq!(roll.stuck(), None, "with every slot taken it need not");
        room.vacate();
        assert_eq!(roll.stuck(), None, "and then it has its time");
        drop(entry);
        tokio::time::advance(PATIENCE * 2).await;
        assert_eq!(roll.stuck(), None);
    }

    #[tokio::test]
    async fn a_worker_with_a_shut_gate_may_not_poll() {
        let roll = Roll::default();
        let gate = Gate::new(Room::new(1, None), Cordon::default());
        let _entry = roll.enter("w".to_owned(), "q", gate.clone(), Some(0.01));
        assert!(roll.may_poll("w") && roll.may_poll("another"));
        gate.shut();
        assert!(!roll.may_poll("w") && roll.may_poll("another"));
    }
}
