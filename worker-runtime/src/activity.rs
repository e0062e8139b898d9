//! One activity task: argument decoding, the handler, heartbeats, cancellation, and the report of its end.

use std::sync::Arc;
use std::time::Duration;

use temporalio_common::protos::coresdk::activity_result::ActivityExecutionResult;
use temporalio_common::protos::coresdk::activity_task::{ActivityCancelReason, Start};
use temporalio_common::protos::coresdk::{ActivityHeartbeat, ActivityTaskCompletion};
use temporalio_sdk_core::Worker;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::handler::{Call, HandlerTable};
use crate::metrics::{Metrics, TaskType};
use crate::payload;
use crate::report::{Outcome, Reporter};

/// Longest time between two heartbeats, so that a cancellation arrives within it.
const MAX_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(30);

/// What every task of a Task Queue needs.
pub struct Tasks {
    /// Name of the Task Queue.
    pub task_queue: String,
    /// Who runs which activity type.
    pub handlers: Arc<HandlerTable>,
    /// Where ends are reported.
    pub reporter: Reporter,
    /// Where ends are counted.
    pub metrics: Metrics,
    /// Cancelled once the drain time is over.
    pub abandon: CancellationToken,
}

/// Why a task is to stop, as the server said it; none while it may run.
pub type Stop = watch::Receiver<Option<ActivityCancelReason>>;

impl Tasks {
    /// Runs a task to its end, reports it, and then frees its slot.
    pub async fn run(&self, worker: &Worker, task_token: Vec<u8>, start: Start, mut stop: Stop) {
        let heartbeats = heartbeats(worker, &task_token, heartbeat_interval(&start));
        let outcome = tokio::select! {
            outcome = self.outcome(start, &mut stop) => outcome,
            () = heartbeats => unreachable!("heartbeats have no end"),
        };
        if let Outcome::Failed { reason, message } = &outcome {
            tracing::info!(task_queue = self.task_queue, reason, "activity failed: {message}");
            self.metrics.failed(&self.task_queue, reason);
        }
        tokio::select! {
            () = self.reporter.report(&task_token, &outcome) => {}
            // After a time-out nobody waits for the result.
            () = forgotten(&mut stop) => {}
        }
        self.metrics.ended(&self.task_queue, TaskType::Activity, outcome.label());
        // The server knows; core has to free the slot and forget the task.
        let result = Some(ActivityExecutionResult::will_complete_async());
        if let Err(error) = worker.complete_activity_task(ActivityTaskCompletion { task_token, result }).await {
            tracing::error!(%error, "core does not free the slot of an activity");
        }
    }

    async fn outcome(&self, start: Start, stop: &mut Stop) -> Outcome {
        tokio::select! {
            biased;
            outcome = stopped(stop) => outcome,
            () = self.abandon.cancelled() => failed(
                "WorkerShutdown",
                "the Worker shuts down, and its drain timeout was over before the activity ended; another Worker runs \
                 it again: raise the drain timeout if it needs longer",
            ),
            outcome = self.handle(start) => outcome,
        }
    }

    async fn handle(&self, start: Start) -> Outcome {
        let Some(handler) = self.handlers.get(&start.activity_type) else {
            let known: Vec<_> = self.handlers.activity_types().collect();
            return failed(
                "UnknownActivityType",
                format!(
                    "activity type {:?} has no handler on Task Queue {:?}, which runs {}; add it to activities, or \
                     start it on its own Task Queue",
                    start.activity_type,
                    self.task_queue,
                    known.join(", ")
                ),
            );
        };
        let arguments = match payload::arguments(&start.input) {
            Ok(arguments) => arguments,
            Err(error) => return failed("ArgumentsInvalid", format!("{}: {error}", start.activity_type)),
        };
        let call = Call {
            activity_type: start.activity_type,
            activity_id: start.activity_id,
            workflow_id: start.workflow_execution.map(|execution| execution.workflow_id).unwrap_or_default(),
            attempt: start.attempt,
            task_queue: self.task_queue.clone(),
            arguments,
        };
        match handler.run(&call).await {
            Ok(payload) => Outcome::Completed(payload),
            Err(error) => failed(error.reason(), error.to_string()),
        }
    }
}

fn failed(reason: &'static str, message: impl Into<String>) -> Outcome {
    Outcome::Failed { reason, message: message.into() }
}

/// Waits for the server's wish to stop a task, and says what is to be reported then.
async fn stopped(stop: &mut Stop) -> Outcome {
    let Ok(reason) = stop.wait_for(Option::is_some).await.map(|reason| *reason) else {
        return std::future::pending().await;
    };
    match reason {
        Some(ActivityCancelReason::Paused) => failed("ActivityPaused", "the activity was paused while it ran"),
        Some(ActivityCancelReason::Reset) => failed("ActivityReset", "the activity was reset while it ran"),
        Some(ActivityCancelReason::NotFound | ActivityCancelReason::TimedOut) => Outcome::Forgotten,
        Some(ActivityCancelReason::Cancelled | ActivityCancelReason::WorkerShutdown) | None => Outcome::Cancelled,
    }
}

/// Waits until the server has given up on a task.
async fn forgotten(stop: &mut Stop) {
    let gone = |reason: &Option<ActivityCancelReason>| {
        matches!(reason, Some(ActivityCancelReason::NotFound | ActivityCancelReason::TimedOut))
    };
    if stop.wait_for(gone).await.is_err() {
        std::future::pending().await
    }
}

/// 2.5 heartbeats fit into the heartbeat timeout; none without one.
fn heartbeat_interval(start: &Start) -> Option<Duration> {
    let timeout = start.heartbeat_timeout.and_then(|timeout| Duration::try_from(timeout).ok())?;
    (!timeout.is_zero()).then(|| timeout.div_f64(2.5).min(MAX_HEARTBEAT_INTERVAL))
}

/// A handler reports no progress, so the runtime says for it that it runs: the server notices a lost pod, and its
/// answer carries a cancellation.
async fn heartbeats(worker: &Worker, task_token: &[u8], interval: Option<Duration>) {
    let Some(interval) = interval else { return std::future::pending().await };
    loop {
        tokio::time::sleep(interval).await;
        worker.record_activity_heartbeat(ActivityHeartbeat { task_token: task_token.to_vec(), details: Vec::new() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(heartbeat_timeout: Option<Duration>) -> Start {
        Start { heartbeat_timeout: heartbeat_timeout.map(|t| t.try_into().unwrap()), ..Start::default() }
    }

    #[test]
    fn heartbeats_fit_their_timeout() {
        assert_eq!(heartbeat_interval(&start(None)), None);
        assert_eq!(heartbeat_interval(&start(Some(Duration::ZERO))), None);
        assert_eq!(heartbeat_interval(&start(Some(Duration::from_secs(5)))), Some(Duration::from_secs(2)));
        assert_eq!(heartbeat_interval(&start(Some(Duration::from_secs(3600)))), Some(MAX_HEARTBEAT_INTERVAL));
    }

    #[tokio::test]
    async fn the_server_s_reason_decides_what_is_reported() {
        for (reason, label) in [
            (ActivityCancelReason::Cancelled, "cancelled"),
            (ActivityCancelReason::TimedOut, "forgotten"),
            (ActivityCancelReason::NotFound, "forgotten"),
            (ActivityCancelReason::Paused, "failed"),
            (ActivityCancelReason::Reset, "failed"),
        ] {
            let (_sender, mut stop) = watch::channel(Some(reason));
            assert_eq!(stopped(&mut stop).await.label(), label, "{reason:?}");
        }
    }
}
