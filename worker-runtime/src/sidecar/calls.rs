//! What a call is to the sidecar, by the name of its method, and the parts of messages that it reads itself.
//!
//! Numbers of fields are those of `temporal/api/workflowservice/v1/request_response.proto`; a test compares them with what the
//! generated types write.

use std::time::Duration;

use bytes::Bytes;
use temporal_wire::{Fields, Malformed, Value, without};

use crate::metrics::TaskType;

/// What a call does with tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Asks for a task.
    Poll(TaskType),
    /// Says how a task ended; its token is in this field.
    Respond {
        /// Number of the field.
        token: u32,
        /// Word for the metrics.
        outcome: &'static str,
    },
    /// Says how a Workflow task ended, and may bring tasks.
    RespondWorkflow,
    /// Starts a Workflow, and may bring its first task.
    Start,
    /// Tells how many slots there are.
    Heartbeat,
    /// Anything else.
    Other,
}

/// A Task Queue and a kind of task.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lane {
    /// Name of the Task Queue.
    pub task_queue: String,
    /// Kind of task.
    pub task_type: TaskType,
}

/// What a poll asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poll {
    /// What it asks for.
    pub lane: Lane,
    /// Whether it asks for tasks of Workflows that the Worker has in its cache.
    pub sticky: bool,
}

/// A task that the server handed out.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// By which its end is told.
    pub token: Bytes,
    /// Time that it waited.
    pub waited: Option<Duration>,
    /// Time after which the server gives it to somebody else.
    pub timeout: Option<Duration>,
}

impl Call {
    /// The call of a method of the WorkflowService.
    pub fn of(path: &str) -> Self {
        let respond = |token, outcome| Self::Respond { token, outcome };
        match path.rsplit('/').next().unwrap_or_default() {
            "PollActivityTaskQueue" => Self::Poll(TaskType::Activity),
            "PollWorkflowTaskQueue" => Self::Poll(TaskType::Workflow),
            "PollNexusTaskQueue" => Self::Poll(TaskType::Nexus),
            "RespondActivityTaskCompleted" | "RespondQueryTaskCompleted" => respond(1, "completed"),
            "RespondActivityTaskFailed" | "RespondWorkflowTaskFailed" => respond(1, "failed"),
            "RespondActivityTaskCanceled" => respond(1, "cancelled"),
            "RespondNexusTaskCompleted" => respond(3, "completed"),
            "RespondNexusTaskFailed" => respond(3, "failed"),
            "RespondWorkflowTaskCompleted" => Self::RespondWorkflow,
            "StartWorkflowExecution" => Self::Start,
            "RecordWorkerHeartbeat" => Self::Heartbeat,
            _ => Self::Other,
        }
    }

    /// The same request without its wish for tasks that come with the answer; none when it has no such wish.
    ///
    /// # Errors
    /// It is no message.
    pub fn without_eager(self, request: &[u8]) -> Result<Option<Bytes>, Malformed> {
        match self {
            // commands, schedule_activity_task_command_attributes, request_eager_execution
            Self::RespondWorkflow => without(request, &[2, 2, 12]),
            // request_eager_execution
            Self::Start => without(request, &[17]),
            _ => Ok(None),
        }
    }

    /// The token of the task whose end a request tells, and a word for how it ended; none when it tells of none.
    ///
    /// # Errors
    /// It is no message.
    pub fn ends(self, request: &[u8]) -> Result<Option<(Bytes, &'static str)>, Malformed> {
        let (field, outcome) = match self {
            Self::Respond { token, outcome } => (token, outcome),
            Self::RespondWorkflow => (1, "completed"),
            _ => return Ok(None),
        };
        // A slice would keep the whole request.
        Ok(Some((Bytes::copy_from_slice(bytes_of(request, field)?), outcome)))
    }

    /// The tasks in an answer, with their kind; those of activities come from the Task Queue of the Workflow that asked for them.
    ///
    /// # Errors
    /// It is no message.
    pub fn tasks(self, answer: &Bytes) -> Result<Vec<(TaskType, Task)>, Malformed> {
        let mut tasks = Vec::new();
        let mut add = |task_type, bytes: &[u8]| {
            let task = Task::read(task_type, &answer.slice_ref(bytes))?;
            tasks.extend(task.map(|task| (task_type, task)));
            Ok::<_, Malformed>(())
        };
        match self {
            Self::Poll(task_type) => add(task_type, answer)?,
            Self::RespondWorkflow => {
                each(answer, |number, bytes| match number {
                    1 => add(TaskType::Workflow, bytes),
                    2 => add(TaskType::Activity, bytes),
                    _ => Ok(()),
                })?;
            }
            Self::Start => {
                each(answer, |number, bytes| if number == 2 { add(TaskType::Workflow, bytes) } else { Ok(()) })?;
            }
            Self::Respond { .. } | Self::Heartbeat | Self::Other => {}
        }
        Ok(tasks)
    }
}

/// Calls `see` with each field of bytes.
fn each<'a>(message: &'a [u8], mut see: impl FnMut(u32, &'a [u8]) -> Result<(), Malformed>) -> Result<(), Malformed> {
    for field in Fields::of(message) {
        let field = field?;
        if let Value::Bytes(bytes) = field.value {
            see(field.number, bytes)?;
        }
    }
    Ok(())
}

/// The last field of bytes with this number.
///
/// # Errors
/// It is no message.
pub fn bytes_of(message: &[u8], number: u32) -> Result<&[u8], Malformed> {
    let mut found = &[][..];
    each(message, |other, bytes| {
        if other == number {
            found = bytes;
        }
        Ok(())
    })?;
    Ok(found)
}

impl Poll {
    /// Reads the request of a poll.
    ///
    /// # Errors
    /// It is no message.
    pub fn read(task_type: TaskType, request: &[u8]) -> Result<Self, Malformed> {
        let queue = bytes_of(request, if task_type == TaskType::Nexus { 3 } else { 2 })?;
        let (mut name, mut normal, mut kind) = (&[][..], &[][..], 0);
        for field in Fields::of(queue) {
            let field = field?;
            match (field.number, field.value) {
                (1, Value::Bytes(bytes)) => name = bytes,
                (2, Value::Number(number)) => kind = number,
                (3, Value::Bytes(bytes)) => normal = bytes,
                _ => {}
            }
        }
        // TASK_QUEUE_KIND_STICKY
        let sticky = kind == 2;
        let name = if sticky && !normal.is_empty() { normal } else { name };
        let task_queue = String::from_utf8_lossy(name).into_owned();
        Ok(Self { lane: Lane { task_queue, task_type }, sticky })
    }
}

impl Task {
    /// Reads the answer to a poll; none when it brought no task.
    fn read(task_type: TaskType, answer: &Bytes) -> Result<Option<Self>, Malformed> {
        // scheduled (of this attempt), started, start_to_close_timeout
        let numbers = match task_type {
            TaskType::Activity => [11, 12, 15],
            TaskType::Workflow => [12, 13, 0],
            TaskType::Nexus => [0; 3],
        };
        let mut token = Bytes::new();
        let mut times = [None; 3];
        each(answer, |number, bytes| {
            if number == 1 {
                token = answer.slice_ref(bytes);
            }
            if let Some(position) = numbers.iter().position(|known| *known == number) {
                times[position] = Some(time(bytes)?);
            }
            Ok(())
        })?;
        let waited = times[0].zip(times[1]).map(|(scheduled, started)| started.saturating_sub(scheduled));
        let timeout = times[2].filter(|timeout| !timeout.is_zero());
        // The slice would keep the whole answer.
        let token = Bytes::copy_from_slice(&token);
        Ok((!token.is_empty()).then_some(Self { token, waited, timeout }))
    }
}

/// A `google.protobuf.Timestamp` after 1970, or a `google.protobuf.Duration`: both are seconds and nanoseconds.
fn time(message: &[u8]) -> Result<Duration, Malformed> {
    let (mut seconds, mut nanos) = (0, 0);
    for field in Fields::of(message) {
        let field = field?;
        match (field.number, field.value) {
            (1, Value::Number(number)) => seconds = i64::try_from(number).map_or(0, i64::unsigned_abs),
            (2, Value::Number(number)) => nanos = u32::try_from(number).unwrap_or(0).min(999_999_999),
            _ => {}
        }
    }
    Ok(Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests;
