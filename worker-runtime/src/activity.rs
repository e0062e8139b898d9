//! One activity task: argument decoding, the handler, heartbeats, cancellation, and the report of its end.

use std::collections::HashMap;
use std::mem::take;
use std::sync::Arc;
use std::time::{Duration, Instant};

use temporalio_common::protos::coresdk::activity_result::ActivityExecutionResult;
use temporalio_common::protos::coresdk::activity_task::Start;
use temporalio_common::protos::coresdk::{ActivityHeartbeat, ActivityTaskCompletion};
use temporalio_common::protos::temporal::api::common::v1::Payload;
use temporalio_sdk_core::Worker;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::codec::CodecError;
use crate::devices::{Device, Devices};
use crate::encryption::Encryption;
use crate::handler::{Call, End, HandlerTable};
use crate::metrics::{Metrics, TaskType};
use crate::payload;
use crate::report::{Failed, Outcome, Reporter, Terms};
use crate::stop::{Reason, Stop};
use crate::trace::{self, Facts, Traces};

/// Longest time between two heartbeats, so that a cancellation arrives within it.
const MAX_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(30);

/// What every task of a Task Queue needs.
#[derive(Clone)]
pub struct Tasks {
    /// Name of the Task Queue.
    pub task_queue: String,
    /// Devices of the container.
    pub devices: Devices,
    /// How many of them its tasks are spread over; none without.
    pub device_count: Option<u32>,
    /// Who runs which activity type, now.
    pub handlers: watch::Receiver<Arc<HandlerTable>>,
    /// Where ends are reported.
    pub reporter: Reporter,
    /// Where ends are counted.
    pub metrics: Metrics,
    /// With what payloads are encrypted.
    pub encryption: Encryption,
    /// Where spans go.
    pub traces: Traces,
    /// Cancelled once the drain time is over.
    pub abandon: CancellationToken,
}

impl Tasks {
    /// Runs a task to its end, reports it, and then frees its slot. `asked` holds the server's wish to stop it.
    pub async fn run(
        &self,
        worker: &Worker,
        task_token: Vec<u8>,
        start: Start,
        asked: watch::Receiver<Option<Reason>>,
    ) {
        let (facts, begun) = (facts(&start), Instant::now());
        let trace = self.traces.begin(&self.trace_fields(&start), &self.task_queue, &facts);
        let stop = Stop::new(asked, self.abandon.clone());
        let (progress, details) = watch::channel(None);
        let interval = heartbeat_interval(&start);
        let heartbeats = self.heartbeats(worker, &task_token, interval, details);
        let outcome = tokio::select! {
            outcome = self.handle(start, (stop.clone(), progress, trace.fields())) => outcome,
            () = heartbeats => unreachable!("heartbeats have no end"),
        };
        self.note(&outcome, &facts, begun.elapsed(), &trace.id());
        tokio::select! {
            () = self.reporter.report(&task_token, &outcome) => {}
            // After a time-out nobody waits for the result.
            () = stop.forgotten() => {}
        }
        self.metrics.ended(&self.task_queue, TaskType::Activity, outcome.label());
        let reason = if let Outcome::Failed(failed) = &outcome { Some(failed.reason) } else { None };
        trace.end(outcome.label(), reason);
        // The server knows; core has to free the slot and forget the task.
        let result = Some(ActivityExecutionResult::will_complete_async());
        if let Err(error) = worker.complete_activity_task(ActivityTaskCompletion { task_token, result }).await {
            tracing::error!(%error, "core does not free the slot of an activity");
        }
    }

    /// One line of the log. A benign failure is nothing that somebody has to look at. Where payloads are encrypted, a
    /// message is for who has the keys: it may quote one.
    fn note(&self, outcome: &Outcome, facts: &Facts, took: Duration, trace_id: &str) {
        let (task_queue, outcome_label) = (self.task_queue.as_str(), outcome.label());
        let Facts { activity_type, activity_id, workflow_id, attempt, .. } = facts;
        let seconds = took.as_secs_f64();
        // The level of a line is fixed where it stands.
        macro_rules! line {
            ($level:ident, $reason:expr, $message:expr) => {
                tracing::$level!(
                    task_queue,
                    activity_type,
                    activity_id,
                    workflow_id,
                    attempt,
                    outcome = outcome_label,
                    reason = $reason,
                    seconds,
                    trace_id,
                    "{}",
                    $message
                )
            };
        }
        let Outcome::Failed(failed) = outcome else { return line!(debug, None::<&str>, "activity ended") };
        let Failed { reason, message, terms } = failed.as_ref();
        let message = if self.encryption.is_on() { "(the message is encrypted)" } else { message.as_str() };
        if terms.benign {
            line!(debug, *reason, format!("activity failed, as may be: {message}"));
        } else {
            line!(info, *reason, format!("activity failed: {message}"));
            self.metrics.failed(task_queue, reason);
        }
    }

    /// Fields of the trace context that came with a task; none where it can't be read: no task fails for it.
    fn trace_fields(&self, start: &Start) -> HashMap<String, String> {
        let field = start.header_fields.get(trace::HEADER).cloned();
        let opened = field.and_then(|field| self.encryption.open(vec![field]).ok()).unwrap_or_default();
        opened.first().and_then(|field| serde_json::from_slice(&field.data).ok()).unwrap_or_default()
    }

    /// Says for the handler that it runs, and hands on what it tells of its progress: the server notices a lost pod, keeps the
    /// details for the next attempt, and its answer carries a cancellation.
    async fn heartbeats(
        &self,
        worker: &Worker,
        task_token: &[u8],
        interval: Option<Duration>,
        mut details: watch::Receiver<Option<Payload>>,
    ) {
        let pause = async || match interval {
            Some(interval) => tokio::time::sleep(interval).await,
            None => std::future::pending().await,
        };
        loop {
            tokio::select! {
                () = pause() => {}
                Ok(()) = details.changed() => {}
                else => std::future::pending().await,
            }
            let details = details.borrow_and_update().iter().cloned().collect();
            let details = self.encryption.seal(details).unwrap_or_else(|error| {
                tracing::error!("details of a heartbeat can't be encrypted, and are left out: {error}");
                Vec::new()
            });
            worker.record_activity_heartbeat(ActivityHeartbeat { task_token: task_token.to_vec(), details });
        }
    }

    /// Decrypts what came with a task.
    fn open(&self, start: &mut Start) -> Result<(), CodecError> {
        start.input = self.encryption.open(take(&mut start.input))?;
        start.heartbeat_details = self.encryption.open(take(&mut start.heartbeat_details))?;
        Ok(())
    }

    async fn handle(&self, mut start: Start, (stop, progress, trace): ForCall) -> Outcome {
        let handlers = self.handlers.borrow().clone();
        let Some(handler) = handlers.get(&start.activity_type) else {
            return failed(
                "UnknownActivityType",
                format!(
                    "activity type {:?} has no handler on Task Queue {:?}, which runs {}; add it to activities, or \
                     start it on its own Task Queue",
                    start.activity_type,
                    self.task_queue,
                    handlers.activity_types().join(", ")
                ),
            );
        };
        if let Err(error) = self.open(&mut start) {
            return unreadable(&start.activity_type, &error);
        }
        let arguments = match payload::arguments(&start.input) {
            Ok(arguments) => arguments,
            Err(error) => return failed("ArgumentsInvalid", format!("{}: {error}", start.activity_type)),
        };
        let device = self.device_count.and_then(|count| self.devices.take(count));
        let call = Call {
            activity_type: start.activity_type,
            activity_id: start.activity_id,
            workflow_id: start.workflow_execution.map(|execution| execution.workflow_id).unwrap_or_default(),
            attempt: start.attempt,
            task_queue: self.task_queue.clone(),
            arguments,
            heartbeat: payload::first(&start.heartbeat_details),
            device: device.as_ref().map(Device::index),
            trace,
            stop,
            progress,
        };
        match handler.run(&call).await {
            End::Result(payload) => Outcome::Completed(payload),
            End::Failed(error) => {
                let (reason, message, terms) = (error.reason(), error.to_string(), error.terms());
                Outcome::Failed(Box::new(Failed { reason, message, terms }))
            }
            End::Stopped(reason) => stopped(reason),
        }
    }
}

/// What a call has beside what came with its task: its stop, where its progress goes, and its trace context.
type ForCall = (Stop, watch::Sender<Option<Payload>>, Vec<(&'static str, String)>);

fn facts(start: &Start) -> Facts {
    let execution = start.workflow_execution.clone().unwrap_or_default();
    Facts {
        activity_type: start.activity_type.clone(),
        activity_id: start.activity_id.clone(),
        workflow_id: execution.workflow_id,
        run_id: execution.run_id,
        attempt: start.attempt,
    }
}

fn failed(reason: &'static str, message: impl Into<String>) -> Outcome {
    Outcome::Failed(Box::new(Failed { reason, message: message.into(), terms: Terms::default() }))
}

/// A task whose payloads can't be decrypted. It is loud, for nothing is done until somebody heals it.
fn unreadable(activity_type: &str, error: &CodecError) -> Outcome {
    tracing::error!(activity_type, "payloads of an activity can't be decrypted: {error}");
    let terms = Terms { non_retryable: !error.is_retryable(), ..Terms::default() };
    let message = format!("{activity_type}: {error}");
    Outcome::Failed(Box::new(Failed { reason: "PayloadUnreadable", message, terms }))
}

/// What is reported of a task that was stopped.
fn stopped(reason: Reason) -> Outcome {
    match reason {
        Reason::Cancelled => Outcome::Cancelled,
        Reason::TimedOut | Reason::NotFound => Outcome::Forgotten,
        Reason::Paused => failed("ActivityPaused", "the activity was paused while it ran"),
        Reason::Reset => failed("ActivityReset", "the activity was reset while it ran"),
        Reason::WorkerShutdown => failed(
            "WorkerShutdown",
            "the Worker shuts down, and its drain timeout was over before the activity ended; another Worker runs it \
             again: raise the drain timeout if it needs longer",
        ),
    }
}

/// 2.5 heartbeats fit into the heartbeat timeout; none without one.
fn heartbeat_interval(start: &Start) -> Option<Duration> {
    let timeout = start.heartbeat_timeout.and_then(|timeout| Duration::try_from(timeout).ok())?;
    (!timeout.is_zero()).then(|| timeout.div_f64(2.5).min(MAX_HEARTBEAT_INTERVAL))
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

    #[test]
    fn the_reason_of_a_stop_decides_what_is_reported() {
        for (reason, label) in [
            (Reason::Cancelled, "cancelled"),
            (Reason::TimedOut, "forgotten"),
            (Reason::NotFound, "forgotten"),
            (Reason::Paused, "failed"),
            (Reason::Reset, "failed"),
            (Reason::WorkerShutdown, "failed"),
        ] {
            assert_eq!(stopped(reason).label(), label, "{reason:?}");
        }
    }
}
