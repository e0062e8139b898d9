//! The burst of work: starts the Workflow and watches until it is done and the fleets are gone.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;
use temporalio_protos::temporal::api::history::v1::HistoryEvent;
use temporalio_protos::temporal::api::history::v1::history_event::Attributes;

use super::fleets::Fleet;
use super::stage::Stage;
use super::table::Table;
use super::{FLEETS, NAMESPACE, THUMBNAILS, WORKFLOWS_QUEUE, all, watch};
use crate::programs::PICTURES;
use crate::workflows::{NewWorkflow, Workflows};

/// ID of the demo's Workflow.
pub const WORKFLOW_ID: &str = "make-thumbnails";
/// Width of the thumbnails, in pixels.
pub const WIDTH: u32 = 320;

/// Runs the burst; returns the fleets at its end.
///
/// # Errors
/// The Workflow can't be started or followed, or it takes too long.
pub async fn run(stage: &Stage, tasks: u32, table: &mut Table) -> Result<Vec<Fleet>> {
    let workflows = Workflows::connect(&stage.server.host_port(), NAMESPACE).await?;
    let input = json!({"pictures": tasks, "width": WIDTH, "different": PICTURES, "taskQueue": THUMBNAILS});
    let (id, workflow_type) = (WORKFLOW_ID, "MakeThumbnails");
    workflows.start(&NewWorkflow { id, workflow_type, task_queue: WORKFLOWS_QUEUE, input: &input }).await?;

    let (progress, closed) = (RefCell::new(Progress::default()), Cell::new(false));
    let follow = async {
        workflows.follow(WORKFLOW_ID, |event| progress.borrow_mut().read(event)).await?;
        closed.set(true);
        Ok(())
    };
    let note = || match (progress.borrow().done, closed.get()) {
        (done, false) => format!("{done} of {tasks} thumbnails done"),
        (_, true) => "the Workflow is done; the fleets go to zero when nothing came for a while".to_owned(),
    };
    // A slow, busy core takes seconds for a picture; the rest is for starting, checking and going to zero.
    let limit = Duration::from_secs(300 + 3 * u64::from(tasks));
    let is_gone = all(Fleet::is_gone);
    let watching = watch((stage, &FLEETS), table, limit, note, |fleets| closed.get() && is_gone(fleets));
    let (fleets, ()) = tokio::try_join!(watching, follow).context("the burst did not come to its end")?;
    Ok(fleets)
}

/// Thumbnails that are done.
#[derive(Default)]
struct Progress {
    scheduled: BTreeSet<i64>,
    done: usize,
}

impl Progress {
    fn read(&mut self, event: &HistoryEvent) {
        match &event.attributes {
            Some(Attributes::ActivityTaskScheduledEventAttributes(task))
                if task.task_queue.as_ref().is_some_and(|queue| queue.name == THUMBNAILS) =>
            {
                self.scheduled.insert(event.event_id);
            }
            Some(Attributes::ActivityTaskCompletedEventAttributes(task)) => {
                self.done += usize::from(self.scheduled.remove(&task.scheduled_event_id));
            }
            _ => {}
        }
    }
}
