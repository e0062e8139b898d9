//! Handlers: what runs an activity. A program (`exec`) or a service in the same pod (`http`).

mod exec;
mod http;
mod table;

use std::time::Duration;

pub use table::HandlerTable;

/// Most bytes that a handler may answer with: the server's default limit of one payload.
pub const MAX_OUTPUT: usize = 2 * 1024 * 1024;
/// How much of a handler's standard error, or of a service's refusal, a failure carries: its last 4 KiB.
pub const MAX_DETAIL: usize = 4 * 1024;

/// One activity task, as a handler gets it.
#[derive(Clone, Debug)]
pub struct Call {
    /// Activity type.
    pub activity_type: String,
    /// Activity ID.
    pub activity_id: String,
    /// Workflow ID; empty for an activity without a Workflow.
    pub workflow_id: String,
    /// Attempt, from 1.
    pub attempt: u32,
    /// Task Queue that it came from.
    pub task_queue: String,
    /// Arguments as a JSON array.
    pub arguments: Vec<u8>,
}

impl Call {
    /// What a handler may know about the task, in the words of the environment variables and headers.
    fn info(&self) -> [(&'static str, String); 5] {
        [
            ("ACTIVITY_TYPE", self.activity_type.clone()),
            ("ACTIVITY_ID", self.activity_id.clone()),
            ("WORKFLOW_ID", self.workflow_id.clone()),
            ("ACTIVITY_ATTEMPT", self.attempt.to_string()),
            ("TASK_QUEUE", self.task_queue.clone()),
        ]
    }
}

/// Why a handler gave no result. Every one is retryable: a new image or configuration heals it.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// The program can't be started.
    #[error(
        "handler {handler:?}: exec.{field} is {value:?}, and can't be started: {cause}; put the program into the handler's image, with execute permission, or correct the field"
    )]
    NotStarted {
        /// Handler name.
        handler: String,
        /// Field of the handler that is to blame.
        field: &'static str,
        /// Its value.
        value: String,
        /// What the system said.
        cause: String,
    },
    /// The program ended with another exit code than 0, or by a signal.
    #[error("handler {handler:?} {end}; the end of its standard error: {stderr}")]
    Exited {
        /// Handler name.
        handler: String,
        /// How it ended.
        end: String,
        /// Last [`MAX_DETAIL`] bytes of its standard error.
        stderr: String,
    },
    /// The service answered with another status than 2xx.
    #[error("handler {handler:?}: {url} answered {status}: {body}")]
    Refused {
        /// Handler name.
        handler: String,
        /// Address of the service.
        url: String,
        /// HTTP status.
        status: u16,
        /// Up to [`MAX_DETAIL`] bytes of its body.
        body: String,
    },
    /// The service can't be reached, or broke off.
    #[error(
        "handler {handler:?}: http.url {url:?} gave no answer: {cause}; check that the service listens in the same pod on that port"
    )]
    Unreachable {
        /// Handler name.
        handler: String,
        /// Address of the service.
        url: String,
        /// What the client said.
        cause: String,
    },
    /// The answer is not JSON.
    #[error(
        "handler {handler:?} answered what is not one JSON value ({problem}); it begins with {begin:?}; print the result alone on standard output (or as the body), and everything else on standard error"
    )]
    NotJson {
        /// Handler name.
        handler: String,
        /// What the parser found.
        problem: String,
        /// First bytes of the answer.
        begin: String,
    },
    /// The answer is larger than [`MAX_OUTPUT`].
    #[error("handler {handler:?} answered more than {limit} bytes; keep the result in a store and return its address")]
    TooLarge {
        /// Handler name.
        handler: String,
        /// The limit.
        limit: usize,
    },
    /// The handler ran longer than its own limit.
    #[error(
        "handler {handler:?} ran longer than its timeout of {timeout:?}, and was stopped; make it faster, or raise the timeout"
    )]
    TimedOut {
        /// Handler name.
        handler: String,
        /// The limit.
        timeout: Duration,
    },
    /// The operating system failed while the program ran.
    #[error("handler {handler:?}: {cause}")]
    System {
        /// Handler name.
        handler: String,
        /// What failed.
        cause: String,
    },
}

impl HandlerError {
    /// Closed set of words: the failure's type in Temporal, and the `reason` label of the metric.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotStarted { .. } => "HandlerNotStarted",
            Self::Exited { .. } => "HandlerFailed",
            Self::Refused { .. } => "HandlerRefused",
            Self::Unreachable { .. } => "HandlerUnreachable",
            Self::NotJson { .. } => "HandlerOutputInvalid",
            Self::TooLarge { .. } => "HandlerOutputTooLarge",
            Self::TimedOut { .. } => "HandlerTimedOut",
            Self::System { .. } => "HandlerSystemError",
        }
    }
}

/// The beginning of an answer, for a message.
fn begin(output: &[u8]) -> String {
    const SHOWN: usize = 64;
    String::from_utf8_lossy(&output[..output.len().min(SHOWN)]).into_owned()
}
