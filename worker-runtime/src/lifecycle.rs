//! Where a Worker process is between start and exit, as its probes and its parts see it.

use std::process::{ExitCode, Termination};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Time after the drain timeout in which cancelled tasks are reported, before the process exits regardless.
const REPORT_TIME: Duration = Duration::from_secs(5);

/// Stages in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Connects, and registers its polls.
    Starting,
    /// Polls every Task Queue.
    Serving,
    /// Takes no further task, finishes those that run.
    Draining,
    /// Every task has ended.
    Drained,
}

/// The stage, and the signals that belong to it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    stage: watch::Sender<Stage>,
    abandon_tasks: CancellationToken,
    note: Arc<Mutex<Option<String>>>,
}

/// How the work of a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every task that was begun has ended by itself.
    Drained,
    /// The drain timeout was over: tasks were cancelled and handed back to the server.
    Cancelled,
    /// Some tasks did not even end then; their timeouts hand them to another Worker.
    Abandoned,
}

impl Ended {
    /// Exit code of the process: 0, 3 or 4. 1 is an error, 2 wrong arguments.
    pub fn code(self) -> u8 {
        match self {
            Self::Drained => 0,
            Self::Cancelled => 3,
            Self::Abandoned => 4,
        }
    }
}

impl Termination for Ended {
    fn report(self) -> ExitCode {
        self.code().into()
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            stage: watch::Sender::new(Stage::Starting),
            abandon_tasks: CancellationToken::new(),
            note: Arc::default(),
        }
    }
}

impl Lifecycle {
    /// The stage now.
    pub fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// Moves on to `stage`; never back.
    pub fn reach(&self, stage: Stage) {
        let moved = self.stage.send_if_modified(|current| {
            let forward = stage > *current;
            *current = stage.max(*current);
            forward
        });
        if moved {
            tracing::info!(?stage, "stage reached");
        }
    }

    /// Serves once more: who was drained beside this process was started anew.
    pub fn serve_again(&self) {
        tracing::info!("the drain is over: serving again");
        self.stage.send_replace(Stage::Serving);
    }

    /// Waits until it serves, and no drain has begun.
    pub async fn is_serving(&self) {
        // Fails only when the sender is gone, and `self` holds it.
        let _ = self.stage.subscribe().wait_for(|stage| *stage == Stage::Serving).await;
    }

    /// Waits until `stage` is reached.
    pub async fn reached(&self, stage: Stage) {
        let mut watcher = self.stage.subscribe();
        // Fails only when the sender is gone, and `self` holds it.
        let _ = watcher.wait_for(|current| *current >= stage).await;
    }

    /// Cancelled once tasks that still run are given up.
    pub fn abandon_tasks(&self) -> CancellationToken {
        self.abandon_tasks.clone()
    }

    /// Keeps something that whoever looks at the process should know.
    pub fn note(&self, note: Option<String>) {
        *self.note.lock() = note;
    }

    /// What was kept last.
    pub fn noted(&self) -> Option<String> {
        self.note.lock().clone()
    }

    /// Drains: what still runs after `timeout` is given up. Ends [`REPORT_TIME`] later; drop it when all tasks have
    /// ended before.
    pub async fn drain(&self, timeout: Duration) {
        self.reach(Stage::Draining);
        tokio::time::sleep(timeout).await;
        tracing::warn!(?timeout, "drain timeout: cancelling the tasks that still run");
        self.abandon_tasks.cancel();
        tokio::time::sleep(REPORT_TIME).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_never_go_back() {
        let lifecycle = Lifecycle::default();
        lifecycle.reach(Stage::Draining);
        lifecycle.reach(Stage::Serving);
        assert_eq!(lifecycle.stage(), Stage::Draining);
    }

    #[tokio::test]
    async fn a_drain_gives_up_tasks_after_its_timeout() {
        let lifecycle = Lifecycle::default();
        let abandon = lifecycle.abandon_tasks();
        let drain = tokio::spawn({
            let lifecycle = lifecycle.clone();
            async move { lifecycle.drain(Duration::from_millis(50)).await }
        });
        lifecycle.reached(Stage::Draining).await;
        assert!(!abandon.is_cancelled());
        abandon.cancelled().await;
        assert!(!drain.is_finished(), "the reports have their time");
        drain.abort();
    }
}
