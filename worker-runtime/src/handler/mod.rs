//! Handlers: what runs an activity. A program (`exec`) or a service in the same pod (`http`).

mod error;
mod exec;
mod failure;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod groups;
mod http;
mod limits;
mod line;
mod lines;
mod pool;
mod processes;
mod program;
mod table;
mod tree;

use temporalio_common::protos::temporal::api::common::v1::Payload;
use tokio::sync::watch;

pub use error::HandlerError;
pub use table::HandlerTable;
pub use tree::Programs;

use crate::stop::{Reason, Stop};

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
    /// Details of the last heartbeat of an earlier attempt, as JSON.
    pub heartbeat: Option<Vec<u8>>,
    /// Index of its device, where its Task Queue has devices.
    pub device: Option<u32>,
    /// Fields of its trace context.
    pub trace: Vec<(&'static str, String)>,
    /// When it is to stop.
    pub stop: Stop,
    /// Where details of heartbeats go.
    pub progress: watch::Sender<Option<Payload>>,
}

/// How a handler's work on a task ended.
#[derive(Debug)]
pub enum End {
    /// With a result.
    Result(Payload),
    /// Without one.
    Failed(HandlerError),
    /// It was stopped, for this reason.
    Stopped(Reason),
}

impl Call {
    /// What a handler may know about the task, in the words of the environment variables and headers.
    fn info(&self) -> Vec<(&'static str, String)> {
        let device = self.device.map(|index| ("DEVICE_INDEX", index.to_string()));
        let task = [
            ("ACTIVITY_TYPE", self.activity_type.clone()),
            ("ACTIVITY_ID", self.activity_id.clone()),
            ("WORKFLOW_ID", self.workflow_id.clone()),
            ("ACTIVITY_ATTEMPT", self.attempt.to_string()),
            ("TASK_QUEUE", self.task_queue.clone()),
        ];
        task.into_iter().chain(device).collect()
    }

    /// The same as variables of an environment, and the trace context.
    fn environment(&self) -> Vec<(String, String)> {
        let info = self.info().into_iter().map(|(name, value)| (format!("TEMPORAL_{name}"), value));
        let trace = self.trace.iter().map(|(name, value)| (name.to_ascii_uppercase(), value.clone()));
        info.chain(trace).collect()
    }
}

/// The beginning of an answer, for a message.
fn begin(output: &[u8]) -> String {
    const SHOWN: usize = 64;
    String::from_utf8_lossy(&output[..output.len().min(SHOWN)]).into_owned()
}
