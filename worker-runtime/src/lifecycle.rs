//! Where a Worker process is between start and exit, as its probes and its parts see it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Time between the last new poll and the cut of the polls that still wait. A task that the server sends at the moment of
/// the cut is lost until its timeout: without this time that happened in nearly every drain under a stream of tasks,
/// whether the server was set to end polls by itself or not. A busy queue uses up all open polls within this time, and
/// a quiet one has no task to lose.
pub const POLL_SETTLE_TIME: Duration = Duration::from_secs(1);
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
    stop_polling: CancellationToken,
    abandon_tasks: CancellationToken,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            stage: watch::Sender::new(Stage::Starting),
            stop_polling: CancellationToken::new(),
            abandon_tasks: CancellationToken::new(),
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

    /// Waits until `stage` is reached.
    pub async fn reached(&self, stage: Stage) {
        let mut watcher = self.stage.subscribe();
        // Fails only when the sender is gone, and `self` holds it.
        let _ = watcher.wait_for(|current| *current >= stage).await;
    }

    /// Cancelled once the polls that still wait are cut.
    pub fn stop_polling(&self) -> CancellationToken {
        self.stop_polling.clone()
    }

    /// Cancelled once tasks that still run are given up.
    pub fn abandon_tasks(&self) -> CancellationToken {
        self.abandon_tasks.clone()
    }

    /// Drains within `timeout`: closes the door, cuts the polls, gives up what still runs at the end. Ends
    /// [`REPORT_TIME`] after the timeout; drop it when all tasks have ended before.
    pub async fn drain(&self, timeout: Duration) {
        let begun = Instant::now();
        self.reach(Stage::Draining);
        tokio::time::sleep(POLL_SETTLE_TIME.min(timeout)).await;
        self.stop_polling.cancel();
        tokio::time::sleep(timeout.saturating_sub(begun.elapsed())).await;
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
    async fn a_drain_cuts_polls_then_gives_up_tasks_then_ends() {
        let lifecycle = Lifecycle::default();
        let (stop, abandon) = (lifecycle.stop_polling(), lifecycle.abandon_tasks());
        let drain = tokio::spawn({
            let lifecycle = lifecycle.clone();
            async move { lifecycle.drain(Duration::from_millis(50)).await }
        });
        stop.cancelled().await;
        assert!(!abandon.is_cancelled());
        abandon.cancelled().await;
        assert!(!drain.is_finished(), "the reports have their time");
        drain.abort();
    }
}
